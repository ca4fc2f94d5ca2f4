"""Score matrix: outcomes as cells by models, with the facts of each cell."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from capgap import schema
from capgap.analysis.answer_states import StateDeficits, state_deficits
from capgap.errors import TableError, suggestion

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

UNRECORDED_ANSWER = -1
"""Prediction code of a cell whose answer was not recorded."""
UNREADABLE_ANSWER = -2
"""Prediction code of an answer that could not be read (unparsed, cut off)."""

_CELL_KEY_COLUMNS = ["battery", "task", "item", "variant"]


@dataclass(frozen=True)
class ScoreMatrix:
    """One row a cell (battery, task, item, variant; repeats averaged), one column a model."""

    models: tuple[str, ...]
    """The columns."""
    facts: dict[str, NDArray[Any]]
    """battery, capability, domain, format and variant of each cell: words, None where unknown, shape (cells,)."""
    chance: Floats
    """Expected score of a guess, NaN where unknown, shape (cells,)."""
    scores: Floats
    """Mean score over repeats, NaN where a model has none, shape (cells, models)."""
    logprobs: Floats
    """Log-probability of the right answer, nats, mean over repeats, NaN where unknown, shape (cells, models)."""
    deficits: StateDeficits
    """What the scores lack, by the state of the answers."""
    is_asked: NDArray[np.bool_]
    """Whether a model was asked the cell, shape (cells, models)."""
    predictions: Ints
    """Code of the answer's text in the first repeat, `UNRECORDED_ANSWER` or `UNREADABLE_ANSWER`,
    shape (cells, models)."""
    task: Ints
    """Task code, shape (cells,); codes index `tasks`."""
    tasks: tuple[str, ...]
    """Task names, unambiguous."""
    cluster: Ints
    """Cluster code, shape (cells,)."""
    item: Ints
    """Item code, shape (cells,): variants of an item share it."""
    items: NDArray[Any]
    """Name of the item of each cell, shape (cells,)."""
    covariates: dict[str, NDArray[Any]]
    """Bin label of each covariate for each model's rows (objects, None where unknown), shape (cells, models)."""
    repeated: bool
    """Whether any cell was asked more than once."""
    varied: bool
    """Whether any item was asked in more than one variant."""

    @property
    def layout(self) -> bytes:
        """Digest of the tasks, clusters and items of all cells: grids of one layout have the same designs."""
        names = repr(self.tasks).encode()
        return sha256(b"|".join((names, self.task.tobytes(), self.cluster.tobytes(), self.item.tobytes()))).digest()

    def column(self, model: str) -> int:
        """The column of a model."""
        return self.models.index(model)

    def members(self, fact: str) -> list[str]:
        """The distinct words of a fact, sorted."""
        return sorted({word for word in self.facts[fact] if word is not None})

    def of(self, model: str) -> Floats:
        """The scores of a model, shape (cells,)."""
        return self.scores[:, self.column(model)]


def make_score_matrix(outcomes: pd.DataFrame, models: Sequence[str]) -> ScoreMatrix:
    """The grid of some models' primary outcomes.

    Parameters
    ----------
    outcomes
        A validated outcomes table after `qualify_task_names` and `bin_covariates`.
    models
        Names of the models, in the order of the columns; the first that was asked a cell gives its facts.

    Raises
    ------
    TableError
        A model has no outcome.
    """
    frame = outcomes[outcomes["primary"].fillna(False).astype(bool)]
    known_models = sorted(set(frame["model"]))
    for name in models:
        if name not in known_models:
            raise TableError(f"model {name!r} has no outcomes.{suggestion(name, known_models)}")
    frame = frame[frame["model"].isin(list(models))]
    order = {name: j for j, name in enumerate(models)}
    column = frame["model"].map(order).to_numpy(dtype=np.int64)
    # Sorted by model and repeat, so that neither the order of rows nor that of models' names changes a fact.
    row_order = np.lexsort((frame["repeat"].to_numpy(dtype=np.int64, na_value=0), column))
    frame, column = frame.iloc[row_order], column[row_order]
    cell = frame.groupby(_CELL_KEY_COLUMNS, sort=True).ngroup().to_numpy(dtype=np.int64)
    shape = (int(cell.max()) + 1, len(models))
    # Row-major position of each outcome in the matrix (cells, models); repeats share one.
    flat_index = cell * shape[1] + column
    scores, logprobs = (_average_repeats(frame[name], flat_index, shape) for name in ("score", "target_logprob"))
    is_asked = (np.bincount(flat_index, minlength=shape[0] * shape[1]) > 0).reshape(shape)
    # Repeats are sorted, so the first row of a position is its first repeat.
    asked_flat_positions, first_rows = np.unique(flat_index, return_index=True)
    predictions = np.full(shape[0] * shape[1], UNRECORDED_ANSWER, dtype=np.int64)
    first_repeats: pd.DataFrame = frame.take(first_rows)
    predictions[asked_flat_positions] = _prediction_codes(first_repeats)
    _, first_row_by_cell = np.unique(cell, return_index=True)
    facts = frame.iloc[first_row_by_cell].reset_index(drop=True)
    tasks, task = np.unique(facts["task"].to_numpy(dtype=object).astype(str), return_inverse=True)
    item = np.asarray(facts.groupby(["battery", "task", "item"], sort=True).ngroup(), dtype=np.int64)
    return ScoreMatrix(
        models=tuple(models),
        facts={name: _words_or_none(facts[name]) for name in ("battery", "capability", "domain", "format", "variant")},
        chance=facts["chance"].to_numpy(dtype=float),
        scores=scores,
        logprobs=logprobs,
        deficits=state_deficits(frame, flat_index, shape),
        is_asked=is_asked,
        predictions=predictions.reshape(shape),
        task=task,
        tasks=tuple(tasks),
        cluster=_cluster_codes(facts),
        item=item,
        items=facts["item"].to_numpy(dtype=object),
        covariates=_covariates(frame, asked_flat_positions, first_rows, shape),
        repeated=len(asked_flat_positions) < len(flat_index),
        varied=len(np.unique(item)) < len(item),
    )


