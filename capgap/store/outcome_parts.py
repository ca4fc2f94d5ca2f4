"""Outcomes in parts, one Parquet file for each model and battery, read as one table.

A part is written whole or not at all and belongs to nobody else, so that writing it needs no lock and costs the same
however many others there are. ``outcomes.parquet`` of an older capgap beside them is read too and never rewritten: a
part stands for the rows of its model and battery there. Parts differ in their covariates: who reads the folder with
another reader than `read_outcomes` must unite their columns.
"""

import hashlib
import re
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd

from capgap import schema
from capgap.errors import TableError
from capgap.events import Listener, Note, ignore
from capgap.schema.frames import as_text

_OUTCOMES_FOLDER = "outcomes"
_OLD_OUTCOMES_FILE = "outcomes.parquet"
_PART_KEY_COLUMNS = ["model", "battery"]
# Lower case, because some file systems do not tell "A" from "a"; no dot at the end, which Windows drops.
_PLAIN_NAME_REGEX = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9_-])?")
_DIGIT_NAME_REGEX = re.compile(r"\s*[+-]?(?:0\d|\d{17})")  # a float has no leading zero and sixteen digits
_WINDOWS_DEVICE = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?")


def outcomes_path(folder: Path, model: str, battery: str) -> Path:
    """Where the outcomes of a model on a battery lie in a run directory.

    Names may hold anything. A plain lower-case name is its own file name; any other is its letters and digits, ``+``
    (which no plain name holds) and sixteen hex digits of its SHA-256. The true names stand in the table.
    """
    return folder / _OUTCOMES_FOLDER / _file_name(model) / f"{_file_name(battery)}.parquet"


def _file_name(name: str) -> str:
    if _PLAIN_NAME_REGEX.fullmatch(name) and not _WINDOWS_DEVICE.fullmatch(name):
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    letters = re.sub(r"[^a-z0-9]+", "-", name.lower())[:40].strip("-")
    return f"{letters or 'name'}+{digest}"


def write_part(folder: Path, model: str, battery: str, rows: pd.DataFrame) -> list[str]:
    """Write all outcomes of a model on a battery, in the place of those that were there.

    Parameters
    ----------
    folder
        The run directory.
    model, battery
        Their names.
    rows
        Outcomes of this model on this battery and of no other.

    Returns
    -------
    list of str
        Notes on covariates that were given one type; see `unified_covariates`.

    Raises
    ------
    TableError
        A row is of another model or battery, or the rows are no outcomes.
    StoreError
        The disk is full or cannot be written.
    """
    path = outcomes_path(folder, model, battery)
    rows, notes = unified_covariates(schema.validate(rows, schema.OUTCOMES, source=f"outcomes of {model} on {battery}"))
    _refuse_foreign_rows(rows, {(model, battery)}, path)
    rows = rows.sort_values(list(schema.OUTCOME_KEY), kind="stable", ignore_index=True)
    with schema.atomic_write(path) as partial_file:
        partial_file.parent.mkdir(parents=True, exist_ok=True)
        rows.to_parquet(partial_file, index=False)
    return notes


def read_outcomes(folder: Path, models: Collection[str] | None = None, *, on_event: Listener = ignore) -> pd.DataFrame:
    """The outcomes in a folder as one table, sorted by its key, whoever wrote them in whatever order.

    Parameters
    ----------
    folder
        Holds parts, ``outcomes.parquet``, or both; empty where it holds neither.
    models
        Only these; None reads all.
    on_event
        Listener for notes on covariates that are numbers in one part and text in another.

    Raises
    ------
    TableError
        A file is damaged, or holds outcomes of another model or battery than its name says.
    """
    frames = []
    for path in _part_files(folder, models):
        part_outcomes = schema.read_df(path, schema.OUTCOMES)
        pairs = _model_battery_pairs(part_outcomes)
        _refuse_foreign_rows(part_outcomes, {pair for pair in pairs if outcomes_path(folder, *pair) == path}, path)
        frames.append(part_outcomes)
    # The older file is a view: what has been written anew since, in parts, stands for its rows.
    old_outcomes_file = folder / _OLD_OUTCOMES_FILE
    if old_outcomes_file.is_file():
        rows = schema.read_df(old_outcomes_file, schema.OUTCOMES)
        superseded = [pair for pair in _model_battery_pairs(rows) if outcomes_path(folder, *pair).is_file()]
        rows = rows[~pd.MultiIndex.from_frame(rows[_PART_KEY_COLUMNS]).isin(superseded)]
        frames.append(rows if models is None else rows[rows["model"].isin(list(models))])
    frames = [frame for frame in frames if len(frame)]
    if not frames:
        return schema.empty(schema.OUTCOMES)
    # Each part is validated and no two hold one model and battery, so that keys need no second look.
    outcomes, notes = unified_covariates(pd.concat(frames, ignore_index=True))
    for note_text in notes:
        on_event(Note(note_text, level="warning"))
    return outcomes.sort_values(list(schema.OUTCOME_KEY), kind="stable", ignore_index=True)


