"""Effects of how students were made, in knowledge and in reasoning: the mixed model over a cohort."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from capgap.analysis.cohort import CATEGORICAL_FACTORS, LOG_SCALE_FACTORS, Cohort
from capgap.analysis.estimate_rows import THESE_TASKS, EstimateRow, KeyValuePairs, TargetPopulation
from capgap.analysis.groups import CAPABILITY_DUO, find_group
from capgap.analysis.score_matrix import ScoreMatrix
from capgap.errors import EstimationError
from capgap.schema.remarks import Reason, Remark, remark
from capgap.stats import refused
from capgap.stats.mixed import MixedFit, OutcomeGrid, fit_mixed
from capgap.stats.mixed.alternative_estimators import adapt_population

MIN_STUDENTS = 6
"""With fewer students no model of how they were made is tried."""


@dataclass(frozen=True)
class _MixedModelInput:
    """A formula and the outcomes that it is fitted to."""

    formula: str
    outcomes: OutcomeGrid
    remarks: tuple[Remark, ...]

    def effect_codes(self) -> dict[str, KeyValuePairs]:
        """The model's name of each effect → its factor, and levels or transform, as the column ``factors`` has them."""
        effect_factors: dict[str, KeyValuePairs] = {}
        for factor_name, values in {**self.outcomes.students, **self.outcomes.tasks}.items():
            if factor_name in LOG_SCALE_FACTORS:
                effect_factors[f"log({factor_name})"] = (("factor", factor_name), ("transform", "log"))
                continue
            reference, *levels = sorted({str(value) for value in np.asarray(values)})
            for level in levels:
                name = f"{factor_name}[{level} - {reference}]"
                effect_factors[name] = (("factor", factor_name), ("level", level), ("reference", reference))
        return effect_factors


def effect_rows(
    grid: ScoreMatrix, cohort: Cohort, *, conf_level: float, alternatives: bool = True
) -> Iterator[EstimateRow]:
    """`effect`, `effect_difference`, `coefficient` and `spread` of every factor that varies among the students.

    Parameters
    ----------
    grid
        Everybody's outcomes.
    cohort
        The students. Fewer than `MIN_STUDENTS`, or students that differ in nothing known, give no row.
    conf_level
        Of every interval.
    alternatives
        Whether other estimators of the same differences stand beside the mixed model's.
    """
    cohort, omission_remarks = cohort.drop_nonpositive()
    factors = [name for name in (*LOG_SCALE_FACTORS, *CATEGORICAL_FACTORS) if cohort.varies(name)]
    n_students = len(cohort.students)
    if n_students < MIN_STUDENTS or not factors:
        return
    blank = EstimateRow("effect", "battery", "all", None, refused(), 0, weighting="tasks", n_students=n_students)
    blank = replace(blank, subject="cohort", estimator="mixed_model")
    model = _model_input(grid, cohort, factors)
    if isinstance(model, Remark):
        yield replace(blank, estimate=refused(model))
        return
    try:
        fit = fit_mixed(model.formula, model.outcomes, conf_level=conf_level, margins=True, alternatives=alternatives)
    except EstimationError as error:  # the other numbers of the analysis do not hang on this one
        yield replace(blank, estimate=refused(remark(Reason.ESTIMATION_FAILED, error=str(error))))
        return
    remarks = (remark(Reason.FORMULA, formula=model.formula), *omission_remarks, *model.remarks, *fit.remarks)
    blank = replace(blank, n_tasks=fit.n_tasks, population=_get_target_population(fit, "mixed_model"))
    for row in _fit_rows(fit, blank, remarks, model.effect_codes()):
        yield replace(row, estimate=replace(row.estimate, n_items=fit.n_items))


