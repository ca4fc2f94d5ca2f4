import numpy as np
import pytest
from scipy import special, stats

from capgap.errors import EstimationError
from capgap.schema.remarks import Reason
from capgap.stats import Design, flip_counts, flip_list, flips_beyond_seeds, mcnemar_exact, paired_difference
from capgap.stats.flips import _false_flip_probability, _seed_as_base_shares
from tests.stats.flips_fdr import RATES, false_share, size_of_excess


def alone(n):
    return Design.of(np.zeros(n), np.arange(n))


def test_counts_by_hand():
    base, student = [1, 1, 1, 0, 0, 1, np.nan], [0, 0, 1, 1, 0, 1, 1]
    found = flip_counts(base, student, alone(7))
    assert (found.n_lost, found.n_gained) == (2, 1)
    assert (found.lost_share.estimate, found.gained_share.estimate) == pytest.approx((2 / 6, 1 / 6))
    assert found.p_value == mcnemar_exact(2, 1)
    assert found.lost_share.remark_codes == found.gained_share.remark_codes == (Reason.ONE_SEED,)
    assert [row["direction"] for row in found.tidy()] == ["lost", "gained"]
    assert "lost: 0.333 [" in found.summary()


def test_flips_within_numerical_jitter_are_left_out():
    base, student = [1, 1, 1, 0] * 10, [0, 0, 1, 1] * 10
    margins = [2.0, 0.01, 2.0, 2.0] * 10
    found = flip_counts(base, student, alone(40), margins=(np.ones(40), margins), jitter_nats=0.05)
    assert (found.n_lost, found.n_gained) == (10, 10)
    assert found.lost_share.remark_codes == (Reason.ONE_SEED, Reason.JITTER_EXCLUDED)
    assert "10 flips within numerical jitter" in found.lost_share.note
    with pytest.raises(EstimationError, match="margins"):
        flip_counts(base, student, alone(40), jitter_nats=0.05)


def test_lost_and_gained_swap_when_right_and_wrong_do():
    rng = np.random.default_rng(0)
    b, y = rng.integers(0, 2, 80), rng.integers(0, 2, (4, 80))
    one, other = flips_beyond_seeds(b, y, alone(80)), flips_beyond_seeds(1 - b, 1 - y, alone(80))
    assert one.lost_share.estimate == pytest.approx(other.gained_share.estimate)
    assert one.lost_share.conf_low == pytest.approx(other.gained_share.conf_low)


def test_excess_is_the_mean_over_pairs_of_seeds():
    rng = np.random.default_rng(1)
    b, y = rng.integers(0, 2, 30), rng.integers(0, 2, (4, 30))
    pairs = np.mean([y[i] * (1 - y[j]) for i in range(4) for j in range(4) if i != j], axis=0)
    found = flips_beyond_seeds(b, y, alone(30))
    assert found.seed_flip_share == pytest.approx(pairs.mean())
    assert found.lost_share.estimate == pytest.approx((b * (1 - y.mean(axis=0)) - pairs).mean())


def test_the_order_of_seeds_and_items_does_not_count():
    rng = np.random.default_rng(2)
    b, y = rng.integers(0, 2, 60), rng.integers(0, 2, (5, 60))
    i = rng.permutation(60)
    one, other = flips_beyond_seeds(b, y, alone(60)), flips_beyond_seeds(b[i], y[::-1][:, i], alone(60))
    assert one.lost_share.conf_high == pytest.approx(other.lost_share.conf_high)
    b = np.ones(200)
    y = (rng.random((5, 200)) < rng.beta(0.3, 0.3, 200)).astype(float)
    i = rng.permutation(200)
    assert set(flip_list(b, y).items) == set(i[flip_list(b[i], y[:, i]).items])


def test_the_base_as_one_more_seed_shows_no_excess():
    # Binomial standard error at 120 runs: 2 points; the jackknife errs on the wide side.
    assert size_of_excess(5, 120, 0) < 0.05 + 2 * 0.02
    assert size_of_excess(3, 120, 1, seed_sd=0.1) < 0.05 + 2 * 0.02


@pytest.mark.parametrize(("n_seeds", "seed_sd"), [(10, 0.1), (10, 0.3), (5, 0.3)])
def test_a_base_that_is_one_more_seed_is_rarely_called_different_though_seeds_differ_in_level(n_seeds, seed_sd):
    # 10, 35 and 20 % with the base taken as it is.
    assert size_of_excess(n_seeds, 200, 2, seed_sd=seed_sd) < 0.05 + 2 * 0.0155


def test_seeds_in_the_bases_place_lose_what_seeds_lose_against_each_other():
    rng = np.random.default_rng(4)
    y = (rng.random((4, 90)) < 0.6).astype(float)
    design = Design.of(np.repeat([0, 1], [30, 60]), np.arange(90))
    lost, gained = _seed_as_base_shares(y, design).mean(axis=0)
    null = flips_beyond_seeds(y[0], y, design).seed_flip_share
    assert (lost, gained) == pytest.approx((null, null))


