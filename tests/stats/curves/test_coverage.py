import math

import numpy as np
import pytest

from capgap.stats import holm
from tests.stats.curves.coverage import Cell, cells, simulate

CELLS = {cell.name: (number, cell) for number, cell in enumerate(cells())}
FOLLOWED = ("power inside", "exponential inside", "logistic inside", "power outside", "logistic outside")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("n_items", [300, 2000])
def test_no_union_covers_significantly_less_than_94_percent_where_a_form_is_true(n_items):
    from scipy import stats

    names = [f"{name}, {n_items} items" for name in (*FOLLOWED, "power never", "exponential never", "logistic never")]
    results = [simulate(CELLS[name][1], 300, CELLS[name][0])[0]["union"] for name in names]
    told = [tally.n - tally.refused for tally in results]
    p_values = [
        stats.binomtest(t.covered, k, 0.94, alternative="less").pvalue for t, k in zip(results, told, strict=True)
    ]
    assert min(holm(p_values)) > 0.05
    assert all(k > 0.85 * tally.n for k, tally in zip(told, results, strict=True))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("form", ["power", "exponential", "logistic"])
def test_at_most_15_percent_of_a_true_forms_intervals_are_open_with_the_answer_inside(form):
    number, cell = CELLS[f"{form} inside, 2000 items"]
    tally = simulate(cell, 300, number)[0][form]
    assert tally.open <= 0.15 * tally.n


def test_the_union_covers_what_a_wrong_form_misses():
    """Seeded, twelve replicates: nothing here asks for more than that the machine runs and can fail."""
    number, cell = CELLS["logistic inside, 2000 items"]
    tallies, _ = simulate(cell, 12, number)
    assert tallies["union"].covered >= 10
    assert tallies["exponential"].covered < tallies["union"].covered
    wrong = Cell("wrong", 10 * cell.truth, cell.draw)
    assert simulate(wrong, 12, number)[0]["union"].covered <= 4


def test_the_truth_of_never_is_infinite_and_of_a_dip_the_last_crossing():
    assert math.isinf(CELLS["power never, 2000 items"][1].truth)
    assert np.isfinite(CELLS["dip, 2000 items"][1].truth)
    assert CELLS["ratio, power / power, seeds 0, 2000 items"][1].truth == pytest.approx(3, rel=1e-3)
