"""Points of a data-efficiency curve: means of students and teacher with their joint covariance."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from capgap.errors import EstimationError, suggestion
from capgap.schema.remarks import Reason, Remark, remark
from capgap.stats.curves.scales import SCORE_SCALES, find_step_accuracy, per_step_slope
from capgap.stats.curves.solve import CurveBounds
from capgap.stats.estimate import RemarkedResult
from capgap.stats.stratified import Design

__all__ = ["CurveData", "ScoreScale", "curve_data"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
ScoreScale = Literal["accuracy", "per_step", "log_probability"]

SEED_VARIANCE_OF_SUBSETS = 0.5
"""Share of the variance between seeds that comes from which examples were drawn, where nothing is known about it."""


@dataclass(frozen=True)
class CurveData(RemarkedResult):
    """The points of one curve; m students (repeated rows of one base are merged into one), the teacher last."""

    sizes: Floats
    """Unique training examples of the capability behind each student, shape (m,)."""
    means: Floats
    """Mean of each student and of the teacher on the scale, shape (m + 1,)."""
    covariance: Floats
    """Of the means through the items that all share, shape (m + 1, m + 1)."""
    spread: Floats
    """What one unit of a seed's effect on the logit moves each student's mean, shape (m,); 0 for a lone base."""
    seed_correlation: Floats
    """Correlation of the seeds' effects, shape (m, m)."""
    students: Ints
    """Row of the outcome matrix that each student came from, the first one of a merged base, shape (m,)."""
    influence: Floats
    """What each cluster adds to the errors of the means, shape (n_clusters, m + 1)."""
    clusters: Ints
    """Codes of the clusters, shape (n_clusters,)."""
    has_named_clusters: bool
    """Whether the caller named the clusters, so that another curve's equal code means the same items."""
    chance: float
    """Mean of a guess on the scale; NaN where unknown."""
    scale: ScoreScale
    """What the means are."""
    bounds: CurveBounds
    """Of a curve on the scale."""
    n_items: int
    """Items that every student and the teacher answered."""

    @property
    def n_sizes(self) -> int:
        """Distinct sizes."""
        return len(np.unique(self.sizes))

    def between(self, *, nested: bool = True) -> Floats:
        """Covariance of the students' means between seeds for a variance of 1 on the logit, shape (m + 1, m + 1).

        Without `nested` every student's seed has an effect of its own.
        """
        m = len(self.sizes)
        matrix = np.zeros((m + 1, m + 1))
        matrix[:m, :m] = np.outer(self.spread, self.spread) * (self.seed_correlation if nested else np.eye(m))
        return matrix


def curve_data(
    scores: ArrayLike,
    teacher: ArrayLike,
    sizes: ArrayLike,
    *,
    seeds: Sequence[object] | None = None,
    chance: ArrayLike | None = None,
    tasks: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    scale: ScoreScale = "accuracy",
    steps: ArrayLike | None = None,
    nested: float = SEED_VARIANCE_OF_SUBSETS,
    has_redrawn_subsets: bool = True,
) -> CurveData:
    """The points of a data-efficiency curve with their covariance.

    Parameters
    ----------
    scores
        Students by items, shape (S, n): right and wrong, scores in [0, 1], or mean log-probabilities of the target.
        Items that any student or the teacher lacks (NaN) are left out for all.
    teacher
        The teacher's scores on the same items, shape (n,).
    sizes
        Unique training examples of the capability, shape (S,), zero for the base.
    seeds
        Data seed of each student, length S: the subsets of one seed are nested. None: every student has its own.
    chance
        Score of a guess, shape (n,) or one number; NaN or None where unknown. On the scale of `scores`.
    tasks
        Task of each item, shape (n,): tasks count equally. None: items count equally.
    clusters
        Cluster of each item as an integer, shape (n,). None: every item stands alone, and is no other curve's.
    weights
        Of each item, in place of `tasks`.
    scale
        ``accuracy``; ``per_step``, the accuracy q of one step that would give the accuracy ``mean of q^k`` on items of
        k steps; ``log_probability``.
    steps
        k of each item, shape (n,), for ``per_step``.
    nested
        Share of the seeds' variance that comes from the examples drawn. Two subsets of one seed with sizes D < E share
        D of their examples, so that their seeds' effects correlate by ``nested * sqrt(D / E)``.
    has_redrawn_subsets
        Whether each seed drew its own subsets; if not, the seeds say nothing about other examples and a remark says so.

    Raises
    ------
    EstimationError
        Shapes disagree, a size is negative, a student has no score, no item was answered by all, or values lie off the
        scale.
    """
    rows, size = _stack_scores(scores, teacher, sizes, scale)
    if seeds is not None and len(seeds) != len(size):
        raise EstimationError(f"seeds: {len(size)} students need as many, found {len(seeds)}.")
    labels = np.arange(len(size)) if seeds is None else np.unique([str(s) for s in seeds], return_inverse=True)[1]
    finite: NDArray[np.bool_] = np.asarray(np.isfinite(rows).all(axis=0))
    remarks: list[Remark] = []
    if not finite.all():
        remarks.append(remark(Reason.ITEMS_LEFT_OUT, n=int((~finite).sum()), of=len(finite)))
    if not has_redrawn_subsets:
        remarks.append(remark(Reason.SUBSETS_NOT_REDRAWN))
    rows, size, students = _merged_base(rows[:, finite], size)
    weight, design = _build_item_design(finite, tasks, clusters, weights)
    means, influence = _compute_model_means(rows, weight, design)
    guess = math.nan if chance is None else _mean_chance(chance, finite, weight)
    spread, slope = SCORE_SCALES[scale].spread(means[:-1]), np.ones(len(means))
    if scale == "per_step":
        k = _check_item_steps(steps, finite)
        # The slope has no end at accuracy 0: half an answer among all stands in.
        slope = per_step_slope(np.maximum(means, 0.5 / (len(design.clusters) + 1)), k, weight)
        means, guess = find_step_accuracy(means, k, weight), float(find_step_accuracy(np.array([guess]), k, weight)[0])
        spread = spread * slope[:-1]
    is_lone_base = (size == 0) & ((size == 0).sum() == 1)  # one base was not trained: it has no seed to differ by
    return CurveData(
        sizes=size,
        means=means,
        covariance=_item_covariance(influence * slope, len(design.clusters), slope),
        spread=np.where(is_lone_base, 0.0, spread),
        seed_correlation=_correlate_seed_effects(size, labels[students], nested),
        students=students,
        influence=influence * slope,
        clusters=design.clusters,
        has_named_clusters=clusters is not None,
        chance=guess,
        scale=scale,
        bounds=SCORE_SCALES[scale].bounds,
        n_items=rows.shape[1],
        remarks=tuple(remarks),
    )


