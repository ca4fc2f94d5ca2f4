"""The tables that the two halves of capgap share: their columns, and how to read, check, write and pair them.

``models ──▶ ledger ──▶ outcomes ──▶ estimates ──▶ report``: everything left of `outcomes` needs torch, nothing right
of it does. Any of the tables may come from elsewhere; `validate` fills what has a documented default and names what
is missing or wrong. What is unknown is null (NaN, NA), never zero.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from capgap.errors import StoreError, TableError, suggestion

__all__ = [
    "CELL",
    "ESTIMATES",
    "ITEMS",
    "LABELS",
    "MODELS",
    "OUTCOMES",
    "OUTCOME_KEY",
    "TABLES",
    "Column",
    "Pairs",
    "Roles",
    "Table",
    "concat",
    "covariate_names",
    "empty",
    "from_rows",
    "pair",
    "read",
    "validate",
    "write",
    "write_json",
]

Kind = Literal["string", "float", "integer", "boolean"]

_DTYPES: dict[str, str] = {"string": "str", "float": "float64", "integer": "Int64", "boolean": "boolean"}


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    name: str
    """Its name."""
    kind: Kind
    """What it holds; a list or mapping travels as a JSON string."""
    required: bool = False
    """Whether a foreign table must bring it."""
    default: Any = None
    """What stands where a foreign table has no such column; None is null."""
    allowed: tuple[str, ...] = ()
    """The words it may hold, where they are fixed."""


@dataclass(frozen=True)
class Table:
    """A named, ordered set of columns."""

    name: str
    """Name of the table and of its file, ``NAME.parquet``."""
    columns: tuple[Column, ...]
    """The columns in the order in which they are written."""
    key: tuple[str, ...]
    """The columns that together name one row."""
    open_prefix: str = ""
    """Columns that start so may follow (``x_`` for covariates); empty: none may."""

    @property
    def names(self) -> tuple[str, ...]:
        """The column names in order."""
        return tuple(column.name for column in self.columns)


def _columns(kind: Kind, names: str, **options: Any) -> tuple[Column, ...]:
    return tuple(Column(name, kind, **options) for name in names.split())


STATUSES = ("scored", "unparsed", "truncated", "error")
CAPABILITIES = ("knowledge", "reasoning", "mixed")
FORMATS = ("choose", "generate")

ITEMS = Table(
    "items",
    (
        *_columns("string", "battery task item", required=True),
        Column("variant", "string", default="default"),
        *_columns("string", "prompt choices target"),
    ),
    key=("battery", "task", "item", "variant"),
)

OUTCOMES = Table(
    "outcomes",
    (
        Column("model", "string", required=True),
        Column("battery", "string", default="battery"),
        Column("task", "string", required=True),
        Column("capability", "string", allowed=CAPABILITIES),
        Column("domain", "string"),
        Column("item", "string", required=True),
        Column("variant", "string", default="default"),
        Column("repeat", "integer", default=0),
        Column("cluster", "string"),  # where nothing is said, an item is its own cluster: see validate
        Column("format", "string", allowed=FORMATS),
        Column("metric", "string", default="score"),
        Column("filter", "string", default="none"),
        Column("primary", "boolean", default=True),
        Column("value", "float"),
        Column("score", "float", required=True),
        Column("status", "string", default="scored", allowed=STATUSES),
        *_columns("float", "chance margin margin_target target_logprob"),
        *_columns("string", "prediction target response"),
        Column("n_tokens", "integer"),
        Column("stop_reason", "string"),
    ),
    key=("model", "battery", "task", "item", "variant", "repeat", "metric", "filter"),
    open_prefix="x_",
)

MODELS = Table(
    "models",
    (
        Column("model", "string", required=True),
        *_columns("string", "recipe base teachers checkpoint"),
        *_columns("integer", "step seed data_seed base_seed n_examples"),
        Column("n_examples_by_capability", "string"),
        Column("n_unique", "integer"),
        *_columns("string", "diversity train_tasks architecture"),
        *_columns("integer", "n_params n_trainable n_layers width"),
        *_columns("string", "adaptation supervision objective"),
        *_columns("float", "lr epochs"),
        *_columns("integer", "steps tokens loss_tokens"),
        Column("flops", "float"),
        *_columns("string", "prompting weights_hash data_hash created"),
    ),
    key=("model",),
)

LABELS = Table(
    "labels",
    (
        *_columns("string", "task item", required=True),
        Column("capability", "string", required=True, allowed=CAPABILITIES),
        *_columns("float", "p_reasoning conf_low conf_high"),
        *_columns("string", "source evidence"),
    ),
    key=("task", "item"),
)

ESTIMATES = Table(
    "estimates",
    (
        *_columns("string", "quantity level group", required=True),
        *_columns("string", "model contrast factors scale weighting population"),
        *_columns("float", "estimate std_error df conf_low conf_high"),
        Column("conf_level", "float", default=0.95),
        Column("null_value", "float"),
        Column("alternative", "string"),
        *_columns("float", "p_value p_adjusted"),
        Column("family", "string"),
        *_columns("integer", "n_items n_clusters n_tasks n_students n_seeds"),
        Column("method", "string"),
        Column("status", "string", default="ok", allowed=("ok", "open", "refused")),
        Column("note", "string"),
    ),
    key=("quantity", "level", "group", "model", "contrast", "factors", "scale", "weighting", "population"),
)

TABLES: dict[str, Table] = {table.name: table for table in (ITEMS, OUTCOMES, MODELS, LABELS, ESTIMATES)}

OUTCOME_KEY = OUTCOMES.key
CELL = ("battery", "task", "item", "variant", "repeat")
"""What two models must share for their scores to be compared."""


def empty(table: Table) -> pd.DataFrame:
    """A frame with the table's columns and no row."""
    return pd.DataFrame({column.name: pd.Series(dtype=_DTYPES[column.kind]) for column in table.columns})


