"""`capgap import`: other people's results into a directory that `capgap analyze` reads; torch is never loaded."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from capgap.cli.options import json_option
from capgap.cli.printing import command_line, print_json

if TYPE_CHECKING:
    from capgap.importers import ImportResult, MergedImport

__all__ = ["import_"]

_MAX_SHOWN_REMARKS, _MOST_NAMES = 30, 10

_set_column_option = click.option(
    "--set", "constants", multiple=True, metavar="COLUMN=VALUE",
    help="One value for every row: model, battery, task, variant, capability, domain, format or chance.",
)  # fmt: skip
_primary_option = click.option(
    "--primary", multiple=True, metavar="[TASK:]METRIC[,FILTER]",
    help="The metric that counts; default: the source's first.",
)  # fmt: skip


def _import_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What every format takes: files, constants, and how the rows are merged into --out."""
    for option in (
        json_option,
        click.option(
            "--replace", is_flag=True,
            help="Let a later answer of a model to an item replace an earlier, different one.",
        ),
        _set_column_option,
        click.option(
            "--out", required=True, type=click.Path(path_type=Path), metavar="DIR",
            help="Directory of imports; merged into.",
        ),
        click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PATH…"),
    ):  # fmt: skip
        command = option(command)
    return command


@click.group(name="import")
def import_() -> None:
    """Bring results of other tools into DIR/outcomes, for capgap analyze.

    Files are merged into what DIR holds; the same answer again is no answer more. What cannot be understood is listed
    on stderr and in DIR/import.json.
    """


@import_.command("lm-eval")
@_import_options
@_primary_option
def lm_eval(paths: tuple[Path, ...], constants: tuple[str, ...], primary: tuple[str, ...], **options: Any) -> None:
    """Results and samples of lm-evaluation-harness, of 2023 and today.

    PATH is a samples file, or a folder that holds samples_*.jsonl beside results_*.json. Without samples
    (--log_samples) there are no items, and nothing to pair.
    """
    from capgap.importers import ImportSettings, import_lm_eval

    _merge_and_report(import_lm_eval(paths, ImportSettings.parsed(constants, primary)), **options)


@import_.command("inspect")
@_import_options
@_primary_option
def inspect_ai(paths: tuple[Path, ...], constants: tuple[str, ...], primary: tuple[str, ...], **options: Any) -> None:
    """Logs of inspect_ai: .eval archives and .json logs, or folders of them."""
    from capgap.importers import ImportSettings, import_inspect

    _merge_and_report(import_inspect(paths, ImportSettings.parsed(constants, primary)), **options)


@import_.command("table")
@_import_options
@click.option(
    "--map", "columns", multiple=True, metavar="COLUMN=THEIRS",
    help="Which of the table's columns is our COLUMN (model, task, item, score, …, x_NAME).",
)  # fmt: skip
def table(paths: tuple[Path, ...], constants: tuple[str, ...], columns: tuple[str, ...], **options: Any) -> None:
    """Any CSV, JSONL, JSON or Parquet table with one row an answer.

    Needed are model, task, item and score: columns of these names, --map, or --set.
    """
    from capgap.importers import ImportSettings, import_result_tables, parse_pairs

    _merge_and_report(
        import_result_tables(paths, parse_pairs(columns, "--map"), ImportSettings.parsed(constants)), **options
    )


def _merge_and_report(batch: "ImportResult", out: Path, *, replace: bool, as_json: bool) -> None:
    """Merge, then print what was imported (stdout) and what was not (stderr)."""
    from capgap.importers import merge_batch

    try:
        merged_import = merge_batch(batch, out, replace=replace, command=command_line())
    finally:
        _print_remarks(batch)
    summary = _summary(batch, merged_import)
    if as_json:
        print_json(summary)
        return
    models = summary["models"]
    replaced_text = f", {merged_import.n_replaced:,} answers replaced" if merged_import.n_replaced else ""
    click.echo(
        f"{summary['outcomes']}: {len(models):,} models, {summary['tasks']:,} tasks, {summary['items']:,} items, "
        f"{summary['rows']:,} rows ({merged_import.n_new_rows:,} new{replaced_text})"
    )
    click.echo(f"models: {_format_name_list(models)}", err=True)
    click.echo(f"Next: capgap analyze {out} --teacher NAME --base NAME", err=True)


def _print_remarks(batch: "ImportResult") -> None:
    """Notes, and what was not imported: with the reason and how often."""
    skipped = batch.skipped
    lines = [f"note: {import_note}" for import_note in batch.notes[:_MAX_SHOWN_REMARKS]]
    if skipped:
        lines.append(f"not imported, {len(skipped):,} reason{'s' if len(skipped) > 1 else ''}:")
    lines += [f"  {reason}" for reason in skipped[:_MAX_SHOWN_REMARKS]]
    n_omitted = max(0, len(batch.notes) - _MAX_SHOWN_REMARKS) + max(0, len(skipped) - _MAX_SHOWN_REMARKS)
    lines += [f"  and {n_omitted:,} more, in import.json"] if n_omitted else []
    for line in lines:
        click.echo(line, err=True)


def _summary(batch: "ImportResult", merged_import: "MergedImport") -> dict[str, Any]:
    outcomes = merged_import.outcomes
    return {
        "outcomes": str(merged_import.path / "outcomes"),
        "models": sorted(str(name) for name in outcomes["model"].unique()),
        "tasks": len(outcomes[["battery", "task"]].drop_duplicates()),
        "items": len(outcomes[["battery", "task", "item"]].drop_duplicates()),
        "rows": len(outcomes),
        "new": merged_import.n_new_rows,
        "replaced": merged_import.n_replaced,
        "not_imported": sum(reason.count for reason in batch.skipped),
        "notes": batch.notes,
    }


def _format_name_list(names: Sequence[str]) -> str:
    """The first names from files, without what a terminal would obey."""
    from capgap.importers.values import short_text

    overflow_text = f" and {len(names) - _MOST_NAMES:,} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(short_text(name, 80) for name in names[:_MOST_NAMES]) + overflow_text
