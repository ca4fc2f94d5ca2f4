"""First sentence of a comparison of several recipes: which is ahead, which cannot be told apart, and in what.

Whatever the sentence picks was picked by a look at the numbers, so that every interval in it is a simultaneous one
(`recipe_contrasts`). Recipes that cannot be told apart are never called equal.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from capgap.analysis.groups import CAPABILITY_DUO
from capgap.analysis.number_format import format_with_interval
from capgap.printable_text import cut_middle, one_line

MOST_CHARACTERS = 300
"""Of the sentence."""
_NAME_LENGTHS = (40, 24, 14)
"""Names are cut to the first of these that lets the sentence stay within `MOST_CHARACTERS`."""
_MOST_NAMES = 3


@dataclass(frozen=True)
class HeadlineContrast:
    """One simultaneous contrast, first minus second, in score."""

    first: str
    second: str
    estimate: float
    low: float
    high: float
    n_items: int = 0
    n_tasks: int = 0
    n_students: int = 0

    def of(self, leader: str) -> "HeadlineContrast":
        """The same with the leader first."""
        if self.first == leader:
            return self
        return replace(
            self, first=self.second, second=self.first, estimate=-self.estimate, low=-self.high, high=-self.low
        )

    @property
    def points(self) -> str:
        """``3.1 points [1.0, 5.2]``."""
        return format_with_interval(self.estimate, self.low, self.high, "points")


def recipe_sentences(estimates: pd.DataFrame) -> list[str]:
    """The sentence about recipes; none where fewer than two have three seeds.

    Parameters
    ----------
    estimates
        From `analyze`.
    """
    return _sentences(estimates, "recipe_contrast")


def student_sentences(estimates: pd.DataFrame) -> list[str]:
    """The same about students of no recipe, marked as exploratory; none where there is one only."""
    return _sentences(estimates, "student_contrast")


def _sentences(estimates: pd.DataFrame, quantity: str) -> list[str]:
    rows = estimates[(estimates["quantity"] == quantity) & (estimates["weighting"] == "tasks")]
    rows = rows[rows["estimate"].notna()]
    of_batteries = rows[rows["level"] == "battery"]
    if not len(of_batteries):
        return []
    largest = of_batteries.sort_values("n_items", ascending=False, kind="stable")["group"].iloc[0]
    contrasts = _contrasts(of_batteries[of_batteries["group"] == largest])
    names = _names_in(contrasts)
    leader = _leader(contrasts)
    of_capabilities = rows[rows["level"] == "capability"]
    by_capability = {
        name: _of_leader(_contrasts(of_capabilities[of_capabilities["group"] == name]), leader)
        for name in CAPABILITY_DUO
    }
    battery = largest if of_batteries["group"].nunique() > 1 else ""
    size = _size_text(contrasts, len(names), quantity, battery)
    for length in _NAME_LENGTHS:
        for capabilities in (by_capability, {}):
            text = f"{_findings(_of_leader(contrasts, leader), capabilities, length)} ({size})."
            if len(text) <= MOST_CHARACTERS:
                return [text]
    return [text[: MOST_CHARACTERS - 2] + "…."]


def _contrasts(rows: pd.DataFrame) -> list[HeadlineContrast]:
    records = rows.to_dict("records")
    return [_contrast(row, json.loads(row["factors"])) for row in records]


def _contrast(row: Mapping[Any, Any], factors: Mapping[str, Any]) -> HeadlineContrast:
    value, low, high = (float(row[name]) for name in ("estimate", "conf_low", "conf_high"))
    sizes = {name: 0 if pd.isna(row[name]) else int(row[name]) for name in ("n_items", "n_tasks", "n_students")}
    return HeadlineContrast(str(factors["first"]), str(factors["second"]), value, low, high, **sizes)


def printed_contrast(contrasts: Sequence[HeadlineContrast]) -> HeadlineContrast:
    """The contrast whose interval the sentence prints, the leader first.

    The leader (highest score) against the nearest that it is ahead of, or against the nearest of all where it is ahead
    of nobody: picked by a look at the numbers.
    """
    nearest_first = sorted(_of_leader(contrasts, _leader(contrasts)), key=lambda contrast: contrast.estimate)
    return next((contrast for contrast in nearest_first if contrast.low > 0), nearest_first[0])


def _names_in(contrasts: Sequence[HeadlineContrast]) -> list[str]:
    return list(dict.fromkeys(name for contrast in contrasts for name in (contrast.first, contrast.second)))


def _leader(contrasts: Sequence[HeadlineContrast]) -> str:
    """The name with the highest score, by its differences from a name that was compared with all others."""
    names = _names_in(contrasts)
    n_compared = {name: sum(name in (c.first, c.second) for c in contrasts) for name in names}
    reference = max(names, key=lambda name: n_compared[name])
    lead = {reference: 0.0}
    for contrast in contrasts:
        if reference in (contrast.first, contrast.second):
            lead[contrast.of(reference).second] = -contrast.of(reference).estimate
    return max(lead, key=lambda name: lead[name])


def _of_leader(contrasts: Sequence[HeadlineContrast], leader: str) -> list[HeadlineContrast]:
    """The leader's own, the leader first."""
    return [contrast.of(leader) for contrast in contrasts if leader in (contrast.first, contrast.second)]


