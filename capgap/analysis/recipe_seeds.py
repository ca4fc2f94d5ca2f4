"""Recipes by their training seeds: gap, gain and flips of a recipe, not of one checkpoint."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from capgap import schema
from capgap.analysis.analysis_sets import AnalysisSet, SubsetCache
from capgap.analysis.cohort import Cohort, Recipe
from capgap.analysis.estimate_rows import RECIPE_POPULATION, THESE_TASKS, EstimateRow
from capgap.analysis.groups import ItemGroup, groups_at
from capgap.analysis.score_matrix import Ints, ScoreMatrix
from capgap.schema.remarks import Reason, Remark, remark
from capgap.stats import Estimate, flip_list, flips_beyond_seeds, refused, seed_difference

__all__ = ["recipe_rows"]

MIN_SEEDS = 3
"""Of a recipe; two say nothing about a third."""
_MAX_LISTED_ITEMS = 30  # items named in a note


def recipe_rows(
    grid: ScoreMatrix, cohort: Cohort, roles: schema.Roles, excluded: frozenset[str], *, conf_level: float
) -> Iterator[EstimateRow]:
    """`gap` and `gain` of every recipe with three seeds or more, and what it lost and gained beyond its seeds' noise.

    Parameters
    ----------
    grid
        Everybody's outcomes.
    cohort
        The students.
    roles
        Teacher and bases.
    excluded
        Tasks that are set aside from numbers of the teacher.
    conf_level
        Of every interval, which counts seeds and items.
    """
    item_groups = [group for level in ("battery", "capability") for group in groups_at(grid, level, excluded)]
    subsets = SubsetCache(grid)
    for recipe in cohort.trainings():
        if len(recipe.students) < MIN_SEEDS:
            continue
        if refusal := cohort.seed_refusal(recipe.students):
            # Checkpoints of one run, or students of which little is known, would pass for seeds.
            blank, rows = _blank_row(item_groups[0], recipe), item_groups[0].rows
            empty_estimate = refused(refusal, n_items=len(rows))
            yield replace(blank, estimate=empty_estimate, n_tasks=len(np.unique(grid.task[rows])), n_seeds=None)
            continue
        bases = {roles.base.get(name) for name in recipe.students}
        base = next(iter(bases)) if len(bases) == 1 else None
        for group in item_groups:
            rows_of_recipe = [*_difference_rows(subsets, recipe, group, roles.teacher, base, conf_level)]
            if base is not None:
                rows_of_recipe += _flip_rows(subsets, recipe, group, base, conf_level)
            yield from (replace(row, estimate=row.estimate.noting(*cohort.remarks)) for row in rows_of_recipe)


def _blank_row(group: ItemGroup, recipe: Recipe) -> EstimateRow:
    return EstimateRow(
        quantity="gap",
        level=group.level,
        group=group.name,
        model=None,
        estimate=refused(),
        n_tasks=0,
        contrast="teacher - student",
        factors=recipe.factors,
        weighting="tasks",
        subject="recipe",
        population=RECIPE_POPULATION,
        n_students=len(recipe.students),
        n_seeds=len(recipe.students),
    )


def _difference_rows(
    subsets: SubsetCache, recipe: Recipe, group: ItemGroup, teacher: str | None, base: str | None, conf_level: float
) -> Iterator[EstimateRow]:
    grid = subsets.grid
    for quantity, contrast, role, other, sign in (
        ("gap", "teacher - student", "teacher", teacher, 1.0),
        ("gain", "student - base", "base", base, -1.0),
    ):
        group_rows = group.of_roles((role,)).rows
        if other is None or not len(group_rows):
            continue
        role_names = (role, "seeds")
        common_cells = subsets.select(group_rows, [other, *recipe.students])
        blank = replace(_blank_row(group, recipe), quantity=quantity, contrast=contrast)
        if refusal := common_cells.refusal(role_names):
            yield replace(blank, estimate=refused(*refusal, n_items=len(common_cells.rows)))
            continue
        subset = AnalysisSet.of(grid, common_cells.rows, "tasks", THESE_TASKS)
        students = np.stack([grid.of(name)[common_cells.rows] for name in recipe.students])  # shape (seeds, cells)
        differences = sign * (grid.of(other)[common_cells.rows] - students)
        estimate = seed_difference(differences, subset.design, conf_level=conf_level)
        estimate = replace(estimate, n_items=subset.n_items).noting(*common_cells.information(role_names))
        yield replace(blank, estimate=estimate, n_tasks=subset.n_tasks)


def _flip_rows(
    subsets: SubsetCache, recipe: Recipe, group: ItemGroup, base: str, conf_level: float
) -> Iterator[EstimateRow]:
    grid, role_names = subsets.grid, ("base", "seeds")
    cells = subsets.select(group.whole.rows, [base, *recipe.students])
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