def _average_repeats(column: "pd.Series[Any]", flat_index: Ints, shape: tuple[int, int]) -> Floats:
    """The mean over repeats of each cell and model, NaN where there is none."""
    value = column.to_numpy(dtype=float, na_value=np.nan)
    finite = np.isfinite(value)
    count = np.bincount(flat_index[finite], minlength=shape[0] * shape[1])
    total = np.bincount(flat_index[finite], value[finite], shape[0] * shape[1])
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(count > 0, total / count, np.nan)).reshape(shape)


def _words_or_none(column: "pd.Series[Any]") -> NDArray[Any]:
    words = column.to_numpy(dtype=object)
    words[column.isna().to_numpy()] = None
    return words


def _cluster_codes(facts: pd.DataFrame) -> Ints:
    """Codes of the clusters; an item that is its own cluster stays apart from items of that name in other tasks."""
    is_own_cluster = (facts["cluster"] == facts["item"]).to_numpy(dtype=bool)
    battery, task, cluster = (facts[name].to_numpy(dtype=object) for name in ("battery", "task", "cluster"))
    # An undeclared cluster is an item, named within its task; a declared one may span the tasks of its battery.
    scope = np.where(is_own_cluster, battery + "\0" + task + "\0own\0", battery + "\0declared\0")
    return np.unique((scope + cluster).astype(str), return_inverse=True)[1].astype(np.int64)


def _prediction_codes(frame: pd.DataFrame) -> Ints:
    """Codes of the answers: case and outer blanks do not count, numbers are compared as numbers."""
    prediction_text_codes, words = pd.factorize(frame["prediction"])
    cleaned = np.array([_canonical_answer(str(word)) for word in words], dtype=object)
    _, merged = (
        np.unique(cleaned.astype(str), return_inverse=True) if len(cleaned) else (cleaned, np.zeros(0, dtype=np.int64))
    )
    answers = np.full(len(frame), UNRECORDED_ANSWER, dtype=np.int64)
    has_prediction = prediction_text_codes >= 0
    answers[has_prediction] = merged[prediction_text_codes[has_prediction]]
    answers[schema.is_unreadable(frame).to_numpy()] = UNREADABLE_ANSWER
    return answers


def _canonical_answer(word: str) -> str:
    text = word.strip().casefold()
    try:
        return f"{float(text.replace(',', '')):.12g}"
    except ValueError:
        return text


def _covariates(
    frame: pd.DataFrame, flat_positions: Ints, first_rows: Ints, shape: tuple[int, int]
) -> dict[str, NDArray[Any]]:
    """Bin label of each covariate, shape (cells, models); `flat_positions` of the matrix take the rows `first_rows`."""
    covariates = {}
    for name in schema.covariate_names(frame):
        label = np.full(shape[0] * shape[1], None, dtype=object)
        label[flat_positions] = frame[name].to_numpy(dtype=object)[first_rows]
        covariates[name] = label.reshape(shape)
    return covariates
