"""Alternative estimators of the difference of two capabilities' effects, as a sensitivity analysis of the mixed model.

Least squares of each student's own gap (two-stage), and jackknives over students and over tasks. All in score points,
as average marginal effects are, so that they answer one question.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError

from capgap.schema.remarks import Reason, Remark, remark
from capgap.stats.estimate import Estimate, RemarkedResult, refused, t_estimate
from capgap.stats.mixed.coding import design_matrix
from capgap.stats.mixed.formula import FormulaFactor
from capgap.stats.mixed.inference import FixedEffectsInference
from capgap.stats.mixed.margins import MarginalEffect
from capgap.stats.mixed.model import MixedModel
from capgap.stats.mixed.outcomes import find_first_rows
from capgap.stats.mixed.terms import TOLERANCE, Population, rank, residualise

Floats = NDArray[np.float64]
_Estimator = Literal["mixed_model", "two_stage", "student_jackknife", "task_jackknife", "link_with_chance"]
_Verdict = Literal["agree", "differ_in_certainty", "disagree", "not_judged"]
_GAP_INTERCEPT_NAME = "(gap at the average student)"
"""The intercept of the two-stage regression."""


@dataclass(frozen=True)
class EffectByEstimator:
    """One effect by one estimator."""

    estimator: _Estimator
    """A code of `schema.columns.ESTIMATORS`."""
    estimate: Estimate
    """In score points; refused, with the reason, where the estimator gives none."""


def adapt_population(estimator: str, population: Population) -> Population:
    """Whom the interval of an estimator is about, where the mixed model's is about `population`.

    The gaps of students and leaving out students see what the tasks happen to be; leaving out tasks sees what the
    students happen to be.
    """
    if estimator in {"two_stage", "student_jackknife"}:
        return population._replace(tasks="these_tasks")
    return population._replace(students="these_checkpoints") if estimator == "task_jackknife" else population


@dataclass(frozen=True)
class EstimatorAgreement(RemarkedResult):
    """Whether the estimators of one difference of capabilities agree; its remark says what the verdict rests on."""

    effect: str
    """As of `MarginalEffect`."""
    where: str
    """Likewise."""
    alternatives: tuple[EffectByEstimator, ...]
    """The mixed model's estimate first."""
    verdict: _Verdict
    """``disagree``: opposite signs of which one is significant, or an estimate outside the mixed model's interval."""


@dataclass(frozen=True)
class Jackknives:
    """How the coefficients move when one student or one task is left out: one Newton step at the fitted variances."""

    student: Floats | Remark
    """Shape (S, p); or why there is none."""
    task: Floats | Remark
    """Shape (K, p); or why there is none: tasks are fixed or cannot be spared."""
    stratum: NDArray[np.intp]
    """Capability of each task, shape (K,)."""


def fit_two_stage(
    model: MixedModel, scale: Literal["score", "logit"], conf_level: float
) -> dict[tuple[str, str], Estimate] | Remark:
    """Each student's gap between capabilities, then least squares on what the formula crosses with capability.

    Parameters
    ----------
    scale
        ``score``: the difference of mean scores, tasks weighing equally; ``logit``: of the logits of pooled counts,
        one half added to each.

    Returns
    -------
    dict
        (effect, difference of capabilities) to its t interval with S - p degrees of freedom; or the reason why not.
    """
    predictors, outcomes = model.predictors, model.outcomes
    if not predictors.compares_capability:
        return remark(Reason.ONE_CAPABILITY)
    nonempty = outcomes.weight > 0
    x, names, terms = design_matrix(predictors)
    crossed_terms = [t for t in predictors.formula.list_crossed_terms(predictors.capability)]
    columns = [j for j, t in enumerate(terms) if t == () or t in crossed_terms]
    demeaned, _ = residualise(x[nonempty][:, columns], outcomes.student[nonempty], np.ones((int(nonempty.sum()), 1)))
    if (np.linalg.norm(demeaned, axis=0) > TOLERANCE * np.linalg.norm(x[nonempty][:, columns], axis=0)).any():
        return remark(Reason.VARIES_WITHIN_STUDENTS)
    # One design row stands for each student: all of its rows are alike in these columns.
    design = x[nonempty][find_first_rows(outcomes.student[nonempty], outcomes.n_students)][:, columns]
    estimates: dict[tuple[str, str], Estimate] = {}
    levels = predictors.capability_covariate.levels
    for level, student_gap in zip(levels[1:], _compute_student_gaps(model, scale), strict=True):
        has_student_gap = np.isfinite(student_gap)
        rows, n, p = design[has_student_gap], int(has_student_gap.sum()), len(columns)
        if n <= p or rank(rows) < p:
            return remark(Reason.TOO_FEW_STUDENTS, n=n, n_coefficients=p)
        gram = np.linalg.inv(rows.T @ rows)
        beta = gram @ (rows.T @ student_gap[has_student_gap])
        residual = student_gap[has_student_gap] - rows @ beta
        error = np.sqrt(float(residual @ residual) / (n - p) * np.diag(gram))
        for k, j in enumerate(columns):
            method = f"two-stage: student gaps in {scale}s, least squares, t"
            key = names[j] if j else _GAP_INTERCEPT_NAME, f"{level} - {levels[0]}"
            estimates[key] = _t_interval(beta[k], error[k], n - p, conf_level, model, method)
    return estimates


