"""Average marginal effects in score points.

The expected score of a design row integrates over every random effect, ``E expit(x'beta + N(0, v))`` with v their total
variance there, by Gauss-Hermite quadrature. Effects average over the students of a task equally, over the tasks of a
capability equally, and over capabilities equally. A number's effect is the slope of the expected score per unit of the
factor as the formula has it (per unit of log n, say); a category's is the difference to the first level. v is held at
its value at the row. Under a link with chance c the score is ``c + (1 - c) E expit``, and what capabilities differ by
includes that one can be guessed more often. Standard errors are by the delta method, the uncertainty of the variances
included.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from capgap.stats.estimate import Estimate
from capgap.stats.mixed.coding import CodedCovariate, DesignCoding, design_matrix
from capgap.stats.mixed.formula import FormulaFactor
from capgap.stats.mixed.inference import ZERO_THETA, FixedEffectsInference
from capgap.stats.mixed.model import MixedModel

__all__ = ["MarginalEffect", "DeltaMethodSlope", "marginal_effects"]

Floats = NDArray[np.float64]
GAUSS_HERMITE_NODES, GAUSS_HERMITE_WEIGHTS = np.polynomial.hermite_e.hermegauss(41)


@dataclass(frozen=True)
class DeltaMethodSlope:
    """A function of the fit with its derivatives."""

    value: float
    beta: Floats
    """Derivative in the coefficients, shape (p,)."""
    sigma: Floats
    """Total derivative in the free log sigmas, the coefficients moving along; shape (F,)."""

    def subtract_slope(self, other: "DeltaMethodSlope") -> "DeltaMethodSlope":
        """The difference of two functions."""
        return DeltaMethodSlope(self.value - other.value, self.beta - other.beta, self.sigma - other.sigma)


@dataclass(frozen=True)
class MarginalEffect:
    """One average marginal effect."""

    effect: str
    """The factor and, for a category, its levels: ``log(n_examples)``, ``adaptation[lora - full]``."""
    where: str
    """A capability, ``all``, or the difference of two capabilities."""
    estimate: Estimate
    slope: DeltaMethodSlope
    """Its derivatives, which the alternative estimators share."""
    contrast: bool = False
    """Whether it is a difference of capabilities."""


class _Rows:
    """Design rows with their weights and total variances."""

    def __init__(self, model: MixedModel, inference: FixedEffectsInference):
        outcomes = model.outcomes
        self.model, self.inference = model, inference
        self.used = outcomes.weight > 0
        task, student, weight = (x[self.used] for x in (outcomes.task, outcomes.student, outcomes.weight))
        # Students of a task weigh equally whatever they answered, and so do tasks.
        cell = np.unique(task * outcomes.n_students + student, return_inverse=True)[1]
        share = weight / np.bincount(cell, weight)[cell]
        self.weight = share / np.bincount(task, share)[task]
        sigma2 = np.where(inference.theta < ZERO_THETA, 0.0, np.exp(2 * inference.theta))
        # Variance of the linear predictor by random term, shape (rows, G): z' z sigma².
        self.parts = np.column_stack(
            [s2 * np.square(t.columns[self.used]).sum(axis=1) for s2, t in zip(sigma2, model.plan.random, strict=True)]
            or [np.zeros((int(self.used.sum()), 1))]
        )
        self.spread = np.sqrt(self.parts.sum(axis=1))
        self.free = inference.curvature.free
        self.nuisance = model.design[self.used, model.n_estimated :]
        self.score_range = model.score_range[self.used]

    def design(self, predictors: DesignCoding) -> Floats:
        """Estimated and nuisance columns under other covariates."""
        return np.hstack([design_matrix(predictors)[0][self.used][:, self.model.estimated], self.nuisance])

    def moments(self, x: Floats, order: int, score_range: Floats) -> list[Floats]:
        """The expected score at rows of a design, and its derivatives in the linear predictor up to `order`."""
        eta = x @ self.inference.beta
        derivatives = [np.zeros(len(eta)) for _ in range(order + 1)]
        for node, weight in zip(GAUSS_HERMITE_NODES, GAUSS_HERMITE_WEIGHTS / GAUSS_HERMITE_WEIGHTS.sum(), strict=True):
            p = expit(eta + self.spread * node)
            w = p * (1 - p)
            # expit and its first three derivatives.
            for total, value in zip(derivatives, (p, w, w * (1 - 2 * p), w * (1 - 6 * w)), strict=False):
                total += weight * value
        return [1.0 - score_range + score_range * derivatives[0], *(score_range * values for values in derivatives[1:])]

    def slope(self, value: float, beta: Floats, variance: Floats) -> DeltaMethodSlope:
        """Add what the variances do: by themselves (`variance`, per row) and by moving the coefficients."""
        # d v / d log sigma = 2 sigma² z'z; and the coefficients move with the free log sigmas.
        direct_log_sigma_slope = 2 * (variance @ self.parts)[self.free] if len(self.free) else np.zeros(0)
        return DeltaMethodSlope(value, beta, direct_log_sigma_slope + self.inference.curvature.beta_sigma_slope @ beta)

    def difference(
        self, weight: Floats, high: tuple[DesignCoding, Floats], low: tuple[DesignCoding, Floats]
    ) -> DeltaMethodSlope:
        """Expected score under one coding minus that under another, each with what the logit moves of the score."""
        value, beta, variance = 0.0, np.zeros(len(self.inference.beta)), np.zeros(len(weight))
        for sign, (predictors, score_range) in ((1.0, high), (-1.0, low)):
            x = self.design(predictors)
            expected_score, score_slope, score_curvature = self.moments(x, 2, score_range)
            value += sign * float(weight @ expected_score)
            beta += sign * (weight * score_slope) @ x
            # d E expit(eta + N(0, v)) / d v = E expit'' / 2.
            variance += sign * 0.5 * weight * score_curvature
        return self.slope(value, beta, variance)

    def derivative(self, weight: Floats, predictor: FormulaFactor) -> DeltaMethodSlope:
        """The slope of the expected score in a number."""
        x = self.design(self.model.predictors)
        x_at_1, x_at_0 = (self.design(_hold_factor(self.model.predictors, predictor, value)) for value in (1.0, 0.0))
        unit_design_change = x_at_1 - x_at_0
        _, score_slope, score_curvature, third_derivative = self.moments(x, 3, self.score_range)
        # The factor's slope in each row, its interactions included.
        eta_slope = unit_design_change @ self.inference.beta
        beta = (weight * score_slope) @ unit_design_change + (weight * score_curvature * eta_slope) @ x
        return self.slope(float(weight @ (score_slope * eta_slope)), beta, 0.5 * weight * third_derivative * eta_slope)


def marginal_effects(
    model: MixedModel, inference: FixedEffectsInference, conf_level: float
) -> tuple[MarginalEffect, ...]:
    """Every average marginal effect of a fit: by capability, and their differences; of capability itself."""
    rows, predictors = _Rows(model, inference), model.predictors
    margins: list[MarginalEffect] = []
    capability_weights = _weigh_capabilities(rows, predictors)
    for covariate in predictors.covariates.values():
        if covariate.constant or not _has_estimated_columns(model, covariate):
            continue
        if predictors.compares_capability and covariate.factor == FormulaFactor(predictors.capability):
            weight = np.mean([weight for _, weight in capability_weights], axis=0)
            margins.extend(_margin(rows, name, "all", s, conf_level) for name, s in _effects(rows, weight, covariate))
            continue
        capability_effects = [dict(_effects(rows, weight, covariate)) for _, weight in capability_weights]
        for (capability, _), effects in zip(capability_weights, capability_effects, strict=True):
            margins.extend(_margin(rows, name, capability, s, conf_level) for name, s in effects.items())
        if _has_interaction(predictors, covariate):
            for (capability, _), effects in zip(capability_weights[1:], capability_effects[1:], strict=True):
                for name, s in effects.items():
                    effect_difference = s.subtract_slope(capability_effects[0][name])
                    label = f"{capability} - {capability_weights[0][0]}"
                    margins.append(replace(_margin(rows, name, label, effect_difference, conf_level), contrast=True))
    return tuple(margins)


def _margin(rows: _Rows, effect: str, capability: str, slope: DeltaMethodSlope, conf_level: float) -> MarginalEffect:
    method = "average marginal effect, delta method, Satterthwaite t"
    estimate = rows.inference.estimate(
        slope.beta, value=slope.value, log_sigma_slope=slope.sigma, conf_level=conf_level, method=method
    )
    return MarginalEffect(effect, capability, estimate, slope)


def _weigh_capabilities(rows: _Rows, predictors: DesignCoding) -> list[tuple[str, Floats]]:
    """Names and row weights (summing to 1) of each capability, or of everything."""
    if not predictors.compares_capability:
        return [("all", rows.weight / rows.weight.sum())]
    covariate = predictors.capability_covariate
    level_weights = [rows.weight * (covariate.values[rows.used] == j) for j in range(len(covariate.levels))]
    return [(level, w / w.sum()) for level, w in zip(covariate.levels, level_weights, strict=True)]


def _effects(rows: _Rows, weight: Floats, covariate: CodedCovariate) -> Iterator[tuple[str, DeltaMethodSlope]]:
    if not covariate.levels:
        yield covariate.name, rows.derivative(weight, covariate.factor)
        return
    predictors, score_range = rows.model.predictors, [rows.score_range] * len(covariate.levels)
    if predictors.compares_capability and covariate.factor == FormulaFactor(predictors.capability):
        score_range = [np.full(len(weight), w @ rows.score_range) for _, w in _weigh_capabilities(rows, predictors)]
    scenarios = [(_hold_factor(predictors, covariate.factor, j), score_range[j]) for j in range(len(covariate.levels))]
    for level, scenario in zip(covariate.levels[1:], scenarios[1:], strict=True):
        yield f"{covariate.name}[{level} - {covariate.levels[0]}]", rows.difference(weight, scenario, scenarios[0])


def _has_interaction(predictors: DesignCoding, covariate: CodedCovariate) -> bool:
    if not predictors.compares_capability:
        return False
    return any(covariate.factor in term for term in predictors.formula.list_crossed_terms(predictors.capability))


def _has_estimated_columns(model: MixedModel, covariate: CodedCovariate) -> bool:
    """Whether the covariate's own columns are all estimated."""
    columns = [j for j, term in enumerate(model.terms) if term == (covariate.factor,)]
    return bool(np.isin(columns, model.estimated).all())


def _hold_factor(predictors: DesignCoding, predictor: FormulaFactor, value: float) -> DesignCoding:
    """The coding with one factor at the same number, or code of a level, in all rows."""
    values = np.full(predictors.rows, float(value))
    covariates = {f: replace(c, values=values) if f == predictor else c for f, c in predictors.covariates.items()}
    return replace(predictors, covariates=covariates)
