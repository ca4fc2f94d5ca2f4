"""Checks of estimability: degenerate outcomes, separation; and cautions on designs that can be fitted."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

from capgap.schema.remarks import Reason, Remark, remark
from capgap.stats.mixed.model import MixedModel
from capgap.stats.mixed.outcomes import FitOutcomes
from capgap.stats.mixed.terms import TOLERANCE, rank

__all__ = ["list_model_cautions", "outcomes_refusal", "separation_refusal"]

Floats = NDArray[np.float64]

FEW_ANSWERS_PER_ITEM = 6
"""Below so many answers per item the Laplace approximation attenuates coefficients visibly."""


def outcomes_refusal(outcomes: FitOutcomes) -> Remark | None:
    """Why no logistic model can be fitted at all; None where one can."""
    n_right, total = float(outcomes.successes.sum()), float(outcomes.weight.sum())
    if not total:
        return remark(Reason.NO_OUTCOME)
    if n_right in (0, total):
        return remark(Reason.CONSTANT_OUTCOME, kind="right" if n_right else "wrong")
    if outcomes.n_students < 2:
        return remark(Reason.ONE_STUDENT)
    return remark(Reason.ONE_ITEM) if outcomes.n_items < 2 else None


def separation_refusal(design: Floats, successes: Floats, weight: Floats, names: tuple[str, ...]) -> Remark | None:
    """Which coefficients have no finite estimate because a combination of columns splits right from wrong.

    Parameters
    ----------
    design
        Shape (D, p).
    successes, weight
        Successes and trials of each row, shape (D,).

    Notes
    -----
    With x'd >= 0 where all is right, <= 0 where all is wrong and = 0 where both occur, a d with some x'd unlike zero
    exists exactly where the likelihood rises for ever along it (Albert & Anderson 1984, Biometrika 71, 1-10). Rows with
    both kinds of outcomes that span the design rule that out at once; else a linear program looks for d.
    """
    nonempty = weight > 0
    x, share = design[nonempty], successes[nonempty] / weight[nonempty]
    mixed_rows = (share > 0) & (share < 1)
    if rank(x[mixed_rows], np.linalg.norm(x, axis=0)) == x.shape[1]:
        return None
    scale = np.maximum(np.abs(x).max(axis=0), 1e-300)
    sign = np.where(mixed_rows, 0.0, np.where(share == 1, 1.0, -1.0))
    rows = np.unique(np.column_stack([x / scale, sign]).round(12), axis=0)
    x, sign = rows[:, :-1], rows[:, -1]
    is_pure_pattern, mixed_patterns = sign != 0, sign == 0
    # A pattern with right rows and wrong rows is mixed, whatever each row is.
    outcome_signed_design = x[is_pure_pattern] * sign[is_pure_pattern, None]
    optimum = linprog(
        -outcome_signed_design.sum(axis=0),
        A_ub=-outcome_signed_design,
        b_ub=np.zeros(len(outcome_signed_design)),
        A_eq=x[mixed_patterns] if mixed_patterns.any() else None,
        b_eq=np.zeros(int(mixed_patterns.sum())) if mixed_patterns.any() else None,
        bounds=(-1, 1),
        method="highs",
    )
    if not optimum.success or optimum.x is None or (outcome_signed_design @ optimum.x).sum() <= 1e-6:
        return None
    separating_coefficients = [name for name, d in zip(names, optimum.x, strict=True) if abs(d) > TOLERANCE]
    return remark(Reason.SEPARATION, names=separating_coefficients)


def list_model_cautions(model: MixedModel) -> Iterator[Remark]:
    """Remarks on designs whose numbers need care."""
    outcomes = model.outcomes
    yield from outcomes.remarks
    if outcomes.answers_per_item < FEW_ANSWERS_PER_ITEM:
        yield remark(Reason.FEW_ANSWERS_PER_ITEM, n=outcomes.answers_per_item, least=FEW_ANSWERS_PER_ITEM)
    for name, aliased_names in model.aliases_by_column.items():
        yield remark(Reason.STANDS_FOR, name=name, others=aliased_names)
    outcomes_per_student = np.bincount(outcomes.student, outcomes.weight, outcomes.n_students)
    sparse_students = np.flatnonzero(outcomes_per_student < 0.5 * np.median(outcomes_per_student))
    if len(sparse_students):
        yield remark(Reason.SPARSE_STUDENTS, students=[outcomes.student_names[s] for s in sparse_students])
