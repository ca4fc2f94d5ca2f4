"""Other roads to the difference of two capabilities' effects, and whether they arrive at the same place.

All in score points, as average marginal effects are, so that they answer one question.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError

from capgap.stats.estimate import Estimate, refused, t_critical, t_p_value
from capgap.stats.mixed.coding import design_matrix
from capgap.stats.mixed.formula import FormulaFactor
from capgap.stats.mixed.inference import FixedEffectsInference
from capgap.stats.mixed.margins import MarginalEffect
from capgap.stats.mixed.model import MixedModel
from capgap.stats.mixed.terms import TOLERANCE, rank, within_groups

__all__ = [
    "EstimatorAgreement",
    "Jackknives",
    "AlternativeEstimate",
    "estimator_agreement",
    "jackknifed",
    "jackknives",
    "population_of",
    "two_stage",
]

Floats = NDArray[np.float64]
Verdict = Literal["agree", "differ in certainty", "disagree", "not judged"]


@dataclass(frozen=True)
class AlternativeEstimate:
    """One way to one effect."""

    road: Literal["mixed model", "two-stage", "student jackknife", "task jackknife", "link with chance"]
    estimate: Estimate


def population_of(road: str, population: str) -> str:
    """Whom the interval of a road is about, where the model's is about `population`, "checkpoints…, tasks…".

    The gaps of students and leaving out students see what the tasks happen to be; leaving out tasks sees what the
    students happen to be.
    """
    who, tasks = population.rsplit(", ", 1)
    if road in {"two-stage", "student jackknife"}:
        return f"{who}, these tasks"
    return f"these checkpoints, {tasks}" if road == "task jackknife" else population


@dataclass(frozen=True)
class EstimatorAgreement:
    """What the roads say of one difference of capabilities, in score points."""

    effect: str
    where: str
    roads: tuple[AlternativeEstimate, ...]
    verdict: Verdict
    reason: str


@dataclass(frozen=True)
class Jackknives:
    """How the coefficients move when one student or one task is left out: one Newton step at the fitted variances."""

    student: Floats | None
    """Shape (S, p); None where it cannot be had."""
    task: Floats | None
    """Shape (K, p); None where tasks are fixed or cannot be spared."""
    student_reason: str
    task_reason: str
    stratum: NDArray[np.intp]
    """Capability of each task."""


def two_stage(
    model: MixedModel, scale: Literal["score", "logit"], conf_level: float
) -> dict[tuple[str, str], Estimate] | str:
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
    coding, outcomes = model.coding, model.outcomes
    if not coding.has_capability:
        return "there is one capability only"
    used = outcomes.weight > 0
    x, names, terms = design_matrix(coding)
    crossed = [t for t in coding.formula.crossed_with(coding.capability)]
    chosen = [j for j, t in enumerate(terms) if t == () or t in crossed]
    inside, _ = within_groups(x[used][:, chosen], outcomes.student[used], np.ones((int(used.sum()), 1)))
    if (np.linalg.norm(inside, axis=0) > TOLERANCE * np.linalg.norm(x[used][:, chosen], axis=0)).any():
        return "a covariate that is crossed with capability varies within students"
    gaps, seen = _student_gaps(model, scale)
    first = np.zeros(outcomes.n_students, dtype=np.intp)
    first[outcomes.student[used][::-1]] = np.flatnonzero(used)[::-1]
    design = x[first][:, chosen]
    found: dict[tuple[str, str], Estimate] = {}
    levels = coding.capability_covariate.levels
    for level, gap, whole in zip(levels[1:], gaps, seen, strict=True):
        rows, n, p = design[whole], int(whole.sum()), len(chosen)
        if n <= p or rank(rows) < p:
            return f"{n} students with both capabilities are too few for {p} coefficients"
        gram = np.linalg.inv(rows.T @ rows)
        beta = gram @ (rows.T @ gap[whole])
        residual = gap[whole] - rows @ beta
        error = np.sqrt(float(residual @ residual) / (n - p) * np.diag(gram))
        for k, j in enumerate(chosen):
            method = f"two-stage: student gaps in {scale}s, least squares, t"
            label = names[j] if j else "(gap at the average student)"
            found[label, f"{level} - {levels[0]}"] = _interval(beta[k], error[k], n - p, conf_level, model, method)
    return found


def _student_gaps(model: MixedModel, scale: str) -> tuple[list[Floats], list[NDArray[np.bool_]]]:
    """Each later capability minus the first for every student, and who has both."""
    outcomes, coding = model.outcomes, model.coding
    codes = coding.capability_covariate.values.astype(np.intp)
    s, k = outcomes.n_students, outcomes.n_tasks
    levels = []
    for level in range(len(coding.capability_covariate.levels)):
        weight = outcomes.weight * (codes == level)
        right = outcomes.right * (codes == level)
        cell = outcomes.student * k + outcomes.task
        n, y = (np.bincount(cell, v, s * k).reshape(s, k) for v in (weight, right))
        if scale == "score":
            share, counted = y / np.maximum(n, 1.0), (n > 0).sum(axis=1)
            value = share.sum(axis=1) / np.maximum(counted, 1)
        else:
            counted, hits = n.sum(axis=1), y.sum(axis=1)
            value = np.log((hits + 0.5) / (counted - hits + 0.5))
        levels.append(np.where(counted > 0, value, np.nan))
    gaps = [level - levels[0] for level in levels[1:]]
    return gaps, [np.isfinite(gap) for gap in gaps]


def _interval(point: float, error: float, df: float, conf_level: float, model: MixedModel, method: str) -> Estimate:
    n_items, n_students = model.outcomes.n_items, model.outcomes.n_students
    if not error > 0 or df < 1:
        return refused(
            "nothing is left to estimate an error from", n_items=n_items, n_clusters=n_students, method=method
        )
    reach = t_critical(df, conf_level) * error
    return Estimate(
        estimate=float(point),
        std_error=float(error),
        df=float(df),
        conf_low=float(point - reach),
        conf_high=float(point + reach),
        p_value=t_p_value(float(point / error), float(df)),
        null_value=0.0,
        n_items=n_items,
        n_clusters=n_students,
        method=method,
    )


def jackknives(model: MixedModel) -> Jackknives:
    """Leave out one student, then one task, each time; the objective must stand at its optimum."""
    laplace, transform, outcomes = model.laplace, model.transform, model.outcomes
    points = laplace.points()
    stratum = np.zeros(outcomes.n_tasks, dtype=np.intp)
    if model.coding.has_capability:
        used = outcomes.weight > 0
        stratum[outcomes.task[used]] = model.coding.capability_covariate.values[used].astype(np.intp)
    student, student_reason = None, ""
    try:
        steps = [laplace.fixed_step(laplace.points_without(points, s)) for s in range(outcomes.n_students)]
        student = np.stack(steps) @ transform.T
    except LinAlgError:
        student_reason = "without one of the students a coefficient cannot be estimated"
    task, task_reason = None, _why_no_tasks(model, stratum)
    if not task_reason:
        try:
            others = range(len(points))
            steps = [
                laplace.without_block(k).fixed_step([points[j] for j in others if j != k]) for k in range(len(points))
            ]
            task = np.stack(steps) @ transform.T
        except LinAlgError:
            task_reason = "without one of the tasks a coefficient cannot be estimated"
    return Jackknives(student, task, student_reason, task_reason, stratum)


def _why_no_tasks(model: MixedModel, stratum: NDArray[np.intp]) -> str:
    if model.plan.population == "these tasks":
        return "numbers are about these tasks, which are no sample to leave one out of"
    if len(model.laplace.kernels) != model.outcomes.n_tasks:
        return "every task has one item: items stand for tasks"
    if np.bincount(stratum).min() < 2:
        return "a capability has one task only"
    return ""


def jackknifed(
    contrast: Floats,
    point: float,
    found: Jackknives,
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
    capped = {
        name: residual for name, residual, basis in inference.limits if _outside(contrast, basis, inference.norms)
    }
    counts = np.bincount(found.stratum)
    results = []
    for kind, moves, reason, strata in (
        ("student", found.student, found.student_reason, np.zeros(model.outcomes.n_students, dtype=np.intp)),
        ("task", found.task, found.task_reason, found.stratum),
    ):
        method = f"delete-one-{kind} jackknife, one Newton step at the fitted variances, t"
        if moves is None:
            results.append(refused(reason, method=method))
            continue
        moved, variance = moves @ contrast, 0.0
        for level in np.unique(strata):
            part = moved[strata == level]
            variance += (len(part) - 1) / len(part) * float(((part - part.mean()) ** 2).sum())
        groups = [r for name, r in capped.items() if name.startswith(kind)]
        df = min(groups, default=(len(moved) - 1) if kind == "student" else len(moved) - len(counts))
        results.append(_interval(point, math.sqrt(variance), df, conf_level, model, method))
    return results[0], results[1]


def _outside(contrast: Floats, basis: Floats, norms: Floats) -> bool:
    scaled = contrast[: len(norms)] / norms
    return bool(np.linalg.norm(scaled - basis.T @ (basis @ scaled)) > 1e-4 * np.linalg.norm(scaled))


def estimator_agreement(
    model: MixedModel,
    inference: FixedEffectsInference,
    effects: Sequence[MarginalEffect],
    found: Jackknives,
    link: Mapping[tuple[str, str], Estimate] | str | None,
    conf_level: float,
) -> tuple[EstimatorAgreement, ...]:
    """Compare the roads to every difference of capabilities' average marginal effects.

    `link` holds the effects under a link with chance, or why there are none; None where chance is not in question.
    """
    staged = two_stage(model, "score", conf_level)
    judged = []
    for margin in effects:
        if not margin.contrast and margin.effect.split("[")[0] != str(FormulaFactor(model.coding.capability)):
            continue
        roads = [AlternativeEstimate("mixed model", margin.estimate)]
        key = (margin.effect, margin.where) if margin.contrast else ("(gap at the average student)", _levels(margin))
        other = staged if isinstance(staged, str) else staged.get(key, "the formula's columns are no such effect")
        roads.append(AlternativeEstimate("two-stage", refused(other) if isinstance(other, str) else other))
        pair = jackknifed(margin.slope.beta, margin.estimate.estimate, found, inference, model, conf_level)
        roads.extend(
            [AlternativeEstimate("student jackknife", pair[0]), AlternativeEstimate("task jackknife", pair[1])]
        )
        if link is not None:
            guessed = refused(link) if isinstance(link, str) else link[margin.effect, margin.where]
            roads.append(AlternativeEstimate("link with chance", guessed))
        verdict, reason = _verdict(roads)
        judged.append(EstimatorAgreement(margin.effect, margin.where, tuple(roads), verdict, reason))
    return tuple(judged)


def _levels(margin: MarginalEffect) -> str:
    return margin.effect.split("[", 1)[1].rstrip("]") if "[" in margin.effect else ""


def _verdict(roads: Sequence[AlternativeEstimate]) -> tuple[Verdict, str]:
    """Disagree: opposite signs of which one is significant, or an estimate outside another road's interval."""
    known = [r for r in roads if r.estimate.status == "ok"]
    if len(known) < 2:
        return "not judged", "fewer than two roads lead there"
    first = known[0]
    sure = [r for r in known if r.estimate.conf_low > 0 or r.estimate.conf_high < 0]
    for road in known:
        for other in sure:
            if road.estimate.estimate * other.estimate.estimate < 0:
                return "disagree", f"{other.road} is clear of zero, {road.road} lies on the other side"
        if not first.estimate.conf_low <= road.estimate.estimate <= first.estimate.conf_high:
            return "disagree", f"{road.road} lies outside the interval of the {first.road}"
    if sure and len(sure) < len(known):
        unsure = [r.road for r in known if r not in sure]
        return "differ in certainty", f"{', '.join(r.road for r in sure)} clear of zero, {', '.join(unsure)} not"
    return "agree", "all clear of zero on one side" if sure else "none is clear of zero"
