import math

import pytest

from capgap.classify import Witness
from capgap.classify.links import LINKS, linked
from capgap.stats import Estimate, refused


def estimate(x: float, low: float = math.nan, high: float = math.nan) -> Estimate:
    return Estimate(estimate=x, conf_low=low, conf_high=high)


@pytest.mark.parametrize("name", LINKS)
def test_the_middle_speaks_for_neither_and_no_value_is_proof(name: str) -> None:
    link = LINKS[name]
    assert link(link.middle) == 0
    assert link(1e9) == -link(-1e9)
    assert abs(link(1e9)) == link.cap <= 3
    assert link.doubt >= 1


@pytest.mark.parametrize("name", LINKS)
def test_a_behaviour_counts_more_the_further_it_lies_from_the_middle(name: str) -> None:
    link = LINKS[name]
    sign = math.copysign(1, link.slope)
    values = [sign * link(link.middle + d) for d in (-0.2, -0.05, 0.0, 0.05, 0.2)]
    assert values == sorted(values)
    assert values[0] < values[-1]


def test_evidence_worked_out_by_hand() -> None:
    found = linked("entropy", estimate(0.3, 0.25, 0.35), (Witness("a"), Witness("b")))
    assert found is not None
    assert found.logit == pytest.approx(4 * (0.3 - 0.5))
    # the interval seen through the link is 0.4 wide
    assert found.sd == pytest.approx(math.hypot(0.4 / (2 * 1.959964), 1.0))
    assert found.reasons[0].words == "without thoughts 30 % [25, 35] undecided where it is right with them (a, b)"
    assert found.reasons[0].weight == found.logit
    assert [m.name for m in found.models] == ["a", "b"]


@pytest.mark.parametrize("ends", [[(0.15, 0.25), (0.0, 0.4), ()], [(0.15, 0.25), (0.15, math.inf), ()]])
def test_a_wider_interval_is_less_certain_and_unknown_ends_least(ends: list[tuple[float, ...]]) -> None:
    found = [linked("steps", estimate(0.2, *one), ()) for one in ends]
    sds = [one.sd for one in found if one is not None]
    assert sds[0] < sds[1] < sds[2]
    assert sds[2] == pytest.approx(math.hypot(2 * 3 / (2 * 1.959964), 1.0))


def test_what_was_refused_is_no_evidence() -> None:
    assert linked("steps", refused("no room"), ()) is None
    assert linked("steps", estimate(math.nan), ()) is None
