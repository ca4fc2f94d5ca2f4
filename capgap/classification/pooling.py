"""Pooling by a hierarchical normal model: evidence on a task and its items into a probability of reasoning each.

The model, on the scale of log-odds of reasoning, for the items i of one task::

    item           theta_i = T + delta_i            T ~ N(0, PRIOR_SD²), delta_i ~ N(0, spread²)
    evidence on i  y_ik    = theta_i + b_ik F_k + e_ik
    evidence on T  y_t     = T + b_t F_k + e_t       F_k ~ N(0, 1), one for each kind of evidence k

A piece of evidence (a *word* below) with standard deviation s, of which a share h is common to the task, has
``b = s sqrt(h)`` and an own error of variance ``s² (1 - h)``. So an error that a kind of evidence makes on the whole
task (words that mean another thing in this family, a link that doesn't hold for these models) is not averaged away by
many items. Everything is normal, so the answer is exact and linear in the words: each has a coefficient, and a reason's
weight in the pooled log-odds is its coefficient times its weight in its source.

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

from capgap.classification.evidence import AskedModel, Evidence, EvidenceReason

PRIOR_SD = 5.0
"""Of a task's log-odds before any word: without evidence p is 0.5 with an interval from 0.00006 to 0.99994."""
ITEM_SD = 0.5
"""How far items lie from their task, at least and without words on them: of a task at 95 %, between 88 % and 98 %."""
MIXED_P_RANGE = (1 / 3, 2 / 3)
"""Between these probabilities an item is `mixed`: the odds are below two to one either way."""
N_REASONS = 3
"""Reasons that a label keeps."""

_Z_975 = 1.959963984540054
_PRIOR_N = 5  # words that `ITEM_SD` counts for beside those on a task's items
_ROUNDING = 1e-9
_MAX_LOGIT = 23.0  # log-odds beyond which nothing is any surer
_MIN_OWN_VARIANCE_SHARE = 1e-4  # share of a word's variance that is its own, at least: two words never agree exactly
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PooledLabel:
    """The pooled log-odds of one item or task, their interval, reasons and label."""

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
    models: tuple[AskedModel, ...] = ()
    """Whose answers it rests on."""

    @property
    def p(self) -> float:
        """Probability of reasoning."""
        return _logit_to_probability(self.logit)

    @property
    def conf_low(self) -> float:
        """Lower end of the 95 % interval of `p`."""
        return _logit_to_probability(self.logit - _Z_975 * self.sd)

    @property
    def conf_high(self) -> float:
        """Upper end of the 95 % interval of `p`."""
        return _logit_to_probability(self.logit + _Z_975 * self.sd)

    @property
    def capability(self) -> str:
        """``knowledge`` or ``reasoning``; ``mixed`` where it was declared so or `p` lies in `MIXED_P_RANGE`."""
        low, high = MIXED_P_RANGE
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
class _ItemEvidenceArrays:
    """Evidence on items as arrays: n items, at most s words on one, u unknowns (T, then one F for each kind)."""

    y: Floats
    """Log-odds, shape (n, s); 0 where there is no word."""
    precision: Floats
    """One over the own variance, shape (n, s); 0 where there is no word."""
    a: Floats
    """Coefficients of the unknowns in each word, shape (n, s, u)."""
    lead: Floats
    """Variance of theta_i given unknowns and words, shape (n,)."""
    weighted: Floats
    """``A' V^-1``, V with delta_i integrated out, shape (n, u, s)."""


@dataclass(frozen=True)
class _Posterior:
    """Posterior of T and the F given all words: normal."""

    mean: Floats
    """Shape (u,)."""
    cov: Floats
    """Shape (u, u)."""
    task_coefficients: Floats
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
    evidence_kinds = sorted({e.kind for e in task} | {e.kind for words in items for e in words})
    u = 1 + len(evidence_kinds)
    words = _item_evidence_arrays(items, evidence_kinds)
    loadings = np.array([_loadings(e, evidence_kinds) for e in task]).reshape(len(task), u)
    weighted = loadings.T / np.array([_own_variance(e) for e in task])
    logits = np.array([_clip_logit(e.logit) for e in task])
    # normal equations of the unknowns: prior, words on the task, words on items with delta_i integrated out
    precision = np.diag([PRIOR_SD**-2, *[1.0] * len(evidence_kinds)])
    precision += weighted @ loadings + np.einsum("nus,nsv->uv", words.weighted, words.a)
    cov = np.linalg.inv(precision)
    mean = cov @ (weighted @ logits + np.einsum("nus,ns->u", words.weighted, words.y))
    posterior = _Posterior(mean, cov, cov @ weighted)
    return TaskLabels(_label_task(task, items, words, posterior), _label_items(task, items, words, posterior))


