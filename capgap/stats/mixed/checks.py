"""Checks of estimability: degenerate outcomes, separation; and cautions on designs that can be fitted."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

from capgap.schema.remarks import Reason, Remark, remark
from capgap.stats.mixed.model import MixedModel
from capgap.stats.mixed.outcomes import MixedData
from capgap.stats.mixed.terms import TOLERANCE, rank

__all__ = ["cautions", "impossible", "separated"]

Floats = NDArray[np.float64]

FEW_ANSWERS = 6
"""Below so many answers per item the Laplace approximation attenuates coefficients visibly."""


def impossible(outcomes: MixedData) -> Remark | None:
    """Why no logistic model can be fitted at all; None where one can."""
    right, total = float(outcomes.right.sum()), float(outcomes.weight.sum())
    if not total:
        return remark(Reason.NO_OUTCOME)
    if right in (0, total):
        return remark(Reason.CONSTANT_OUTCOME, kind="right" if right else "wrong")
    if outcomes.n_students < 2:
        return remark(Reason.ONE_STUDENT)
    return remark(Reason.ONE_ITEM) if outcomes.n_items < 2 else None


def separated(design: Floats, right: Floats, weight: Floats, names: tuple[str, ...]) -> Remark | None:
    """Which coefficients have no finite estimate because a combination of columns splits right from wrong.

    Parameters
    ----------
    design
        Shape (D, p).
    right, weight
        Successes and trials of each row, shape (D,).

    Notes
    -----
    With x'd >= 0 where all is right, <= 0 where all is wrong and = 0 where both occur, a d with some x'd unlike zero
    exists exactly where the likelihood rises for ever along it (Albert & Anderson 1984, Biometrika 71, 1-10). Rows with
    both kinds of outcomes that span the design rule that out at once; else a linear program looks for d.
    """
    used = weight > 0
    x, share = design[used], right[used] / weight[used]
    mixed = (share > 0) & (share < 1)
    if rank(x[mixed], np.linalg.norm(x, axis=0)) == x.shape[1]:
        return None
    scale = np.maximum(np.abs(x).max(axis=0), 1e-300)
    sign = np.where(mixed, 0.0, np.where(share == 1, 1.0, -1.0))
    rows = np.unique(np.column_stack([x / scale, sign]).round(12), axis=0)
    x, sign = rows[:, :-1], rows[:, -1]
    pure, both = sign != 0, sign == 0
    # A pattern with right rows and wrong rows is mixed, whatever each row is.
    signed = x[pure] * sign[pure, None]
    optimum = linprog(
        -signed.sum(axis=0),
        A_ub=-signed,
        b_ub=np.zeros(len(signed)),
        A_eq=x[both] if both.any() else None,
        b_eq=np.zeros(int(both.sum())) if both.any() else None,
        bounds=(-1, 1),
        method="highs",
    )
    if not optimum.success or optimum.x is None or (signed @ optimum.x).sum() <= 1e-6:
        return None
    splitting = [name for name, d in zip(names, optimum.x, strict=True) if abs(d) > TOLERANCE]
    return remark(Reason.SEPARATION, names=splitting)


def cautions(model: MixedModel) -> Iterator[Remark]:
    """Remarks on designs whose numbers need care."""
    outcomes = model.outcomes
    yield from outcomes.remarks
    if outcomes.answers_per_item < FEW_ANSWERS:
        yield remark(Reason.FEW_ANSWERS_PER_ITEM, n=outcomes.answers_per_item, least=FEW_ANSWERS)
    for name, others in model.partners.items():
        yield remark(Reason.STANDS_FOR, name=name, others=others)
    per_student = np.bincount(outcomes.student, outcomes.weight, outcomes.n_students)
    sparse = np.flatnonzero(per_student < 0.5 * np.median(per_student))
    if len(sparse):
        yield remark(Reason.SPARSE_STUDENTS, students=[outcomes.student_names[s] for s in sparse])
