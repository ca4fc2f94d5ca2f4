"""Names of failure patterns: standardised differences of covariates, distinctive words, excess failure, examples."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from capgap.errors import EstimationError
from capgap.schema.remarks import Reason, remark
from capgap.stats.estimate import Estimate, EstimateSet, refused
from capgap.stats.means import mean_estimate
from capgap.stats.patterns.discover import FailurePatterns
from capgap.stats.stratified import Design

__all__ = ["PatternName", "label_patterns", "standardised_differences", "distinctive_words"]

Floats = NDArray[np.float64]

WORD_PATTERN = re.compile(r"[^\W_]+(?:['’][^\W_]+)?|[+\-*/=<>%^]")
"""A word, a number or a sign of arithmetic."""
MAX_TEXT_CHARS = 20_000
"""Only so many characters of a text are read for words."""
MIN_ITEMS_WITH_WORD = 3
"""A word of fewer items names nothing."""
MIN_LABEL_DIFFERENCE = 0.2
"""Standardised differences below this stay out of the label."""
PRIOR_ITEMS = 10.0
"""Weight of the prior of words: as if so many more items held each word as often as all do."""
MIN_WORD_Z = 3.0
"""Words below so many standard errors are left out."""


@dataclass(frozen=True)
class PatternName(EstimateSet):
    """How one pattern's items differ from the others."""

    pattern: int
    """Its column in the memberships."""
    differences: tuple[tuple[str, float], ...]
    """Covariates with their standardised difference (inside minus outside), largest first."""
    words: tuple[tuple[str, float], ...]
    """Words that its items hold more often, with the z of their log-odds, largest first."""
    failure: float
    """Students' mean failure on its items."""
    net_excess: Estimate
    """Failure of students minus that of the base on its items, minus the same on all other items."""
    excess_over_base: Estimate
    """Failure of students minus that of the base on its items."""
    examples: tuple[int, ...]
    """Items that belong to it most surely, best first."""

    @property
    def label(self) -> str:
        """A few words for a heading."""
        label_differences = [(name, d) for name, d in self.differences if abs(d) >= MIN_LABEL_DIFFERENCE]
        enriched_variables = {name.partition(" = ")[0] for name, d in label_differences if d > 0 and " = " in name}
        covariate_traits = []
        for name, d in label_differences:
            covariate, is_word, word = name.partition(" = ")
            if not is_word:
                covariate_traits.append(f"{'high' if d > 0 else 'low'} {name}")
            elif d > 0:
                covariate_traits.append(name)
            elif covariate not in enriched_variables:  # else that it is one word says already that it is not another
                covariate_traits.append(f"{covariate} other than {word}")
        quoted_words = [f"“{word}”" for word, _ in self.words[:3]]
        return ", ".join([*covariate_traits[:3], *quoted_words]) or "no covariate or word sets it apart"

    @property
    def heading(self) -> str:
        """The pattern's number, its label and how often its items are failed."""
        return f"pattern {self.pattern} ({self.label}): {100 * self.failure:.0f} % failure"

    def estimates(self) -> Iterator[tuple[dict[str, Any], Estimate]]:
        """Failure over the base, and its excess over that of the other items."""
        labels = {"pattern": self.pattern, "label": self.label, "failure": self.failure}
        yield {"contrast": "failure - base's", **labels}, self.excess_over_base
        yield {"contrast": "pattern - other items", **labels}, self.net_excess


