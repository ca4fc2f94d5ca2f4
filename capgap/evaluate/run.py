"""Models × batteries → outcomes: one model after the other, one task after the other, every batch into the ledger."""

import gc
import logging
import platform
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from capgap import __version__, schema
from capgap.battery import Battery, Prepared, load_battery, prepare
from capgap.errors import BatteryError, UsageError
from capgap.evaluate.cost import expected_minutes
from capgap.evaluate.plan import Plan
from capgap.evaluate.run_directory import RunDirectory
from capgap.evaluate.score import outcome_rows
from capgap.evaluate.workers import fill_ledger
from capgap.models import Ledger, LoadedModel, ModelSpec, load_model, respond
from capgap.stats import smallest_visible_gap

__all__ = ["evaluate", "first_line"]

Say = Callable[[str], None]
Tasks = Sequence[tuple[Battery, Sequence[Prepared]]]
"""Batteries with their tasks, ready to be asked."""


def evaluate(plan: Plan, out: Path | str, *, command: Sequence[str] = (), say: Say | None = None) -> RunDirectory:
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
        run = RunDirectory(out)
        for battery, tasks in prepared:
            run.add_battery(battery.name, battery.hash, _battery_facts(battery, tasks, plan))
        run.save(**_asked(plan, command))
        run.merge(schema.ITEMS, _items_table(prepared), replaces=("battery", "task", "item", "variant"))
        tell(first_line(plan, prepared))
        for note in plan.notes:
            tell(note)
        started = time.monotonic()
        with run.ledger() as ledger:
            counts = _ask_all(plan, prepared, run, ledger, tell)
        seconds = round(time.monotonic() - started, 1)
        run.save(state="evaluated", seconds=run.facts.get("seconds", 0) + seconds, requests=counts)
    return run


def prepared_batteries(plan: Plan) -> list[tuple[Battery, list[Prepared]]]:
    """The batteries of a plan with their tasks ready to be asked.

    Raises
    ------
    BatteryError, UsageError
        See `capgap.battery.prepare`; no battery, or two of one name.
    """
    batteries = [load_battery(name, data_root=plan.data_root) for name in plan.batteries]
    names = [battery.name for battery in batteries]
    if not names:
        raise UsageError("no battery. Say which: --battery pocket")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise BatteryError(f"two batteries are called {twice[0]!r}. Give one of them another name.")
    return [(battery, prepare(battery, limit=plan.limit)) for battery in batteries]


def first_line(plan: Plan, prepared: Tasks) -> str:
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


def _ask_all(plan: Plan, prepared: Tasks, run: RunDirectory, ledger: Ledger, tell: Say) -> dict[str, int]:
    """Ask all models; what was computed now, and what the ledger had."""
    counts = {"computed": 0, "from_ledger": 0}
    run_id = str(run.facts.get("created", ""))
    per_model = sum(_n_requests(task) for _, tasks in prepared for task in tasks)
    before = len(ledger)
    bar: Any
    with tqdm(total=per_model * len(plan.models), unit="request", file=sys.stderr, dynamic_ncols=True) as bar:

        def tell_above(sentence: str) -> None:
            with bar.external_write_mode(file=sys.stderr):
                tell(sentence)

        if plan.workers > 1 and len(plan.models) > 1:
            bar.set_description(f"{len(plan.models)} models, {plan.workers} at a time")
            fill_ledger(plan, ledger.path, run_id, progress=bar.update)
        for spec in plan.models:
            bar.set_description(f"{spec.name}: loading")
            model = _load(plan, spec, run_id)
            _refuse_impossible(model, prepared)
            facts = {"word": spec.place, "identity": model.identity, "prompting": model.prompting.as_text()}
            run.add_model(spec.name, model.fingerprint, facts)
            run.save()
            ledger.describe(model.fingerprint, model.identity)
            rows = _ask_model(model, prepared, ledger, bar, counts, tell_above)
            run.facts["models"][spec.name]["seconds"] = {key: round(value, 2) for key, value in model.seconds.items()}
            run.merge(schema.OUTCOMES, rows, replaces=("model", "battery"))
            run.merge(schema.MODELS, _models_table(model), replaces=("model",))
            del model
            gc.collect()  # the weights of one model at a time
        bar.update(max(0, bar.total - bar.n))
    by_workers = len(ledger) - before - counts["computed"]
    return {"computed": counts["computed"] + by_workers, "from_ledger": counts["from_ledger"] - by_workers}


def _load(plan: Plan, spec: ModelSpec, run_id: str) -> LoadedModel:
    return load_model(spec, device=plan.device, dtype=plan.dtype, batch_tokens=plan.batch_tokens, run_id=run_id)


def ask_into(plan: Plan, spec: ModelSpec, prepared: Tasks, ledger: Ledger, run_id: str) -> None:
    """Ask one model everything, for the ledger alone."""
    model = _load(plan, spec, run_id)
    _refuse_impossible(model, prepared)
    for _, tasks in prepared:
        for task in tasks:
            build_requests(task, model)
            respond(model, task.lm_task.instances, ledger)


