"""What is true of a recipe, not of one checkpoint: several training seeds of it."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from capgap import schema
from capgap.analysis.analysis_sets import AnalysisSet, AnalysisSets
from capgap.analysis.cohort import Cohort, Recipe
from capgap.analysis.estimate_rows import THESE_TASKS, THIS_RECIPE, EstimateRow
from capgap.analysis.groups import without_strays
from capgap.analysis.score_matrix import ScoreMatrix
from capgap.stats import Estimate, flip_list, flips_beyond_seeds, refused, seed_difference

__all__ = ["recipe_rows"]

MIN_SEEDS = 3
"""Of a recipe; two say nothing about a third."""
_LISTED = 30  # items named in a note
_ALL = "all seeds and what they are compared with"

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
        Tasks that the guard keeps out.
    conf_level
        Of every interval, which counts seeds and items.
    """
    task = np.array(grid.tasks, dtype=object)[grid.task]
    kept = ~np.isin(task, list(excluded))
    scopes = [("battery", name, grid.facts["battery"] == name) for name in grid.members("battery")]
    scopes += [("capability", name, grid.facts["capability"] == name) for name in grid.members("capability")]
    cuts = AnalysisSets(grid)
    for recipe in cohort.trainings():
        if len(recipe.students) < MIN_SEEDS:
            continue
        if why := cohort.unlike_seeds(recipe.students):
            # Checkpoints of one run, or students of which little is known, would pass for seeds.
            level, name, member = scopes[0]
            rows = np.flatnonzero(member & kept)
            yield replace(
                _blank(level, name, recipe),
                contrast="teacher - student",
                estimate=refused(why, n_items=len(rows)),
                n_tasks=len(np.unique(grid.task[rows])),
                n_seeds=None,
            )
            continue
        bases = {roles.base.get(name) for name in recipe.students}
        base = next(iter(bases)) if len(bases) == 1 else None
        for level, name, member in scopes:
            blank = _blank(level, name, recipe)
            rows = np.flatnonzero(member & kept)
            rows = without_strays(grid, rows) if level == "capability" else rows
            found = [*_differences(cuts, recipe, rows, roles.teacher, base, blank, conf_level)]
            if base is not None:
                found += _flips(cuts, recipe, rows, base, blank, conf_level)
            yield from (replace(row, estimate=row.estimate.noting(cohort.note)) for row in found)


def _blank(level: str, group: str, recipe: Recipe) -> EstimateRow:
    return EstimateRow(
        quantity="gap",
        level=level,
        group=group,
        model=None,
        estimate=refused(""),
        n_tasks=0,
        factors=recipe.factors,
        weighting="tasks",
        subject="recipe",
        population=THIS_RECIPE,
        n_students=len(recipe.students),
        n_seeds=len(recipe.students),
    )


def _differences(
    cuts: AnalysisSets,
    recipe: Recipe,
    rows: Ints,
    teacher: str | None,
    base: str | None,
    blank: EstimateRow,
    conf_level: float,
) -> Iterator[EstimateRow]:
    for quantity, other, sign in (("gap", teacher, 1.0), ("gain", base, -1.0)):
        if other is None:
            continue
        answered = cuts.select(rows, [other, *recipe.students])
        common = answered.rows
        contrast = "teacher - student" if quantity == "gap" else "student - base"
        if too_few := answered.too_few(_ALL):
            if len(rows):
                nothing = refused(too_few, n_items=len(common))
                yield replace(blank, quantity=quantity, contrast=contrast, estimate=nothing)
            continue
        grid = cuts.grid
        cut = AnalysisSet.of(grid, common, "tasks", THESE_TASKS)
        students = np.stack([grid.of(name)[common] for name in recipe.students])
        found = seed_difference(sign * (grid.of(other)[common] - students), cut.design, conf_level=conf_level)
        yield replace(
            blank,
            quantity=quantity,
            contrast=contrast,
            estimate=replace(found, n_items=cut.n_items).noting(answered.told(_ALL)),
            n_tasks=cut.n_tasks,
        )


def _flips(
    cuts: AnalysisSets, recipe: Recipe, rows: Ints, base: str, blank: EstimateRow, conf_level: float
) -> Iterator[EstimateRow]:
    grid = cuts.grid
    answered = cuts.select(rows, [base, *recipe.students])
    common = answered.rows
    before, after = grid.of(base)[common], np.stack([grid.of(name)[common] for name in recipe.students])
    if answered.too_few(_ALL) or not np.isin(before, (0.0, 1.0)).all() or not np.isin(after, (0.0, 1.0)).all():
        return  # the gain says why, where items are too few
    cut = AnalysisSet.of(grid, common, "tasks", THESE_TASKS)
    found = flips_beyond_seeds(before, after, cut.design, conf_level=conf_level)
    told = f"two seeds differ by {100 * found.seed_disagreement:.1f} % of the items in one direction"
    both = {
        "lost": (found.lost, "base right, student wrong, minus what seeds lose against each other"),
        "gained": (found.gained, "base wrong, student right, minus what seeds lose against each other"),
    }
    for quantity, (estimate, contrast) in both.items():
        yield replace(
            blank,
            quantity=quantity,
            contrast=contrast,
            estimate=replace(estimate, n_items=cut.n_items).noting(told, answered.told(_ALL)),
            n_tasks=cut.n_tasks,
        )
        listed = flip_list(before, after, direction=quantity)
        if listed.status != "refused":
            estimate = Estimate(float(len(listed.items)), n_items=listed.n_candidates, method="empirical Bayes list")
            named = _named(grid, common[listed.items])
            note = f"at most 10 % of the listed expected to be false; items: {named}" if named else "no item is sure"
            yield replace(
                blank,
                quantity=f"items_{quantity}",
                contrast=f"{quantity} whichever seed",
                population=replace(THIS_RECIPE, items="these_items"),
                scale="items",
                estimate=estimate.noting(note),
                n_tasks=cut.n_tasks,
            )


def _named(grid: ScoreMatrix, rows: Ints) -> str:
    """Tasks and items, the surest first."""
    names = [f"{grid.tasks[grid.task[row]]}/{grid.items[row]}" for row in rows[:_LISTED]]
    return ", ".join(names) + (f" and {len(rows) - _LISTED} more" if len(rows) > _LISTED else "")
