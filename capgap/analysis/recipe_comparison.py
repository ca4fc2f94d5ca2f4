"""Recipes against each other: contrasts that hold together, the seeds' noise of a task, pairs of single students.

All pairs of up to `MOST_PAIRED` recipes are compared at battery and capability, above that each with the best; the
intervals of a level hold together over its pairs and groups. Domains and tasks are exploratory, and so are pairs of
students that belong to no recipe of three seeds.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from capgap.analysis.analysis_sets import AnalysisSet, CellsScoredByAll, SubsetCache
from capgap.analysis.cohort import Recipe
from capgap.analysis.estimate_rows import EstimateRow, KeyValuePairs, TargetPopulation
from capgap.analysis.groups import ItemGroup, groups_at, groups_of
from capgap.analysis.score_matrix import Floats
from capgap.schema.quantities import AggregationLevel
from capgap.schema.remarks import Reason, remark
from capgap.stats import (
    answer_variance,
    answers_per_item,
    holm,
    paired_difference,
    recipe_contrasts,
    refused,
    seed_signal,
)

__all__ = ["MOST_PAIRED", "recipe_comparison_rows", "student_contrast_rows"]

MOST_PAIRED = 12
"""Recipes (or students) of which all pairs are compared; of more, each with the best."""
_PLANNED_LEVELS: tuple[AggregationLevel, ...] = ("battery", "capability")
_RECIPES = TargetPopulation(students="these_recipes")
_SEEDS = ("seeds",)

Pairs = list[tuple[int, int]]


def recipe_comparison_rows(
    subsets: SubsetCache, recipes: Sequence[Recipe], *, conf_level: float
) -> Iterator[EstimateRow]:
    """`recipe_contrast` and `seed_signal` of the recipes, none where there are fewer than two.

    Parameters
    ----------
    subsets
        Everybody's answers.
    recipes
        Each of three students or more that differ in their seeds alone.
    conf_level
        Of all intervals of a level together; of finer levels than capability, of those of a group.
    """
    if len(recipes) < 2:
        return
    grid, everyone = subsets.grid, [student for recipe in recipes for student in recipe.students]
    accuracy = [_overall_accuracy(subsets, recipe.students, everyone) for recipe in recipes]
    against_best = _pairs_with_best(accuracy)
    n_pairs = len(recipes) * (len(recipes) - 1) // 2
    groups = [group for group in groups_of(grid, everyone[0]) if group.level != "slice" and len(group.rows)]
    for group in groups:
        planned = group.level in _PLANNED_LEVELS
        pairs = list(combinations(range(len(recipes)), 2)) if planned and len(recipes) <= MOST_PAIRED else against_best
        n_groups = sum(other.level == group.level for other in groups) if planned else 1
        n_comparisons = n_pairs * n_groups if planned else len(pairs)
        cells = subsets.select(group.rows, everyone)
        if refusal := cells.refusal(_SEEDS):
            yield replace(_blank_contrast(group, recipes, pairs[0]), estimate=refused(*refusal))
            continue
        for subset in subsets.of(group.of_these_tasks(), cells.rows):
            scores = [_scores_of(subsets, recipe.students, subset) for recipe in recipes]
            n_answers = answers_per_item(np.vstack(scores)) if grid.repeated else None
            yield from _contrast_rows(
                *(group, cells, subset, recipes, scores, pairs, n_answers),
                n_comparisons=n_comparisons,
                conf_level=conf_level,
            )
            if subset.weighting == "tasks" or not group.spans_tasks:
                yield _signal_row(group, cells, subset, recipes, scores, conf_level)


def _scores_of(subsets: SubsetCache, students: Sequence[str], subset: AnalysisSet) -> Floats:
    """Shape (students, cells)."""
    return np.stack([subsets.grid.of(student)[subset.rows] for student in students])


def _overall_accuracy(subsets: SubsetCache, students: Sequence[str], everyone: Sequence[str]) -> float:
    """Mean score over all batteries' tasks on the items that everyone answered; NaN where there is none."""
    means = []
    for group in groups_at(subsets.grid, "battery"):
        for subset in subsets.of(group, subsets.select(group.rows, everyone).rows)[:1]:
            means.append(subset.design.mean(_scores_of(subsets, students, subset).mean(axis=0)))
    return float(np.mean(means)) if means else float("nan")


def _pairs_with_best(accuracy: Sequence[float]) -> Pairs:
    """The best, by accuracy, with each other; the first where nobody has a common item."""
    best = int(np.nanargmax(accuracy)) if np.isfinite(accuracy).any() else 0
    return [(best, other) for other in range(len(accuracy)) if other != best]


def _blank_contrast(group: ItemGroup, recipes: Sequence[Recipe], pair: tuple[int, int]) -> EstimateRow:
    first, second = (recipes[i] for i in pair)
    n_students = len(first.students) + len(second.students)
    return EstimateRow(
        quantity="recipe_contrast",
        level=group.level,
        group=group.name,
        model=None,
        estimate=refused(),
        n_tasks=0,
        contrast=f"{first.name} - {second.name}",
        factors=(("first", first.name), ("second", second.name)),
        weighting="tasks" if group.spans_tasks else "items",
        subject="recipe_contrast",
        population=_RECIPES,
        n_students=n_students,
        n_seeds=n_students,
    )


