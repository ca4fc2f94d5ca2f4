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
from capgap.stats.mixed.inference import AT_ZERO, FixedEffectsInference
from capgap.stats.mixed.model import MixedModel

__all__ = ["MarginalEffect", "DeltaMethodSlope", "marginal_effects"]

Floats = NDArray[np.float64]
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(41)


@dataclass(frozen=True)
class DeltaMethodSlope:
    """A function of the fit with its derivatives."""

    value: float
    beta: Floats
    """Derivative in the coefficients, shape (p,)."""
    sigma: Floats
    """Total derivative in the free log sigmas, the coefficients moving along; shape (F,)."""

    def minus(self, other: "DeltaMethodSlope") -> "DeltaMethodSlope":
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
        cell = np.unique(task * outcomes.n_students + student, return_inverse=True)[1]
        share = weight / np.bincount(cell, weight)[cell]
        self.weight = share / np.bincount(task, share)[task]
        sigma2 = np.where(inference.theta < AT_ZERO, 0.0, np.exp(2 * inference.theta))
        self.parts = np.column_stack(
            [s2 * np.square(t.columns[self.used]).sum(axis=1) for s2, t in zip(sigma2, model.plan.random, strict=True)]
            or [np.zeros((int(self.used.sum()), 1))]
        )
        self.spread = np.sqrt(self.parts.sum(axis=1))
        self.free = inference.curvature.free
        self.nuisance = model.design[self.used, model.n_formula :]
        self.above = model.above[self.used]

    def design(self, coding: DesignCoding) -> Floats:
        """Estimated and nuisance columns under other covariates."""
        return np.hstack([design_matrix(coding)[0][self.used][:, self.model.estimated], self.nuisance])

    def moments(self, x: Floats, order: int, above: Floats) -> list[Floats]:
        """The expected score at rows of a design, and its derivatives in the linear predictor up to `order`."""
        eta = x @ self.inference.beta
        derivatives = [np.zeros(len(eta)) for _ in range(order + 1)]
        for node, weight in zip(NODES, WEIGHTS / WEIGHTS.sum(), strict=True):
            p = expit(eta + self.spread * node)
            w = p * (1 - p)
            # expit and its first three derivatives.
            for total, value in zip(derivatives, (p, w, w * (1 - 2 * p), w * (1 - 6 * w)), strict=False):
                total += weight * value
        return [1.0 - above + above * derivatives[0], *(above * values for values in derivatives[1:])]

    def slope(self, value: float, beta: Floats, variance: Floats) -> DeltaMethodSlope:
        """Add what the variances do: by themselves (`variance`, per row) and by moving the coefficients."""
        direct = 2 * (variance @ self.parts)[self.free] if len(self.free) else np.zeros(0)
        return DeltaMethodSlope(value, beta, direct + self.inference.curvature.beta_slope @ beta)

    def difference(
        self, weight: Floats, high: tuple[DesignCoding, Floats], low: tuple[DesignCoding, Floats]
    ) -> DeltaMethodSlope:
        """Expected score under one coding minus that under another, each with what the logit moves of the score."""
        value, beta, variance = 0.0, np.zeros(len(self.inference.beta)), np.zeros(len(weight))
        for sign, (coding, above) in ((1.0, high), (-1.0, low)):
            x = self.design(coding)
            m0, m1, m2 = self.moments(x, 2, above)
            value += sign * float(weight @ m0)
            beta += sign * (weight * m1) @ x
            variance += sign * 0.5 * weight * m2
        return self.slope(value, beta, variance)

    def derivative(self, weight: Floats, factor: FormulaFactor) -> DeltaMethodSlope:
        """The slope of the expected score in a number."""
        x = self.design(self.model.coding)
        per_unit = self.design(_per_unit(self.model.coding, factor)) - self.design(_zeroed(self.model.coding, factor))
        _, m1, m2, m3 = self.moments(x, 3, self.above)
        along = per_unit @ self.inference.beta
        beta = (weight * m1) @ per_unit + (weight * m2 * along) @ x
        return self.slope(float(weight @ (m1 * along)), beta, 0.5 * weight * m3 * along)


