"""`capgap report`: the report of a run, written again from its tables."""

from pathlib import Path
from typing import Any

import click

from capgap.cli.options import items_option, json_option, margin_option
from capgap.cli.printing import print_results
from capgap.cli.progress import render_progress


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@margin_option
@items_option
@json_option
def report(folder: Path, margin: float | None, items: Any, as_json: bool) -> None:
    """Write DIR/report.html again, from the tables in the run directory DIR alone."""
    import capgap
    from capgap.results import compare

    run = capgap.load(folder)
    with render_progress() as listener:
        _ = run.roles  # refuses a directory that remembers no comparison
        results = compare(run, margin=margin, on_event=listener)
        report_path = results.write(folder, items=items, on_event=listener)
    print_results(results, report_path, as_json=as_json)
