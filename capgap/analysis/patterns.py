"""Patterns of failure: groups of items on which students fail alike, named by what their items have in common."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from capgap import schema
from capgap.analysis.cohort import CATEGORICAL_FACTORS, LOG_SCALE_FACTORS, Cohort
from capgap.analysis.estimate_rows import THESE_TASKS, EstimateRow, TargetPopulation
from capgap.analysis.score_matrix import Floats, Ints, ScoreMatrix
from capgap.schema.remarks import Reason, Remark, remark
from capgap.stats import Estimate, FailurePatterns, PatternName, find_patterns, label_patterns, refused
from capgap.stats.patterns.discover import MIN_PATTERN_STUDENTS


def pattern_rows(
    grid: ScoreMatrix,
    cohort: Cohort,
    roles: schema.Roles,
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
        Names the base, with whose failure that of students is compared.
    items
        An `items` table, whose prompts give words to the patterns.
    conf_level
        Of the intervals.
    """
    cohort, omission_remarks = cohort.drop_nonpositive()
    names, columns = _student_covariates(cohort)
    if len(cohort.students) < MIN_PATTERN_STUDENTS or not names:
        return
    rows = np.arange(len(grid.task))
    scores = grid.scores[:, [grid.column(name) for name in cohort.students]].T
    mixture = find_patterns(scores, columns, names, rng=np.random.default_rng(0), chance=_get_usable_chance(grid, rows))
    blank = EstimateRow(
        quantity="pattern",
        level="battery",
        group="all",
        model=None,
        estimate=refused(*mixture.remarks),
        n_tasks=len(np.unique(grid.task[rows])),
        scale="share of items",
        subject="cohort",
        estimator="response_surfaces",
        population=TargetPopulation(items="these_items"),
        n_students=len(cohort.students),
    )
    if mixture.status == "refused":
        yield blank
        return
    bases = {roles.base.get(name) for name in cohort.students}
    # Failure is compared with a base only where all students have the same one.
    base = grid.of(str(next(iter(bases))))[rows] if len(bases) == 1 and None not in bases else None
    patterns = label_patterns(
        mixture,
        scores,
        base=base,
        covariates=_item_covariates(grid, rows),
        texts=_collect_prompts(grid, rows, items),
        clusters=grid.cluster[rows],
        conf_level=conf_level,
    )
    yield _n_patterns_row(mixture, blank, omission_remarks)
    if mixture.n_patterns > 1:
        for pattern in patterns:
            yield from _rows_of_pattern(grid, rows, mixture, pattern, blank)


def _get_usable_chance(grid: ScoreMatrix, rows: Ints) -> Floats:
    """Of a guess, shape (rows,); zero where nobody knows it or it is certain (nothing then tells knowing apart)."""
    chance = grid.chance[rows]
    return np.where((chance > 0) & (chance < 1), chance, 0.0)


def _n_patterns_row(mixture: FailurePatterns, blank: EstimateRow, omission_remarks: tuple[Remark, ...]) -> EstimateRow:
    """`n_patterns`, with the tests that chose it."""
    evidence = [
        remark(Reason.PATTERNS_COMPARED, n=step.n_patterns, fewer=step.n_patterns - 1, p=step.p_value)
        for step in mixture.evidence
    ]
    count = Estimate(float(mixture.n_patterns), n_items=mixture.n_items, method=mixture.method)
    remarks = (remark(Reason.HELD_OUT_STUDENTS), *evidence, *mixture.remarks, *omission_remarks)
    return replace(blank, quantity="n_patterns", scale="patterns", estimate=count.noting(*remarks))


def _rows_of_pattern(
    grid: ScoreMatrix, rows: Ints, mixture: FailurePatterns, pattern: PatternName, blank: EstimateRow
) -> Iterator[EstimateRow]:
    """`pattern` and `pattern_excess` of one of several patterns."""
    k = pattern.pattern
    # Column 0 of the surfaces is the intercept.
    slopes = dict(zip(mixture.covariates, mixture.surface_logits[k, 1:], strict=True))
    examples = [f"{grid.tasks[grid.task[rows[n]]]}/{grid.items[rows[n]]}" for n in pattern.examples]
    p_value = float(mixture.half_test_p_values[k])
    share = Estimate(float(mixture.shares[k]), p_value=p_value, n_items=mixture.n_items, method=mixture.method)
    blank = replace(blank, contrast=f"{k + 1}: {pattern.label}", factors=(("pattern", k + 1),))
    remarks = (
        remark(Reason.PATTERN_SLOPES, slopes=slopes),
        remark(Reason.HALF_TESTED, p=p_value),
        remark(Reason.PATTERN_FAILURE, share=100 * pattern.failure),
        remark(Reason.EXAMPLE_ITEMS, items=examples),
    )
    yield replace(blank, estimate=share.noting(*remarks))
    yield replace(blank, quantity="pattern_excess", population=THESE_TASKS, scale="score", estimate=pattern.net_excess)


def _student_covariates(cohort: Cohort) -> tuple[list[str], Floats]:
    """What varies among the students, shape (students, covariates): logarithms, and indicators of further levels."""
    names: list[str] = []
    columns: list[Any] = []
    for name in LOG_SCALE_FACTORS:
        if cohort.varies(name):
            names.append(f"log {name}")
            columns.append(np.log([float(cohort.facts[s][name]) for s in cohort.students]))
    for name in CATEGORICAL_FACTORS:
        if cohort.varies(name):
            words = [str(cohort.facts[s][name]) for s in cohort.students]
            for level in sorted(set(words))[1:]:
                names.append(f"{name} {level}")
                columns.append([float(word == level) for word in words])
    return names, np.column_stack(columns) if columns else np.empty((len(cohort.students), 0))


def _item_covariates(grid: ScoreMatrix, rows: Ints) -> dict[str, Any]:
    """Covariates of the items as words, shape (rows,) each: bins, capability, format and domain."""
    covariates: dict[str, Any] = {}
    for name, labels in grid.covariates.items():
        known_labels = [next((str(word) for word in row if word is not None), "unknown") for row in labels[rows]]
        covariates[name.removeprefix("x_")] = np.array(known_labels, dtype=object)
    for name in ("capability", "format", "domain"):
        words = np.array(["unknown" if word is None else str(word) for word in grid.facts[name][rows]], dtype=object)
        covariates[name] = words
    return {name: words for name, words in covariates.items() if 1 < len(set(words.tolist())) <= 20}


def _collect_prompts(grid: ScoreMatrix, rows: Ints, items: pd.DataFrame | None) -> list[str] | None:
    """The prompts of the cells; None where nobody gave them."""
    if items is None or "prompt" not in items.columns:
        return None
    item_prompts = items.drop_duplicates(["battery", "task", "item"]).set_index(["battery", "task", "item"])["prompt"]
    prompts = {
        (str(battery), str(task), str(item)): prompt
        for (battery, task, item), prompt in zip(item_prompts.index.tolist(), item_prompts.tolist(), strict=True)
        if isinstance(prompt, str)
    }
    texts = []
    for row in rows:
        battery = str(grid.facts["battery"][row])
        task = grid.tasks[grid.task[row]].removeprefix(f"{battery}/")
        texts.append(prompts.get((battery, task, str(grid.items[row])), ""))
    return texts if any(texts) else None
