"""Readers of foreign CSV, JSONL, JSON and Parquet tables: rows with their place in the file."""

import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from capgap.errors import TableError
from capgap.importers.reading import first_byte, records

__all__ = ["FILE_SUFFIXES", "TableRow", "column_names", "read_table"]

MAX_ROWS = 20_000_000
"""Rows of one table."""
MAX_UNPACKED_BYTES = 4 * 2**30
"""Bytes of a Parquet table when unpacked."""
_MAX_CELL_LENGTH = 16 * 2**20
_MAX_TABLE_COLUMNS = 1_000


@dataclass(frozen=True)
class TableRow:
    """One row as it stands in its file."""

    cells: dict[str, Any]
    """Column → cell; text in a CSV file, anything in the others."""
    location: str
    """``line 7``, ``row 7``."""


def read_table(path: Path) -> Iterator[TableRow]:
    """The rows of a table, in the order of the file.

    Raises
    ------
    TableError
        It is another kind of file, damaged, not UTF-8, or has rows that do not fit its head; a row is named.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise TableError(f"a table is one of {', '.join(FILE_SUFFIXES)}, not {path.suffix or 'a file without suffix'}.")
    for number, row in enumerate(reader(path), start=1):
        if number > MAX_ROWS:
            raise TableError(f"has more than {MAX_ROWS:,} rows.")
        if len(row.cells) > _MAX_TABLE_COLUMNS:
            raise TableError(f"{row.location}: has more than {_MAX_TABLE_COLUMNS:,} columns.")
        yield row


def column_names(path: Path) -> list[str]:
    """The columns of a table; of JSON, where every row may have keys of its own, those of any row.

    Raises
    ------
    TableError
        See `read_table`; or it holds no row.
    """
    names: dict[str, None] = {}
    for row in read_table(path):
        names |= dict.fromkeys(row.cells)
        if path.suffix.lower() in (".csv", ".parquet"):
            break
        if len(names) > _MAX_TABLE_COLUMNS:
            raise TableError(f"{row.location}: has more than {_MAX_TABLE_COLUMNS:,} columns.")
    if not names:
        raise TableError("holds no row.")
    return list(names)


def _read_csv_rows(path: Path) -> Iterator[TableRow]:
    with path.open(encoding="utf-8-sig", newline="") as handle, _allow_large_cells():
        reader = csv.reader(_bounded_lines(handle), strict=True)
        try:
            header = next(reader, [])
            if not header:
                return
            if len(set(header)) < len(header) or not all(name.strip() for name in header):
                raise TableError(
                    f"line 1: expected a name of its own over each column, found {', '.join(header)[:200]}."
                )
            for cells in reader:
                if cells and len(cells) != len(header):
                    raise TableError(f"line {reader.line_num}: expected {len(header)} cells, found {len(cells)}.")
                if cells:
                    yield TableRow(dict(zip(header, cells, strict=True)), f"line {reader.line_num}")
        except csv.Error as error:
            raise TableError(f"line {reader.line_num}: is no CSV: {error}.") from None
        except UnicodeDecodeError as error:
            raise TableError(f"after line {reader.line_num}: is not UTF-8 text: {error.reason}.") from None


def _bounded_lines(handle: TextIO) -> Iterator[str]:
    """The lines of a text file, none without end."""
    while line := handle.readline(_MAX_CELL_LENGTH + 1):
        if len(line) > _MAX_CELL_LENGTH:
            raise csv.Error(f"it is longer than {_MAX_CELL_LENGTH // 2**20} million characters")
        yield line


@contextmanager
def _allow_large_cells() -> Iterator[None]:
    """Raise the limit of Python's CSV reader, 131,072 characters a cell, which a long answer exceeds."""
    former_field_limit = csv.field_size_limit(_MAX_CELL_LENGTH)
    try:
        yield
    finally:
        csv.field_size_limit(former_field_limit)


def _read_json_rows(path: Path) -> Iterator[TableRow]:
    if path.suffix.lower() == ".json" and first_byte(path) != b"[":
        raise TableError("expected a JSON list of objects, one a row.")
    for record in records(path):
        if record.read_error:
            raise TableError(f"{record.location}: {record.read_error}.")
        if not isinstance(record.value, dict):
            raise TableError(f"{record.location}: expected an object, one key a column.")
        yield TableRow(record.value, record.location)


def _read_parquet_rows(path: Path) -> Iterator[TableRow]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as table:
            row_groups = [table.metadata.row_group(n) for n in range(table.metadata.num_row_groups)]
            if sum(group.total_byte_size for group in row_groups) > MAX_UNPACKED_BYTES:
                raise TableError(f"is larger than {MAX_UNPACKED_BYTES // 2**30} GB when unpacked.")
            number = 0
            for batch in table.iter_batches(batch_size=10_000):
                for cells in batch.to_pylist():
                    number += 1
                    yield TableRow({str(name): value for name, value in cells.items()}, f"row {number}")
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        if isinstance(error, TableError):
            raise
        raise TableError(f"is no Parquet that can be read: {str(error)[:200]}.") from None


_READERS: dict[str, Callable[[Path], Iterator[TableRow]]] = {
    ".csv": _read_csv_rows,
    ".jsonl": _read_json_rows,
    ".json": _read_json_rows,
    ".parquet": _read_parquet_rows,
}
FILE_SUFFIXES = tuple(_READERS)
"""The kinds of tables, by the ends of their names."""
