import math

import pytest

from capgap.classification import AskedModel
from capgap.classification.behaviour_links import LINKS, estimate_to_evidence
from capgap.stats import Estimate, refused


def estimate(x: float, low: float = math.nan, high: float = math.nan) -> Estimate:
    return Estimate(estimate=x, conf_low=low, conf_high=high)


@pytest.mark.parametrize("name", LINKS)
def test_the_middle_speaks_for_neither_and_no_value_is_proof(name: str) -> None:
    link = LINKS[name]
    assert link(link.midpoint) == 0
    assert link(1e9) == -link(-1e9)
    assert abs(link(1e9)) == link.cap <= 3
    assert link.link_sd >= 1


@pytest.mark.parametrize("name", LINKS)
def test_a_behaviour_counts_more_the_further_it_lies_from_the_middle(name: str) -> None:
    link = LINKS[name]
    sign = math.copysign(1, link.slope)
    values = [sign * link(link.midpoint + d) for d in (-0.2, -0.05, 0.0, 0.05, 0.2)]
    assert values == sorted(values)
    assert values[0] < values[-1]


def test_evidence_worked_out_by_hand() -> None:
    found = estimate_to_evidence("entropy", estimate(0.3, 0.25, 0.35), (AskedModel("a"), AskedModel("b")))
    assert found is not None
    assert found.logit == pytest.approx(4 * (0.3 - 0.5))
    # the interval seen through the link is 0.4 wide
    assert found.sd == pytest.approx(math.hypot(0.4 / (2 * 1.959964), 1.0))
    assert found.reasons[0].words == "without thoughts 30 % [25, 35] undecided where it is right with them (a, b)"
    assert found.reasons[0].weight == found.logit
    assert [m.name for m in found.models] == ["a", "b"]


@pytest.mark.parametrize("ends", [[(0.15, 0.25), (0.0, 0.4), ()], [(0.15, 0.25), (0.15, math.inf), ()]])
def test_a_wider_interval_is_less_certain_and_unknown_ends_least(ends: list[tuple[float, ...]]) -> None:
    found = [estimate_to_evidence("steps", estimate(0.2, *one), ()) for one in ends]
    sds = [one.sd for one in found if one is not None]
    assert sds[0] < sds[1] < sds[2]
    assert sds[2] == pytest.approx(math.hypot(2 * 3 / (2 * 1.959964), 1.0))


def test_what_was_refused_is_no_evidence() -> None:
    assert estimate_to_evidence("steps", refused("no room"), ()) is None
    assert estimate_to_evidence("steps", estimate(math.nan), ()) is None


# Accuracy without and with a chain of thought on the subjects of MMLU-Pro, from its data card (arXiv 2406.01574).
GPT_4O = {
    "biology": (0.8102, 0.8504),
    "business": (0.392, 0.7852),
    "chemistry": (0.3447, 0.7428),
    "computer science": (0.5813, 0.7512),
    "economics": (0.6899, 0.784),
    "engineering": (0.3981, 0.5401),
    "health": (0.6933, 0.7152),
    "history": (0.6949, 0.6718),
    "law": (0.542, 0.5393),
    "mathematics": (0.3427, 0.762),
    "philosophy": (0.6614, 0.6947),
    "physics": (0.3971, 0.7355),
    "psychology": (0.7628, 0.7726),
}
GPT_4_TURBO = {
    "biology": (0.7825, 0.8186),
    "business": (0.353, 0.6621),
    "chemistry": (0.308, 0.6325),
    "computer science": (0.5526, 0.6914),
    "economics": (0.6365, 0.7329),
    "engineering": (0.3292, 0.3591),
    "health": (0.6485, 0.6824),
    "history": (0.6231, 0.6462),
    "law": (0.4813, 0.492),
    "mathematics": (0.2623, 0.6455),
    "philosophy": (0.589, 0.6047),
    "physics": (0.3582, 0.5488),
    "psychology": (0.7323, 0.7433),
}
RECALLED = ("health", "history", "law", "philosophy", "psychology")
WORKED_OUT = ("business", "chemistry", "computer science", "mathematics", "physics")


@pytest.mark.parametrize("table", [GPT_4O, GPT_4_TURBO], ids=["gpt-4o", "gpt-4-turbo"])
def test_steps_tell_recalled_from_computed_subjects_in_published_accuracies(
    table: dict[str, tuple[float, float]],
) -> None:
    said = {name: LINKS["steps"]((thinking - without) / (1 - without)) for name, (without, thinking) in table.items()}
    assert all(said[name] <= -1 for name in RECALLED)
    assert all(said[name] >= 0.9 for name in WORKED_OUT)
    between = [said[name] for name in ("biology", "economics", "engineering")]
    assert all(max(said[n] for n in RECALLED) - 0.6 < logit < 2 for logit in between)
