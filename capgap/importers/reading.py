"""Bounded reading of foreign files: strict JSON, one record a line, nothing that grows without limit."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from capgap.errors import TableError

__all__ = ["JsonRecord", "decode_utf8", "files_under", "first_byte", "json_document", "parse_json", "records"]

MAX_DOCUMENT_BYTES = 128 * 2**20
"""Bytes of a file that has to be read in one piece."""
MAX_RECORD_BYTES = 16 * 2**20
"""Bytes of one line of a JSONL file."""
MAX_FILES = 100_000
"""Files that are looked at under one folder."""

_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class JsonRecord:
    """One line of a file, or one member of a list or archive."""

    location: str
    """Where it stands in its file: ``line 7``."""
    value: Any = None
    """What it holds; None where `read_error` says why not."""
    read_error: str = ""
    """Why it cannot be read."""


def files_under(path: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The file itself, or the files with these suffixes in a folder and the folders below it, sorted.

    Raises
    ------
    TableError
        There is no such file or folder, or it holds too many files.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise TableError(f"{path}: no such file or folder.")
    files: list[Path] = []
    for folder, subfolders, names in os.walk(path):  # links to folders are not followed, so there is no way round
        subfolders.sort()
        files += [Path(folder) / name for name in names if name.lower().endswith(suffixes)]
        if len(files) > MAX_FILES:
            raise TableError(f"{path}: more than {MAX_FILES:,} files. Name a folder further down.")
    return sorted(file for file in files if file.is_file())


def json_document(path: Path) -> Any:
    """The JSON of a whole file.

    Raises
    ------
    TableError
        It cannot be read, is larger than `MAX_DOCUMENT_BYTES`, no UTF-8, no JSON, or names a key twice.
    """
    with _open_binary(path) as handle:
        raw = handle.read(MAX_DOCUMENT_BYTES + 1)
    if len(raw) > MAX_DOCUMENT_BYTES:
        raise TableError(f"is larger than {MAX_DOCUMENT_BYTES // 2**20} MB, and has to be read in one piece.")
    return parse_json(decode_utf8(raw))


def records(path: Path) -> Iterator[JsonRecord]:
    """The records of a JSONL file, or of a file that holds a JSON list; a bad line is a record with its trouble.

    Raises
    ------
    TableError
        The file cannot be read at all.
    """
    if first_byte(path) == b"[":
        yield from (JsonRecord(f"entry {n}", value) for n, value in enumerate(json_document(path), start=1))
        return
    with _open_binary(path) as handle:
        number = 0
        while line := handle.readline(MAX_RECORD_BYTES + 1):
            number += 1
            if len(line) > MAX_RECORD_BYTES:
                while line and not line.endswith(b"\n"):  # to the end of the line, without keeping it
                    line = handle.readline(MAX_RECORD_BYTES)
                yield JsonRecord(f"line {number}", read_error=f"is longer than {MAX_RECORD_BYTES // 2**20} MB")
            elif line.strip():
                yield _parse_record(line.removeprefix(_BOM) if number == 1 else line, f"line {number}")


def first_byte(path: Path) -> bytes:
    """The first byte of a file that is neither space nor a byte order mark; empty where there is none.

    Raises
    ------
    TableError
        The file cannot be read.
    """
    with _open_binary(path) as handle:
        return handle.read(4096).removeprefix(_BOM).lstrip()[:1]


@contextmanager
def _open_binary(path: Path) -> Iterator[BinaryIO]:
    try:
        with path.open("rb") as handle:
            yield handle
    except OSError as error:
        raise TableError(f"cannot be read: {error.strerror or error}.") from error


def decode_utf8(raw: bytes) -> str:
    """The text of UTF-8 bytes.

    Raises
    ------
    TableError
        They are something else.
    """
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TableError(f"is not UTF-8 text: {error.reason} at byte {error.start}.") from None


def parse_json(text: str) -> Any:
    """The value in strict JSON, where a key that stands twice in one object is an error, not the last of the two.

    ``NaN`` and ``Infinity`` are read, because Python writes them; whoever uses a number asks whether it is finite.

    Raises
    ------
    TableError
        It is no JSON, nests too deeply, or names a key twice.
    """
    try:
        return json.loads(text, object_pairs_hook=_refuse_repeated_keys)
    except json.JSONDecodeError as error:
        raise TableError(f"is no JSON: {error.msg} at line {error.lineno}, column {error.colno}.") from None
    except RecursionError:
        raise TableError("is JSON that is nested too deeply.") from None
    except TableError:
        raise
    except ValueError:  # a whole number of thousands of digits
        raise TableError("is JSON with a number of thousands of digits.") from None


def _parse_record(line: bytes, location: str) -> JsonRecord:
    try:
        return JsonRecord(location, parse_json(decode_utf8(line)))
    except TableError as error:
        return JsonRecord(location, read_error=str(error).rstrip("."))


def _refuse_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        ((duplicate_key, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise TableError(f"names the key {duplicate_key[:60]!r} twice in one object.")
    return members
