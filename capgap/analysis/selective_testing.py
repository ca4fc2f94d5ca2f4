"""Which groups stand below which, and p-values that pay for the way down from a battery to its slices.

A reader who opens a battery's gap, then its worst capability, then that one's worst task, has chosen what to look at;
p-values of what was chosen are too small, intervals too short. The tree of battery, capability, domain, task and slice
is tested from its root down (`capgap.stats.selective_tree`), each question of a comparison in a tree of its own; its
first family are the batteries of all students.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from capgap.analysis.estimate_rows import is_tested
from capgap.analysis.groups import ItemGroup
from capgap.analysis.score_matrix import ScoreMatrix
from capgap.stats import Estimate, at_level, selective_tree
from capgap.stats.estimate import free_text

__all__ = ["FALSE_DISCOVERY_RATE", "TestingNode", "adjust_down_tree", "tree_parents"]

FALSE_DISCOVERY_RATE = 0.05
"""False discoveries among what is selected, one family at a time."""
_QUESTION = ["quantity", "scale"]
_INTERVAL = ["estimate", "std_error", "df", "conf_low", "conf_high", "conf_level"]
_ABOVE = ("domain", "capability", "battery")
"""Where a task hangs: the first of these that is one for all its items."""


class TestingNode(NamedTuple):
    """A level and the name of a group there."""

    level: str
    group: str


def tree_parents(
    grid: ScoreMatrix,
    groups: Iterable[ItemGroup],
    excluded: frozenset[str],
    known: Mapping[TestingNode, TestingNode | None],
) -> dict[TestingNode, TestingNode | None]:
    """The parent of each group that `known` does not hold; None at the top.

    A group hangs below the narrowest coarser one that holds all its cells: a domain that serves two capabilities hangs
    below the battery. Tasks that the guard keeps out hang nowhere, since no number above holds them.
    """
    found: dict[TestingNode, TestingNode | None] = {}
    for group in groups:
        place = TestingNode(group.level, group.name)
        if place in known or not len(group.rows) or (not group.over_tasks and _task(grid, group) in excluded):
            continue
        if group.level == "battery":
            found[place] = None
        elif group.level == "slice" and not group.over_tasks:
            found[place] = TestingNode("task", _task(grid, group))
        else:
            coarser = _ABOVE if group.level in ("task", "slice") else _ABOVE[_ABOVE.index(group.level) + 1 :]
            found[place] = next(
                (TestingNode(level, name) for level in coarser if (name := _only(grid, level, group))), None
            )
    return found


def _task(grid: ScoreMatrix, group: ItemGroup) -> str:
    """The task of a group within one."""
    return str(grid.tasks[grid.task[group.rows[0]]])


def adjust_down_tree(table: pd.DataFrame, parents: Mapping[TestingNode, TestingNode | None]) -> pd.DataFrame:
    """The estimates, with p_adjusted, family and note of those below a battery as the tree says.

    Parameters
    ----------
    table
        Estimates. One number a place is in the tree: the task-weighted one above tasks.
    parents
        Of every place.

    Notes
    -----
    What stands below something that was not selected gets p_adjusted 1: nobody would have looked.
    """
    asked = is_tested(table) & (table["subject"] == "model") & (table["population_tasks"] == "these_tasks")
    numbers = pd.MultiIndex.from_frame(table[["level", "group", "model", *_QUESTION]].astype(object))
    doubled = (table["weighting"] == "items") & numbers.isin(numbers[asked & (table["weighting"] == "tasks")])
    answers = []
    for _, question in table[asked & ~doubled].groupby(_QUESTION, dropna=False, sort=False):
        if question["level"].eq("task").any() and question["p_value"].notna().any():
            answers.append(_one_tree(question, parents))
    table = table.copy()
    if answers:
        found = pd.concat(answers)
        table.loc[found.index, found.columns] = found
    return table


def _one_tree(question: pd.DataFrame, parents: Mapping[TestingNode, TestingNode | None]) -> pd.DataFrame:
    rows = list(zip(question["model"], question["level"], question["group"], strict=True))
    position = {row: i for i, row in enumerate(rows)}
    up = np.full(len(rows), -1)
    for place, (model, level, group) in enumerate(rows):
        above = parents.get(TestingNode(level, group))
        while above is not None and (model, *above) not in position:
            above = parents.get(above)
        up[place] = -1 if above is None else position[model, *above]
    inside = (up >= 0) | (question["level"] == "battery").to_numpy()
    known = np.where(inside, question["p_value"].to_numpy(dtype=float), np.nan)
    test = selective_tree(known, up, level=FALSE_DISCOVERY_RATE)
    below = inside & (question["level"] != "battery").to_numpy() & np.isfinite(known)
    adjusted = np.where(np.isnan(test.p_adjusted), 1.0, test.p_adjusted)
    students = question["model"].nunique()
    quantity, scale = question["quantity"].iloc[0], question["scale"].iloc[0]
    name = f"tree|{quantity}|{scale}|{students}|{int(inside.sum())}"
    remarks = list(question["remarks"])
    chosen = np.flatnonzero(below & test.selected).tolist()
    for i, row in zip(chosen, question.iloc[chosen][_INTERVAL].to_dict("records"), strict=True):
        remarks[i] = (*remarks[i], *free_text(_selected(row, float(test.conf_level[i]))))
    found = {"p_adjusted": adjusted[below], "family": name}
    kept = [remarks[i] for i in np.flatnonzero(below)]
    return pd.DataFrame(found, index=question.index[below]).assign(
        remarks=pd.Series(kept, index=question.index[below], dtype=object)
    )


def _selected(row: Mapping[Any, Any], level: float) -> str:
    """What stands beside a selected number: its interval at the level that allows for the selection.

    Exact and score intervals are not the estimate and t standard errors; theirs is not made anew.
    """
    told = "selected down the tree of groups"
    if not row["std_error"] > 0:
        return told
    known = Estimate(estimate=row["estimate"], std_error=row["std_error"], df=row["df"])
    same, wide = at_level(known, float(row["conf_level"])), at_level(known, level)
    if abs(same.conf_low - row["conf_low"]) > 1e-9 or abs(same.conf_high - row["conf_high"]) > 1e-9:
        return told
    return f"{told}, the interval that pays for it ({100 * level:.2f} %): {wide.conf_low:.3f} to {wide.conf_high:.3f}"


def _only(grid: ScoreMatrix, level: str, group: ItemGroup) -> str | None:
    """The one name that all of a group's cells have at a level; None where they have several or none."""
    names = grid.facts[level][group.rows]
    return str(names[0]) if names[0] is not None and (names == names[0]).all() else None
