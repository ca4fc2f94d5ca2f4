"""Tables as frames: validation, reading of Parquet, CSV and JSON, atomic writing."""

import difflib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from capgap.errors import StoreError, TableError, suggestion
from capgap.schema.columns import DTYPES, MODELS, OUTCOMES, ColumnSpec, Table, empty
from capgap.schema.readability import without_old_words

_logger = logging.getLogger(__name__)

_CSV_NULL_WORDS = ["", "NA", "N/A", "<NA>", "NaN", "nan", "NULL", "null", "None", "n/a", "#N/A"]
"""What stands for nothing in a column of a CSV that may be empty."""
_OUT_OF_RANGE_ADVICE = {
    "score": "Divide by the best score there is (percents by 100); what has no best goes into 'value', with a score "
    "beside it.",
    "chance": "It is the score of a guess, such as 0.25; leave it empty where it is unknown.",
}
"""What to do about a value outside [0, 1], by the column of `OUTCOMES` that holds it."""


def validate(frame: pd.DataFrame, table: Table, *, source: str = "") -> pd.DataFrame:
    """The frame with every column of the table, typed, in order; defaults stand where a column is missing.

    Parameters
    ----------
    frame
        Any frame; it is not changed.
    table
        What it should hold.
    source
        Where it came from, for the message.

    Raises
    ------
    TableError
        A required column or value is missing, a value has the wrong type or is not one of the allowed words,
        a score lies outside [0, 1], or two rows have one key.
    """
    prefix = f"{source or table.name + ' table'}: "
    missing = [c.name for c in table.columns if c.required and c.name not in frame.columns]
    if missing:
        raise TableError(f"{prefix}{_missing_column_text(missing[0], [str(name) for name in frame.columns], table)}")
    if table is OUTCOMES:
        frame, n_truncated = without_old_words(frame)
        if n_truncated:
            _logger.warning(
                "%s%d answers of status 'truncated' are now told by stop_reason 'limit'", prefix, n_truncated
            )
    out: dict[str, Any] = {}
    for column in table.columns:
        if column.name in frame.columns:
            out[column.name] = _convert_column_type(frame[column.name], column, prefix)
        else:
            out[column.name] = pd.Series(column.default, index=frame.index, dtype=DTYPES[column.kind])
    extra_columns = [str(n) for n in frame.columns if n not in table.names]
    for name in extra_columns:
        if not table.extra_column_prefix or not name.startswith(table.extra_column_prefix):
            raise TableError(f"{prefix}unknown column {name!r}.{_unknown_column_advice(name, table)}")
        out[name] = frame[name]
    result = pd.DataFrame(out).reset_index(drop=True)
    if table is OUTCOMES:
        result["cluster"] = result["cluster"].where(result["cluster"].notna(), result["item"])
        _check_scores(result, prefix)
    _check_key(result, table, prefix)
    return result


def _missing_column_text(name: str, columns: list[str], table: Table) -> str:
    """The message for a required column that is not there."""
    found_names = ", ".join(columns[:20]) or "no column"
    required_names = ", ".join(c.name for c in table.columns if c.required)
    close_names = difflib.get_close_matches(name, [other.strip().lower() for other in columns], n=1, cutoff=0.75)
    likely_column = next((other for other in columns if close_names and other.strip().lower() == close_names[0]), None)
    if len(columns) == 1 and (separator := next((separator for separator in ";\t|" if separator in columns[0]), None)):
        hint = f" Its columns lie between {separator!r}: separate them by commas."
    elif {"doc_id", "filtered_resps"} <= set(columns):
        return "these are samples of lm-evaluation-harness: capgap import lm-eval PATH --out DIR reads them."
    elif likely_column is not None and likely_column not in table.names:
        hint = f" Call {likely_column!r} {name!r}."
    else:
        hint = ""
    map_flag_hint = f" capgap import table FILE --map {name}=COLUMN reads other names." if table is OUTCOMES else ""
    return f"required column {name!r} is missing. Found: {found_names}.{hint} Needed: {required_names}.{map_flag_hint}"


def _unknown_column_advice(name: str, table: Table) -> str:
    """The advice for a column that the table does not have."""
    if table is OUTCOMES and name in MODELS.names:
        return " It says how a model was made: put it into a table with a row for each model, for --models."
    advice = " Drop it."
    if table.extra_column_prefix:
        advice = f" Drop it, or call it {table.extra_column_prefix}{name}: a property of the items."
    return suggestion(name, table.names) + advice


