"""Accuracy of one model, and differences and ratios of one student and its roles, in every group."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from capgap import schema
from capgap.analysis.analysis_sets import AnalysisSet, AnalysisSets
from capgap.analysis.estimate_rows import EstimateRow, Pairs
from capgap.analysis.groups import ItemGroup
from capgap.analysis.score_matrix import ScoreMatrix
from capgap.schema.quantities import QUANTITIES
from capgap.schema.remarks import Reason, Remark, remark
from capgap.stats import Estimate, ratio_of_means, refused

__all__ = ["RoleComparison", "accuracy_rows", "difference_rows", "paired_rows", "ratio_rows"]

Floats = NDArray[np.float64]

_DIFFERENCES = {
    "gap": ("teacher", "student"),
    "base_gap": ("teacher", "base"),
    "gain": ("student", "base"),
    "teacher_effect": ("student", "control"),
}


@dataclass(frozen=True)
class RoleComparison:
    """A student with those that it is compared with."""

    sets: AnalysisSets
    """Everybody's answers, and the analysis sets built of them so far."""
    student: str
    """Name of the student."""
    roles: dict[str, str]
    """Role → model, for the roles that this student has; ``student`` among them."""
    conf_level: float
    """Of every interval."""
    prompting: Mapping[str, str] = field(default_factory=dict)
    """Model → how it was prompted, where known."""

    @property
    def grid(self) -> ScoreMatrix:
        """Everybody's answers."""
        return self.sets.grid

    @classmethod
    def of(
        cls, sets: AnalysisSets, student: str, roles: schema.Roles, *, conf_level: float, prompting: Mapping[str, str]
    ) -> "RoleComparison":
        """The comparison of one student of several."""
        models = {
            "teacher": roles.teacher,
            "student": student,
            "base": roles.base.get(student),
            "control": roles.control.get(student),
        }
        return cls(sets, student, {k: v for k, v in models.items() if v is not None}, conf_level, prompting)

    def can(self, quantity: str) -> bool:
        """Whether the roles are taken that the quantity needs."""
        return all(role in self.roles for role in QUANTITIES[quantity].roles)

    def players(self, *roles: str) -> Pairs:
        """Role and model of these roles."""
        return tuple((role, self.roles[role]) for role in roles)

    def score(self, role: str, subset: AnalysisSet) -> Floats:
        """Scores of a role on the rows of an analysis set, shape (rows,)."""
        return self.grid.of(self.roles[role])[subset.rows]

    def prompting_remarks(self, *roles: str) -> tuple[Remark, ...]:
        """A warning where the compared models were prompted differently; empty otherwise or where unknown."""
        known = {role: self.prompting[self.roles[role]] for role in roles if self.roles[role] in self.prompting}
        differ = len(set(known.values())) > 1
        return (remark(Reason.PROMPTED_DIFFERENTLY, roles=tuple(known)),) if differ else ()


def accuracy_rows(
    sets: AnalysisSets, groups: Iterable[ItemGroup], model: str, *, conf_level: float
) -> Iterator[EstimateRow]:
    """`accuracy` of one model in every group; chance, where known, is what it is tested against."""
    grid = sets.grid
    scores = grid.of(model)
    for group in groups:
        scored = sets.select(group.rows, [model])
        nothing = refused(*(group.remarks or (remark(Reason.NO_ITEMS),)))
        blank = EstimateRow("accuracy", group.level, group.name, model, nothing, 0, weighting=_weighting(group))
        if not len(scored.rows) and (group.left_out or grid.present[group.rows, grid.column(model)].any()):
            yield blank
        partly = () if scored.share == 1 else (remark(Reason.SCORED_SHARE, share=100 * scored.share),)
        for subset in sets.of(group, scored.rows):
            estimate = subset.accuracy(scores[subset.rows], grid.chance[subset.rows], conf_level=conf_level)
            yield _in_set(blank, subset, estimate.noting(*partly, *group.remarks))