def has_outcomes(folder: Path) -> bool:
    """Whether a folder holds outcomes, in parts or in an older capgap's one file."""
    return (folder / _OLD_OUTCOMES_FILE).is_file() or next(iter(_part_files(folder, None)), None) is not None


def unified_covariates(outcomes: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The outcomes with one type in each covariate: text stays text, and beside numbers see `numeric_or_text`.

    Returns
    -------
    outcomes
        The frame given, or a changed copy.
    notes
        A sentence for each covariate that was a number in some rows and text in others.
    """
    unified_columns: dict[str, pd.Series[Any]] = {}
    notes = []
    for name in schema.covariate_names(outcomes):
        values = outcomes[name]
        if values.dtype != object:
            continue  # one type already; parts of unlike types make an object column when they are joined
        known_values = values.dropna()
        is_text = known_values.map(lambda value: isinstance(value, str))
        if len(known_values) and not is_text.any() and known_values.map(lambda value: isinstance(value, bool)).all():
            continue
        unified_columns[name] = values.astype("str") if len(known_values) and is_text.all() else numeric_or_text(values)
        if is_text.any() and not is_text.all():
            kind = "numbers" if pd.api.types.is_numeric_dtype(unified_columns[name]) else "text"
            text, number = (_format_battery_names(outcomes, known_values.index[mask]) for mask in (is_text, ~is_text))
            notes.append(f"covariate {name} is text in {text} and a number in {number}; all of it is taken as {kind}")
    return (outcomes.assign(**unified_columns) if unified_columns else outcomes), notes


def numeric_or_text(values: "pd.Series[Any]") -> "pd.Series[Any]":
    """The values as numbers (float64) where all of them are numbers or spell some, else as text; nulls stay.

    Text such as 007 or of more digits than a float has is a name, and no number either.
    """
    with suppress(TypeError, ValueError, OverflowError):
        if not any(isinstance(value, str) and _DIGIT_NAME_REGEX.match(value) for value in values):
            return pd.to_numeric(values).astype("float64")
    return values.map(as_text, na_action="ignore").astype("str")


def _format_battery_names(outcomes: pd.DataFrame, rows: pd.Index) -> str:
    names = sorted(set(outcomes.loc[rows, "battery"]))
    return ", ".join(names[:3]) + (" …" if len(names) > 3 else "")


def _part_files(folder: Path, models: Collection[str] | None) -> list[Path]:
    """The parts of some models, or all; neighbours that are being written (``….partial``) are none."""
    part_dir = folder / _OUTCOMES_FOLDER
    if models is None:
        return sorted(part_dir.glob("*/*.parquet"))
    return sorted(path for name in set(map(_file_name, models)) for path in (part_dir / name).glob("*.parquet"))


def _model_battery_pairs(outcomes: pd.DataFrame) -> list[tuple[str, str]]:
    """Each model and battery that occur together, once."""
    return list(outcomes[_PART_KEY_COLUMNS].drop_duplicates().itertuples(index=False, name=None))


def _refuse_foreign_rows(outcomes: pd.DataFrame, expected: Collection[tuple[str, str]], path: Path) -> None:
    """Refuse rows of another model or battery: they would be counted twice, or missed where some models are read."""
    for model, battery in _model_battery_pairs(outcomes):
        if (model, battery) not in expected:
            raise TableError(
                f"{path}: holds outcomes of model {model!r} on battery {battery!r}, which do not belong there. Bring "
                f"tables of others in with capgap import table FILE --out DIR."
            )
