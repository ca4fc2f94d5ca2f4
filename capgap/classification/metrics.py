"""Accuracy, AUROC and calibration error of the text model on families left out, every family counting alike."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from capgap.classification.design_matrices import DesignMatrices, balanced
from capgap.classification.fitting import HeldOutPredictions

__all__ = ["FamilyMetrics", "ClassifierMetrics", "classifier_metrics"]

N_BINS = 10


@dataclass(frozen=True)
class FamilyMetrics:
    """Metrics of one family that was left out."""

    family: str
    reasoning: bool
    n: int
    """Items predicted."""
    accuracy: float
    """Share of the items on the right side of one half."""
    mean_p: float
    """Mean probability of reasoning."""
    auroc: float
    """Of this family's items against those of all families of the other label, families counting alike."""


@dataclass(frozen=True)
class ClassifierMetrics:
    """Metrics of the text model over all families that were left out."""

    families: tuple[FamilyMetrics, ...]
    auroc: float
    """Over the pooled out-of-family predictions, families counting alike within their label."""
    auroc_uncalibrated: float
    """The same before calibration, which differs between families since none calibrates itself."""
    accuracy: float
    """Averaged over families within each label, then over the labels."""
    ece: float
    """Expected calibration error over ten bins, every family counting alike."""
    ece_balanced: float
    """The same with labels counting alike too, which is what the calibration aims at."""
    bins: tuple[tuple[float, float, float], ...]
    """Mean probability, share of reasoning, and weight, of each bin."""
    confusion: tuple[tuple[float, float], tuple[float, float]]
    """Rows: truly knowledge, truly reasoning. Columns: called so. Families counting alike within a row."""


def classifier_metrics(design: DesignMatrices, left_out: HeldOutPredictions) -> ClassifierMetrics:
    """Metrics of out-of-family predictions."""
    family, label = design.family[left_out.item], design.reasoning[left_out.item]
    p = 1 / (1 + np.exp(-np.clip(left_out.logit, -500, 500)))
    within = balanced(family, label, np.ones(len(design.families)))
    equal = 1.0 / np.bincount(family, minlength=len(design.families))[family]
    rows = []
    for n in sorted(set(family.tolist())):
        of_family = design.families[n]
        here = family == n
        against = here | (label != of_family.reasoning)
        rows.append(
            FamilyMetrics(
                family=of_family.name,
                reasoning=of_family.reasoning,
                n=int(here.sum()),
                accuracy=float(np.mean((p[here] > 0.5) == of_family.reasoning)),
                mean_p=float(p[here].mean()),
                auroc=auroc(left_out.logit[against], label[against], equal[against]),
            )
        )
    rates = {kind: [row.accuracy for row in rows if row.reasoning == kind] for kind in (False, True)}
    right = [float(np.mean(rates[kind])) for kind in (False, True)]
    bins, ece = _reliability(p, label, equal)
    return ClassifierMetrics(
        families=tuple(rows),
        auroc=auroc(left_out.logit, label, within),
        auroc_uncalibrated=auroc(left_out.raw, label, within),
        accuracy=sum(right) / 2,
        ece=ece,
        ece_balanced=_reliability(p, label, within)[1],
        bins=bins,
        confusion=((right[0], 1 - right[0]), (1 - right[1], right[1])),
    )


def auroc(score: NDArray[np.float64], label: NDArray[np.bool_], weight: NDArray[np.float64]) -> float:
    """Weighted AUROC: the probability that a draw of the positive label scores above one of the negative; ties half."""
    order = np.argsort(score, kind="stable")
    score, label, weight = score[order], label[order], weight[order]
    _, start = np.unique(score, return_index=True)
    positive = np.add.reduceat(np.where(label, weight, 0.0), start)
    negative = np.add.reduceat(np.where(label, 0.0, weight), start)
    below = np.cumsum(negative) - negative
    total = positive.sum() * negative.sum()
    return float((positive * (below + negative / 2)).sum() / total) if total > 0 else float("nan")


def _reliability(
    p: NDArray[np.float64], label: NDArray[np.bool_], weight: NDArray[np.float64]
) -> tuple[tuple[tuple[float, float, float], ...], float]:
    """Reliability diagram in `N_BINS` equal bins (mean p, share of reasoning, mass), and the calibration error."""
    bin_of = np.minimum((p * N_BINS).astype(int), N_BINS - 1)
    weight = weight / weight.sum()
    bins, error = [], 0.0
    for n in range(N_BINS):
        here = bin_of == n
        mass = float(weight[here].sum())
        if mass > 0:
            mean, share = (float((weight[here] * x[here]).sum() / mass) for x in (p, label.astype(float)))
            bins.append((mean, share, mass))
            error += mass * abs(mean - share)
    return tuple(bins), error
