"""`capgap classify`: knowledge or reasoning for each item, with the evidence."""

import sys
from pathlib import Path
from typing import Any

import click

from capgap.cli.options import add_permission_options, data_root_option, set_threads
from capgap.cli.progress import quiet_option, render_progress, verbose_option
from capgap.default_folders import CLASSIFY_WORK_FOLDER
from capgap.events import Note


@click.command()
@click.argument("source", metavar="FILE|BATTERY")
@click.option(
    "--model", "models", multiple=True, metavar="MODEL",
    help="Ask this model too, with and without thoughts; repeatable. Never one that the labels will compare.",
)  # fmt: skip
@click.option(
    "--outcomes", multiple=True, type=click.Path(path_type=Path), metavar="TABLE|DIR",
    help="Answers that are there already, with variants such as cot; repeatable.",
)  # fmt: skip
@click.option(
    "--evidence", multiple=True, type=click.Choice(["declared", "text", "behaviour"]),
    help="Only this kind of evidence; repeatable. Default: all that there is.",
)  # fmt: skip
@click.option(
    "--work", type=click.Path(path_type=Path, file_okay=False), default=CLASSIFY_WORK_FOLDER, show_default=True,
    help="Where answers of --model are kept, as a DIR for --outcomes; the same command goes on where it stopped.",
)  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="A .jsonl or .parquet file; else stdout.")
@click.option("--replace", is_flag=True, help="Replace OUT where it is there already.")
@click.option("--limit", type=click.IntRange(min=1), help="Items (of a battery: a task) at most: a seeded sample.")
@click.option("--device", metavar="D", help="cpu, mps, cuda, cuda:1; default: a GPU, else the CPU.")
@data_root_option
@add_permission_options
@quiet_option
@verbose_option
def classify(source: str, out: Path | None, replace: bool, quiet: bool, **options: Any) -> None:
    """Say of each item whether it asks for knowledge or for reasoning, how sure that is, and why.

    \b
    FILE is JSONL with `text` and, where known, `item`, `task`, `choices`, `target`, `capability`,
    `rationale`. Evidence comes from what is declared, from the words of the item, and with --model
    or --outcomes from how models answer; p_reasoning in the middle means mixed.

    \b
      capgap classify questions.jsonl --out labels.jsonl
      capgap classify pocket --out labels.parquet
      capgap classify microworld --model microworld:teacher --model microworld:generalist
    """
    import capgap
    from capgap.classification import check_output_path, label_lines, write_label_file

    if out is not None:
        check_output_path(out, replace=replace)
    if options["models"]:
        set_threads(None)
    with render_progress(quiet=quiet) as listener:
        labels = capgap.classify(source, **options, on_event=listener)
        if out is not None:
            write_label_file(labels, out, replace=replace)
            listener(Note(f"labels: {out}"))
            return
    for line in label_lines(labels, ascii_only="utf" not in (sys.stdout.encoding or "").lower()):
        click.echo(line)
