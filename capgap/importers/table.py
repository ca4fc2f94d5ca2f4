"""Any table of results to outcomes: the user says which of its columns is what."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capgap import schema
from capgap.errors import TableError, UsageError, suggestion
from capgap.importers.import_batch import ImportResult, TaskResults, label
from capgap.importers.reading import files_under
from capgap.importers.settings import ImportSettings
from capgap.importers.table_cells import cell, missing, score
from capgap.importers.table_files import FILE_SUFFIXES, TableRow, column_names, read_table
from capgap.importers.values import short_text, truncate_text

__all__ = ["import_result_tables"]

REQUIRED_COLUMNS = ("model", "task", "item", "score")
"""What a table must say about every row, by its columns or by the user's constants."""
_ITEM_COLUMNS = ("prompt", "choices")
_OUTCOME_COLUMNS = {column.name: column for column in schema.OUTCOMES.columns}


@dataclass(frozen=True)
class _SourceColumns:
    """How the columns of one table are read."""

    sources: dict[str, str]
    """Our column → theirs."""
    unused_names: tuple[str, ...]
    """Theirs that stay out, printable."""


def import_result_tables(
    paths: Sequence[Path], columns: Mapping[str, str], settings: ImportSettings | None = None
) -> ImportResult:
    """What tables say about every item, one part for each model and task of a table.

    Parameters
    ----------
    paths
        CSV, JSONL, JSON or Parquet files, or folders that are searched for them.
    columns
        Our column → theirs. A column of theirs that has one of our names, or begins with ``x_``, needs no entry.
    settings
        What the user says instead of the tables.

    Returns
    -------
    ImportBatch
        Columns that stay out are in its list.

    Raises
    ------
    UsageError
        A column that is none of ours is named.
    TableError
        A path does not exist, a column is missing, or a row cannot be understood: nothing of a table is imported
        then, because a table is one statement. The row is named.
    """
    settings = settings or ImportSettings()
    _check_names(columns, settings)
    batch = ImportResult("table")
    for file in dict.fromkeys(file for path in paths for file in files_under(path, FILE_SUFFIXES)):
        try:
            batch.parts += _task_results(file, columns, settings, batch)
        except TableError as error:
            raise TableError(f"{label(file)}: {error}") from None
        except OSError as error:
            raise TableError(f"{label(file)}: cannot be read: {error.strerror or error}.") from error
    return batch


def _check_names(columns: Mapping[str, str], settings: ImportSettings) -> None:
    known_columns = (*_OUTCOME_COLUMNS, *_ITEM_COLUMNS)
    for column in columns:
        if not _is_known_column(column):
            raise UsageError(
                f"--map {column}={columns[column]}: no column {column!r}.{suggestion(column, known_columns)} Or x_NAME."
            )
        if column in settings.fixed_values:
            raise UsageError(f"--map {column} and --set {column}: a column is either read or constant.")
    if settings.primary:
        raise UsageError("--primary: a table says it in a column of its own: --map primary=COLUMN")


def _task_results(
    file: Path, columns: Mapping[str, str], settings: ImportSettings, batch: ImportResult
) -> list[TaskResults]:
    column_map = _pick_columns(column_names(file), columns, settings)
    rows: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    items: dict[tuple[str, str], dict[tuple[str, str], dict[str, Any]]] = defaultdict(dict)
    line_by_key: dict[tuple[Any, ...], str] = {}
    n_missing = 0
    for table_row in read_table(file):
        row = _row(table_row, column_map, settings)
        _refuse_duplicate(table_row, row, line_by_key)
        n_missing += row["score"] is None
        model_task = (str(row["model"]), str(row["task"]))
        _move_item_columns(row, items[model_task])
        rows[model_task].append(row)
    if column_map.unused_names:
        reason = "columns without a meaning here (--map x_NAME=COLUMN keeps one as a covariate)"
        batch.skip(file, reason, len(column_map.unused_names), first_example=", ".join(column_map.unused_names[:20]))
    if n_missing:
        batch.note(f"{label(file)}: {n_missing:,} rows have no score; they are errors, not zeros")
    # One part for each model and task, so that what is there already can be compared task by task.
    return [
        TaskResults(label(file), _fill_missing_columns(task_rows), list(items[model_task].values()))
        for model_task, task_rows in rows.items()
    ]


