"""Shift of a mean by what is missing: the mean of the items that are there minus the mean of all."""

import numpy as np
from numpy.typing import ArrayLike

from capgap.errors import EstimationError
from capgap.stats.estimate import Estimate
from capgap.stats.means import mean_estimate
from capgap.stats.stratified import Design

__all__ = ["subset_shift"]


def subset_shift(scores: ArrayLike, in_subset: ArrayLike, design: Design, *, conf_level: float = 0.95) -> Estimate:
    """The mean score of some items minus that of all, each a weighted sum of stratum means.

    Parameters
    ----------
    scores
        Shape (n,), finite.
    in_subset
        Which items count in the first mean, shape (n,); every stratum with a weight has one.
    design
        Strata, clusters and weights of all the items.
    conf_level
        Of the interval.

    Raises
    ------
    EstimationError
        A stratum with a weight has no item in the subset.

    Notes
    -----
    With q the share of a stratum's items in the subset, m its mean there and a the mean of all, an item's linearised
    value is ``(m - a) + 1{in} (y - m) / q - (y - a)``, whose CR2 variance is that of the shift (items and membership
    drawn together). The number describes; it is no test to rely on: at 5 % missing it sees nothing, at 10,000 items
    everything.
    """
    y, member = np.asarray(scores, dtype=float), np.asarray(in_subset, dtype=bool)
    k = design.stratum
    n_members = np.bincount(k, member, len(design.counts))
    if (n_members[design.weights != 0] == 0).any():
        raise EstimationError("a stratum has no item in the subset.")
    n_members = np.maximum(n_members, 1)
    subset_mean = (np.bincount(k, y * member, len(design.counts)) / n_members)[k]
    mean = (np.bincount(k, y, len(design.counts)) / design.counts)[k]
    share = (n_members / design.counts)[k]
    linearised = (subset_mean - mean) + member * (y - subset_mean) / share - (y - mean)
    return mean_estimate(design.fit(linearised), bounds=(-1.0, 1.0), conf_level=conf_level)
