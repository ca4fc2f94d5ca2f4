"""Fit of the text model to labelled families, with nested leave-families-out predictions.

`capgap.classification.refit` is the command around it.

Families count alike within each label, and the two labels count alike. When a family is left out, so is its kin.
Strength of the penalty and weight of words are chosen by families left out *among those that remain*, and so is the
calibration; nothing of a family ever touches its own prediction.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capgap.classification.coefficients import LogitCalibration, TextModelCoefficients
from capgap.classification.design_matrices import DesignMatrices, balanced_item_weights
from capgap.errors import EstimationError

__all__ = ["TUNING_GRID", "HeldOutPredictions", "FitSettings", "fit", "leave_families_out"]

MIN_FAMILIES = 8  # a word needs so many families, or it stands for one of them
MIN_WORD_ITEM_SHARE = 0.02  # and in each of them so large a share of the items
KNOWN_WORD_MIN_FAMILIES = 5  # words of so many families are known to the model
FEATURE_CLIP_SD = 3.0
INNER_FOLDS = 12
LAPSE_RATE = 0.01  # nobody can be surer than this of a new kind of item who has seen fewer than a hundred


@dataclass(frozen=True)
class FitSettings:
    """Hyperparameters."""

    evidence: float
    """Items' worth of evidence that weighs as much as the penalty: the inverse of its strength times their number."""
    words: float
    """Scale of the words beside standardised features; 0 leaves words out."""
    exercise_weight: float
    """Emphasis of a family that only helps to fit, as capgap's own exercises do; 1 counts it like a measured one."""


TUNING_GRID: tuple[FitSettings, ...] = tuple(FitSettings(evidence, 0.3, 2.0) for evidence in (5.0, 15.0, 45.0))


@dataclass(frozen=True)
class HeldOutPredictions:
    """Predictions for items of families that their fit had not seen."""

    item: NDArray[np.intp]
    """Rows of the design."""
    raw: NDArray[np.float64]
    """Log-odds before calibration."""
    logit: NDArray[np.float64]
    """Log-odds of reasoning, calibrated on other families."""
    settings: tuple[FitSettings, ...]
    """What was chosen, for each measured family in turn."""


@dataclass(frozen=True)
class _FittedRegression:
    """A fitted logistic regression and how its columns are made."""

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    columns: NDArray[np.intp]
    words: float
    model: Any

    def logits(self, design: DesignMatrices, rows: NDArray[np.intp]) -> NDArray[np.float64]:
        """Log-odds of reasoning, shape (rows,)."""
        return np.asarray(self.model.decision_function(_columns(self, design, rows)))


def _columns(fitted: _FittedRegression, design: DesignMatrices, rows: NDArray[np.intp]) -> Any:
    """The regression's columns, shape (rows, features + words): standardised features, and words where it has any."""
    from scipy import sparse

    z_scores = np.clip((design.feature_matrix[rows] - fitted.mean) / fitted.scale, -FEATURE_CLIP_SD, FEATURE_CLIP_SD)
    if not len(fitted.columns):
        return z_scores
    return sparse.hstack([sparse.csr_matrix(z_scores), design.words[rows][:, fitted.columns] * fitted.words]).tocsr()


def _regress(design: DesignMatrices, rows: NDArray[np.intp], settings: FitSettings) -> _FittedRegression:
    """Penalised logistic regression on the given items."""
    from sklearn.linear_model import LogisticRegression

    family_index, label = design.family[rows], design.reasoning[rows]
    if label.all() or not label.any():
        raise EstimationError("A fit needs families of knowledge and of reasoning; all that are left have one label.")
    weight_per_family = np.array([1.0 if members.measured else settings.exercise_weight for members in design.families])
    weights = balanced_item_weights(family_index, label, weight_per_family)
    feature_rows = design.feature_matrix[rows]
    mean = np.average(feature_rows, axis=0, weights=weights)
    scale = np.sqrt(np.average((feature_rows - mean) ** 2, axis=0, weights=weights))
    scale = np.where(scale > 1e-9, scale, 1.0)
    seen = np.unique(family_index)
    columns = np.flatnonzero((design.shares[seen] >= MIN_WORD_ITEM_SHARE).sum(axis=0) >= MIN_FAMILIES)
    fitted = _FittedRegression(mean, scale, columns if settings.words else columns[:0], settings.words, None)
    model = LogisticRegression(C=settings.evidence / len(rows), max_iter=1000, tol=1e-5)
    model.fit(_columns(fitted, design, rows), label, sample_weight=weights)
    return _FittedRegression(mean, scale, fitted.columns, settings.words, model)


