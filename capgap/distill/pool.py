"""All the examples that a file's data offer, and the prompts of its evaluation that must stay out."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capgap.distill.config import Config
from capgap.distill.data import Asking, Example, normalised
from capgap.distill.jsonl import example_file, read_examples
from capgap.errors import DistillError, suggestion

if TYPE_CHECKING:
    from capgap.battery import Battery

__all__ = ["Pool", "gather", "source_digest"]

_DEFAULT_STOP = ("\n",)
_DEFAULT_MAX_TOKENS = 256


@dataclass(frozen=True)
class Pool:
    """What there is to learn from."""

    examples: tuple[Example, ...]
    """Every example of the data."""
    held_out: frozenset[str]
    """Prompts of evaluation items, `normalised`."""
    unchecked: tuple[str, ...] = ()
    """Tasks of the evaluation whose prompts are lm-eval's own and were not compared."""


def gather(config: Config, *, folder: Path) -> Pool:
    """The examples of ``data`` and the prompts of the batteries that the student will meet.

    Parameters
    ----------
    config
        The distillation file.
    folder
        Where it lies; relative files count from there.

    Raises
    ------
    DistillError, BatteryError
        A file, battery or task is missing or wrong.
    """
    data = config.data
    batteries = {name: _load(name, folder) for name in _battery_names(config)}
    held_out, unchecked = _held_out(batteries.values())
    if data.file is not None:
        return Pool(tuple(read_examples(data, folder=folder)), held_out, unchecked)
    assert data.battery is not None
    return Pool(tuple(_examples(batteries[data.battery], data.tasks)), held_out, unchecked)


def source_digest(config: Config, *, folder: Path) -> str:
    """Hash of the files that the examples come from."""
    if config.data.battery is not None:
        return _load(config.data.battery, folder).hash
    with example_file(config.data, folder=folder).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _battery_names(config: Config) -> list[str]:
    names = [config.data.battery] if config.data.battery else []
    if config.evaluate is not None:
        named = config.evaluate.battery
        names += [named] if isinstance(named, str) else list(named)
    return list(dict.fromkeys(names))


def _load(name: str, folder: Path) -> "Battery":
    """A battery by name, by a path from here, or by a path from the distillation file."""
    from capgap.battery import load_battery

    return load_battery(folder / name if not Path(name).exists() and (folder / name).is_file() else name)


def _examples(battery: "Battery", names: Sequence[str] | None) -> Iterable[Example]:
    from capgap.battery import training_items

    trainable = {task.name: task for task in battery.tasks if _has_train(task)}
    if not trainable:
        raise DistillError(
            f"battery {battery.name}: no task has a training part. Give one under data: {{file: …, train: …}}."
        )
    for name in names or ():
        if name not in trainable:
            what = "has no training part" if any(t.name == name for t in battery.tasks) else "is no task of it"
            raise DistillError(f"battery {battery.name}: {name!r} {what}.{suggestion(name, trainable)}")
    for name in names or trainable:
        asking = _asking(trainable[name])
        for item in training_items(battery, task=name):
            yield _example(item, asking)


def _has_train(task: Any) -> bool:
    return getattr(getattr(task, "data", None), "train", None) is not None


def _asking(task: Any) -> Asking:
    return Asking(
        stop=tuple(task.stop) if task.stop is not None else _DEFAULT_STOP,
        max_tokens=task.max_tokens or _DEFAULT_MAX_TOKENS,
        extract=task.extract,
        score=task.scoring,
        delimiter=" " if task.delimiter is None else task.delimiter,
    )


def _example(item: Any, asking: Asking) -> Example:
    target = item.choices[item.gold[0]] if item.choices is not None else item.targets[0]
    return Example(
        item=item.item,
        prompt=item.prompt,
        target=target,
        targets=item.targets,
        rationale=item.rationale,
        shot=item.shot,
        task=item.task,
        capability=item.capability,
        choices=item.choices,
        asking=asking,
    )


def _held_out(batteries: Iterable["Battery"]) -> tuple[frozenset[str], tuple[str, ...]]:
    """Prompts of all the items of all own tasks, in all their variants; and the tasks that are lm-eval's."""
    from capgap.battery.items import make_items
    from capgap.battery.spec import OwnTask

    prompts: set[str] = set()
    unchecked: list[str] = []
    for battery in batteries:
        for task in battery.tasks:
            if not isinstance(task, OwnTask):
                unchecked.append(task.name)
                continue
            made = make_items(task, battery.rows(task), battery.where(task))
            prompts.update(normalised(item.prompt) for items in made.values() for item in items)
    return frozenset(prompts), tuple(unchecked)
