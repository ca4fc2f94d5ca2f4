"""Selection of training examples: a seeded, nested choice from the pool, without evaluation items and duplicates."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from capgap.distillation.config import DistillConfig
from capgap.distillation.config_keys import DataKeys
from capgap.distillation.data.encoding import Message
from capgap.distillation.data.overlap import near_items
from capgap.errors import DistillError, suggestion
from capgap.evaluation.exposure import normalised, prompt_digest


@dataclass(frozen=True)
class TaskFormat:
    """How a task is asked and its answer found; the same for all of its examples."""

    stop: tuple[str, ...] = ()
    """Texts that end an answer."""
    max_tokens: int = 512
    """Longest answer."""
    extract: str | None = None
    """Regular expression that finds the final answer in a text."""
    score: str = "exact"
    """Scorer of the battery: ``exact``, ``numeric`` …"""
    delimiter: str = " "
    """What stands between a prompt and its answer."""
    answer_prefix: str = " "
    """What stands between gold steps and their answer, where the steps do not end with it."""


@dataclass(frozen=True)
class TrainingExample:
    """A prompt and what to say to it."""

    item: str
    """Its id; unique within its task."""
    prompt: str
    """What the student is asked."""
    target: str
    """The gold answer as a direct answer would give it, without delimiter."""
    targets: tuple[str, ...] = ()
    """All gold answers that count; `target` among them."""
    rationale: str | None = None
    """Gold steps."""
    shot: str | None = None
    """The answer that this example would show as a solved example."""
    task: str = "file"
    """Task that it belongs to."""
    capability: str | None = None
    """``knowledge``, ``reasoning``, ``mixed``; None where nobody said."""
    choices: tuple[str, ...] | None = None
    """What a choice task offers."""
    messages: tuple[Message, ...] | None = None
    """A conversation instead of prompt and target."""
    task_format: TaskFormat = field(default_factory=TaskFormat)
    """How its task is asked."""

    @property
    def question(self) -> str:
        """What identifies it: the prompt, or a conversation up to its last answer."""
        if self.messages is None:
            return self.prompt
        return "\n".join(turn["content"] for turn in self.messages[:-1])


@dataclass(frozen=True)
class SelectedExamples:
    """The examples of one student, and what was left out."""

    examples: tuple[TrainingExample, ...]
    """In the order of the choice: the first n are the choice of n."""
    n_available: int
    """Examples that could have been chosen."""
    n_held_out: int
    """Examples that are also evaluation items, and were kept out, or kept and counted (`data.overlap`)."""
    n_near: int
    """Further examples that are evaluation items in almost the same words; likewise."""
    n_repeated: int
    """Examples whose prompt and target occur before (in another format, mostly), and were left out."""
    n_without_trace: int = 0
    """Choice examples, which have no steps, left out where traces are asked for."""
    touched: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Where they were kept: a prompt of `examples` → digests of the evaluation prompts that it is near to."""

    def summary(self, data: DataKeys, *, n_unchecked: int = 0) -> str:
        """The counts in one line, for a note; `n_unchecked` tasks could not be compared."""
        parts = ", ".join(f"{count:,} {capability}" for capability, count in count_by_capability(self.examples).items())
        line = f"{len(self.examples):,} of {self.n_available:,} examples ({parts})"
        treatment = "stay out" if data.overlap == "exclude" else "stay in, counted by x_exposure"
        if self.n_held_out:
            line += f"; {self.n_held_out:,} are evaluation items and {treatment}"
        if self.n_near:
            line += f"; {self.n_near:,} are evaluation items in almost the same words and {treatment}"
        if self.n_without_trace:
            line += f"; {self.n_without_trace:,} choice examples have no steps and stay out"
        if n_unchecked:
            line += f"; the items of {n_unchecked} tasks are not on this machine and were not compared"
        return line


def count_by_capability(examples: Iterable[TrainingExample]) -> dict[str, int]:
    """Number of examples of each capability; ``unknown`` where nobody said."""
    return dict(sorted(Counter(example.capability or "unknown" for example in examples).items()))


Pair = tuple[TrainingExample, str]
"""An example and the completion that is trained on."""


