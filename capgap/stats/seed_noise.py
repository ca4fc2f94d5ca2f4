"""Noise of training seeds: how much the mean scores of one recipe's seeds differ, and how much of it is items' noise.

Seeds of one recipe answer the same items, so the spread of their means holds two things: seeds that are better or
worse as a whole, and the luck of each seed on each item. The second is in the variance over items already, and
counting it twice would make every interval of a recipe too wide. All estimators of recipes share this split.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from capgap.stats.estimate import t_critical
from capgap.stats.stratified import Design

__all__ = ["MIN_SEEDS", "SeedNoise", "answer_variance", "cochran_cox_df", "seed_noise"]

Floats = NDArray[np.float64]

MIN_SEEDS = 3
"""With fewer training seeds nothing is said of the recipe: two say nothing about a third."""


@dataclass(frozen=True)
class SeedNoise:
    """Spread of the seeds of one recipe."""

    means: Floats
    """The number of each seed, shape (seeds,)."""
    spread: float
    """Variance of one seed's number, its luck on these items included."""
    item_by_seed: float
    """What the luck of one seed on each item adds to `spread`."""

    @property
    def n_seeds(self) -> int:
        """Training seeds."""
        return len(self.means)

    @property
    def variance(self) -> float:
        """Variance of the mean over the seeds, their luck on items included."""
        return self.spread / self.n_seeds

    @property
    def between_seed_variance(self) -> float:
        """Variance of the mean over the seeds that more items would not lessen; zero where luck explains all."""
        return max(self.spread - self.item_by_seed, 0.0) / self.n_seeds


def seed_noise(values: Floats, design: Design) -> SeedNoise:
    """The noise of the seeds of one recipe.

    Parameters
    ----------
    values
        A finite number of each seed on each item, shape (seeds, items), two seeds at least.
    design
        Strata, clusters and weights of the items.

    Notes
    -----
    The luck on items is the CR2 variance of each seed's deviations from the mean over seeds, its mean over seeds times
    S / (S - 1).
    """
    n_seeds = len(values)
    deviations = design.fit((values - values.mean(axis=0)).T)
    return SeedNoise(
        means=design.mean(values.mean(axis=0)) + deviations.theta,
        spread=float(deviations.theta.var(ddof=1)),
        item_by_seed=float(np.trace(deviations.cov)) / (n_seeds - 1),
    )


def answer_variance(values: Floats, design: Design, n_answers: int) -> float:
    """The part of the variance of a mean over seeds that more repeats of each item would lessen.

    Parameters
    ----------
    values
        Share of right answers of each seed on each item, shape (seeds, items).
    design
        Strata, clusters and weights of the items; clusters do not matter, since answers are drawn one by one.
    n_answers
        Repeats behind each share, two at least.

    Notes
    -----
    ``s (1 - s) / (k - 1)`` estimates the sampling variance of a share of k answers without bias.
    """
    weights = (design.weights / design.counts)[design.stratum]
    per_item = (values * (1 - values)).sum(axis=0) / (n_answers - 1) / len(values) ** 2
    return float(weights**2 @ per_item)


def cochran_cox_df(items: tuple[float, float], seeds: tuple[float, float], conf_level: float) -> float:
    """Degrees of freedom of the t whose critical value is the variance-weighted mean of two parts' (variance, df)."""
    total = items[0] + seeds[0]
    lowest_df, highest_df = min(items[1], seeds[1]), max(items[1], seeds[1])
    if not total > 0:
        return lowest_df
    critical = sum(variance * t_critical(df, conf_level) for variance, df in (items, seeds)) / total
    return float(optimize.brentq(lambda df: t_critical(df, conf_level) - critical, 0.99 * lowest_df, 1.01 * highest_df))
