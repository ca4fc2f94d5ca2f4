"""The numbers of one model or one student in every group."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from capgap import schema
from capgap.analysis.analysis_sets import MIN_COMMON_SHARE, AnalysisSet, AnalysisSets
from capgap.analysis.estimate_rows import EstimateRow
from capgap.analysis.groups import ItemGroup
from capgap.analysis.score_matrix import ScoreMatrix
from capgap.stats import Estimate, ratio_of_means, refused

__all__ = ["RoleComparison", "accuracy_rows", "difference_rows", "group_note", "paired_rows", "ratio_rows"]

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

    cuts: AnalysisSets
    """Everybody's answers, and the cuts made of them so far."""
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
        return self.cuts.grid

    @classmethod
    def of(
        cls, cuts: AnalysisSets, student: str, roles: schema.Roles, *, conf_level: float, prompting: Mapping[str, str]
    ) -> "RoleComparison":
        """The comparison of one student of several."""
        found = {
            "teacher": roles.teacher,
            "student": student,
            "base": roles.base.get(student),
            "control": roles.control.get(student),
        }
        return cls(cuts, student, {k: v for k, v in found.items() if v is not None}, conf_level, prompting)

    def has(self, *roles: str) -> bool:
        """Whether all these roles are taken."""
        return all(role in self.roles for role in roles)

    def players(self, *roles: str) -> tuple[tuple[str, str], ...]:
        """Role and model of these roles."""
        return tuple((role, self.roles[role]) for role in roles)

    def score(self, role: str, cut: AnalysisSet) -> Floats:
        """Scores of a role on the rows of a cut."""
        return self.grid.of(self.roles[role])[cut.rows]

    def prompting_note(self, *roles: str) -> str:
        """A warning where the compared models were prompted differently; empty otherwise or where unknown."""
        known = {role: self.prompting[self.roles[role]] for role in roles if self.roles[role] in self.prompting}
        return f"{' and '.join(known)} were prompted differently" if len(set(known.values())) > 1 else ""


def group_note(group: ItemGroup) -> str:
    """Which tasks of a group the guard left out, and how many strays; empty where none."""
    said = []
    if group.left_out:
        said.append(f"left out for over 5 % unparsed or truncated answers: {', '.join(group.left_out)}")
    if group.strays:
        said.append(f"left out as too few of their task: {group.strays} of {group.name}")
    return "; ".join(said)


def accuracy_rows(
    cuts: AnalysisSets, groups: Iterable[ItemGroup], model: str, *, conf_level: float
) -> Iterator[EstimateRow]:
    """`accuracy` of one model in every group; chance, where known, is what it is tested against."""
    grid = cuts.grid
    scores = grid.of(model)
    for group in groups:
        found = cuts.select(group.rows, [model])
        if not len(found.rows):
            asked = grid.present[group.rows, grid.column(model)].any()
            if asked or group.left_out:
                reason = group_note(group) or "no scored item"
                yield EstimateRow(
                    "accuracy", group.level, group.name, model, refused(reason), 0, weighting=_only(group)
                )
            continue
        missing = "" if found.share == 1 else f"scored: {100 * found.share:.1f} % of its items"
        for cut in cuts.of(group, found.rows):
            estimate = cut.accuracy(scores[cut.rows], grid.chance[cut.rows], conf_level=conf_level)
            yield EstimateRow(
                quantity="accuracy",
                level=group.level,
                group=group.name,
                model=model,
                estimate=estimate.noting(missing, group_note(group)),
                n_tasks=cut.n_tasks,
                weighting=cut.weighting,
                population=cut.population,
            )


def paired_rows(
    comparison: RoleComparison,
    group: ItemGroup,
    quantity: str,
    contrast: str,
    roles: tuple[str, ...],
    number: Callable[[AnalysisSet], Estimate],
    *,
    scale: str = "score",
) -> Iterator[EstimateRow]:
    """Rows of one paired quantity in one group: refused below `MIN_COMMON_SHARE`, else `number` of each cut."""
    grid = comparison.grid
    blank = EstimateRow(
        quantity=quantity,
        level=group.level,
        group=group.name,
        model=comparison.student,
        estimate=refused("nothing computed"),
        n_tasks=0,
        contrast=contrast,
        roles=comparison.players(*roles),
        scale=scale,
        weighting=_only(group),
    )
    found = comparison.cuts.select(group.rows, [comparison.roles[role] for role in roles])
    if not len(found.rows) or found.share < MIN_COMMON_SHARE:
        if not len(group.rows) and not group.left_out:
            return
        estimate = refused(_too_few(found.share, roles, group), n_items=len(np.unique(grid.item[found.rows])))
        yield replace(blank, estimate=estimate)
        return
    notes = (found.told(f"all of {', '.join(roles)}"), group_note(group), comparison.prompting_note(*roles))
    for cut in comparison.cuts.of(group, found.rows):
        yield replace(
            blank,
            estimate=number(cut).noting(*notes),
            n_tasks=cut.n_tasks,
            weighting=cut.weighting,
            population=cut.population,
        )


