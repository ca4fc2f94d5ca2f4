"""Power and required sizes of a paired design, by formula."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from scipy import optimize, special

from capgap.errors import EstimationError
from capgap.schema.remarks import Reason, Remark, remark
from capgap.stats.estimate import RemarkedResult, t_critical
from capgap.stats.means import SMALL_SAMPLE
from capgap.stats.seed_noise import MIN_SEEDS

__all__ = ["GapDesign", "RequiredSize", "size_for_gap", "find_min_size", "smallest_visible_gap"]

SIZE_LIMIT = 10_000_000
"""A number that must be larger than this is not given."""
SampleUnitKind = Literal["items", "clusters", "tasks", "seeds"]


@dataclass(frozen=True)
class GapDesign:
    """A paired comparison of two models, as far as its variance goes."""

    n_tasks: int = 1
    """Tasks, which count equally."""
    items_per_task: float = 100
    """Items of each task; their harmonic mean where they differ."""
    cluster_size: float = 1
    """Items that stand or fall together (of one passage, one template); the mean."""
    cluster_cv: float = 0
    """Standard deviation of the clusters' sizes over their mean."""
    icc: float = 0
    """Correlation of the differences of two items of one cluster."""
    task_sd: float = 0
    """How the gap differs between tasks (score, 0.05 is five points); zero speaks of these tasks only."""
    n_seeds: int = 1
    """Training seeds of the recipe."""
    seed_sd: float = 0
    """How the gap differs between seeds; zero speaks of this checkpoint only."""
    disagreement: float = 0.3
    """Share of the items that exactly one of the two models answers rightly."""
    conf_level: float = 0.95
    """Of the two-sided interval that must exclude zero."""

    def __post_init__(self) -> None:
        """Refuse what is no design."""
        checks = {
            "n_tasks": self.n_tasks >= 1,
            "items_per_task": self.items_per_task >= 1,
            "cluster_size": self.cluster_size >= 1,
            "cluster_cv": self.cluster_cv >= 0,
            "icc": 0 <= self.icc <= 1,
            "task_sd": self.task_sd >= 0,
            "n_seeds": self.n_seeds >= 1,
            "seed_sd": self.seed_sd >= 0,
            "disagreement": 0 < self.disagreement <= 1,
            "conf_level": 0 < self.conf_level < 1,
        }
        invalid_settings = [f"{name} = {getattr(self, name):g}" for name, is_valid in checks.items() if not is_valid]
        if invalid_settings:
            raise EstimationError(f"no design: {', '.join(invalid_settings)}.")
        if self.seed_sd > 0 and self.n_seeds < MIN_SEEDS:
            raise EstimationError(f"seed_sd speaks of the recipe, which needs {MIN_SEEDS} seeds, found {self.n_seeds}.")

    @property
    def design_effect(self) -> float:
        """How many times more items the clusters ask for: ``1 + ((1 + cv²) m - 1) icc``."""
        return 1 + ((1 + self.cluster_cv**2) * self.cluster_size - 1) * self.icc

    @property
    def exact_test_caution(self) -> Remark | None:
        """A caution where the gap of so few items would be judged by an exact test; else None.

        Notes
        -----
        By simulation: where the formula promises 80 %, the exact p-value of 8 to 34 items found 52 to 75 %, the
        interval 72 to 94 %; from 20 expected discordant items on both agree within 5 points.
        """
        items = self.n_tasks * self.items_per_task
        if self.cluster_size > 1 or self.seed_sd or (items >= SMALL_SAMPLE and items * self.disagreement >= 20):
            return None
        return remark(Reason.EXACT_TEST_DESIGN)

    def std_error(self, true_gap: float) -> float:
        """The standard error of the mean difference where the gap is this large."""
        return math.sqrt(sum(variance for variance, _ in self._parts(true_gap)))

    def power(self, true_gap: float) -> float:
        """The probability that the interval excludes zero where the gap is this large, by the noncentral t.

        Notes
        -----
        Variance ``(disagreement - gap²) deff / (K n) + task_sd² / K + seed_sd² / R``, degrees of freedom by
        Satterthwaite from clusters - K, K - 1 and R - 1. More seeds also average single answers; this is not counted.
        """
        if not 0 <= abs(true_gap) <= self.disagreement:
            raise EstimationError(
                f"a gap of {true_gap:g} cannot be: the models differ on {self.disagreement:g} of the items."
            )
        variance_parts = [variance_and_df for variance_and_df in self._parts(true_gap) if variance_and_df[0] > 0]
        total = sum(variance for variance, _ in variance_parts)
        if not total > 0:
            return 1.0
        df = total**2 / sum(variance**2 / df for variance, df in variance_parts)
        critical = t_critical(df, self.conf_level)
        shift = abs(true_gap) / math.sqrt(total)
        if df > 1e5:  # the noncentral t meets the normal, and its series gets slow
            return float(special.ndtr(shift - critical) + special.ndtr(-shift - critical))
        power = float(1 - special.nctdtr(df, shift, critical) + special.nctdtr(df, shift, -critical))
        if math.isnan(power):  # far out the series fails; there the normal approximation is as good
            spread = math.sqrt(1 + critical**2 / (2 * df))
            power = float(special.ndtr((shift - critical * (1 - 1 / (4 * df))) / spread))
        return power

    def smallest_gap(self, power: float = 0.8) -> float:
        """The smallest gap that is found with this probability; NaN where even the largest possible one is not."""
        if not 1 - self.conf_level < power < 1:
            raise EstimationError(f"power lies between {1 - self.conf_level:g} and 1, found {power:g}.")
        if self.power(self.disagreement) < power:
            return math.nan
        return float(optimize.brentq(lambda true_gap: self.power(true_gap) - power, 0.0, self.disagreement))

    def _parts(self, true_gap: float) -> list[tuple[float, float]]:
        """Variances with their degrees of freedom: items, tasks, seeds."""
        items = self.n_tasks * self.items_per_task
        clusters = items / self.cluster_size
        return [
            (max(self.disagreement - true_gap**2, 0.0) * self.design_effect / items, max(clusters - self.n_tasks, 1.0)),
            (self.task_sd**2 / self.n_tasks, max(self.n_tasks - 1.0, 1.0)),
            (self.seed_sd**2 / self.n_seeds, max(self.n_seeds - 1.0, 1.0)),
        ]


