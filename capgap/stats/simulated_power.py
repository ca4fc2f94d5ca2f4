"""Power by simulation: of differences of gap closures, and of any estimator that can be drawn."""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from capgap.errors import EstimationError
from capgap.schema.remarks import Reason
from capgap.stats.binary import wilson_interval
from capgap.stats.estimate import Estimate
from capgap.stats.power import RequiredSize, find_min_size
from capgap.stats.ratios import ratio_difference
from capgap.stats.stratified import StratifiedMean, stratified_mean


@dataclass(frozen=True)
class SimulatedPower:
    """How often a simulated study found what was put into it."""

    power: float
    """Share of the replicates whose interval excludes zero; refused and open ones count as not found."""
    conf_low: float
    """Wilson's 95 % interval of that share: Monte-Carlo error only."""
    conf_high: float
    refused: float
    """Share of the replicates without an interval."""
    width: float
    """Median width of the intervals."""
    n_replicates: int
    """Replicates."""
    reason: Reason | None = None
    """Why the replicates without an interval have none, the most frequent code; None where all have one."""

    def __str__(self) -> str:
        interval = f"[{self.conf_low:.2f}, {self.conf_high:.2f}]"
        reason_text = f" (most often: {self.reason.replace('_', ' ')})" if self.reason else ""
        refused_text = f"{100 * self.refused:.0f} % refused{reason_text}"
        return f"power {self.power:.2f} {interval}, {refused_text}, {self.n_replicates} replicates"


def simulated_power(
    draw: Callable[[np.random.Generator], Estimate], *, rng: np.random.Generator, n_replicates: int = 400
) -> SimulatedPower:
    """How often the interval of any estimator excludes zero.

    Parameters
    ----------
    draw
        Simulates one study and estimates: a gap, a closure difference, the logarithm of a data-cost ratio.
    rng
        Passed to each draw.
    n_replicates
        Studies.
    """
    if n_replicates < 1:
        raise EstimationError(f"one replicate at least is needed, found {n_replicates}.")
    n_excluding_zero, widths = 0, []
    reasons: Counter[Reason | None] = Counter()
    for _ in range(n_replicates):
        e = draw(rng)
        if e.status != "ok" or not math.isfinite(e.conf_high - e.conf_low):
            reasons[e.reason] += 1
            continue
        n_excluding_zero += not e.conf_low <= 0 <= e.conf_high
        widths.append(e.conf_high - e.conf_low)
    share = n_excluding_zero / n_replicates
    low, high = wilson_interval(share, n_replicates, critical=1.959964)
    width = float(np.median(widths)) if widths else math.nan
    reason = reasons.most_common(1)[0][0] if reasons else None
    return SimulatedPower(share, low, high, 1 - len(widths) / n_replicates, width, n_replicates, reason)


@dataclass(frozen=True)
class CapabilityAccuracies:
    """What is assumed of one capability."""

    base: float
    student: float
    teacher: float

    @property
    def gap_closure(self) -> float:
        """``(student - base) / (teacher - base)``."""
        return (self.student - self.base) / (self.teacher - self.base)


