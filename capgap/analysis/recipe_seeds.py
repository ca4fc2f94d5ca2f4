"""Recipes by their training seeds: gap, gain and flips of a recipe, not of one checkpoint."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from capgap import schema
from capgap.analysis.analysis_sets import AnalysisSet, AnalysisSets
from capgap.analysis.cohort import Cohort, Recipe
from capgap.analysis.estimate_rows import THESE_TASKS, THIS_RECIPE, EstimateRow
from capgap.analysis.groups import ItemGroup, groups_at
from capgap.analysis.score_matrix import ScoreMatrix
from capgap.schema.remarks import Reason, Remark, remark
from capgap.stats import Estimate, flip_list, flips_beyond_seeds, refused, seed_difference

__all__ = ["recipe_rows"]

MIN_SEEDS = 3
"""Of a recipe; two say nothing about a third."""
_LISTED = 30  # items named in a note

Ints = NDArray[np.int64]


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
        Tasks left out for unreadable answers.
    conf_level
        Of every interval, which counts seeds and items.
    """
    groups = [group for level in ("battery", "capability") for group in groups_at(grid, level, excluded)]
    sets = AnalysisSets(grid)
    for recipe in cohort.trainings():
        if len(recipe.students) < MIN_SEEDS:
            continue
        if why_not := cohort.unlike_seeds(recipe.students):
            # Checkpoints of one run, or students of which little is known, would pass for seeds.
            blank, rows = _blank(groups[0], recipe), groups[0].rows
            nothing = refused(why_not, n_items=len(rows))
            yield replace(blank, estimate=nothing, n_tasks=len(np.unique(grid.task[rows])), n_seeds=None)
            continue
        bases = {roles.base.get(name) for name in recipe.students}
        base = next(iter(bases)) if len(bases) == 1 else None
        for group in groups:
            rows_of_recipe = [*_difference_rows(sets, recipe, group, roles.teacher, base, conf_level)]
            if base is not None:
                rows_of_recipe += _flip_rows(sets, recipe, group, base, conf_level)
            yield from (replace(row, estimate=row.estimate.noting(*cohort.remarks)) for row in rows_of_recipe)


def _blank(group: ItemGroup, recipe: Recipe) -> EstimateRow:
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
        population=THIS_RECIPE,
        n_students=len(recipe.students),
        n_seeds=len(recipe.students),
    )


def _difference_rows(
    sets: AnalysisSets, recipe: Recipe, group: ItemGroup, teacher: str | None, base: str | None, conf_level: float
) -> Iterator[EstimateRow]:
    grid = sets.grid
    for quantity, contrast, role, other, sign in (
        ("gap", "teacher - student", "teacher", teacher, 1.0),
        ("gain", "student - base", "base", base, -1.0),
    ):
        if other is None or not len(group.rows):
            continue
        who = (role, "seeds")
        common = sets.select(group.rows, [other, *recipe.students])
        blank = replace(_blank(group, recipe), quantity=quantity, contrast=contrast)
        if why_not := common.refusal(who):
            yield replace(blank, estimate=refused(*why_not, n_items=len(common.rows)))
            continue
        subset = AnalysisSet.of(grid, common.rows, "tasks", THESE_TASKS)
        students = np.stack([grid.of(name)[common.rows] for name in recipe.students])
        differences = sign * (grid.of(other)[common.rows] - students)
        estimate = seed_difference(differences, subset.design, conf_level=conf_level)
        estimate = replace(estimate, n_items=subset.n_items).noting(*common.information(who))
        yield replace(blank, estimate=estimate, n_tasks=subset.n_tasks)


def _flip_rows(
    sets: AnalysisSets, recipe: Recipe, group: ItemGroup, base: str, conf_level: float
) -> Iterator[EstimateRow]:
    grid, who = sets.grid, ("base", "seeds")
    common = sets.select(group.rows, [base, *recipe.students])
    before, after = grid.of(base)[common.rows], np.stack([grid.of(name)[common.rows] for name in recipe.students])
    if common.refusal(who) or not np.isin(before, (0.0, 1.0)).all() or not np.isin(after, (0.0, 1.0)).all():
        return  # the gain says why, where items are too few
    subset = AnalysisSet.of(grid, common.rows, "tasks", THESE_TASKS)
    flips = flips_beyond_seeds(before, after, subset.design, conf_level=conf_level)
    disagreement = remark(Reason.SEED_DISAGREEMENT, share=100 * flips.seed_disagreement)
    both = {
        "lost": (flips.lost, "base right, student wrong, minus what seeds lose against each other"),
        "gained": (flips.gained, "base wrong, student right, minus what seeds lose against each other"),
    }
    for quantity, (share, contrast) in both.items():
        estimate = replace(share, n_items=subset.n_items).noting(disagreement, *common.information(who))
        blank = replace(_blank(group, recipe), quantity=quantity, contrast=contrast, n_tasks=subset.n_tasks)
        yield replace(blank, estimate=estimate)
        listed = flip_list(before, after, direction=quantity)
        if listed.status != "refused":
            count = Estimate(float(len(listed.items)), n_items=listed.n_candidates, method="empirical Bayes list")
            yield replace(
                blank,
                quantity=f"items_{quantity}",
                contrast=f"{quantity} whichever seed",
                scale="items",
                estimate=count.noting(_list_remark(grid, common.rows[listed.items])),
                population=THIS_RECIPE._replace(items="these_items"),
            )


def _list_remark(grid: ScoreMatrix, rows: Ints) -> Remark:
    """Tasks and items, the surest first."""
    if not len(rows):
        return remark(Reason.NO_SURE_ITEM)
    names = [f"{grid.tasks[grid.task[row]]}/{grid.items[row]}" for row in rows[:_LISTED]]
    more = f" and {len(rows) - _LISTED} more" if len(rows) > _LISTED else ""
    return remark(Reason.LISTED_ITEMS, items=names, more=more)
