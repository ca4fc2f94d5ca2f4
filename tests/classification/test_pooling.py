import math
from collections.abc import Sequence

import numpy as np
import pytest

from capgap.classification import AskedModel, Evidence, EvidenceReason
from capgap.classification.pooling import ITEM_SD, MIXED_P_RANGE, PRIOR_SD, pool, pool_lone_item, spread
from tests.classification.exact import conditioned


def word(kind: str, logit: float, sd: float, shared: float = 0.5) -> Evidence:
    return Evidence(kind, logit, sd, (EvidenceReason(f"{kind} {logit}", logit),), shared=shared)


def worlds(seed: int) -> tuple[list[Evidence], list[list[Evidence]]]:
    """A random task: words on it and on some of its items."""
    rng = np.random.default_rng(seed)

    def draw(kind: str) -> Evidence:
        return word(kind, float(rng.normal(0, 3)), float(rng.uniform(0.3, 2)), float(rng.uniform(0, 1)))

    task = [draw(str(kind)) for kind in rng.choice(["behaviour", "declared"], size=int(rng.integers(0, 4)))]
    items = [
        [draw(kind) for kind in ("text", "declared") if rng.random() < 0.7] for _ in range(int(rng.integers(1, 9)))
    ]
    return task, items


def test_an_item_alone_is_a_weighted_mean_worked_out_by_hand() -> None:
    label = pool_lone_item([word("text", 1.0, 1.0), word("declared", -3.0, 2.0)])
    # precisions 1, 1/4, and 1/(25 + 1/4) of the prior around zero
    assert label.logit == pytest.approx(0.25 / (1.25 + 4 / 101))
    assert label.sd == pytest.approx((1.25 + 4 / 101) ** -0.5)
    assert label.p == pytest.approx(1 / (1 + math.exp(-label.logit)))
    assert [(r.words, round(r.weight, 4)) for r in label.reasons] == [
        ("text 1.0", round(1 / (1.25 + 4 / 101), 4)),
        ("declared -3.0", round(-0.75 / (1.25 + 4 / 101), 4)),
    ]


def test_a_task_of_one_item_is_that_item_alone() -> None:
    words = [word("text", 1.0, 1.0), word("declared", -3.0, 2.0)]
    found = pool([], [words]).items[0]
    alone = pool_lone_item(words)
    assert (found.logit, found.sd) == pytest.approx((alone.logit, alone.sd))


@pytest.mark.parametrize("seed", range(20))
def test_the_arithmetic_is_that_of_the_whole_joint_normal_distribution(seed: int) -> None:
    task, items = worlds(seed)
    found = pool(task, items)
    mean, sd = conditioned(task, items)
    assert [found.task.logit, *(i.logit for i in found.items)] == pytest.approx(list(mean), abs=1e-6)
    assert [found.task.sd, *(i.sd for i in found.items)] == pytest.approx(list(sd), abs=1e-6)