def sample(design: DesignMatrices, limit: int, seed: int = 0) -> NDArray[np.intp]:
    """Rows to fit on: at most `limit` of each family, drawn at random."""
    rng = np.random.default_rng(seed)
    chosen = []
    for n in range(len(design.families)):
        rows = np.flatnonzero(design.family == n)
        chosen.append(np.sort(rng.choice(rows, limit, replace=False)) if len(rows) > limit else rows)
    return np.concatenate(chosen)


def _family_rows(
    design: DesignMatrices, rows: NDArray[np.intp], family_indices: Sequence[int] | NDArray[np.intp]
) -> NDArray[np.intp]:
    return rows[np.isin(design.family[rows], family_indices)]


def _inner_folds(design: DesignMatrices, family_indices: Sequence[int]) -> list[list[int]]:
    """Measured families dealt out into folds, each label in turn."""
    ordered = sorted(family_indices, key=lambda n: (design.families[n].reasoning, n))
    n_folds = min(INNER_FOLDS, len(ordered))
    return [ordered[k::n_folds] for k in range(n_folds)]


def _tune_settings(
    design: DesignMatrices, rows: NDArray[np.intp], left_out_families: Sequence[int], grid: Sequence[FitSettings]
) -> tuple[FitSettings, LogitCalibration]:
    """Settings and calibration by cross-validation over the families that are not `left_out_families`."""
    tuning_family_indices = [n for n in design.measured if n not in left_out_families]
    folds = _inner_folds(design, tuning_family_indices)
    candidates = []
    for settings in grid:
        items, logits = [], []
        for fold in folds:
            fitted = _regress(design, _family_rows(design, rows, design.without([*left_out_families, *fold])), settings)
            items.append(_family_rows(design, rows, fold))
            logits.append(fitted.logits(design, items[-1]))
        calibration, losses = fit_calibration(design, np.concatenate(items), np.concatenate(logits))
        candidates.append((settings, calibration, losses))
    if not candidates:
        raise EstimationError("No settings to choose from.")
    labels = np.array([design.families[n].reasoning for n in sorted(tuning_family_indices)])
    best_losses = min((losses for *_, losses in candidates), key=lambda losses: _mean_and_error(losses, labels)[0])
    # The strongest penalty that is not worse than the best by more than the standard error of their difference.
    settings_within_one_se = []
    for settings, calibration, losses in candidates:
        excess_loss, error = _mean_and_error(losses - best_losses, labels)
        if excess_loss <= error:
            settings_within_one_se.append((settings.evidence, excess_loss, settings, calibration))
    *_, settings, calibration = min(settings_within_one_se, key=lambda settings_candidate: settings_candidate[:2])
    return settings, calibration


def _mean_and_error(values: NDArray[np.float64], labels: NDArray[np.bool_]) -> tuple[float, float]:
    """Mean over families, labels counting alike, and its standard error."""
    values_by_label = [values[labels == label] for label in (False, True)]
    variances = [group.var(ddof=1) / len(group) if len(group) > 1 else 0.0 for group in values_by_label]
    return float(np.mean([group.mean() for group in values_by_label])), float(np.sqrt(sum(variances)) / 2)


def fit_calibration(
    design: DesignMatrices, items: NDArray[np.intp], logits: NDArray[np.float64]
) -> tuple[LogitCalibration, NDArray[np.float64]]:
    """Calibration of out-of-family log-odds by log-loss, with families counting alike.

    Returns
    -------
    calibration, losses
        What makes the log-loss least, labels counting alike, and that loss in nats for each family in their order.
    """
    from scipy.optimize import minimize

    label = design.reasoning[items]
    weights = balanced_item_weights(design.family[items], label, np.ones(len(design.families)))
    weights = weights / weights.sum()

    def loss(x: NDArray[np.float64]) -> float:
        p = LogitCalibration(float(x[0]), float(x[1]), LAPSE_RATE, LAPSE_RATE).probability(logits)
        return float(-(weights @ np.log(np.where(label, p, 1 - p))))

    optimum = minimize(loss, np.array([1.0, 0.0]), method="L-BFGS-B", bounds=[(0.05, 20.0), (-20.0, 20.0)])
    calibration = LogitCalibration(float(optimum.x[0]), float(optimum.x[1]), LAPSE_RATE, LAPSE_RATE)
    p = calibration.probability(logits)
    item_losses = -np.log(np.where(label, p, 1 - p))
    family_index = design.family[items]
    return calibration, np.array([item_losses[family_index == n].mean() for n in np.unique(family_index)])


