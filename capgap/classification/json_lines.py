"""JSONL files read line by line: number and object of each line, or what is wrong with it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from capgap.errors import TableError

_MAX_LINE_BYTES = 64_000_000  # of a line, in bytes


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Number and object of each line that is not empty; in the place of what is no object, a complaint.

    Raises
    ------
    TableError
        The file cannot be read, or a line is longer than anybody means.
    """
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(_MAX_LINE_BYTES + 1):
                number += 1
                if len(line) > _MAX_LINE_BYTES:
                    raise TableError(f"{path}, line {number}: is longer than {_MAX_LINE_BYTES:,} bytes.")
                if line.strip():
                    yield number, _parse_json_object(line)
    except OSError as error:
        raise TableError(f"{path}: cannot be read: {error.strerror or error}.") from error


def _parse_json_object(line: bytes) -> dict[str, Any] | str:
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return "is not UTF-8 text"
    except RecursionError:
        return "is nested too deeply"
    except ValueError as error:  # also a number of more digits than Python reads
        return f"is not JSON: {str(error)[:120]}"
    return value if isinstance(value, dict) else f"expected an object, found {json_type_in_words(value)}"


def json_type_in_words(value: Any) -> str:
    """What a JSON value is, with its article."""
    names_by_type = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names_by_type.get(type(value), "a number")
