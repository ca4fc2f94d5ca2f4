"""`capgap import`: other people's results into a directory that `capgap analyze` reads; torch is never loaded."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from capgap.importers import ImportBatch, MergedImport

__all__ = ["import_"]

_LISTED = 30

_paths: Callable[[Any], Any] = click.argument(
    "paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PATH…"
)
_out: Callable[[Any], Any] = click.option(
    "--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Directory of imports; merged into."
)
_set: Callable[[Any], Any] = click.option(
    "--set",
    "constants",
    multiple=True,
    metavar="COLUMN=VALUE",
    help="One value for every row: model, battery, task, variant, capability, domain, format or chance.",
)
_primary: Callable[[Any], Any] = click.option(
    "--primary",
    multiple=True,
    metavar="[TASK:]METRIC[,FILTER]",
    help="The metric that counts; default: the source's first.",
)
_replace: Callable[[Any], Any] = click.option(
    "--replace", is_flag=True, help="Let a later answer of a model to an item replace an earlier, different one."
)
_json: Callable[[Any], Any] = click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")


@click.group(name="import")
def import_() -> None:
    """Bring results of other tools into DIR/outcomes, for capgap analyze.

    Files are merged into what DIR holds; the same answer again is no answer more. What cannot be understood is listed
    on stderr and in DIR/import.json.
    """


@import_.command("lm-eval")
@_paths
@_out
@_set
@_primary
@_replace
@_json
def lm_eval_command(
    paths: tuple[Path, ...],
    out: Path,
    constants: tuple[str, ...],
    primary: tuple[str, ...],
    replace: bool,
    as_json: bool,
) -> None:
    """Results and samples of lm-evaluation-harness, of 2023 and today.

    PATH is a samples file, or a folder that holds samples_*.jsonl beside results_*.json. Without samples
    (--log_samples) there are no items, and nothing to pair.
    """
    from capgap.importers import ImportSettings, import_lm_eval

    _finish(import_lm_eval(paths, ImportSettings.parsed(constants, primary)), out, replace=replace, as_json=as_json)


@import_.command("inspect")
@_paths
@_out
@_set
@_primary
@_replace
@_json
def inspect_command(
    paths: tuple[Path, ...],
    out: Path,
    constants: tuple[str, ...],
    primary: tuple[str, ...],
    replace: bool,
    as_json: bool,
) -> None:
    """Logs of inspect_ai: .eval archives and .json logs, or folders of them."""
    from capgap.importers import ImportSettings, import_inspect

    _finish(import_inspect(paths, ImportSettings.parsed(constants, primary)), out, replace=replace, as_json=as_json)


@import_.command("table")
@_paths
@_out
@click.option(
    "--map",
    "columns",
    multiple=True,
    metavar="COLUMN=THEIRS",
    help="Which of the table's columns is our COLUMN (model, task, item, score, …, x_NAME).",
)
@_set
@_replace
@_json
def table_command(
    paths: tuple[Path, ...],
    out: Path,
    columns: tuple[str, ...],
    constants: tuple[str, ...],
    replace: bool,
    as_json: bool,
) -> None:
    """Any CSV, JSONL, JSON or Parquet table with one row an answer.

    Needed are model, task, item and score: columns of these names, --map, or --set.
    """
    from capgap.importers import ImportSettings, assignments, import_table

    batch = import_table(paths, assignments(columns, "--map"), ImportSettings.parsed(constants))
    _finish(batch, out, replace=replace, as_json=as_json)


def _finish(batch: "ImportBatch", out: Path, *, replace: bool, as_json: bool) -> None:
    """Merge, then say what was imported (stdout) and what was not (stderr)."""
    from capgap.errors import CapgapError
    from capgap.importers import merge_batch

    try:
        stored = merge_batch(batch, out, replace=replace, command=["capgap", *sys.argv[1:]])
    except CapgapError:
        _tell(batch)
        raise
    _tell(batch)
    summary = _summary(batch, stored)
    if as_json:
        click.echo(json.dumps(summary, indent=1, ensure_ascii=False))
        return
    models = [str(name) for name in sorted(stored.outcomes["model"].unique())]
    replaced = f", {stored.n_replaced:,} answers replaced" if stored.n_replaced else ""
    click.echo(
        f"{summary['outcomes']}: {len(models):,} models, {summary['tasks']:,} tasks, {summary['items']:,} items, "
        f"{summary['rows']:,} rows ({stored.n_new:,} new{replaced})"
    )
    click.echo(f"models: {_few(models)}", err=True)
    click.echo(f"Next: capgap analyze {out} --teacher NAME --base NAME", err=True)


def _tell(batch: "ImportBatch") -> None:
    """Remarks, and what was not imported: with the reason and how often."""
    for note in batch.notes[:_LISTED]:
        click.echo(f"note: {note}", err=True)
    skipped = batch.skipped
    if skipped:
        click.echo(f"not imported, {len(skipped):,} reason{'s' if len(skipped) > 1 else ''}:", err=True)
    for one in skipped[:_LISTED]:
        click.echo(f"  {one}", err=True)
    left = max(0, len(batch.notes) - _LISTED) + max(0, len(skipped) - _LISTED)
    if left:
        click.echo(f"  and {left:,} more, in import.json", err=True)


def _summary(batch: "ImportBatch", stored: "MergedImport") -> dict[str, Any]:
    outcomes = stored.outcomes
    return {
        "outcomes": str(stored.path / "outcomes"),
        "models": sorted(str(name) for name in outcomes["model"].unique()),
        "tasks": len(outcomes[["battery", "task"]].drop_duplicates()),
        "items": len(outcomes[["battery", "task", "item"]].drop_duplicates()),
        "rows": len(outcomes),
        "new": stored.n_new,
        "replaced": stored.n_replaced,
        "not_imported": sum(one.count for one in batch.skipped),
        "notes": batch.notes,
    }


def _few(names: Sequence[str], limit: int = 10) -> str:
    """Names from files, without what a terminal would obey."""
    from capgap.importers.values import printable

    more = f" and {len(names) - limit:,} more" if len(names) > limit else ""
    return ", ".join(printable(name, 80) for name in names[:limit]) + more
