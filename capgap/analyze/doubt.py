"""Labels that nobody declared: which numbers rest on them, and what their doubt does to the contrast.

Labels are drawn, contrasts taken anew, and Rubin's rules put the spread of the draws into the interval.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from capgap import schema
from capgap.analyze.contrasts import contrast_rows
from capgap.analyze.cuts import Cuts
from capgap.analyze.grid import Grid
from capgap.analyze.quantities import Comparison
from capgap.analyze.rows import THESE_TASKS, Row
from capgap.stats import Estimate, over_labels

__all__ = ["DRAWS", "doubt_rows", "marked", "undeclared_items"]

DRAWS = 20
"""Of the labels."""
_CONTRASTED = ("knowledge", "reasoning")
_ACROSS = ("capability_contrast", "effect_difference", "relative_data_cost")
"""Quantities that set one capability against the other."""


def undeclared_items(outcomes: pd.DataFrame) -> set[tuple[str, str]]:
    """Task and item of what declares no capability."""
    rows = outcomes[outcomes["capability"].isna()].drop_duplicates(["task", "item"])
    return set(zip(rows["task"].astype(str), rows["item"].astype(str), strict=True))


def marked(table: pd.DataFrame, outcomes: pd.DataFrame, undeclared: set[tuple[str, str]]) -> pd.DataFrame:
    """The estimates, with a note on every number by capability that rests on labels which nobody declared.

    Parameters
    ----------
    table
        Estimates.
    outcomes
        With the labels joined and task names as they came.
    undeclared
        See `undeclared_items`; of those only what the labels gave a capability is counted.
    """
    items = outcomes[outcomes["capability"].notna()].drop_duplicates(["task", "item"])
    keys = zip(items["task"].astype(str), items["item"].astype(str), strict=True)
    inferred = pd.Series([key in undeclared for key in keys], index=items.index, dtype=bool)
    if not inferred.any():
        return table
    counts = inferred.groupby(items["capability"].astype(str)).agg(["sum", "size"])
    told = {name: _classifiers(n, of) for name, n, of in counts.itertuples() if n}
    notes = table["group"].map(told).where(table["level"] == "capability")
    n, of = counts.loc[counts.index.isin(_CONTRASTED)].sum()
    if n:
        notes = notes.where(~table["quantity"].isin(_ACROSS), _classifiers(n, of))
    old = table["note"].astype(object).where(table["note"].notna(), "")
    joined = old + np.where(old != "", "; ", "") + notes.fillna("").astype(object)
    return table.assign(note=table["note"].where(notes.isna(), joined.astype(table["note"].dtype)))


def _classifiers(n: int, of: int) -> str:
    return f"labels of {n:,} of {of:,} items are the classifier's"


def doubt_rows(
    grid: Grid,
    undeclared: set[tuple[str, str]],
    labels: pd.DataFrame | None,
    roles: schema.Roles,
    excluded: frozenset[str],
    *,
    prompting: Mapping[str, str],
    conf_level: float,
) -> Iterator[Row]:
    """`capability_contrast` with the doubt about the labels in its interval; its factors say ``"labels": "drawn"``.

    Parameters
    ----------
    grid
        Everybody's outcomes, labels taken as certain.
    undeclared
        Task and item of what declares no capability of its own.
    labels
        A `labels` table; where it has no `p_reasoning` between 0 and 1 there is no row.
    roles
        Who is who.
    excluded
        Tasks that the guard keeps out.
    prompting
        Model → how it was prompted.
    conf_level
        Of the intervals.
    """
    p = _doubt(grid, undeclared, labels)
    unsure = np.flatnonzero(np.isfinite(p))
    if not len(unsure) or roles.teacher is None:
        return
    for student in roles.students:
        patterns: dict[str, Row] = {}

        def contrasts(
            drawn: NDArray[np.bool_], student: str = student, patterns: dict[str, Row] = patterns
        ) -> dict[str, Estimate]:
            capability = grid.facts["capability"].copy()
            capability[unsure] = np.where(drawn, "reasoning", "knowledge")
            redrawn = replace(grid, facts={**grid.facts, "capability": capability})
            comparison = Comparison.of(Cuts(redrawn), student, roles, conf_level=conf_level, prompting=prompting)
            found = {}
            for row in contrast_rows(comparison, excluded):
                if row.weighting == "tasks" and row.population == THESE_TASKS:
                    name = f"{row.group}\0{row.contrast}"
                    patterns[name], found[name] = row, row.estimate
            return found

        tasks = grid.task[unsure]
        combined = over_labels(
            contrasts, p[unsure], tasks, rng=np.random.default_rng(0), n_draws=DRAWS, conf_level=conf_level
        )
        for name, one in combined.items():
            share = f"labels make {100 * one.label_share:.0f} % of the variance" if one.label_share >= 0 else ""
            told = f"{DRAWS} draws of the labels of {len(unsure)} items"
            row = patterns[name]
            yield replace(row, estimate=one.estimate.noting(told, share), factors=(*row.factors, ("labels", "drawn")))


def _doubt(grid: Grid, undeclared: set[tuple[str, str]], labels: pd.DataFrame | None) -> NDArray[np.float64]:
    """The probability of reasoning of each cell whose label is in doubt; NaN for the others, shape (cells,)."""
    p = np.full(len(grid.task), np.nan)
    if labels is None or "p_reasoning" not in labels.columns:
        return p
    rows = zip(labels["task"].astype(str), labels["item"].astype(str), labels["p_reasoning"], strict=True)
    known = {(task, item): float(value) for task, item, value in rows if pd.notna(value) and 0 < value < 1}
    for cell, code in enumerate(grid.task):
        battery = str(grid.facts["battery"][cell])
        key = (grid.tasks[code].removeprefix(f"{battery}/"), str(grid.items[cell]))
        if key in undeclared:
            p[cell] = known.get(key, np.nan)
    return p