def difference_rows(comparison: RoleComparison, groups: Iterable[ItemGroup]) -> Iterator[EstimateRow]:
    """`gap`, `base_gap`, `gain` and `teacher_effect` in every group, as far as the roles are taken."""
    for group in groups:
        for quantity, (first, second) in _DIFFERENCES.items():
            if not comparison.has("student", first, second):
                continue

            def number(cut: AnalysisSet, first: str = first, second: str = second) -> Estimate:
                values = comparison.score(first, cut) - comparison.score(second, cut)
                return cut.difference(values, conf_level=comparison.conf_level)

            yield from paired_rows(comparison, group, quantity, f"{first} - {second}", (first, second), number)


def closure_columns(comparison: RoleComparison, cut: AnalysisSet) -> Floats:
    """Numerator and denominator of gap closure, row by row."""
    teacher, student, base = (comparison.score(role, cut) for role in ("teacher", "student", "base"))
    return np.column_stack([student - base, teacher - base])


def retention_columns(comparison: RoleComparison, cut: AnalysisSet) -> Floats:
    """Numerator and denominator of retention, row by row; NaN where chance is unknown."""
    chance = comparison.grid.chance[cut.rows]
    return np.column_stack([comparison.score(role, cut) - chance for role in ("student", "teacher")])


def ratio_rows(comparison: RoleComparison, groups: Iterable[ItemGroup]) -> Iterator[EstimateRow]:
    """`gap_closure` and `retention` in every group, as far as the roles are taken."""

    def closure(cut: AnalysisSet) -> Estimate:
        fit = cut.fit(closure_columns(comparison, cut))
        found = ratio_of_means(fit, denominator="teacher − base", conf_level=comparison.conf_level)
        return replace(found, n_items=cut.n_items)

    def retention(cut: AnalysisSet) -> Estimate:
        columns = retention_columns(comparison, cut)
        if reason := unknown_chance(comparison.grid, cut, columns):
            return refused(reason, n_items=cut.n_items)
        found = ratio_of_means(cut.fit(columns), denominator="teacher − chance", conf_level=comparison.conf_level)
        return replace(found, n_items=cut.n_items)

    for group in groups:
        if comparison.has("teacher", "base"):
            contrast = "(student - base) / (teacher - base)"
            three = ("teacher", "student", "base")
            yield from paired_rows(comparison, group, "gap_closure", contrast, three, closure, scale="ratio")
        if comparison.has("teacher"):
            contrast = "(student - chance) / (teacher - chance)"
            yield from paired_rows(
                comparison, group, "retention", contrast, ("teacher", "student"), retention, scale="ratio"
            )


def unknown_chance(grid: ScoreMatrix, cut: AnalysisSet, columns: Floats) -> str:
    """Why retention is refused, where chance is unknown; empty where it is known throughout."""
    unknown: NDArray[np.bool_] = ~np.asarray(np.isfinite(columns).all(axis=1))
    if not unknown.any():
        return ""
    if unknown.all():
        return "chance is unknown"
    tasks = [grid.tasks[code] for code in np.unique(cut.strata[unknown])]
    named = ", ".join(tasks[:3]) + (f" and {len(tasks) - 3} more" if len(tasks) > 3 else "")
    return f"chance is unknown for {int(unknown.sum())} of {len(unknown)} items ({named})"


def _only(group: ItemGroup) -> str:
    """The weighting under which a refused number stands, once."""
    return "tasks" if group.over_tasks else "items"


def _too_few(share: float, roles: tuple[str, ...], group: ItemGroup) -> str:
    if not len(group.rows):
        return group_note(group)
    if not share > 0:
        return f"no item that all of {', '.join(roles)} answered"
    return f"only {100 * share:.0f} % of the items were answered by all of {', '.join(roles)} (60 % are needed)"
