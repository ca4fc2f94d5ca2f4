"""Headline of a cohort: what more examples or another adaptation are worth, and what reasoning costs, in two lines."""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from capgap.analysis.groups import CONTRASTED
from capgap.analysis.number_format import with_interval
from capgap.printable_text import one_line

_DOUBLED = {"n_examples": "twice the examples", "n_params": "twice the parameters"}
"""Factors whose effect is per unit of their logarithm, and what a doubling is called."""
_STUDENTS = {
    "these_checkpoints": "these checkpoints",
    "these_recipes": "these recipes",
    "these_recipes_bases_like_these": "these recipes on bases like these",
}
"""TargetPopulation code → how a sentence calls it."""
_ENDS = ("estimate", "conf_low", "conf_high")
_MOST_RECIPES = 3


def cohort_sentences(estimates: pd.DataFrame) -> list[str]:
    """Lines about the students as a cohort; none where they are too few or differ in nothing known.

    Parameters
    ----------
    estimates
        From `analyze`.
    """
    effects, ratios = (_records(estimates, quantity) for quantity in ("effect", "relative_data_cost"))
    return [*_effects_line(effects), *_relative_costs_line(ratios)]


def _records(estimates: pd.DataFrame, quantity: str) -> list[dict[Any, Any]]:
    """Rows of a quantity by its main estimator that have a number, their factors read."""
    main = (estimates["quantity"] == quantity) & estimates["estimator"].isin(["mixed_model", "learning_curve"])
    rows = estimates[main & (estimates["status"] != "refused")].to_dict("records")
    return [{**row, "factors": json.loads(row["factors"])} for row in rows]


def _effects_line(effects: list[dict[Any, Any]]) -> Iterator[str]:
    shown = [row for row in effects if row["status"] == "ok" and row["group"] in CONTRASTED]
    values: dict[str, list[str]] = {}
    for row in sorted(shown, key=lambda row: CONTRASTED.index(row["group"])):
        scale = math.log(2) if row["factors"].get("transform") == "log" else 1.0
        value, low, high = (scale * float(row[end]) for end in _ENDS)
        in_group = f"{with_interval(value, low, high, 'points')} in {row['group']}"
        values.setdefault(_change(row["factors"]), []).append(in_group)
    if text := "; ".join(f"{change}: {' and '.join(of_change)}" for change, of_change in values.items() if change):
        first = shown[0]
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


def _relative_costs_line(ratios: list[dict[Any, Any]]) -> Iterator[str]:
    """The highest target that any recipe can tell of."""
    targets = {(row["factors"]["target"], row["factors"]["target_scale"]) for row in ratios}
    for share, scale in sorted(targets, reverse=True):
        of_target = [row for row in ratios if row["factors"]["target"] == share]
        if parts := [part for row in of_target if (part := _ratio(row))]:
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
