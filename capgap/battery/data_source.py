"""Rows of a task's data: files under the battery's folder or the data root, nowhere else, or data sets of the hub."""

import csv
import hashlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from capgap.errors import BatteryError, suggestion

_MAX_PATH_SIZE = 1_000
_MAX_NESTING_DEPTH = 50
_MAX_PARQUET_ROWS = 10_000_000


@dataclass(frozen=True)
class SourceRow:
    """One item as it stands in its file."""

    fields: dict[str, Any]
    """Field → text, number, true/false, None, list or mapping."""
    location: str
    """Where it stands, for messages: ``line 12``, ``row 12``."""


def find_file(name: str, roots: tuple[Path, ...], error_at: str) -> Path:
    """The file of that relative name under the first root that has it.

    Parameters
    ----------
    name
        A relative path with forward slashes, as the battery file has it.
    roots
        The folder of the battery file, then the data root.
    error_at
        Beginning of a message.

    Raises
    ------
    BatteryError
        The name is absolute, has ``..``, is no name of a file, is a link that leaves its root, or no root has such a
        file.
    """
    subpath = PurePosixPath(name)
    if not name.isprintable() or len(name) > _MAX_PATH_SIZE or any(len(part.encode()) > 255 for part in subpath.parts):
        raise BatteryError(f"{error_at}: expected the name of a file, found {name[:80]!r}.")
    if subpath.is_absolute() or PureWindowsPath(name).drive or name.startswith(("~", "\\")):
        raise BatteryError(
            f"{error_at}: expected a path relative to the battery's folder or the data root, found {name!r}."
        )
    if ".." in subpath.parts or ".." in PureWindowsPath(name).parts:
        raise BatteryError(
            f"{error_at}: {name!r} leaves the battery's folder. Move the file there, or set --data-root."
        )
    for root in roots:
        path = root / subpath
        if not path.exists():
            continue
        if not path.resolve().is_relative_to(root.resolve()):
            raise BatteryError(f"{error_at}: {name!r} is a link that leaves {root}. Copy the file there.")
        if not path.is_file():
            raise BatteryError(f"{error_at}: {name!r} under {root} is no file.")
        return path
    paths = " and ".join(str(root) for root in roots)
    neighbours = [str(f.relative_to(r)) for r in roots for f in (r / subpath).parent.glob("*") if f.suffix in _READERS]
    hint = suggestion(name, neighbours)
    raise BatteryError(f"{error_at}: no file {name!r} under {paths}.{hint} Another folder: --data-root or CAPGAP_DATA.")


def read_rows(path: Path, error_at: str) -> list[SourceRow]:
    """The rows of a jsonl, json, csv or parquet file.

    Raises
    ------
    BatteryError
        Another kind of file, no such data in it, or no row; a bad line is named.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise BatteryError(f"{error_at}: {path.name}: expected one of {', '.join(_READERS)}, found {path.suffix!r}.")
    try:
        rows = [SourceRow(_as_dict(fields, f"{error_at}: {path}, {row_id}"), row_id) for fields, row_id in reader(path)]
    except UnicodeDecodeError as error:
        raise BatteryError(f"{error_at}: {path}: not UTF-8 text: {error.reason} at byte {error.start}.") from None
    except OSError as error:
        raise BatteryError(f"{error_at}: {path}: cannot be read: {error.strerror or error}.") from error
    if not rows:
        raise BatteryError(f"{error_at}: {path}: holds no item.")
    return rows


def hub_rows(
    name: str, subset: str | None, split: str, revision: str | None, error_at: str, remedy: str
) -> list[SourceRow]:
    """The rows of a split of a data set on the hub, from the cache where the network is off.

    Raises
    ------
    BatteryError
        It is neither cached nor reachable, or holds no row.
    """
    import datasets

    if Path(name).exists():  # load_dataset would take the folder of that name, wherever the command was started
        raise BatteryError(f"{error_at}: {name!r} is a file or folder here. Name it under 'file', beside the battery.")
    try:
        dataset = datasets.load_dataset(name, subset, split=split, revision=revision)
    except Exception as error:  # the hub fails in many ways, all of which mean that its data are not here
        raise BatteryError(uncached_message(f"{error_at}: data set {name!r}", error, remedy)) from error
    rows = [SourceRow(_as_dict(fields, f"{error_at}: {name}, row {n}"), f"row {n}") for n, fields in enumerate(dataset)]
    if not rows:
        raise BatteryError(f"{error_at}: data set {name!r}, split {split!r} holds no item.")
    return rows


def uncached_message(source_phrase: str, error: BaseException, remedy: str) -> str:
    """Message for hub data that are neither cached nor reachable, with the remedy."""
    reason = str(error).strip().split("\n")[0][:200]
    return f"{source_phrase} is not in the cache and could not be fetched ({type(error).__name__}: {reason}). {remedy}"


def fetch_remedy(battery: str) -> str:
    """Remedy for a message about a battery's data that are not here."""
    return f"With a network: capgap battery fetch {battery}. Without: --battery pocket needs no download."


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _read_jsonl(path: Path) -> Iterator[tuple[Any, str]]:
    with path.open(encoding="utf-8-sig") as handle:
        for number, line in enumerate(handle, start=1):
            if line.strip():
                yield _parse_json(line.strip(), path, number), f"line {number}"