def covariate_names(outcomes: pd.DataFrame) -> list[str]:
    """The columns of `outcomes` that are covariates of the items (``x_…``), in order."""
    return [name for name in outcomes.columns if name.startswith(OUTCOMES.open_prefix)]


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
    where = f"{source or table.name + ' table'}: "
    missing = [c.name for c in table.columns if c.required and c.name not in frame.columns]
    if missing:
        found = ", ".join(map(str, frame.columns[:20])) or "no column"
        raise TableError(
            f"{where}required column {missing[0]!r} is missing. Found: {found}."
            f"{suggestion(missing[0], map(str, frame.columns)) if len(frame.columns) > 20 else ''}"
            f" A {table.name} table needs: {', '.join(c.name for c in table.columns if c.required)}."
        )
    out: dict[str, Any] = {}
    for column in table.columns:
        if column.name in frame.columns:
            out[column.name] = _typed(frame[column.name], column, where)
        else:
            out[column.name] = pd.Series(column.default, index=frame.index, dtype=_DTYPES[column.kind])
    extra = [str(n) for n in frame.columns if n not in table.names]
    for name in extra:
        if not table.open_prefix or not name.startswith(table.open_prefix):
            raise TableError(f"{where}unknown column {name!r}.{suggestion(name, table.names)}")
        out[name] = frame[name]
    result = pd.DataFrame(out).reset_index(drop=True)
    if table is OUTCOMES:
        result["cluster"] = result["cluster"].where(result["cluster"].notna(), result["item"])
        _check_scores(result, where)
    _check_key(result, table, where)
    return result


def from_rows(rows: Iterable[Mapping[str, Any]], table: Table, *, source: str = "") -> pd.DataFrame:
    """A validated frame from one mapping a row.

    Half of a surrogate pair, which a broken JSON file or a model can bring, is no character and no table holds it; a
    question mark takes its place.
    """
    clean = [{k: _whole(v) if isinstance(v, str) else v for k, v in row.items()} for row in rows]
    return validate(pd.DataFrame(clean), table, source=source)