@dataclass(frozen=True)
class RequiredSize(RemarkedResult):
    """How many items, clusters, tasks or seeds an aim needs; its remarks say why there is no number, or a caution."""

    what: str
    """``items`` or ``clusters`` (of each task), ``tasks``, ``seeds``."""
    n: int | None
    """The number; None where no number reaches the aim."""
    power: float
    """The power with this number, or the most that there is."""


def size_for_gap(true_gap: float, design: GapDesign, unit_kind: SampleUnitKind, *, power: float = 0.8) -> RequiredSize:
    """The smallest number of items, clusters, tasks or seeds with which a gap is found, the rest as in the design.

    Parameters
    ----------
    true_gap
        Teacher minus student, in score (0.03 is three points).
    design
        The rest.
    unit_kind
        ``items`` and ``clusters`` are those of each task (clusters of the design's size); ``tasks``; ``seeds``.
    power
        Probability with which the gap should be found.

    Returns
    -------
    RequiredSize
        Without a number where what is left (tasks, seeds) hides the gap by itself.
    """
    min_sizes = {"items": max(2, math.ceil(design.cluster_size)), "clusters": 2, "tasks": 1, "seeds": MIN_SEEDS}
    if unit_kind not in min_sizes:
        raise EstimationError(f"what is one of {', '.join(min_sizes)}, found {unit_kind!r}.")
    if not true_gap:
        raise EstimationError("a gap of zero is never found: give the gap that matters.")
    if unit_kind == "tasks" and design.task_sd > 0:
        min_sizes["tasks"] = 2

    def resize_to(n: int) -> GapDesign:
        if unit_kind == "tasks":
            return replace(design, n_tasks=n)
        if unit_kind == "seeds":
            return replace(design, n_seeds=n)
        return replace(design, items_per_task=n * (design.cluster_size if unit_kind == "clusters" else 1))

    required = find_min_size(unit_kind, lambda n: resize_to(n).power(true_gap), min_sizes[unit_kind], SIZE_LIMIT, power)
    exact_test_remark = None if required.n is None else resize_to(required.n).exact_test_caution
    return required if exact_test_remark is None else required.noting(exact_test_remark)


def smallest_visible_gap(n_items_by_task: Mapping[str, int] | Iterable[int]) -> float:
    """The smallest teacher-student gap (0.05 is 5 points) that a paired comparison finds with a power of 0.8.

    Parameters
    ----------
    n_items_by_task
        Items of each task; tasks count equally. Tasks without an item are left out.

    Returns
    -------
    float
        NaN where there is no item.

    Notes
    -----
    Disagreement and confidence level are `GapDesign`'s defaults. Items are taken as independent and all tasks as
    equally discordant: a score difference of -1, 0 or 1 with mean
    ``delta`` has variance ``disagreement - delta²``, the mean over K tasks of n_k items ``sum 1/n_k / K²`` times that.
    ``delta = (z_power + z_level) * se(delta)`` is solved exactly. Clustered items see less.
    """
    counts = n_items_by_task.values() if isinstance(n_items_by_task, Mapping) else n_items_by_task
    sizes = [int(n) for n in counts if n > 0]
    if not sizes:
        return math.nan
    # delta² = z² (disagreement - delta²) per_item, solved for delta.
    per_item = sum(1 / n for n in sizes) / len(sizes) ** 2
    design = GapDesign()
    z_squared = float(special.ndtri(0.8) + special.ndtri(0.5 + design.conf_level / 2)) ** 2
    return math.sqrt(z_squared * design.disagreement * per_item / (1 + z_squared * per_item))


def find_min_size(unit: str, power_at: Callable[[int], float], min_n: int, max_n: int, power: float) -> RequiredSize:
    """The smallest number that reaches the power, by doubling and bisection (to a thousandth where it is large).

    Parameters
    ----------
    unit
        What is counted.
    power_at
        Power with so many, rising.
    min_n, max_n
        Where to begin and to end.
    power
        To be reached.
    """
    if not 0 < power < 1:
        raise EstimationError(f"power lies between 0 and 1, found {power:g}.")
    if power_at(min_n) >= power:
        return RequiredSize(unit, min_n, power_at(min_n))
    low_power_n, sufficient_n = min_n, min_n
    while power_at(sufficient_n) < power:
        if sufficient_n >= max_n:
            max_power = power_at(max_n)
            reason = remark(Reason.POWER_OUT_OF_REACH, largest=max_n, power=max_power)
            return RequiredSize(unit, None, max_power, remarks=(reason,))
        low_power_n, sufficient_n = sufficient_n, min(2 * sufficient_n, max_n)
    # Invariant: `short` does not reach the power, `enough` does.
    while sufficient_n - low_power_n > max(1, sufficient_n // 1000):
        n_middle = (low_power_n + sufficient_n) // 2
        low_power_n, sufficient_n = (low_power_n, n_middle) if power_at(n_middle) >= power else (n_middle, sufficient_n)
    return RequiredSize(unit, sufficient_n, power_at(sufficient_n))
