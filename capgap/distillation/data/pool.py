"""All the examples that a file's data offer, and the prompts of its evaluation that must stay out."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capgap.distillation.config import DistillConfig
from capgap.distillation.data.jsonl import example_file, hub_examples, hub_records, read_examples
from capgap.distillation.data.selection import TaskFormat, TrainingExample
from capgap.errors import BatteryError, DistillError, suggestion
from capgap.evaluation.exposure import normalised

if TYPE_CHECKING:
    from capgap.battery import Battery
    from capgap.battery.battery_spec import DataTask, LmEvalTask

__all__ = ["ExamplePool", "gather_examples", "source_digest"]

_DEFAULT_STOP = ("\n",)
_DEFAULT_MAX_TOKENS = 256


@dataclass(frozen=True)
class ExamplePool:
    """What there is to learn from."""

    examples: tuple[TrainingExample, ...]
    """Every example of the data."""
    held_out: frozenset[str]
    """Prompts of evaluation items, `normalised`."""
    unchecked: tuple[str, ...] = ()
    """Tasks of lm-eval whose data are not on this machine, so that their prompts could not be compared."""


def gather_examples(config: DistillConfig, *, folder: Path) -> ExamplePool:
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
        return ExamplePool(tuple(read_examples(data, folder=folder)), held_out, unchecked)
    if data.hub is not None:
        return ExamplePool(tuple(hub_examples(data)), held_out, unchecked)
    assert data.battery is not None
    return ExamplePool(tuple(_examples(batteries[data.battery], data.tasks)), held_out, unchecked)


def source_digest(config: DistillConfig, *, folder: Path) -> str:
    """Hash of the files that the examples come from."""
    if config.data.battery is not None:
        return _load(config.data.battery, folder).hash
    if config.data.hub is not None:
        whole = hashlib.sha256()
        for record, _, _ in hub_records(config.data):
            whole.update(json.dumps(record, sort_keys=True, default=str).encode("utf-8", "surrogatepass") + b"\n")
        return whole.hexdigest()
    with example_file(config.data, folder=folder).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _battery_names(config: DistillConfig) -> list[str]:
    names = [config.data.battery] if config.data.battery else []
    if config.evaluate is not None:
        named = config.evaluate.battery
        names += [named] if isinstance(named, str) else list(named)
    return list(dict.fromkeys(names))


def _load(name: str, folder: Path) -> "Battery":
    """A battery by name, by a path from here, or by a path from the distillation file."""
    from capgap.battery import load_battery

    return load_battery(folder / name if not Path(name).exists() and (folder / name).is_file() else name)


def _examples(battery: "Battery", names: Sequence[str] | None) -> Iterable[TrainingExample]:
    from capgap.battery.battery_spec import DataTask

    tasks = {task.name: task for task in battery.tasks}
    for name in names or ():
        if name not in tasks:
            raise DistillError(f"battery {battery.name}: {name!r} is no task of it.{suggestion(name, tasks)}")
    n_found = 0
    for name in names or tasks:
        task = tasks[name]
        found = list(_own_examples(battery, task) if isinstance(task, DataTask) else _harness_examples(battery, task))
        if not found and names:
            trainable = [t.name for t in battery.tasks if isinstance(t, DataTask) and t.data.train is not None]
            raise DistillError(
                f"battery {battery.name}: task {name!r} has no training part.{suggestion(name, trainable)}"
            )
        n_found += len(found)
        yield from found
    if not n_found:
        raise DistillError(f"battery {battery.name}: no task has a training part. Give one under data: {{train: …}}.")


def _own_examples(battery: "Battery", task: "DataTask") -> Iterable[TrainingExample]:
    from capgap.battery import training_items

    if task.data.train is None:
        return
    asking = TaskFormat(
        stop=tuple(task.stop) if task.stop is not None else _DEFAULT_STOP,
        max_tokens=task.max_tokens or _DEFAULT_MAX_TOKENS,
        extract=task.extract,
        score=task.scoring,
        delimiter=" " if task.delimiter is None else task.delimiter,
    )
    for item in training_items(battery, task=task.name):
        yield _example(item, asking)


def _harness_examples(battery: "Battery", task: "LmEvalTask") -> Iterable[TrainingExample]:
    """Examples of lm-eval's training splits; how they are asked is in its tasks."""
    from capgap.battery.lm_eval_groups import lm_eval_training_items

    items = lm_eval_training_items(battery, task)
    if not items:
        return
    asked = {made.name: made for made in _prepared(battery, task)}
    for item in items:
        made = asked[item.task]
        delimiter = str(made.lm_task.get_config("target_delimiter") or "")
        asking = TaskFormat(
            stop=made.stop or _DEFAULT_STOP,
            max_tokens=made.max_tokens or _DEFAULT_MAX_TOKENS,
            score=made.score or "external",
            delimiter=delimiter,
        )
        yield _example(item, asking)


def _prepared(battery: "Battery", task: Any) -> list[Any]:
    from capgap.battery import prepare

    return [*prepare(replace(battery, tasks=(task,)))]


def _example(item: Any, asking: TaskFormat) -> TrainingExample:
    target = item.choices[item.gold[0]] if item.choices is not None else item.targets[0]
    return TrainingExample(
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
    """Prompts of all items of own tasks in all their variants, of what is evaluated of lm-eval's, and the rest."""
    from capgap.battery.battery_spec import DataTask
    from capgap.battery.items import make_items

    prompts: set[str] = set()
    unchecked: list[str] = []
    for battery in batteries:
        for task in battery.tasks:
            if isinstance(task, DataTask):
                made = make_items(task, battery.rows(task), battery.where(task))
                prompts.update(normalised(item.prompt) for items in made.values() for item in items)
                continue
            try:
                asked = _prepared(battery, task)
            except BatteryError:  # its data are not here; a run that needs them says so itself
                unchecked.append(task.name)
                continue
            prompts.update(normalised(item.prompt) for one in asked for item in one.items)
    return frozenset(prompts), tuple(unchecked)
