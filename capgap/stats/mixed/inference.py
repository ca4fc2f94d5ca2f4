"""REML optimum by L-BFGS, its curvature, and Satterthwaite inference for contrasts of the fixed effects."""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from capgap.schema.remarks import Reason, Remark, remark
from capgap.stats.estimate import Estimate, refused, t_critical, t_p_value
from capgap.stats.mixed.evaluation import ObjectiveEvaluation
from capgap.stats.mixed.laplace import LaplaceLikelihood
from capgap.stats.mixed.model import MixedModel
from capgap.stats.mixed.terms import TOLERANCE

__all__ = ["RemlCurvature", "FixedEffectsInference", "RemlOptimum", "infer", "optimise"]

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

LOWEST, HIGHEST = math.log(0.01), math.log(12.0)
"""Bounds of log sigma, with covariates in units of their spread; a logit of 0.01 is a quarter of a score point."""
AT_ZERO = math.log(0.02)
STARTS = {"item": 1.0, "task": 0.3, "student": 0.25, "student x task": 0.2, "base": 0.25}
STEP = 0.05
"""Of log sigma, for the curvature."""
FLAT = 0.02
"""Distance from the highest point, in standard errors of the log sigmas, that is small enough."""


@dataclass(frozen=True)
class RemlOptimum:
    """The highest point of the objective."""

    theta: Floats
    """Log sigmas, shape (G,)."""
    evaluation: ObjectiveEvaluation
    """The objective there."""
    problem: Remark | None
    """Why the search did not converge; None where it did."""
    n_evaluations: int
    """How often the objective was evaluated with its gradient."""


def optimise(laplace: LaplaceLikelihood, start: Floats, *, held: int | None = None) -> RemlOptimum:
    """L-BFGS in units of each log sigma's approximate standard error, which makes the first steps Newton-like.

    `held` is one variance that stays where it begins.
    """
    if not len(start):
        only = laplace.evaluate(start)
        return RemlOptimum(start, only, None if only.converged else remark(Reason.NOT_CONVERGED), 1)
    first = laplace.evaluate(start)
    known = np.nan_to_num(laplace.layout.sizes - first.trace, nan=1.0).clip(0.0)
    unit = np.sqrt(np.maximum(2 * known**2 / laplace.layout.sizes, 0.25))
    best = [first]

    def negative(x: Floats) -> tuple[float, Floats]:
        here = laplace.evaluate(x / unit)
        if not math.isfinite(here.value):
            return 1e300, np.zeros_like(x)
        if here.value > best[0].value:
            best[0] = here
        return -here.value, -here.gradient / unit

    bounds = [(LOWEST * float(u), HIGHEST * float(u)) for u in unit]
    if held is not None:
        bounds[held] = (float(start[held] * unit[held]), float(start[held] * unit[held]))
    search = minimize(
        negative,
        start * unit,
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"gtol": FLAT / 20, "ftol": 1e-11, "maxiter": 100, "maxcor": 20},
    )
    theta = np.clip(best[0].theta, LOWEST, HIGHEST)
    theta[theta < AT_ZERO] = LOWEST
    last = laplace.evaluate(theta)
    problem = None if last.converged else remark(Reason.NOT_CONVERGED)
    if (theta >= HIGHEST - 1e-3).any():
        problem = remark(Reason.VARIANCE_AT_UPPER_BOUND)
    return RemlOptimum(theta, last, problem, int(search.nfev) + 2)


def polish(laplace: LaplaceLikelihood, optimum: RemlOptimum, curvature: "RemlCurvature") -> RemlOptimum:
    """Newton steps in the variances that are not zero, with the curvature that is known by now."""
    free, best = curvature.free, optimum.evaluation
    for _ in range(3):
        step = curvature.inverse @ best.gradient[free]
        distance = math.sqrt(max(float(step @ best.gradient[free]), 0.0))
        if distance < FLAT / 4:
            break
        theta = best.theta.copy()
        theta[free] = np.clip(theta[free] + step / max(1.0, np.abs(step).max()), LOWEST, HIGHEST)
        trial = laplace.evaluate(theta)
        if not trial.value >= best.value - 1e-4:
            break
        best = trial
    laplace.value(best.theta)
    problem = optimum.problem
    if problem is None and distance > FLAT:
        problem = remark(Reason.SEARCH_STOPPED, distance=distance)
    return replace(optimum, theta=best.theta, evaluation=best, problem=problem)


@dataclass(frozen=True)
class RemlCurvature:
    """Second derivatives by differences of the exact gradient, over the variances that are not zero."""

    free: Ints
    """Indices of those variances, shape (F,)."""
    inverse: Floats
    """Covariance of their log sigmas, shape (F, F)."""
    covariance_slope: Floats
    """How the covariance of the coefficients moves with each log sigma, shape (F, p, p)."""
    beta_slope: Floats
    """How the coefficients move, shape (F, p)."""
    definite: bool
    """Whether the objective curves downwards in every direction."""