def closure_difference_power(
    accuracies_a: CapabilityAccuracies,
    accuracies_b: CapabilityAccuracies,
    *,
    n_tasks: int,
    items_per_task: int,
    rng: np.random.Generator,
    cluster_size: int = 1,
    item_share: float = 0.5,
    of_cluster: float = 0.0,
    n_replicates: int = 400,
    conf_level: float = 0.95,
) -> SimulatedPower:
    """The power to tell two capabilities' gap closures apart, by simulation.

    Parameters
    ----------
    accuracies_a, accuracies_b
        Assumed accuracies.
    n_tasks, items_per_task
        Of each capability; tasks count equally.
    rng
        Draws the studies.
    cluster_size
        Items of a cluster, within one task.
    item_share
        Share of the spread of difficulty (probit scale) that base, student and teacher have in common, 0 to 1.
    of_cluster
        Share of the spread that a cluster's items have in common in each model by itself; shared + of_cluster <= 1.
    n_replicates
        Studies.
    conf_level
        Of the interval that must exclude zero.

    Notes
    -----
    A model is right on an item where ``sqrt(shared) u + sqrt(of_cluster) v + sqrt(rest) w`` lies below the normal
    quantile of its accuracy: u of the item, v of cluster and model, w of item and model, all standard normal. The
    estimate is `ratio_difference`.
    """
    values = [getattr(a, name) for a in (accuracies_a, accuracies_b) for name in ("base", "student", "teacher")]
    if not all(0 < v < 1 for v in values) or not all(a.teacher > a.base for a in (accuracies_a, accuracies_b)):
        raise EstimationError("accuracies lie between 0 and 1, the teacher's above the base's.")
    if min(n_tasks, items_per_task, cluster_size) < 1 or min(item_share, of_cluster) < 0 or item_share + of_cluster > 1:
        raise EstimationError("tasks, items and cluster size are 1 or more; shared + of_cluster lie between 0 and 1.")

    def draw(generator: np.random.Generator) -> Estimate:
        fits = [
            _simulate_closure(a, n_tasks, items_per_task, cluster_size, (item_share, of_cluster), generator, j)
            for j, a in enumerate((accuracies_a, accuracies_b))
        ]
        return ratio_difference(fits[0], fits[1], conf_level=conf_level)

    return simulated_power(draw, rng=rng, n_replicates=n_replicates)


def needed_for_closure_difference(
    accuracies_a: CapabilityAccuracies,
    accuracies_b: CapabilityAccuracies,
    *,
    n_tasks: int,
    seed: int,
    power: float = 0.8,
    max_items_per_task: int = 5000,
    cluster_size: int = 1,
    item_share: float = 0.5,
    of_cluster: float = 0.0,
    n_replicates: int = 200,
    conf_level: float = 0.95,
) -> RequiredSize:
    """Items of each task with which two closures are told apart, by simulation and bisection.

    Parameters
    ----------
    accuracies_a, accuracies_b, n_tasks, cluster_size, item_share, of_cluster, n_replicates, conf_level
        As for `closure_difference_power`.
    seed
        Of every study, so that sizes are compared on like draws.
    power
        Probability with which the difference should be found.
    max_items_per_task
        Items per task at most.
    """

    def power_at(n: int) -> float:
        return closure_difference_power(
            accuracies_a,
            accuracies_b,
            n_tasks=n_tasks,
            items_per_task=n,
            rng=np.random.default_rng(seed),
            cluster_size=cluster_size,
            item_share=item_share,
            of_cluster=of_cluster,
            n_replicates=n_replicates,
            conf_level=conf_level,
        ).power

    if not abs(accuracies_a.gap_closure - accuracies_b.gap_closure) > 1e-9:
        raise EstimationError("both closures are the same: there is no difference to find.")
    return find_min_size("items", power_at, max(10, 2 * cluster_size), max_items_per_task, power)


def _simulate_closure(
    a: CapabilityAccuracies,
    n_tasks: int,
    items_per_task: int,
    cluster_size: int,
    spread: tuple[float, float],
    rng: np.random.Generator,
    capability_index: int,
) -> StratifiedMean:
    """Numerator and denominator of one simulated capability; clusters of the two capabilities are different ones."""
    task = np.repeat(np.arange(n_tasks), items_per_task)
    cluster_idx_in_task: NDArray[np.int64] = np.tile(np.arange(items_per_task) // cluster_size, n_tasks)
    cluster = task * items_per_task + cluster_idx_in_task
    item_share, cluster_share = spread
    n = len(task)
    item = rng.normal(size=n)
    scores = {}
    for name in ("base", "student", "teacher"):
        # Probit scale, unit variance: item, item x model, cluster x model.
        difficulty = math.sqrt(item_share) * item + math.sqrt(1 - item_share - cluster_share) * rng.normal(size=n)
        difficulty += math.sqrt(cluster_share) * rng.normal(size=n)[cluster]
        scores[name] = (difficulty < special.ndtri(getattr(a, name))).astype(float)
    values = np.column_stack([scores["student"] - scores["base"], scores["teacher"] - scores["base"]])
    return stratified_mean(values, task, 2 * cluster + capability_index)  # even and odd codes: no cluster is in both
