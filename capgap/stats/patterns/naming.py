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
from capgap.stats.estimate import Estimate, Result, refused
from capgap.stats.means import mean_estimate
from capgap.stats.patterns.discover import FailurePatterns
from capgap.stats.stratified import Design

__all__ = ["PatternName", "name_patterns", "standardised_differences", "distinctive_words"]

Floats = NDArray[np.float64]

WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?|[+\-*/=<>%^]")
"""A word, a number or a sign of arithmetic."""
TEXT_CHARS = 20_000
"""Only so many characters of a text are read for words."""
MIN_WORD_ITEMS = 3
"""A word of fewer items names nothing."""
MIN_DIFFERENCE = 0.2
"""Standardised differences below this stay out of the label."""
MIN_WORD_Z = 3.0
"""Words below so many standard errors are left out."""


@dataclass(frozen=True)
class PatternName(Result):
    """How one pattern's items differ from the others."""

    pattern: int
    """Its column in the memberships."""
    differences: tuple[tuple[str, float], ...]
    """Covariates with their standardised difference (inside minus outside), largest first."""
    words: tuple[tuple[str, float], ...]
    """Words that its items hold more often, with the z of their log-odds, largest first."""
    failure: float
    """Students' mean failure on its items."""
    excess: Estimate
    """Failure of students minus that of the base on its items, minus the same on all other items."""
    over_base: Estimate
    """Failure of students minus that of the base on its items."""
    examples: tuple[int, ...]
    """Items that belong to it most surely, best first."""

    @property
    def label(self) -> str:
        """A few words for a heading."""
        large = [(name, d) for name, d in self.differences if abs(d) >= MIN_DIFFERENCE]
        more_often = {name.partition(" = ")[0] for name, d in large if d > 0 and " = " in name}
        traits = []
        for name, d in large:
            variable, is_word, word = name.partition(" = ")
            if not is_word:
                traits.append(f"{'high' if d > 0 else 'low'} {name}")
            elif d > 0:
                traits.append(name)
            elif variable not in more_often:  # else that it is one word says already that it is not another
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
        yield {"contrast": "failure - base's", **labels}, self.over_base
        yield {"contrast": "pattern - other items", **labels}, self.excess


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
    for name, given in (("base", base), ("clusters", clusters)):
        _check_length(name, n_items if given is None else np.asarray(given).size, n_items)
    _check_length("texts", n_items if texts is None else len(texts), n_items)
    if patterns.status == "refused":
        return []
    seen = np.isfinite(y)
    with np.errstate(invalid="ignore"):
        failure = 1 - np.where(seen, y, 0.0).sum(axis=0) / seen.sum(axis=0)
    base_failure = np.full(n_items, np.nan) if base is None else 1 - np.asarray(base, dtype=float)
    group = np.arange(n_items) if clusters is None else np.unique(np.asarray(clusters), return_inverse=True)[1]
    words_of = None if texts is None else _words_of(texts)
    names = []
    for k in range(patterns.n_patterns):
        inside = np.where(np.isnan(member[:, k]), 0.0, member[:, k])
        usable = np.isfinite(member[:, k])
        differences = standardised_differences(columns, inside, usable)
        words = [] if words_of is None else distinctive_words(words_of, inside, usable)[:n_words]
        over, excess = _excess(failure - base_failure, inside, usable, group, conf_level)
        known = usable & np.isfinite(failure)
        names.append(
            PatternName(
                pattern=k,
                differences=tuple(differences),
                words=tuple(words),
                failure=float(np.average(failure[known], weights=inside[known])) if inside[known].sum() else math.nan,
                excess=excess,
                over_base=over,
                examples=tuple(int(i) for i in np.argsort(-inside, kind="stable")[:n_examples] if inside[i] > 0),
            )
        )
    return names


def standardised_differences(
    columns: Mapping[str, Floats], inside: Floats, usable: NDArray[np.bool_]
) -> list[tuple[str, float]]:
    """Mean inside minus mean outside in units of the pooled standard deviation, by absolute size, largest first.

    Parameters
    ----------
    columns
        Numeric covariates by name, shape (I,) each; items whose value is not finite do not count.
    inside
        Membership of each item, 0 to 1, shape (I,).
    usable
        Which items count at all, shape (I,).

    Notes
    -----
    ``(m1 - m0) / sqrt((v1 + v0) / 2)``, means and variances weighted by membership and by one minus it (Cohen 1988).
    A covariate that does not vary is left out.
    """
    differences = []
    for name, values in columns.items():
        known = usable & np.isfinite(values)
        x, w = values[known], inside[known]
        if not (w.sum() > 1e-9 and (1 - w).sum() > 1e-9):
            continue
        mean_in, mean_out = (np.average(x, weights=v) for v in (w, 1 - w))
        spread = (np.average((x - mean_in) ** 2, weights=w) + np.average((x - mean_out) ** 2, weights=1 - w)) / 2
        if spread > 1e-12 * (1 + mean_in**2):
            differences.append((name, float((mean_in - mean_out) / math.sqrt(spread))))
        elif abs(mean_in - mean_out) > 1e-9:
            differences.append((name, math.copysign(math.inf, mean_in - mean_out)))
    return sorted(differences, key=lambda pair: -abs(pair[1]))