def pool_lone_item(words: Sequence[Evidence]) -> PooledLabel:
    """The label of an item that has no task: the same model with one item and one word of each kind, in closed form.

    Parameters
    ----------
    words
        Words on the item, at most one of each kind.
    """
    weight = [max(e.sd, _MIN_OWN_VARIANCE_SHARE) ** -2 for e in words]
    precision = 1 / (PRIOR_SD**2 + ITEM_SD**2) + sum(weight)
    logit = sum(w * _clip_logit(e.logit) for w, e in zip(weight, words, strict=True)) / precision
    reasons = [r for w, e in zip(weight, words, strict=True) for r in _scale_reasons(e, w / precision)]
    return _new_label(logit, precision**-0.5, reasons, words)


def spread(items: Sequence[Sequence[Evidence]]) -> float:
    """Standard deviation of the log-odds of a task's items around the task.

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
    evidence_by_source: dict[str, list[Evidence]] = defaultdict(list)
    for words in items:
        for evidence in words:
            evidence_by_source[evidence.kind].append(evidence)
    main_evidence = max((evidence_by_source[kind] for kind in sorted(evidence_by_source)), key=len, default=[])
    if len(main_evidence) < 2:
        return ITEM_SD
    noise = float(np.mean([_own_variance(e) for e in main_evidence]))
    excess_variance = float(np.var([_clip_logit(e.logit) for e in main_evidence], ddof=1)) - noise
    shrunk = (_PRIOR_N * ITEM_SD**2 + (len(main_evidence) - 1) * excess_variance) / (_PRIOR_N + len(main_evidence) - 1)
    return math.sqrt(min(max(shrunk, ITEM_SD**2), PRIOR_SD**2))


def _item_evidence_arrays(items: Sequence[Sequence[Evidence]], evidence_kinds: Sequence[str]) -> _ItemEvidenceArrays:
    """Evidence on items as arrays."""
    shape = (len(items), max((len(words) for words in items), default=0))
    y, precision, a = np.zeros(shape), np.zeros(shape), np.zeros((*shape, 1 + len(evidence_kinds)))
    for i, words in enumerate(items):
        for s, evidence in enumerate(words):
            y[i, s], precision[i, s] = _clip_logit(evidence.logit), 1 / _own_variance(evidence)
            a[i, s] = _loadings(evidence, evidence_kinds)
    theta_variance = 1 / (spread(items) ** -2 + precision.sum(axis=1))
    scaled_loadings = precision[:, :, None] * a
    # Sherman & Morrison: V = diag(1 / precision) + spread² 11'
    rank_one_term = theta_variance[:, None, None] * scaled_loadings.sum(axis=1)[:, :, None] * precision[:, None, :]
    return _ItemEvidenceArrays(y, precision, a, theta_variance, scaled_loadings.transpose(0, 2, 1) - rank_one_term)


def _label_items(
    task: Sequence[Evidence], items: Sequence[Sequence[Evidence]], words: _ItemEvidenceArrays, posterior: _Posterior
) -> tuple[PooledLabel, ...]:
    """The labels of the items: theta_i given everything."""
    # theta_i given the unknowns and its own words is linear in both: `slope` on the unknowns, `direct` on the words
    slope = -words.lead[:, None] * np.einsum("ns,nsu->nu", words.precision, words.a)
    slope[:, 0] += 1.0
    own_evidence_weights = words.lead[:, None] * words.precision
    logit = slope @ posterior.mean + (own_evidence_weights * words.y).sum(axis=1)
    sd = np.sqrt(words.lead + np.einsum("nu,uv,nv->n", slope, posterior.cov, slope))
    # coefficients of an item's words, directly and through the unknowns, and of the words on its task
    item_coefficients = own_evidence_weights + np.einsum("nu,uv,nvs->ns", slope, posterior.cov, words.weighted)
    task_coefficients = slope @ posterior.task_coefficients
    labels = []
    for i, evidence in enumerate(items):
        pairs = [*zip(evidence, item_coefficients[i], strict=False), *zip(task, task_coefficients[i], strict=True)]
        reasons = [r for e, coefficient in pairs for r in _scale_reasons(e, coefficient)]
        other_items_logit = logit[i] - sum(coefficient * _clip_logit(e.logit) for e, coefficient in pairs)
        if abs(other_items_logit) > _ROUNDING:
            reasons.append(EvidenceReason(f"the other {len(items) - 1:,} items of its task", float(other_items_logit)))
        labels.append(_new_label(logit[i], sd[i], reasons, [*evidence, *task]))
    return tuple(labels)


def _label_task(
    task: Sequence[Evidence], items: Sequence[Sequence[Evidence]], words: _ItemEvidenceArrays, posterior: _Posterior
) -> PooledLabel:
    """The label of the task: T given everything. Equal reasons of its items are one reason."""
    coefficient = np.einsum("u,nus->ns", posterior.cov[0], words.weighted)
    total: dict[str, float] = defaultdict(float)
    for i, item_evidence in enumerate(items):
        for s, evidence in enumerate(item_evidence):
            for reason in _scale_reasons(evidence, coefficient[i, s]):
                total[reason.words] += reason.weight
    reasons = [EvidenceReason(name, weight) for name, weight in total.items()]
    reasons += [r for t, e in enumerate(task) for r in _scale_reasons(e, posterior.task_coefficients[0, t])]
    task_and_item_evidence = [*task, *(e for item_evidence in items for e in item_evidence)]
    return _new_label(posterior.mean[0], math.sqrt(posterior.cov[0, 0]), reasons, task_and_item_evidence)


def _new_label(logit: float, sd: float, reasons: Sequence[EvidenceReason], evidence: Sequence[Evidence]) -> PooledLabel:
    declarations = [e for e in evidence if e.kind == "declared"]
    is_declared_mixed = bool(declarations) and all(e.logit == 0 for e in declarations)
    ranked = sorted(reasons, key=lambda r: -abs(r.weight))
    if is_declared_mixed:  # its weight is zero, since it speaks for neither, but it is what decides
        declared_reason_texts = {r.words for r in declarations[0].reasons}
        ranked.sort(key=lambda r: r.words not in declared_reason_texts)
    return PooledLabel(
        logit=float(logit),
        sd=float(sd),
        reasons=tuple(ranked[:N_REASONS]),
        kinds=tuple(sorted({e.kind for e in evidence})),
        mixed=is_declared_mixed,
        models=tuple(sorted({m for e in evidence for m in e.models}, key=lambda m: (m.name, m.weights_hash or ""))),
    )


def _scale_reasons(evidence: Evidence, coefficient: float) -> list[EvidenceReason]:
    return [EvidenceReason(reason.words, float(coefficient) * reason.weight) for reason in evidence.reasons]


def _loadings(evidence: Evidence, evidence_kinds: Sequence[str]) -> Floats:
    """Coefficients of the unknowns in a word, shape (u,): 1 of T, b of the error that its kind makes on the task."""
    loadings = np.zeros(1 + len(evidence_kinds))
    loadings[0] = 1.0
    loadings[1 + evidence_kinds.index(evidence.kind)] = evidence.sd * math.sqrt(min(max(evidence.shared, 0.0), 1.0))
    return loadings


def _own_variance(evidence: Evidence) -> float:
    """The variance of a word that it shares with no other."""
    return max(evidence.sd, _MIN_OWN_VARIANCE_SHARE) ** 2 * max(1.0 - evidence.shared, _MIN_OWN_VARIANCE_SHARE)


def _clip_logit(logit: float) -> float:
    """The log-odds, at most as sure as one in ten billion is."""
    return max(-_MAX_LOGIT, min(_MAX_LOGIT, logit))


def _logit_to_probability(logit: float) -> float:
    return Evidence("", logit, 0.0).p
