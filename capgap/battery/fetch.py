"""Hub data into the cache, so that a battery works without a network afterwards."""

from collections.abc import Iterator

from capgap.battery.library import Battery
from capgap.battery.spec import HarnessTask
from capgap.errors import BatteryError

__all__ = ["fetch_battery", "needs_hub"]


def needs_hub(battery: Battery) -> bool:
    """Whether any of its tasks takes data from the hub."""
    return any(isinstance(task, HarnessTask) or task.data.hub is not None for task in battery.tasks)


def fetch_battery(battery: Battery) -> Iterator[tuple[str, str | None]]:
    """Download what each task needs; yields task and None, or task and what went wrong.

    A task whose data cannot be had does not keep the others from theirs.
    """
    for task in battery.tasks:
        try:
            if isinstance(task, HarnessTask):
                from capgap.battery.harness import load_tasks

                load_tasks(battery, task)
            else:
                for part in ("items", "train", "fewshot"):
                    battery.rows(task, part)
        except BatteryError as error:
            yield task.name, str(error)
        else:
            yield task.name, None
