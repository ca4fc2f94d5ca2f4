"""Headline of a cohort: which recipe is ahead, what examples or an adaptation are worth, what reasoning costs."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from capgap.analysis.groups import CAPABILITY_DUO
from capgap.analysis.number_format import format_with_interval
from capgap.analysis.recipe_headline import recipe_sentences, student_sentences
from capgap.printable_text import one_line
from capgap.schema import MODELS

_DOUBLED_FACTOR_NAMES = {"n_examples": "twice the examples", "n_params": "twice the parameters"}
"""Factors whose effect is per unit of their logarithm, and what a doubling is called."""
_STUDENT_WORDS = {
    "these_checkpoints": "these checkpoints",
    "these_recipes": "these recipes",
    "these_recipes_bases_like_these": "these recipes on bases like these",
}
"""TargetPopulation code → how a sentence calls it."""
_INTERVAL_COLUMNS = ("estimate", "conf_low", "conf_high")
_MAX_RECIPES = 3
MOST_STUDENT_LINES = 8
"""Of more students, each one's line stands in tables and on the page only."""


def headline_lines(estimates: pd.DataFrame, student_lines: Sequence[str]) -> list[str]:
    """The headline: the sentence about recipes, those of the cohort, and a line a student where they are few.

    Parameters
    ----------
    estimates
        From `analyze`.
    student_lines
        The line of each student.
    """
    cohort_lines = [*recipe_sentences(estimates), *write_cohort_sentences(estimates)]
    if len(student_lines) <= MOST_STUDENT_LINES:
        return [*cohort_lines, *student_lines]
    shared_lines = cohort_lines or student_sentences(estimates)
    pointer = f"{len(student_lines)} students, one by one: see the table of the page, or estimates.json."
    return [*shared_lines, pointer] if shared_lines else list(student_lines)


def write_cohort_sentences(estimates: pd.DataFrame) -> list[str]:
    """Lines about effects and costs over the cohort; none where students are too few or differ in nothing known.

    Parameters
    ----------
    estimates
        From `analyze`.
    """
    effects, ratios = (_select_main_records(estimates, quantity) for quantity in ("effect", "relative_data_cost"))
    return [*_effects_line(effects), *_relative_costs_line(ratios)]


def _select_main_records(estimates: pd.DataFrame, quantity: str) -> list[dict[Any, Any]]:
    """Rows of a quantity by its main estimator that have a number, their factors read."""
    main = (estimates["quantity"] == quantity) & estimates["estimator"].isin(["mixed_model", "learning_curve"])
    rows = estimates[main & (estimates["status"] != "refused")].to_dict("records")
    return [{**row, "factors": json.loads(row["factors"])} for row in rows]


def _effects_line(effects: list[dict[Any, Any]]) -> Iterator[str]:
    capability_effects = [row for row in effects if row["status"] == "ok" and row["group"] in CAPABILITY_DUO]
    values: dict[str, list[str]] = {}
    for row in sorted(capability_effects, key=lambda row: CAPABILITY_DUO.index(row["group"])):
        scale = math.log(2) if row["factors"].get("transform") == "log" else 1.0
        value, low, high = (scale * float(row[end]) for end in _INTERVAL_COLUMNS)
        group_effect_text = f"{format_with_interval(value, low, high, 'points')} in {row['group']}"
        values.setdefault(_describe_change(row["factors"]), []).append(group_effect_text)
    if text := "; ".join(f"{contrast}: {' and '.join(findings)}" for contrast, findings in values.items() if contrast):
        effect = capability_effects[0]
        population = f"{_STUDENT_WORDS[effect['population_students']]}, {effect['population_tasks'].replace('_', ' ')}"
        sample_size_text = f"{int(effect['n_students'])} students, {int(effect['n_tasks'])} tasks; {population}"
        yield f"{text[0].upper()}{text[1:]} ({sample_size_text})."


def _describe_change(factors: Mapping[str, Any]) -> str:
    """What was changed about students, in words; empty for what is no matter of training."""
    factor_name = factors.get("factor")
    if factors.get("transform") == "log":
        return _DOUBLED_FACTOR_NAMES.get(str(factor_name), "")
    if factor_name in ("capability", "format") or "level" not in factors:
        return ""
    return one_line(f"{factors['level']} instead of {factors['reference']}")


def _relative_costs_line(ratios: list[dict[Any, Any]]) -> Iterator[str]:
    """The highest target that any recipe can tell of, by costs within the sizes that were tried."""
    targets = {(row["factors"]["target"], row["factors"]["target_scale"]) for row in ratios}
    for share, scale in sorted(targets, reverse=True):
        target_rows = [row for row in ratios if row["factors"]["target"] == share]
        if phrases := [ratio_phrase for row in target_rows if (ratio_phrase := _format_cost_ratio(row))]:
            overflow_text = f", and {len(phrases) - _MAX_RECIPES} more recipes" if len(phrases) > _MAX_RECIPES else ""
            listed_ratios = "; ".join(phrases[:_MAX_RECIPES])
            target = f"{100 * share:g} % {scale}"
            yield f"Reasoning costs {listed_ratios}{overflow_text} the examples that knowledge costs, for {target}."
            return


def _format_cost_ratio(row: Mapping[Any, Any]) -> str:
    """A recipe's ratio with its interval, or its lower end where only the upper is open and it costs more at least.

    An end that would rest on sizes beyond those that were tried is open; "at least 0.57 times" says nothing.
    """
    value, low, high = (float(row[end]) for end in _INTERVAL_COLUMNS)
    recipe = [one_line(str(v)) for name, v in row["factors"].items() if name in MODELS.names]
    recipe_suffix = f" ({', '.join(recipe)})" if recipe else ""
    if math.isfinite(value) and math.isfinite(high) and low > 0:
        return f"{_format_ratio(value)} times [{_format_ratio(low)}, {_format_ratio(high)}]{recipe_suffix}"
    return f"at least {_format_ratio(low)} times{recipe_suffix}" if low > 1 else ""


def _format_ratio(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 1.95 else f"{ratio:,.0f}" if ratio >= 9.5 else f"{ratio:.1f}"
