"""Parts of the gap by what became of the answers: cut off, stopped early, unreadable, wrong; net of the teacher's."""

from collections.abc import Iterable, Iterator

import numpy as np

from capgap.analysis.analysis_sets import AnalysisSet
from capgap.analysis.answer_states import WRONG
from capgap.analysis.estimate_rows import EstimateRow
from capgap.analysis.groups import ItemGroup
from capgap.analysis.score_matrix import Floats
from capgap.analysis.student_estimates import RoleComparison, paired_rows
from capgap.schema.quantities import QUANTITIES
from capgap.stats import Estimate

__all__ = ["deficit_part", "gap_part_rows"]


def gap_part_rows(comparison: RoleComparison, item_groups: Iterable[ItemGroup]) -> Iterator[EstimateRow]:
    """`gap_part` of every state in which any answer of student or teacher is; none where all could be read.

    Notes
    -----
    The part of state k is the mean over items of ``(1 - s) 1{s in k} - (1 - t) 1{t in k}``, weighted as the gap is, so
    that the parts sum to the gap. A part may be negative: more of the teacher's answers are in that state.
    """
    if not comparison.has_roles_for("gap_part"):
        return
    columns = [comparison.grid.column(comparison.roles[role]) for role in ("teacher", "student")]
    for group in item_groups:
        if group.level not in QUANTITIES["gap_part"].levels:
            continue
        states = comparison.grid.deficits.occurring(group.rows, columns)
        for state in (*states, WRONG) if states else ():

            def part(subset: AnalysisSet, state: str = state) -> Estimate:
                values = deficit_part(comparison, subset, "student", state) - deficit_part(
                    comparison, subset, "teacher", state
                )
                return subset.difference(values, conf_level=comparison.conf_level)

            yield from paired_rows(comparison, group, "gap_part", state, ("teacher", "student"), part)


def deficit_part(comparison: RoleComparison, subset: AnalysisSet, role: str, state: str) -> Floats:
    """What a role's scores lack by answers in one state, shape (rows,)."""
    grid = comparison.grid
    column = grid.column(comparison.roles[role])
    return np.asarray(grid.deficits.of(state, column, grid.scores[:, column])[subset.rows])
