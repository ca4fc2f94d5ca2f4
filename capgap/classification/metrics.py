"""Accuracy, AUROC and calibration error of the text model on families left out, every family counting alike."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from capgap.classification.design_matrices import DesignMatrices, balanced_item_weights
from capgap.classification.fitting import HeldOutPredictions

__all__ = ["ItemFamilyMetrics", "ClassifierMetrics", "compute_held_out_metrics"]

N_BINS = 10


@dataclass(frozen=True)
class ItemFamilyMetrics:
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

    families: tuple[ItemFamilyMetrics, ...]
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


def compute_held_out_metrics(design: DesignMatrices, predictions: HeldOutPredictions) -> ClassifierMetrics:
    """Metrics of out-of-family predictions."""
    family_index, label = design.family[predictions.item], design.reasoning[predictions.item]
    p = 1 / (1 + np.exp(-np.clip(predictions.logit, -500, 500)))
    balanced_weights = balanced_item_weights(family_index, label, np.ones(len(design.families)))
    inverse_family_sizes = 1.0 / np.bincount(family_index, minlength=len(design.families))[family_index]
    rows = []
    for n in sorted(set(family_index.tolist())):
        item_family = design.families[n]
        is_in_family = family_index == n
        is_compared = is_in_family | (label != item_family.reasoning)
        rows.append(
            ItemFamilyMetrics(
                family=item_family.name,
                reasoning=item_family.reasoning,
                n=int(is_in_family.sum()),
                accuracy=float(np.mean((p[is_in_family] > 0.5) == item_family.reasoning)),
                mean_p=float(p[is_in_family].mean()),
                auroc=auroc(predictions.logit[is_compared], label[is_compared], inverse_family_sizes[is_compared]),
            )
        )
    rates = {kind: [row.accuracy for row in rows if row.reasoning == kind] for kind in (False, True)}
    label_accuracy = [float(np.mean(rates[kind])) for kind in (False, True)]
    bins, ece = _reliability_and_ece(p, label, inverse_family_sizes)
    return ClassifierMetrics(
        families=tuple(rows),
        auroc=auroc(predictions.logit, label, balanced_weights),
        auroc_uncalibrated=auroc(predictions.raw, label, balanced_weights),
        accuracy=sum(label_accuracy) / 2,
        ece=ece,
        ece_balanced=_reliability_and_ece(p, label, balanced_weights)[1],
        bins=bins,
        confusion=((label_accuracy[0], 1 - label_accuracy[0]), (1 - label_accuracy[1], label_accuracy[1])),
    )


def auroc(score: NDArray[np.float64], label: NDArray[np.bool_], weight: NDArray[np.float64]) -> float:
    """Weighted AUROC: the probability that a draw of the positive label scores above one of the negative; ties half."""
    order = np.argsort(score, kind="stable")
    score, label, weight = score[order], label[order], weight[order]
    _, start = np.unique(score, return_index=True)
    positive = np.add.reduceat(np.where(label, weight, 0.0), start)
    negative = np.add.reduceat(np.where(label, 0.0, weight), start)
    negative_weight_below = np.cumsum(negative) - negative
    total = positive.sum() * negative.sum()
    return float((positive * (negative_weight_below + negative / 2)).sum() / total) if total > 0 else float("nan")


def _reliability_and_ece(
    p: NDArray[np.float64], label: NDArray[np.bool_], weight: NDArray[np.float64]
) -> tuple[tuple[tuple[float, float, float], ...], float]:
    """Reliability diagram in `N_BINS` equal bins (mean p, share of reasoning, mass), and the calibration error."""
    bin_of = np.minimum((p * N_BINS).astype(int), N_BINS - 1)
    weight = weight / weight.sum()
    bins, error = [], 0.0
    for n in range(N_BINS):
        in_bin = bin_of == n
        bin_weight = float(weight[in_bin].sum())
        if bin_weight > 0:
            mean, share = (float((weight[in_bin] * x[in_bin]).sum() / bin_weight) for x in (p, label.astype(float)))
            bins.append((mean, share, bin_weight))
            error += bin_weight * abs(mean - share)
    return tuple(bins), error
