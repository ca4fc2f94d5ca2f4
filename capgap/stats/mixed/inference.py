"""REML optimum by L-BFGS, its curvature, and Satterthwaite inference for contrasts of the fixed effects."""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from capgap.schema.remarks import Reason, Remark, remark
from capgap.stats.estimate import Estimate, refused, t_estimate
from capgap.stats.mixed.evaluation import ObjectiveEvaluation
from capgap.stats.mixed.laplace import LaplaceLikelihood
from capgap.stats.mixed.model import MixedModel
from capgap.stats.mixed.terms import TOLERANCE

__all__ = ["RemlCurvature", "FixedEffectsInference", "RemlOptimum", "infer_fixed_effects", "fit_theta"]

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

MIN_THETA, MAX_THETA = math.log(0.01), math.log(12.0)
"""Bounds of log sigma, with covariates in units of their spread; a logit of 0.01 is a quarter of a score point."""
ZERO_THETA = math.log(0.02)
SIGMA_0 = {"item": 1.0, "task": 0.3, "student": 0.25, "student x task": 0.2, "base": 0.25}
LOG_STEP = 0.05
"""Of log sigma, for the curvature."""
OPTIMUM_TOLERANCE = 0.02
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


def fit_theta(laplace: LaplaceLikelihood, start: Floats, *, held_index: int | None = None) -> RemlOptimum:
    """L-BFGS in units of each log sigma's approximate standard error, which makes the first steps Newton-like.

    `held_index` is one variance that stays where it begins.
    """
    if not len(start):
        evaluation = laplace.evaluate(start)
        return RemlOptimum(start, evaluation, None if evaluation.converged else remark(Reason.NOT_CONVERGED))
    start_evaluation = laplace.evaluate(start)
    # Information on log sigma_g is about 2 (n_g - trace)² / n_g: what the data say of the group's effects.
    effective_sizes = np.nan_to_num(laplace.layout.sizes - start_evaluation.trace, nan=1.0).clip(0.0)
    unit = np.sqrt(np.maximum(2 * effective_sizes**2 / laplace.layout.sizes, 0.25))
    best_evaluation = [start_evaluation]

    def negative(x: Floats) -> tuple[float, Floats]:
        trial_evaluation = laplace.evaluate(x / unit)
        if not math.isfinite(trial_evaluation.value):
            return 1e300, np.zeros_like(x)
        if trial_evaluation.value > best_evaluation[0].value:
            best_evaluation[0] = trial_evaluation
        return -trial_evaluation.value, -trial_evaluation.gradient / unit

    bounds = [(MIN_THETA * float(u), MAX_THETA * float(u)) for u in unit]
    if held_index is not None:
        bounds[held_index] = (float(start[held_index] * unit[held_index]), float(start[held_index] * unit[held_index]))
    minimize(
        negative,
        start * unit,
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"gtol": OPTIMUM_TOLERANCE / 20, "ftol": 1e-11, "maxiter": 100, "maxcor": 20},
    )
    # The best point that was seen, not the last; what is all but zero becomes zero, which is a bound.
    theta = np.clip(best_evaluation[0].theta, MIN_THETA, MAX_THETA)
    theta[theta < ZERO_THETA] = MIN_THETA
    final_evaluation = laplace.evaluate(theta)
    problem = None if final_evaluation.converged else remark(Reason.NOT_CONVERGED)
    if (theta >= MAX_THETA - 1e-3).any():
        problem = remark(Reason.VARIANCE_AT_UPPER_BOUND)
    return RemlOptimum(theta, final_evaluation, problem)


def refine_optimum(laplace: LaplaceLikelihood, optimum: RemlOptimum, curvature: "RemlCurvature") -> RemlOptimum:
    """Newton steps in the variances that are not zero, with the curvature that is known by now."""
    free_term_idx, best_evaluation = curvature.free, optimum.evaluation
    for _ in range(3):
        step = curvature.inverse @ best_evaluation.gradient[free_term_idx]
        distance = math.sqrt(max(float(step @ best_evaluation.gradient[free_term_idx]), 0.0))
        if distance < OPTIMUM_TOLERANCE / 4:
            break
        theta = best_evaluation.theta.copy()
        theta[free_term_idx] = np.clip(theta[free_term_idx] + step / max(1.0, np.abs(step).max()), MIN_THETA, MAX_THETA)
        trial = laplace.evaluate(theta)
        # A step that loses more than the curvature's error ends the polishing.
        if not trial.value >= best_evaluation.value - 1e-4:
            break
        best_evaluation = trial
    laplace.value(best_evaluation.theta)  # leaves the objective at this point
    problem = optimum.problem
    if problem is None and distance > OPTIMUM_TOLERANCE:
        problem = remark(Reason.SEARCH_STOPPED, distance=distance)
    return replace(optimum, theta=best_evaluation.theta, evaluation=best_evaluation, problem=problem)


