"""Recipes by their training seeds: gap, gain, closure, retention and flips of a recipe, not of one checkpoint."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from capgap import schema
from capgap.analysis.analysis_sets import AnalysisSet, SubsetCache
from capgap.analysis.cohort import Cohort, Recipe
from capgap.analysis.estimate_rows import RECIPE_POPULATION, THESE_TASKS, EstimateRow
from capgap.analysis.groups import ItemGroup, groups_at, groups_of
from capgap.analysis.recipe_comparison import recipe_comparison_rows, student_contrast_rows
from capgap.analysis.score_matrix import Floats, Ints, ScoreMatrix
from capgap.analysis.student_estimates import chance_unknown
from capgap.schema.remarks import Reason, Remark, remark
from capgap.stats import MIN_SEEDS, Estimate, flip_list, flips_beyond_seeds, refused, seed_difference, seed_ratio

__all__ = ["recipe_rows"]

_MAX_LISTED_ITEMS = 30  # items named in a note


def recipe_rows(
    grid: ScoreMatrix, cohort: Cohort, roles: schema.Roles, excluded: frozenset[str], *, conf_level: float
) -> Iterator[EstimateRow]:
    """Rows of recipes of three seeds or more, each alone and against each other, and of pairs of single students.

    Parameters
    ----------
    grid
        Everybody's outcomes.
    cohort
        The students.
    roles
        Teacher and bases.
    excluded
        Tasks left out for unreadable answers.
    conf_level
        Of every interval, which counts seeds and items.
    """
    subsets = SubsetCache(grid)
    for recipe in cohort.trainings():
        if len(recipe.students) >= MIN_SEEDS and (refusal := cohort.seed_refusal(recipe.students)):
            # Checkpoints of one run, or students of which little is known, would pass for seeds.
            battery = next(groups_at(grid, "battery", excluded))
            empty_estimate = refused(refusal, n_items=len(battery.rows))
            n_tasks = len(np.unique(grid.task[battery.rows]))
            yield replace(_blank_row(battery, recipe), estimate=empty_estimate, n_tasks=n_tasks, n_seeds=None)
    recipes = cohort.seeded_recipes()
    for recipe in recipes:
        comparison = _RecipeComparison.of(subsets, recipe, roles, conf_level)
        for group in _groups_of_recipe(grid, recipe, excluded):
            rows = [*comparison.number_rows(group)]
            if comparison.base is not None and group.level in ("battery", "capability"):
                rows += _flip_rows(subsets, recipe, group, comparison.base, conf_level)
            yield from (replace(row, estimate=row.estimate.noting(*cohort.remarks)) for row in rows)
    yield from recipe_comparison_rows(subsets, recipes, excluded, conf_level=conf_level)
    of_recipes = {student for recipe in recipes for student in recipe.students}
    single_students = [s for s in roles.students if s not in of_recipes and s not in cohort.earlier_checkpoints]
    yield from student_contrast_rows(subsets, single_students, excluded, conf_level=conf_level)


def _groups_of_recipe(grid: ScoreMatrix, recipe: Recipe, excluded: frozenset[str]) -> Iterator[ItemGroup]:
    """Every group of every level, without slices by what differs between the seeds (what each saw of an item)."""
    columns = [grid.column(student) for student in recipe.students]
    differing = tuple(
        f": {name}=" for name, bins in grid.covariates.items() if (bins[:, columns] != bins[:, columns[:1]]).any()
    )
    for group in groups_of(grid, recipe.students[0], excluded):
        if not (group.level == "slice" and any(covariate in group.name for covariate in differing)):
            yield group


def _blank_row(group: ItemGroup, recipe: Recipe) -> EstimateRow:
    return EstimateRow(
        quantity="gap",
        level=group.level,
        group=group.name,
        model=None,
        estimate=refused(),
        n_tasks=0,
        contrast="teacher - student",
        factors=(*recipe.factors, ("recipe_name", recipe.name)),
        weighting="tasks" if group.spans_tasks else "items",
        subject="recipe",
        population=RECIPE_POPULATION,
        n_students=len(recipe.students),
        n_seeds=len(recipe.students),
    )


@dataclass(frozen=True)
class _RecipeComparison:
    """A recipe with those that it is compared with."""

    subsets: SubsetCache
    recipe: Recipe
    teacher: str | None
    base: str | None
    """The base of all its students; None where they have several."""
    conf_level: float

    @classmethod
    def of(cls, subsets: SubsetCache, recipe: Recipe, roles: schema.Roles, conf_level: float) -> "_RecipeComparison":
        bases = {roles.base.get(name) for name in recipe.students}
        return cls(subsets, recipe, roles.teacher, next(iter(bases)) if len(bases) == 1 else None, conf_level)

    def number_rows(self, group: ItemGroup) -> Iterator[EstimateRow]:
        """`gap`, `gain`, `gap_closure` and `retention` in one group, as far as the roles are taken."""
        for quantity, contrast, others, scale, estimator in (
            ("gap", "teacher - student", ("teacher",), "score", self._gap),
            ("gain", "student - base", ("base",), "score", self._gain),
            ("gap_closure", "(student - base) / (teacher - base)", ("teacher", "base"), "ratio", self._closure),
            ("retention", "(student - chance) / (teacher - chance)", ("teacher",), "ratio", self._retention),
        ):
            models = [getattr(self, role) for role in others]
            if None not in models and (len(group.rows) or group.left_out):
                blank = replace(_blank_row(group, self.recipe), quantity=quantity, contrast=contrast, scale=scale)
                yield from self._rows(group, blank, (*others, "seeds"), models, estimator)

    def _rows(
        self,
        group: ItemGroup,
        blank: EstimateRow,
        role_names: tuple[str, ...],
        models: list[str],
        estimator: Callable[[AnalysisSet], Estimate],
    ) -> Iterator[EstimateRow]:
        """One row a weighting; one refusal where too few cells are common."""
        common_cells = self.subsets.select(group.rows, [*models, *self.recipe.students])
        if refusal := common_cells.refusal(role_names) if len(group.rows) else group.remarks:
            yield replace(blank, estimate=refused(*refusal, n_items=len(common_cells.rows)))
            return
        for subset in self.subsets.of(replace(group, generalizes=False), common_cells.rows):
            estimate = replace(estimator(subset), n_items=subset.n_items)
            estimate = estimate.noting(*common_cells.information(role_names), *group.remarks)
            yield replace(blank, estimate=estimate, n_tasks=subset.n_tasks, weighting=subset.weighting)

    def _scores(self, model: str | None, subset: AnalysisSet) -> Floats:
        assert model is not None
        return np.asarray(self.subsets.grid.of(model)[subset.rows])

    def _seeds(self, subset: AnalysisSet) -> Floats:
        """Scores of every seed, shape (seeds, cells)."""
        return np.stack([self._scores(student, subset) for student in self.recipe.students])

    def _gap(self, subset: AnalysisSet) -> Estimate:
        differences = self._scores(self.teacher, subset) - self._seeds(subset)
        return seed_difference(differences, subset.design, conf_level=self.conf_level)

    def _gain(self, subset: AnalysisSet) -> Estimate:
        differences = self._seeds(subset) - self._scores(self.base, subset)
        return seed_difference(differences, subset.design, conf_level=self.conf_level)

    def _closure(self, subset: AnalysisSet) -> Estimate:
        base = self._scores(self.base, subset)
        room, gains = self._scores(self.teacher, subset) - base, self._seeds(subset) - base
        return seed_ratio(gains, room, subset.design, denominator="teacher − base", conf_level=self.conf_level)

    def _retention(self, subset: AnalysisSet) -> Estimate:
        grid, chance = self.subsets.grid, self.subsets.grid.chance[subset.rows]
        if refusal := chance_unknown(grid, subset, chance[:, None]):
            return refused(*refusal)
        above, teacher = self._seeds(subset) - chance, self._scores(self.teacher, subset) - chance
        return seed_ratio(above, teacher, subset.design, denominator="teacher − chance", conf_level=self.conf_level)


def _flip_rows(
    subsets: SubsetCache, recipe: Recipe, group: ItemGroup, base: str, conf_level: float
) -> Iterator[EstimateRow]:
    grid, role_names = subsets.grid, ("base", "seeds")
    cells = subsets.select(group.rows, [base, *recipe.students])
    baseline, students = grid.of(base)[cells.rows], np.stack([grid.of(name)[cells.rows] for name in recipe.students])
    if cells.refusal(role_names) or not np.isin(baseline, (0.0, 1.0)).all() or not np.isin(students, (0.0, 1.0)).all():
        return  # the gain says why, where items are too few
    subset = AnalysisSet.of(grid, cells.rows, "tasks", THESE_TASKS)
    flips = flips_beyond_seeds(baseline, students, subset.design, conf_level=conf_level)
    disagreement = remark(Reason.SEED_DISAGREEMENT, share=100 * flips.seed_disagreement)
    flip_shares = {
        "lost": (flips.loss_rate, "base right, student wrong, minus what seeds lose against each other"),
        "gained": (flips.gain_rate, "base wrong, student right, minus what seeds lose against each other"),
    }
    for quantity, (share, contrast) in flip_shares.items():
        estimate = replace(share, n_items=subset.n_items).noting(disagreement, *cells.information(role_names))
        blank = replace(_blank_row(group, recipe), quantity=quantity, contrast=contrast, n_tasks=subset.n_tasks)
        yield replace(blank, estimate=estimate)
        shortlist = flip_list(baseline, students, direction=quantity)
        if shortlist.status != "refused":
            count = Estimate(float(len(shortlist.items)), n_items=shortlist.n_candidates, method="empirical Bayes list")
            yield replace(
                blank,
                quantity=f"items_{quantity}",
                contrast=f"{quantity} whichever seed",
                scale="items",
                estimate=count.noting(_listed_items_remark(grid, cells.rows[shortlist.items])),
                population=RECIPE_POPULATION._replace(items="these_items"),
            )


def _listed_items_remark(grid: ScoreMatrix, rows: Ints) -> Remark:
    """Tasks and items, the surest first."""
    if not len(rows):
        return remark(Reason.NO_SURE_ITEM)
    names = [f"{grid.tasks[grid.task[row]]}/{grid.items[row]}" for row in rows[:_MAX_LISTED_ITEMS]]
    overflow_text = f" and {len(rows) - _MAX_LISTED_ITEMS} more" if len(rows) > _MAX_LISTED_ITEMS else ""
    return remark(Reason.LISTED_ITEMS, items=names, more=overflow_text)
