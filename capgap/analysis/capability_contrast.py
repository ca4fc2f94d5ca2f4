"""Knowledge against reasoning in one number."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from capgap.analysis.analysis_sets import MIN_COMMON_SHARE, AnalysisSet
from capgap.analysis.estimate_rows import EstimateRow
from capgap.analysis.groups import MIN_TASKS, ItemGroup, without_strays
from capgap.analysis.score_matrix import ScoreMatrix
from capgap.analysis.student_estimates import (
    RoleComparison,
    closure_columns,
    group_note,
    retention_columns,
    unknown_chance,
)
from capgap.stats import Design, Estimate, paired_difference, ratio_difference, refused

__all__ = ["capability_contrast_rows", "format_note"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_PAIR = ("knowledge", "reasoning")


def capability_contrast_rows(comparison: RoleComparison, excluded: frozenset[str]) -> Iterator[EstimateRow]:
    """`capability_contrast` of one student in every battery that holds knowledge or reasoning."""
    if not comparison.has("teacher"):
        return
    grid = comparison.grid
    for battery in grid.members("battery"):
        sides = [_side(grid, battery, capability, excluded) for capability in _PAIR]
        if not any(len(side.rows) or side.left_out for side in sides):
            continue
        for question in _QUESTIONS:
            if comparison.has(*question.roles):
                yield from _contrast(comparison, battery, sides, question)


def _side(grid: ScoreMatrix, battery: str, capability: str, excluded: frozenset[str]) -> ItemGroup:
    member = (grid.facts["battery"] == battery) & (grid.facts["capability"] == capability)
    names = np.array(grid.tasks, dtype=object)[grid.task]
    lost = np.isin(names, list(excluded))
    every = np.flatnonzero(member & ~lost)
    rows = without_strays(grid, every)
    enough = len(np.unique(grid.task[rows])) >= MIN_TASKS
    left_out = tuple(sorted(set(names[member & lost])))
    return ItemGroup("capability", capability, rows, True, enough, left_out, len(every) - len(rows))


def _contrast(
    comparison: RoleComparison,
    battery: str,
    sides: list[ItemGroup],
    question: "_ContrastMeasure",
) -> Iterator[EstimateRow]:
    """Rows of one contrast in one battery, one for each weighting and population."""
    grid = comparison.grid
    blank = EstimateRow(
        quantity="capability_contrast",
        level="battery",
        group=battery,
        model=comparison.student,
        estimate=refused("nothing computed"),
        n_tasks=0,
        contrast=question.contrast,
        roles=comparison.players(*question.roles),
        scale=question.scale,
        weighting="tasks",
    )
    found = [comparison.cuts.select(side.rows, [comparison.roles[role] for role in question.roles]) for side in sides]
    for side, selection in zip(sides, found, strict=True):
        if not len(selection.rows) or selection.share < MIN_COMMON_SHARE:
            yield replace(blank, estimate=refused(_missing(side, selection.share)))
            return
    shared = [
        f"{side.name}: {100 * selection.share:.1f} % of the items were answered by all"
        for side, selection in zip(sides, found, strict=True)
        if selection.share < 1
    ]
    notes = [*shared, *map(group_note, sides), comparison.prompting_note(*question.roles)]
    notes.append(format_note(grid, *(s.rows for s in found)))
    alone = [side.name for side, s in zip(sides, found, strict=True) if np.ptp(grid.task[s.rows]) == 0]
    notes += [f"{name} is a single task: what is told of it may be that task's own" for name in alone]
    first = {(c.weighting, c.population): c for c in comparison.cuts.of(sides[0], found[0].rows)}
    second = {(c.weighting, c.population): c for c in comparison.cuts.of(sides[1], found[1].rows)}
    for key in (key for key in first if key in second):
        one, two = first[key], second[key]
        yield replace(
            blank,
            estimate=replace(question.number(comparison, one, two), n_items=one.n_items + two.n_items).noting(*notes),
            n_tasks=len(np.union1d(one.strata, two.strata)),
            weighting=key[0],
            population=key[1],
        )


def format_note(grid: ScoreMatrix, knowledge: Ints, reasoning: Ints) -> str:
    """A warning where format and capability cannot be told apart; empty where both come in both formats, or unknown."""
    seen = [sorted({f for f in grid.facts["format"][rows] if f is not None}) for rows in (knowledge, reasoning)]
    if not all(seen) or all(len(s) > 1 for s in seen):
        return ""
    if seen[0] == seen[1]:
        return f"both capabilities come only as {seen[0][0]} tasks"
    told = " and ".join(f"{name} comes only as {s[0]}" for name, s in zip(_PAIR, seen, strict=True) if len(s) == 1)
    return f"{told}: format and capability are aliased, the difference may be one of format"


def _missing(side: ItemGroup, share: float) -> str:
    if not len(side.rows):
        return f"{side.name}: {group_note(side) or 'no task of this capability'}"
    if not share > 0:
        return f"{side.name}: no item that all answered"
    return f"{side.name}: only {100 * share:.0f} % of the items were answered by all (60 % are needed)"


def _gap_difference(comparison: RoleComparison, knowledge: AnalysisSet, reasoning: AnalysisSet) -> Estimate:
    """Mean gap of the reasoning tasks minus that of the knowledge tasks, one weighted sum over both."""
    values, strata, clusters, weights = [], [], [], []
    for side, (cut, sign) in enumerate(((knowledge, -1.0), (reasoning, 1.0))):
        gap = comparison.score("teacher", cut) - comparison.score("student", cut)
        tasks, k, counts = np.unique(cut.strata, return_inverse=True, return_counts=True)
        if cut.like_these:
            # The task is the unit; one that holds items of both capabilities is one cluster of two strata.
            values.append(np.bincount(k, gap) / counts)
            strata.append(np.full(len(tasks), side))
            clusters.append(tasks)
            weights.append(np.array([sign]))
        else:
            values.append(gap)
            strata.append(2 * cut.strata + side)
            clusters.append(cut.clusters)
            weights.append(
                sign * (counts / counts.sum() if cut.weighting == "items" else np.full(len(tasks), 1 / len(tasks)))
            )
    codes = np.concatenate([np.unique(s) for s in strata])
    design = Design.of(
        np.concatenate(strata), np.concatenate(clusters), weights=np.concatenate(weights)[np.argsort(codes)]
    )
    return paired_difference(np.concatenate(values), design, conf_level=comparison.conf_level)


def _closure_difference(comparison: RoleComparison, knowledge: AnalysisSet, reasoning: AnalysisSet) -> Estimate:
    one, two = (cut.fit(closure_columns(comparison, cut)) for cut in (knowledge, reasoning))
    return ratio_difference(one, two, names=_PAIR, denominator="teacher − base", conf_level=comparison.conf_level)


def _retention_difference(comparison: RoleComparison, knowledge: AnalysisSet, reasoning: AnalysisSet) -> Estimate:
    columns = []
    for name, cut in zip(_PAIR, (knowledge, reasoning), strict=True):
        columns.append(retention_columns(comparison, cut))
        if reason := unknown_chance(comparison.grid, cut, columns[-1]):
            return refused(f"{name}: {reason}")
    one, two = (cut.fit(values) for cut, values in zip((knowledge, reasoning), columns, strict=True))
    return ratio_difference(one, two, names=_PAIR, denominator="teacher − chance", conf_level=comparison.conf_level)


@dataclass(frozen=True)
class _ContrastMeasure:
    """One way to ask whether reasoning transfers differently."""

    contrast: str
    roles: tuple[str, ...]
    number: Callable[[RoleComparison, AnalysisSet, AnalysisSet], Estimate]
    scale: str


_QUESTIONS = (
    _ContrastMeasure("gap_closure", ("teacher", "student", "base"), _closure_difference, "ratio"),
    _ContrastMeasure("gap", ("teacher", "student"), _gap_difference, "score"),
    _ContrastMeasure("retention", ("teacher", "student"), _retention_difference, "ratio"),
)
