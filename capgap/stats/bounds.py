"""Bounds of a number whose data are partly unknown: every extreme completion of them, joined with sampling.

An unreadable or missing answer has a score between 0 and 1 that nobody knows. Differences and ratios of means are
monotone in each model's mean, so that over all completions they are extreme where each model's unknown answers are all
wrong or all right: the corners. The bounds reach from the lowest lower end of an interval at any corner to the highest
upper end (Horowitz & Manski 2000 with intervals; conservative).
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from capgap.schema.remarks import Reason, remark
from capgap.stats.estimate import Estimate

__all__ = ["contrast_bounds", "corner_bounds", "has_both_signs", "score_corners"]

Floats = NDArray[np.float64]


def score_corners(extremes: Mapping[str, tuple[Floats, Floats]]) -> Iterator[dict[str, Floats]]:
    """Every combination of each model's unknown answers all wrong or all right.

    Parameters
    ----------
    extremes
        Model or role → its scores with unknown answers wrong, and right, each of shape (n,); where the two are equal
        there is one case.
    """
    cases = [ends[:1] if np.array_equal(*ends) else ends for ends in extremes.values()]
    for corner in itertools.product(*cases):
        yield dict(zip(extremes, corner, strict=True))


def corner_bounds(plain: Estimate, corners: Iterable[Estimate]) -> Estimate:
    """The bounds of a number: its estimate, and the lowest and highest end of its interval at any corner.

    Parameters
    ----------
    plain
        The number as the scores stand, with its interval.
    corners
        The same number at each corner.

    Returns
    -------
    Estimate
        Refused for the reason of `plain`, else of the first corner that is. No p-value: bounds are no test.

    References
    ----------
    Horowitz, J. L. & Manski, C. F. (2000). Nonparametric analysis of randomized experiments with missing covariate and
    outcome data. JASA 95, 77-84.
    """
    estimates = [plain, *corners]
    refusal = next((estimate for estimate in estimates if estimate.status == "refused"), None)
    if refusal is not None:
        return replace(refusal, n_items=plain.n_items, n_clusters=plain.n_clusters)
    points = [estimate.estimate for estimate in estimates]
    ends = [(estimate.conf_low, estimate.conf_high) for estimate in estimates]
    is_open = any(math.isnan(end) for pair in ends for end in pair)
    without_sampling = remark(Reason.BOUNDS_WITHOUT_SAMPLING, low=min(points), high=max(points))
    return Estimate(
        plain.estimate,
        conf_low=math.nan if is_open else min(low for low, _ in ends),
        conf_high=math.nan if is_open else max(high for _, high in ends),
        n_items=plain.n_items,
        n_clusters=plain.n_clusters,
        method="worst cases, " + plain.method,
        status="open" if is_open else "ok",
        remarks=(*(r for r in plain.remarks if is_open and r.code is plain.reason), without_sampling),
    )


def contrast_bounds(plain: Estimate, first: Estimate, second: Estimate, names: tuple[str, str]) -> Estimate:
    """The bounds of first minus second from the bounds of each; wider than a joint treatment, never narrower.

    Parameters
    ----------
    plain
        The difference as the scores stand.
    first, second
        Bounds of the two.
    names
        What the two are called in the reason of a refusal.
    """
    for bounds, name in ((first, names[0]), (second, names[1])):
        if bounds.status == "refused":
            return replace(bounds, n_items=plain.n_items, remarks=tuple(r.of(name) for r in bounds.remarks))
    if plain.status == "refused":
        return plain
    low, high = first.conf_low - second.conf_high, first.conf_high - second.conf_low
    is_open = math.isnan(low) or math.isnan(high)
    return Estimate(
        plain.estimate,
        conf_low=low,
        conf_high=high,
        n_items=plain.n_items,
        n_clusters=plain.n_clusters,
        method="worst cases of both sides",
        status="open" if is_open else "ok",
    )


def has_both_signs(estimate: Estimate) -> bool:
    """Whether an interval or bounds hold zero, or an end of them is not known."""
    return not (estimate.conf_low > 0 or estimate.conf_high < 0)
