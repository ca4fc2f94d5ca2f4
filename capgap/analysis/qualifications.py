"""What qualifies the plain numbers of a student: rows that stand beside them, and the remarks that these hand over."""

from collections.abc import Iterator, Sequence

import pandas as pd

from capgap import schema
from capgap.analysis.answer_bounds import bounds_rows, contrast_bounds_rows
from capgap.analysis.deficit_parts import gap_part_rows
from capgap.analysis.estimate_rows import EstimateRow
from capgap.analysis.groups import ItemGroup
from capgap.analysis.inverted_tasks import rows_without_inverted_tasks
from capgap.analysis.missing_answers import common_items_shift_rows
from capgap.analysis.student_estimates import RoleComparison
from capgap.analysis.suspect_tables import suspect_remarks
from capgap.schema.columns import VARIANT_ESTIMATORS
from capgap.schema.remarks import Reason, Remark

__all__ = ["qualification_rows", "qualify_plain_rows"]

_HANDED_OVER = {
    Reason.SIGN_RESTS_ON_ANSWERS,
    Reason.NUMBER_RESTS_ON_ANSWERS,
    Reason.WORST_CASES,
    Reason.FORMAT_LEARNT,
    Reason.TEACHER_BELOW_BASE,
    Reason.TEACHER_BELOW_BASE_ALONE,
}
"""Codes of rows beside a plain row that the plain row must say too."""
_SUSPECTED_QUANTITIES = {"accuracy", "gap", "base_gap", "gain", "gap_closure", "retention", "agreement"}
_NUMBER_COLUMNS = [
    *("quantity", "level", "group", "model", "contrast", "weighting"),
    *("population_items", "population_tasks", "population_students"),
]


def qualification_rows(
    comparison: RoleComparison, item_groups: Sequence[ItemGroup], excluded: frozenset[str]
) -> Iterator[EstimateRow]:
    """Parts of the gap, bounds, shifts by missing answers, and closures without inverted tasks, of one student."""
    yield from gap_part_rows(comparison, item_groups)
    yield from common_items_shift_rows(comparison, item_groups)
    yield from bounds_rows(comparison, item_groups)
    yield from contrast_bounds_rows(comparison, excluded)
    yield from rows_without_inverted_tasks(comparison, item_groups)


def qualify_plain_rows(frame: pd.DataFrame, outcomes: pd.DataFrame, roles: schema.Roles) -> pd.DataFrame:
    """A draft of the table whose plain rows say what the rows beside them found, and what is suspect of their models.

    Parameters
    ----------
    frame
        A draft: codes in a column ``remarks``.
    outcomes
        What it was made from.
    roles
        Who is who.
    """
    handed_over: dict[tuple[object, ...], list[Remark]] = {}
    is_beside = frame["estimator"].isin(VARIANT_ESTIMATORS)
    keys = list(frame[_NUMBER_COLUMNS].astype(object).itertuples(index=False, name=None))
    for key, beside, remarks in zip(keys, is_beside, frame["remarks"], strict=True):
        if beside:
            handed_over.setdefault(key, []).extend(r for r in remarks if r.code in _HANDED_OVER)
    suspicions = suspect_remarks(outcomes, roles)
    merged = []
    rows = zip(keys, frame["estimator"], frame["status"], frame["remarks"], strict=True)
    for key, estimator, status, remarks in rows:
        first: list[Remark] = []
        last: list[Remark] = []
        quantity, level, _, model = key[:4]
        if level in ("battery", "capability") and quantity in _SUSPECTED_QUANTITIES:
            first += [r for r, quantities in suspicions.get(str(model), ()) if quantity in quantities]
        if estimator == "paired":
            # What there is no number of keeps its own reason.
            (last if status == "refused" else first).extend(handed_over.get(key, []))
        merged.append((*first, *remarks, *last))
    return frame.assign(remarks=pd.Series(merged, index=frame.index, dtype=object))
