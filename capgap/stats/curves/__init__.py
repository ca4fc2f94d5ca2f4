"""Data-efficiency curves: accuracy against unique training examples, and what a target costs in examples."""

from capgap.stats.curves.cost import DataCost, FormDataCost, data_cost
from capgap.stats.curves.data import CurveData, curve_data
from capgap.stats.curves.fit import CurveFit, FormFit, fit_curves
from capgap.stats.curves.gain import DoublingRise, NextBatch, doubling_rise, next_batch
from capgap.stats.curves.power import SupposedCurve, data_cost_ratio_power
from capgap.stats.curves.profile import CurveTarget
from capgap.stats.curves.relative import RelativeCost, relative_data_cost
from capgap.stats.curves.score import ScoreAtSize, expected_score, new_student_score

__all__ = [
    "CurveData",
    "CurveFit",
    "DataCost",
    "DoublingRise",
    "FormDataCost",
    "FormFit",
    "NextBatch",
    "RelativeCost",
    "ScoreAtSize",
    "SupposedCurve",
    "CurveTarget",
    "curve_data",
    "data_cost",
    "data_cost_ratio_power",
    "doubling_rise",
    "expected_score",
    "fit_curves",
    "new_student_score",
    "next_batch",
    "relative_data_cost",
]