def _check_item_steps(steps: ArrayLike | None, finite: NDArray[np.bool_]) -> Floats:
    """Steps of the items that are used."""
    if steps is None:
        raise EstimationError("the scale 'per_step' needs the number of steps of each item: give steps.")
    k = _take_items(steps, finite, "steps")
    if not (np.isfinite(k).all() and k.min() >= 1):
        raise EstimationError("steps: every item needs at least one step.")
    return k


def _stack_scores(scores: ArrayLike, teacher: ArrayLike, sizes: ArrayLike, scale: str) -> tuple[Floats, Floats]:
    """Students and teacher in one matrix (S + 1, n), and the sizes."""
    if scale not in SCORE_SCALES:
        raise EstimationError(f"scale: found {scale!r}.{suggestion(scale, SCORE_SCALES)}")
    y, t, size = (np.asarray(a, dtype=float) for a in (scores, teacher, sizes))
    if y.ndim != 2 or t.shape != y.shape[1:] or size.shape != y.shape[:1]:
        raise EstimationError(
            f"scores must be students by items, teacher one row, sizes one per student; found shapes {y.shape}, "
            f"{t.shape}, {size.shape}."
        )
    if not (np.isfinite(size).all() and (size >= 0).all()):
        raise EstimationError("sizes: every student needs a number of examples, zero or more.")
    rows = np.vstack([y, t])
    empty = np.flatnonzero(~np.isfinite(rows).any(axis=1))
    if len(empty):
        unscored_model = "the teacher" if empty[0] == len(y) else f"student {empty[0]} (size {size[empty[0]]:g})"
        raise EstimationError(f"{unscored_model} has no finite score: leave it out or evaluate it.")
    low, high = SCORE_SCALES[scale].values
    observed = rows[np.isfinite(rows)]
    if observed.min() < low or observed.max() > high:
        raise EstimationError(
            f"scores on the scale {scale!r} lie in [{low:g}, {high:g}], found {observed.min():g} to {observed.max():g}."
        )
    if not np.isfinite(rows).all(axis=0).any():
        raise EstimationError("no item was answered by every student and the teacher: nothing to compare.")
    return rows, size


def _merged_base(rows: Floats, size: Floats) -> tuple[Floats, Floats, Ints]:
    """Rows of size zero that repeat one base's answers are one observation, not several."""
    zero = np.flatnonzero(size == 0)
    repeated = [i for i in zero[1:] if np.array_equal(rows[i], rows[zero[0]])]
    kept_rows = np.setdiff1d(np.arange(len(size)), repeated)
    return rows[np.append(kept_rows, len(size))], size[kept_rows], kept_rows


