"""Accuracy of one model, and differences and ratios of one student and its roles, in every group."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from capgap import schema
from capgap.analysis.analysis_sets import AnalysisSet, SubsetCache
from capgap.analysis.estimate_rows import THESE_TASKS, WITH_UNREADABLE_TASKS, EstimateRow, KeyValuePairs
from capgap.analysis.groups import ItemGroup
from capgap.analysis.score_matrix import Floats, ScoreMatrix
from capgap.schema.quantities import QUANTITIES
from capgap.schema.remarks import Reason, Remark, remark
from capgap.stats import Estimate, ratio_of_means, refused

__all__ = [
    "CLOSURE",
    "GAIN",
    "GAP",
    "RETENTION",
    "ROOM",
    "Measure",
    "RoleComparison",
    "accuracy_rows",
    "difference_rows",
    "measure_rows",
    "paired_rows",
    "ratio_rows",
]


@dataclass(frozen=True)
class RoleComparison:
    """A student with those that it is compared with."""

    subsets: SubsetCache
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
        return self.subsets.grid

    @classmethod
    def of(
        cls, subsets: SubsetCache, student: str, roles: schema.Roles, *, conf_level: float, prompting: Mapping[str, str]
    ) -> "RoleComparison":
        """The comparison of one student of several."""
        models = {
            "teacher": roles.teacher,
            "student": student,
            "base": roles.base.get(student),
            "control": roles.control.get(student),
        }
        return cls(subsets, student, {k: v for k, v in models.items() if v is not None}, conf_level, prompting)

    def has_roles_for(self, quantity: str) -> bool:
        """Whether the roles are taken that the quantity needs."""
        return all(role in self.roles for role in QUANTITIES[quantity].roles)

    def list_role_models(self, *roles: str) -> KeyValuePairs:
        """Role and model of these roles."""
        return tuple((role, self.roles[role]) for role in roles)

    def scores(self, roles: Iterable[str], subset: AnalysisSet) -> dict[str, Floats]:
        """Scores of some roles on the rows of an analysis set, each of shape (rows,)."""
        return {role: self.score(role, subset) for role in roles}

    def score(self, role: str, subset: AnalysisSet) -> Floats:
        """Scores of a role on the rows of an analysis set, shape (rows,)."""
        return self.grid.of(self.roles[role])[subset.rows]

    def prompting_remarks(self, *roles: str) -> tuple[Remark, ...]:
        """A warning where the compared models were prompted differently; empty otherwise or where unknown."""
        role_prompts = {role: self.prompting[self.roles[role]] for role in roles if self.roles[role] in self.prompting}
        prompts_differ = len(set(role_prompts.values())) > 1
        return (remark(Reason.PROMPTED_DIFFERENTLY, roles=tuple(role_prompts)),) if prompts_differ else ()


def accuracy_rows(
    subsets: SubsetCache, item_groups: Iterable[ItemGroup], model: str, *, conf_level: float
) -> Iterator[EstimateRow]:
    """`accuracy` of one model in every group; chance, where known, is what it is tested against."""
    grid = subsets.grid
    scores = grid.of(model)
    for group in (item_group.whole for item_group in item_groups):
        scored = subsets.select(group.rows, [model])
        empty_estimate = refused(*(group.remarks or (remark(Reason.NO_ITEMS),)))
        blank = EstimateRow("accuracy", group.level, group.name, model, empty_estimate, 0, weighting=_weighting(group))
        if not len(scored.rows) and grid.is_asked[group.rows, grid.column(model)].any():
            yield blank
        scored_share_remarks = () if scored.share == 1 else (remark(Reason.SCORED_SHARE, share=100 * scored.share),)
        for subset in subsets.of(group, scored.rows):
            estimate = subset.accuracy(scores[subset.rows], grid.chance[subset.rows], conf_level=conf_level)
            yield _fill_estimate_row(blank, subset, estimate.noting(*scored_share_remarks, *group.remarks))


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
    """Rows of one paired quantity in one group: refused where too few cells are common, else one an analysis set.

    Where tasks are set aside since the teacher could not be read, a further row has the number with them.
    """
    group = group.of_roles(roles)
    yield from _rows_of_group(comparison, group, quantity, contrast, roles, estimator, scale)
    if group.undivided is not None:
        counted = remark(Reason.UNREADABLE_TASKS_COUNTED, tasks=group.set_aside)
        for row in _rows_of_group(comparison, group.undivided, quantity, contrast, roles, estimator, scale):
            if row.weighting == _weighting(group) and row.population == THESE_TASKS:
                yield replace(row, estimate=row.estimate.noting(counted), population=WITH_UNREADABLE_TASKS)


def _rows_of_group(
    comparison: RoleComparison,
    group: ItemGroup,
    quantity: str,
    contrast: str,
    roles: tuple[str, ...],
    estimator: Callable[[AnalysisSet], Estimate],
    scale: str,
) -> Iterator[EstimateRow]:
    models = [comparison.roles[role] for role in roles]
    common_cells = comparison.subsets.select(group.rows, models, student=comparison.student)
    refusal = common_cells.refusal(roles) if len(group.rows) else group.remarks if group.set_aside else ()
    blank = EstimateRow(
        quantity=quantity,
        level=group.level,
        group=group.name,
        model=comparison.student,
        estimate=refused(*refusal, n_items=len(np.unique(comparison.grid.item[common_cells.rows])) if refusal else 0),
        n_tasks=0,
        contrast=contrast,
        roles=comparison.list_role_models(*roles),
        scale=scale,
        weighting=_weighting(group),
    )
    if refusal:
        yield blank
        return
    # Shares, tasks left out and prompting are the same for every weighting of the group.
    remarks = (*common_cells.get_share_remarks(roles), *group.remarks, *comparison.prompting_remarks(*roles))
    for subset in comparison.subsets.of(group, common_cells.rows):
        yield _fill_estimate_row(blank, subset, estimator(subset).noting(*remarks))


def _fill_estimate_row(blank: EstimateRow, subset: AnalysisSet, estimate: Estimate) -> EstimateRow:
    return replace(
        blank,
        estimate=estimate,
        n_tasks=subset.n_tasks,
        weighting=subset.weighting,
        population=subset.population,
    )


def _weighting(group: ItemGroup) -> str:
    """The weighting under which a refused number stands, once."""
    return "tasks" if group.spans_tasks else "items"


Scores = Mapping[str, Floats]
"""Role → its scores on the rows of an analysis set, shape (rows,)."""


@dataclass(frozen=True)
class Measure:
    """One paired quantity of a student and its roles, as a function of their scores."""

    quantity: str
    """Its name in `QUANTITIES`."""
    contrast: str
    """The formula, for people."""
    roles: tuple[str, ...]
    """Whose scores it takes."""
    of_scores: Callable[[ScoreMatrix, AnalysisSet, Scores, float], Estimate]
    """Grid, analysis set, scores and confidence level to the number."""
    scale: str = "score"

    def estimate(self, comparison: RoleComparison, subset: AnalysisSet, scores: Scores | None = None) -> Estimate:
        """The number on an analysis set: of the scores as they stand, or of others in their place."""
        values = comparison.scores(self.roles, subset) if scores is None else scores
        return self.of_scores(comparison.grid, subset, values, comparison.conf_level)


def measure_rows(
    comparison: RoleComparison, item_groups: Iterable[ItemGroup], measures: Iterable[Measure]
) -> Iterator[EstimateRow]:
    """Some measures in every group, as far as the roles are taken."""
    taken = [measure for measure in measures if comparison.has_roles_for(measure.quantity)]
    for group in item_groups:
        for measure in taken:
            estimator = partial(measure.estimate, comparison)
            yield from paired_rows(
                comparison, group, measure.quantity, measure.contrast, measure.roles, estimator, scale=measure.scale
            )


def difference_rows(comparison: RoleComparison, item_groups: Iterable[ItemGroup]) -> Iterator[EstimateRow]:
    """`gap`, `base_gap`, `gain` and `teacher_effect` in every group, as far as the roles are taken."""
    return measure_rows(comparison, item_groups, (GAP, ROOM, GAIN, TEACHER_EFFECT))


def ratio_rows(comparison: RoleComparison, item_groups: Iterable[ItemGroup]) -> Iterator[EstimateRow]:
    """`gap_closure` and `retention` in every group, as far as the roles are taken."""
    return measure_rows(comparison, item_groups, (CLOSURE, RETENTION))


def _difference(quantity: str, role: str, reference: str) -> Measure:
    def difference(grid: ScoreMatrix, subset: AnalysisSet, scores: Scores, conf_level: float) -> Estimate:
        return subset.difference(scores[role] - scores[reference], conf_level=conf_level)

    return Measure(quantity, f"{role} - {reference}", (role, reference), difference)


def stack_closure_terms(scores: Scores) -> Floats:
    """Numerator and denominator of gap closure, shape (rows, 2)."""
    return np.column_stack([scores["student"] - scores["base"], scores["teacher"] - scores["base"]])


def stack_retention_terms(scores: Scores, chance: Floats) -> Floats:
    """Numerator and denominator of retention, shape (rows, 2); NaN where chance is unknown."""
    return np.column_stack([scores[role] - chance for role in ("student", "teacher")])


def _closure(grid: ScoreMatrix, subset: AnalysisSet, scores: Scores, conf_level: float) -> Estimate:
    ratio = ratio_of_means(subset.fit(stack_closure_terms(scores)), denominator="teacher − base", conf_level=conf_level)
    return replace(ratio, n_items=subset.n_items)


def _retention(grid: ScoreMatrix, subset: AnalysisSet, scores: Scores, conf_level: float) -> Estimate:
    columns = stack_retention_terms(scores, grid.chance[subset.rows])
    if refusal := chance_unknown(grid, subset, columns):
        return refused(*refusal, n_items=subset.n_items)
    ratio = ratio_of_means(subset.fit(columns), denominator="teacher − chance", conf_level=conf_level)
    return replace(ratio, n_items=subset.n_items).noting(*declared_guesses(grid, subset))


GAP = _difference("gap", "teacher", "student")
ROOM = _difference("base_gap", "teacher", "base")
GAIN = _difference("gain", "student", "base")
TEACHER_EFFECT = _difference("teacher_effect", "student", "control")
CLOSURE = Measure(
    "gap_closure", "(student - base) / (teacher - base)", ("teacher", "student", "base"), _closure, "ratio"
)
RETENTION = Measure("retention", "(student - chance) / (teacher - chance)", ("teacher", "student"), _retention, "ratio")


def declared_guesses(grid: ScoreMatrix, subset: AnalysisSet) -> tuple[Remark, ...]:
    """What a guess counts where answers are generated; empty where nobody declares one."""
    is_generated = np.asarray(grid.facts["format"][subset.rows] == "generate")
    chance = grid.chance[subset.rows]
    is_guessed = is_generated & (chance > 0)
    if not is_guessed.any():
        return ()
    span = {"low": float(chance[is_guessed].min()), "high": float(chance[is_guessed].max())}
    tasks = [grid.tasks[code] for code in np.unique(subset.strata[is_guessed])]
    n_guessed, n_generated = int(is_guessed.sum()), int(is_generated.sum())
    return (remark(Reason.GUESS_DECLARED, n=n_guessed, of=n_generated, tasks=tasks, **span),)


def chance_unknown(grid: ScoreMatrix, subset: AnalysisSet, columns: Floats) -> tuple[Remark, ...]:
    """Why retention is refused: of how many items, and in which tasks, chance is unknown; empty where it is known."""
    unknown: NDArray[np.bool_] = ~np.asarray(np.isfinite(columns).all(axis=1))
    if not unknown.any():
        return ()
    tasks = [grid.tasks[code] for code in np.unique(subset.strata[unknown])]
    return (remark(Reason.CHANCE_UNKNOWN_FOR_ITEMS, n=int(unknown.sum()), of=len(unknown), tasks=tasks),)