def marginal_effects(
    model: MixedModel, inference: FixedEffectsInference, conf_level: float
) -> tuple[MarginalEffect, ...]:
    """Every average marginal effect of a fit: by capability, and their differences; of capability itself."""
    rows, coding = _Rows(model, inference), model.coding
    margins: list[MarginalEffect] = []
    groups = _capabilities(rows, coding)
    for covariate in coding.covariates.values():
        if covariate.constant or not _estimated(model, covariate):
            continue
        if coding.has_capability and covariate.factor == FormulaFactor(coding.capability):
            weight = np.mean([weight for _, weight in groups], axis=0)
            margins.extend(_margin(rows, name, "all", s, conf_level) for name, s in _effects(rows, weight, covariate))
            continue
        sets = [dict(_effects(rows, weight, covariate)) for _, weight in groups]
        for (where, _), effects in zip(groups, sets, strict=True):
            margins.extend(_margin(rows, name, where, s, conf_level) for name, s in effects.items())
        if _crossed(coding, covariate):
            for (where, _), effects in zip(groups[1:], sets[1:], strict=True):
                for name, s in effects.items():
                    both = s.minus(sets[0][name])
                    label = f"{where} - {groups[0][0]}"
                    margins.append(replace(_margin(rows, name, label, both, conf_level), contrast=True))
    return tuple(margins)


def _margin(rows: _Rows, effect: str, where: str, slope: DeltaMethodSlope, conf_level: float) -> MarginalEffect:
    method = "average marginal effect, delta method, Satterthwaite t"
    estimate = rows.inference.estimate(
        slope.beta, value=slope.value, extra=slope.sigma, conf_level=conf_level, method=method
    )
    return MarginalEffect(effect, where, estimate, slope)


def _capabilities(rows: _Rows, coding: DesignCoding) -> list[tuple[str, Floats]]:
    """Names and row weights (summing to 1) of each capability, or of everything."""
    if not coding.has_capability:
        return [("all", rows.weight / rows.weight.sum())]
    covariate = coding.capability_covariate
    inside = [rows.weight * (covariate.values[rows.used] == j) for j in range(len(covariate.levels))]
    return [(level, w / w.sum()) for level, w in zip(covariate.levels, inside, strict=True)]


def _effects(rows: _Rows, weight: Floats, covariate: CodedCovariate) -> Iterator[tuple[str, DeltaMethodSlope]]:
    if not covariate.levels:
        yield covariate.name, rows.derivative(weight, covariate.factor)
        return
    coding, above = rows.model.coding, [rows.above] * len(covariate.levels)
    if coding.has_capability and covariate.factor == FormulaFactor(coding.capability):
        above = [np.full(len(weight), w @ rows.above) for _, w in _capabilities(rows, coding)]
    sets = [(_set(coding, covariate, j), above[j]) for j in range(len(covariate.levels))]
    for level, at_level in zip(covariate.levels[1:], sets[1:], strict=True):
        yield f"{covariate.name}[{level} - {covariate.levels[0]}]", rows.difference(weight, at_level, sets[0])


def _crossed(coding: DesignCoding, covariate: CodedCovariate) -> bool:
    if not coding.has_capability:
        return False
    return any(covariate.factor in rest for rest in coding.formula.crossed_with(coding.capability))


def _estimated(model: MixedModel, covariate: CodedCovariate) -> bool:
    """Whether the covariate's own columns are all estimated."""
    columns = [j for j, term in enumerate(model.terms) if term == (covariate.factor,)]
    return bool(np.isin(columns, model.estimated).all())


def _with(coding: DesignCoding, factor: FormulaFactor, values: Floats) -> DesignCoding:
    covariates = {f: replace(c, values=values) if f == factor else c for f, c in coding.covariates.items()}
    return replace(coding, covariates=covariates)


def _set(coding: DesignCoding, covariate: CodedCovariate, level: int) -> DesignCoding:
    return _with(coding, covariate.factor, np.full(coding.rows, float(level)))


def _per_unit(coding: DesignCoding, factor: FormulaFactor) -> DesignCoding:
    return _with(coding, factor, np.ones(coding.rows))


def _zeroed(coding: DesignCoding, factor: FormulaFactor) -> DesignCoding:
    return _with(coding, factor, np.zeros(coding.rows))