def _findings(
    of_leader: Sequence[HeadlineContrast], by_capability: Mapping[str, Sequence[HeadlineContrast]], length: int
) -> str:
    """What the leader is ahead of, what cannot be told from it, and in which capability."""
    leader, nearest = _short(of_leader[0].first, length), printed_contrast(of_leader)
    nearest_first = sorted(of_leader, key=lambda contrast: contrast.estimate)
    behind = [contrast for contrast in nearest_first if contrast.low > 0]
    untold = [contrast for contrast in nearest_first if not contrast.low > 0]
    untold_names = _names([contrast.second for contrast in untold], length) if untold else ""
    if not behind:
        text = f"{leader} scored highest but can't be told apart from {untold_names}"
        return f"{text} (from {_short(nearest.second, length)}: {nearest.points})"
    phrases = [
        f"{capability} {contrast.points.replace(' points', '')}"
        for capability, contrasts in by_capability.items()
        for contrast in contrasts
        if contrast.second == nearest.second and math.isfinite(contrast.low)
    ]
    text = f"{leader} is {nearest.points} ahead of {_short(nearest.second, length)}"
    text += f" ({', '.join(phrases)})" if phrases else ""
    if len(behind) > 1:
        text += f", further ahead of {_names([contrast.second for contrast in behind[1:]], length)}"
    if untold:
        text += f"; it can't be told apart from {untold_names}"
    return text


def _size_text(contrasts: Sequence[HeadlineContrast], n_names: int, quantity: str, battery: str) -> str:
    first = contrasts[0]
    of_battery = f"{one_line(battery)}: " if battery else ""
    sizes = f"{first.n_tasks:,} task{'' if first.n_tasks == 1 else 's'}, {first.n_items:,} items"
    if quantity == "student_contrast":
        return f"{of_battery}{n_names} students, {sizes}; exploratory: other seeds may differ"
    n_seeds = {contrast.n_students for contrast in contrasts}
    seeds = f" × {first.n_students // 2} seeds" if len(n_seeds) == 1 and first.n_students % 2 == 0 else ""
    return f"{of_battery}{n_names} recipes{seeds}, {sizes}; intervals hold together"


def _short(name: str, length: int) -> str:
    return cut_middle(one_line(name), length)


def _names(names: Sequence[str], length: int) -> str:
    """``A, B and C``, or ``A, B and 12 more``."""
    shown = [_short(name, length) for name in names]
    if len(shown) > _MOST_NAMES:
        shown = [*shown[: _MOST_NAMES - 1], f"{len(shown) - _MOST_NAMES + 1} more"]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
