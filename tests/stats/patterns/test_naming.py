import math

import numpy as np
import pytest

from capgap.errors import EstimationError
from capgap.schema.remarks import Reason
from capgap.stats import FailurePatterns, label_patterns
from capgap.stats.patterns.naming import distinctive_words, standardised_differences

ALL = np.ones(6, dtype=bool)


def patterns_of(member):
    return FailurePatterns(np.asarray(member, dtype=float), np.zeros((2, 2)), ("size",), np.array([0.5, 0.5]))


def halves(n):
    inside = (np.arange(n) < n // 2).astype(float)
    return np.column_stack([inside, 1 - inside])


def test_standardised_difference_by_hand():
    # Inside 1, 2, 3, outside 3, 4, 5: means 2 and 4, both variances 2/3.
    found = standardised_differences({"depth": np.array([1.0, 2, 3, 3, 4, 5])}, np.r_[np.ones(3), np.zeros(3)], ALL)
    assert found == [("depth", pytest.approx(-2 / math.sqrt(2 / 3)))]


def test_a_covariate_that_does_not_vary_sets_nothing_apart():
    assert standardised_differences({"same": np.ones(6)}, np.r_[np.ones(3), np.zeros(3)], ALL) == []


def test_log_odds_by_hand():
    # 40 items inside, 40 outside; the word stands in 30 and in 10: its overall share is 1/2.
    texts = [{"carry"} if i < 30 or 40 <= i < 50 else set() for i in range(80)]
    inside = (np.arange(80) < 40).astype(float)
    ((word, z),) = distinctive_words(texts, inside, np.ones(80, dtype=bool))
    a, b = 30 + 5, 10 + 5
    assert word == "carry"
    assert z == pytest.approx(math.log((a / b) / (b / a)) / math.sqrt(2 / a + 2 / b))


def test_rare_and_common_words_name_nothing():
    texts = [{"the", "once"} if i == 0 else {"the"} for i in range(40)]
    assert distinctive_words(texts, (np.arange(40) < 20).astype(float), np.ones(40, dtype=bool)) == []


def test_a_pattern_is_named_by_what_was_planted():
    rng = np.random.default_rng(0)
    n = 200
    member = halves(n)
    inside = member[:, 0] > 0
    scores = (rng.random((30, n)) < np.where(inside, 0.3, 0.8)).astype(float)
    scores[0, :5] = np.nan
    base = (rng.random(n) < 0.7).astype(float)
    texts = ["How many apples?" if i else "Prove that the number is prime." for i in inside]
    depth, form = np.where(inside, 5, 2) + rng.normal(0, 1, n), np.where(inside, "generate", "choose")
    one, two = label_patterns(
        patterns_of(member), scores, base=base, covariates={"depth": depth, "format": form}, texts=texts
    )
    assert one.differences[-1][0] == "depth"
    assert dict(one.differences)["depth"] > 2
    assert one.label.startswith("format = generate")
    assert "format = choose" not in one.label
    assert {"apples", "how", "many"} == {word for word, _ in one.words}
    assert "“prime”" in two.label or "“prove”" in two.label
    failure = 1 - np.nanmean(scores[:, inside])
    assert one.failure == pytest.approx(failure, abs=0.005)
    assert one.excess_over_base.estimate == pytest.approx(failure - (1 - base[inside].mean()), abs=0.005)
    assert one.net_excess.estimate == pytest.approx(one.excess_over_base.estimate - two.excess_over_base.estimate)
    assert one.net_excess.conf_low > 0 > two.net_excess.conf_high
    assert all(inside[i] for i in one.examples)
    assert [row["estimate"] for row in one.tidy()] == [one.excess_over_base.estimate, one.net_excess.estimate]
    assert "\n  pattern - other items, " in one.summary()


def test_the_excess_of_hard_memberships_is_the_welch_interval():
    from scipy import stats

    rng = np.random.default_rng(1)
    n = 400
    member = halves(n)
    y, base = rng.random((30, n)), rng.random(n)
    one, _ = label_patterns(patterns_of(member), y, base=base)
    gap = base - y.mean(axis=0)
    reference = stats.ttest_ind(gap[:200], gap[200:], equal_var=False).confidence_interval(0.95)
    assert (one.net_excess.conf_low, one.net_excess.conf_high) == pytest.approx(tuple(reference), abs=5e-4)


def test_what_is_unknown_is_refused_and_what_disagrees_is_told():
    member = halves(60)
    scores = np.ones((30, 60))
    one, _ = label_patterns(patterns_of(member), scores)
    assert one.net_excess.reason == Reason.NO_BASE_ANSWERS
    assert one.label == "no covariate or word sets it apart"
    nobody = FailurePatterns(np.empty((60, 0)), np.empty((0, 0)), (), np.empty(0), status="refused")
    assert label_patterns(nobody, scores) == []
    for wrong in ({"base": np.ones(5)}, {"texts": ["x"]}, {"covariates": {"depth": [1]}}, {"clusters": [0, 1]}):
        with pytest.raises(EstimationError, match="60 items were grouped"):
            label_patterns(patterns_of(member), scores, **wrong)


def test_hostile_texts_are_read_in_time():
    texts = ["a" * 100_000, "\x00\ud7ff" * 50_000, "שלום" * 25_000, ""] * 15
    assert len(label_patterns(patterns_of(halves(60)), np.ones((30, 60)), texts=texts)) == 2
