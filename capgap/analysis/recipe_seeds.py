"""Recipes by their training seeds: gap, gain, closure, retention and flips of a recipe, not of one checkpoint."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from capgap import schema
from capgap.analysis.analysis_sets import AnalysisSet, SubsetCache
from capgap.analysis.cohort import Cohort, Recipe
from capgap.analysis.estimate_rows import THIS_RECIPE_POPULATION, EstimateRow
from capgap.analysis.groups import ItemGroup, groups_at, groups_of
from capgap.analysis.recipe_comparison import recipe_comparison_rows, student_contrast_rows
from capgap.analysis.recipe_flips import recipe_flip_rows
from capgap.analysis.score_matrix import Floats, ScoreMatrix
from capgap.analysis.student_estimates import chance_unknown
from capgap.stats import MIN_SEEDS, Estimate, refused, seed_difference, seed_ratio

__all__ = ["recipe_rows"]


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
        Tasks whose answers of the teacher could not be read: numbers of the teacher set them aside.
    conf_level
        Of every interval, which counts seeds and items.
    """
    subsets = SubsetCache(grid)
    for recipe in cohort.recipes_with_size():
        if len(recipe.students) >= MIN_SEEDS and (refusal := cohort.seed_refusal(recipe.students)):
            # Checkpoints of one run, or students of which little is known, would pass for seeds.
            battery = next(groups_at(grid, "battery", excluded)).whole
            empty_estimate = refused(refusal, n_items=len(battery.rows))
            n_tasks = len(np.unique(grid.task[battery.rows]))
            yield replace(_blank_row(battery, recipe), estimate=empty_estimate, n_tasks=n_tasks, n_seeds=None)
    recipes = cohort.seeded_recipes()
    for recipe in recipes:
        comparison = _RecipeComparison.of(subsets, recipe, roles, conf_level)
        for group in _groups_of_recipe(grid, recipe, excluded):
            rows = [*comparison.number_rows(group)]
            if comparison.base is not None and group.level in ("battery", "capability"):
                rows += recipe_flip_rows(
                    subsets, recipe, _blank_row(group, recipe), group, comparison.base, conf_level=conf_level
                )
            yield from (replace(row, estimate=row.estimate.noting(*cohort.remarks)) for row in rows)
    yield from recipe_comparison_rows(subsets, recipes, conf_level=conf_level)
    of_recipes = {student for recipe in recipes for student in recipe.students}
    single_students = [s for s in roles.students if s not in of_recipes and s not in cohort.earlier_checkpoints]
    yield from student_contrast_rows(subsets, single_students, conf_level=conf_level)


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
        population=THIS_RECIPE_POPULATION,
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
            role_group = group.of_roles(others)
            if None not in models and (len(role_group.rows) or role_group.set_aside):
                blank = replace(_blank_row(role_group, self.recipe), quantity=quantity, contrast=contrast, scale=scale)
                yield from self._rows(role_group, blank, (*others, "seeds"), models, estimator)

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
        for subset in self.subsets.of(group.of_these_tasks(), common_cells.rows):
            estimate = replace(estimator(subset), n_items=subset.n_items)
            estimate = estimate.noting(*common_cells.get_share_remarks(role_names), *group.remarks)
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