def label_patterns(
    patterns: FailurePatterns,
    scores: ArrayLike,
    *,
    base: ArrayLike | None = None,
    covariates: Mapping[str, ArrayLike] | None = None,
    texts: Sequence[str] | None = None,
    clusters: ArrayLike | None = None,
    n_examples: int = 8,
    n_words: int = 10,
    conf_level: float = 0.95,
) -> list[PatternName]:
    """The patterns by what their items have in common.

    Parameters
    ----------
    patterns
        From `find_patterns`; of a refused result nothing is named.
    scores
        The scores that they were found in, shape (S, I).
    base
        The base model's scores, shape (I,); without it there is no excess.
    covariates
        Item covariates by name, shape (I,) each: numbers, or words, of which each becomes an indicator.
    texts
        The items' texts, I of them.
    clusters
        Cluster of each item, shape (I,), for the intervals of the excess; default every item its own.
    n_examples, n_words
        How many items and words to give.
    conf_level
        Of the intervals.

    Raises
    ------
    EstimationError
        A shape disagrees with the memberships.
    """
    member = patterns.memberships
    n_items = len(member)
    y = np.asarray(scores, dtype=float)
    columns = _columns(covariates or {}, n_items)
    _check_length("scores", y.shape[-1] if y.ndim == 2 else -1, n_items)
    for name, item_values in (("base", base), ("clusters", clusters)):
        _check_length(name, n_items if item_values is None else np.asarray(item_values).size, n_items)
    _check_length("texts", n_items if texts is None else len(texts), n_items)
    if patterns.status == "refused":
        return []
    seen = np.isfinite(y)
    with np.errstate(invalid="ignore"):
        failure = 1 - np.where(seen, y, 0.0).sum(axis=0) / seen.sum(axis=0)
    base_failure = np.full(n_items, np.nan) if base is None else 1 - np.asarray(base, dtype=float)
    group = np.arange(n_items) if clusters is None else np.unique(np.asarray(clusters), return_inverse=True)[1]
    item_words = None if texts is None else _words_of(texts)
    names = []
    for k in range(patterns.n_patterns):
        weights = np.where(np.isnan(member[:, k]), 0.0, member[:, k])
        included = np.isfinite(member[:, k])
        differences = standardised_differences(columns, weights, included)
        words = [] if item_words is None else distinctive_words(item_words, weights, included)[:n_words]
        excess_over_base, net_excess = _estimate_excess(failure - base_failure, weights, included, group, conf_level)
        valid = included & np.isfinite(failure)
        names.append(
            PatternName(
                pattern=k,
                differences=tuple(differences),
                words=tuple(words),
                failure=float(np.average(failure[valid], weights=weights[valid])) if weights[valid].sum() else math.nan,
                net_excess=net_excess,
                excess_over_base=excess_over_base,
                examples=tuple(int(i) for i in np.argsort(-weights, kind="stable")[:n_examples] if weights[i] > 0),
            )
        )
    return names


def standardised_differences(
    columns: Mapping[str, Floats], p_in_pattern: Floats, included: NDArray[np.bool_]
) -> list[tuple[str, float]]:
    """Mean inside minus mean outside in units of the pooled standard deviation, by absolute size, largest first.

    Parameters
    ----------
    columns
        Numeric covariates by name, shape (I,) each; items whose value is not finite do not count.
    p_in_pattern
        Membership of each item, 0 to 1, shape (I,).
    included
        Which items count at all, shape (I,).

    Notes
    -----
    ``(m1 - m0) / sqrt((v1 + v0) / 2)``, means and variances weighted by membership and by one minus it (Cohen 1988).
    A covariate that does not vary is left out.
    """
    differences = []
    for name, values in columns.items():
        has_value = included & np.isfinite(values)
        x, w = values[has_value], p_in_pattern[has_value]
        if not (w.sum() > 1e-9 and (1 - w).sum() > 1e-9):
            continue
        pattern_mean, other_mean = (np.average(x, weights=v) for v in (w, 1 - w))
        spread = (np.average((x - pattern_mean) ** 2, weights=w) + np.average((x - other_mean) ** 2, weights=1 - w)) / 2
        if spread > 1e-12 * (1 + pattern_mean**2):
            differences.append((name, float((pattern_mean - other_mean) / math.sqrt(spread))))
        elif abs(pattern_mean - other_mean) > 1e-9:
            differences.append((name, math.copysign(math.inf, pattern_mean - other_mean)))
    return sorted(differences, key=lambda pair: -abs(pair[1]))


