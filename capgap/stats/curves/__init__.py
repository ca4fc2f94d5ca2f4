"""Data-efficiency curves: accuracy against unique training examples, and what a target costs in examples."""

from capgap.stats.curves.cost import DataCost, estimate_data_cost
from capgap.stats.curves.data import curve_data
from capgap.stats.curves.fit import CurveFit, fit_curves
from capgap.stats.curves.gain import doubling_rise, next_batch
from capgap.stats.curves.power import AssumedCurve, data_cost_ratio_power
from capgap.stats.curves.profile import CurveTarget
from capgap.stats.curves.relative import relative_data_cost
from capgap.stats.curves.score import expected_score, new_student_score

__all__ = [
    "CurveFit",
    "DataCost",
    "AssumedCurve",
    "CurveTarget",
    "curve_data",
    "estimate_data_cost",
    "data_cost_ratio_power",
    "doubling_rise",
    "expected_score",
    "fit_curves",
    "new_student_score",
    "next_batch",
    "relative_data_cost",
]
