"""Evaluation run: models × batteries → ledger → outcomes, one model and one task after the other."""

import gc
import logging
import platform
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from capgap import __version__, schema
from capgap.errors import StoreError
from capgap.evaluation.cost import expected_minutes
from capgap.evaluation.model_runner import ModelRunner
from capgap.evaluation.plan import EvaluationPlan
from capgap.evaluation.prepared_batteries import PreparedBatteries, battery_facts, items_table, prepare_batteries
from capgap.evaluation.progress import request_progress
from capgap.evaluation.requests import check_model_specs, n_requests, quiet
from capgap.evaluation.workers import fill_ledger
from capgap.events import Listener, Note, ignore
from capgap.models import Ledger
from capgap.stats import smallest_visible_gap
from capgap.store import RunDirectory

_PACKAGES = ("torch", "transformers", "peft", "lm-eval", "datasets", "pandas")
_logger = logging.getLogger(__name__)


def evaluate(
    plan: EvaluationPlan, out: Path | str, *, command: Sequence[str] = (), on_event: Listener = ignore
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
    on_event
        Hears of the stage ``evaluating`` (in requests to all models), and notes: what the plan comes to, what was
        decided for the user, what the models' loading and checking met.

    Returns
    -------
    RunDirectory
        With ``items``, ``outcomes`` and ``models`` written and its state ``evaluated``.

    Raises
    ------
    CapgapError
        A battery, a model or the directory is wrong; what was answered until then is in the ledger.
    """
    with quiet():
        # What can be refused early is refused before the directory is made or a model is loaded.
        batteries = prepare_batteries(plan)
        if not plan.rescore:
            check_model_specs(plan.models, batteries)
        run = RunDirectory(out, on_event=on_event)
        for battery, _ in batteries:
            run.add_battery(battery.name, battery.hash)
        items = items_table(batteries)
        _refuse_fewer_items(plan, items, run)
        run.save(state="running")
        run.merge(schema.ITEMS, items)
        for sentence in (describe_plan(plan, batteries), *plan.notes):
            on_event(Note(sentence))
        started = time.monotonic()
        with Ledger(run.ledger_path, shard=plan.shard_name) as ledger:
            counts = _run_models(plan, batteries, run, ledger, on_event)
        seconds = round(time.monotonic() - started, 1)
        _logger.info("%s: %d requests computed, %d from the ledger, %.1f s", out, *counts.values(), seconds)
        run.save(
            state="evaluated" if plan.shard is None else f"shard {plan.shard_name} asked",
            seconds=run.facts.get("seconds", 0) + seconds,
            requests=counts,
            versions={"capgap": __version__, "python": platform.python_version()} | {p: version(p) for p in _PACKAGES},
        )
        if plan.shard is None:  # only now are there outcomes that could be compared
            for battery, tasks in batteries:
                run.add_battery(battery.name, battery.hash, battery_facts(battery, tasks, plan.limit))
            settings = {name: getattr(plan, name) for name in ("device", "dtype", "limit")}
            comparison = {**settings, "command": list(command), "notes": list(plan.notes)}
            run.save_comparison(plan.roles, [battery.name for battery, _ in batteries], **comparison)
    return run


def _refuse_fewer_items(plan: EvaluationPlan, items: pd.DataFrame, run: RunDirectory) -> None:
    """Refuse to replace outcomes by those of fewer items, before a model is asked.

    Raises
    ------
    StoreError
        A model of the plan has outcomes on an item of these batteries that would not be asked.
    """
    old_outcomes = run.outcomes(plan.roles.names)
    old_outcomes = old_outcomes[old_outcomes["battery"].isin(items["battery"])]
    new_keys, answered = (pd.MultiIndex.from_frame(frame[list(schema.ITEMS.key)]) for frame in (items, old_outcomes))
    lost_outcomes = old_outcomes[~answered.isin(new_keys)]
    if len(lost_outcomes):
        model, battery, task = lost_outcomes[["model", "battery", "task"]].iloc[0]
        limit = old_outcomes.groupby(["battery", "task"])["item"].nunique().max()
        raise StoreError(
            f"{run.path}: holds outcomes of {model!r} on items of {battery}/{task} that this evaluation leaves out and "
            f"would lose. Ask as many items (--limit {limit} or more), or choose another --out; no table was changed."
        )


def describe_plan(plan: EvaluationPlan, batteries: PreparedBatteries) -> str:
    """Battery, tasks, items, the minutes to expect on this device, and the smallest gap that would be seen."""
    sizes = {f"{battery.name}/{task.name}": len(task.items) for battery, tasks in batteries for task in tasks}
    names = " + ".join(f"{battery.name} {battery.version}" for battery, _ in batteries)
    minutes = expected_minutes(plan, [task for _, tasks in batteries for task in tasks])
    expected = "under a minute" if minutes < 1 else f"about {minutes:,.0f} min"
    smallest_gap = smallest_visible_gap(sizes)
    models = len(plan.models)
    return (
        f"{names}: {len(sizes)} tasks, {sum(sizes.values()):,} items × {models} model{'s' if models > 1 else ''}, "
        f"{expected} on this device; smallest visible gap ± {100 * smallest_gap:.1f} points."
    )


def _run_models(
    plan: EvaluationPlan, batteries: PreparedBatteries, run: RunDirectory, ledger: Ledger, on_event: Listener
) -> dict[str, int]:
    """Ask all models and write their tables; returns how many requests were ``computed`` and ``from_ledger``.

    Either each model is loaded here, asked and written; or workers fill the ledger first, all models at once, and the
    tables are then written from the ledger alone, as when rescoring. A shard stops after the first half.
    """
    n_responses_before = len(ledger)
    uses_workers = not plan.rescore and (plan.n_workers > 1 or plan.shard is not None)
    with request_progress(n_requests(batteries) * len(plan.models), on_event) as progress:
        runner = ModelRunner(run, ledger, batteries, progress, on_event)
        for sentence in ledger.notes:
            on_event(Note(sentence, level="warning"))
        if uses_workers:
            progress.show(f"{len(plan.models)} models, {plan.n_workers} at a time")
            for summaries in fill_ledger(plan, ledger, run.id, on_progress=progress.report).values():
                runner.record_worker_summaries(summaries, plan)
        if plan.shard is None:
            for spec in plan.models:
                if uses_workers or plan.rescore:
                    runner.write_from_ledger(spec)
                else:
                    runner.run_model(plan, spec)
                gc.collect()  # the weights of one model at a time
            progress.report(progress.n_requests)
    # What workers have computed is what the ledger has gained; it was counted as the ledger's when it was read back.
    n_from_workers = len(ledger) - n_responses_before - progress.n_computed
    return {"computed": progress.n_computed + n_from_workers, "from_ledger": progress.n_ledger_hits - n_from_workers}
