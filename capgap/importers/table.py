"""Any table of results to outcomes: the user says which of its columns is what."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capgap import schema
from capgap.errors import TableError, UsageError, suggestion
from capgap.importers.import_batch import ImportBatch, TaskResults, label
from capgap.importers.reading import files_under
from capgap.importers.settings import ImportSettings
from capgap.importers.table_cells import cell, missing, score
from capgap.importers.table_files import SUFFIXES, ForeignRow, column_names, read_table
from capgap.importers.values import kept_text, shown

__all__ = ["import_table"]

REQUIRED = ("model", "task", "item", "score")
"""What a table must say about every row, by its columns or by the user's constants."""
_QUESTION = ("prompt", "choices")
_COLUMNS = {column.name: column for column in schema.OUTCOMES.columns}
_ITEM_TEXTS = ("prompt", "choices", "target")


@dataclass(frozen=True)
class _ColumnMapping:
    """How the columns of one table are read."""

    sources: dict[str, str]
    """Our column → theirs."""
    unused: tuple[str, ...]
    """Theirs that stay out."""


def import_table(
    paths: Sequence[Path], columns: Mapping[str, str], settings: ImportSettings | None = None
) -> ImportBatch:
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
    Batch
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
    batch = ImportBatch("table")
    for file in dict.fromkeys(file for path in paths for file in files_under(path, SUFFIXES)):
        try:
            batch.parts += _parts(file, columns, settings, batch)
        except TableError as error:
            raise TableError(f"{label(file)}: {error}") from None
        except OSError as error:
            raise TableError(f"{label(file)}: cannot be read: {error.strerror or error}.") from error
    return batch


def _check_names(columns: Mapping[str, str], settings: ImportSettings) -> None:
    known = (*_COLUMNS, *_QUESTION)
    for ours in columns:
        if ours not in known and not (ours.startswith("x_") and len(ours) > 2):
            raise UsageError(f"--map {ours}={columns[ours]}: no column {ours!r}.{suggestion(ours, known)} Or x_NAME.")
        if ours in settings.constants:
            raise UsageError(f"--map {ours} and --set {ours}: a column is either read or constant.")
    if settings.primary:
        raise UsageError("--primary: a table says it in a column of its own: --map primary=COLUMN")


def _parts(file: Path, columns: Mapping[str, str], settings: ImportSettings, batch: ImportBatch) -> list[TaskResults]:
    head = _head(column_names(file), columns, settings)
    rows: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    items: dict[tuple[str, str], dict[str, dict[str, Any]]] = defaultdict(dict)
    seen: dict[tuple[Any, ...], str] = {}
    n_missing = 0
    for row in read_table(file):
        ours = _row(row, head, settings)
        _refuse_twice(row, ours, seen)
        n_missing += ours["score"] is None
        own = (str(ours["model"]), str(ours["task"]))
        _keep_item(ours, items[own])
        rows[own].append(ours)
    if head.unused:
        reason = "columns without a meaning here (--map x_NAME=COLUMN keeps one as a covariate)"
        batch.skip(label(file), reason, len(head.unused), first=", ".join(head.unused[:20]))
    if n_missing:
        batch.note(f"{label(file)}: {n_missing:,} rows have no score; they are errors, not zeros")
    return [TaskResults(label(file), _complete(own), list(items[key].values())) for key, own in rows.items()]


def _head(theirs: Sequence[str], columns: Mapping[str, str], settings: ImportSettings) -> _ColumnMapping:
    """Which columns are read: those that the user named, and those that have one of our names."""
    shown_names = [shown(name, 80) for name in theirs]
    for ours, name in columns.items():
        if name not in theirs:
            raise TableError(f"--map {ours}={name}: no column {name!r} there.{suggestion(name, shown_names)}")
    sources, mapped = dict(columns), set(columns.values())
    for name in theirs:
        own = name in _COLUMNS or name in _QUESTION or (name.startswith("x_") and len(name) > 2)
        if own and name not in columns and name not in mapped and name not in settings.constants:
            sources[name] = name
    for name in REQUIRED:
        if name not in sources and name not in settings.constants:
            constant = f", or --set {name}=VALUE" if name in ("model", "task") else ""
            raise TableError(
                f"nothing says the {name}. Found: {', '.join(shown_names[:20])}. "
                f"Name the column: --map {name}=COLUMN{constant}"
            )
    used = set(sources.values())
    return _ColumnMapping(sources, tuple(shown(name, 80) for name in theirs if name not in used))


def _row(row: ForeignRow, head: _ColumnMapping, settings: ImportSettings) -> dict[str, Any]:
    """The row in our columns and types."""
    ours: dict[str, Any] = dict(settings.constants)
    for name, theirs in head.sources.items():
        value = row.cells.get(theirs)
        where = f"{row.place}, column {shown(theirs, 80)}"
        if name == "score":
            ours[name] = score(value, where)
        elif name in _COLUMNS and not missing(value):
            ours[name] = cell(value, _COLUMNS[name], where)
        elif name not in _COLUMNS and not missing(value):
            ours[name] = _covariate(value) if name.startswith("x_") else value
    for name in REQUIRED[:3]:
        if ours.get(name) is None:
            raise TableError(f"{row.place}: the {name} is empty.")
    return ours | _scored(ours.get("score"), ours.get("status"), ours.get("value"))


def _scored(score: float | None, status: str | None, value: float | None) -> dict[str, Any]:
    """Score, status and value that agree: an unread answer scores 0, an error has no score, no score is an error."""
    if status in ("unparsed", "truncated") and score is None:
        score = 0.0
    if status == "error" or score is None:
        score, status = None, "error"
    return {"score": score, "status": status or "scored", "value": score if value is None else value}


def _refuse_twice(row: ForeignRow, ours: Mapping[str, Any], seen: dict[tuple[Any, ...], str]) -> None:
    key = tuple(ours.get(name, _COLUMNS[name].default) for name in schema.OUTCOME_KEY)
    if key in seen:
        raise TableError(
            f"{row.place}: says again what {seen[key]} says: model {shown(ours['model'])}, task "
            f"{shown(ours['task'])}, item {shown(ours['item'])}. Where an item was asked several times, or scored "
            f"several ways, say which column tells: --map repeat=COLUMN, --map metric=COLUMN"
        )
    seen[key] = row.place


def _covariate(value: Any) -> Any:
    return value if isinstance(value, (bool, int, float)) else _text(value)


def _keep_item(ours: dict[str, Any], items: dict[str, dict[str, Any]]) -> None:
    """Take the question out of a row; it belongs to the items table."""
    texts = {name: ours.pop(name) for name in _QUESTION if name in ours}
    if not texts:
        return
    variant = str(ours.get("variant", "default"))
    items.setdefault(
        f"{variant}\0{ours['item']}",
        {
            "battery": ours.get("battery", _COLUMNS["battery"].default),
            "task": ours["task"],
            "item": ours["item"],
            "variant": variant,
            **{name: _text(texts.get(name, ours.get(name))) for name in _ITEM_TEXTS},
        },
    )


def _text(value: Any) -> str | None:
    return kept_text(value if isinstance(value, (str, dict, list)) or value is None else str(value))


def _complete(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows that all have the columns of any of them: what one leaves out has the default of the schema."""
    names = dict.fromkeys(name for row in rows for name in row)
    defaults = {name: _COLUMNS[name].default if name in _COLUMNS else None for name in names}
    return [defaults | row for row in rows]
