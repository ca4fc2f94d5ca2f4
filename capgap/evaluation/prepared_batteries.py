"""Batteries with their tasks prepared, and what the run directory keeps of them: the items and some facts."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from capgap import schema
from capgap.battery import Battery, PreparedTask, load_battery, prepare_battery
from capgap.errors import BatteryError, UsageError
from capgap.evaluation.plan import EvaluationPlan

_TASK_FACTS = ("num_fewshot", "fewshot", "repeats", "format", "primary")

PreparedBatteries = Sequence[tuple[Battery, Sequence[PreparedTask]]]
"""Batteries with their tasks, ready to be asked."""


def prepare_batteries(plan: EvaluationPlan) -> PreparedBatteries:
    """The batteries of a plan with their tasks ready to be asked.

    Raises
    ------
    BatteryError, UsageError
        See `capgap.battery.preparation`; no battery, or two of one name.
    """
    batteries = [load_battery(name, data_root=plan.data_root) for name in plan.batteries]
    names = [battery.name for battery in batteries]
    if not names:
        raise UsageError("no battery. Say which: --battery pocket")
    duplicate_names = [name for name in names if names.count(name) > 1]
    if duplicate_names:
        raise BatteryError(f"two batteries are called {duplicate_names[0]!r}. Give one of them another name.")
    return [(battery, prepare_battery(battery, limit=plan.limit)) for battery in batteries]


def items_table(batteries: PreparedBatteries) -> pd.DataFrame:
    """The `items` table of the batteries."""
    rows = [
        {
            **{"battery": battery.name, "task": task.name, "choices": list(item.choices) if item.choices else None},
            "target": list(item.targets) if len(item.targets) > 1 else next(iter(item.targets), None),
            **{name: getattr(item, name) for name in ("item", "variant", "prompt", "rationale")},
        }
        for battery, tasks in batteries
        for task in tasks
        for item in task.items
    ]
    return schema.df_from_rows(rows, schema.ITEMS, source="items")


def battery_facts(battery: Battery, tasks: Sequence[PreparedTask], limit: int | None) -> dict[str, Any]:
    """What ``run.json`` says of a battery beside its hash."""
    return {
        "version": str(battery.version),
        "description": battery.description,
        "limit": limit,
        "seed": battery.defaults.seed,
        "tasks": {
            task.name: {"n_items": len(task.items), **{name: getattr(task, name) for name in _TASK_FACTS}}
            for task in tasks
        },
    }