def leave_families_out(
    design: DesignMatrices, *, limit: int = 150, seed: int = 0, grid: Sequence[FitSettings] = TUNING_GRID
) -> HeldOutPredictions:
    """Nested cross-validation: predictions of each measured family by a fit without it, tuned and calibrated inside.

    Parameters
    ----------
    design
        From `make_design`, with all items.
    limit
        Items of a family that a fit sees; all items of the family that is left out are predicted.
    seed
        Of the draw.
    grid
        Settings to choose from.

    Raises
    ------
    EstimationError
        Fewer than three measured families of a label.
    """
    labels = [design.families[n].reasoning for n in design.measured]
    if min(sum(labels), len(labels) - sum(labels)) < 3:
        raise EstimationError("Leaving families out takes three measured families of knowledge and three of reasoning.")
    rows = sample(design, limit, seed)
    items, raw, logit, chosen = [], [], [], []
    for left_out_family in design.measured:
        settings, calibration = _tune_settings(design, rows, [left_out_family], grid)
        fitted = _regress(design, _family_rows(design, rows, design.without([left_out_family])), settings)
        items.append(np.flatnonzero(design.family == left_out_family))
        raw.append(fitted.logits(design, items[-1]))
        logit.append(calibration.logit(raw[-1]))
        chosen.append(settings)
    return HeldOutPredictions(np.concatenate(items), np.concatenate(raw), np.concatenate(logit), tuple(chosen))


def spread(design: DesignMatrices, predictions: HeldOutPredictions) -> tuple[float, float]:
    """Spread of calibrated log-odds between families of a label, and between items of a family.

    Returns
    -------
    family_sd, item_sd
        Standard deviations of calibrated out-of-family log-odds: of families' means around the mean of their label,
        and of items around the mean of their family (families counting alike).
    """
    family_index = design.family[predictions.item]
    means = {n: predictions.logit[family_index == n].mean() for n in design.measured}
    within_family_variance = float(np.mean([predictions.logit[family_index == n].var() for n in design.measured]))
    sum_of_squares, degrees_of_freedom = 0.0, 0
    for label in (False, True):
        label_means = np.array([mean for n, mean in means.items() if design.families[n].reasoning == label])
        sum_of_squares += float(((label_means - label_means.mean()) ** 2).sum())
        degrees_of_freedom += len(label_means) - 1
    return float(np.sqrt(sum_of_squares / degrees_of_freedom)), float(np.sqrt(within_family_variance))


def fit(
    design: DesignMatrices,
    *,
    spreads: tuple[float, float],
    origin: dict[str, Any],
    limit: int = 150,
    seed: int = 0,
    grid: Sequence[FitSettings] = TUNING_GRID,
) -> tuple[TextModelCoefficients, Any]:
    """Coefficients fitted to all families, with settings and calibration by leaving families out.

    Parameters
    ----------
    design, limit, seed, grid
        As for `leave_families_out`.
    spreads
        From `spread`.
    origin
        What the file says of its making.

    Returns
    -------
    coefficients, regression
        What is shipped, and scikit-learn's own object, for comparison.
    """
    rows = sample(design, limit, seed)
    settings, calibration = _tune_settings(design, rows, [], grid)
    fitted = _regress(design, rows, settings)
    weight = fitted.model.coef_[0]
    n = design.feature_matrix.shape[1]
    words = {design.vocabulary[c]: float(w) * settings.words for c, w in zip(fitted.columns, weight[n:], strict=True)}
    known_columns = (design.shares > 0).sum(axis=0) >= KNOWN_WORD_MIN_FAMILIES
    coefficients = TextModelCoefficients(
        mean=fitted.mean,
        scale=fitted.scale,
        weight=weight[:n],
        clip=FEATURE_CLIP_SD,
        words=words,
        intercept=float(fitted.model.intercept_[0]),
        calibration=calibration,
        family_sd=spreads[0],
        item_sd=spreads[1],
        known=frozenset(word for word, is_known in zip(design.vocabulary, known_columns, strict=True) if is_known),
        provenance={**origin, "evidence": settings.evidence, "words": settings.words, "own": settings.exercise_weight},
    )
    return coefficients, fitted
