import numpy as np
import pytest

from capgap.errors import EstimationError
from capgap.schema.remarks import Reason, remark
from capgap.stats.curves import curve_data

RNG = np.random.default_rng(0)
SCORES = (RNG.random((5, 60)) < np.array([0.3, 0.5, 0.6, 0.7, 0.7])[:, None]).astype(float)
TEACHER = (RNG.random(60) < 0.8).astype(float)
SIZES = [0, 10, 100, 1000, 1000]
ALL = np.vstack([SCORES, TEACHER])


def test_means_and_variances_are_those_of_the_items():
    data = curve_data(SCORES, TEACHER, SIZES, chance=0.25)
    np.testing.assert_allclose(data.means, ALL.mean(axis=1))
    np.testing.assert_allclose(np.diag(data.covariance), ALL.var(axis=1, ddof=1) / 60, rtol=1e-5)
    assert data.chance == pytest.approx(0.25)


def test_correlations_shrink_towards_their_mean_and_less_with_more_items():
    def shared(n):
        rng = np.random.default_rng(4)
        hard = rng.normal(size=n)
        rows = np.stack([hard + 0.1 * rng.normal(size=n)] * 2 + [rng.normal(size=n) for _ in range(4)]) > 0
        return rows.astype(float) + 0.0, np.corrcoef(rows)

    distance = []
    for n in (30, 3000):
        rows, plain = shared(n)
        cov = curve_data(rows[:-1], rows[-1], [0, 1, 2, 3, 4]).covariance
        sd = np.sqrt(np.diag(cov))
        distance.append(abs((cov / np.outer(sd, sd))[0, 2] - plain[0, 2]))
    assert distance[0] > 3 * distance[1]


def test_tasks_count_equally_however_many_items_they_have():
    tasks = np.array(["a"] * 10 + ["b"] * 50)
    data = curve_data(SCORES, TEACHER, SIZES, tasks=tasks)
    by_hand = (ALL[:, :10].mean(axis=1) + ALL[:, 10:].mean(axis=1)) / 2
    np.testing.assert_allclose(data.means, by_hand)
    variance = (ALL[:, :10].var(axis=1, ddof=1) / 10 + ALL[:, 10:].var(axis=1, ddof=1) / 50) / 4
    np.testing.assert_allclose(np.diag(data.covariance), variance, rtol=1e-5)


def test_weights_of_items_give_weighted_means_and_equal_ones_change_nothing():
    w = np.linspace(1, 3, 60)
    np.testing.assert_allclose(curve_data(SCORES, TEACHER, SIZES, weights=w).means, ALL @ w / w.sum())
    plain, equal = curve_data(SCORES, TEACHER, SIZES), curve_data(SCORES, TEACHER, SIZES, weights=np.full(60, 7.0))
    np.testing.assert_allclose(plain.covariance, equal.covariance)


def test_items_that_are_repeated_within_their_cluster_add_no_information():
    once = curve_data(SCORES, TEACHER, SIZES)
    twice = curve_data(np.repeat(SCORES, 2, axis=1), np.repeat(TEACHER, 2), SIZES, clusters=np.repeat(np.arange(60), 2))
    np.testing.assert_allclose(twice.covariance, once.covariance, rtol=1e-9)
    unaware = curve_data(np.repeat(SCORES, 2, axis=1), np.repeat(TEACHER, 2), SIZES)
    assert unaware.covariance[1, 1] < 0.6 * once.covariance[1, 1]


def test_the_order_of_items_changes_nothing():
    order = np.random.default_rng(1).permutation(60)
    a, b = curve_data(SCORES, TEACHER, SIZES), curve_data(SCORES[:, order], TEACHER[order], SIZES)
    np.testing.assert_allclose(a.covariance, b.covariance)


def test_repeated_rows_of_one_base_are_one_point_without_variance_between_seeds():
    data = curve_data(np.vstack([SCORES, SCORES[:1]]), TEACHER, [*SIZES, 0])
    assert list(data.sizes) == SIZES
    assert data.spread[0] == 0
    assert (data.spread[1:] > 0).all()
    trained = curve_data(np.vstack([SCORES, 1 - SCORES[:1]]), TEACHER, [*SIZES, 0])
    assert len(trained.sizes) == 6
    assert (trained.spread > 0).all()