def _parse_json(text: str, path: Path, first_line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        raise BatteryError(f"{path}, line {line}: no JSON: {error.msg} at column {error.colno}.") from None
    except (RecursionError, ValueError) as error:
        raise BatteryError(f"{path}, line {first_line}: this JSON cannot be read: {error}.") from None


def _read_json(path: Path) -> Iterator[tuple[Any, str]]:
    content = _parse_json(path.read_text(encoding="utf-8-sig"), path, 1)
    if isinstance(content, dict):
        lists_by_key = {key: value for key, value in content.items() if isinstance(value, list)}
        if len(lists_by_key) != 1:
            keys = ", ".join(lists_by_key) or "none"
            raise BatteryError(f"{path}: expected a list, or an object with exactly one list; found lists: {keys}.")
        content = next(iter(lists_by_key.values()))
    if not isinstance(content, list):
        raise BatteryError(f"{path}: expected a list of items, found {type(content).__name__}.")
    for number, fields in enumerate(content, start=1):
        yield fields, f"item {number}"


def _read_csv(path: Path) -> Iterator[tuple[Any, str]]:
    with path.open(encoding="utf-8-sig", newline="") as handle:
        reader = csv.reader(handle, strict=True)
        try:
            header = next(reader, [])
            if len(set(header)) < len(header) or not all(header):
                raise BatteryError(f"{path}, line 1: expected a name of its own over each column, found {header}.")
            for cells in reader:
                if not cells:
                    continue
                if len(cells) != len(header):
                    raise BatteryError(
                        f"{path}, line {reader.line_num}: expected {len(header)} cells, found {len(cells)}."
                    )
                yield dict(zip(header, cells, strict=True)), f"line {reader.line_num}"
        except csv.Error as error:
            raise BatteryError(f"{path}, line {reader.line_num}: no CSV: {error}.") from None


def _read_table(path: Path) -> Iterator[tuple[Any, str]]:
    import pyarrow
    import pyarrow.parquet

    try:
        n_rows = pyarrow.parquet.read_metadata(path).num_rows
        if n_rows > _MAX_PARQUET_ROWS:  # a file of a few bytes can say one value a billion times
            raise BatteryError(f"{path}: {n_rows:,} rows; at most {_MAX_PARQUET_ROWS:,}.")
        rows = pyarrow.parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        if isinstance(error, BatteryError):
            raise
        raise BatteryError(f"{path}: no Parquet: {str(error)[:200]}.") from None
    for number, fields in enumerate(rows, start=1):
        yield fields, f"row {number}"


_Reader = Callable[[Path], Iterator[tuple[Any, str]]]
"""A file to its records, each with its location."""
_READERS: dict[str, _Reader] = {".jsonl": _read_jsonl, ".json": _read_json, ".csv": _read_csv, ".parquet": _read_table}


def _as_dict(record: Any, error_at: str) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise BatteryError(f"{error_at}: expected an object of fields, found {type(record).__name__}.")
    try:
        return {str(key): to_plain_data(value) for key, value in record.items()}
    except UnicodeEncodeError as error:
        raise BatteryError(f"{error_at}: holds half a character (U+{ord(error.object[error.start]):04X}).") from None
    except ValueError as error:
        raise BatteryError(f"{error_at}: {error}.") from None


def to_plain_data(value: Any, depth: int = 0) -> Any:
    """A value as plain data: dates and decimals as text, NaN as None.

    Raises
    ------
    UnicodeEncodeError
        A text holds half of a surrogate pair, which no file or tokenizer takes.
    ValueError
        Lists and mappings nest deeper than anybody means.
    """
    if depth > _MAX_NESTING_DEPTH:
        raise ValueError(f"nests deeper than {_MAX_NESTING_DEPTH} levels")
    if isinstance(value, str) and not value.isascii():
        value.encode("utf-8")
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, dict):
        return {str(key): to_plain_data(child_value, depth + 1) for key, child_value in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain_data(child_value, depth + 1) for child_value in value]
    return str(value)
