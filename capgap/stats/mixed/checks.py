"""What makes a fit impossible, and what a reader must know of one that is possible."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

from capgap.stats.mixed.model import MixedModel
from capgap.stats.mixed.outcomes import MixedData
from capgap.stats.mixed.terms import TOLERANCE, rank

__all__ = ["cautions", "impossible", "separated"]

Floats = NDArray[np.float64]

FEW_ANSWERS = 6
"""Below so many answers per item the Laplace approximation attenuates coefficients visibly."""


def impossible(outcomes: MixedData) -> str:
    """Why no logistic model can be fitted at all; empty where one can."""
    right, total = float(outcomes.right.sum()), float(outcomes.weight.sum())
    if not total:
        return "there is no outcome"
    if right == total:
        return "every answer is right: no finite estimate exists"
    if right == 0:
        return "every answer is wrong: no finite estimate exists"
    if outcomes.n_students < 2:
        return "one student only: there is nothing to compare; intervals of one checkpoint are those of accuracy"
    if outcomes.n_items < 2:
        return "one item only"
    return ""


def separated(design: Floats, right: Floats, weight: Floats, names: tuple[str, ...]) -> str:
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
        return ""
    scale = np.maximum(np.abs(x).max(axis=0), 1e-300)
    sign = np.where(mixed, 0.0, np.where(share == 1, 1.0, -1.0))
    rows = np.unique(np.column_stack([x / scale, sign]).round(12), axis=0)
    x, sign = rows[:, :-1], rows[:, -1]
    pure, both = sign != 0, sign == 0
    # A pattern with right rows and wrong rows is mixed, whatever each row is.
    signed = x[pure] * sign[pure, None]
    found = linprog(
        -signed.sum(axis=0),
        A_ub=-signed,
        b_ub=np.zeros(len(signed)),
        A_eq=x[both] if both.any() else None,
        b_eq=np.zeros(int(both.sum())) if both.any() else None,
        bounds=(-1, 1),
        method="highs",
    )
    if not found.success or found.x is None or (signed @ found.x).sum() <= 1e-6:
        return ""
    guilty = [name for name, d in zip(names, found.x, strict=True) if abs(d) > TOLERANCE]
    return f"separation: {', '.join(guilty)} split right from wrong answers, so that no finite estimate exists"


def cautions(model: MixedModel) -> tuple[str, ...]:
    """Notes on designs whose numbers need care."""
    outcomes, found = model.outcomes, list(model.outcomes.notes)
    if outcomes.answers_per_item < FEW_ANSWERS:
        found.append(
            f"{outcomes.answers_per_item:g} answers per item: below {FEW_ANSWERS}, coefficients are drawn towards zero "
            "by 8-18 %, about half of which the bias correction restores"
        )
    for name, others in model.partners.items():
        found.append(f"{name} cannot be told apart from {', '.join(others)}: it stands for both")
    students = np.bincount(outcomes.student, outcomes.weight, outcomes.n_students)
    if (students < 0.5 * np.median(students)).any():
        few = [outcomes.student_names[s] for s in np.flatnonzero(students < 0.5 * np.median(students))]
        listed = ", ".join(few[:5]) + (" and others" if len(few) > 5 else "")
        found.append(f"fewer than half of the usual number of outcomes: {listed}")
    return tuple(found)
