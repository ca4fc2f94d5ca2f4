"""From tables to estimates, report and the last sentence: the same end for every command that reaches outcomes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import pandas as pd

from capgap import schema
from capgap.analysis import EQUIVALENCE_MARGIN, estimate_table, next_step, sentence
from capgap.cli.labels import classifier_facts, labels_for
from capgap.events import Event, Note
from capgap.report import write_report

__all__ = ["conclude", "items_option", "json_option", "margin_option", "say", "say_notes"]

items_option = click.option(
    "--items",
    type=click.Choice(["some", "none"]),
    default="some",
    show_default=True,
    help="Whether item and response texts stand in the report.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the headline estimates as JSON.")

margin_option = click.option(
    "--margin",
    type=click.FloatRange(0, 100, min_open=True, max_open=True),
    metavar="POINTS",
    help="A student within so many points of its teacher counts as its equal."
    f"  [default: {100 * EQUIVALENCE_MARGIN:g}]",
)

MOST_LINES = 12
"""Lines of the sentence on a terminal; run.json and the report have them all."""


def say(line: str) -> None:
    """A line of progress or advice, on stderr."""
    click.echo(line, err=True)


def say_notes(event: Event) -> None:
    """A listener that writes the notes on stderr."""
    if isinstance(event, Note):
        say(event.text)


def conclude(
    folder: Path,
    outcomes: pd.DataFrame,
    roles: schema.Roles,
    run: dict[str, Any],
    *,
    show_items: bool,
    as_json: bool = False,
    margin: float | None = None,
    labels_file: Path | None = None,
) -> pd.DataFrame:
    """Analyse, write ``estimates`` and the report into `folder`, and print the last sentence.

    Parameters
    ----------
    folder
        Holds (or will hold) the tables; ``items``, ``models`` and ``labels`` are used where they are there.
    outcomes, roles
        What is compared, and who is who.
    run
        What run.json says; shown as provenance. The sentence is added to it.
    show_items
        Whether prompts and answers stand in the report.
    as_json
        Print the sentence and the battery- and capability-level estimates as one JSON object instead of text.
    margin
        Of equivalence, in points; what `run` remembers, or `EQUIVALENCE_MARGIN`, where it is None.
    labels_file
        Labels of `capgap classify`, see `labels_for`.

    Returns
    -------
    pandas.DataFrame
        The estimates.
    """
    items, models = (_read(folder, table) for table in (schema.ITEMS, schema.MODELS))
    labels, told_of_labels = labels_for(folder, outcomes, items, models, roles, file=labels_file)
    if told_of_labels:
        say(told_of_labels)
    if margin is not None:
        run = {**run, "margin": margin}
    within = float(run.get("margin", 100 * EQUIVALENCE_MARGIN)) / 100
    estimates = estimate_table(outcomes, roles, models=models, labels=labels, items=items, margin=within)
    lines = sentence(estimates, roles).splitlines()
    advice = next_step(estimates, roles, run)
    # How far the run was when the report was written is not part of what it reports.
    told = {key: value for key, value in run.items() if key not in ("state", "updated")}
    run = {**told, "sentence": lines, "next": advice}
    report = write_report(
        folder / "report.html",
        outcomes=outcomes,
        estimates=estimates,
        roles=roles,
        run={**run, "classifier": classifier_facts(labels)},
        items=items,
        models=models,
        labels=labels,
        show_items=show_items,
    )
    # Last, and together: who stops this while the page is made finds the page and the numbers of the time before.
    schema.write(estimates, folder / "estimates.parquet", schema.ESTIMATES)
    schema.write_json(estimates, folder / "estimates.json")
    if as_json:
        click.echo(json.dumps(_summary(estimates, run, report), indent=1, ensure_ascii=False))
    else:
        say(f"report: {report}")
        for line in lines[:MOST_LINES]:
            click.echo(line)
        if len(lines) > MOST_LINES:
            click.echo(f"… and {len(lines) - MOST_LINES} more students: see the report")
        if advice:
            click.echo(advice)
    return estimates


def _read(folder: Path, table: schema.Table) -> pd.DataFrame | None:
    path = folder / f"{table.name}.parquet"
    return schema.read(path, table) if path.is_file() else None


def _summary(estimates: pd.DataFrame, run: Mapping[str, Any], report: Path) -> dict[str, Any]:
    coarse = estimates[estimates["level"].isin(["battery", "capability"])]
    return {
        "sentence": run["sentence"],
        "next": run["next"],
        "report": str(report),
        "estimates": schema.json_records(coarse),
    }
