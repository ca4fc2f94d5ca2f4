"""Data-efficiency curves: accuracy against unique training examples, and what a target costs in examples."""

from capgap.stats.curves.cost import DataCost, FormDataCost, data_cost
from capgap.stats.curves.data import CurveData, curve_data
from capgap.stats.curves.fit import CurveFit, FormFit, fit_curves
from capgap.stats.curves.gain import NextBatch, next_batch
from capgap.stats.curves.power import SupposedCurve, data_cost_ratio_power
from capgap.stats.curves.profile import CurveTarget
from capgap.stats.curves.relative import RelativeCost, relative_data_cost

__all__ = [
    "CurveData",
    "CurveFit",
    "DataCost",
    "FormDataCost",
    "FormFit",
    "NextBatch",
    "RelativeCost",
    "SupposedCurve",
    "CurveTarget",
    "curve_data",
    "data_cost",
    "data_cost_ratio_power",
    "fit_curves",
    "next_batch",
    "relative_data_cost",
]