def distinctive_words(
    item_words: Sequence[set[str]], p_in_pattern: Floats, included: NDArray[np.bool_]
) -> list[tuple[str, float]]:
    """Words that the items inside hold more often than those outside, with z above 3, largest first.

    Parameters
    ----------
    item_words
        The words of each item, I sets: a word counts once an item.
    p_in_pattern
        Membership of each item, 0 to 1, shape (I,).
    included
        Which items count at all, shape (I,).

    Notes
    -----
    Log-odds with an informative Dirichlet prior: words that are rare everywhere are pulled to equality.

    References
    ----------
    Monroe, B. L., Colaresi, M. P. & Quinn, K. M. (2008). Fightin' words. Political Analysis 16, 372-403.
    """
    pattern_word_counts: defaultdict[str, float] = defaultdict(float)
    other_word_counts: defaultdict[str, float] = defaultdict(float)
    items: Counter[str] = Counter()
    for words, weight, is_included in zip(item_words, p_in_pattern, included, strict=True):
        if not is_included:
            continue
        for word in words:
            pattern_word_counts[word] += float(weight)
            other_word_counts[word] += 1 - float(weight)
            items[word] += 1
    n_in_pattern, n_in_others = float(p_in_pattern[included].sum()), float((1 - p_in_pattern[included]).sum())
    if not (n_in_pattern > 0 and n_in_others > 0):
        return []
    total = n_in_pattern + n_in_others
    word_z_scores = []
    for word, n in items.items():
        if n < MIN_ITEMS_WITH_WORD:
            continue
        # A word that every item holds says nothing, and half an item keeps its odds finite.
        share = min(n / total, 1 - 0.5 / total)
        a, b = PRIOR_ITEMS * share, PRIOR_ITEMS * (1 - share)
        y1, y0 = pattern_word_counts[word], other_word_counts[word]
        pattern_odds, other_odds = (y1 + a) / (n_in_pattern - y1 + b), (y0 + a) / (n_in_others - y0 + b)
        variance = 1 / (y1 + a) + 1 / (y0 + a) + 1 / (n_in_pattern - y1 + b) + 1 / (n_in_others - y0 + b)
        z = math.log(pattern_odds / other_odds) / math.sqrt(variance)
        if z > MIN_WORD_Z:
            word_z_scores.append((word, z))
    return sorted(word_z_scores, key=lambda pair: (-pair[1], pair[0]))


def _check_length(name: str, length: int, n_items: int) -> None:
    if length != n_items:
        raise EstimationError(f"{name}: {n_items} items were grouped, {name} must speak of as many, found {length}.")


def _words_of(texts: Sequence[str]) -> list[set[str]]:
    return [set(WORD_PATTERN.findall(text[:MAX_TEXT_CHARS].lower())) for text in texts]


def _columns(covariates: Mapping[str, ArrayLike], n_items: int) -> dict[str, Floats]:
    """Numbers by name; each word of a column of words becomes an indicator."""
    columns: dict[str, Floats] = {}
    for name, raw in covariates.items():
        values = np.asarray(raw)
        if values.shape != (n_items,):
            raise EstimationError(f"covariate {name!r}: {n_items} items were grouped, found shape {values.shape}.")
        if values.dtype.kind in "biuf":
            columns[name] = values.astype(float)
            continue
        words = np.array(["" if v is None else str(v) for v in values])
        columns |= {f"{name} = {word}": (words == word).astype(float) for word in np.unique(words) if word}
    return columns


def _estimate_excess(
    failure_gap: Floats, p_in_pattern: Floats, included: NDArray[np.bool_], group: NDArray[np.intp], conf_level: float
) -> tuple[Estimate, Estimate]:
    """Failure over the base inside, and inside minus outside, by weighted means with clustered errors."""
    has_failure_gap = included & np.isfinite(failure_gap)
    w = p_in_pattern[has_failure_gap]
    if not has_failure_gap.any():
        refusal = refused(remark(Reason.NO_BASE_ANSWERS))
        return refusal, refusal
    n_in_pattern, n_in_others = float(w.sum()), float((1 - w).sum())
    if min(n_in_pattern, n_in_others) < 2:
        refusal = refused(remark(Reason.PATTERN_TOO_SMALL), n_items=int(has_failure_gap.sum()))
        return refusal, refusal
    g = failure_gap[has_failure_gap]
    mean_in, mean_out = float(w @ g) / n_in_pattern, float((1 - w) @ g) / n_in_others
    design = Design.of(np.zeros(len(g)), group[has_failure_gap])
    # Linearised weighted means: a plain mean of these values has the same error to first order.
    inner = w * (g - mean_in) * len(g) / n_in_pattern
    outer = (1 - w) * (g - mean_out) * len(g) / n_in_others
    excess_over_base = mean_estimate(design.fit(mean_in + inner), bounds=(-1.0, 1.0), conf_level=conf_level)
    excess = mean_estimate(design.fit(mean_in - mean_out + inner - outer), bounds=(-2.0, 2.0), conf_level=conf_level)
    fixed_membership_remark = remark(Reason.MEMBERSHIPS_AS_KNOWN)
    return excess_over_base.noting(fixed_membership_remark), excess.noting(fixed_membership_remark)
