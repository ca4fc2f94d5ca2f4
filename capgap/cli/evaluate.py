"""`capgap evaluate`: the main job."""

from pathlib import Path
from typing import Any

import click

from capgap.cli.options import (
    add_permission_options,
    data_root_option,
    items_option,
    json_option,
    labels_option,
    margin_option,
    set_threads,
)
from capgap.cli.printing import command_line, print_results
from capgap.cli.progress import quiet_option, render_progress, verbose_option


@click.command()
@click.option(
    "--student", "students", multiple=True, required=True, metavar="MODEL",
    help="A model to look at; repeatable, globs allowed.",
)  # fmt: skip
@click.option("--teacher", metavar="MODEL", help="The model that it learnt from.")
@click.option(
    "--base", metavar="MODEL|none",
    help="The student before distillation; found in the student's own files where it can be.",
)  # fmt: skip
@click.option("--control", metavar="MODEL", help="The same student trained on gold targets instead of the teacher's.")
@click.option(
    "--battery", multiple=True, metavar="NAME|FILE", help="Default: microworld for microworld models, else core."
)
@click.option("--limit", type=click.IntRange(min=1), help="Items a task at most: a seeded sample.")
@click.option(
    "--device", metavar="D", help="cpu, mps, cuda, cuda:1, cuda:0,2 (one worker each); default: all GPUs, else the CPU."
)
@click.option(
    "--dtype", type=click.Choice(["auto", "float32", "float16", "bfloat16"]),
    help="Default: float32 on a CPU, else the checkpoint's.",
)  # fmt: skip
@click.option("--batch-tokens", type=click.IntRange(min=64), help="Tokens in one forward pass, at most: bounds memory.")
@click.option(
    "--threads", type=click.IntRange(min=1), help="CPU threads; default: OMP_NUM_THREADS, else the idle cores."
)
@click.option(
    "--workers", type=click.IntRange(min=1), default=1, show_default=True,
    help="Processes on each device, a thread each: for small models on a CPU.",
)  # fmt: skip
@click.option(
    "--shard", metavar="K/N",
    help="This machine asks the K-th of N parts, into a ledger of its own; without it, all of them become tables.",
)  # fmt: skip
@click.option("--rescore", is_flag=True, help="Make the tables again from the ledger; no model is loaded.")
@data_root_option
@add_permission_options
@labels_option
@margin_option
@items_option
@json_option
@click.option(
    "--out", type=click.Path(path_type=Path),
    help="Run directory; default capgap-out/STUDENT. The same command goes on where it stopped; other models and "
    "batteries are added, and a page about another comparison is kept in OUT/earlier.",
)  # fmt: skip
@quiet_option
@verbose_option
def evaluate(threads: int | None, as_json: bool, quiet: bool, **options: Any) -> None:
    """Evaluate students, teacher, base and control on batteries, and write the report.

    \b
    MODEL is [NAME=]CKPT[,key=value…]: a local directory, an adapter directory, a hub name,
    microworld:teacher, or BACKEND:ARGS for any backend of lm-eval. Roles may be missing.

    \b
      capgap evaluate --student out/student --teacher Qwen/Qwen2.5-7B-Instruct --battery pocket
      capgap evaluate --student microworld:small --teacher microworld:teacher
    """
    import capgap

    set_threads(threads)
    with render_progress(quiet=quiet) as listener:
        run = capgap.evaluate(**options, command=command_line(), on_event=listener)
    if options["shard"] is None:
        print_results(run.results, run.path / "report.html", as_json=as_json)
