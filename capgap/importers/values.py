"""Foreign values as a table holds them: bounded, finite, null where unknown."""

import json
import math
import re
from collections.abc import Sequence
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from capgap.errors import TableError
from capgap.printable_text import cut_middle, one_line

MAX_NAME_LENGTH = 300
"""Longest name of a model, task or item."""
MAX_TEXT_LENGTH = 32_768
"""Characters of a prompt or response that are kept; the source has the rest."""

_CUT_MARK = " … [cut here by capgap import]"
_LARGEST_INTEGER = 2**62


def number(value: Any) -> float | None:
    """The finite number in a value (true counts 1, text is read); None where there is none."""
    if isinstance(value, str):
        if len(value) > 60 or not re.fullmatch(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*", value, re.ASCII):
            return None
    elif not isinstance(value, (bool, int, float)):
        return None
    try:
        parsed = float(value)
    except OverflowError:
        return None
    return parsed if math.isfinite(parsed) else None


def whole_number(value: Any) -> int | None:
    """The whole number in a value, within what a table column holds; None where there is none."""
    parsed = value if isinstance(value, int) else number(value)
    if isinstance(value, bool) or parsed is None or abs(parsed) >= _LARGEST_INTEGER or parsed != int(parsed):
        return None
    return int(parsed)


def is_valid_score(value: float | None) -> bool:
    """Whether the value is a score: known, and between 0 and 1."""
    return value is not None and 0.0 <= value <= 1.0


def score_and_status(value: float | None) -> dict[str, Any]:
    """The columns score and status of a metric's value; one that is not known is an error, never a zero."""
    return {"score": value if is_valid_score(value) else None, "status": "scored" if value is not None else "error"}


def as_mapping(value: Any) -> dict[str, Any]:
    """The value where it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def as_json(value: Any) -> str:
    """The value as JSON; what JSON does not know (dates, bytes) as text.

    Raises
    ------
    TableError
        It is nested too deeply to be written, or holds what cannot be written.
    """
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except (RecursionError, TypeError, ValueError):
        raise TableError("a value is nested too deeply, or holds what cannot be written as JSON.") from None


def text_or_list(texts: Sequence[str]) -> str | None:
    """A single text as it is, several as a JSON list, None for none: how a table holds the right answers."""
    if len(texts) == 1:
        return texts[0]
    return as_json(list(texts)) if texts else None


def truncate_text(value: Any) -> str | None:
    """The value as text (what is no text as JSON), cut at `MAX_TEXT_LENGTH`; None for nothing."""
    if value is None:
        return None
    text = value if isinstance(value, str) else as_json(value)
    return text if len(text) <= MAX_TEXT_LENGTH else text[: MAX_TEXT_LENGTH - len(_CUT_MARK)] + _CUT_MARK


def name_text(value: Any, entity: str) -> str:
    """The name of a model, task or item.

    Parameters
    ----------
    value
        Text or a whole number.
    entity
        What it names, for the message.

    Raises
    ------
    TableError
        It is neither, empty, or longer than `MAX_NAME_LENGTH`.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise TableError(f"expected the name of {entity}, found {_type_in_words(value)}.")
    try:
        text = str(value).strip()
    except ValueError:  # Python refuses to write whole numbers of thousands of digits
        raise TableError(f"expected the name of {entity}, found a number of thousands of digits.") from None
    if not text:
        raise TableError(f"expected the name of {entity}, found an empty text.")
    if len(text) > MAX_NAME_LENGTH:
        raise TableError(f"the name of {entity} has {len(text):,} characters; at most {MAX_NAME_LENGTH} are allowed.")
    return text.encode("utf-8", "replace").decode("utf-8")


def portable_model_name(name: str) -> str:
    """A model's name without the part of a path that only means something on the machine it came from."""
    windows = PureWindowsPath(name)
    path_parts = windows.parts if windows.drive or "\\" in name else PurePosixPath(name).parts
    is_local = bool(windows.drive) or name.startswith(("/", "~", "\\")) or ".." in path_parts
    if not is_local:
        return name.removeprefix("./").rstrip("/") or name
    folders = [path_part for path_part in path_parts if path_part not in ("/", "\\", "..", ".", "~", windows.anchor)]
    # The folder of a checkpoint tells its step, the one above it whose step.
    tail = folders[-2:] if folders and re.fullmatch(r"(checkpoint|step)[-_]?\d+", folders[-1]) else folders[-1:]
    return "/".join(tail) or name


def short_text(value: Any, limit: int = 160) -> str:
    """Foreign text for a message or note: one line, printable, bounded; of what is no text, its kind."""
    return one_line(cut_middle(value if isinstance(value, str) else _type_in_words(value), limit))


def _type_in_words(value: Any) -> str:
    type_words: dict[type, str] = {bool: "true or false", int: "a number", float: "a number", type(None): "nothing"}
    return (type_words | {str: "a text", list: "a list", dict: "an object"}).get(type(value), "something else")
