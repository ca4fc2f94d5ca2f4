"""The pool of training examples that a file's data offer, and the evaluation prompts that are held out of it."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capgap.battery import Battery, load_battery, training_items
from capgap.battery.battery_spec import CustomTask, LmEvalTask
from capgap.battery.data_source import sha256
from capgap.battery.items import make_items
from capgap.battery.lm_eval_groups import lm_eval_training_items
from capgap.battery.task_preparation import prepare_task
from capgap.distillation.config import DistillConfig
from capgap.distillation.data.jsonl import example_file, load_hub_examples, load_hub_records, read_examples
from capgap.distillation.data.selection import TaskFormat, TrainingExample
from capgap.errors import BatteryError, DistillError, suggestion
from capgap.evaluation.exposure import normalised

_DEFAULT_STOP = ("\n",)
_DEFAULT_MAX_TOKENS = 256


@dataclass(frozen=True)
class ExamplePool:
    """What there is to learn from."""

    examples: tuple[TrainingExample, ...]
    """Every example of the data."""
    held_out: frozenset[str]
    """Prompts of evaluation items, `normalised`."""
    unchecked_tasks: tuple[str, ...] = ()
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
    batteries = {name: _load_named_battery(name, folder) for name in _battery_names(config)}
    held_out, unchecked_tasks = _gather_held_out_prompts(batteries.values())
    if data.file is not None:
        return ExamplePool(tuple(read_examples(data, folder=folder)), held_out, unchecked_tasks)
    if data.hub is not None:
        return ExamplePool(tuple(load_hub_examples(data)), held_out, unchecked_tasks)
    assert data.battery is not None
    return ExamplePool(tuple(_read_battery_examples(batteries[data.battery], data.tasks)), held_out, unchecked_tasks)


def source_digest(config: DistillConfig, *, folder: Path) -> str:
    """Hash of the files that the examples come from."""
    if config.data.battery is not None:
        return _load_named_battery(config.data.battery, folder).hash
    if config.data.hub is not None:
        digest = hashlib.sha256()
        for record, _, _ in load_hub_records(config.data):
            digest.update(json.dumps(record, sort_keys=True, default=str).encode("utf-8", "surrogatepass") + b"\n")
        return digest.hexdigest()
    return sha256(example_file(config.data, folder=folder))


def _battery_names(config: DistillConfig) -> list[str]:
    """The batteries of the data and of the evaluation, each once."""
    tested_batteries = config.evaluate.battery if config.evaluate is not None else ()
    names = [config.data.battery, *([tested_batteries] if isinstance(tested_batteries, str) else tested_batteries)]
    return list(dict.fromkeys(name for name in names if name))


def _load_named_battery(name: str, folder: Path) -> Battery:
    """A battery by name, by a path from here, or by a path from the distillation file."""
    return load_battery(folder / name if not Path(name).exists() and (folder / name).is_file() else name)


def _read_battery_examples(battery: Battery, names: Sequence[str] | None) -> Iterable[TrainingExample]:
    """The training parts of the named tasks, or of all that have one."""
    tasks = {task.name: task for task in battery.tasks}
    for name in names or ():
        if name not in tasks:
            raise DistillError(f"battery {battery.name}: {name!r} is no task of it.{suggestion(name, tasks)}")
    n_examples = 0
    for name in names or tasks:
        task = tasks[name]
        examples = list(
            _custom_task_examples(battery, task) if isinstance(task, CustomTask) else _harness_examples(battery, task)
        )
        if not examples and names:
            trainable = [t.name for t in battery.tasks if isinstance(t, CustomTask) and t.data.train is not None]
            name_suggestion = suggestion(name, trainable)
            raise DistillError(f"battery {battery.name}: task {name!r} has no training part.{name_suggestion}")
        n_examples += len(examples)
        yield from examples
    if not n_examples:
        raise DistillError(f"battery {battery.name}: no task has a training part. Give one under data: {{train: …}}.")


def _custom_task_examples(battery: Battery, task: CustomTask) -> Iterable[TrainingExample]:
    if task.data.train is None:
        return
    task_format = TaskFormat(
        stop=tuple(task.stop) if task.stop is not None else _DEFAULT_STOP,
        max_tokens=task.max_tokens or _DEFAULT_MAX_TOKENS,
        extract=task.extract,
        score=task.score_name,
        delimiter=" " if task.delimiter is None else task.delimiter,
    )
    for item in training_items(battery, task=task.name):
        yield _item_to_example(item, task_format)


def _harness_examples(battery: Battery, task: LmEvalTask) -> Iterable[TrainingExample]:
    """Examples of lm-eval's training splits; how they are asked is in its tasks."""
    items = lm_eval_training_items(battery, task)
    if not items:
        return
    prepared_tasks = {task.name: task for task in prepare_task(battery, task)}
    for item in items:
        subtask = prepared_tasks[item.task]
        task_format = TaskFormat(
            stop=subtask.stop or _DEFAULT_STOP,
            max_tokens=subtask.max_tokens or _DEFAULT_MAX_TOKENS,
            score=subtask.score or "external",
            delimiter=str(subtask.lm_task.get_config("target_delimiter") or ""),
        )
        yield _item_to_example(item, task_format)


def _item_to_example(item: Any, task_format: TaskFormat) -> TrainingExample:
    """An item of a battery as a training example."""
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
        task_format=task_format,
    )


def _gather_held_out_prompts(batteries: Iterable[Battery]) -> tuple[frozenset[str], tuple[str, ...]]:
    """Prompts of all items of own tasks in all their variants, of what is evaluated of lm-eval's, and the rest."""
    prompts: set[str] = set()
    unchecked_tasks: list[str] = []
    for battery in batteries:
        for task in battery.tasks:
            if isinstance(task, CustomTask):
                items_by_variant = make_items(task, battery.rows(task), battery.where(task))
                prompts.update(normalised(item.prompt) for items in items_by_variant.values() for item in items)
                continue
            try:
                prepared_tasks = prepare_task(battery, task)
            except BatteryError:  # its data are not here; a run that needs them says so itself
                unchecked_tasks.append(task.name)
                continue
            prompts.update(normalised(item.prompt) for subtask in prepared_tasks for item in subtask.items)
    return frozenset(prompts), tuple(unchecked_tasks)
