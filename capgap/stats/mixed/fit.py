"""`fit_mixed`: from a formula and data to the fit of a crossed mixed-effects logistic regression."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from capgap.errors import EstimationError
from capgap.schema.remarks import Reason, Remark, remark
from capgap.stats.estimate import Estimate, refused
from capgap.stats.mixed.alternative_estimators import EstimatorAgreement, estimator_agreement, fit_two_stage, jackknives
from capgap.stats.mixed.chance import chance_refusal
from capgap.stats.mixed.checks import list_model_cautions, outcomes_refusal, separation_refusal
from capgap.stats.mixed.coding import DesignCoding, code_covariates
from capgap.stats.mixed.deviations import standard_deviations
from capgap.stats.mixed.formula import Formula, parse_formula
from capgap.stats.mixed.inference import RemlOptimum, fit_theta, infer_fixed_effects, starts
from capgap.stats.mixed.margins import marginal_effects as average_effects
from capgap.stats.mixed.model import MixedModel, build_model
from capgap.stats.mixed.outcomes import FitOutcomes, NotEstimable, OutcomeGrid, Path, convert_columns, convert_grid
from capgap.stats.mixed.result import MixedFit
from capgap.stats.mixed.terms import Population, StudentPopulation

__all__ = ["fit_mixed"]

LinkFunction = Literal["logit", "chance"]

MAX_CHANCE_OUTCOMES = 200_000
"""Outcomes up to which the link with chance is tried unasked: it takes several times as long as the plain logit."""


def fit_mixed(
    formula: str,
    data: Mapping[str, ArrayLike] | pd.DataFrame | OutcomeGrid,
    *,
    student: str = "student",
    item: str = "item",
    task: str = "task",
    capability: str = "capability",
    base: str = "base",
    trials: str | None = None,
    chance: str | None = None,
    link: LinkFunction = "logit",
    tasks: Literal["auto", "these", "like these"] = "auto",
    task_slopes: bool = True,
    restricted: bool = True,
    path: Path = "auto",
    margins: bool | None = None,
    alternatives: bool = True,
    conf_level: float = 0.95,
) -> MixedFit:
    """Fit a crossed mixed-effects logistic regression by its Laplace likelihood, restricted by default.

    Parameters
    ----------
    formula
        Such as ``score ~ capability * (log(n_examples) + adaptation) + format``. Names, ``log``, numbers and formula
        operators only; nothing in it is run. Numbers are centred at the mean over students, categories are coded
        ``1{level} - 1/L`` against the first level in sorted order, so that ``capability[reasoning - knowledge]`` is the
        difference at the average student and an interaction is the difference of two slopes.
    data
        Columns of equal length, one row for each outcome, or an `OutcomeGrid`. Scores are 0 or 1, or shares of
        `trials`.
    student, item, task, capability, base, trials
        Names of columns. Without a task column all items are one task; without a base column no bases are known.
    chance
        The column that says what guessing gives on each item, from 0 to below 1; an `OutcomeGrid` has its own. Where it
        is known and above zero, the link with chance is one of the `alternatives`.
    link
        ``logit``, or ``chance``: p = c + (1 - c) expit eta, c the chance, refused where a student lies significantly
        below it in a task.
    tasks
        Whether tasks are a sample of tasks (random effects; numbers are about tasks like these) or all there are (fixed
        effects; numbers are about these tasks). ``auto``: a sample where every capability has six or more.
    task_slopes
        Whether tasks have slopes of their own; without them the model claims too much where they have. For comparisons.
    restricted
        Whether variances are estimated by restricted likelihood (REML). The full likelihood makes them too small with
        few students or tasks; it is what most packages have, and what two formulas are compared by.
    path
        ``grid`` needs covariates that are constant within student and task; ``sparse`` does not; ``auto`` chooses.
    margins
        Whether to compute average marginal effects; None: where `alternatives` are asked for, which rest on them.
    alternatives
        Whether to compute the alternative estimators: the two-stage estimate, both jackknives and their agreement.
    conf_level
        Of all intervals.

    Returns
    -------
    MixedFit
        Refused, with the reason, where no finite estimate exists or the data hold too little.

    Raises
    ------
    EstimationError
        The formula, a column or an argument is not valid.

    Notes
    -----
    Random terms, each with a variance of its own and independent: item, task, task x every slope that is crossed with
    capability, student, student x capability, student x task, and base and base x capability where students share
    bases; student x slope too, where what is crossed with capability varies within students. What the data cannot
    identify is left out, with the reason. The coefficients are conditional on the random
    effects; `MixedFit.margins` are in score points.

    References
    ----------
    Satterthwaite, F. E. (1946). An approximate distribution of estimates of variance components. Biometrics 2, 110-114.
    Fai, A. H. & Cornelius, P. L. (1996). Approximate F-tests of multiple degree of freedom hypotheses. J. Stat. Comput.
    Simul. 54, 363-378. Bates, D. et al. (2015). Fitting linear mixed-effects models using lme4. J. Stat. Softw. 67(1).
    """
    _check_arguments(tasks, path, link, conf_level)
    parsed = parse_formula(formula)
    names = tuple(dict.fromkeys([*parsed.columns, base]))
    try:
        outcomes = _build_outcomes(parsed, data, names, (student, item, task), (trials, chance), path)
        refusal = outcomes_refusal(outcomes) or (chance_refusal(outcomes) if link == "chance" else None)
        if refusal:
            raise NotEstimable(refusal)
        covariates = {name: v for name, v in outcomes.columns.items() if name in parsed.columns}
        predictors = code_covariates(parsed, covariates, outcomes.weight, outcomes.student, capability)
        request = _FitRequest(predictors, outcomes.columns.get(base), tasks, task_slopes, restricted)
        model = request.model(outcomes, chance=link == "chance")
        estimated = tuple(model.names[j] for j in model.estimated)
        split = separation_refusal(model.design[:, : model.n_estimated], outcomes.successes, outcomes.weight, estimated)
        if split:
            raise NotEstimable(split)
        optimum = fit_theta(model.laplace, starts(model))
        if not math.isfinite(optimum.evaluation.value):
            raise NotEstimable(remark(Reason.NOT_IDENTIFIED))
    except NotEstimable as unfit:
        terms = (":".join(map(str, term)) or "(Intercept)" for term in ((), *parsed.terms))
        coefficients = dict.fromkeys(terms, refused(unfit.remark))
        return MixedFit(formula, "refused", coefficients=coefficients, conf_level=conf_level, remarks=(unfit.remark,))
    fit = _build_fit(parsed, model, optimum, alternatives or bool(margins), conf_level)
    return _compare_estimators(fit, model, request) if alternatives else fit


@dataclass(frozen=True)
class _FitRequest:
    """What a model is built from besides the outcomes."""

    predictors: DesignCoding
    base: NDArray[Any] | None
    tasks: Literal["auto", "these", "like these"]
    task_slopes: bool
    restricted: bool

    def model(self, outcomes: FitOutcomes, *, chance: bool) -> MixedModel:
        return build_model(outcomes, self.predictors, self.base, self.tasks, self.task_slopes, self.restricted, chance)


def _check_arguments(tasks: str, path: str, link: str, conf_level: float) -> None:
    if link not in {"logit", "chance"}:
        raise EstimationError(f"link: expected 'logit' or 'chance', found {link!r}.")
    if tasks not in {"auto", "these", "like these"}:
        raise EstimationError(f"tasks: expected 'auto', 'these' or 'like these', found {tasks!r}.")
    if path not in {"auto", "grid", "sparse"}:
        raise EstimationError(f"path: expected 'auto', 'grid' or 'sparse', found {path!r}.")
    if not 0 < conf_level < 1:
        raise EstimationError(f"conf_level: expected a number between 0 and 1, found {conf_level!r}.")


def _build_outcomes(
    formula: Formula,
    data: Mapping[str, ArrayLike] | pd.DataFrame | OutcomeGrid,
    names: tuple[str, ...],
    unit_columns: tuple[str, str, str],
    numbers: tuple[str | None, str | None],
    path: Path,
) -> FitOutcomes:
    """Blocks of outcomes; `unit_columns` names student, item and task, `numbers` trials and chance."""
    if isinstance(data, OutcomeGrid):
        if path == "sparse":
            raise EstimationError("path='sparse' needs columns, found an OutcomeGrid.")
        return convert_grid(data, names)
    student, item, task = unit_columns
    columns = {str(name): np.asarray(values) for name, values in data.items()}
    base = names[-1]
    if base in columns and base not in formula.columns and student in columns:
        unknown = pd.isna(columns[base])
        if unknown.any() and columns[base].shape == columns[student].shape:
            # A student whose base is not known shares it with nobody.
            unknown_base_labels = np.char.add("base of ", columns[student].astype(str))
            columns[base] = np.where(unknown, unknown_base_labels, columns[base].astype(str))
    return convert_columns(
        columns,
        score=formula.response,
        covariates=names,
        student=student,
        item=item,
        task=task,
        trials=numbers[0],
        chance=numbers[1],
        path=path,
    )


def _build_fit(formula: Formula, model: MixedModel, optimum: RemlOptimum, effects: bool, conf_level: float) -> MixedFit:
    """The numbers of an optimum: coefficients, standard deviations, margins, and what qualifies them."""
    optimum, inference = infer_fixed_effects(model, optimum)
    estimated = tuple(model.names[j] for j in model.estimated)
    guesses = (remark(Reason.GUESSES_COUNT_AS_ABILITY),) if model.ignores_guessing else ()
    coefficients = {}
    for name in model.names:
        if name in model.alias_remarks:
            coefficients[name] = refused(model.alias_remarks[name])
            continue
        contrast = np.eye(len(inference.beta))[estimated.index(name)]
        aliased_names = model.aliases_by_column.get(name)
        alias_remarks = (remark(Reason.STANDS_FOR, name=name, others=aliased_names),) if aliased_names else ()
        coefficients[name] = inference.estimate(contrast, conf_level=conf_level).noting(*alias_remarks, *guesses)
    outcomes, remarks = model.outcomes, list(list_model_cautions(model))
    if optimum.problem:
        remarks.append(optimum.problem)
    if not inference.curvature.is_concave:
        remarks.append(remark(Reason.FLAT_LIKELIHOOD))
    one_base_terms = [t for t in model.plan.left_out if t.reason == Reason.ONE_BASE]
    remarks.extend(base_remark for term in one_base_terms for base_remark in term.remarks)
    return MixedFit(
        formula=formula.text,
        status="ok",
        remarks=tuple(remarks),
        coefficients=coefficients,
        standard_deviations=standard_deviations(model, inference, optimum, conf_level),
        left_out=model.plan.left_out,
        population=_find_population(model),
        converged=optimum.problem is None and inference.curvature.is_concave,
        n_students=outcomes.n_students,
        n_tasks=outcomes.n_tasks,
        n_items=outcomes.n_items,
        n_outcomes=outcomes.n_outcomes,
        path=model.path,
        criterion=optimum.evaluation.value + model.log_jacobian,
        covariate_centres={c.name: c.centre for c in model.predictors.covariates.values() if not c.levels},
        conf_level=conf_level,
        _coefficient_names=estimated,
        margins=average_effects(model, inference, conf_level) if effects else (),
        _beta_inference=inference,
    )


def _compare_estimators(fit: MixedFit, model: MixedModel, request: _FitRequest) -> MixedFit:
    """The fit with alternative estimates of its numbers; the objective must stand at its optimum."""
    logits = fit_two_stage(model, "logit", fit.conf_level)
    agreement: tuple[EstimatorAgreement, ...] = ()
    if fit.margins and fit._beta_inference is not None:
        jackknife_shifts = jackknives(model)  # before another model is fitted to the same outcomes
        link = _link_with_chance(fit, model, request)
        agreement = estimator_agreement(model, fit._beta_inference, fit.margins, jackknife_shifts, link, fit.conf_level)
    return replace(fit, two_stage_estimates={} if isinstance(logits, Remark) else logits, agreement=agreement)


def _link_with_chance(
    fit: MixedFit, model: MixedModel, request: _FitRequest
) -> dict[tuple[str, str], Estimate] | Remark | None:
    """Effects under a link with chance, why there are none, or None where it would be the same model."""
    if not model.ignores_guessing:
        return None
    outcomes = model.outcomes
    if outcomes.n_outcomes > MAX_CHANCE_OUTCOMES:
        return remark(Reason.TOO_MANY_OUTCOMES, most=MAX_CHANCE_OUTCOMES)
    if refusal := chance_refusal(outcomes):
        return refusal
    other = request.model(outcomes, chance=True)
    optimum, inference = infer_fixed_effects(other, fit_theta(other.laplace, starts(other)))
    if not math.isfinite(optimum.evaluation.value) or optimum.problem:
        return (optimum.problem or remark(Reason.NO_MAXIMUM)).of("link with chance")
    method = f"average marginal effect, {other.laplace.method}"
    effects = average_effects(other, inference, fit.conf_level)
    return {(e.effect, e.where): replace(e.estimate, method=method) for e in effects}


def _find_population(model: MixedModel) -> Population:
    """Whom the intervals are about; without random students, or bases, their variance is not in them."""
    random_term_kinds = {t.kind for t in model.plan.random}
    students: StudentPopulation = "these_recipes" if "student" in random_term_kinds else "these_checkpoints"
    if "base" in random_term_kinds:
        students = "these_recipes_bases_like_these"
    return Population(students, model.plan.population)