def _compute_student_gaps(model: MixedModel, scale: str) -> list[Floats]:
    """Each later capability minus the first for every student, shape (S,); NaN for who lacks either."""
    outcomes, predictors = model.outcomes, model.predictors
    capability_codes = predictors.capability_covariate.values.astype(np.intp)
    s, k = outcomes.n_students, outcomes.n_tasks
    levels = []
    for level in range(len(predictors.capability_covariate.levels)):
        weight = outcomes.weight * (capability_codes == level)
        successes = outcomes.successes * (capability_codes == level)
        cell = outcomes.student * k + outcomes.task
        n, y = (np.bincount(cell, v, s * k).reshape(s, k) for v in (weight, successes))
        if scale == "score":
            # Tasks weigh equally: the mean of the task means that there are.
            share, n_answered = y / np.maximum(n, 1.0), (n > 0).sum(axis=1)
            value = share.sum(axis=1) / np.maximum(n_answered, 1)
        else:
            n_answered, n_right = n.sum(axis=1), y.sum(axis=1)
            value = np.log((n_right + 0.5) / (n_answered - n_right + 0.5))
        levels.append(np.where(n_answered > 0, value, np.nan))
    return [level - levels[0] for level in levels[1:]]


def _t_interval(point: float, error: float, df: float, conf_level: float, model: MixedModel, method: str) -> Estimate:
    basis: Any = {"n_items": model.outcomes.n_items, "n_clusters": model.outcomes.n_students, "method": method}
    if not error > 0 or df < 1:
        return refused(remark(Reason.NO_RESIDUAL), **basis)
    return t_estimate(float(point), float(error), float(df), conf_level, **basis)


def jackknives(model: MixedModel) -> Jackknives:
    """Leave out one student, then one task, each time; the objective must stand at its optimum."""
    laplace, transform, outcomes = model.laplace, model.transform, model.outcomes
    points = laplace.points()
    stratum = np.zeros(outcomes.n_tasks, dtype=np.intp)
    if model.predictors.compares_capability:
        nonempty = outcomes.weight > 0
        stratum[outcomes.task[nonempty]] = model.predictors.capability_covariate.values[nonempty].astype(np.intp)

    def shift(left_out_units: str, steps: Iterator[Floats]) -> Floats | Remark:
        try:
            return np.stack(list(steps)) @ transform.T
        except LinAlgError:
            return remark(Reason.NOT_SPARABLE, groups=left_out_units)

    n_blocks = len(points)
    without_student = (laplace.beta_step(laplace.leave_out_student(points, s)) for s in range(outcomes.n_students))
    without_task = (
        laplace.leave_out_task(k).beta_step([points[j] for j in range(n_blocks) if j != k]) for k in range(n_blocks)
    )
    return Jackknives(
        shift("students", without_student), _no_task_jackknife(model, stratum) or shift("tasks", without_task), stratum
    )


def _no_task_jackknife(model: MixedModel, stratum: NDArray[np.intp]) -> Remark | None:
    """Why no task can be left out; None where each can."""
    if model.plan.population == "these_tasks":
        return remark(Reason.TASKS_NO_SAMPLE)
    if len(model.laplace.kernels) != model.outcomes.n_tasks:
        return remark(Reason.ONE_ITEM_PER_TASK)
    return remark(Reason.ONE_TASK_IN_CAPABILITY) if np.bincount(stratum).min() < 2 else None


def jackknife_estimates(
    contrast: Floats,
    point: float,
    jackknife_shifts: Jackknives,
    inference: FixedEffectsInference,
    model: MixedModel,
    conf_level: float,
) -> tuple[Estimate, Estimate]:
    """Delete-one-student and delete-one-task intervals of a contrast, shape (p,), around `point`.

    Notes
    -----
    Students: ``(S - 1) / S sum (d_s - mean)²``; tasks likewise within each capability, summed. Degrees of freedom are
    the residual rank of the grouping, where the contrast has no information within it; else groups minus strata.
    """
    # Groupings within which the contrast has no information bound its degrees of freedom.
    df_limits = {
        name: residual for name, residual, basis in inference.limits if _leaves_span(contrast, basis, inference.norms)
    }
    counts = np.bincount(jackknife_shifts.stratum)
    results = []
    for kind, leave_one_out_shifts, strata in (
        ("student", jackknife_shifts.student, np.zeros(model.outcomes.n_students, dtype=np.intp)),
        ("task", jackknife_shifts.task, jackknife_shifts.stratum),
    ):
        method = f"delete-one-{kind} jackknife, one Newton step at the fitted variances, t"
        if isinstance(leave_one_out_shifts, Remark):
            results.append(refused(leave_one_out_shifts, method=method))
            continue
        replicates, variance = leave_one_out_shifts @ contrast, 0.0
        for level in np.unique(strata):
            in_stratum = replicates[strata == level]
            variance += (len(in_stratum) - 1) / len(in_stratum) * float(((in_stratum - in_stratum.mean()) ** 2).sum())
        residual_ranks = [r for name, r in df_limits.items() if name.startswith(kind)]
        df = min(residual_ranks, default=(len(replicates) - 1) if kind == "student" else len(replicates) - len(counts))
        results.append(_t_interval(point, math.sqrt(variance), df, conf_level, model, method))
    return results[0], results[1]


