"""`capgap evaluate`: the main job."""

import sys
from pathlib import Path

import click

from capgap.cli.conclude import conclude, items_option, json_option, margin_option, say, say_notes
from capgap.cli.labels import labels_option
from capgap.cli.permissions import allow_options

__all__ = ["evaluate", "set_threads"]


@click.command()
@click.option(
    "--student",
    "students",
    multiple=True,
    required=True,
    metavar="MODEL",
    help="A model to look at; repeatable, globs allowed.",
)
@click.option("--teacher", metavar="MODEL", help="The model that it learnt from.")
@click.option(
    "--base",
    metavar="MODEL|none",
    help="The student before distillation; found in the student's own files where it can be.",
)
@click.option("--control", metavar="MODEL", help="The same student trained on gold targets instead of the teacher's.")
@click.option(
    "--battery",
    "batteries",
    multiple=True,
    metavar="NAME|FILE",
    help="Default: microworld for microworld models, else core.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Items a task at most: a seeded sample.")
@click.option(
    "--device", metavar="D", help="cpu, mps, cuda, cuda:1, cuda:0,2 (one worker each); default: all GPUs, else the CPU."
)
@click.option(
    "--dtype",
    type=click.Choice(["auto", "float32", "float16", "bfloat16"]),
    help="Default: float32 on a CPU, else the checkpoint's.",
)
@click.option("--batch-tokens", type=click.IntRange(min=64), help="Tokens in one forward pass, at most: bounds memory.")
@click.option(
    "--threads", type=click.IntRange(min=1), help="CPU threads; default: OMP_NUM_THREADS, else the idle cores."
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Processes on each device, a thread each: for small models on a CPU.",
)
@click.option(
    "--shard",
    metavar="K/N",
    help="This machine asks the K-th of N parts, into a ledger of its own; without it, all of them become tables.",
)
@click.option("--rescore", is_flag=True, help="Make the tables again from the ledger; no model is loaded.")
@click.option(
    "--data-root",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="CAPGAP_DATA",
    help="Where batteries find their data beside their own folder.",
)
@allow_options
@labels_option
@margin_option
@items_option
@json_option
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Run directory; default capgap-out/NAME. The same command goes on where it stopped.",
)
def evaluate(
    students: tuple[str, ...],
    teacher: str | None,
    base: str | None,
    control: str | None,
    batteries: tuple[str, ...],
    limit: int | None,
    device: str | None,
    dtype: str | None,
    batch_tokens: int | None,
    threads: int | None,
    workers: int,
    shard: str | None,
    rescore: bool,
    data_root: Path | None,
    allow: tuple[str, ...],
    labels_file: Path | None,
    margin: float | None,
    items: str,
    as_json: bool,
    out: Path | None,
) -> None:
    """Evaluate students, teacher, base and control on batteries, and write the report.

    \b
    MODEL is [NAME=]CKPT[,key=value…]: a local directory, an adapter directory, a hub name,
    microworld:teacher, or BACKEND:ARGS for any backend of lm-eval. Roles may be missing.

    \b
      capgap evaluate --student out/student --teacher Qwen/Qwen2.5-7B-Instruct --battery pocket
      capgap evaluate --student microworld:small --teacher microworld:teacher
    """
    from capgap import evaluation as engine

    set_threads(threads)
    compared, lead, bases, controls, notes = engine.cast_roles(
        students, teacher=teacher, base=base, control=control, allow=allow
    )
    devices = engine.parse_devices(device)
    plan = engine.EvaluationPlan(
        students=compared,
        teacher=lead,
        bases=bases,
        controls=controls,
        batteries=batteries or engine.default_batteries(compared),
        limit=limit,
        device=devices[0] if devices else None,
        devices=devices if len(devices) > 1 else (),
        dtype=dtype,
        batch_tokens=batch_tokens,
        workers=workers,
        shard=engine.parse_shard(shard),
        rescore=rescore,
        data_root=data_root,
        notes=tuple(notes),
    )
    folder = out or Path("capgap-out") / compared[0].name.replace("/", "-")
    run = engine.evaluate(plan, folder, command=["capgap", *sys.argv[1:]], on_event=say_notes)
    if plan.shard is not None:
        say(f"part {shard} is in {run.path}. With all parts there, the same command without --shard writes the report.")
        return
    if margin is not None:
        run.save(margin=margin)
    outcomes = run.outcomes(plan.roles)
    conclude(
        run.path,
        outcomes,
        plan.roles,
        run.facts,
        show_items=items == "some",
        as_json=as_json,
        margin=margin,
        labels_file=labels_file,
    )
    run.save(state="done")


def set_threads(threads: int | None) -> None:
    """Threads that share a busy core wait for each other by spinning and can be ten times slower than one."""
    import os

    import torch

    torch.set_num_threads(threads or int(os.environ.get("OMP_NUM_THREADS") or 0) or _idle_cores())


def _idle_cores() -> int:
    import os

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return max(1, cores - round(busy))