def paired_rows(
    comparison: RoleComparison,
    group: ItemGroup,
    quantity: str,
    contrast: str,
    roles: tuple[str, ...],
    estimator: Callable[[AnalysisSet], Estimate],
    *,
    scale: str = "score",
) -> Iterator[EstimateRow]:
    """Rows of one paired quantity in one group: refused where too few cells are common, else one an analysis set."""
    common = comparison.sets.select(group.rows, [comparison.roles[role] for role in roles])
    why_not = common.refusal(roles) if len(group.rows) else group.remarks if group.left_out else ()
    blank = EstimateRow(
        quantity=quantity,
        level=group.level,
        group=group.name,
        model=comparison.student,
        estimate=refused(*why_not, n_items=len(np.unique(comparison.grid.item[common.rows])) if why_not else 0),
        n_tasks=0,
        contrast=contrast,
        roles=comparison.players(*roles),
        scale=scale,
        weighting=_weighting(group),
    )
    if why_not:
        yield blank
        return
    remarks = (*common.information(roles), *group.remarks, *comparison.prompting_remarks(*roles))
    for subset in comparison.sets.of(group, common.rows):
        yield _in_set(blank, subset, estimator(subset).noting(*remarks))


def _in_set(blank: EstimateRow, subset: AnalysisSet, estimate: Estimate) -> EstimateRow:
    return replace(
        blank,
        estimate=estimate,
        n_tasks=subset.n_tasks,
        weighting=subset.weighting,
        population=subset.population,
    )


def _weighting(group: ItemGroup) -> str:
    """The weighting under which a refused number stands, once."""
    return "tasks" if group.over_tasks else "items"


def difference_rows(comparison: RoleComparison, groups: Iterable[ItemGroup]) -> Iterator[EstimateRow]:
    """`gap`, `base_gap`, `gain` and `teacher_effect` in every group, as far as the roles are taken."""
    for group in groups:
        for quantity, (first, second) in _DIFFERENCES.items():
            if not comparison.can(quantity):
                continue

            def difference(subset: AnalysisSet, first: str = first, second: str = second) -> Estimate:
                values = comparison.score(first, subset) - comparison.score(second, subset)
                return subset.difference(values, conf_level=comparison.conf_level)

            yield from paired_rows(comparison, group, quantity, f"{first} - {second}", (first, second), difference)


def closure_columns(comparison: RoleComparison, subset: AnalysisSet) -> Floats:
    """Numerator and denominator of gap closure, shape (rows, 2)."""
    teacher, student, base = (comparison.score(role, subset) for role in ("teacher", "student", "base"))
    return np.column_stack([student - base, teacher - base])


def retention_columns(comparison: RoleComparison, subset: AnalysisSet) -> Floats:
    """Numerator and denominator of retention, shape (rows, 2); NaN where chance is unknown."""
    chance = comparison.grid.chance[subset.rows]
    return np.column_stack([comparison.score(role, subset) - chance for role in ("student", "teacher")])


def ratio_rows(comparison: RoleComparison, groups: Iterable[ItemGroup]) -> Iterator[EstimateRow]:
    """`gap_closure` and `retention` in every group, as far as the roles are taken."""

    def closure(subset: AnalysisSet) -> Estimate:
        fit = subset.fit(closure_columns(comparison, subset))
        ratio = ratio_of_means(fit, denominator="teacher − base", conf_level=comparison.conf_level)
        return replace(ratio, n_items=subset.n_items)

    def retention(subset: AnalysisSet) -> Estimate:
        columns = retention_columns(comparison, subset)
        if why_not := chance_unknown(comparison.grid, subset, columns):
            return refused(*why_not, n_items=subset.n_items)
        ratio = ratio_of_means(subset.fit(columns), denominator="teacher − chance", conf_level=comparison.conf_level)
        return replace(ratio, n_items=subset.n_items)

    measures = (
        ("gap_closure", "(student - base) / (teacher - base)", ("teacher", "student", "base"), closure),
        ("retention", "(student - chance) / (teacher - chance)", ("teacher", "student"), retention),
    )
    for group in groups:
        for quantity, contrast, roles, estimator in measures:
            if comparison.can(quantity):
                yield from paired_rows(comparison, group, quantity, contrast, roles, estimator, scale="ratio")


def chance_unknown(grid: ScoreMatrix, subset: AnalysisSet, columns: Floats) -> tuple[Remark, ...]:
    """Why retention is refused: of how many items, and in which tasks, chance is unknown; empty where it is known."""
    unknown: NDArray[np.bool_] = ~np.asarray(np.isfinite(columns).all(axis=1))
    if not unknown.any():
        return ()
    tasks = [grid.tasks[code] for code in np.unique(subset.strata[unknown])]
    return (remark(Reason.CHANCE_UNKNOWN_FOR_ITEMS, n=int(unknown.sum()), of=len(unknown), tasks=tasks),)
