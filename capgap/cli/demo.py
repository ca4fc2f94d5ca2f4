"""`capgap demo`: the whole path on the embedded microworld, students distilled live.

The world is closed and seeded, so the truth is known: facts can be learnt from answers alone, chains of steps cannot.
Whether the report says so is the test of the report.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import click

from capgap.cli.options import json_option
from capgap.cli.printing import command_line, print_results
from capgap.cli.progress import quiet_option, render_progress, verbose_option
from capgap.default_folders import DEFAULT_ROOT
from capgap.events import Listener, Note, stage

if TYPE_CHECKING:
    import pandas as pd

    from capgap.results import Run

__all__ = ["STUDENT_RECIPES", "demo"]

TEACHER, BASE_MODEL, BATTERY_NAME = "microworld:teacher", "microworld:medium", "microworld"

TRAIN_TASKS = ("facts_generate", "chains_generate")
"""What the students are taught: one family that can only be remembered, one that can only be worked out."""

STUDENT_RECIPES = {
    "answers-full": ("answers", "full"),
    "answers-lora": ("answers", "lora"),
    "traces-full": ("traces", "full"),
    "traces-lora": ("traces", "lora"),
}
"""Student → its supervision and adaptation; everything else they share."""

_EXAMPLES, _TRAINING_STEPS, _MAX_ITEMS_PER_TASK = 2800, 350, 72
_LEARNING_RATE = {"full": 3.0e-3, "lora": 2.0e-3}


@click.command()
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True,
    help="Of the examples and the training; the world is fixed.",
)  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), help=f"Run directory; default {DEFAULT_ROOT}/demo-SEED.")
@json_option
@quiet_option
@verbose_option
def demo(seed: int, out: Path | None, as_json: bool, quiet: bool) -> None:
    """Distil four students live, evaluate them with teacher and base, and write the report. About three minutes.

    \b
    The students learn from the teacher's answers or from its traces, with all weights or with LoRA.
    Each has a file in OUT-students that `capgap distill` takes, and a checkpoint that `capgap evaluate` takes.
    """
    import capgap

    started = time.monotonic()
    folder = out or DEFAULT_ROOT / f"demo-{seed}"
    students = folder.with_name(f"{folder.name}-students")
    with render_progress(quiet=quiet) as listener:
        files = _write_student_configs(students, seed)
        listener(Note(f"{len(files)} students of {BASE_MODEL} learn {_EXAMPLES:,} prompts from {TEACHER} ({students})"))
        _distill_students(students, files, listener)
        run = capgap.evaluate(
            [f"{name}={students / name}" for name in STUDENT_RECIPES],
            teacher=f"teacher={TEACHER}",
            base=f"base={BASE_MODEL}",
            battery=BATTERY_NAME,
            limit=_MAX_ITEMS_PER_TASK,
            device="cpu",
            workers=2,
            out=folder,
            command=command_line(),
            on_event=listener,
        )
    print_results(run.results, run.path / "report.html", as_json=as_json)
    if not as_json:
        for line in _report_known_truths(run):
            click.echo(line)
    click.echo(f"{time.monotonic() - started:.0f} s", err=True)


def _write_student_configs(students: Path, seed: int) -> dict[str, Path]:
    """A distillation file for each student."""
    from capgap.store.writable_folder import write_errors_explained

    files = {name: students / f"{name}.yaml" for name in STUDENT_RECIPES}
    with write_errors_explained(students):
        students.mkdir(parents=True, exist_ok=True)
        for name, (supervision_type, adaptation_method) in STUDENT_RECIPES.items():
            content = _format_student_config(name, supervision_type, adaptation_method, seed)
            files[name].write_text(content, encoding="utf-8")
    return files


def _format_student_config(name: str, supervision_type: str, adaptation_method: str, seed: int) -> str:
    return f"""\
# Written by `capgap demo`. Run it alone: capgap distill {name}.yaml
name: {name}
teacher: {TEACHER}
student: {BASE_MODEL}
data: {{battery: {BATTERY_NAME}, tasks: [{", ".join(TRAIN_TASKS)}]}}
n_examples: {_EXAMPLES}
supervision: {supervision_type}
adaptation: {adaptation_method}
seed: {seed}
data_seed: {seed}
training: {{max_steps: {_TRAINING_STEPS}, batch_size: 64, lr: {_LEARNING_RATE[adaptation_method]}}}
"""


def _distill_one_student(file: str, ledger: str) -> str:
    """One student, in a process of its own; the teacher's texts are shared through the ledger."""
    import torch

    import capgap

    torch.set_num_threads(1)
    return capgap.distill(file, out=Path(file).with_suffix(""), device="cpu", ledger=ledger).path.name


def _distill_students(students: Path, files: dict[str, Path], on_event: Listener) -> None:
    """Two at a time; what is finished already is not made again."""
    ledger = str(students / "teacher.sqlite")
    with (
        stage(on_event, "distilling", len(files), "student") as advance,
        ProcessPoolExecutor(max_workers=2, mp_context=get_context("spawn")) as pool,
    ):
        for job in as_completed([pool.submit(_distill_one_student, str(file), ledger) for file in files.values()]):
            advance(1, job.result())


def _report_known_truths(run: "Run") -> Iterator[str]:
    """What this world is known to hold, as the intervals tell it."""
    import capgap

    for name in ("answers-full", "traces-full"):
        contrast = _select(
            run.results.estimates,
            quantity="capability_contrast",
            model=name,
            contrast="gap_closure",
            weighting="tasks",
            estimator="paired",
        )
        yield f"{name}: knowledge gap closed minus reasoning gap closed: {contrast}"
    # Roles belong to the comparison: here the student of traces leads, and the student of answers is compared to it.
    estimates = capgap.analyze(run, students="answers-full", teacher="traces-full", base="none").estimates
    group = "chains_generate: x_depth=1"
    gap_ci = _select(estimates, quantity="gap", level="slice", group=group, model="answers-full", estimator="paired")
    yield f"one-step chains, traces minus answers (all weights): {gap_ci}"


def _select(estimates: "pd.DataFrame", **column_codes: str) -> str:
    """The first estimate with these codes, in points with its interval."""
    for column, code in column_codes.items():
        estimates = estimates[estimates[column] == code]
    row = estimates.iloc[0]
    if row["status"] == "refused":
        return f"no number ({row['note']})"
    low, high = (f"{100 * row[end]:+.0f}" for end in ("conf_low", "conf_high"))
    return f"{100 * row['estimate']:+.0f} points [{low}, {high}]"
