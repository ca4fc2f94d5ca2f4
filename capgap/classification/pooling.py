"""Pooling: every source's word on a task and its items into one probability of reasoning each, with an interval.

The model, on the scale of log-odds of reasoning, for the items i of one task::

    item           theta_i = T + delta_i            T ~ N(0, PRIOR_SD²), delta_i ~ N(0, spread²)
    word on i      y_ik    = theta_i + b_ik F_k + e_ik
    word on task   y_t     = T + b_t F_k + e_t       F_k ~ N(0, 1), one for each kind of evidence k

A word with standard deviation s of which a share h is common to the task has ``b = s sqrt(h)`` and an own error of
variance ``s² (1 - h)``. So an error that a kind of evidence makes on the whole task (words that mean another thing in
this family, a link that doesn't hold for these models) is not averaged away by many items. Everything is normal, so
the answer is exact and linear in the words: each has a coefficient, and a reason's weight in the pooled log-odds is
its coefficient times its weight in its source.

Some tasks ask the same of all their items, others are a mixture. The spread of the items is read from the words on
them: their variance beyond what their own errors explain, at least `ITEM_SD`².

References
----------
Gelman, A. et al. (2013). Bayesian Data Analysis, 3rd ed., chapter 5 (hierarchical normal model, known variances).
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from capgap.classification.evidence import Evidence, EvidenceModel, EvidenceReason

__all__ = ["ITEM_SD", "MIDDLE", "N_REASONS", "PRIOR_SD", "PooledLabel", "TaskLabels", "pool", "pool_alone"]

PRIOR_SD = 5.0
"""Of a task's log-odds before any word: without evidence p is 0.5 with an interval from 0.00006 to 0.99994."""
ITEM_SD = 0.5
"""How far items lie from their task, at least and without words on them: of a task at 95 %, between 88 % and 98 %."""
MIDDLE = (1 / 3, 2 / 3)
"""Between these probabilities an item is `mixed`: the odds are below two to one either way."""
N_REASONS = 3
"""Reasons that a label keeps."""

_Z = 1.959963984540054
_BEFORE = 5  # words that `ITEM_SD` counts for beside those on a task's items
_ROUNDING = 1e-9
_SURE = 23.0
_LEAST = 1e-4  # share of a word's variance that is its own, at least: two words never agree exactly
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PooledLabel:
    """What the evidence says of one item or task."""

    logit: float
    """Log-odds of reasoning, pooled."""
    sd: float
    """Their standard deviation."""
    reasons: tuple[EvidenceReason, ...] = ()
    """At most `N_REASONS`, heaviest first; weights are parts of `logit`."""
    kinds: tuple[str, ...] = ()
    """Kinds of evidence that went in, in alphabetical order."""
    mixed: bool = False
    """Whether it was declared `mixed`."""
    models: tuple[EvidenceModel, ...] = ()
    """Whose answers it rests on."""

    @property
    def p(self) -> float:
        """Probability of reasoning."""
        return _p(self.logit)

    @property
    def conf_low(self) -> float:
        """Lower end of the 95 % interval of `p`."""
        return _p(self.logit - _Z * self.sd)

    @property
    def conf_high(self) -> float:
        """Upper end of the 95 % interval of `p`."""
        return _p(self.logit + _Z * self.sd)

    @property
    def capability(self) -> str:
        """``knowledge`` or ``reasoning``; ``mixed`` where it was declared so or `p` lies in `MIDDLE`."""
        low, high = MIDDLE
        if self.mixed or low <= self.p <= high:
            return "mixed"
        return "reasoning" if self.p > high else "knowledge"


@dataclass(frozen=True)
class TaskLabels:
    """The labels of one task."""

    task: PooledLabel
    """Of the task: of the middle of its items."""
    items: tuple[PooledLabel, ...]
    """Of its items, in their order."""


@dataclass(frozen=True)
class _EvidenceArrays:
    """The words on items as arrays: n items, s places for words, u unknowns (T, then one F for each kind)."""

    y: Floats
    """Log-odds, shape (n, s); 0 where there is no word."""
    precision: Floats
    """One over the own variance, shape (n, s); 0 where there is no word."""
    a: Floats
    """What each word sees of the unknowns, shape (n, s, u)."""
    lead: Floats
    """Variance of theta_i given unknowns and words, shape (n,)."""
    weighted: Floats
    """``A' V^-1``, V with delta_i integrated out, shape (n, u, s)."""