def _leaves_span(contrast: Floats, basis: Floats, norms: Floats) -> bool:
    scaled = contrast[: len(norms)] / norms
    return bool(np.linalg.norm(scaled - basis.T @ (basis @ scaled)) > 1e-4 * np.linalg.norm(scaled))


def estimator_agreement(
    model: MixedModel,
    inference: FixedEffectsInference,
    effects: Sequence[MarginalEffect],
    jackknife_shifts: Jackknives,
    link: Mapping[tuple[str, str], Estimate] | Remark | None,
    conf_level: float,
) -> tuple[EstimatorAgreement, ...]:
    """Compare the estimators of every difference of capabilities' average marginal effects.

    `link` holds the effects under a link with chance, or why there are none; None where chance is not in question.
    """
    two_stage_estimates = fit_two_stage(model, "score", conf_level)
    agreements = []
    for margin in effects:
        if not margin.contrast and margin.effect.split("[")[0] != str(FormulaFactor(model.predictors.capability)):
            continue
        key = (margin.effect, margin.where) if margin.contrast else (_GAP_INTERCEPT_NAME, _extract_levels(margin))
        student_jackknife, task_jackknife = jackknife_estimates(
            margin.slope.beta, margin.estimate.estimate, jackknife_shifts, inference, model, conf_level
        )
        alternatives = [
            EffectByEstimator("mixed_model", margin.estimate),
            EffectByEstimator("two_stage", _estimate_or_refusal(two_stage_estimates, key)),
            EffectByEstimator("student_jackknife", student_jackknife),
            EffectByEstimator("task_jackknife", task_jackknife),
        ]
        if link is not None:
            with_chance = _estimate_or_refusal(link, (margin.effect, margin.where))
            alternatives.append(EffectByEstimator("link_with_chance", with_chance))
        verdict, why = _judge_agreement(alternatives)
        agreements.append(EstimatorAgreement(margin.effect, margin.where, tuple(alternatives), verdict, remarks=(why,)))
    return tuple(agreements)


def _estimate_or_refusal(estimates: Mapping[tuple[str, str], Estimate] | Remark, key: tuple[str, str]) -> Estimate:
    """The estimate of an effect, or a refusal where the estimator gave none at all, or not this one."""
    if isinstance(estimates, Remark):
        return refused(estimates)
    return estimates.get(key) or refused(remark(Reason.NO_SUCH_EFFECT))


def _extract_levels(margin: MarginalEffect) -> str:
    return margin.effect.split("[", 1)[1].rstrip("]") if "[" in margin.effect else ""


def _judge_agreement(alternatives: Sequence[EffectByEstimator]) -> tuple[_Verdict, Remark]:
    """Disagree: opposite signs of which one is significant, or an estimate outside the first estimator's interval."""
    ok_estimates = {a.estimator: a.estimate for a in alternatives if a.estimate.status == "ok"}
    if len(ok_estimates) < 2:
        return "not_judged", remark(Reason.ONE_ESTIMATOR)
    first_estimator = next(iter(ok_estimates))
    significant_names = [name for name, e in ok_estimates.items() if e.conf_low > 0 or e.conf_high < 0]
    for name, e in ok_estimates.items():
        for other in significant_names:
            if e.estimate * ok_estimates[other].estimate < 0:
                return "disagree", remark(Reason.OPPOSITE_SIGN, sure=other, other=name)
        if not ok_estimates[first_estimator].conf_low <= e.estimate <= ok_estimates[first_estimator].conf_high:
            return "disagree", remark(Reason.OUTSIDE_INTERVAL, other=name, first=first_estimator)
    nonsignificant = [name for name in ok_estimates if name not in significant_names]
    if significant_names and nonsignificant:
        return "differ_in_certainty", remark(Reason.UNEQUAL_CERTAINTY, sure=significant_names, unsure=nonsignificant)
    return "agree", remark(Reason.ALL_CLEAR_OF_ZERO if significant_names else Reason.NONE_CLEAR_OF_ZERO)
