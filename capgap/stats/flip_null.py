"""Flips without any loss: each training seed in the base's place, and shares of right answers over repeats.

A base is one draw. Some items that it answers rightly and every student wrongly are its luck, and another model that is
as good would have others. A list is worth reading only where few of its entries are of this kind.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["answers_per_item", "expected_chance_flips"]

MOST_ANSWERS = 64
"""Repeats of an item beyond which fractional scores are not taken for shares of right answers."""


def expected_chance_flips(base: ArrayLike, students: ArrayLike, n_flipped: int, *, direction: str = "lost") -> float:
    """How many items would be flipped in so many students if the base were one more seed of their recipe.

    Parameters
    ----------
    base
        Right (1) or wrong (0), shape (n,).
    students
        The same of S training seeds, shape (S, n), S at least 2.
    n_flipped
        Seeds that must have flipped an item for it to count.
    direction
        ``lost`` (base right, seeds wrong) or ``gained``.

    Notes
    -----
    Each seed in turn stands in for the base, against the S - 1 others, of which `n_flipped` or, where these are fewer,
    all must have flipped the item: at least as many as against S. The count is that of a stand-in which could flip as
    many items as the base could (matched on mean accuracy): the share of the stand-ins' candidates times the base's.
    """
    is_gained = float(direction == "gained")
    b, y = np.asarray(base, dtype=float), np.asarray(students, dtype=float)
    flipped = y == is_gained
    least = min(n_flipped, len(y) - 1)
    others_flipped = flipped.sum(axis=0) - flipped  # shape (S, n): seeds other than the stand-in that are flipped
    n_chance, n_candidates = int((~flipped & (others_flipped >= least)).sum()), int((~flipped).sum())
    return n_chance / n_candidates * int((b != is_gained).sum()) if n_candidates else 0.0


def answers_per_item(scores: NDArray[np.float64]) -> int | None:
    """How many right or wrong answers each score may be the mean of; None where scores are no such shares."""
    values = np.unique(scores[np.isfinite(scores)])
    if len(values) and (values.min() < 0 or values.max() > 1):
        return None
    for n_answers in range(1, MOST_ANSWERS + 1):
        if np.abs(values * n_answers - np.round(values * n_answers)).max(initial=0.0) < 1e-9 * n_answers:
            return n_answers
    return None