def _pick_columns(table_columns: Sequence[str], columns: Mapping[str, str], settings: ImportSettings) -> _SourceColumns:
    """Which columns are read: those that the user named, and those that have one of our names."""
    shown_names = [short_text(name, 80) for name in table_columns]
    for column, name in columns.items():
        if name not in table_columns:
            raise TableError(f"--map {column}={name}: no column {name!r} there.{suggestion(name, shown_names)}")
    sources, claimed = dict(columns), set(columns.values())
    for name in table_columns:
        if _is_known_column(name) and name not in columns and name not in claimed and name not in settings.fixed_values:
            sources[name] = name
    for name in REQUIRED_COLUMNS:
        if name not in sources and name not in settings.fixed_values:
            constant = f", or --set {name}=VALUE" if name in ("model", "task") else ""
            raise TableError(
                f"nothing says the {name}. Found: {', '.join(shown_names[:20])}. "
                f"Name the column: --map {name}=COLUMN{constant}"
            )
    used_columns = set(sources.values())
    return _SourceColumns(sources, tuple(short_text(name, 80) for name in table_columns if name not in used_columns))


def _is_known_column(name: str) -> bool:
    """Whether a column of theirs has one of our names."""
    return name in _OUTCOME_COLUMNS or name in _ITEM_COLUMNS or (name.startswith("x_") and len(name) > 2)


def _row(table_row: TableRow, column_map: _SourceColumns, settings: ImportSettings) -> dict[str, Any]:
    """The row in our columns and types."""
    row: dict[str, Any] = dict(settings.fixed_values)
    for name, source_column in column_map.sources.items():
        value = table_row.cells.get(source_column)
        cell_location = f"{table_row.location}, column {short_text(source_column, 80)}"
        if name == "score":
            row[name] = score(value, cell_location)
        elif not missing(value):
            if name in _OUTCOME_COLUMNS:
                row[name] = cell(value, _OUTCOME_COLUMNS[name], cell_location)
            else:
                is_text = name.startswith("x_") and not isinstance(value, (bool, int, float))
                row[name] = _text(value) if is_text else value
    for name in REQUIRED_COLUMNS[:3]:
        if row.get(name) is None:
            raise TableError(f"{table_row.location}: the {name} is empty.")
    return row | _reconcile_score(row.get("score"), row.get("status"), row.get("value"))


def _reconcile_score(score: float | None, status: str | None, value: float | None) -> dict[str, Any]:
    """Score, status and value that agree: an unread answer scores 0, an error has no score, no score is an error."""
    if status in ("unparsed", "truncated") and score is None:
        score = 0.0
    if status == "error" or score is None:
        score, status = None, "error"
    return {"score": score, "status": status or "scored", "value": score if value is None else value}


def _refuse_duplicate(table_row: TableRow, row: Mapping[str, Any], line_by_key: dict[tuple[Any, ...], str]) -> None:
    key = tuple(row.get(name, _OUTCOME_COLUMNS[name].default) for name in schema.OUTCOME_KEY)
    if key in line_by_key:
        answer = ", ".join(f"{name} {short_text(row[name])}" for name in ("model", "task", "item"))
        raise TableError(
            f"{table_row.location}: says again what {line_by_key[key]} says: {answer}. Where an item was asked several "
            f"times, or scored several ways, say which column tells: --map repeat=COLUMN, --map metric=COLUMN"
        )
    line_by_key[key] = table_row.location


def _move_item_columns(row: dict[str, Any], items: dict[tuple[str, str], dict[str, Any]]) -> None:
    """Move the question from a row to the items table, where it belongs."""
    texts = {name: _text(row.pop(name)) for name in _ITEM_COLUMNS if name in row}
    if not texts:
        return
    variant = str(row.get("variant", "default"))
    battery = row.get("battery", _OUTCOME_COLUMNS["battery"].default)
    item = {"battery": battery, "task": row["task"], "item": row["item"], "variant": variant}
    texts = {"prompt": None, "choices": None, "target": _text(row.get("target")), **texts}
    items.setdefault((variant, row["item"]), item | texts)


def _text(value: Any) -> str | None:
    return truncate_text(value if isinstance(value, (str, dict, list)) or value is None else str(value))


def _fill_missing_columns(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows that all have the columns of any of them: what one leaves out has the default of the schema."""
    names = dict.fromkeys(name for row in rows for name in row)
    defaults = {name: _OUTCOME_COLUMNS[name].default if name in _OUTCOME_COLUMNS else None for name in names}
    return [defaults | row for row in rows]
