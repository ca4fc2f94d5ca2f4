from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from capgap.errors import EstimationError
from capgap.schema.remarks import Reason
from capgap.stats import find_patterns
from capgap.stats.patterns.evidence import deal_students
from tests.stats.patterns.worlds import MIDDLE, NAMES, SMALL, single


def planted(world, seed=0):
    return world.draw(np.random.default_rng(seed))


@pytest.fixture(scope="module")
def four():
    y, x, pattern = planted(replace(MIDDLE, name="four", n_items=1000), 1)
    return find_patterns(y, x, NAMES, rng=np.random.default_rng(0)), pattern, y, x


def test_four_patterns_are_found_and_return_in_the_other_half(four):
    found, pattern, y, x = four
    assert found.n_patterns == 4
    index = adjusted_rand_score(pattern, found.memberships.argmax(axis=1))
    assert index > adjusted_rand_score(pattern, MIDDLE.oracle(y, x)) - 0.05
    assert (found.half_test_p_values < 0.05).all()
    assert found.memberships.sum(axis=1) == pytest.approx(1)
    assert found.evidence[-1].p_value > 0.05
    assert found.shares == pytest.approx(found.memberships.mean(axis=0), abs=0.02)


def test_tidy_and_summary_say_the_same(four):
    found = four[0]
    rows = found.tidy()
    assert [row["estimate"] for row in rows] == pytest.approx(found.shares)
    assert [row["p_value"] for row in rows] == pytest.approx(found.half_test_p_values)
    assert {"level", "slope_adaptation", "gain_other_half", "n_items", "method", "note"} <= set(rows[0])
    assert "Failure patterns: 4 (60 students, 1000 items)" in found.summary()


@pytest.mark.parametrize(
    "world",
    [
        single(SMALL, "plain"),
        single(SMALL, "humps", two_humps=True),
        single(SMALL, "tasks", student_task_sd=0.4),
        single(SMALL, "missing", missing=0.3),
    ],
    ids=lambda world: world.name,
)
def test_one_pattern_is_one(world):
    y, x, _ = planted(world)
    found = find_patterns(y, x, NAMES, rng=np.random.default_rng(1))
    assert found.n_patterns == 1
    assert found.half_tests == ()
    assert found.evidence[0].p_value > 0.05
    assert np.allclose(found.memberships[np.isfinite(found.memberships)], 1)


def test_the_same_generator_gives_the_same_patterns():
    y, x, _ = planted(SMALL)
    one, two = (find_patterns(y, x, NAMES, rng=np.random.default_rng(4)) for _ in range(2))
    assert np.array_equal(one.memberships, two.memberships)
    assert one.evidence == two.evidence


def refused(y, x, names=NAMES):
    found = find_patterns(y, x, names, rng=np.random.default_rng(0))
    assert found.status == "refused"
    assert found.n_patterns == 0
    assert found.tidy() == []
    assert found.note in found.summary()
    return found


def test_too_little_is_refused_with_the_reason():
    y, x, _ = planted(SMALL)
    assert refused(y[:23], x[:23]).note == "23 students are too few, 24 are needed"
    assert refused(y, np.ones_like(x)).reason == Reason.NO_VARYING_COVARIATE
    assert refused(y[:, :49], x).reason == Reason.FEW_ANSWERED_ITEMS
    for value in (0.0, 1.0):
        assert refused(np.full_like(y, value), x).reason == Reason.FEW_VARYING_ITEMS
    assert refused(np.full_like(y, np.nan), x).reason == Reason.FEW_STUDENTS


def test_what_does_not_count_is_told():
    y, x, _ = planted(single(SMALL, "one", n_items=200))
    y = np.vstack([y, np.full(200, np.nan)])
    y[:, 0] = np.nan
    y[:20, 1] = np.nan
    x = np.column_stack([np.vstack([x, x[:1]]), np.full(25, 7.0)])
    found = find_patterns(y, x, (*NAMES, "family"), rng=np.random.default_rng(0))
    assert found.n_students == 24
    assert found.n_items == 198
    assert found.remark_codes[:2] == (Reason.CONSTANT_COVARIATE, Reason.SPARSE_ITEMS)
    assert "family does not vary and was left out" in found.note
    assert "2 items answered by less than half" in found.note
    assert np.isnan(found.memberships[:2]).all()


def test_duplicate_items_and_partial_scores_are_no_trouble():
    y, x, _ = planted(single(SMALL, "one", n_items=100))
    y = np.column_stack([y, y, 0.5 * y[:, :20] + 0.25])
    assert find_patterns(y, x, NAMES, rng=np.random.default_rng(0)).status == "ok"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda y, x: (y[0], x), "shape"),
        (lambda y, x: (y, x[:, :2]), "covariates"),
        (lambda y, x: (y, np.where(x == x[0], np.nan, x)), "not finite"),
        (lambda y, x: (y * 100, x), r"\[0, 1\]"),
    ],
)
def test_invalid_arguments_are_told(change, message):
    y, x, _ = planted(single(SMALL, "one", n_items=60))
    with pytest.raises(EstimationError, match=message):
        find_patterns(*change(y, x), NAMES, rng=np.random.default_rng(0))


def test_folds_spread_over_the_design():
    x = np.repeat(np.arange(12.0), 2)
    design = np.column_stack([np.ones(24), (x - x.mean()) / x.std()])
    part = deal_students(design, 2, np.random.default_rng(0))
    assert np.bincount(part).tolist() == [12, 12]
    assert abs(design[part == 0, 1].mean() - design[part == 1, 1].mean()) < 0.3


@pytest.mark.slow
def test_patterns_are_found_where_they_are_and_only_there():
    rng = np.random.default_rng(0)
    single_world, n = single(SMALL, "one"), 40
    ones = sum(find_patterns(*single_world.draw(rng)[:2], NAMES, rng=rng).n_patterns == 1 for _ in range(n))
    assert ones >= 0.9 * n
    lost = []
    for _ in range(5):
        y, x, pattern = MIDDLE.draw(rng)
        found = find_patterns(y, x, NAMES, rng=rng).memberships.argmax(axis=1)
        lost.append(adjusted_rand_score(pattern, MIDDLE.oracle(y, x)) - adjusted_rand_score(pattern, found))
    assert np.mean(lost) < 0.05