def test_nested_subsets_of_one_seed_correlate_by_the_root_of_their_share():
    data = curve_data(SCORES, TEACHER, SIZES, seeds=["x", "s", "s", "s", "t"], nested=0.8)
    assert data.seed_correlation[1, 2] == pytest.approx(0.8 * np.sqrt(0.1))
    assert data.seed_correlation[1, 4] == 0
    assert data.seed_correlation[0, 1] == 0
    assert (np.diag(data.seed_correlation) == 1).all()
    assert (np.linalg.eigvalsh(data.seed_correlation) > 0).all()


def test_items_that_someone_lacks_are_left_out_for_all_and_told():
    gappy = SCORES.copy()
    gappy[2, :7] = np.nan
    data = curve_data(gappy, TEACHER, SIZES)
    assert data.n_items == 53
    assert data.remarks == (remark(Reason.ITEMS_LEFT_OUT, n=7, of=60),)
    np.testing.assert_allclose(data.means, ALL[:, 7:].mean(axis=1))


def test_per_step_is_the_kth_root_where_all_items_have_k_steps():
    plain = curve_data(SCORES, TEACHER, SIZES, chance=0.125)
    data = curve_data(SCORES, TEACHER, SIZES, chance=0.125, scale="per_step", steps=np.full(60, 3))
    np.testing.assert_allclose(data.means, ALL.mean(axis=1) ** (1 / 3))
    assert data.chance == pytest.approx(0.5)
    slope = ALL.mean(axis=1) ** (-2 / 3) / 3
    np.testing.assert_allclose(np.diag(data.covariance), slope**2 * np.diag(plain.covariance), rtol=1e-6)
    np.testing.assert_allclose(data.spread[1:], plain.spread[1:] * slope[1:-1])


def test_per_step_with_mixed_lengths_solves_for_the_accuracy():
    steps = np.repeat([1, 2, 5], 20)
    data = curve_data(SCORES, TEACHER, SIZES, scale="per_step", steps=steps)
    again = (data.means[:, None] ** np.array([1, 2, 5])).mean(axis=1)
    np.testing.assert_allclose(again, ALL.mean(axis=1), atol=1e-12)
    one = curve_data(SCORES, TEACHER, SIZES, scale="per_step", steps=np.ones(60))
    np.testing.assert_allclose(one.means, ALL.mean(axis=1))


def test_log_probabilities_have_no_floor_and_spread_by_the_missing_probability():
    data = curve_data(np.log(0.2 + 0.6 * SCORES), np.log(0.2 + 0.6 * TEACHER), SIZES, scale="log_probability")
    np.testing.assert_allclose(data.spread[1:], 1 - np.exp(data.means[1:-1]))
    assert data.bounds.low == -np.inf


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sizes": [0, 1, 2]}, "shapes"),
        ({"sizes": [0, 1, 2, 3, -1]}, "zero or more"),
        ({"sizes": [0, 1, 2, 3, np.nan]}, "number of examples"),
        ({"scores": SCORES + 1}, r"lie in \[0, 1\]"),
        ({"scale": "acuracy"}, "Did you mean 'accuracy'"),
        ({"scale": "per_step"}, "give steps"),
        ({"scale": "per_step", "steps": np.zeros(60)}, "at least one step"),
        ({"scale": "log_probability"}, "lie in"),
        ({"seeds": ["a"]}, "5 students need as many"),
        ({"chance": [0.1, 0.2]}, "chance"),
        ({"tasks": ["a"]}, "60 items need as many"),
        ({"tasks": ["a"] * 60, "weights": np.ones(60)}, "not both"),
        ({"weights": np.zeros(60)}, "not all zero"),
        ({"nested": 2.0}, "between 0 and 1"),
        ({"scores": np.where(np.arange(5)[:, None] == 3, np.nan, SCORES)}, "student 3"),
        ({"teacher": np.full(60, np.nan)}, "the teacher has no finite score"),
        ({"scores": np.where(np.arange(60) < 30, [[np.nan]] + [[1.0]] * 4, [[1.0]] + [[np.nan]] * 4)}, "no item"),
    ],
)
def test_what_cannot_be_meant_is_an_error_that_says_so(change, message):
    arguments = {"scores": SCORES, "teacher": TEACHER, "sizes": SIZES} | change
    with pytest.raises(EstimationError, match=message):
        curve_data(**arguments)
