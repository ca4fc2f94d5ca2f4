"""What a student lost and gained against its base, and whether it is as good as its teacher."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from capgap.analysis.analysis_sets import AnalysisSet
from capgap.analysis.estimate_rows import EstimateRow
from capgap.analysis.groups import ItemGroup
from capgap.analysis.student_estimates import RoleComparison, paired_rows
from capgap.stats import Estimate, equivalence, flip_counts, refused

__all__ = ["EQUIVALENCE_MARGIN", "equivalence_rows", "flip_rows"]

EQUIVALENCE_MARGIN = 0.02
"""How far a student may fall short of its teacher and count as its equal, in score."""
_LEVELS = ("battery", "capability", "domain", "task")


def flip_rows(comparison: RoleComparison, groups: Iterable[ItemGroup]) -> Iterator[EstimateRow]:
    """`lost` and `gained` of one student, as counts for this checkpoint: one training seed says no more."""
    if not comparison.has("base"):
        return
    contrasts = {"lost": "base right, student wrong", "gained": "base wrong, student right"}
    for group in groups:
        if group.level not in _LEVELS:
            continue
        for quantity, contrast in contrasts.items():

            def number(cut: AnalysisSet, quantity: str = quantity) -> Estimate:
                base, student = comparison.score("base", cut), comparison.score("student", cut)
                if not np.isin([base, student], (0.0, 1.0)).all():
                    return refused("scores between 0 and 1 (or means over repeats) neither lose nor gain an item")
                found = flip_counts(base, student, cut.design, conf_level=comparison.conf_level)
                one = found.lost if quantity == "lost" else found.gained
                told = f"{found.n_lost} lost, {found.n_gained} gained of {len(base)}"
                return replace(one, p_value=found.p_value, null_value=np.nan, n_items=cut.n_items).noting(told)

            yield from paired_rows(
                comparison, replace(group, generalizes=False), quantity, contrast, ("base", "student"), number
            )


def equivalence_rows(
    comparison: RoleComparison, groups: Iterable[ItemGroup], *, margin: float
) -> Iterator[EstimateRow]:
    """`equivalence` of one student: two one-sided tests that it is within the margin of its teacher.

    The interval of the row has the level that decides the same question, 1 - 2 alpha.
    """
    if not comparison.has("teacher"):
        return
    alpha = 1 - comparison.conf_level
    points = f"{100 * margin:g} points"
    for group in groups:
        if group.level not in ("battery", "capability"):
            continue

        def number(cut: AnalysisSet) -> Estimate:
            if alpha >= 0.5:
                return refused(f"equivalence needs an interval of more than 50 %, asked were {100 * (1 - alpha):g} %")
            differences = comparison.score("teacher", cut) - comparison.score("student", cut)
            found = equivalence(cut.units(differences), cut.design, margin, alpha=alpha)
            verdict = "neither" if not np.isnan(found.p_value) else "not tested"
            if found.equivalent:
                verdict = f"as good as the teacher within {points}"
            elif found.not_inferior:
                verdict = f"at most {points} short of the teacher"
            elif found.estimate.conf_low > margin:
                verdict = f"more than {points} short of the teacher"
            return replace(found.estimate, p_value=found.p_value, null_value=margin, n_items=cut.n_items).noting(
                verdict.replace("neither", f"not shown to be within {points}, nor beyond")
            )

        for row in paired_rows(comparison, group, "equivalence", "teacher - student", ("teacher", "student"), number):
            yield replace(row, conf_level=max(1 - 2 * alpha, 0.0) or None, alternative=f"within ± {points}")