def _whole(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _typed(values: "pd.Series[Any]", column: Column, where: str) -> "pd.Series[Any]":
    """One column in its type; a message names the first row that does not fit."""
    typed: pd.Series[Any]
    try:
        if column.kind == "string":
            typed = values.map(_as_text, na_action="ignore").astype("str")
        elif column.kind == "boolean":
            typed = values.astype("boolean")
        else:
            typed = pd.to_numeric(values).astype("float64" if column.kind == "float" else "Int64")
    except (TypeError, ValueError) as error:
        raise TableError(f"{where}column {column.name!r} should hold {column.kind} values: {error}.") from None
    if column.required and column.name != "score" and bool(typed.isna().any()):
        row = int(np.flatnonzero(typed.isna().to_numpy())[0])
        raise TableError(f"{where}column {column.name!r}, row {row}: a value is required, found none.")
    if column.allowed:
        wrong = typed[typed.notna() & ~typed.isin(column.allowed)]
        if len(wrong):
            word = str(wrong.iloc[0])
            raise TableError(
                f"{where}column {column.name!r}: {word!r} is not one of its words.{suggestion(word, column.allowed)}"
            )
    return typed


def _as_text(value: Any) -> str:
    """Lists and mappings as JSON, whole floats without their point, everything else as `str` gives it."""
    if isinstance(value, str):
        return value
    if isinstance(value, (dict, list, tuple)):
        return _whole(json.dumps(value, ensure_ascii=False, sort_keys=True))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _check_scores(outcomes: pd.DataFrame, where: str) -> None:
    score = outcomes["score"].to_numpy(dtype=float)
    wrong = np.flatnonzero(~np.isnan(score) & ((score < 0) | (score > 1)))
    if len(wrong):
        raise TableError(
            f"{where}column 'score', row {wrong[0]}: {score[wrong[0]]:g} lies outside [0, 1]. "
            f"Put other units into 'value' and leave 'score' empty."
        )


def _check_key(frame: pd.DataFrame, table: Table, where: str) -> None:
    double = frame.duplicated(list(table.key), keep=False).to_numpy()
    if double.any():
        row = frame.loc[np.flatnonzero(double)[0], list(table.key)]
        named = ", ".join(f"{name}={value}" for name, value in row.items() if pd.notna(value))
        raise TableError(f"{where}{int(double.sum())} rows share their key, the first is {named}. One row a key.")


def read(path: Path | str, table: Table) -> pd.DataFrame:
    """The table in a Parquet, CSV, JSONL or JSON file, validated.

    Raises
    ------
    TableError
        The file is missing, cannot be read, or does not hold such a table.
    """
    path = Path(path)
    readers: dict[str, Callable[[Path], Any]] = {
        ".parquet": pd.read_parquet,
        ".csv": pd.read_csv,
        ".jsonl": lambda p: pd.read_json(p, lines=True),
        ".json": pd.read_json,
    }
    if path.suffix not in readers:
        raise TableError(
            f"{path}: a table is one of {', '.join(readers)}, not {path.suffix or 'a file without suffix'!r}."
        )
    if not path.is_file():
        raise TableError(f"{path}: no such file.")
    try:
        frame = readers[path.suffix](path)
    except Exception as error:  # every reader has exceptions of its own; each means that the file is not what it says
        raise TableError(f"{path}: cannot be read as {path.suffix[1:]}: {str(error)[:300]}") from error
    if not isinstance(frame, pd.DataFrame):
        raise TableError(f"{path}: holds no table of rows and columns.")
    return validate(frame, table, source=str(path))


def write(frame: pd.DataFrame, path: Path | str, table: Table) -> None:
    """Validate and write as Parquet, whole or not at all (a neighbour file is written, then renamed).

    Raises
    ------
    TableError
        The frame does not hold such a table.
    StoreError
        The disk is full or cannot be written.
    """
    path = Path(path)
    checked = validate(frame, table, source=path.name)
    partial = path.with_name(path.name + ".partial")
    try:
        checked.to_parquet(partial, index=False)
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise StoreError(
            f"{path}: cannot be written: {error.strerror or error}. What was there is unchanged."
        ) from error


def write_json(frame: pd.DataFrame, path: Path | str) -> None:
    """The rows as a JSON list of objects; null where a value is missing, `factors` as an object."""
    path = Path(path)
    records = json.loads(frame.to_json(orient="records", double_precision=15))
    for record in records:
        if isinstance(record.get("factors"), str):
            record["factors"] = json.loads(record["factors"])
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(json.dumps(records, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror or error}.") from error


def concat(frames: Iterable[pd.DataFrame], table: Table) -> pd.DataFrame:
    """Several frames of one table, one below the other, validated; a key may occur once in all of them."""
    parts = [frame for frame in frames if len(frame)]
    if not parts:
        return empty(table)
    return validate(pd.concat(parts, ignore_index=True), table, source=table.name)


@dataclass(frozen=True)
class Roles:
    """Who is who in a comparison; roles belong to the comparison, never to a model."""

    students: tuple[str, ...]
    """Names of the compared models, one at least."""
    teacher: str | None = None
    """The model that the students learnt from."""
    base: dict[str, str] = field(default_factory=dict)
    """Student → the same model before distillation; a student without one is absent."""
    control: dict[str, str] = field(default_factory=dict)
    """Student → the same student trained on gold targets; a student without one is absent."""

    @property
    def names(self) -> tuple[str, ...]:
        """Every model that plays a role, once: teacher, bases, controls, students."""
        every = [self.teacher, *self.base.values(), *self.control.values(), *self.students]
        return tuple(dict.fromkeys(name for name in every if name is not None))


@dataclass(frozen=True)
class Pairs:
    """The cells that all the compared models answered."""

    cells: pd.DataFrame
    """One row a cell: `CELL`, then capability, domain, cluster, format, chance and the covariates of the item."""
    scores: np.ndarray
    """Their scores, shape (cells, models), in the order of the models asked for."""
    share: float
    """Cells that all models answered, over cells that any of them answered."""
    n_any: int
    """Cells that any of them answered."""


def pair(outcomes: pd.DataFrame, models: Sequence[str]) -> Pairs:
    """Scores of several models on the cells that all of them answered, primary metric only.

    A cell that one model lacks, or where its score is NaN (status ``error``), leaves the comparison; `share` says
    how many stayed.

    Raises
    ------
    TableError
        A model has no row.
    """
    primary = outcomes[outcomes["primary"].fillna(False).astype(bool)]
    primary = primary[primary["model"].isin(list(models))]
    absent = [m for m in models if m not in set(primary["model"])]
    if absent:
        raise TableError(f"model {absent[0]!r} has no outcomes.{suggestion(absent[0], outcomes['model'].unique())}")
    index = list(CELL)
    wide = primary.pivot(index=index, columns="model", values="score").reindex(columns=list(models))
    complete = wide.dropna()
    facts = ["capability", "domain", "cluster", "format", "chance", *covariate_names(outcomes)]
    cells = primary.drop_duplicates(index).set_index(index)[facts].reindex(complete.index).reset_index()
    share = len(complete) / len(wide) if len(wide) else 0.0
    return Pairs(cells, complete.to_numpy(dtype=float), share, len(wide))
