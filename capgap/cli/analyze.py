"""`capgap analyze`: statistics and report from tables alone; torch is never loaded."""

from pathlib import Path
from typing import Any

import click

from capgap.cli.options import items_option, json_option, labels_option, margin_option
from capgap.cli.printing import command_line, print_results
from capgap.cli.progress import render_progress
from capgap.default_folders import analysis_folder


@click.command()
@click.argument("tables", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="TABLE|DIR…")
@click.option(
    "--student", "students", multiple=True, metavar="NAME",
    help="Default: those that DIR remembers, else every model that plays no other role.",
)  # fmt: skip
@click.option("--teacher", metavar="NAME|none", help="Name of the teacher in the tables.")
@click.option("--base", metavar="NAME|none", help="Name of the base in the tables.")
@click.option("--control", metavar="NAME|none", help="Name of the control in the tables.")
@click.option(
    "--models", type=click.Path(path_type=Path), metavar="TABLE",
    help="How models were made: a row each, with `model` and what is known of n_examples, seed, adaptation, "
    "supervision, base … Effects, data cost, recipes and patterns need it.",
)  # fmt: skip
@labels_option
@margin_option
@items_option
@json_option
@click.option(
    "--out", type=click.Path(path_type=Path),
    help="Where estimates and report go; default: DIR, or capgap-out/NAME. A page there about other models or tasks "
    "is kept in OUT/earlier.",
)  # fmt: skip
def analyze(tables: tuple[Path, ...], items: Any, as_json: bool, out: Path | None, **options: Any) -> None:
    """Statistics and report from outcome tables (Parquet, CSV, JSONL) or run directories.

    A table needs the columns model, task, item and score (0 to 1). It may have capability (knowledge, reasoning or
    mixed), chance (the score of a guess), domain, cluster (items that stand or fall together), format (choose or
    generate), prediction, response, target, battery, variant, repeat, and x_NAME for properties of the items; all
    columns stand in capgap/schema/columns.py. Roles are names in the column `model`; a run directory remembers its own.
    """
    from capgap.results import compare

    folder = out or analysis_folder(tables[0])
    # A run that is analysed in its own directory keeps the command line of its evaluation.
    keeps_old_command = out is None and tables[0].is_dir()
    with render_progress() as listener:
        results = compare(tables, command=() if keeps_old_command else command_line(), on_event=listener, **options)
        report_path = results.write(folder, items=items, on_event=listener)
    print_results(results, report_path, as_json=as_json)
