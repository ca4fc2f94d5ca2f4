"""Models × batteries → outcomes: one model after the other, one task after the other, every answer into the ledger."""

import gc
import platform
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from capgap import __version__, schema
from capgap.battery import Battery, PreparedTask, load_battery, prepare
from capgap.errors import BatteryError, UsageError
from capgap.evaluation.cost import expected_minutes
from capgap.evaluation.model_runner import ModelRunner, Say
from capgap.evaluation.plan import EvaluationPlan
from capgap.evaluation.requests import Tasks, n_requests, quiet, refuse_early
from capgap.evaluation.workers import fill_ledger
from capgap.models import Ledger
from capgap.stats import smallest_visible_gap
from capgap.store.run_directory import RunDirectory

__all__ = ["evaluate", "first_line", "prepared_batteries"]


def evaluate(
    plan: EvaluationPlan, out: Path | str, *, command: Sequence[str] = (), say: Say | None = None
) -> RunDirectory:
    """Ask every model of the plan every item of its batteries, and write the run directory's tables.

    Parameters
    ----------
    plan
        Models, batteries and settings.
    out
        The run directory; what it holds already is used.
    command
        The command line, for the record.
    say
        Told the first line and what was decided for the user, a sentence at a time; default: silence.

    Returns
    -------
    RunDirectory
        With ``items``, ``outcomes`` and ``models`` written and its state ``evaluated``.

    Raises
    ------
    CapgapError
        A battery, a model or the directory is wrong; what was answered until then is in the ledger.
    """
    tell = say or (lambda _: None)
    with quiet():
        prepared = prepared_batteries(plan)
        if not plan.rescore:
            refuse_early(plan.models, prepared)
        run = RunDirectory(out)
        for battery, tasks in prepared:
            run.add_battery(battery.name, battery.hash, _battery_facts(battery, tasks, plan))
        run.save(**_asked(plan, command))
        run.merge(schema.ITEMS, _items_table(prepared))
        tell(first_line(plan, prepared))
        for note in plan.notes:
            tell(note)
        started = time.monotonic()
        with Ledger(run.ledger_path, shard=plan.shard_name) as ledger:
            counts = _ask_all(plan, prepared, run, ledger, tell)
        seconds = round(time.monotonic() - started, 1)
        state = "evaluated" if plan.shard is None else f"shard {plan.shard_name} asked"
        run.save(state=state, seconds=run.facts.get("seconds", 0) + seconds, requests=counts)
    return run


def prepared_batteries(plan: EvaluationPlan) -> list[tuple[Battery, list[PreparedTask]]]:
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
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise BatteryError(f"two batteries are called {twice[0]!r}. Give one of them another name.")
    return [(battery, prepare(battery, limit=plan.limit)) for battery in batteries]


def first_line(plan: EvaluationPlan, prepared: Tasks) -> str:
    """Battery, tasks, items, the minutes to expect on this device, and the smallest gap that would be seen."""
    sizes = {f"{battery.name}/{task.name}": len(task.items) for battery, tasks in prepared for task in tasks}
    names = " + ".join(f"{battery.name} {battery.version}" for battery, _ in prepared)
    minutes = expected_minutes(plan, [task for _, tasks in prepared for task in tasks])
    expected = "under a minute" if minutes < 1 else f"about {minutes:,.0f} min"
    gap = smallest_visible_gap(sizes)
    models = len(plan.models)
    return (
        f"{names}: {len(sizes)} tasks, {sum(sizes.values()):,} items × {models} model{'s' if models > 1 else ''}, "
        f"{expected} on this device; smallest visible gap ± {100 * gap:.1f} points."
    )


def _ask_all(plan: EvaluationPlan, prepared: Tasks, run: RunDirectory, ledger: Ledger, tell: Say) -> dict[str, int]:
    """Ask all models and make their tables; how much was computed now, and what the ledger had."""
    counts = {"computed": 0, "from_ledger": 0}
    before = len(ledger)
    total = n_requests(prepared) * len(plan.models)
    bar: Any
    with tqdm(total=total, unit="request", file=sys.stderr, dynamic_ncols=True) as bar:

        def tell_above(sentence: str) -> None:
            with bar.external_write_mode(file=sys.stderr):
                tell(sentence)

        desk = ModelRunner(run=run, ledger=ledger, tasks=prepared, bar=bar, tell=tell_above, counts=counts)
        for note in ledger.notes:
            tell_above(note)
        by_workers = not plan.rescore and (plan.n_workers > 1 or plan.shard is not None)
        if by_workers:
            bar.set_description(f"{len(plan.models)} models, {plan.n_workers} at a time")
            for told in fill_ledger(plan, ledger, run.id, progress=bar.update).values():
                desk.note(told, plan)
        if plan.shard is None:
            for spec in plan.models:
                if by_workers or plan.rescore:
                    desk.recall(spec)
                else:
                    desk.ask(plan, spec)
                gc.collect()  # the weights of one model at a time
            bar.update(max(0, bar.total - bar.n))
    gained = len(ledger) - before - counts["computed"]
    return {"computed": counts["computed"] + gained, "from_ledger": counts["from_ledger"] - gained}


def _items_table(prepared: Tasks) -> pd.DataFrame:
    rows = [
        {
            "battery": battery.name,
            "task": task.name,
            "item": item.item,
            "variant": item.variant,
            "prompt": item.prompt,
            "choices": list(item.choices) if item.choices else None,
            "target": list(item.targets) if len(item.targets) > 1 else (item.targets[0] if item.targets else None),
            "rationale": item.rationale,
        }
        for battery, tasks in prepared
        for task in tasks
        for item in task.items
    ]
    return schema.from_rows(rows, schema.ITEMS, source="items")


def _battery_facts(battery: Battery, tasks: Sequence[PreparedTask], plan: EvaluationPlan) -> dict[str, Any]:
    return {
        "version": str(battery.version),
        "description": battery.description,
        "limit": plan.limit,
        "seed": battery.defaults.seed,
        "tasks": {
            task.name: {
                "n_items": len(task.items),
                "num_fewshot": task.num_fewshot,
                "fewshot": task.fewshot,
                "repeats": task.repeats,
                "format": task.format,
                "primary": task.primary,
            }
            for task in tasks
        },
    }


def _asked(plan: EvaluationPlan, command: Sequence[str]) -> dict[str, Any]:
    roles = plan.roles
    return {
        "state": "running",
        "command": list(command),
        "roles": {
            "students": list(roles.students),
            "teacher": roles.teacher,
            "base": roles.base,
            "control": roles.control,
        },
        "device": plan.device,
        "dtype": plan.dtype,
        "limit": plan.limit,
        "notes": list(plan.notes),
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    packages = ("torch", "transformers", "peft", "lm-eval", "datasets", "pandas")
    return {"capgap": __version__, "python": platform.python_version(), **{name: version(name) for name in packages}}
