"""Bounds of gap, gain, closure, retention and their contrasts over unreadable and missing answers, right or wrong.

Each bounds row stands beside the plain row of the same number (`estimator` ``bounds``) and holds the codes that qualify
it; `qualify_plain_rows` copies them to the plain row, so that no claim stands without them.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from capgap.analysis.analysis_sets import AnalysisSet
from capgap.analysis.capability_contrast import capability_contrast_rows
from capgap.analysis.estimate_rows import EstimateRow, KeyValuePairs, TargetPopulation
from capgap.analysis.groups import CAPABILITY_DUO, ItemGroup, find_group
from capgap.analysis.missing_answers import comparable_cells
from capgap.analysis.score_matrix import Floats, Ints
from capgap.analysis.student_estimates import CLOSURE, GAIN, GAP, RETENTION, Measure, RoleComparison
from capgap.schema.remarks import Reason, Remark, remark
from capgap.stats import Estimate, contrast_bounds, corner_bounds, has_both_signs, score_corners

__all__ = ["bounds_rows", "contrast_bounds_rows"]

_BOUNDED_LEVELS = ("battery", "capability", "domain", "task")
_MEASURES = {measure.quantity: measure for measure in (GAP, GAIN, CLOSURE, RETENTION)}
FORMAT_SHARE = 0.2
"""Where the base's unreadable answers make more of teacher - base than this, closure holds format learnt."""

_Kind = tuple[str, TargetPopulation]
"""Weighting and population."""
_Extremes = dict[str, tuple[Floats, Floats]]
"""Role → its scores with unknown answers wrong, and right."""


@dataclass(frozen=True)
class _Bounds:
    """The bounds of one measure on one analysis set, beside the plain number."""

    plain: Estimate
    bounds: Estimate
    subset: AnalysisSet
    """Of the plain number."""
    shares: KeyValuePairs
    """``unreadable`` and ``missing`` → role → share of the answers."""

    @property
    def causes(self) -> tuple[str, ...]:
        """What widens the bounds: ``unreadable``, ``missing``."""
        return tuple(name for name, by_role in self.shares if any(by_role.values()))


class _BoundedMeasure:
    """One measure with the extremes of its roles' scores."""

    def __init__(self, comparison: RoleComparison, measure: Measure) -> None:
        self.comparison, self.measure = comparison, measure
        grid = comparison.grid
        self.models = [comparison.roles[role] for role in measure.roles]
        self.comparable = comparable_cells(grid, self.models)
        self.columns = {role: grid.column(comparison.roles[role]) for role in measure.roles}
        self.extremes: _Extremes = {}
        for role, column in self.columns.items():
            scores = grid.scores[:, column]
            worst, best = grid.deficits.extremes(column, scores)
            is_missing = ~np.isfinite(scores)
            self.extremes[role] = np.where(is_missing, 0.0, worst), np.where(is_missing, 1.0, best)

    def is_uncertain(self, group: ItemGroup) -> bool:
        """Whether any answer of the group is unreadable or missing."""
        rows = group.rows[self.comparable[group.rows]]
        return any(not np.array_equal(worst[rows], best[rows]) for worst, best in self.extremes.values())

    def of(self, group: ItemGroup) -> dict[_Kind, _Bounds]:
        """The bounds by weighting and population; none where the plain number is refused for its items."""
        comparison = self.comparison
        rows = group.rows[self.comparable[group.rows]]
        common = comparison.subsets.select(group.rows, self.models, student=comparison.student)
        if common.refusal(self.measure.roles):
            return {}  # the plain row says why there is no number
        shares = self._shares(rows)
        plain_sets = {(s.weighting, s.population): s for s in comparison.subsets.of(group, common.rows)}
        bounds_by_kind = {}
        for full_set in comparison.subsets.of(group, rows):
            plain_set = plain_sets.get((full_set.weighting, full_set.population))
            if plain_set is None:
                continue
            plain = self.measure.estimate(comparison, plain_set)
            ends = {role: (worst[full_set.rows], best[full_set.rows]) for role, (worst, best) in self.extremes.items()}
            corners = (self.measure.estimate(comparison, full_set, scores) for scores in score_corners(ends))
            bounds = corner_bounds(plain, corners)
            bounds_by_kind[full_set.weighting, full_set.population] = _Bounds(plain, bounds, plain_set, shares)
        return bounds_by_kind

    def _shares(self, rows: Ints) -> KeyValuePairs:
        grid = self.comparison.grid
        unreadable, missing = {}, {}
        for role, column in self.columns.items():
            worst, best = (ends[rows] for ends in self.extremes[role])
            is_missing = ~np.isfinite(grid.scores[rows, column])
            missing[role] = float(is_missing.mean())
            unreadable[role] = float(np.where(is_missing, 0.0, best - worst).mean())
        return ("unreadable", unreadable), ("missing", missing)