def _ask_model(
    model: LoadedModel, prepared: Tasks, ledger: Ledger, bar: Any, counts: dict[str, int], tell: Say
) -> pd.DataFrame:
    """The outcomes of one model, every task asked."""
    rows: list[dict[str, Any]] = []
    n_before = bar.n

    def progress(computed: int, found: int) -> None:
        counts["computed"] += computed
        counts["from_ledger"] += found
        # What workers have answered stands on the bar already; the ledger's part of a resumed run does not.
        bar.update(min(computed + found, max(0, bar.total - bar.n)))

    for battery, tasks in prepared:
        for task in tasks:
            bar.set_description(f"{model.name}: {task.name}")
            build_requests(task, model)
            responses = respond(model, task.lm_task.instances, ledger, progress=progress)
            rows.extend(outcome_rows(model.name, battery.name, task, responses))
            while model.notes:
                tell(model.notes.pop(0))
    if model.tree is not None and model.tree.proven.n_requests:
        tell(_proof_line(model))
    # Equal requests are asked once, and the bar counts them all.
    per_model = sum(_n_requests(task) for _, tasks in prepared for task in tasks)
    bar.update(max(0, min(per_model - (bar.n - n_before), bar.total - bar.n)))
    return schema.from_rows(rows, schema.OUTCOMES, source="outcomes")


def _proof_line(model: LoadedModel) -> str:
    """What was compared before the model's results counted, and what that and hashing cost."""
    assert model.tree is not None
    proven = model.tree.proven
    return (
        f"{model.name}: {proven.n_requests} requests compared with lm-eval's own path in "
        f"{model.seconds.get('proof', 0.0):.1f} s, largest difference {proven.largest:.1g} nats; "
        f"weights hashed in {model.seconds.get('hashing', 0.0):.1f} s."
    )


def build_requests(task: Prepared, model: LoadedModel) -> None:
    """Let lm-eval's task build its requests as this model is addressed; they stand in ``task.lm_task.instances``."""
    prompting = model.prompting
    task.lm_task.build_all_requests(
        rank=0,
        world_size=1,
        system_instruction=prompting.system_prompt,
        apply_chat_template=prompting.chat_template,
        fewshot_as_multiturn=prompting.chat_template,
        chat_template=getattr(model.lm, "apply_chat_template", None) if prompting.chat_template else None,
        tokenizer_name=getattr(model.lm, "tokenizer_name", "") if prompting.chat_template else "",
    )


def _n_requests(task: Prepared) -> int:
    return sum(len(item.choices) if item.choices and task.format == "choose" else 1 for item in task.items)


def _refuse_impossible(model: LoadedModel, prepared: Tasks) -> None:
    if model.can_score:
        return
    choosing = [task.name for _, tasks in prepared for task in tasks if task.format == "choose"]
    if choosing:
        raise UsageError(
            f"model {model.name}: its backend gives no log-likelihoods, and {len(choosing)} tasks choose by them "
            f"({', '.join(choosing[:3])} …). Use a battery of generate tasks, or another backend."
        )


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
        }
        for battery, tasks in prepared
        for task in tasks
        for item in task.items
    ]
    return schema.from_rows(rows, schema.ITEMS, source="items")


def _models_table(model: LoadedModel) -> pd.DataFrame:
    known = {key: value for key, value in model.facts.items() if key in schema.MODELS.names}
    return schema.from_rows([known], schema.MODELS, source=f"facts about {model.name}")


def _battery_facts(battery: Battery, tasks: Sequence[Prepared], plan: Plan) -> dict[str, Any]:
    return {
        "version": str(battery.version),
        "description": battery.description,
        "limit": plan.limit,
        "seed": battery.defaults.seed,
        "tasks": {
            task.name: {
                "n_items": len(task.items),
                "num_fewshot": task.num_fewshot,
                "format": task.format,
                "primary": task.primary,
            }
            for task in tasks
        },
    }


def _asked(plan: Plan, command: Sequence[str]) -> dict[str, Any]:
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


@contextmanager
def quiet() -> Iterator[None]:
    """lm-eval's own progress bars and advice would stand between the user and capgap's one bar."""
    import lm_eval.api.task as lm_eval_task

    with warnings.catch_warnings():
        # What these tell their own developers; a warning of anybody else's still shows.
        warnings.filterwarnings("ignore", module=r"(transformers|peft|lm_eval|datasets|accelerate)\b")
        yield from _without_bars(lm_eval_task)


def _without_bars(lm_eval_task: Any) -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("lm_eval", "transformers", "datasets", "peft")]
    levels = [logger.level for logger in loggers]
    bar = lm_eval_task.tqdm
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    lm_eval_task.tqdm = lambda items, **_: items
    try:
        yield
    finally:
        lm_eval_task.tqdm = bar
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