@dataclass(frozen=True)
class _Posterior:
    """T and the F given all words: normal."""

    mean: Floats
    """Shape (u,)."""
    cov: Floats
    """Shape (u, u)."""
    by_task: Floats
    """Coefficient of each word on the task in `mean`, shape (u, words)."""


def pool(task: Sequence[Evidence], items: Sequence[Sequence[Evidence]]) -> TaskLabels:
    """One probability of reasoning for a task and for each of its items.

    Parameters
    ----------
    task
        Words on the task as a whole.
    items
        Words on each item, in their order; an item may have none.

    Returns
    -------
    TaskLabels
        With as many items as were given.
    """
    kinds = sorted({e.kind for e in task} | {e.kind for words in items for e in words})
    u = 1 + len(kinds)
    words = _words(items, kinds)
    seen = np.array([_seen(e, kinds) for e in task]).reshape(len(task), u)
    own = np.array([_own(e) for e in task])
    said = np.array([_bounded(e.logit) for e in task])
    precision = np.diag([PRIOR_SD**-2, *[1.0] * len(kinds)])
    precision += (seen.T / own) @ seen + np.einsum("nus,nsv->uv", words.weighted, words.a)
    cov = np.linalg.inv(precision)
    mean = cov @ ((seen.T / own) @ said + np.einsum("nus,ns->u", words.weighted, words.y))
    unknowns = _Posterior(mean, cov, cov @ (seen.T / own))
    return TaskLabels(_task(task, items, words, unknowns), _items(task, items, words, unknowns))


def pool_alone(words: Sequence[Evidence]) -> PooledLabel:
    """The label of an item that has no task: the same model with one item and one word of each kind, by hand.

    Parameters
    ----------
    words
        Words on the item, at most one of each kind.
    """
    weight = [max(e.sd, _LEAST) ** -2 for e in words]
    precision = 1 / (PRIOR_SD**2 + ITEM_SD**2) + sum(weight)
    logit = sum(w * _bounded(e.logit) for w, e in zip(weight, words, strict=True)) / precision
    reasons = [r for w, e in zip(weight, words, strict=True) for r in _scaled(e, w / precision)]
    return _label(logit, precision**-0.5, reasons, words)


def spread(items: Sequence[Sequence[Evidence]]) -> float:
    """How far the items of a task lie from each other, as a standard deviation of log-odds.

    Parameters
    ----------
    items
        Words on each item.

    Returns
    -------
    float
        From `ITEM_SD` to `PRIOR_SD`: by moments, from the kind with the most words, beside five words' worth of
        `ITEM_SD`.
    """
    by_kind: dict[str, list[Evidence]] = defaultdict(list)
    for words in items:
        for evidence in words:
            by_kind[evidence.kind].append(evidence)
    most = max((by_kind[kind] for kind in sorted(by_kind)), key=len, default=[])
    if len(most) < 2:
        return ITEM_SD
    own = float(np.mean([_own(e) for e in most]))
    beyond = float(np.var([_bounded(e.logit) for e in most], ddof=1)) - own
    read = (_BEFORE * ITEM_SD**2 + (len(most) - 1) * beyond) / (_BEFORE + len(most) - 1)
    return math.sqrt(min(max(read, ITEM_SD**2), PRIOR_SD**2))


def _words(items: Sequence[Sequence[Evidence]], kinds: Sequence[str]) -> _EvidenceArrays:
    """Words on items as arrays."""
    places = max((len(words) for words in items), default=0)
    shape = (len(items), places)
    y, precision, a = np.zeros(shape), np.zeros(shape), np.zeros((*shape, 1 + len(kinds)))
    for i, words in enumerate(items):
        for s, evidence in enumerate(words):
            y[i, s], precision[i, s] = _bounded(evidence.logit), 1 / _own(evidence)
            a[i, s] = _seen(evidence, kinds)
    lead = 1 / (spread(items) ** -2 + precision.sum(axis=1))
    da = precision[:, :, None] * a
    # Sherman & Morrison: V = diag(1 / precision) + spread² 11'
    shared = lead[:, None, None] * da.sum(axis=1)[:, :, None] * precision[:, None, :]
    return _EvidenceArrays(y, precision, a, lead, da.transpose(0, 2, 1) - shared)


