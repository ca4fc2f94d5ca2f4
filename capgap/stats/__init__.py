"""Estimators: arrays in, frozen results out; no torch.

Axes: n items, p estimates that share a design, K strata (tasks), G clusters (items that stand or fall together).
"""

from capgap.stats.binary import mcnemar_exact, tango_interval, wilson_interval
from capgap.stats.bounds import contrast_bounds, corner_bounds, has_both_signs, score_corners
from capgap.stats.curves import (
    CurveData,
    CurveFit,
    CurveTarget,
    DataCost,
    FormDataCost,
    FormFit,
    NextBatch,
    RelativeCost,
    SupposedCurve,
    curve_data,
    data_cost,
    data_cost_ratio_power,
    fit_curves,
    next_batch,
    relative_data_cost,
)
from capgap.stats.error_types import ERROR_TYPES, error_types, is_trace, step_results
from capgap.stats.estimate import FEW_CLUSTERS, Estimate, no_variation_bound, refused
from capgap.stats.failure_odds import FailureRegression, OddsRatio, failure_regression
from capgap.stats.fidelity import ErrorInheritance, collision_rate, error_inheritance, expected_agreement, fidelity
from capgap.stats.flips import FlipList, FlipShares, flip_counts, flip_list, flips_beyond_seeds
from capgap.stats.means import accuracy, mean_estimate, paired_difference
from capgap.stats.mixed import MixedFit, OutcomeGrid, fit_mixed
from capgap.stats.multiple_imputation import PooledEstimate, combine_draws, pool_over_labels, rubin, sample_labels
from capgap.stats.multiplicity import TreeTestResult, benjamini_hochberg, change_conf_level, holm, run_tree_test, simes
from capgap.stats.paired import Equivalence, equivalence, seed_difference
from capgap.stats.patterns import FailurePatterns, PatternName, find_patterns, name_patterns
from capgap.stats.power import GapDesign, RequiredSize, size_for_gap, smallest_visible_gap
from capgap.stats.ratios import ratio_difference, ratio_of_means
from capgap.stats.simulated_power import (
    AssumedAccuracies,
    SimulatedPower,
    closure_difference_power,
    needed_for_closure_difference,
    simulated_power,
)
from capgap.stats.stratified import Design, StratifiedMean, cross_covariance, stratified_mean
from capgap.stats.subset_shift import subset_shift

__all__ = [
    "ERROR_TYPES",
    "FEW_CLUSTERS",
    "AssumedAccuracies",
    "PooledEstimate",
    "CurveData",
    "CurveFit",
    "DataCost",
    "Design",
    "Equivalence",
    "Estimate",
    "FailurePatterns",
    "FailureRegression",
    "FlipList",
    "FlipShares",
    "FormDataCost",
    "FormFit",
    "GapDesign",
    "ErrorInheritance",
    "MixedFit",
    "RequiredSize",
    "NextBatch",
    "OddsRatio",
    "OutcomeGrid",
    "PatternName",
    "RelativeCost",
    "SimulatedPower",
    "StratifiedMean",
    "SupposedCurve",
    "CurveTarget",
    "TreeTestResult",
    "accuracy",
    "change_conf_level",
    "benjamini_hochberg",
    "closure_difference_power",
    "collision_rate",
    "combine_draws",
    "contrast_bounds",
    "corner_bounds",
    "cross_covariance",
    "curve_data",
    "data_cost",
    "data_cost_ratio_power",
    "no_variation_bound",
    "sample_labels",
    "equivalence",
    "error_inheritance",
    "error_types",
    "is_trace",
    "step_results",
    "expected_agreement",
    "failure_regression",
    "fidelity",
    "find_patterns",
    "fit_curves",
    "fit_mixed",
    "flip_counts",
    "flip_list",
    "flips_beyond_seeds",
    "has_both_signs",
    "holm",
    "mcnemar_exact",
    "mean_estimate",
    "name_patterns",
    "needed_for_closure_difference",
    "size_for_gap",
    "next_batch",
    "pool_over_labels",
    "paired_difference",
    "ratio_difference",
    "ratio_of_means",
    "refused",
    "relative_data_cost",
    "rubin",
    "score_corners",
    "seed_difference",
    "run_tree_test",
    "simes",
    "simulated_power",
    "smallest_visible_gap",
    "stratified_mean",
    "subset_shift",
    "tango_interval",
    "wilson_interval",
]
