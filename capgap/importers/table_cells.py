"""One cell of a foreign table as one of our columns holds it, or an error that names its row."""

import re
from typing import Any

from capgap.errors import TableError, suggestion
from capgap.importers.values import is_valid_score, name_text, number, short_text, truncate_text, whole_number
from capgap.schema import ColumnSpec, stop_reason_of

_RIGHT_WORDS = ("true", "correct", "right", "yes", "pass", "passed", "c")
_WRONG_WORDS = ("false", "incorrect", "wrong", "no", "fail", "failed", "i")
_MISSING_VALUE_WORDS = ("", "nan", "na", "n/a", "none", "null", "<na>")
_NAME_COLUMNS = ("model", "task", "item", "battery", "variant", "cluster", "metric", "filter", "domain")


def missing(value: Any) -> bool:
    """Whether a cell is empty: nothing, an empty text, or not a number."""
    return (
        value is None or (isinstance(value, str) and not value.strip()) or (isinstance(value, float) and value != value)
    )


def score(value: Any, cell_location: str) -> float | None:
    """The score in a cell: a number from 0 to 1, or a word for right or wrong; None where the cell is empty.

    Parameters
    ----------
    value
        The cell.
    cell_location
        Its row and column, for the message.

    Raises
    ------
    TableError
        It is none of these.
    """
    if missing(value):
        return None
    if isinstance(value, str):
        word = value.strip().lower()
        if word in _MISSING_VALUE_WORDS:
            return None
        if word in (*_RIGHT_WORDS, *_WRONG_WORDS):
            return float(word in _RIGHT_WORDS)
    parsed = number(value)
    if parsed is None:
        raise TableError(
            f"{cell_location}: expected a score from 0 to 1, or a word such as true, false, correct, wrong; "
            f"found {short_text(value, 60)!r}."
        )
    if not is_valid_score(parsed):
        raise TableError(
            f"{cell_location}: {parsed:g} lies outside 0 to 1. Divide percentages by 100; other units go into value "
            f"(--map value=COLUMN), with a score beside them."
        )
    return parsed


def cell(value: Any, column: ColumnSpec, cell_location: str) -> Any:
    """A cell that is not empty, as the column holds it.

    Raises
    ------
    TableError
        It does not fit; the message names the row and the nearest word.
    """
    if column.kind == "string":
        return _string_cell(value, column, cell_location)
    if column.kind == "boolean":
        return _boolean_cell(value, cell_location)
    parsed = whole_number(value) if column.kind == "integer" else number(value)
    if parsed is None:
        if isinstance(value, str) and value.strip().lower() in _MISSING_VALUE_WORDS:
            return None
        raise TableError(f"{cell_location}: expected {_expected_number_kind(column)}, found {short_text(value, 60)!r}.")
    if column.name == "repeat" and parsed < 0:
        raise TableError(f"{cell_location}: repeats are counted from 0, found {parsed:g}.")
    if column.name == "chance" and not is_valid_score(float(parsed)):
        raise TableError(f"{cell_location}: expected the score of a guess, from 0 to 1, found {parsed:g}.")
    return parsed


def _string_cell(value: Any, column: ColumnSpec, cell_location: str) -> str | None:
    if column.name not in (*_NAME_COLUMNS, "capability", "format", "status", "stop_reason"):
        return truncate_text(value if isinstance(value, (str, list, dict)) else str(value))
    # 7.0 is what a column of whole numbers becomes where one of its cells is empty.
    int_if_whole = int(value) if isinstance(value, float) and value.is_integer() else value
    try:
        word = name_text(int_if_whole if isinstance(int_if_whole, (str, int)) else str(int_if_whole), column.name)
    except TableError as error:
        raise TableError(f"{cell_location}: {error}") from None
    if column.allowed:
        lower = re.sub(r"\W+", "_", word.lower())
        if column.name == "stop_reason":
            return stop_reason_of(lower)  # a word of another tool's that says neither end, limit nor stop string: null
        if column.name == "status" and lower == "truncated":
            return lower  # an older table's; validation tells it by the stop reason
        if lower not in column.allowed:
            raise TableError(
                f"{cell_location}: {short_text(word, 60)!r} is not one of its words.{suggestion(word, column.allowed)}"
            )
        return lower
    return word


def _boolean_cell(value: Any, cell_location: str) -> bool:
    word = value.strip().lower() if isinstance(value, str) else value
    if word in (True, "true", "yes", "1", "1.0"):
        return True
    if word in (False, "false", "no", "0", "0.0"):
        return False
    raise TableError(f"{cell_location}: expected true or false, found {short_text(value, 60)!r}.")


def _expected_number_kind(column: ColumnSpec) -> str:
    return "a whole number" if column.kind == "integer" else "a number"