def select_examples(
    pool: Sequence[TrainingExample], config: DistillConfig, *, held_out: Iterable[str] = ()
) -> SelectedExamples:
    """The examples that a file asks for: of the right tasks, not in the evaluation, so many of them.

    Parameters
    ----------
    pool
        All examples of the data.
    config
        Says which tasks, how many, and the seed of the choice.
    held_out
        Prompts of evaluation items, `normalised`.

    Returns
    -------
    SelectedExamples
        The first `n_examples` in a seeded order of the pool. The order is that of a hash of seed, task, item and
        text, so that a smaller choice is part of a greater one, and neither depends on the order of a file.

    Raises
    ------
    DistillError
        No task fits, or there are fewer examples than asked for.
    """
    of_tasks = _admitted_examples(pool, config)
    fitting = _generated_examples(of_tasks, config) if config.text_kind.has_steps else of_tasks
    questions = [example.question for example in fitting]
    known = set(held_out)
    items = sorted(known)
    # Indices in `fitting` of examples that are evaluation items, and of those that are near some: → indices in `items`.
    equal = {index for index, question in enumerate(questions) if normalised(question) in known}
    near = near_items(questions, items, threshold=config.data.near)
    near = {index: neighbours for index, neighbours in near.items() if index not in equal}
    excluded = equal | near.keys() if config.data.overlap == "exclude" else set()
    free = [example for index, example in enumerate(fitting) if index not in excluded]
    # One question in two formats is one example; the generated form, which can have steps, stands for both.
    by_text: dict[str, TrainingExample] = {}
    for example in sorted(free, key=lambda example: example.choices is not None):
        by_text.setdefault(normalised(f"{example.question}{example.task_format.delimiter}{example.target}"), example)
    ordered = sorted(by_text.values(), key=lambda example: _rank(example, config.effective_data_seed))
    n_wanted = len(ordered) if config.n_examples is None else config.n_examples
    if not ordered or n_wanted > len(ordered):
        n_held = len(fitting) - len(free)
        more = f" ({n_held} more are evaluation items)" if n_held else ""
        raise DistillError(
            f"{config.name}: n_examples asks for {max(n_wanted, 1):,} examples, and the data have "
            f"{len(ordered):,}{more}. Ask for at most {len(ordered):,}, or give more data."
        )
    touched = {questions[index]: tuple(prompt_digest(items[n]) for n in near[index]) for index in near}
    return SelectedExamples(
        tuple(ordered[:n_wanted]),
        n_available=len(ordered),
        n_held_out=len(equal),
        n_near=len(near),
        touched={} if excluded else touched,
        n_repeated=len(free) - len(ordered),
        n_without_trace=len(of_tasks) - len(fitting),
    )


def exposure(examples: Iterable[TrainingExample], touched: Mapping[str, tuple[str, ...]]) -> dict[str, int]:
    """How many examples touch a prompt, by its digest: its own examples, and those that are near it.

    Parameters
    ----------
    examples
        What a student learns from.
    touched
        Of `SelectedExamples`.
    """
    counts: Counter[str] = Counter()
    for example in examples:
        counts.update({prompt_digest(example.question), *touched.get(example.question, ())})
    return dict(sorted(counts.items()))


def data_hash(pairs: Iterable[tuple[str, str]]) -> str:
    """Hex digest of prompts and completions, whatever their order."""
    lines = sorted(json.dumps(pair, ensure_ascii=False) for pair in pairs)
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _admitted_examples(pool: Sequence[TrainingExample], config: DistillConfig) -> list[TrainingExample]:
    """The examples that the diversity admits."""
    if config.diversity == "universal":
        return list(pool)
    admitted = config.train_tasks or ""
    attribute = "task" if config.diversity == "single" else "capability"
    examples = [example for example in pool if getattr(example, attribute) == admitted]
    if not examples:
        known = {str(getattr(example, attribute)) for example in pool}
        raise DistillError(f"{config.name}: no example has {attribute} {admitted!r}.{suggestion(admitted, known)}")
    return examples


def _generated_examples(examples: Sequence[TrainingExample], config: DistillConfig) -> list[TrainingExample]:
    """The examples that an answer with steps can be given to: those whose answer is generated."""
    generated = [example for example in examples if example.choices is None]
    choice = next((example.task for example in examples if example.choices is not None), None)
    if choice is not None and (not generated or choice in (config.data.tasks or ())):
        raise DistillError(
            f"{config.name}: task {choice!r} is a choice, and a choice shows no steps. For texts "
            f"{config.effective_texts} name tasks of format generate under data.tasks."
        )
    return generated


def _rank(example: TrainingExample, seed: int) -> bytes:
    """What examples are ordered by: a hash, so that the order is that of no file and a smaller choice is nested."""
    text = json.dumps([seed, example.task, example.item, example.question, example.target], ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
