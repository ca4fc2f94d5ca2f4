"""Label uncertainty: numbers that rest on undeclared labels, and their multiple imputation over draws of the labels.

Labels are drawn, everything by capability is fitted again, Rubin's rules put the spread of the draws into intervals.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from capgap.analysis.analysis_sets import SubsetCache
from capgap.analysis.capability_contrast import capability_contrast_rows
from capgap.analysis.cohort import Cohort
from capgap.analysis.effects import effect_rows
from capgap.analysis.estimate_rows import TASKS_LIKE_THESE, WITH_UNREADABLE_TASKS, EstimateRow, add_remarks
from capgap.analysis.groups import CAPABILITY_DUO, groups_at
from capgap.analysis.score_matrix import Floats, Ints, ScoreMatrix
from capgap.analysis.student_estimates import RoleComparison, difference_rows, ratio_rows
from capgap.errors import EstimationError
from capgap.schema.quantities import QUANTITIES
from capgap.schema.remarks import Reason, Remark, remark
from capgap.stats import Estimate, pool_over_labels

N_LABEL_DRAWS = 20
"""Of the labels."""
_DrawAnalysis = Callable[[NDArray[np.bool_]], Iterator[EstimateRow]]
"""From a draw of the uncertain labels, a mask of reasoning with shape (uncertain cells,), to rows."""


def count_labels(outcomes: pd.DataFrame, undeclared: set[tuple[str, str]]) -> dict[str, tuple[int, int]]:
    """Capability → how many of its items have an undeclared label, of how many.

    Parameters
    ----------
    outcomes
        With the labels joined and task names as they came.
    undeclared
        See `schema.undeclared_items`; of those only what the labels gave a capability is counted.
    """
    items = outcomes[outcomes["capability"].notna()].drop_duplicates(["task", "item"])
    keys = zip(items["task"].astype(str), items["item"].astype(str), strict=True)
    is_undeclared = pd.Series([key in undeclared for key in keys], index=items.index, dtype=bool)
    counts = is_undeclared.groupby(items["capability"].astype(str)).agg(["sum", "size"])
    return {str(name): (int(n), int(n_labels)) for name, n, n_labels in counts.itertuples()}


def flag_undeclared_labels(
    frame: pd.DataFrame, label_counts: Mapping[str | None, Mapping[str, tuple[int, int]]]
) -> pd.DataFrame:
    """The estimates, with a remark on every number by capability that rests on labels which nobody declared.

    Parameters
    ----------
    frame
        A draft of the table.
    label_counts
        Model → `count_labels` of what it is compared on; None: of everything, for numbers of several students.
    """
    contrast_quantities = {name for name, quantity in QUANTITIES.items() if quantity.is_capability_contrast}

    def remarks(quantity: str, level: str, group: str, model: str | None) -> tuple[Remark, ...]:
        counts = label_counts[model if isinstance(model, str) else None]
        names = CAPABILITY_DUO if quantity in contrast_quantities else (group,) if level == "capability" else ()
        n, n_labels = (sum(counts.get(name, (0, 0))[which] for name in names) for which in (0, 1))
        return (remark(Reason.UNDECLARED_LABELS, n=n, of=n_labels),) if n else ()

    estimate_keys = zip(frame["quantity"], frame["level"], frame["group"], frame["model"], strict=True)
    return add_remarks(frame, itertools.starmap(remarks, estimate_keys))


def student_label_rows(
    comparison: RoleComparison,
    undeclared: set[tuple[str, str]],
    labels: pd.DataFrame | None,
    excluded: frozenset[str],
) -> Iterator[EstimateRow]:
    """A student's numbers by capability and its contrasts by multiple imputation, the labels' uncertainty in them.

    Data costs are not drawn: their ends are open where a law says *never*, and Rubin's rules know no such interval.

    Parameters
    ----------
    comparison
        The student with its roles; labels are taken as certain there. Without a teacher there is no row.
    undeclared
        Task and item of what declares no capability of its own.
    labels
        A `labels` table; where it has no `p_reasoning` between 0 and 1 there is no row.
    excluded
        Tasks that are set aside from numbers of the teacher.
    """
    if "teacher" not in comparison.roles:
        return
    grid = comparison.grid
    p = _reasoning_probabilities(grid, undeclared, labels)
    uncertain_cells = np.flatnonzero(np.isfinite(p))

    def estimate(is_reasoning: NDArray[np.bool_]) -> Iterator[EstimateRow]:
        matrix = _relabelled(grid, uncertain_cells, is_reasoning)
        relabelled_comparison = replace(comparison, subsets=SubsetCache(matrix))
        item_groups = list(groups_at(matrix, "capability", excluded))
        yield from capability_contrast_rows(relabelled_comparison, excluded)
        yield from difference_rows(relabelled_comparison, item_groups)
        yield from ratio_rows(relabelled_comparison, item_groups)

    yield from _pool_over_draws(estimate, p[uncertain_cells], grid.task[uncertain_cells], comparison.conf_level)


def cohort_label_rows(
    grid: ScoreMatrix,
    undeclared: set[tuple[str, str]],
    labels: pd.DataFrame | None,
    cohort: Cohort,
    *,
    conf_level: float,
) -> Iterator[EstimateRow]:
    """What made several students better, likewise by multiple imputation; parameters as of `student_label_rows`."""
    p = _reasoning_probabilities(grid, undeclared, labels)
    uncertain_cells = np.flatnonzero(np.isfinite(p))

    def estimate(is_reasoning: NDArray[np.bool_]) -> Iterator[EstimateRow]:
        matrix = _relabelled(grid, uncertain_cells, is_reasoning)
        rows = effect_rows(matrix, cohort, conf_level=conf_level, alternatives=False)
        yield from (row for row in rows if row.quantity in ("effect", "effect_difference"))

    yield from _pool_over_draws(estimate, p[uncertain_cells], grid.task[uncertain_cells], conf_level)


def _relabelled(grid: ScoreMatrix, uncertain_cells: Ints, is_reasoning: NDArray[np.bool_]) -> ScoreMatrix:
    """The grid with the capabilities that were drawn."""
    capability = grid.facts["capability"].copy()
    capability[uncertain_cells] = np.where(is_reasoning, "reasoning", "knowledge")
    return replace(grid, facts={**grid.facts, "capability": capability})


def _pool_over_draws(analysis: _DrawAnalysis, p: Floats, tasks: Ints, conf_level: float) -> Iterator[EstimateRow]:
    """The rows of an analysis, each number pooled over draws of the labels; `p` and `tasks` are of uncertain cells."""
    if not len(p):
        return
    # over_labels pools numbers by name; the row that a name last came from says where the pooled number stands.
    patterns: dict[str, EstimateRow] = {}

    def estimates(is_reasoning: NDArray[np.bool_]) -> dict[str, Estimate]:
        draw_estimates = {}
        for row in analysis(is_reasoning):
            if row.weighting == "tasks" and row.population not in (TASKS_LIKE_THESE, WITH_UNREADABLE_TASKS):
                contrast = row.contrast if QUANTITIES[row.quantity].contrasts else None
                key = str((row.quantity, row.level, row.group, contrast, row.factors))
                patterns[key], draw_estimates[key] = row, row.estimate
        return draw_estimates

    try:
        pooled_numbers = pool_over_labels(
            estimates, p, tasks, rng=np.random.default_rng(0), n_draws=N_LABEL_DRAWS, conf_level=conf_level
        )
    except EstimationError:
        return  # no draw gave any number: the plain rows say why
    for key, pooled_number in pooled_numbers.items():
        row, share = patterns[key], pooled_number.label_share  # NaN where no draw has a variance
        remarks = [remark(Reason.LABEL_DRAWS, n=N_LABEL_DRAWS, of=len(p))]
        if share >= 0:
            remarks.append(remark(Reason.LABEL_VARIANCE, share=100 * share))
        yield replace(
            row,
            estimate=pooled_number.estimate.noting(*remarks),
            factors=(*row.factors, *([("label_variance_share", share)] if share >= 0 else [])),
            estimator="multiple_imputation",
        )


def _reasoning_probabilities(
    grid: ScoreMatrix, undeclared: set[tuple[str, str]], labels: pd.DataFrame | None
) -> Floats:
    """The probability of reasoning of each cell whose label is in doubt; NaN for the others, shape (cells,)."""
    p = np.full(len(grid.task), np.nan)
    if labels is None or "p_reasoning" not in labels.columns:
        return p
    rows = zip(labels["task"].astype(str), labels["item"].astype(str), labels["p_reasoning"], strict=True)
    p_reasoning = {(task, item): float(value) for task, item, value in rows if pd.notna(value) and 0 < value < 1}
    for cell, code in enumerate(grid.task):
        battery = str(grid.facts["battery"][cell])
        key = (grid.tasks[code].removeprefix(f"{battery}/"), str(grid.items[cell]))
        if key in undeclared:
            p[cell] = p_reasoning.get(key, np.nan)
    return p
