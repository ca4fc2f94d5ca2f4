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

__all__ = ["PatternName", "name_patterns", "standardised_differences", "distinctive_words"]

Floats = NDArray[np.float64]

WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?|[+\-*/=<>%^]")
"""A word, a number or a sign of arithmetic."""
MAX_TEXT_CHARS = 20_000
"""Only so many characters of a text are read for words."""
MIN_WORD_ITEMS = 3
"""A word of fewer items names nothing."""
MIN_DIFFERENCE = 0.2
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
    base_excess: Estimate
    """Failure of students minus that of the base on its items."""
    examples: tuple[int, ...]
    """Items that belong to it most surely, best first."""

    @property
    def label(self) -> str:
        """A few words for a heading."""
        large_differences = [(name, d) for name, d in self.differences if abs(d) >= MIN_DIFFERENCE]
        overrepresented = {name.partition(" = ")[0] for name, d in large_differences if d > 0 and " = " in name}
        traits = []
        for name, d in large_differences:
            variable, is_word, word = name.partition(" = ")
            if not is_word:
                traits.append(f"{'high' if d > 0 else 'low'} {name}")
            elif d > 0:
                traits.append(name)
            elif variable not in overrepresented:  # else that it is one word says already that it is not another
                traits.append(f"{variable} other than {word}")
        quoted = [f"“{word}”" for word, _ in self.words[:3]]
        return ", ".join([*traits[:3], *quoted]) or "no covariate or word sets it apart"

    @property
    def heading(self) -> str:
        """The pattern's number, its label and how often its items are failed."""
        return f"pattern {self.pattern} ({self.label}): {100 * self.failure:.0f} % failure"

    def estimates(self) -> Iterator[tuple[dict[str, Any], Estimate]]:
        """Failure over the base, and its excess over that of the other items."""
        labels = {"pattern": self.pattern, "label": self.label, "failure": self.failure}
        yield {"contrast": "failure - base's", **labels}, self.base_excess
        yield {"contrast": "pattern - other items", **labels}, self.net_excess


def name_patterns(
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
        base_excess, net_excess = _excess_failure(failure - base_failure, weights, included, group, conf_level)
        valid = included & np.isfinite(failure)
        names.append(
            PatternName(
                pattern=k,
                differences=tuple(differences),
                words=tuple(words),
                failure=float(np.average(failure[valid], weights=weights[valid])) if weights[valid].sum() else math.nan,
                net_excess=net_excess,
                base_excess=base_excess,
                examples=tuple(int(i) for i in np.argsort(-weights, kind="stable")[:n_examples] if weights[i] > 0),
            )
        )
    return names


def standardised_differences(
    columns: Mapping[str, Floats], membership: Floats, included: NDArray[np.bool_]
) -> list[tuple[str, float]]:
    """Mean inside minus mean outside in units of the pooled standard deviation, by absolute size, largest first.

    Parameters
    ----------
    columns
        Numeric covariates by name, shape (I,) each; items whose value is not finite do not count.
    membership
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
        x, w = values[has_value], membership[has_value]
        if not (w.sum() > 1e-9 and (1 - w).sum() > 1e-9):
            continue
        inner_mean, outer_mean = (np.average(x, weights=v) for v in (w, 1 - w))
        spread = (np.average((x - inner_mean) ** 2, weights=w) + np.average((x - outer_mean) ** 2, weights=1 - w)) / 2
        if spread > 1e-12 * (1 + inner_mean**2):
            differences.append((name, float((inner_mean - outer_mean) / math.sqrt(spread))))
        elif abs(inner_mean - outer_mean) > 1e-9:
            differences.append((name, math.copysign(math.inf, inner_mean - outer_mean)))
    return sorted(differences, key=lambda pair: -abs(pair[1]))


def distinctive_words(
    item_words: Sequence[set[str]], membership: Floats, included: NDArray[np.bool_]
) -> list[tuple[str, float]]:
    """Words that the items inside hold more often than those outside, with z above 3, largest first.

    Parameters
    ----------
    item_words
        The words of each item, I sets: a word counts once an item.
    membership
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
    counts_inside: defaultdict[str, float] = defaultdict(float)
    counts_outside: defaultdict[str, float] = defaultdict(float)
    items: Counter[str] = Counter()
    for words, weight, is_included in zip(item_words, membership, included, strict=True):
        if not is_included:
            continue
        for word in words:
            counts_inside[word] += float(weight)
            counts_outside[word] += 1 - float(weight)
            items[word] += 1
    n_inside, n_outside = float(membership[included].sum()), float((1 - membership[included]).sum())
    if not (n_inside > 0 and n_outside > 0):
        return []
    total = n_inside + n_outside
    word_z_scores = []
    for word, n in items.items():
        if n < MIN_WORD_ITEMS:
            continue
        # A word that every item holds says nothing, and half an item keeps its odds finite.
        share = min(n / total, 1 - 0.5 / total)
        a, b = PRIOR_ITEMS * share, PRIOR_ITEMS * (1 - share)
        y1, y0 = counts_inside[word], counts_outside[word]
        odds1, odds0 = (y1 + a) / (n_inside - y1 + b), (y0 + a) / (n_outside - y0 + b)
        variance = 1 / (y1 + a) + 1 / (y0 + a) + 1 / (n_inside - y1 + b) + 1 / (n_outside - y0 + b)
        z = math.log(odds1 / odds0) / math.sqrt(variance)
        if z > MIN_WORD_Z:
            word_z_scores.append((word, z))
    return sorted(word_z_scores, key=lambda pair: (-pair[1], pair[0]))


def _check_length(name: str, length: int, n_items: int) -> None:
    if length != n_items:
        raise EstimationError(f"{name}: {n_items} items were grouped, {name} must speak of as many, found {length}.")


def _words_of(texts: Sequence[str]) -> list[set[str]]:
    return [set(WORD.findall(text[:MAX_TEXT_CHARS].lower())) for text in texts]


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


def _excess_failure(
    failure_gap: Floats, membership: Floats, included: NDArray[np.bool_], group: NDArray[np.intp], conf_level: float
) -> tuple[Estimate, Estimate]:
    """Failure over the base inside, and inside minus outside, by weighted means with clustered errors."""
    has_gap = included & np.isfinite(failure_gap)
    w = membership[has_gap]
    if not has_gap.any():
        refusal = refused(remark(Reason.NO_BASE_ANSWERS))
        return refusal, refusal
    n_inside, n_outside = float(w.sum()), float((1 - w).sum())
    if min(n_inside, n_outside) < 2:
        refusal = refused(remark(Reason.PATTERN_TOO_SMALL), n_items=int(has_gap.sum()))
        return refusal, refusal
    g = failure_gap[has_gap]
    mean_in, mean_out = float(w @ g) / n_inside, float((1 - w) @ g) / n_outside
    design = Design.of(np.zeros(len(g)), group[has_gap])
    # Linearised weighted means: a plain mean of these values has the same error to first order.
    inner = w * (g - mean_in) * len(g) / n_inside
    outer = (1 - w) * (g - mean_out) * len(g) / n_outside
    base_excess = mean_estimate(design.fit(mean_in + inner), bounds=(-1.0, 1.0), conf_level=conf_level)
    excess = mean_estimate(design.fit(mean_in - mean_out + inner - outer), bounds=(-2.0, 2.0), conf_level=conf_level)
    membership_remark = remark(Reason.MEMBERSHIPS_AS_KNOWN)
    return base_excess.noting(membership_remark), excess.noting(membership_remark)
