"""Preview of a battery without asking a model: sizes, labels, their reasons, and stand-ins for an estimate of cost.

Local data are read and counted. Data of the hub are neither fetched nor looked for: the file's own `size` and
`length` speak for them, and what it leaves out stays unknown.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

from capgap.battery.battery_loading import Battery
from capgap.battery.battery_spec import CustomTask, LmEvalTask
from capgap.battery.catalogue import known_label
from capgap.battery.items import Item
from capgap.battery.lm_eval_config import lm_eval_task_config
from capgap.battery.lm_eval_groups import leaf_task_names, unknown_name
from capgap.battery.prepared_task import PreparedTask, common_value_or_none
from capgap.battery.task_preparation import prepare_task
from capgap.errors import BatteryError

_PROMPT_CHARACTERS = 300  # of a stand-in, where the file gives no length
_OLD_JSON_KEYS = {"is_approximate": "about", "n_sampled": "n_asked", "is_local": "here", "reason": "why"}
_N_CHOICES = 4  # of a stand-in, where neither the file nor lm-eval tells


@dataclass(frozen=True)
class BatteryEntryPreview:
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
    is_approximate: bool
    """Whether the number of items is only roughly known."""
    n_sampled: int | None
    """Items that will be asked: those of the limit."""
    is_local: bool
    """Whether its data are local files, which were read."""
    reason: str | None
    """What it measures and why it has its label."""
    source: str | None
    """Whose items these are."""
    stand_in: PreparedTask | None
    """The task, or a stand-in of the same size, for an estimate of cost; None where its size is unknown."""

    def as_record(self) -> dict[str, Any]:
        """The entry under the keys of ``capgap battery show --json``, which are older than the names here."""
        return {_OLD_JSON_KEYS.get(f.name, f.name): getattr(self, f.name) for f in fields(self) if f.name != "stand_in"}


def preview_battery(battery: Battery, *, limit: int | None = None) -> list[BatteryEntryPreview]:
    """Every entry of the battery in each of its variants, in order; nothing is fetched and no model is loaded.

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
    entries: list[BatteryEntryPreview] = []
    for task in battery.tasks:
        task_limit = limit or task.limit or battery.defaults.limit
        if isinstance(task, LmEvalTask):
            entries.append(_build_lm_eval_entry(battery, task, task_limit))
        elif task.data.hub is not None:
            entries += _hub_entries(battery, task, task_limit)
        else:
            entries += [_local_entry(task, prepared_task) for prepared_task in prepare_task(battery, task, limit=limit)]
    return entries


def _local_entry(task: CustomTask, prepared_task: PreparedTask) -> BatteryEntryPreview:
    copied_fields = ("name", "variant", "capability", "domain", "format", "num_fewshot", "primary")
    return BatteryEntryPreview(
        **{key: getattr(prepared_task, key) for key in copied_fields},
        n_tasks=1,
        n_items=prepared_task.n_available,
        is_approximate=False,
        n_sampled=len(prepared_task.items),
        is_local=True,
        reason=task.description,
        source=task.source,
        stand_in=prepared_task,
    )


def _hub_entries(battery: Battery, task: CustomTask, limit: int | None) -> Iterator[BatteryEntryPreview]:
    for variant in ("default", *task.variants):
        variant_task = task if variant == "default" else task.varied(variant)
        shots = variant_task.num_fewshot if variant_task.num_fewshot is not None else battery.defaults.num_fewshot
        primary = variant_task.primary or f"{variant_task.score_name},none"
        entry = _build_unread_entry(task, 1, variant_task.format, shots, primary)
        n_choices = len(variant_task.choices) if isinstance(variant_task.choices, list) else None
        yield replace(
            _with_placeholder_task(battery, entry, task, limit, n_choices, variant_task.max_tokens),
            variant=variant,
            reason=variant_task.description or task.description,
        )


def _build_lm_eval_entry(battery: Battery, task: LmEvalTask, limit: int | None) -> BatteryEntryPreview:
    names = leaf_task_names(task.lm_eval)
    if not names:
        raise BatteryError(f"{battery.where(task)}: {unknown_name(task.lm_eval)}")
    configs = []
    for name in names:
        try:
            configs.append(lm_eval_task_config(name, allow_code=battery.allow_code))
        except BatteryError:  # `check` says why; here the configuration is only unknown
            continue
    default = battery.defaults.num_fewshot
    shots = {config.num_fewshot if config.num_fewshot is not None else default for config in configs}
    entry = _build_unread_entry(
        task,
        len(names),
        common_value_or_none(config.format for config in configs),
        task.num_fewshot if task.num_fewshot is not None else common_value_or_none(shots),
        task.primary or common_value_or_none(config.primaries[0] for config in configs),
    )
    n_choices = common_value_or_none(config.n_choices for config in configs)
    max_answer_tokens = max((config.max_tokens or 0 for config in configs), default=0)
    return _with_placeholder_task(battery, entry, task, limit, n_choices, max_answer_tokens or None)


def _build_unread_entry(
    task: CustomTask | LmEvalTask, n_tasks: int, task_format: str | None, shots: int | None, primary: str | None
) -> BatteryEntryPreview:
    """An entry whose data were not read, from the battery file and the catalogue alone."""
    label = known_label(task.name) if isinstance(task, LmEvalTask) else None
    capability = task.capability or (label.capability if label else None)
    domain = task.domain or (label.domain if label else None)
    return BatteryEntryPreview(
        name=task.name,
        variant="default",
        n_tasks=n_tasks,
        # A template gives each item its own.
        capability=None if capability and "{" in capability else capability,
        domain=None if domain and "{" in domain else domain,
        format=task_format,
        num_fewshot=shots,
        primary=primary,
        n_items=task.n_items,
        is_approximate=isinstance(task.size, str),
        n_sampled=None,
        is_local=False,
        reason=task.description or (label.reason if label else None),
        source=task.source or (label.source if label else None),
        stand_in=None,
    )


def _with_placeholder_task(
    battery: Battery,
    entry: BatteryEntryPreview,
    task: CustomTask | LmEvalTask,
    limit: int | None,
    n_choices: int | None,
    max_tokens: int | None,
) -> BatteryEntryPreview:
    """The entry with the number of items asked, and a task of copies of one item that costs about the same."""
    if entry.n_items is None:
        return entry
    n_sampled = min(entry.n_items, limit * entry.n_tasks) if limit else entry.n_items
    task_format = entry.format or "choose"
    choices = ("x" * 4,) * (n_choices or _N_CHOICES) if task_format == "choose" else None
    item = Item(
        task=entry.name,
        item="",
        variant="default",
        prompt="x" * (task.length or _PROMPT_CHARACTERS),
        choices=choices,
        targets=("x",),
        gold=(0,) if choices else (),
        capability=entry.capability,
        domain=entry.domain,
        shot="x",
    )
    placeholder_task = PreparedTask(
        battery=battery.name,
        name=entry.name,
        variant="default",
        format=task_format,
        num_fewshot=entry.num_fewshot or 0,
        primary=entry.primary or "acc,none",
        items=(item,) * n_sampled,
        n_available=entry.n_items,
        lm_task=None,
        max_tokens=max_tokens if task_format == "generate" else None,
        fewshot=battery.defaults.fewshot,
    )
    return replace(entry, n_sampled=n_sampled, stand_in=placeholder_task)
