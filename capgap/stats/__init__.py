"""Estimators: arrays in, frozen results out; no torch. Curves and the mixed model are in their own packages.

Axes: n items, p estimates that share a design, K strata (tasks), G clusters (items that stand or fall together).
"""

from capgap.stats.binary import clopper_pearson_lower, mcnemar_exact, tango_interval, wilson_interval
from capgap.stats.bounds import contrast_bounds, corner_bounds, has_both_signs, score_corners
from capgap.stats.error_types import ERROR_TYPES, error_types, has_reasoning_steps, step_results
from capgap.stats.estimate import Estimate, no_variation_bound, refused
from capgap.stats.failure_odds import failure_regression
from capgap.stats.fidelity import collision_rate, error_inheritance, expected_agreement, fidelity
from capgap.stats.flip_null import answers_per_item, expected_chance_flips
from capgap.stats.flips import flip_counts, flip_list, flips_beyond_seeds
from capgap.stats.means import accuracy, mean_estimate, paired_difference
from capgap.stats.multiple_imputation import apply_rubin, combine_draws, pool_over_labels, sample_labels
from capgap.stats.multiplicity import benjamini_hochberg, change_conf_level, holm, run_tree_test, simes
from capgap.stats.paired import Equivalence, run_equivalence_test, seed_difference
from capgap.stats.patterns import FailurePatterns, PatternName, find_patterns, label_patterns
from capgap.stats.power import GapDesign, size_for_gap, smallest_visible_gap
from capgap.stats.ratios import ratio_difference, ratio_of_means, seed_ratio
from capgap.stats.recipe_contrasts import recipe_contrasts, seed_signal
from capgap.stats.seed_noise import MIN_SEEDS, answer_variance
from capgap.stats.simulated_power import CapabilityAccuracies, closure_difference_power, needed_for_closure_difference
from capgap.stats.stratified import Design, StratifiedMean, cross_covariance, stratified_mean
from capgap.stats.subset_shift import subset_shift

__all__ = [
    "ERROR_TYPES",
    "MIN_SEEDS",
    "CapabilityAccuracies",
    "Design",
    "Equivalence",
    "Estimate",
    "FailurePatterns",
    "GapDesign",
    "PatternName",
    "StratifiedMean",
    "accuracy",
    "answer_variance",
    "answers_per_item",
    "change_conf_level",
    "benjamini_hochberg",
    "closure_difference_power",
    "clopper_pearson_lower",
    "collision_rate",
    "combine_draws",
    "contrast_bounds",
    "corner_bounds",
    "cross_covariance",
    "no_variation_bound",
    "sample_labels",
    "run_equivalence_test",
    "error_inheritance",
    "error_types",
    "has_reasoning_steps",
    "step_results",
    "expected_agreement",
    "expected_chance_flips",
    "failure_regression",
    "fidelity",
    "find_patterns",
    "flip_counts",
    "flip_list",
    "flips_beyond_seeds",
    "has_both_signs",
    "holm",
    "mcnemar_exact",
    "mean_estimate",
    "label_patterns",
    "needed_for_closure_difference",
    "size_for_gap",
    "pool_over_labels",
    "paired_difference",
    "ratio_difference",
    "ratio_of_means",
    "refused",
    "apply_rubin",
    "recipe_contrasts",
    "score_corners",
    "seed_difference",
    "seed_ratio",
    "seed_signal",
    "run_tree_test",
    "simes",
    "smallest_visible_gap",
    "stratified_mean",
    "subset_shift",
    "tango_interval",
    "wilson_interval",
]
