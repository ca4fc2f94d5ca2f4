"""Selection of training examples: a seeded, nested choice from the pool, without evaluation items and duplicates."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from capgap.distillation.config import DistillConfig
from capgap.distillation.config_keys import DataKeys
from capgap.distillation.data.encoding import Message
from capgap.distillation.data.overlap import find_near_duplicates
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
    n_near_duplicates: int
    """Further examples that are evaluation items in almost the same words; likewise."""
    n_repeated: int
    """Examples whose prompt and target occur before (in another format, mostly), and were left out."""
    n_dropped_for_no_steps: int = 0
    """Choice examples, which have no steps, left out where traces are asked for."""
    near_digests: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Where they were kept: a prompt of `examples` → digests of the evaluation prompts that it is near to."""

    def summary(self, data: DataKeys, *, n_unchecked: int = 0) -> str:
        """The counts in one line, for a note; `n_unchecked` tasks could not be compared."""
        parts = ", ".join(f"{count:,} {capability}" for capability, count in count_by_capability(self.examples).items())
        line = f"{len(self.examples):,} of {self.n_available:,} examples ({parts})"
        overlap_policy = "stay out" if data.overlap == "exclude" else "stay in, counted by x_exposure"
        if self.n_held_out:
            line += f"; {self.n_held_out:,} are evaluation items and {overlap_policy}"
        if self.n_near_duplicates:
            line += f"; {self.n_near_duplicates:,} are evaluation items in almost the same words and {overlap_policy}"
        if self.n_dropped_for_no_steps:
            line += f"; {self.n_dropped_for_no_steps:,} choice examples have no steps and stay out"
        if n_unchecked:
            line += f"; the items of {n_unchecked} tasks are not on this machine and were not compared"
        return line


def count_by_capability(examples: Iterable[TrainingExample]) -> dict[str, int]:
    """Number of examples of each capability; ``unknown`` where nobody said."""
    return dict(sorted(Counter(example.capability or "unknown" for example in examples).items()))


CompletedExample = tuple[TrainingExample, str]
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
    admitted_examples = _filter_by_diversity(pool, config)
    fitting = _generated_examples(admitted_examples, config) if config.text_kind.has_reasoning else admitted_examples
    questions = [example.question for example in fitting]
    held_out_prompts = set(held_out)
    items = sorted(held_out_prompts)
    # Indices in `fitting` of examples that are evaluation items, and of those that are near some: → indices in `items`.
    exact_overlaps = {index for index, question in enumerate(questions) if normalised(question) in held_out_prompts}
    near_items = find_near_duplicates(questions, items, threshold=config.data.near)
    near_items = {index: neighbours for index, neighbours in near_items.items() if index not in exact_overlaps}
    excluded = exact_overlaps | near_items.keys() if config.data.overlap == "exclude" else set()
    eligible_examples = [example for index, example in enumerate(fitting) if index not in excluded]
    # One question in two formats is one example; the generated form, which can have steps, stands for both.
    distinct: dict[str, TrainingExample] = {}
    for example in sorted(eligible_examples, key=lambda example: example.choices is not None):
        distinct.setdefault(normalised(f"{example.question}{example.task_format.delimiter}{example.target}"), example)
    ordered = sorted(distinct.values(), key=lambda example: _hash_for_ordering(example, config.effective_data_seed))
    n_wanted_examples = len(ordered) if config.n_examples is None else config.n_examples
    if not ordered or n_wanted_examples > len(ordered):
        n_excluded_examples = len(fitting) - len(eligible_examples)
        excluded_note = f" ({n_excluded_examples} more are evaluation items)" if n_excluded_examples else ""
        raise DistillError(
            f"{config.name}: n_examples asks for {max(n_wanted_examples, 1):,} examples, and the data have "
            f"{len(ordered):,}{excluded_note}. Ask for at most {len(ordered):,}, or give more data."
        )
    near_digests = {questions[index]: tuple(prompt_digest(items[n]) for n in near_items[index]) for index in near_items}
    return SelectedExamples(
        tuple(ordered[:n_wanted_examples]),
        n_available=len(ordered),
        n_held_out=len(exact_overlaps),
        n_near_duplicates=len(near_items),
        near_digests={} if excluded else near_digests,
        n_repeated=len(eligible_examples) - len(ordered),
        n_dropped_for_no_steps=len(admitted_examples) - len(fitting),
    )


def count_exposure(examples: Iterable[TrainingExample], near_digests: Mapping[str, tuple[str, ...]]) -> dict[str, int]:
    """How many examples touch a prompt, by its digest: its own examples, and those that are near it.

    Parameters
    ----------
    examples
        What a student learns from.
    near_digests
        Of `SelectedExamples`.
    """
    counts: Counter[str] = Counter()
    for example in examples:
        counts.update({prompt_digest(example.question), *near_digests.get(example.question, ())})
    return dict(sorted(counts.items()))


def data_hash(pairs: Iterable[tuple[str, str]]) -> str:
    """Hex digest of prompts and completions, whatever their order."""
    lines = sorted(json.dumps(pair, ensure_ascii=False) for pair in pairs)
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _filter_by_diversity(pool: Sequence[TrainingExample], config: DistillConfig) -> list[TrainingExample]:
    """The examples that the diversity admits."""
    if config.diversity == "universal":
        return list(pool)
    group_name = config.train_tasks or ""
    group_key = "task" if config.diversity == "single" else "capability"
    examples = [example for example in pool if getattr(example, group_key) == group_name]
    if not examples:
        known = {str(getattr(example, group_key)) for example in pool}
        raise DistillError(f"{config.name}: no example has {group_key} {group_name!r}.{suggestion(group_name, known)}")
    return examples


def _generated_examples(examples: Sequence[TrainingExample], config: DistillConfig) -> list[TrainingExample]:
    """The examples that an answer with steps can be given to: those whose answer is generated."""
    generated = [example for example in examples if example.choices is None]
    choice = next((example.task for example in examples if example.choices is not None), None)
    if choice is not None and (not generated or choice in (config.data.tasks or ())):
        raise DistillError(
            f"{config.name}: task {choice!r} is a choice, and a choice shows no steps. For texts "
            f"{config.text_kind_name} name tasks of format generate under data.tasks."
        )
    return generated


def _hash_for_ordering(example: TrainingExample, seed: int) -> bytes:
    """What examples are ordered by: a hash, so that the order is that of no file and a smaller choice is nested."""
    text = json.dumps([seed, example.task, example.item, example.question, example.target], ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