@dataclass(frozen=True)
class RemlCurvature:
    """Second derivatives by differences of the exact gradient, over the variances that are not zero."""

    free: Ints
    """Indices of those variances, shape (F,)."""
    inverse: Floats
    """Covariance of their log sigmas, shape (F, F)."""
    covariance_slope: Floats
    """How the covariance of the coefficients moves with each log sigma, shape (F, p, p)."""
    beta_sigma_slope: Floats
    """How the coefficients move, shape (F, p)."""
    is_concave: bool
    """Whether the objective curves downwards in every direction."""


def curve(laplace: LaplaceLikelihood, theta: Floats, transform: Floats) -> RemlCurvature:
    """Differences around an optimum; the objective is left at the optimum."""
    free_term_idx = np.flatnonzero(theta > ZERO_THETA)
    f, p = len(free_term_idx), len(transform)
    hessian, spread, beta_sigma_slope = np.zeros((f, f)), np.zeros((f, p, p)), np.zeros((f, p))
    for row, g in enumerate(free_term_idx):
        evaluations = [laplace.evaluate(theta + step * np.eye(len(theta))[g]) for step in (LOG_STEP, -LOG_STEP)]
        hessian[row] = (evaluations[1].gradient - evaluations[0].gradient)[free_term_idx] / (2 * LOG_STEP)
        spread[row] = transform @ (evaluations[0].covariance - evaluations[1].covariance) @ transform.T / (2 * LOG_STEP)
        means = [e.beta + e.shift for e in evaluations]
        beta_sigma_slope[row] = transform @ (means[0] - means[1]) / (2 * LOG_STEP)
    values, vectors = np.linalg.eigh((hessian + hessian.T) / 2)
    is_concave = bool((values > 0).all())
    # A direction that the data hardly see would else get an endless variance; so flat means no information.
    min_eigenvalue = 1e-4 * values.max(initial=0.0) + 1e-3
    inverse = (vectors / np.maximum(values, min_eigenvalue)) @ vectors.T
    return RemlCurvature(free_term_idx, inverse, spread, beta_sigma_slope, is_concave)


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
        size, smallest_rank, name = float(np.linalg.norm(scaled)), math.inf, ""
        for label, residual, basis in self.limits:
            # What is left of the contrast outside the span of what can be estimated within the groups.
            outside_span = scaled - basis.T @ (basis @ scaled)
            if residual < smallest_rank and np.linalg.norm(outside_span) > 1e-4 * size:
                smallest_rank, name = float(residual), label
        return smallest_rank, name

    def degrees(self, contrast: Floats) -> float:
        """Satterthwaite's degrees of freedom, bounded by `limit`."""
        variance = float(contrast @ self.covariance @ contrast)
        slope = np.einsum("i,fij,j->f", contrast, self.curvature.covariance_slope, contrast)
        spread = float(slope @ self.curvature.inverse @ slope)
        # Satterthwaite: 2 V² / Var(V), with Var(V) by the delta method from the log sigmas.
        satterthwaite_df = 2 * variance**2 / spread if spread > 0 else math.inf
        return max(1.0, min(satterthwaite_df, self.limit(contrast)[0]))

    def estimate(
        self,
        contrast: Floats,
        *,
        value: float | None = None,
        log_sigma_slope: Floats | None = None,
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
        log_sigma_slope
            How the function moves with each free log sigma, shape (F,); adds their uncertainty.
        """
        variance = float(contrast @ self.covariance @ contrast)
        if not variance > 0:
            return refused(remark(Reason.NO_CONTRAST_VARIANCE))
        df = self.degrees(contrast)
        if log_sigma_slope is not None:
            variance += float(log_sigma_slope @ self.curvature.inverse @ log_sigma_slope)
        point = float(contrast @ self.beta) if value is None else value
        return t_estimate(
            point,
            math.sqrt(variance),
            df,
            conf_level,
            null=null,
            n_items=self.n_items,
            n_clusters=self.n_students,
            method=method or f"{self.likelihood}, Satterthwaite t",
        )


def infer_fixed_effects(model: MixedModel, optimum: RemlOptimum) -> tuple[RemlOptimum, FixedEffectsInference]:
    """Everything that contrasts need, and the optimum to the last digits."""
    transform = model.transform
    curvature = curve(model.laplace, optimum.theta, transform)
    optimum = refine_optimum(model.laplace, optimum, curvature)
    evaluation = optimum.evaluation
    nonempty = model.outcomes.weight > 0
    norms = np.linalg.norm(model.design[nonempty, : model.n_estimated], axis=0)
    limits = []
    for term in model.plan.random:
        if term.within is not None:
            _, values, rows = np.linalg.svd(np.linalg.qr(term.within[nonempty] / norms, mode="r"))
            limits.append((term.name, term.residual, rows[: len(values)][values > TOLERANCE * math.sqrt(len(norms))]))
    return optimum, FixedEffectsInference(
        beta=transform @ (evaluation.beta + evaluation.shift),
        covariance=transform @ evaluation.covariance @ transform.T,
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
    return np.log([SIGMA_0[t.kind] * (0.5 if " x " in t.name and t.kind == "task" else 1.0) for t in model.plan.random])
