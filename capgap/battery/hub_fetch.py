"""Download of a battery's hub data into the cache, so that it works without a network afterwards."""

from collections.abc import Iterator
from dataclasses import dataclass

from capgap.battery.battery_loading import Battery
from capgap.battery.battery_spec import CustomTask, LmEvalTask
from capgap.battery.lm_eval_groups import load_tasks
from capgap.errors import BatteryError


def needs_hub(battery: Battery) -> bool:
    """Whether any of its tasks takes data from the hub."""
    return any(isinstance(task, LmEvalTask) or task.data.hub is not None for task in battery.tasks)


@dataclass(frozen=True)
class FetchReport:
    """The download of one entry of a battery: its items, or why they could not be had."""

    name: str
    """The task, group or tag."""
    n_items: int | None
    """Items that are evaluated, before any limit; None where the data could not be had."""
    problem: str | None
    """What went wrong; None where nothing did."""
    note: str | None = None
    """What does not fit the battery's own words."""


def fetch_battery(battery: Battery) -> Iterator[FetchReport]:
    """Download the hub data of each task; one whose data cannot be had does not keep the others from theirs."""
    for task in battery.tasks:
        try:
            n_items = _fetch_task(battery, task)
        except BatteryError as error:
            yield FetchReport(task.name, None, str(error))
            continue
        declared_size = task.n_items if isinstance(task.size, int) else None
        size_note = f"size: {declared_size} in {battery.path.name}" if declared_size not in (None, n_items) else None
        yield FetchReport(task.name, n_items, None, size_note)


def _fetch_task(battery: Battery, task: CustomTask | LmEvalTask) -> int:
    """Download all parts of a task; the number of its evaluation items."""
    if isinstance(task, LmEvalTask):
        return sum(len(lm_task.eval_docs) for lm_task in load_tasks(battery, task).values())
    n_items = len(battery.rows(task))
    for data_role in ("train", "fewshot"):
        battery.rows(task, data_role)
    return n_items
