"""Results on stdout, and what goes there safely: the last sentence of a command, or JSON."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from capgap.results import Results

__all__ = ["command_line", "print_json", "print_results"]

MAX_SHOWN_LINES = 12
"""Lines of the sentence on a terminal; the report has them all."""


def command_line() -> list[str]:
    """The command as it was typed, for the record of a run."""
    return ["capgap", *sys.argv[1:]]


def print_json(content: Any) -> None:
    """Anything that JSON can hold, on stdout."""
    click.echo(json.dumps(content, indent=1, ensure_ascii=False))


def print_results(results: "Results", report: Path, *, as_json: bool) -> None:
    """The sentence and the next step; as JSON, with the estimates of batteries and capabilities."""
    lines = results.sentence.splitlines()
    if as_json:
        from capgap.schema import json_records

        coarse_estimates = results.estimates[results.estimates["level"].isin(["battery", "capability"])]
        summary = {"sentence": lines, "next": results.next_step, "report": str(report)}
        print_json({**summary, "estimates": json_records(coarse_estimates)})
        return
    click.echo(f"report: {report}", err=True)
    for line in lines[:MAX_SHOWN_LINES]:
        click.echo(line)
    if len(lines) > MAX_SHOWN_LINES:
        click.echo(f"… and {len(lines) - MAX_SHOWN_LINES} more students: see the report")
    if results.next_step:
        click.echo(results.next_step)