def _items(
    task: Sequence[Evidence], items: Sequence[Sequence[Evidence]], words: _EvidenceArrays, unknowns: _Posterior
) -> tuple[PooledLabel, ...]:
    """The labels of the items: theta_i given everything."""
    sees = -words.lead[:, None] * np.einsum("ns,nsu->nu", words.precision, words.a)
    sees[:, 0] += 1.0
    direct = words.lead[:, None] * words.precision
    logit = sees @ unknowns.mean + (direct * words.y).sum(axis=1)
    sd = np.sqrt(words.lead + np.einsum("nu,uv,nv->n", sees, unknowns.cov, sees))
    own = direct + np.einsum("nu,uv,nvs->ns", sees, unknowns.cov, words.weighted)
    of_task = sees @ unknowns.by_task
    labels = []
    for i, said in enumerate(items):
        reasons = [r for s, e in enumerate(said) for r in _scaled(e, own[i, s])]
        reasons += [r for t, e in enumerate(task) for r in _scaled(e, of_task[i, t])]
        told = sum(own[i, s] * _bounded(e.logit) for s, e in enumerate(said))
        told += sum(of_task[i, t] * _bounded(e.logit) for t, e in enumerate(task))
        if abs(logit[i] - told) > _ROUNDING:
            reasons.append(EvidenceReason(f"the other {len(items) - 1:,} items of its task", float(logit[i] - told)))
        labels.append(_label(logit[i], sd[i], reasons, [*said, *task]))
    return tuple(labels)


def _task(
    task: Sequence[Evidence], items: Sequence[Sequence[Evidence]], words: _EvidenceArrays, unknowns: _Posterior
) -> PooledLabel:
    """The label of the task: T given everything. Equal reasons of its items are one reason."""
    coefficient = np.einsum("u,nus->ns", unknowns.cov[0], words.weighted)
    total: dict[str, float] = defaultdict(float)
    for i, said in enumerate(items):
        for s, evidence in enumerate(said):
            for reason in _scaled(evidence, coefficient[i, s]):
                total[reason.words] += reason.weight
    reasons = [EvidenceReason(name, weight) for name, weight in total.items()]
    reasons += [r for t, e in enumerate(task) for r in _scaled(e, unknowns.by_task[0, t])]
    return _label(
        unknowns.mean[0], math.sqrt(unknowns.cov[0, 0]), reasons, [*task, *(e for said in items for e in said)]
    )


def _label(logit: float, sd: float, reasons: Sequence[EvidenceReason], evidence: Sequence[Evidence]) -> PooledLabel:
    declared = [e for e in evidence if e.kind == "declared"]
    mixed = bool(declared) and all(e.logit == 0 for e in declared)
    ranked = sorted(reasons, key=lambda r: -abs(r.weight))
    if mixed:  # its weight is zero, since it speaks for neither, but it is what decides
        said = {r.words for r in declared[0].reasons}
        ranked.sort(key=lambda r: r.words not in said)
    return PooledLabel(
        logit=float(logit),
        sd=float(sd),
        reasons=tuple(ranked[:N_REASONS]),
        kinds=tuple(sorted({e.kind for e in evidence})),
        mixed=mixed,
        models=tuple(sorted({m for e in evidence for m in e.models}, key=lambda m: (m.name, m.weights_hash or ""))),
    )


def _scaled(evidence: Evidence, coefficient: float) -> list[EvidenceReason]:
    return [EvidenceReason(reason.words, float(coefficient) * reason.weight) for reason in evidence.reasons]


def _seen(evidence: Evidence, kinds: Sequence[str]) -> Floats:
    """What a word sees of the unknowns: T, and the error that its kind makes on the whole task."""
    seen = np.zeros(1 + len(kinds))
    seen[0] = 1.0
    seen[1 + kinds.index(evidence.kind)] = evidence.sd * math.sqrt(min(max(evidence.shared, 0.0), 1.0))
    return seen


def _own(evidence: Evidence) -> float:
    """The variance of a word that is its own."""
    return max(evidence.sd, _LEAST) ** 2 * max(1.0 - evidence.shared, _LEAST)


def _bounded(logit: float) -> float:
    """Log-odds beyond which nothing is any surer: a probability of one in ten billion."""
    return max(-_SURE, min(_SURE, logit))


def _p(logit: float) -> float:
    return Evidence("", logit, 0.0).p