def df_from_rows(rows: Iterable[Mapping[str, Any]], table: Table, *, source: str = "") -> pd.DataFrame:
    """A validated frame from one mapping a row.

    Half of a surrogate pair, which a broken JSON file or a model can bring, is no character and no table holds it; a
    question mark takes its place.
    """
    sanitised_rows = [{k: _valid_text(v) if isinstance(v, str) else v for k, v in row.items()} for row in rows]
    return validate(pd.DataFrame(sanitised_rows), table, source=source)


def _valid_text(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _convert_column_type(values: "pd.Series[Any]", column: ColumnSpec, prefix: str) -> "pd.Series[Any]":
    """One column in its type; a message names the first row that does not fit."""
    converted_values: pd.Series[Any]
    try:
        if column.kind == "string":
            converted_values = values.map(as_text, na_action="ignore").astype("str")
        elif column.kind == "boolean":
            converted_values = values.astype("boolean")
        else:
            converted_values = pd.to_numeric(values).astype("float64" if column.kind == "float" else "Int64")
    except (TypeError, ValueError) as error:
        hint = " Write 1 for right and 0 for wrong, shares between." if column.name == "score" else ""
        problem = str(error).removesuffix(".")
        raise TableError(f"{prefix}column {column.name!r} should hold {column.kind} values: {problem}.{hint}") from None
    if column.required and column.name != "score" and bool(converted_values.isna().any()):
        row = int(np.flatnonzero(converted_values.isna().to_numpy())[0])
        raise TableError(f"{prefix}column {column.name!r}, row {row}: a value is required, found none.")
    if column.allowed:
        invalid_values = converted_values[converted_values.notna() & ~converted_values.isin(column.allowed)]
        if len(invalid_values):
            word = str(invalid_values.iloc[0])
            raise TableError(
                f"{prefix}column {column.name!r}: {word!r} is not one of its words.{suggestion(word, column.allowed)}"
            )
    return converted_values


def as_text(value: Any) -> str:
    """Lists and mappings as JSON, whole floats without their point, everything else as `str` gives it."""
    if isinstance(value, str):
        return value
    if isinstance(value, (dict, list, tuple)):
        return _valid_text(json.dumps(value, ensure_ascii=False, sort_keys=True))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _check_scores(outcomes: pd.DataFrame, prefix: str) -> None:
    for name, advice in _OUT_OF_RANGE_ADVICE.items():
        values = outcomes[name].to_numpy(dtype=float)
        rows = np.flatnonzero((values < 0) | (values > 1))
        if len(rows):
            value = f"{values[rows[0]]:g}"
            raise TableError(f"{prefix}column {name!r}, row {rows[0]}: {value} lies outside [0, 1]. {advice}")


def _check_key(frame: pd.DataFrame, table: Table, prefix: str) -> None:
    is_duplicate = frame.duplicated(list(table.key), keep=False).to_numpy()
    if is_duplicate.any():
        row = frame.loc[np.flatnonzero(is_duplicate)[0], list(table.key)]
        shared_key = ", ".join(f"{name}={value}" for name, value in row.items() if pd.notna(value))
        advice = "Number several answers in 'repeat', or drop" if table is OUTCOMES else "Drop"
        raise TableError(
            f"{prefix}{int(is_duplicate.sum())} rows share their key, the first is {shared_key}. {advice} the doubles."
        )


def read_df(path: Path | str, table: Table) -> pd.DataFrame:
    """The table in a Parquet, CSV, JSONL or JSON file, validated.

    Raises
    ------
    TableError
        The file is missing, cannot be read, or does not hold such a table.
    """
    path = Path(path)
    readers: dict[str, Callable[[Path], Any]] = {
        ".parquet": pd.read_parquet,
        ".csv": lambda p: _read_csv(p, table),
        # As they stand: pandas would make one number of "007" and "7".
        ".jsonl": lambda p: pd.read_json(p, lines=True, dtype=False),
        ".json": lambda p: pd.read_json(p, dtype=False),
    }
    if not path.is_file():
        raise TableError(f"{path}: {'is a directory' if path.is_dir() else 'no such file'}.")
    if path.suffix not in readers:
        raise TableError(
            f"{path}: a table is one of {', '.join(readers)}, not {path.suffix or 'a file without suffix'!r}."
        )
    try:
        frame = readers[path.suffix](path)
    except UnicodeDecodeError as error:
        raise TableError(
            f"{path}: cannot be read as {path.suffix[1:]}: it is no UTF-8 text ({error.reason})."
        ) from error
    except Exception as error:  # every reader has exceptions of its own; each means that the file is not what it says
        raise TableError(f"{path}: cannot be read as {path.suffix[1:]}: {str(error)[:300].strip()}") from error
    if not isinstance(frame, pd.DataFrame):
        raise TableError(f"{path}: holds no table of rows and columns.")
    return validate(frame, table, source=str(path))


def _read_csv(path: Path, table: Table) -> pd.DataFrame:
    """A CSV whose words stay words: a model named 007, NA or null is called so, and only an empty name is none."""
    texts = {column.name for column in table.columns if column.kind == "string"}
    names = {column.name for column in table.columns if column.kind == "string" and column.required}
    column_names = pd.read_csv(path, nrows=0).columns
    return pd.read_csv(
        path,
        dtype={name: "str" for name in column_names if name in texts},
        keep_default_na=False,
        na_values={name: [""] if name in names else _CSV_NULL_WORDS for name in column_names},
        low_memory=False,
    )


def write_df(frame: pd.DataFrame, path: Path | str, table: Table) -> None:
    """Validate and write as Parquet, whole or not at all (a neighbour file is written, then renamed).

    Raises
    ------
    TableError
        The frame does not hold such a table.
    StoreError
        The disk is full or cannot be written.
    """
    path = Path(path)
    validated_frame = validate(frame, table, source=path.name)
    with atomic_write(path) as partial_file:
        validated_frame.to_parquet(partial_file, index=False)


def json_records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as mappings that JSON can hold: None where a value is missing or infinite, JSON columns as mappings.

    Numbers keep all their digits; pandas' own writer makes 0 of a p-value below 1e-15.
    """
    finite = frame.notna()
    for name in frame.select_dtypes("float64").columns:
        finite[name] &= np.isfinite(frame[name])
    records: list[dict[str, Any]] = frame.astype(object).where(finite, None).to_dict("records")  # type: ignore[assignment]
    for record in records:
        for name in ("roles", "factors"):
            if isinstance(record.get(name), str):
                record[name] = json.loads(record[name])
    return records


def write_json(frame: pd.DataFrame, path: Path | str) -> None:
    """The rows (see `json_records`) as a JSON list, one a line, whole or not at all.

    Raises
    ------
    StoreError
        The disk is full or cannot be written.
    """
    lines = [json.dumps(record, ensure_ascii=False, separators=(",", ":")) for record in json_records(frame)]
    with atomic_write(path) as partial_file:
        partial_file.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")


def write_object(content: Any, path: Path | str) -> None:
    """Anything that JSON can hold, as a file that people can read, whole or not at all.

    Raises
    ------
    StoreError
        The disk is full or cannot be written.
    """
    with atomic_write(path) as partial_file:
        text = json.dumps(content, indent=1, ensure_ascii=False, default=str)
        partial_file.write_text(text + "\n", encoding="utf-8")


def concat(frames: Iterable[pd.DataFrame], table: Table) -> pd.DataFrame:
    """Several frames of one table, one below the other, validated; a key may occur once in all of them."""
    frames_with_rows = [frame for frame in frames if len(frame)]
    if not frames_with_rows:
        return empty(table)
    return validate(pd.concat(frames_with_rows, ignore_index=True), table, source=table.name)


@contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """A neighbour to write in the place of `path`, which it replaces when it is done: whole, or not at all.

    Raises
    ------
    StoreError
        The disk is full or cannot be written; what stood at `path` is unchanged.
    """
    path = Path(path)
    partial_file = path.with_name(f"{path.name}.{os.getpid()}.partial")  # two processes never write one neighbour
    try:
        yield partial_file
        os.replace(partial_file, path)
    except OSError as error:
        raise StoreError(
            f"{path}: cannot be written: {error.strerror or error}. What was there is unchanged; "
            f"free some space or choose another place."
        ) from error
    finally:
        if partial_file.exists():
            partial_file.unlink()
