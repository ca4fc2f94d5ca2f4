"""What a student learns from: examples, the choice among them, and what is kept out."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from capgap.distillation.config import DistillConfig
from capgap.distillation.data.encoding import Message
from capgap.distillation.data.overlap import near_items
from capgap.errors import DistillError, suggestion
from capgap.evaluation.exposure import normalised, prompt_digest

__all__ = ["TaskFormat", "SelectedExamples", "TrainingExample", "select_examples", "data_hash", "exposure"]


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
    asking: TaskFormat = field(default_factory=TaskFormat)
    """How its task is asked."""


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

    @property
    def by_capability(self) -> dict[str, int]:
        """Number of examples of each capability; ``unknown`` where nobody said."""
        return dict(sorted(Counter(example.capability or "unknown" for example in self.examples).items()))


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
    Chosen
        The first `n_examples` in a seeded order of the pool. The order is that of a hash of seed, task, item and
        text, so that a smaller choice is part of a greater one, and neither depends on the order of a file.

    Raises
    ------
    DistillError
        No task fits, or there are fewer examples than asked for.
    """
    of_tasks = _of_tasks(pool, config)
    fitting = _with_traces(of_tasks, config) if config.told in ("traces", "gold_traces") else of_tasks
    known = set(held_out)
    items = sorted(known)
    equal = {place for place, example in enumerate(fitting) if normalised(_asked(example)) in known}
    near = {
        place: found
        for place, found in near_items([_asked(one) for one in fitting], items, threshold=config.data.near).items()
        if place not in equal
    }
    out = equal | near.keys() if config.data.overlap == "exclude" else set()
    free = [example for place, example in enumerate(fitting) if place not in out]
    # One question in two formats is one example; the generated form, which can have steps, stands for both.
    by_text: dict[str, TrainingExample] = {}
    for example in sorted(free, key=lambda example: example.choices is not None):
        by_text.setdefault(normalised(f"{_asked(example)}{example.asking.delimiter}{example.target}"), example)
    ordered = sorted(by_text.values(), key=lambda example: _rank(example, config.effective_data_seed))
    wanted = len(ordered) if config.n_examples is None else config.n_examples
    if not ordered or wanted > len(ordered):
        left = f" ({len(fitting) - len(free)} more are evaluation items)" if len(free) < len(fitting) else ""
        raise DistillError(
            f"{config.name}: n_examples asks for {max(wanted, 1):,} examples, and the data have {len(ordered):,}{left}."
            f" Ask for at most {len(ordered):,}, or give more data."
        )
    touched = {_asked(fitting[place]): tuple(prompt_digest(items[n]) for n in found) for place, found in near.items()}
    return SelectedExamples(
        tuple(ordered[:wanted]),
        n_available=len(ordered),
        n_held_out=len(equal),
        n_near=len(near),
        touched={} if out else touched,
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
        counts.update({prompt_digest(_asked(example)), *touched.get(_asked(example), ())})
    return dict(sorted(counts.items()))


def data_hash(pairs: Iterable[tuple[str, str]]) -> str:
    """Hex digest of prompts and completions, whatever their order."""
    lines = sorted(json.dumps(pair, ensure_ascii=False) for pair in pairs)
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _of_tasks(pool: Sequence[TrainingExample], config: DistillConfig) -> list[TrainingExample]:
    """The examples that the diversity admits."""
    if config.diversity == "universal":
        return list(pool)
    word = config.train_tasks or ""
    attribute = "task" if config.diversity == "single" else "capability"
    found = [example for example in pool if getattr(example, attribute) == word]
    if not found:
        known = {str(getattr(example, attribute)) for example in pool}
        raise DistillError(f"{config.name}: no example has {attribute} {word!r}.{suggestion(word, known)}")
    return found


def _with_traces(examples: Sequence[TrainingExample], config: DistillConfig) -> list[TrainingExample]:
    """The examples that an answer with steps can be given to: those whose answer is generated."""
    kept = [example for example in examples if example.choices is None]
    choice = next((example.task for example in examples if example.choices is not None), None)
    if choice is not None and (not kept or choice in (config.data.tasks or ())):
        raise DistillError(
            f"{config.name}: task {choice!r} is a choice, and a choice shows no steps. For supervision "
            f"{config.told} name tasks of format generate under data.tasks."
        )
    return kept


def _asked(example: TrainingExample) -> str:
    """What identifies the question: the prompt, or a conversation up to its last answer."""
    if example.messages is None:
        return example.prompt
    return "\n".join(turn["content"] for turn in example.messages[:-1])


def _rank(example: TrainingExample, seed: int) -> bytes:
    text = json.dumps([seed, example.task, example.item, _asked(example), example.target], ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