def test_real_losses_are_seen_and_listed():
    rng = np.random.default_rng(3)
    base = np.ones(300)
    q = np.where(np.arange(300) < 60, 0.95, 0.03)
    y = (rng.random((6, 300)) >= q).astype(float)
    excess = flips_beyond_seeds(base, y, alone(300))
    assert excess.lost_share.conf_low > 0.1
    found = flip_list(base, y)
    assert (found.n_candidates, found.n_seeds, found.status) == (300, 6, "ok")
    assert np.mean(found.items < 60) > 0.95
    assert len(found.items) >= 55
    assert found.expected_fdr <= 0.1
    assert (np.diff(found.false_flip_probability) >= 0).all()
    assert [row["item"] for row in found.tidy()] == found.items.tolist()
    assert f"{len(found.items)} of 300 items listed from 6 seeds" in found.summary()
    mirrored = flip_list(1 - base, 1 - y, direction="gained")
    assert set(mirrored.items) == set(found.items)


def test_the_posterior_under_a_beta_prior_is_the_closed_form():
    # Rates drawn from a uniform: the posterior after k of 5 is beta(1 + k, 6 - k).
    rng = np.random.default_rng(4)
    flipped = rng.binomial(5, rng.random(200_000))
    exact = special.betainc(1 + np.arange(6), 6 - np.arange(6), 0.5)
    found = _false_flip_probability(flipped, 5)
    assert (found >= exact - 0.02).all()  # the larger of two posteriors
    assert found == pytest.approx(exact, abs=0.06)
    assert stats.beta(6, 1).cdf(0.5) == pytest.approx(exact[5])


@pytest.mark.parametrize("rate", ["uniform", "0.45 or 0.95 (5 %)"])
def test_false_entries_stay_below_ten_percent(rate):
    share, error, _, _ = false_share(rate, 500, 5, 30, 0)
    assert share <= 0.1 + 2 * error


@pytest.mark.slow
@pytest.mark.parametrize("rate", list(RATES))
@pytest.mark.parametrize(("n_items", "n_seeds"), [(200, 5), (1000, 10)])
def test_false_entries_stay_below_ten_percent_in_long_runs(rate, n_items, n_seeds):
    share, error, _, _ = false_share(rate, n_items, n_seeds, 300, 1)
    assert share <= 0.1 + 2 * error


def test_too_little_is_refused_with_the_reason():
    y = np.ones((4, 100))
    few = flip_list(np.ones(100), y)
    assert (few.status, few.reason, few.tidy()) == ("refused", Reason.FEW_SEEDS, [])
    assert "4 training seeds are too few" in few.summary()
    assert flip_list(np.ones(49), np.ones((5, 49))).reason == Reason.FEW_CANDIDATES
    assert "0 items could have been gained" in flip_list(np.ones(99), np.ones((5, 99)), direction="gained").note
    assert flips_beyond_seeds(np.ones(9), np.ones((2, 9)), alone(9)).lost_share.reason == Reason.FEW_SEEDS
    none = [
        flips_beyond_seeds(np.full(9, np.nan), np.ones((3, 9)), alone(9)),
        flip_counts(np.full(9, np.nan), np.ones(9), alone(9)),
    ]
    assert {share.reason for flips in none for share in (flips.lost_share, flips.gained_share)} == {
        Reason.NO_COMMON_ITEMS
    }
    assert "refused" in none[0].summary()


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_students_that_never_differ_have_an_interval_and_an_empty_or_full_list(value):
    base, y = np.ones(100), np.full((5, 100), value)
    found = flips_beyond_seeds(base, y, alone(100))
    assert found.lost_share.estimate == 1 - value
    assert found.lost_share.conf_high > found.lost_share.conf_low
    assert len(flip_list(base, y).items) == (0 if value else 100)


def test_other_scores_are_told():
    with pytest.raises(EstimationError, match="right"):
        flip_counts([0.5, 1], [1, 1], alone(2))
    with pytest.raises(EstimationError, match="direction"):
        flip_list(np.ones(60), np.ones((5, 60)), direction="up")
    with pytest.raises(EstimationError, match="shape"):
        flips_beyond_seeds(np.ones(3), np.ones(3), alone(3))


def test_items_of_one_passage_are_not_counted_one_by_one_in_the_test():
    cluster = np.repeat(np.arange(8), 10)
    base, student = np.ones(80), np.ones(80)
    base[cluster == 0], student[cluster < 4] = 0, 0
    student[cluster == 0] = 1
    found = flip_counts(base, student, Design.of(np.zeros(80), cluster))
    assert (found.n_lost, found.n_gained) == (30, 10)
    assert mcnemar_exact(30, 10) < 0.01
    assert found.p_value == pytest.approx(paired_difference(base - student, Design.of(np.zeros(80), cluster)).p_value)
    assert found.p_value > 0.2
