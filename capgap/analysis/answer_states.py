"""States of answers: what the deficit 1 - score of each answer is due to, cell by cell and model by model.

An answer is in exactly one state, the first that fits: *cut off* at its limit of tokens, *stopped early* (unreadable,
and ended by a stop string), *unreadable*, *wrong*. One that scored right is in none. A stop string is also how ordinary
answers end, so that a wrong answer which could be read is wrong, however it ended. The three states before *wrong* are
those of **unreadable** answers: how they would have scored is not known.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["STATES", "UNREADABLE_STATES", "WRONG", "StateDeficits", "answer_states", "state_deficits"]

Floats = NDArray[np.float64]

WRONG = "wrong"
UNREADABLE_STATES = ("cut_off", "stopped_early", "unreadable")
"""States of answers that could not be read, the first that fits counts."""
STATES = (*UNREADABLE_STATES, WRONG)
_LIMIT_REASONS = ("limit", "length")
_STOP_STRING_REASONS = ("stop_string", "stop")


@dataclass(frozen=True)
class StateDeficits:
    """Deficits of unreadable answers by state; what else a score lacks is that of wrong answers."""

    by_state: Mapping[str, Floats]
    """Unreadable state → mean over scored repeats of ``(1 - score) 1{state}``, shape (cells, models); those that
    occur."""
    credit: Floats | None = None
    """Mean over scored repeats of the score that unreadable answers got, shape (cells, models); None where none is."""

    def occurring(self, rows: NDArray[np.int64], columns: Sequence[int]) -> tuple[str, ...]:
        """The unreadable states in which any answer of some models to some cells is, in the order of `STATES`."""
        return tuple(state for state, deficit in self.by_state.items() if (deficit[rows][:, list(columns)] > 0).any())

    def of(self, state: str, column: int, scores: Floats) -> Floats:
        """The deficit of one model in a state, shape (cells,); NaN where `scores`, its scores, are."""
        if state == WRONG:
            return 1 - scores - self.unreadable(column, scores)
        return np.where(np.isfinite(scores), self.by_state[state][:, column], np.nan)

    def unreadable(self, column: int, scores: Floats) -> Floats:
        """The deficit of one model in all unreadable states, shape (cells,); NaN where `scores`, its scores, are."""
        total = sum((deficit[:, column] for deficit in self.by_state.values()), np.zeros(len(scores)))
        return np.where(np.isfinite(scores), total, np.nan)

    def extremes(self, column: int, scores: Floats) -> tuple[Floats, Floats]:
        """One model's scores with its unreadable answers all wrong, and all right, each of shape (cells,)."""
        worst = scores if self.credit is None else scores - self.credit[:, column]
        return worst, scores + self.unreadable(column, scores)


def answer_states(outcomes: pd.DataFrame) -> NDArray[np.object_]:
    """The state of each answer, shape (rows,); empty for one that scored right or has no score.

    Parameters
    ----------
    outcomes
        With `score`; `status` and `stop_reason` where they are known. A status ``truncated`` counts as cut off.
    """
    score = outcomes["score"].to_numpy(dtype=float, na_value=np.nan)
    status, stop_reason = (_words(outcomes, name) for name in ("status", "stop_reason"))
    unparsed = status == "unparsed"
    conditions = [
        ~(score < 1),
        (status == "truncated") | np.isin(stop_reason, _LIMIT_REASONS),
        unparsed & np.isin(stop_reason, _STOP_STRING_REASONS),
        unparsed,
    ]
    return np.select(conditions, ["", *UNREADABLE_STATES], default=WRONG).astype(object)


def state_deficits(outcomes: pd.DataFrame, flat_index: NDArray[np.int64], shape: tuple[int, int]) -> StateDeficits:
    """The deficits of a score matrix by state.

    Parameters
    ----------
    outcomes
        The rows behind the matrix.
    flat_index
        Position of each row in the matrix, row by row, shape (rows,).
    shape
        Of the matrix: cells, models.
    """
    score = outcomes["score"].to_numpy(dtype=float, na_value=np.nan)
    states, n_positions = answer_states(outcomes), shape[0] * shape[1]
    n_scored = np.maximum(np.bincount(flat_index[np.isfinite(score)], minlength=n_positions), 1)

    def mean_over_repeats(rows: NDArray[np.bool_], values: Floats) -> Floats:
        return np.asarray(np.bincount(flat_index[rows], values[rows], n_positions) / n_scored).reshape(shape)

    masks = {state: states == state for state in UNREADABLE_STATES}
    by_state = {state: mean_over_repeats(rows, 1 - score) for state, rows in masks.items() if rows.any()}
    credited = np.isin(states, UNREADABLE_STATES) & (score > 0)
    return StateDeficits(by_state, mean_over_repeats(credited, score) if credited.any() else None)


def _words(outcomes: pd.DataFrame, column: str) -> NDArray[np.object_]:
    """A column of codes, empty where unknown."""
    if column not in outcomes:
        return np.full(len(outcomes), "", dtype=object)
    return outcomes[column].astype(object).where(outcomes[column].notna(), "").to_numpy(dtype=object)
