"""Groups of items on which students fail alike, named by what their items have in common."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from capgap import schema
from capgap.analysis.cohort import CATEGORICAL_FACTORS, LOG_FACTORS, Cohort
from capgap.analysis.estimate_rows import THESE_TASKS, EstimateRow, Population
from capgap.analysis.score_matrix import ScoreMatrix
from capgap.stats import Estimate, FailurePatterns, PatternName, find_patterns, name_patterns, refused
from capgap.stats.patterns.discover import MIN_PATTERN_STUDENTS

__all__ = ["pattern_rows"]


def pattern_rows(
    grid: ScoreMatrix,
    cohort: Cohort,
    roles: schema.Roles,
    excluded: frozenset[str],
    *,
    items: pd.DataFrame | None,
    conf_level: float,
) -> Iterator[EstimateRow]:
    """`pattern`, `pattern_excess` and their evidence, from 24 students on.

    Parameters
    ----------
    grid
        Everybody's outcomes.
    cohort
        The students; with fewer than 24, or where they differ in nothing known, there is no row.
    roles
        Names the base, beside which failure is told.
    excluded
        Tasks that the guard keeps out.
    items
        An `items` table, whose prompts give words to the patterns.
    conf_level
        Of the intervals.
    """
    cohort, kept_out = cohort.above_zero()
    names, columns = _covariates(cohort)
    if len(cohort.students) < MIN_PATTERN_STUDENTS or not names:
        return
    task = np.array(grid.tasks, dtype=object)[grid.task]
    rows = np.flatnonzero(~np.isin(task, list(excluded)))
    scores = grid.scores[rows][:, [grid.column(name) for name in cohort.students]].T
    found = find_patterns(scores, columns, names, rng=np.random.default_rng(0), chance=_chance(grid, rows))
    blank = EstimateRow(
        quantity="pattern",
        level="battery",
        group="all",
        model=None,
        estimate=refused(found.note),
        n_tasks=len(np.unique(grid.task[rows])),
        scale="share of items",
        subject="cohort",
        estimator="response_surfaces",
        population=Population(items="these_items"),
        n_students=len(cohort.students),
    )
    if found.status == "refused":
        yield blank
        return
    bases = set(roles.base.get(name) for name in cohort.students)
    base = grid.of(str(next(iter(bases))))[rows] if len(bases) == 1 and None not in bases else None
    named = name_patterns(
        found,
        scores,
        base=base,
        covariates=_item_covariates(grid, rows),
        texts=_texts(grid, rows, items),
        clusters=grid.cluster[rows],
        conf_level=conf_level,
    )
    yield from _rows(grid, rows, found, named, blank, kept_out)


def _chance(grid: ScoreMatrix, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Of a guess; zero where nobody knows it or it is certain (nothing then tells knowing from guessing)."""
    chance = grid.chance[rows]
    return np.where((chance > 0) & (chance < 1), chance, 0.0)


def _rows(
    grid: ScoreMatrix,
    rows: NDArray[np.int64],
    found: FailurePatterns,
    named: list[PatternName],
    blank: EstimateRow,
    kept_out: tuple[str, ...],
) -> Iterator[EstimateRow]:
    chosen = "; ".join(
        f"{step.n_patterns} against {step.n_patterns - 1} patterns: p = {step.p_value:.2g}" for step in found.evidence
    )
    count = Estimate(float(found.n_patterns), n_items=found.n_items, method=found.method)
    yield replace(
        blank,
        quantity="n_patterns",
        scale="patterns",
        estimate=count.noting("by held-out students", chosen, found.note, *kept_out),
    )
    if found.n_patterns < 2:
        return
    for pattern in named:
        k = pattern.pattern
        label = f"{k + 1}: {pattern.label}"
        slopes = ", ".join(
            f"{name} {slope:+.2f}" for name, slope in zip(found.covariates, found.surfaces[k, 1:], strict=True)
        )
        where = [f"{grid.tasks[grid.task[rows[n]]]}/{grid.items[rows[n]]}" for n in pattern.examples]
        half = found.half_p_values[k]
        notes = (
            f"logits per standard deviation of a student's covariate: {slopes}",
            f"tested on the other half of the students: p = {half:.2g} (Holm)",
            f"students fail {100 * pattern.failure:.0f} % of it",
            f"to read: {', '.join(where)}",
        )
        share = Estimate(float(found.shares[k]), p_value=float(half), n_items=found.n_items, method=found.method)
        blank = replace(blank, contrast=label, factors=(("pattern", k + 1),))
        yield replace(blank, estimate=share.noting(*notes))
        yield replace(
            blank,
            quantity="pattern_excess",
            population=THESE_TASKS,
            scale="score",
            estimate=pattern.excess.noting("failure of students minus the base's, here minus elsewhere"),
        )


def _covariates(cohort: Cohort) -> tuple[list[str], NDArray[np.float64]]:
    """What varies among the students, as numbers: logarithms, and one column for every further level of a word."""
    names: list[str] = []
    columns: list[Any] = []
    for name in LOG_FACTORS:
        if cohort.varies(name):
            names.append(f"log {name}")
            columns.append(np.log([float(cohort.facts[s][name]) for s in cohort.students]))
    for name in CATEGORICAL_FACTORS:
        if cohort.varies(name):
            told = [str(cohort.facts[s][name]) for s in cohort.students]
            for level in sorted(set(told))[1:]:
                names.append(f"{name} {level}")
                columns.append([float(word == level) for word in told])
    return names, np.column_stack(columns) if columns else np.empty((len(cohort.students), 0))


def _item_covariates(grid: ScoreMatrix, rows: NDArray[np.int64]) -> dict[str, Any]:
    """Covariates of the items as words: bins, capability, format and task."""
    found: dict[str, Any] = {}
    for name, labels in grid.covariates.items():
        first = [next((str(word) for word in row if word is not None), "unknown") for row in labels[rows]]
        found[name.removeprefix("x_")] = np.array(first, dtype=object)
    for name in ("capability", "format", "domain"):
        words = np.array(["unknown" if word is None else str(word) for word in grid.facts[name][rows]], dtype=object)
        found[name] = words
    return {name: words for name, words in found.items() if 1 < len(set(words.tolist())) <= 20}


def _texts(grid: ScoreMatrix, rows: NDArray[np.int64], items: pd.DataFrame | None) -> list[str] | None:
    """The prompts of the cells; None where nobody gave them."""
    if items is None or "prompt" not in items.columns:
        return None
    known = items.drop_duplicates(["battery", "task", "item"]).set_index(["battery", "task", "item"])["prompt"]
    prompts = {
        (str(battery), str(task), str(item)): prompt
        for (battery, task, item), prompt in zip(known.index.tolist(), known.tolist(), strict=True)
        if isinstance(prompt, str)
    }
    told = []
    for row in rows:
        battery = str(grid.facts["battery"][row])
        task = grid.tasks[grid.task[row]].removeprefix(f"{battery}/")
        told.append(prompts.get((battery, task, str(grid.items[row])), ""))
    return told if any(told) else None
