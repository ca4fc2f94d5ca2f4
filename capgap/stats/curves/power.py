"""Power to tell two capabilities' data costs apart, by simulation."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from capgap.errors import EstimationError
from capgap.stats.curves.data import CurveData, curve_data
from capgap.stats.curves.fit import fit_curves
from capgap.stats.curves.profile import CurveTarget
from capgap.stats.curves.relative import relative_data_cost
from capgap.stats.estimate import Estimate, refused
from capgap.stats.simulated_power import SimulatedPower, simulated_power


@dataclass(frozen=True)
class AssumedCurve:
    """An assumed learning curve of one capability: an exponential law from the base to a ceiling."""

    base: float
    """Accuracy without an example."""
    ceiling: float
    """Accuracy with any number of them."""
    teacher: float
    """The teacher's accuracy."""
    cost: float
    """Examples to the target."""

    def accuracy(self, sizes: np.ndarray, target: CurveTarget, chance: float) -> np.ndarray:
        """The accuracy at some sizes.

        Raises
        ------
        EstimationError
            The curve never meets the target, or does without an example.
        """
        start = chance if target.kind == "retention" else self.base
        level = start + target.share * (self.teacher - start)
        if not self.base < level < self.ceiling:
            raise EstimationError(
                f"a curve from {self.base:g} to {self.ceiling:g} has no cost of {level:g}, which {target.share:.0%} "
                f"{target.kind} of a teacher at {self.teacher:g} asks for. Suppose a lower base or a higher ceiling."
            )
        scale = self.cost / math.log((self.ceiling - self.base) / (self.ceiling - level))
        return np.asarray(self.ceiling - (self.ceiling - self.base) * np.exp(-np.asarray(sizes) / scale))


def data_cost_ratio_power(
    first_curve: AssumedCurve,
    second_curve: AssumedCurve,
    *,
    sizes: Sequence[float],
    n_seeds: int,
    n_items: int,
    rng: np.random.Generator,
    target: CurveTarget | None = None,
    chance: float = 0.0,
    seed_sd: float = 0.1,
    item_share: float = 0.5,
    n_replicates: int = 100,
    conf_level: float = 0.95,
) -> SimulatedPower:
    """How often the ratio of two data costs is told from 1.

    Parameters
    ----------
    first_curve, second_curve
        What is supposed of the two capabilities.
    sizes
        Unique examples of a capability, above zero; the base's zero comes with them.
    n_seeds
        Students of each size.
    n_items
        Items of each capability.
    rng
        Draws the studies.
    target
        Of the costs; default 90 % retention.
    chance
        Score of a guess.
    seed_sd
        How students of one size differ, on the probit scale.
    item_share
        Share of the variance of an answer that all models share through the item.
    n_replicates
        Studies.
    conf_level
        Of the intervals.

    Raises
    ------
    EstimationError
        A supposed curve does not meet its target, or the numbers are no design.
    """
    cost_target = target or CurveTarget(0.9)
    if n_seeds < 1 or n_items < 1 or not 0 <= item_share < 1 or not all(size > 0 for size in sizes):
        raise EstimationError("sizes, seeds and items lie above zero, and the shared part between 0 and 1.")
    curves = (first_curve, second_curve)
    if not all(0 < curve.cost < math.inf for curve in curves) or not 0 <= seed_sd < math.inf:
        raise EstimationError("costs lie above zero, and the standard deviation of seeds is not below it.")
    grid = np.array([0.0, *np.repeat(np.asarray(sizes, dtype=float), n_seeds)])
    seeds = ["base", *(str(n % n_seeds) for n in range(len(grid) - 1))]
    levels = [np.append(curve.accuracy(grid, cost_target, chance), curve.teacher) for curve in curves]

    def draw_curve(level: np.ndarray, curve_id: int) -> CurveData:
        noise = np.where(grid > 0, rng.normal(0, seed_sd, len(grid)), 0.0)
        # Right where a latent normal lies below the model's threshold: the item's part is common to all models.
        threshold = special.ndtri(level) + np.append(noise, 0.0)
        item = math.sqrt(item_share) * rng.normal(size=n_items)
        difficulty = item + math.sqrt(1 - item_share) * rng.normal(size=(len(level), n_items))
        scores = (difficulty < threshold[:, None]).astype(float)
        cluster_codes = 2 * np.arange(n_items) + curve_id  # items of the two capabilities are different ones
        return curve_data(scores[:-1], scores[-1], grid, seeds=seeds, chance=chance, clusters=cluster_codes)

    def simulate_study(_: np.random.Generator) -> Estimate:
        fits = [fit_curves(draw_curve(level, curve_id), conf_level=conf_level) for curve_id, level in enumerate(levels)]
        ratio = relative_data_cost(fits[0], fits[1], cost_target)
        if ratio.status == "refused":
            return refused(*ratio.remarks)
        # An end that is open does not hinder the other from lying beyond 1.
        value, low, high = np.log(np.clip([ratio.estimate, ratio.conf_low, ratio.conf_high], 1e-12, 1e12))
        return Estimate(float(value), conf_low=float(low), conf_high=float(high))

    return simulated_power(simulate_study, rng=rng, n_replicates=n_replicates)
