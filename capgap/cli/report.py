"""`capgap report`: the report of a run, written again from its tables."""

from pathlib import Path

import click

from capgap import schema
from capgap.cli.conclude import conclude, items_option, json_option, margin_option
from capgap.errors import StoreError

__all__ = ["report"]


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@margin_option
@items_option
@json_option
def report(folder: Path, margin: float | None, items: str, as_json: bool) -> None:
    """Write DIR/report.html again, from the tables in the run directory DIR alone."""
    from capgap.store.run_directory import RunDirectory

    run = RunDirectory.existing(folder)
    told = run.facts.get("roles")
    if not told:
        raise StoreError(f"{folder}: run.json names no roles. Use capgap analyze {folder} --student NAME.")
    roles = schema.Roles(tuple(told["students"]), told.get("teacher"), told.get("base", {}), told.get("control", {}))
    outcomes = run.outcomes(roles)
    conclude(run.path, outcomes, roles, run.facts, show_items=items == "some", as_json=as_json, margin=margin)
