"""Estimators: arrays in, frozen results out; no torch.

Axes: n items, p estimates that share a design, K strata (tasks), G clusters (items that stand or fall together).
"""

from capgap.stats.binary import mcnemar_exact, tango_interval, wilson_interval
from capgap.stats.estimate import FEW_CLUSTERS, Estimate, degenerate_reach, refused
from capgap.stats.fidelity import collision_rate, expected_agreement, fidelity
from capgap.stats.means import accuracy, mean_estimate, paired_difference
from capgap.stats.mixed import MixedFit, OutcomeGrid, fit_mixed
from capgap.stats.multiplicity import holm
from capgap.stats.power import smallest_visible_gap
from capgap.stats.ratios import bootstrap_ratio_difference, ratio_difference, ratio_of_means
from capgap.stats.stratified import Design, StratifiedMean, cross_covariance, stratified_mean

__all__ = [
    "FEW_CLUSTERS",
    "Design",
    "Estimate",
    "MixedFit",
    "OutcomeGrid",
    "StratifiedMean",
    "accuracy",
    "bootstrap_ratio_difference",
    "collision_rate",
    "cross_covariance",
    "degenerate_reach",
    "expected_agreement",
    "fidelity",
    "fit_mixed",
    "holm",
    "mcnemar_exact",
    "mean_estimate",
    "paired_difference",
    "ratio_difference",
    "ratio_of_means",
    "refused",
    "smallest_visible_gap",
    "stratified_mean",
    "tango_interval",
    "wilson_interval",
]
