"""Flips against the base, and equivalence with the teacher, of one student."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from capgap.analysis.analysis_sets import AnalysisSet
from capgap.analysis.estimate_rows import EstimateRow
from capgap.analysis.groups import ItemGroup
from capgap.analysis.score_matrix import Floats
from capgap.analysis.student_estimates import RoleComparison, paired_rows
from capgap.schema.quantities import QUANTITIES
from capgap.schema.remarks import Reason, remark
from capgap.stats import Equivalence, Estimate, answers_per_item, flip_counts, refused, run_equivalence_test

EQUIVALENCE_MARGIN = 0.02
"""How far a student may fall short of its teacher and count as its equal, in score."""


def flip_rows(comparison: RoleComparison, item_groups: Iterable[ItemGroup]) -> Iterator[EstimateRow]:
    """`lost` and `gained` of one student, as counts for this checkpoint: one training seed says no more."""
    contrasts = {"lost": "base right, student wrong", "gained": "base wrong, student right"}
    for group in item_groups:
        for quantity, contrast in contrasts.items():
            if not comparison.has_roles_for(quantity) or group.level not in QUANTITIES[quantity].levels:
                continue

            def estimator(subset: AnalysisSet, quantity: str = quantity) -> Estimate:
                base, student = comparison.score("base", subset), comparison.score("student", subset)
                if not np.isin([base, student], (0.0, 1.0)).all():
                    return _excess_over_repeats(comparison, subset, base, student, quantity)
                flips = flip_counts(base, student, subset.design, conf_level=comparison.conf_level)
                share = flips.lost_share if quantity == "lost" else flips.gained_share
                counts = remark(Reason.FLIP_COUNTS, lost=flips.n_lost, gained=flips.n_gained, of=len(base))
                return replace(share, p_value=flips.p_value, null_value=np.nan, n_items=subset.n_items).noting(counts)

            these_tasks_group = group.of_these_tasks()
            yield from paired_rows(comparison, these_tasks_group, quantity, contrast, ("base", "student"), estimator)


def _excess_over_repeats(
    comparison: RoleComparison, subset: AnalysisSet, base: Floats, student: Floats, direction: str
) -> Estimate:
    """Flips of one answer of each model, beyond those of two answers of this student, from shares over repeats.

    With s the student's share of right answers of k, ``s (1 - s) k / (k - 1)`` is the unbiased chance that one of its
    answers is right and another wrong. Refused where scores are no such shares.
    """
    n_answers = answers_per_item(np.concatenate([base, student])) if comparison.grid.repeated else None
    if n_answers is None or n_answers < 2:
        return refused(remark(Reason.FRACTIONAL_SCORES))
    null = student * (1 - student) * n_answers / (n_answers - 1)
    flips = base * (1 - student) if direction == "lost" else (1 - base) * student
    share = 100 * subset.design.mean(null)
    beyond = remark(Reason.BEYOND_REPEATS, share=share), remark(Reason.EXPECTED_FLIPS, n=n_answers)
    return subset.difference(flips - null, conf_level=comparison.conf_level).noting(remark(Reason.ONE_SEED), *beyond)


def equivalence_rows(
    comparison: RoleComparison, item_groups: Iterable[ItemGroup], *, margin: float
) -> Iterator[EstimateRow]:
    """`run_equivalence_test` of one student: two one-sided tests that it is within the margin of its teacher.

    The interval of the row has the level that decides the same question, 1 - 2 alpha.
    """
    alpha = 1 - comparison.conf_level
    roles = ("teacher", "student")

    def estimator(subset: AnalysisSet) -> Estimate:
        if alpha >= 0.5:
            return refused(remark(Reason.CONFIDENCE_TOO_LOW, level=100 * (1 - alpha)))
        differences = comparison.score("teacher", subset) - comparison.score("student", subset)
        test = run_equivalence_test(subset.units(differences), subset.design, margin, alpha=alpha)
        verdict = remark(_equivalence_reason(test, margin), points=100 * margin)
        return replace(test.estimate, p_value=test.p_value, null_value=margin, n_items=subset.n_items).noting(verdict)

    for group in item_groups:
        if not comparison.has_roles_for("equivalence") or group.level not in QUANTITIES["equivalence"].levels:
            continue
        for row in paired_rows(comparison, group, "equivalence", "teacher - student", roles, estimator):
            alternative_hypothesis = f"within ± {100 * margin:g} points"
            yield replace(row, conf_level=max(1 - 2 * alpha, 0.0) or None, alternative=alternative_hypothesis)


def _equivalence_reason(test: Equivalence, margin: float) -> Reason:
    if test.is_equivalent:
        return Reason.EQUIVALENT
    if test.not_inferior:
        return Reason.NOT_INFERIOR
    if test.estimate.conf_low > margin:
        return Reason.INFERIOR
    return Reason.NOT_TESTED if np.isnan(test.p_value) else Reason.NOT_EQUIVALENT
