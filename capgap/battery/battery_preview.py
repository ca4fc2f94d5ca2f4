"""What a battery will ask, told without asking: sizes, labels, reasons, and stand-ins for an estimate of cost.

Local data are read and counted. Data of the hub are neither fetched nor looked for: the file's own `size` and
`length` speak for them, and what it leaves out stays unknown.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

from capgap.battery.battery_loading import Battery
from capgap.battery.battery_spec import DataTask, LmEvalTask
from capgap.battery.catalogue import known_label
from capgap.battery.items import Item
from capgap.battery.prepared_task import PreparedTask
from capgap.battery.task_preparation import prepare_task
from capgap.errors import BatteryError

__all__ = ["PreviewEntry", "preview_battery"]

_LENGTH = 300
_CHOICES = 4
_T = TypeVar("_T")


@dataclass(frozen=True)
class PreviewEntry:
    """One entry of a battery, in one variant."""

    name: str
    """The task, group or tag."""
    variant: str
    """How it is asked; ``default`` is the task itself."""
    n_tasks: int
    """Tasks that the name stands for."""
    capability: str | None
    """Its capability; None where it differs by item or nobody said."""
    domain: str | None
    """Its domain; None where it differs by item or nobody said."""
    format: str | None
    """``choose`` or ``generate``; None where its tasks differ or lm-eval's files do not tell."""
    num_fewshot: int | None
    """Solved examples before each item; None where its tasks differ."""
    primary: str | None
    """The ``metric,filter`` that counts; None where its tasks differ."""
    n_items: int | None
    """Items before the limit; None where nobody said."""
    about: bool
    """Whether the number of items is only roughly known."""
    n_asked: int | None
    """Items that will be asked."""
    here: bool
    """Whether its data are local files, which were read."""
    why: str | None
    """What it measures and why it has its label."""
    source: str | None
    """Whose items these are."""
    like: PreparedTask | None
    """The task, or a stand-in of the same size, for an estimate of cost; None where its size is unknown."""


def preview_battery(battery: Battery, *, limit: int | None = None) -> list[PreviewEntry]:
    """Every entry of the battery and its variants, in order.

    Parameters
    ----------
    battery
        From `load_battery`.
    limit
        At most so many items a task, before the battery's own limits.

    Raises
    ------
    BatteryError
        A local task cannot be prepared, or lm-eval does not know a name.
    """
    entries: list[PreviewEntry] = []
    for task in battery.tasks:
        asked = limit or task.limit or battery.defaults.limit
        if isinstance(task, LmEvalTask):
            entries.append(_of_lm_eval(battery, task, asked))
        elif task.data.hub is not None:
            entries += _of_the_hub(battery, task, asked)
        else:
            entries += [_local(task, one) for one in prepare_task(battery, task, limit=limit)]
    return entries


def _local(task: DataTask, one: PreparedTask) -> PreviewEntry:
    return PreviewEntry(
        name=one.name,
        variant=one.variant,
        n_tasks=1,
        capability=one.capability,
        domain=one.domain,
        format=one.format,
        num_fewshot=one.num_fewshot,
        primary=one.primary,
        n_items=one.n_available,
        about=False,
        n_asked=len(one.items),
        here=True,
        why=task.description,
        source=task.source,
        like=one,
    )


def _of_the_hub(battery: Battery, task: DataTask, limit: int | None) -> Iterator[PreviewEntry]:
    for variant in ("default", *task.variants):
        asked = task if variant == "default" else task.varied(variant)
        shots = asked.num_fewshot if asked.num_fewshot is not None else battery.defaults.num_fewshot
        entry = _unread(battery, task, 1, asked.format, shots, asked.primary or f"{asked.scoring},none")
        n_choices = len(asked.choices) if isinstance(asked.choices, list) else None
        yield replace(
            _sized(battery, entry, task, limit, n_choices, asked.max_tokens),
            variant=variant,
            why=asked.description or task.description,
        )


def _of_lm_eval(battery: Battery, task: LmEvalTask, limit: int | None) -> PreviewEntry:
    from capgap.battery.lm_eval_config import lm_eval_task_config
    from capgap.battery.lm_eval_groups import leaf_task_names, unknown_name

    names = leaf_task_names(task.lm_eval)
    if not names:
        raise BatteryError(f"{battery.where(task)}: {unknown_name(task.lm_eval)}")
    leaves = []
    for name in names:
        try:
            leaves.append(lm_eval_task_config(name, allow_code=battery.allow_code))
        except BatteryError:  # `check` says why; here the facts are only unknown
            continue
    default = battery.defaults.num_fewshot
    shots = {leaf.num_fewshot if leaf.num_fewshot is not None else default for leaf in leaves}
    entry = _unread(
        battery,
        task,
        len(names),
        _same({leaf.format for leaf in leaves}),
        task.num_fewshot if task.num_fewshot is not None else _same(shots),
        task.primary or _same({leaf.primaries[0] for leaf in leaves}),
    )
    most = max((leaf.max_tokens or 0 for leaf in leaves), default=0)
    return _sized(battery, entry, task, limit, _same({leaf.n_choices for leaf in leaves}), most or None)


def _same(values: set[_T]) -> _T | None:
    """The one value that all have, else None."""
    return next(iter(values)) if len(values) == 1 else None


def _unread(
    battery: Battery,
    task: DataTask | LmEvalTask,
    n_tasks: int,
    form: str | None,
    shots: int | None,
    primary: str | None,
) -> PreviewEntry:
    """An entry whose data are elsewhere, as far as its words tell."""
    label = known_label(task.name) if isinstance(task, LmEvalTask) else None
    capability = task.capability or (label.capability if label else None)
    domain = task.domain or (label.domain if label else None)
    return PreviewEntry(
        name=task.name,
        variant="default",
        n_tasks=n_tasks,
        capability=None if capability and "{" in capability else capability,
        domain=None if domain and "{" in domain else domain,
        format=form,
        num_fewshot=shots,
        primary=primary,
        n_items=task.n_items,
        about=isinstance(task.size, str),
        n_asked=None,
        here=False,
        why=task.description or (label.reason if label else None),
        source=task.source or (label.source if label else None),
        like=None,
    )


def _sized(
    battery: Battery,
    entry: PreviewEntry,
    task: DataTask | LmEvalTask,
    limit: int | None,
    n_choices: int | None,
    max_tokens: int | None,
) -> PreviewEntry:
    """The entry with the number of items asked, and a stand-in that costs about the same."""
    if entry.n_items is None:
        return entry
    asked = min(entry.n_items, limit * entry.n_tasks) if limit else entry.n_items
    form = entry.format or "choose"
    choices = ("x" * 4,) * (n_choices or _CHOICES) if form == "choose" else None
    item = Item(
        task=entry.name,
        item="",
        variant="default",
        prompt="x" * (task.length or _LENGTH),
        choices=choices,
        targets=("x",),
        gold=(0,) if choices else (),
        chance=None,
        capability=entry.capability,
        domain=entry.domain,
        cluster="",
        covariates={},
        rationale=None,
        shot="x",
    )
    like = PreparedTask(
        battery=battery.name,
        name=entry.name,
        variant="default",
        capability=entry.capability,
        domain=entry.domain,
        format=form,
        num_fewshot=entry.num_fewshot or 0,
        primary=entry.primary or "acc,none",
        items=(item,) * asked,
        n_available=entry.n_items,
        lm_task=None,
        score=None,
        extract=None,
        stop=(),
        max_tokens=max_tokens if form == "generate" else None,
        fewshot=battery.defaults.fewshot,
    )
    return replace(entry, n_asked=asked, like=like)
