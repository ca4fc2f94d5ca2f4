"""Each answer is in one state, and what a score lacks is split among them."""

import numpy as np
import pandas as pd
import pytest

from capgap.analysis.answer_states import UNREADABLE_STATES, WRONG, answer_states, state_deficits


@pytest.mark.parametrize(
    ("score", "status", "stop_reason", "state"),
    [
        (1.0, "scored", "limit", ""),
        (0.0, "scored", "limit", "cut_off"),
        (0.0, "truncated", None, "cut_off"),
        (0.0, "unparsed", "limit", "cut_off"),
        (0.0, "unparsed", "length", "cut_off"),
        (0.0, "unparsed", "stop_string", "stopped_early"),
        (0.0, "scored", "stop_string", WRONG),
        (0.0, "unparsed", "end", "unreadable"),
        (0.0, "unparsed", None, "unreadable"),
        (0.4, "scored", None, WRONG),
        (np.nan, "error", None, ""),
    ],
)
def test_an_answer_is_in_the_first_state_that_fits(score, status, stop_reason, state):
    row = pd.DataFrame({"score": [score], "status": [status], "stop_reason": [stop_reason]})
    assert list(answer_states(row)) == [state]


def test_a_foreign_table_without_states_has_wrong_answers_alone():
    assert list(answer_states(pd.DataFrame({"score": [1.0, 0.0, np.nan]}))) == ["", WRONG, ""]


@pytest.mark.parametrize("seed", range(5))
def test_deficits_of_all_states_sum_to_what_the_score_lacks(seed):
    rng = np.random.default_rng(seed)
    n = 400
    outcomes = pd.DataFrame(
        {
            "score": rng.choice([0.0, 0.3, 1.0, np.nan], n),
            "status": rng.choice(["scored", "unparsed", "truncated"], n),
            "stop_reason": rng.choice(["end", "limit", "stop_string", None], n),
        }
    )
    index, shape = rng.integers(0, 60, n), (20, 3)  # several repeats of most cells
    deficits = state_deficits(outcomes, index, shape)
    means = outcomes["score"].groupby(index).mean().reindex(range(60)).to_numpy().reshape(shape)
    for column in range(3):
        scores = means[:, column]
        states = (*UNREADABLE_STATES, WRONG)
        parts = np.array([deficits.of(state, column, scores) for state in states])
        np.testing.assert_allclose(parts.sum(axis=0), 1 - scores, atol=1e-12)
        assert (parts[np.isfinite(parts)] >= -1e-12).all()
        worst, best = deficits.extremes(column, scores)
        scored = np.isfinite(scores)
        ordered = np.array([np.zeros(20), worst, scores, best, np.ones(20)])[:, scored]
        assert (np.diff(ordered, axis=0) >= -1e-12).all()