def bounds_rows(comparison: RoleComparison, item_groups: Iterable[ItemGroup]) -> Iterator[EstimateRow]:
    """Bounds of gap, gain, closure and retention wherever an answer of their roles is unreadable or missing."""
    groups = [group for group in item_groups if group.level in _BOUNDED_LEVELS]
    for measure in _MEASURES.values():
        if not comparison.has_roles_for(measure.quantity):
            continue
        bounded = _BoundedMeasure(comparison, measure)
        for group in filter(bounded.is_uncertain, groups):
            for (weighting, population), result in bounded.of(group).items():
                qualifiers, factors = _qualifiers(result.plain, result.bounds, result.causes), result.shares
                share = _format_share(comparison, result.subset) if measure is CLOSURE else 0.0
                if share > FORMAT_SHARE:
                    qualifiers += (remark(Reason.FORMAT_LEARNT, share=100 * share),)
                    factors += (("format_share", share),)
                yield EstimateRow(
                    measure.quantity,
                    group.level,
                    group.name,
                    comparison.student,
                    result.bounds.noting(*qualifiers),
                    result.subset.n_tasks,
                    contrast=measure.contrast,
                    roles=comparison.list_role_models(*measure.roles),
                    factors=factors,
                    scale=measure.scale,
                    weighting=weighting,
                    estimator="bounds",
                    population=population,
                )


def contrast_bounds_rows(comparison: RoleComparison, excluded: frozenset[str]) -> Iterator[EstimateRow]:
    """Bounds of every `capability_contrast` whose sides have bounds: each from the bounds of its two sides."""
    if not comparison.has_roles_for("capability_contrast"):
        return
    for battery, rows in _rows_by_battery(capability_contrast_rows(comparison, excluded)).items():
        groups = [find_group(comparison.grid, "capability", name, excluded, battery=battery) for name in CAPABILITY_DUO]
        for contrast in {str(row.contrast) for row in rows}:
            bounded = _BoundedMeasure(comparison, _MEASURES[contrast])
            if not any(bounded.is_uncertain(group) for group in groups):
                continue
            sides = [bounded.of(group) for group in groups]
            for row in rows:
                pair = [side.get((row.weighting, row.population)) for side in sides]
                if row.contrast == contrast and pair[0] is not None and pair[1] is not None:
                    yield _contrast_row(row, pair[0], pair[1])


def _rows_by_battery(rows: Iterable[EstimateRow]) -> dict[str, list[EstimateRow]]:
    """The rows that hold a number, by battery."""
    by_battery: dict[str, list[EstimateRow]] = {}
    for row in rows:
        if row.estimate.status != "refused":
            by_battery.setdefault(row.group, []).append(row)
    return by_battery


def _contrast_row(row: EstimateRow, knowledge: _Bounds, reasoning: _Bounds) -> EstimateRow:
    """The bounds row beside the plain row of a contrast; gaps are set against each other the other way round."""
    sides = [knowledge.bounds, reasoning.bounds]
    names = CAPABILITY_DUO
    if row.contrast == GAP.quantity:
        sides, names = sides[::-1], names[::-1]
    bounds = contrast_bounds(row.estimate, sides[0], sides[1], names)
    causes = tuple(dict.fromkeys((*knowledge.causes, *reasoning.causes)))
    qualifiers = _qualifiers(row.estimate, bounds, causes)
    shares = {"knowledge": dict(knowledge.shares), "reasoning": dict(reasoning.shares)}
    return replace(row, estimate=bounds.noting(*qualifiers), factors=tuple(shares.items()), estimator="bounds")


def _qualifiers(plain: Estimate, bounds: Estimate, causes: tuple[str, ...]) -> tuple[Remark, ...]:
    """What the plain number must say of its bounds; nothing where it says nothing itself."""
    if plain.status != "ok":
        return ()
    if bounds.status != "ok":
        return (remark(Reason.NUMBER_RESTS_ON_ANSWERS, what=causes),)
    figures = {"what": causes, "low": bounds.conf_low, "high": bounds.conf_high}
    if has_both_signs(bounds) and not has_both_signs(plain):
        return (remark(Reason.SIGN_RESTS_ON_ANSWERS, **figures),)
    return (remark(Reason.WORST_CASES, **figures),)


def _format_share(comparison: RoleComparison, subset: AnalysisSet) -> float:
    """How much of teacher - base the base's unreadable answers make, net of the teacher's; 0 where neither leads."""
    grid = comparison.grid
    unreadable = {}
    for role in ("teacher", "base"):
        column = grid.column(comparison.roles[role])
        unreadable[role] = grid.deficits.unreadable(column, grid.scores[:, column])[subset.rows]
    scores = comparison.scores(("teacher", "base"), subset)
    part, room = subset.fit(
        np.column_stack([unreadable["base"] - unreadable["teacher"], scores["teacher"] - scores["base"]])
    ).theta
    return float(part / room) if part > 0 and room > 0 else 0.0