def _fit_rows(
    fit: MixedFit, blank: EstimateRow, remarks: tuple[Remark, ...], effect_factors: dict[str, KeyValuePairs]
) -> Iterator[EstimateRow]:
    if fit.status == "refused":
        yield replace(blank, estimate=refused(*fit.remarks))
        return
    agreement_by_effect = {(agreement.effect, agreement.where): agreement for agreement in fit.agreement}
    for margin in fit.margins:
        agreement = agreement_by_effect.get((margin.effect, margin.where))
        row = replace(
            blank,
            quantity="effect_difference" if margin.contrast else "effect",
            level="capability" if margin.where in CAPABILITY_DUO else "battery",
            group=margin.where,
            contrast=margin.effect,
            factors=effect_factors[margin.effect],
            estimate=margin.estimate,
        )
        coefficient = fit.coefficients.get(margin.effect)
        effect_remarks = [r for r in coefficient.remarks if r.code == Reason.STANDS_FOR] if coefficient else []
        if agreement:
            effect_remarks.insert(0, remark(Reason(f"estimators_{agreement.verdict}"), why=agreement.note))
        if margin is fit.margins[0]:
            effect_remarks += remarks
        yield replace(row, estimate=margin.estimate.noting(*effect_remarks))
        for other in agreement.alternatives[1:] if agreement else ():
            yield replace(
                row,
                quantity="effect_difference",
                level="battery",
                estimator=other.estimator,
                population=_get_target_population(fit, other.estimator),
                estimate=other.estimate,
            )
    for quantity, terms in (("coefficient", fit.coefficients), ("spread", fit.standard_deviations)):
        for term, estimate in terms.items():
            yield replace(
                blank,
                quantity=quantity,
                contrast=term,
                factors=(("term", term),),
                scale="logit",
                estimate=estimate,
            )


def _get_target_population(fit: MixedFit, estimator: str) -> TargetPopulation:
    """Whom an estimator's intervals speak of."""
    return TargetPopulation(**adapt_population(estimator, fit.population)._asdict()) if fit.population else THESE_TASKS


def _model_input(grid: ScoreMatrix, cohort: Cohort, factors: list[str]) -> _MixedModelInput | Remark:
    """The formula and the outcomes, or the reason why there are none."""
    columns = [grid.column(name) for name in cohort.students]
    item_groups = [find_group(grid, "capability", name) for name in CAPABILITY_DUO]
    rows = np.sort(np.concatenate([group.rows for group in item_groups]))
    scores = grid.scores[rows][:, columns]  # shape (cells, students), NaN where not answered
    has_binary_scores = ((scores == 0) | (scores == 1) | np.isnan(scores)).all(axis=1)
    n_fractional_items = int((~has_binary_scores).sum())
    rows = rows[has_binary_scores & np.isfinite(scores).any(axis=1)]
    scores, capability, form = grid.scores[rows][:, columns], grid.facts["capability"][rows], grid.facts["format"][rows]
    missing = [name for name in CAPABILITY_DUO if not (capability == name).any()]
    if missing:
        return remark(Reason.NO_COMPARABLE_ITEMS, capabilities=missing)
    remarks = [remark(Reason.FRACTIONAL_ITEMS, n=n_fractional_items)] if n_fractional_items else []
    # A unit has one capability and one format, which a task with labels or variants of its own need not have.
    tasks = np.array(grid.tasks, dtype=object)[grid.task[rows]]
    unit = np.array([f"{t}\0{c}\0{f}" for t, c, f in zip(tasks, capability, form, strict=True)])
    units, code = np.unique(unit, return_inverse=True)
    unit_factor_values = {
        name: np.array([unit.split("\0")[field_index] for unit in units], dtype=object)
        for field_index, name in ((1, "capability"), (2, "format"))
    }
    terms = " + ".join(f"log({name})" if name in LOG_SCALE_FACTORS else name for name in factors)
    formula = f"score ~ capability * ({terms})"
    if _is_format_aliased(unit_factor_values["capability"], unit_factor_values["format"]):
        remarks.append(remark(Reason.FORMAT_ALIASED))
    elif len(set(unit_factor_values["format"])) > 1:
        formula += " + format"
    answered = np.isfinite(scores).T
    chance = grid.chance[rows]
    outcomes = OutcomeGrid(
        np.where(answered, scores.T, 0.0),  # weight zero where not answered
        units[code],
        None if answered.all() else answered.astype(float),
        students={name: _get_factor(cohort, name) for name in (*factors, *(["base"] if cohort.varies("base") else []))},
        tasks=unit_factor_values,
        chance=chance if np.isfinite(chance).all() else None,
    )
    return _MixedModelInput(formula, outcomes, tuple(remarks))


def _get_factor(cohort: Cohort, name: str) -> NDArray[np.object_]:
    known_values = cohort.known(name)
    kind = float if name in LOG_SCALE_FACTORS else object
    return np.array([known_values[student] for student in cohort.students], dtype=kind)


def _is_format_aliased(capability: NDArray[np.object_], form: NDArray[np.object_]) -> bool:
    """Whether the format follows from the capability, so that both cannot be in one formula; shapes (units,)."""
    pairs = set(zip(capability.tolist(), form.tolist(), strict=True))
    return len(set(form)) > 1 and len(pairs) == len(set(capability))
