"""Flips of a recipe: what it lost and gained beyond its seeds' noise, and items where few of them would be chance."""

import json
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd

from capgap.analysis.analysis_sets import AnalysisSet, CellsScoredByAll, SubsetCache
from capgap.analysis.cohort import Recipe
from capgap.analysis.estimate_rows import THESE_TASKS, THIS_RECIPE_POPULATION, EstimateRow
from capgap.analysis.groups import ItemGroup
from capgap.analysis.score_matrix import Floats, ScoreMatrix
from capgap.schema.remarks import Reason, Remark, remark
from capgap.stats import (
    Estimate,
    answers_per_item,
    expected_chance_flips,
    flip_list,
    flips_beyond_seeds,
    refused,
)

__all__ = ["flipped_items", "recipe_flip_rows"]

_MOST_CHANCE = 0.1
"""Of a list, the share that may be expected of another seed in the base's place."""
_MOST_NAMED_ITEMS = 30
"""Items that a note names; the factor ``items`` holds all of them."""


def recipe_flip_rows(
    subsets: SubsetCache, recipe: Recipe, blank: EstimateRow, group: ItemGroup, base: str, *, conf_level: float
) -> Iterator[EstimateRow]:
    """`lost` and `gained` of a recipe, `items_lost` and `items_gained` where five seeds or more may list them.

    Parameters
    ----------
    subsets
        Everybody's answers.
    recipe
        Three students or more.
    blank
        A row of this recipe and group.
    group
        Whose cells count.
    base
        Of all its students.
    conf_level
        Of the intervals.
    """
    grid, role_names = subsets.grid, ("base", "seeds")
    cells = subsets.select(group.whole.rows, [base, *recipe.students])
    if cells.refusal(role_names):
        return  # the gain says why, where items are too few
    baseline, students = grid.of(base)[cells.rows], np.stack([grid.of(name)[cells.rows] for name in recipe.students])
    n_answers = answers_per_item(np.vstack([baseline, students])) if grid.repeated else 1
    is_binary = bool(np.isin(students, (0.0, 1.0)).all() and np.isin(baseline, (0.0, 1.0)).all())
    if not is_binary and n_answers in (None, 1):
        return  # parts of a score are no chance of a right answer
    subset = AnalysisSet.of(grid, cells.rows, "tasks", THESE_TASKS)
    flips = flips_beyond_seeds(baseline, students, subset.design, conf_level=conf_level)
    contrasts = {
        "lost": (flips.lost_share, "base right, student wrong, minus what seeds lose against each other"),
        "gained": (flips.gained_share, "base wrong, student right, minus what seeds lose against each other"),
    }
    shared_remarks = (
        remark(Reason.SEED_DISAGREEMENT, share=100 * flips.seed_flip_share),
        *([] if is_binary else [remark(Reason.EXPECTED_FLIPS, n=n_answers)]),
        *cells.get_share_remarks(role_names),
    )
    for quantity, (share, contrast) in contrasts.items():
        row = replace(blank, quantity=quantity, contrast=contrast, n_tasks=subset.n_tasks)
        counts = _counts_remark(baseline, students, quantity)
        yield replace(row, estimate=replace(share, n_items=subset.n_items).noting(counts, *shared_remarks))
        if is_binary:
            yield from _list_rows(grid, cells, row, baseline, students)


def _counts_remark(baseline: Floats, students: Floats, direction: str) -> Remark:
    """Items that a seed flips on average, beside those that it would with each other seed in the base's place.

    A stand-in is matched on mean accuracy: its share of what it could lose (gain) times what the base could.
    """
    from_, to = (baseline, 1 - students) if direction == "lost" else (1 - baseline, students)
    candidates = students if direction == "lost" else 1 - students
    n_seeds = len(students)
    flips_of_pairs = (candidates.sum(axis=0) * to.sum(axis=0) - (candidates * to).sum(axis=0)).sum() / (n_seeds - 1)
    null = flips_of_pairs / candidates.sum() * from_.sum() if candidates.sum() else 0.0
    observed = float((from_ * to.mean(axis=0)).sum())
    details = {"n": observed, "of": len(baseline), "direction": direction, "null": float(null)}
    return remark(Reason.SEED_IN_BASES_PLACE, **details)


def _list_rows(
    grid: ScoreMatrix, cells: CellsScoredByAll, row: EstimateRow, baseline: Floats, students: Floats
) -> Iterator[EstimateRow]:
    """The list of one direction; the count alone where more than a tenth of it may be chance; none below five seeds."""
    direction = row.quantity
    shortlist = flip_list(baseline, students, direction=direction)
    if shortlist.status == "refused":
        return
    n_flipped = (students[:, shortlist.items] == float(direction == "gained")).sum(axis=0)  # seeds, by listed item
    nulls = {
        least: expected_chance_flips(baseline, students, least, direction=direction)
        for least in sorted({int(n) for n in n_flipped})
    }
    # The longest list whose expected false part is small enough; of none the shortest, to say how much would be chance.
    passing_counts = (least for least, null in nulls.items() if null <= _MOST_CHANCE * (n_flipped >= least).sum())
    least = next(passing_counts, max(nulls, default=0))
    listed, null = cells.rows[shortlist.items[n_flipped >= least]], nulls.get(least, 0.0)
    blank = replace(
        row,
        quantity=f"items_{direction}",
        contrast=f"{direction} whichever seed",
        scale="items",
        population=THIS_RECIPE_POPULATION._replace(items="these_items"),
    )
    if null > _MOST_CHANCE * len(listed) > 0:
        reason = remark(Reason.LIST_OF_CHANCE, n=len(listed), null=null)
        yield replace(blank, estimate=refused(reason, n_items=shortlist.n_candidates))
        return
    names = [f"{grid.tasks[grid.task[cell]]}/{grid.items[cell]}" for cell in listed]
    count = Estimate(float(len(listed)), n_items=shortlist.n_candidates, method="empirical Bayes list")
    remarks = [_listed_items_remark(names), remark(Reason.LIST_NULL, null=null, n=len(listed))] if names else []
    yield replace(
        blank,
        estimate=count.noting(*(remarks or [remark(Reason.NO_SURE_ITEM)])),
        factors=(*blank.factors, *([("items", names)] if names else [])),
    )


def _listed_items_remark(names: list[str]) -> Remark:
    """Tasks and items, the surest first."""
    n_unnamed = len(names) - _MOST_NAMED_ITEMS
    overflow_text = f" and {n_unnamed} more" if n_unnamed > 0 else ""
    return remark(Reason.LISTED_ITEMS, items=names[:_MOST_NAMED_ITEMS], more=overflow_text)


def flipped_items(estimates: pd.DataFrame) -> pd.DataFrame:
    """The whole lists of lost and gained items, a row an item, the surest first.

    Parameters
    ----------
    estimates
        From `estimate_table`.

    Returns
    -------
    pandas.DataFrame
        ``recipe, level, group, direction, rank, item`` (task and item); without a row where no list is offered.
    """
    listed = estimates[estimates["quantity"].isin(["items_lost", "items_gained"]) & (estimates["status"] == "ok")]
    rows = []
    for row in listed.to_dict("records"):
        factors = json.loads(row["factors"])
        shared = {"recipe": factors["recipe_name"], "level": row["level"], "group": row["group"]}
        direction = str(row["quantity"]).removeprefix("items_")
        for rank, item in enumerate(factors.get("items", ()), 1):
            rows.append({**shared, "direction": direction, "rank": rank, "item": item})
    return pd.DataFrame(rows, columns=["recipe", "level", "group", "direction", "rank", "item"])
