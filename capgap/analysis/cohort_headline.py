"""Headline of a cohort: what more examples or another adaptation are worth, and what reasoning costs, in two lines."""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from capgap.analysis.groups import CONTRASTED
from capgap.analysis.number_format import one_line, with_interval

__all__ = ["cohort_sentences"]

_DOUBLED = {"n_examples": "twice the examples", "n_params": "twice the parameters"}
"""Factors whose effect is per unit of their logarithm, and what a doubling is called."""
_STUDENTS = {
    "these_checkpoints": "these checkpoints",
    "these_recipes": "these recipes",
    "these_recipes_this_base": "these recipes on this base",
    "these_recipes_bases_like_these": "these recipes on bases like these",
}
"""Population code → how a sentence calls it."""
_ENDS = ("estimate", "conf_low", "conf_high")
_MOST_RECIPES = 3


def cohort_sentences(estimates: pd.DataFrame) -> list[str]:
    """Lines about the students as a cohort; none where they are too few or differ in nothing known.

    Parameters
    ----------
    estimates
        From `analyze`.
    """
    return [*_effects_line(_rows(estimates, "effect")), *_relative_costs_line(_rows(estimates, "relative_data_cost"))]


def _rows(estimates: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """Rows of a quantity by its main estimator, their factors read."""
    main = estimates["estimator"].isin(["mixed_model", "learning_curve"])
    rows = estimates[(estimates["quantity"] == quantity) & main]
    return rows.assign(factors=[json.loads(text) if isinstance(text, str) else {} for text in rows["factors"]])


def _effects_line(effects: pd.DataFrame) -> Iterator[str]:
    shown = effects[(effects["status"] == "ok") & effects["group"].isin(CONTRASTED)]
    changes = shown.assign(change=[_change(factors) for factors in shown["factors"]])
    parts = []
    for change, rows in changes[changes["change"] != ""].groupby("change", sort=False):
        values = []
        for row in rows.sort_values("group").to_dict("records"):
            scale = math.log(2) if row["factors"].get("transform") == "log" else 1.0
            value, low, high = (scale * float(row[end]) for end in _ENDS)
            values.append(f"{with_interval(value, low, high, 'points')} in {row['group']}")
        parts.append(f"{change}: {' and '.join(values)}")
    if parts:
        first, text = shown.iloc[0], "; ".join(parts)
        population = f"{_STUDENTS[first['population_students']]}, {first['population_tasks'].replace('_', ' ')}"
        extent = f"{int(first['n_students'])} students, {int(first['n_tasks'])} tasks; {population}"
        yield f"{text[0].upper()}{text[1:]} ({extent})."


def _change(factors: Mapping[str, Any]) -> str:
    """What was changed about students, in words; empty for what is no matter of training."""
    factor = factors.get("factor")
    if factors.get("transform") == "log":
        return _DOUBLED.get(str(factor), "")
    if factor in ("capability", "format") or "level" not in factors:
        return ""
    return one_line(f"{factors['level']} instead of {factors['reference']}")


def _relative_costs_line(ratios: pd.DataFrame) -> Iterator[str]:
    """The highest target that any recipe can tell of."""
    shown = ratios[ratios["status"].isin(["ok", "open"])]
    targets = {(factors["target"], factors["target_scale"]) for factors in shown["factors"]}
    for share, scale in sorted(targets, reverse=True):
        rows = shown[[(f["target"], f["target_scale"]) == (share, scale) for f in shown["factors"]]]
        parts = [part for row in rows.to_dict("records") if (part := _ratio(row))]
        if parts:
            more = f", and {len(parts) - _MOST_RECIPES} more recipes" if len(parts) > _MOST_RECIPES else ""
            listed = "; ".join(parts[:_MOST_RECIPES])
            target = f"{100 * share:g} % {scale}"
            yield f"Reasoning costs {listed}{more} the examples that knowledge costs, for {target}."
            return


def _ratio(row: Mapping[Any, Any]) -> str:
    """A recipe's ratio with its interval, or its lower end where the upper is open; empty where neither is known."""
    value, low, high = (float(row[end]) for end in _ENDS)
    recipe = [one_line(str(v)) for name, v in row["factors"].items() if name not in ("target", "target_scale")]
    which = f" ({', '.join(recipe)})" if recipe else ""
    if math.isfinite(value) and math.isfinite(high):
        return f"{_times(value)} times [{_times(low)}, {_times(high)}]{which}"
    return f"at least {_times(low)} times{which}" if low > 0 else ""


def _times(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 1.95 else f"{ratio:,.0f}" if ratio >= 9.5 else f"{ratio:.1f}"