def _contrast_rows(
    group: ItemGroup,
    cells: CellsScoredByAll,
    subset: AnalysisSet,
    recipes: Sequence[Recipe],
    scores: Sequence[Floats],
    pairs: Pairs,
    n_answers: int | None,
    *,
    n_comparisons: int,
    conf_level: float,
) -> Iterator[EstimateRow]:
    exploratory = () if group.level in _PLANNED_LEVELS else (remark(Reason.EXPLORATORY),)
    remarks = (*exploratory, *cells.get_share_remarks(_SEEDS), *group.remarks)
    v_answers = None
    if n_answers is not None and n_answers > 1:  # repeats of right and wrong answers
        v_answers = [answer_variance(seeds, subset.design, n_answers) for seeds in scores]
    contrasts = recipe_contrasts(scores, subset.design, pairs, n_comparisons=n_comparisons, conf_level=conf_level)
    for pair, contrast in zip(pairs, contrasts, strict=True):
        blank = _blank_contrast(group, recipes, pair)
        noise: KeyValuePairs = (
            ("std_error_seeds", contrast.std_error_seeds),
            ("std_error_items", contrast.std_error_items),
            *([("std_error_answers", math.sqrt(v_answers[pair[0]] + v_answers[pair[1]]))] if v_answers else []),
            ("n_comparisons", n_comparisons),
        )
        yield replace(
            blank,
            estimate=replace(contrast.estimate, n_items=subset.n_items).noting(*remarks),
            n_tasks=subset.n_tasks,
            factors=(*blank.factors, *noise),
            weighting=subset.weighting,
            p_adjusted=contrast.p_adjusted,
            family=f"holm|recipe_contrast|{group.level}|{n_comparisons}",
        )


def _signal_row(
    group: ItemGroup,
    cells: CellsScoredByAll,
    subset: AnalysisSet,
    recipes: Sequence[Recipe],
    scores: Sequence[Floats],
    conf_level: float,
) -> EstimateRow:
    signal = seed_signal(scores, subset.design, conf_level=conf_level)
    n_students = sum(len(recipe.students) for recipe in recipes)
    return EstimateRow(
        quantity="seed_signal",
        level=group.level,
        group=group.name,
        model=None,
        estimate=replace(signal.ratio, n_items=subset.n_items).noting(*cells.get_share_remarks(_SEEDS), *group.remarks),
        n_tasks=subset.n_tasks,
        factors=(("spread_recipes", signal.spread_recipes), ("spread_seeds", signal.spread_seeds)),
        scale="ratio",
        weighting=subset.weighting,
        subject="cohort",
        population=_RECIPES._replace(items="these_items"),
        n_students=n_students,
        n_seeds=n_students,
        alternative="greater",
    )


def student_contrast_rows(subsets: SubsetCache, students: Sequence[str], *, conf_level: float) -> Iterator[EstimateRow]:
    """`student_contrast` of students that no recipe holds, at battery and capability; none for a single one.

    Parameters
    ----------
    subsets
        Everybody's answers.
    students
        Names.
    conf_level
        Of all intervals of a level together.
    """
    if len(students) < 2:
        return
    n_pairs = len(students) * (len(students) - 1) // 2
    pairs = list(combinations(range(len(students)), 2))
    if len(students) > MOST_PAIRED:
        pairs = _pairs_with_best([_overall_accuracy(subsets, [name], students) for name in students])
    for level in _PLANNED_LEVELS:
        groups = [group for group in groups_at(subsets.grid, level) if len(group.rows)]
        n_comparisons = n_pairs * len(groups)
        for group in groups:
            rows = [
                row
                for pair in pairs
                for row in _student_rows(subsets, group, [students[i] for i in pair], n_comparisons, conf_level)
            ]
            for weighting in dict.fromkeys(row.weighting for row in rows):
                yield from _adjust_over_pairs([row for row in rows if row.weighting == weighting], n_comparisons)


def _student_rows(
    subsets: SubsetCache, group: ItemGroup, pair: Sequence[str], n_comparisons: int, conf_level: float
) -> Iterator[EstimateRow]:
    first, second = pair
    blank = EstimateRow(
        quantity="student_contrast",
        level=group.level,
        group=group.name,
        model=None,
        estimate=refused(),
        n_tasks=0,
        contrast=f"{first} - {second}",
        factors=(("first", first), ("second", second)),
        weighting="tasks",
        subject="model_contrast",
        n_students=2,
    )
    cells, both = subsets.select(group.rows, pair), ("first", "second")
    if refusal := cells.refusal(both):
        yield replace(blank, estimate=refused(*refusal))
        return
    level = 1 - (1 - conf_level) / n_comparisons
    remarks = (remark(Reason.EXPLORATORY), *cells.get_share_remarks(both), *group.remarks)
    for subset in subsets.of(group.of_these_tasks(), cells.rows):
        scores = _scores_of(subsets, pair, subset)
        estimate = paired_difference(scores[0] - scores[1], subset.design, conf_level=level)
        estimate = replace(estimate, n_items=subset.n_items).noting(*remarks)
        yield replace(blank, estimate=estimate, n_tasks=subset.n_tasks, weighting=subset.weighting)


def _adjust_over_pairs(rows: Sequence[EstimateRow], n_comparisons: int) -> Iterator[EstimateRow]:
    """The rows with Holm's p-values over all comparisons of their level; what is not here is taken as 1."""
    p_values = [row.estimate.p_value for row in rows]
    adjusted = holm([*p_values, *np.ones(max(n_comparisons - len(rows), 0))])
    for row, p in zip(rows, adjusted, strict=False):
        family = f"holm|{row.quantity}|{row.level}|{n_comparisons}" if np.isfinite(p) else None
        yield replace(row, p_adjusted=float(p), family=family)
