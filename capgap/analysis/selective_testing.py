"""Selective testing down the tree of groups: parents of nodes, and p-values adjusted from a battery to its slices.

A reader who opens a battery's gap, then its worst capability, then that one's worst task, has chosen what to look at;
p-values of what was chosen are too small, intervals too short. The tree of battery, capability, domain, task and slice
is tested from its root down (`capgap.stats.run_tree_test`), each question of a comparison in a tree of its own; its
first family are the batteries of all students.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from capgap.analysis.estimate_rows import add_remarks, is_tested
from capgap.analysis.groups import ItemGroup
from capgap.analysis.score_matrix import ScoreMatrix
from capgap.schema.quantities import QUANTITIES
from capgap.schema.remarks import Reason, Remark, remark
from capgap.stats import Estimate, change_conf_level, run_tree_test

FALSE_DISCOVERY_RATE = 0.05
"""False discoveries among what is selected, one family at a time."""
_INTERVAL_COLUMNS = ["estimate", "std_error", "df", "conf_low", "conf_high", "conf_level"]
_LEVELS = ("domain", "capability", "battery")
"""Where a task hangs: the first of these that is one for all its items."""


class GroupNode(NamedTuple):
    """A level and the name of a group there."""

    level: str
    group: str


class StudentTrees(NamedTuple):
    """Where the groups of one student hang."""

    with_teacher: dict[GroupNode, GroupNode | None]
    """Of numbers in which the teacher takes part: tasks that are set aside hang nowhere."""
    without_teacher: dict[GroupNode, GroupNode | None]
    """Of all others."""

    @classmethod
    def of(cls, grid: ScoreMatrix, item_groups: Iterable[ItemGroup], excluded: frozenset[str]) -> "StudentTrees":
        """Both trees; `excluded` are the tasks that are set aside."""
        item_groups = list(item_groups)
        parents = _tree_parents(grid, item_groups, excluded)
        whole_groups = [group.whole for group in item_groups]
        return cls(parents, _tree_parents(grid, whole_groups, frozenset()) if excluded else parents)

    def parents(self, quantity: str) -> dict[GroupNode, GroupNode | None]:
        """The tree of a quantity."""
        return self.with_teacher if "teacher" in QUANTITIES[quantity].roles else self.without_teacher


def _tree_parents(
    grid: ScoreMatrix, item_groups: Iterable[ItemGroup], excluded: frozenset[str]
) -> dict[GroupNode, GroupNode | None]:
    """The parent of each group; None at the top.

    A group hangs below the narrowest coarser one that holds all its cells: a domain that serves two capabilities hangs
    below the battery. Excluded tasks hang nowhere, since no number above holds them.
    """
    parents: dict[GroupNode, GroupNode | None] = {}
    for group in item_groups:
        node = GroupNode(group.level, group.name)
        if not len(group.rows) or (not group.spans_tasks and _task(grid, group) in excluded):
            continue
        if group.level == "battery":
            parents[node] = None
        elif group.level == "slice" and not group.spans_tasks:
            parents[node] = GroupNode("task", _task(grid, group))
        else:
            coarser_levels = _LEVELS if group.level in ("task", "slice") else _LEVELS[_LEVELS.index(group.level) + 1 :]
            parents[node] = next(
                (GroupNode(level, name) for level in coarser_levels if (name := _shared_name(grid, level, group))), None
            )
    return parents


def _task(grid: ScoreMatrix, group: ItemGroup) -> str:
    """The task of a group within one."""
    return str(grid.tasks[grid.task[group.rows[0]]])


def adjust_p_down_tree(frame: pd.DataFrame, trees: Mapping[str, StudentTrees]) -> pd.DataFrame:
    """The estimates, with ``p_adjusted``, ``family`` and remarks of those below a battery as the tree says.

    Parameters
    ----------
    frame
        A draft of the table. One number a node is in the tree: the task-weighted one above tasks.
    trees
        Student → where its groups hang.

    Notes
    -----
    What stands below something that was not selected gets p_adjusted 1: nobody would have looked. ``family`` is
    ``tree|quantity|students|groups``.
    """
    tested_mask = is_tested(frame) & (frame["subject"] == "model") & (frame["population_tasks"] == "these_tasks")
    numbers = pd.MultiIndex.from_frame(frame[["level", "group", "model", "quantity"]].astype(object))
    repeated = (frame["weighting"] == "items") & numbers.isin(numbers[tested_mask & (frame["weighting"] == "tasks")])
    adjusted_trees = [
        _adjust_one_tree(question, trees)
        for _, question in frame[tested_mask & ~repeated].groupby("quantity", sort=False)
        if question["level"].eq("task").any() and question["p_value"].notna().any()
    ]
    if not adjusted_trees:
        return frame
    adjusted_rows = pd.concat(adjusted_trees)
    frame = frame.copy()
    frame.loc[adjusted_rows.index, ["p_adjusted", "family"]] = adjusted_rows[["p_adjusted", "family"]]
    selection_remarks = adjusted_rows["selected"].reindex(frame.index)
    return add_remarks(frame, ((chosen,) if isinstance(chosen, Remark) else () for chosen in selection_remarks))


def _adjust_one_tree(question: pd.DataFrame, trees: Mapping[str, StudentTrees]) -> pd.DataFrame:
    """``p_adjusted``, ``family`` and the remark of what is selected, for the rows below a battery."""
    # One tree a student; the batteries of all students are the first family.
    rows = list(zip(question["model"], question["level"], question["group"], strict=True))
    position = {row: i for i, row in enumerate(rows)}
    parent = np.full(len(rows), -1)  # -1: a root, or outside the tree
    quantity, n_students = question["quantity"].iloc[0], question["model"].nunique()
    parents_of = {model: trees[model].parents(quantity) for model in set(question["model"])}
    for i, (model, level, group) in enumerate(rows):
        parents = parents_of[model]
        parent_node = parents.get(GroupNode(level, group))
        # A group without a number for this student is skipped on the way up.
        while parent_node is not None and (model, *parent_node) not in position:
            parent_node = parents.get(parent_node)
        parent[i] = -1 if parent_node is None else position[model, *parent_node]
    is_in_tree = (parent >= 0) | (question["level"] == "battery").to_numpy()
    p_values = np.where(is_in_tree, question["p_value"].to_numpy(dtype=float), np.nan)
    test = run_tree_test(p_values, parent, level=FALSE_DISCOVERY_RATE)
    is_below_battery = is_in_tree & (question["level"] != "battery").to_numpy() & np.isfinite(p_values)
    intervals = question[_INTERVAL_COLUMNS].to_dict("records")
    columns = {
        "p_adjusted": np.where(np.isnan(test.p_adjusted), 1.0, test.p_adjusted),
        "family": f"tree|{quantity}|{n_students}|{int(is_in_tree.sum())}",
        "selected": [
            _selection_remark(row, float(level)) if chosen else None
            for row, level, chosen in zip(intervals, test.conf_level, is_below_battery & test.is_selected, strict=True)
        ],
    }
    return pd.DataFrame(columns, index=question.index)[is_below_battery]


def _selection_remark(row: Mapping[Any, Any], level: float) -> Remark:
    """What stands beside a selected number: its interval at the level that allows for the selection.

    Exact and score intervals are not the estimate and t standard errors; theirs is not computed again.
    """
    if row["std_error"] > 0:
        estimate = Estimate(estimate=row["estimate"], std_error=row["std_error"], df=row["df"])
        recomputed, widened = change_conf_level(estimate, float(row["conf_level"])), change_conf_level(estimate, level)
        if abs(recomputed.conf_low - row["conf_low"]) <= 1e-9 and abs(recomputed.conf_high - row["conf_high"]) <= 1e-9:
            return remark(Reason.SELECTION_INTERVAL, level=100 * level, low=widened.conf_low, high=widened.conf_high)
    return remark(Reason.SELECTED_IN_TREE)


def _shared_name(grid: ScoreMatrix, level: str, group: ItemGroup) -> str | None:
    """The one name that all of a group's cells have at a level; None where they have several or none."""
    names = grid.facts[level][group.rows]
    return str(names[0]) if names[0] is not None and (names == names[0]).all() else None