def _take_items(values: ArrayLike, finite: NDArray[np.bool_], name: str) -> NDArray[np.float64]:
    item_values = np.asarray(values, dtype=float)
    if item_values.shape != finite.shape:
        raise EstimationError(f"{name}: {len(finite)} items need as many values, found shape {item_values.shape}.")
    return item_values[finite]


def _build_item_design(
    finite: NDArray[np.bool_],
    tasks: ArrayLike | None,
    clusters: ArrayLike | None,
    weights: ArrayLike | None,
) -> tuple[Floats, Design]:
    """The weight of each item in a mean (they sum to 1), and the design that its errors come from."""
    cluster = np.flatnonzero(finite) if clusters is None else _take_items(clusters, finite, "clusters").astype(np.int64)
    if tasks is not None and weights is not None:
        raise EstimationError("give tasks, which then count equally, or weights of the items, not both.")
    if tasks is None:
        n = int(finite.sum())
        w = np.ones(n) if weights is None else _take_items(weights, finite, "weights")
        if not (np.isfinite(w).all() and (w >= 0).all() and w.sum() > 0):
            raise EstimationError("weights: every item needs a weight of zero or more, and not all zero.")
        return w / w.sum(), Design.of(np.zeros(n, dtype=int), cluster)
    task = np.asarray(tasks)
    if task.shape != finite.shape:
        raise EstimationError(f"tasks: {len(finite)} items need as many, found shape {task.shape}.")
    if len(np.unique(task)) > len(np.unique(task[finite])):
        raise EstimationError("tasks: a task has no item that every student and the teacher answered.")
    design = Design.of(task[finite], cluster)
    return design.weights[design.stratum] / design.counts[design.stratum], design


def _compute_model_means(rows: Floats, weight: Floats, design: Design) -> tuple[Floats, Floats]:
    """Weighted means (m + 1,) and what each cluster adds to their errors (CR2), shape (n_clusters, m + 1)."""
    means = rows @ weight
    if len(design.counts) > 1:
        return means, design.fit(rows.T).scores
    # Weighted items in one stratum: the linearised mean, n w (y - mean), has the same error.
    linearised_scores = len(weight) * weight[:, None] * (rows - means[:, None]).T
    return means, design.fit(linearised_scores).scores


def _mean_chance(chance: ArrayLike, finite: NDArray[np.bool_], weight: Floats) -> float:
    chance_values = np.asarray(chance, dtype=float)
    if chance_values.ndim and chance_values.shape != finite.shape:
        raise EstimationError(f"chance: one number or {len(finite)} of them, found shape {chance_values.shape}.")
    return float(weight @ np.broadcast_to(chance_values, finite.shape)[finite])


def _item_covariance(influence: Floats, n: int, slope: Floats) -> Floats:
    """Covariance of the means through the items, its correlations drawn together where the items are few.

    The correlations of (m + 1) models from n clusters are noisy, and their inverse noisier: they are shrunk towards
    their mean by the share that minimises the expected squared error (Schäfer & Strimmer 2005, target D of constant
    correlation). A mean that never varied has the variance of half an answer among n.
    """
    if not np.isfinite(influence).all():
        return np.full((influence.shape[1],) * 2, np.nan)
    covariance = influence.T @ influence
    variance = np.maximum(np.diag(covariance), 0.5 * (slope / n) ** 2)
    sd = np.sqrt(variance)
    correlation = covariance / np.outer(sd, sd)
    # Schäfer-Strimmer: variance of the correlations over their squared distance from the common one, at most 1.
    off_diagonal = ~np.eye(len(sd), dtype=bool)
    r = correlation[off_diagonal]
    mean = float(np.clip(r.mean(), 0.0, 0.99))
    noise, signal = ((1 - r**2) ** 2).sum() / max(n - 1, 1), ((r - mean) ** 2).sum()
    share = min(1.0, noise / signal) if signal > 0 else 1.0
    correlation = np.where(off_diagonal, share * mean + (1 - share) * correlation, 1.0 + 1e-7)
    return np.asarray(correlation * np.outer(sd, sd))


def _correlate_seed_effects(sizes: Floats, seeds: Ints, nested: float) -> Floats:
    """Correlation of the effects of seeds: nested subsets of one seed share the examples of the smaller one."""
    if not 0 <= nested <= 1:
        raise EstimationError(f"nested is a share between 0 and 1, found {nested:g}.")
    smaller_sizes, larger_sizes = np.minimum.outer(sizes, sizes), np.maximum.outer(sizes, sizes)
    overlap_correlation = np.sqrt(smaller_sizes / np.where(larger_sizes > 0, larger_sizes, 1.0))
    same_seed = np.equal.outer(seeds, seeds) & ~np.eye(len(sizes), dtype=bool)
    return np.where(same_seed, nested * overlap_correlation, 0.0) + np.eye(len(sizes))