def curve(laplace: LaplaceLikelihood, theta: Floats, transform: Floats) -> RemlCurvature:
    """Differences around an optimum; the objective is left at the optimum."""
    free = np.flatnonzero(theta > AT_ZERO)
    f, p = len(free), len(transform)
    hessian, spread, moved = np.zeros((f, f)), np.zeros((f, p, p)), np.zeros((f, p))
    for row, g in enumerate(free):
        ends = [laplace.evaluate(theta + step * np.eye(len(theta))[g]) for step in (STEP, -STEP)]
        hessian[row] = (ends[1].gradient - ends[0].gradient)[free] / (2 * STEP)
        spread[row] = transform @ (ends[0].covariance - ends[1].covariance) @ transform.T / (2 * STEP)
        means = [e.beta + e.shift for e in ends]
        moved[row] = transform @ (means[0] - means[1]) / (2 * STEP)
    values, vectors = np.linalg.eigh((hessian + hessian.T) / 2)
    definite = bool((values > 0).all())
    # A direction that the data hardly see would else get an endless variance; so flat means no information.
    floor = 1e-4 * values.max(initial=0.0) + 1e-3
    inverse = (vectors / np.maximum(values, floor)) @ vectors.T
    return RemlCurvature(free, inverse, spread, moved, definite)


@dataclass(frozen=True)
class FixedEffectsInference:
    """Coefficients, their covariance, and what bounds the degrees of freedom."""

    beta: Floats
    """Bias-corrected, in the formula's units, nuisance columns last; shape (p,)."""
    covariance: Floats
    theta: Floats
    curvature: RemlCurvature
    limits: tuple[tuple[str, int, Floats], ...]
    """Of each grouping: its name, residual rank, and an orthonormal basis of what is estimable within its groups."""
    norms: Floats
    """Lengths of the formula's columns, shape (p of the formula,)."""
    n_items: int
    n_students: int
    likelihood: str = "REML Laplace"
    """What the variances were estimated by."""

    def limit(self, contrast: Floats) -> tuple[float, str]:
        """The smallest residual rank among groupings within which the contrast cannot be estimated, and its name."""
        scaled = contrast[: len(self.norms)] / self.norms
        size, smallest, name = float(np.linalg.norm(scaled)), math.inf, ""
        for label, residual, basis in self.limits:
            # What is left of the contrast outside the span of what can be estimated within the groups.
            outside = scaled - basis.T @ (basis @ scaled)
            if residual < smallest and np.linalg.norm(outside) > 1e-4 * size:
                smallest, name = float(residual), label
        return smallest, name

    def degrees(self, contrast: Floats) -> float:
        """Satterthwaite's degrees of freedom, bounded by `limit`."""
        variance = float(contrast @ self.covariance @ contrast)
        slope = np.einsum("i,fij,j->f", contrast, self.curvature.covariance_slope, contrast)
        spread = float(slope @ self.curvature.inverse @ slope)
        moment = 2 * variance**2 / spread if spread > 0 else math.inf
        return max(1.0, min(moment, self.limit(contrast)[0]))

    def estimate(
        self,
        contrast: Floats,
        *,
        value: float | None = None,
        extra: Floats | None = None,
        conf_level: float,
        null: float = 0.0,
        method: str = "",
    ) -> Estimate:
        """The t interval of a contrast of the coefficients, or of a function whose slope is the contrast.

        Parameters
        ----------
        contrast
            Shape (p,).
        value
            The function's value; the contrast itself by default.
        extra
            How the function moves with each free log sigma, shape (F,); adds their uncertainty.
        """
        variance = float(contrast @ self.covariance @ contrast)
        if not variance > 0:
            return refused(remark(Reason.NO_CONTRAST_VARIANCE))
        df = self.degrees(contrast)
        if extra is not None:
            variance += float(extra @ self.curvature.inverse @ extra)
        point = float(contrast @ self.beta) if value is None else value
        error = math.sqrt(variance)
        reach = t_critical(df, conf_level) * error
        return Estimate(
            estimate=point,
            std_error=error,
            df=df,
            conf_low=point - reach,
            conf_high=point + reach,
            p_value=t_p_value((point - null) / error, df),
            null_value=null,
            n_items=self.n_items,
            n_clusters=self.n_students,
            method=method or f"{self.likelihood}, Satterthwaite t",
        )


def infer(model: MixedModel, optimum: RemlOptimum) -> tuple[RemlOptimum, FixedEffectsInference]:
    """Everything that contrasts need, and the optimum to the last digits."""
    transform = model.transform
    curvature = curve(model.laplace, optimum.theta, transform)
    optimum = polish(model.laplace, optimum, curvature)
    at_optimum = optimum.evaluation
    used = model.outcomes.weight > 0
    norms = np.linalg.norm(model.design[used, : model.n_formula], axis=0)
    limits = []
    for term in model.plan.random:
        if term.within is not None:
            _, values, rows = np.linalg.svd(np.linalg.qr(term.within[used] / norms, mode="r"))
            limits.append((term.name, term.residual, rows[: len(values)][values > TOLERANCE * math.sqrt(len(norms))]))
    return optimum, FixedEffectsInference(
        beta=transform @ (at_optimum.beta + at_optimum.shift),
        covariance=transform @ at_optimum.covariance @ transform.T,
        theta=optimum.theta,
        curvature=curvature,
        limits=tuple(limits),
        likelihood=model.laplace.method,
        norms=norms,
        n_items=model.outcomes.n_items,
        n_students=model.outcomes.n_students,
    )


def starts(model: MixedModel) -> Floats:
    """Log sigmas to begin with; a slope begins lower than an intercept."""
    return np.log([STARTS[t.kind] * (0.5 if " x " in t.name and t.kind == "task" else 1.0) for t in model.plan.random])