@pytest.mark.parametrize("seed", range(8))
def test_weights_of_the_reasons_add_up_to_the_log_odds(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("capgap.classification.pooling.N_REASONS", 10_000)
    task, items = worlds(seed)
    found = pool(task, items)
    for label in (found.task, *found.items):
        assert sum(r.weight for r in label.reasons) == pytest.approx(label.logit, abs=1e-9)


def test_many_items_do_not_average_away_an_error_that_they_share() -> None:
    few, many = (pool([], [[word("text", 1.0, 1.2)]] * n).task for n in (1, 4000))
    common = 1.2 * math.sqrt(0.5)
    assert many.sd < few.sd
    assert many.sd == pytest.approx((1 / common**2 + 1 / PRIOR_SD**2) ** -0.5, rel=0.01)
    free = pool([], [[word("text", 1.0, 1.2, shared=0.0)]] * 4000).task
    assert free.sd < 0.03


def test_several_behaviours_share_the_doubt_about_behaviour() -> None:
    one, five = (pool([word("behaviour", 2.0, 1.0)] * n, [[]]).task for n in (1, 5))
    assert five.sd < one.sd
    assert five.sd > math.sqrt(0.5) * 0.95


@pytest.mark.parametrize("seed", range(6))
def test_the_order_of_items_and_words_changes_nothing(seed: int) -> None:
    task, items = worlds(seed)
    found, turned = pool(task, items), pool(task[::-1], [words[::-1] for words in items[::-1]])
    assert found.task.logit == pytest.approx(turned.task.logit)
    assert [i.p for i in found.items] == pytest.approx([i.p for i in turned.items[::-1]])


@pytest.mark.parametrize("seed", range(6))
def test_the_opposite_words_give_the_opposite_probability(seed: int) -> None:
    task, items = worlds(seed)

    def opposite(words: Sequence[Evidence]) -> list[Evidence]:
        return [word(e.kind, -e.logit, e.sd, e.shared) for e in words]

    found, other = pool(task, items), pool(opposite(task), [opposite(words) for words in items])
    assert [i.p for i in found.items] == pytest.approx([1 - i.p for i in other.items])
    assert [i.conf_low for i in found.items] == pytest.approx([1 - i.conf_high for i in other.items])


def test_without_evidence_everything_is_open() -> None:
    for label in (pool([], [[], []]).items[0], pool([], []).task, pool_lone_item([])):
        assert label.p == 0.5
        assert label.conf_low < 0.001
        assert label.conf_high > 0.999
        assert label.capability == "mixed"
        assert label.reasons == ()


def test_an_item_without_words_is_as_its_task_but_less_sure() -> None:
    found = pool([word("behaviour", 3.0, 0.5)], [[]])
    assert found.items[0].logit == pytest.approx(found.task.logit)
    assert found.items[0].sd == pytest.approx(math.hypot(found.task.sd, ITEM_SD))


@pytest.mark.parametrize(
    ("logit", "capability"), [(-3, "knowledge"), (-0.6, "mixed"), (0, "mixed"), (0.6, "mixed"), (3, "reasoning")]
)
def test_the_middle_is_mixed(logit: float, capability: str) -> None:
    assert pytest.approx((1 / 3, 2 / 3)) == MIXED_P_RANGE
    assert pool_lone_item([word("text", logit, 0.1)]).capability == capability


def test_what_is_declared_mixed_stays_mixed_and_says_so() -> None:
    found = pool([word("declared", 0.0, 0.5)], [[word("text", 6.0, 0.3)]]).items[0]
    assert found.p > 0.7
    assert found.capability == "mixed"
    assert found.reasons[0].words == "declared 0.0"


def test_a_reason_without_weight_is_told_where_there_is_no_other() -> None:
    silent = Evidence("text", 0.0, 3.0, (EvidenceReason("hardly a word is known", 0.0),))
    assert [r.words for r in pool_lone_item([silent]).reasons] == ["hardly a word is known"]
    assert [r.words for r in pool([], [[silent]]).items[0].reasons] == ["hardly a word is known"]
    loud = word("declared", 2.0, 1.0)
    assert [r.words for r in pool_lone_item([silent, loud]).reasons] == ["declared 2.0", "hardly a word is known"]


def test_a_label_knows_whose_answers_it_rests_on() -> None:
    witness = AskedModel("m", "abc")
    found = pool([Evidence("behaviour", 1.0, 1.0, models=(witness,))], [[], []])
    assert found.task.models == found.items[0].models == (witness,)


def test_log_odds_beyond_all_bounds_stay_probabilities() -> None:
    for logit in (1e300, -1e300, 50.0):
        for n in (1, 30):
            words = [[word("text", logit * (-1) ** i, 0.0)] for i in range(n)]
            found = pool([word("behaviour", logit, 0.0)], [*words, []])
            for label in (found.task, *found.items, pool_lone_item(words[0])):
                assert 0 <= label.conf_low <= label.p <= label.conf_high <= 1


def test_the_spread_of_items_is_what_their_own_errors_do_not_explain() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 2, size=4000)
    words = [[word("text", float(t + rng.normal(0, 0.6)), 0.6, shared=0.0)] for t in truth]
    assert spread(words) == pytest.approx(2, rel=0.05)
    same = [[word("text", float(rng.normal(0, 0.6)), 0.6, shared=0.0)] for _ in range(4000)]
    assert spread(same) == pytest.approx(ITEM_SD, abs=0.05)
    assert spread(words[:1]) == spread([]) == ITEM_SD
    few = [[word("text", 2.0 * (-1) ** n, 0.6, shared=0.0)] for n in range(4)]
    assert ITEM_SD < spread(few) < 2


def test_a_mixture_of_items_is_not_drawn_together_and_a_uniform_task_is() -> None:
    mixture = [[word("text", 2.0 if n % 2 else -2.0, 1.2)] for n in range(40)]
    assert {label.capability for label in pool([], mixture).items} == {"knowledge", "reasoning"}
    odd = [[word("text", -0.5 if n == 0 else 2.0, 1.2)] for n in range(40)]
    assert pool([], odd).items[0].p > 0.5 > pool_lone_item(odd[0]).p


@pytest.mark.slow
@pytest.mark.parametrize("wide", [ITEM_SD, 2.0])
def test_intervals_of_task_and_items_keep_their_level_under_their_own_model(wide: float) -> None:
    rng = np.random.default_rng(7)
    inside_task, inside_items = [], []
    for _ in range(4000):
        t = rng.normal(0, PRIOR_SD)
        error = {"text": rng.normal(), "behaviour": rng.normal()}
        task = []
        for _ in range(int(rng.integers(0, 4))):
            sd, h = rng.uniform(0.5, 2), rng.uniform(0, 0.9)
            said = t + sd * (math.sqrt(h) * error["behaviour"] + math.sqrt(1 - h) * rng.normal())
            task.append(Evidence("behaviour", said, sd, shared=h))
        truth = t + wide * rng.normal(size=int(rng.integers(12, 60)))
        sd, h = rng.uniform(0.5, 2), rng.uniform(0, 0.9)
        said = truth + sd * (math.sqrt(h) * error["text"] + math.sqrt(1 - h) * rng.normal(size=len(truth)))
        found = pool(task, [[Evidence("text", y, sd, shared=h)] for y in said])
        inside_task.append(found.task.conf_low <= 1 / (1 + math.exp(-t)) <= found.task.conf_high)
        p = 1 / (1 + math.exp(-truth[0]))
        inside_items.append(found.items[0].conf_low <= p <= found.items[0].conf_high)
    for inside in (inside_task, inside_items):
        # four standard errors of 4,000 replicates around 95 %
        assert abs(np.mean(inside) - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 4000)
