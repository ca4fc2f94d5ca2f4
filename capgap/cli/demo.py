"""`capgap demo`: the whole path on the embedded microworld, students distilled live.

The world is closed and seeded, so the truth is known: facts can be learnt from answers alone, chains of steps cannot.
Whether the report says so is the test of the report.
"""

import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
import pandas as pd

from capgap import evaluation as engine
from capgap import schema
from capgap.analysis import analyze
from capgap.cli.conclude import conclude, json_option, say
from capgap.errors import StoreError

__all__ = ["STUDENTS", "demo"]

TEACHER, BASE, BATTERY = "microworld:teacher", "microworld:medium", "microworld"

TASKS = ("facts_generate", "chains_generate")
"""What the students are taught: one family that can only be remembered, one that can only be worked out."""

STUDENTS = {
    "answers-full": ("answers", "full"),
    "answers-lora": ("answers", "lora"),
    "traces-full": ("traces", "full"),
    "traces-lora": ("traces", "lora"),
}
"""Student → its supervision and adaptation; everything else they share."""

_FILE = """\
# Written by `capgap demo`. Run it alone: capgap distill {name}.yaml
name: {name}
teacher: {teacher}
student: {base}
data: {{battery: {battery}, tasks: [{tasks}]}}
n_examples: {n_examples}
supervision: {supervision}
adaptation: {adaptation}
seed: {seed}
data_seed: {seed}
training: {{max_steps: {steps}, batch_size: 64, lr: {lr}}}
"""
_EXAMPLES, _STEPS, _LIMIT = 2800, 350, 72
_RATE = {"full": 3.0e-3, "lora": 2.0e-3}


@click.command()
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of the examples and the training; the world is fixed.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Run directory; default capgap-out/demo-SEED.")
@json_option
def demo(seed: int, out: Path | None, as_json: bool) -> None:
    """Distil four students live, evaluate them with teacher and base, and write the report. About three minutes.

    \b
    The students learn from the teacher's answers or from its traces, with all weights or with LoRA.
    Each has a file in OUT/students that `capgap distill` takes, and a checkpoint that `capgap evaluate` takes.
    """
    started = time.monotonic()
    folder = out or Path("capgap-out") / f"demo-{seed}"
    students = folder.with_name(f"{folder.name}-students")
    files = _write_files(students, seed)
    say(f"{len(files)} students of {BASE} learn {_EXAMPLES:,} prompts from {TEACHER} ({students})")
    _distil(students, files)
    run, roles = _evaluate(folder, students)
    outcomes = run.outcomes(roles)
    estimates = conclude(run.path, outcomes, roles, run.facts, show_items=True, as_json=as_json)
    run.save(state="done")
    if not as_json:
        for line in _truths(outcomes, estimates):
            click.echo(line)
    say(f"{time.monotonic() - started:.0f} s")


def _write_files(students: Path, seed: int) -> dict[str, Path]:
    files = {}
    try:
        students.mkdir(parents=True, exist_ok=True)
        for name, (supervision, adaptation) in STUDENTS.items():
            files[name] = students / f"{name}.yaml"
            files[name].write_text(
                _FILE.format(
                    name=name,
                    teacher=TEACHER,
                    base=BASE,
                    battery=BATTERY,
                    n_examples=_EXAMPLES,
                    tasks=", ".join(TASKS),
                    supervision=supervision,
                    adaptation=adaptation,
                    seed=seed,
                    steps=_STEPS,
                    lr=_RATE[adaptation],
                ),
                encoding="utf-8",
            )
    except OSError as error:
        raise StoreError(f"{students}: cannot be written: {error.strerror or error}. Choose another --out.") from error
    return files


def _make_student(file: str, ledger: str) -> str:
    """One student, in a process of its own; the teacher's texts are shared through the ledger."""
    import torch

    from capgap.distillation import distill, load_config

    torch.set_num_threads(1)
    path = Path(file)
    with engine.quiet():
        made = distill(load_config(path), path.with_suffix(""), folder=path.parent, device="cpu", ledger=ledger)
    return made.name


def _distil(students: Path, files: dict[str, Path]) -> None:
    """Two at a time; what is finished already is not made again."""
    ledger = str(students / "teacher.sqlite")
    started = time.monotonic()
    with ProcessPoolExecutor(max_workers=2, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(_make_student, str(file), ledger) for file in files.values()]
        for done, job in enumerate(as_completed(jobs), 1):
            say(f"  {job.result()} is trained, {done} of {len(jobs)} ({time.monotonic() - started:.0f} s)")


def _evaluate(folder: Path, students: Path) -> tuple[engine.RunDirectory, schema.Roles]:
    words = [f"{name}={students / name}" for name in STUDENTS]
    compared, lead, bases, controls, notes = engine.cast_roles(words, teacher=f"teacher={TEACHER}", base=f"base={BASE}")
    plan = engine.EvaluationPlan(
        students=compared,
        teacher=lead,
        bases=bases,
        controls=controls,
        batteries=(BATTERY,),
        limit=_LIMIT,
        device="cpu",
        notes=tuple(notes),
        workers=2,
    )
    run = engine.evaluate(plan, folder, command=["capgap", *sys.argv[1:]], say=say)
    return run, plan.roles


def _truths(outcomes: pd.DataFrame, estimates: pd.DataFrame) -> list[str]:
    """What this world is known to hold, as the intervals tell it."""
    lines = []
    for name in ("answers-full", "traces-full"):
        found = _one(estimates, quantity="capability_contrast", model=name, contrast="closure: knowledge - reasoning")
        lines.append(f"{name}: knowledge gap closed minus reasoning gap closed: {_points(found)}")
    # Roles belong to the comparison: here the student of traces leads, and the student of answers is compared to it.
    duel = analyze(outcomes, schema.Roles(("answers-full",), teacher="traces-full"))
    found = _one(duel, quantity="gap", level="slice", group="chains_generate: x_depth=1", model="answers-full")
    lines.append(f"one-step chains, traces minus answers (all weights): {_points(found)}")
    return lines


def _one(estimates: pd.DataFrame, **wanted: str) -> "pd.Series[Any]":
    rows = estimates
    for column, value in wanted.items():
        rows = rows[rows[column] == value]
    return rows.iloc[0]


def _points(row: "pd.Series[Any]") -> str:
    if row["status"] == "refused":
        return f"no number ({row['note']})"
    return f"{100 * row['estimate']:+.0f} points [{100 * row['conf_low']:+.0f}, {100 * row['conf_high']:+.0f}]"
