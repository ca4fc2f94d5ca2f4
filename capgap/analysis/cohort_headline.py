"""What several students say together, in a line or two: what more examples or another adaptation are worth."""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from capgap.analysis.number_format import one_line, with_interval

__all__ = ["cohort_sentences"]

_DOUBLED = {"log(n_examples)": "twice the examples", "log(n_params)": "twice the parameters"}
_CAPABILITIES = ("knowledge", "reasoning")
_ENDS = ("estimate", "conf_low", "conf_high")
_MOST_RECIPES = 3
_STUDENTS = {
    "these_checkpoints": "these checkpoints",
    "this_recipe": "this recipe",
    "these_recipes": "these recipes",
    "these_recipes_this_base": "these recipes on this base",
    "these_recipes_bases_like_these": "these recipes on bases like these",
}
"""Population code → how a sentence calls it."""


def cohort_sentences(estimates: pd.DataFrame) -> list[str]:
    """Lines about the students as a cohort; none where they are too few or differ in nothing known.

    Parameters
    ----------
    estimates
        From `analyze`.
    """
    effects, ratios = (_plain(estimates, quantity) for quantity in ("effect", "relative_data_cost"))
    return [*_worth(effects), *_costs(ratios)]


def _plain(estimates: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """Rows of a quantity that no other road, scale or draw of labels asks again."""
    return estimates[
        (estimates["quantity"] == quantity) & estimates["estimator"].isin(["mixed_model", "learning_curve"])
    ]


def _factors(told: object) -> dict[str, Any]:
    return dict(json.loads(told)) if isinstance(told, str) else {}


def _worth(effects: pd.DataFrame) -> Iterator[str]:
    told = effects[(effects["status"] == "ok") & effects["group"].isin(_CAPABILITIES)]
    parts = []
    for contrast, rows in told.groupby("contrast", sort=False):
        name = _factor(str(contrast))
        if name:
            scale = math.log(2) if contrast in _DOUBLED else 1.0
            values = []
            for row in rows.sort_values("group").to_dict("records"):
                value, low, high = (scale * float(row[end]) for end in _ENDS)
                values.append(f"{with_interval(value, low, high, 'points')} in {row['group']}")
            parts.append(f"{name}: {' and '.join(values)}")
    if parts:
        first = told.iloc[0]
        text = "; ".join(parts)
        students = _STUDENTS[str(first["population_students"])]
        whom = f"{students}, {str(first['population_tasks']).replace('_', ' ')}"
        extent = f"{int(first['n_students'])} students, {int(first['n_tasks'])} tasks; {whom}"
        yield f"{text[0].upper()}{text[1:]} ({extent})."


def _factor(contrast: str) -> str:
    """What was changed, in words; empty for what is no matter of training."""
    if contrast in _DOUBLED:
        return _DOUBLED[contrast]
    name, _, levels = contrast.partition("[")
    if name in ("capability", "format") or not levels:
        return ""
    ends = levels.removesuffix("]").split(" - ")
    return one_line(f"{ends[0]} instead of {ends[1]}" if len(ends) == 2 else f"{name} {levels.removesuffix(']')}")


def _costs(ratios: pd.DataFrame) -> Iterator[str]:
    """The highest target that any recipe can tell of."""
    told = ratios[ratios["status"].isin(["ok", "open"])]
    for target in sorted(told["contrast"].unique(), key=_share, reverse=True):
        parts = [part for row in told[told["contrast"] == target].to_dict("records") if (part := _ratio(row))]
        if parts:
            more = f", and {len(parts) - _MOST_RECIPES} more recipes" if len(parts) > _MOST_RECIPES else ""
            listed = "; ".join(parts[:_MOST_RECIPES])
            yield f"Reasoning costs {listed}{more} the examples that knowledge costs, for {target}."
            return


def _share(target: str) -> float:
    return float(target.split(" %")[0])


def _ratio(row: Mapping[Any, Any]) -> str:
    value, low, high = (float(row[end]) for end in _ENDS)
    made = {name: v for name, v in _factors(row["factors"]).items() if not name.startswith("target")}
    where = f" ({', '.join(one_line(str(v)) for v in made.values())})" if made else ""
    if math.isfinite(value) and math.isfinite(high):
        return f"{_times(value)} times [{_times(low)}, {_times(high)}]{where}"
    return f"at least {_times(low)} times{where}" if low > 0 else ""


def _times(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 1.95 else f"{ratio:,.0f}" if ratio >= 9.5 else f"{ratio:.1f}"