def distinctive_words(
    words_of: Sequence[set[str]], inside: Floats, usable: NDArray[np.bool_], *, prior: float = 10.0
) -> list[tuple[str, float]]:
    """Words that the items inside hold more often than those outside, with z above 3, largest first.

    Parameters
    ----------
    words_of
        The words of each item, I sets: a word counts once an item.
    inside
        Membership of each item, 0 to 1, shape (I,).
    usable
        Which items count at all, shape (I,).
    prior
        Weight of the prior, in items: as if so many more items held each word as often as all do.

    Notes
    -----
    Log-odds with an informative Dirichlet prior: words that are rare everywhere are pulled to equality.

    References
    ----------
    Monroe, B. L., Colaresi, M. P. & Quinn, K. M. (2008). Fightin' words. Political Analysis 16, 372-403.
    """
    counts_in: defaultdict[str, float] = defaultdict(float)
    counts_out: defaultdict[str, float] = defaultdict(float)
    items: Counter[str] = Counter()
    for words, weight, use in zip(words_of, inside, usable, strict=True):
        if not use:
            continue
        for word in words:
            counts_in[word] += float(weight)
            counts_out[word] += 1 - float(weight)
            items[word] += 1
    n_in, n_out = float(inside[usable].sum()), float((1 - inside[usable]).sum())
    if not (n_in > 0 and n_out > 0):
        return []
    total = n_in + n_out
    distinctive = []
    for word, n in items.items():
        if n < MIN_WORD_ITEMS:
            continue
        # A word that every item holds says nothing, and half an item keeps its odds finite.
        share = min(n / total, 1 - 0.5 / total)
        a, b = prior * share, prior * (1 - share)
        y1, y0 = counts_in[word], counts_out[word]
        odds1, odds0 = (y1 + a) / (n_in - y1 + b), (y0 + a) / (n_out - y0 + b)
        variance = 1 / (y1 + a) + 1 / (y0 + a) + 1 / (n_in - y1 + b) + 1 / (n_out - y0 + b)
        z = math.log(odds1 / odds0) / math.sqrt(variance)
        if z > MIN_WORD_Z:
            distinctive.append((word, z))
    return sorted(distinctive, key=lambda pair: (-pair[1], pair[0]))


def _check_length(name: str, length: int, n_items: int) -> None:
    if length != n_items:
        raise EstimationError(f"{name}: {n_items} items were grouped, {name} must speak of as many, found {length}.")


def _words_of(texts: Sequence[str]) -> list[set[str]]:
    return [set(WORD.findall(text[:TEXT_CHARS].lower())) for text in texts]


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


def _excess(
    gap: Floats, inside: Floats, usable: NDArray[np.bool_], group: NDArray[np.intp], conf_level: float
) -> tuple[Estimate, Estimate]:
    """Failure over the base inside, and inside minus outside, by weighted means with clustered errors."""
    known = usable & np.isfinite(gap)
    w = inside[known]
    if not known.any():
        none = refused(remark(Reason.NO_BASE_ANSWERS))
        return none, none
    n_in, n_out = float(w.sum()), float((1 - w).sum())
    if min(n_in, n_out) < 2:
        none = refused(remark(Reason.PATTERN_TOO_SMALL), n_items=int(known.sum()))
        return none, none
    g = gap[known]
    mean_in, mean_out = float(w @ g) / n_in, float((1 - w) @ g) / n_out
    design = Design.of(np.zeros(len(g)), group[known])
    # Linearised weighted means: a plain mean of these values has the same error to first order.
    inner = w * (g - mean_in) * len(g) / n_in
    outer = (1 - w) * (g - mean_out) * len(g) / n_out
    over = mean_estimate(design.fit(mean_in + inner), bounds=(-1.0, 1.0), conf_level=conf_level)
    excess = mean_estimate(design.fit(mean_in - mean_out + inner - outer), bounds=(-2.0, 2.0), conf_level=conf_level)
    as_known = remark(Reason.MEMBERSHIPS_AS_KNOWN)
    return over.noting(as_known), excess.noting(as_known)
