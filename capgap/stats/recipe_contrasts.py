"""Contrasts of recipes: differences of seed means on common items, simultaneous over the pairs that are compared.

Seeds speak of a recipe, items of items like these; a contrast has the noise of both. Each recipe's seeds are few, so
that the spread of seeds is pooled over all recipes of the comparison, where it does not clearly differ between them.
Beside them, task by task: whether the recipes differ by more than their seeds do.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import special

from capgap.errors import EstimationError
from capgap.schema.remarks import Reason, remark
from capgap.stats.estimate import Estimate, RemarkedResult, refused, t_estimate
from capgap.stats.means import VARIANCE_TOLERANCE, mean_estimate
from capgap.stats.multiplicity import holm
from capgap.stats.seed_noise import SeedNoise, seed_noise
from capgap.stats.stratified import Design, StratifiedMean

__all__ = ["RecipeContrast", "SeedSignal", "recipe_contrasts", "seed_signal"]

Floats = NDArray[np.float64]

UNEQUAL_NOISE_LEVEL = 0.1
"""Level of Bartlett's test, below which recipes do not share one spread of seeds: three seeds hardly show that they do
not, and at 5 % the worst case (the seeds of one recipe alone vary) covered 91 %."""


@dataclass(frozen=True)
class RecipeContrast:
    """First minus second recipe."""

    first: int
    """Position of the first recipe."""
    second: int
    """Position of the second."""
    estimate: Estimate
    """Difference of the seed means, its simultaneous interval, its own p-value."""
    p_adjusted: float
    """By Holm over all comparisons; NaN where there is no p-value."""
    std_error_seeds: float
    """The seeds' part of the standard error: what other seeds would move on the same items."""
    std_error_items: float
    """The items' part: what other items would move, the luck of these seeds on them included."""


@dataclass(frozen=True)
class _SharedNoise:
    """What one seed's number varies by, pooled over recipes, or each recipe's own where these differ."""

    noises: Sequence[SeedNoise]
    equal: bool

    def of_pair(self, first: int, second: int) -> tuple[float, float, float]:
        """Variance of a difference by seeds, the same without their luck on items, degrees of freedom of the first."""
        pair = self.noises[first], self.noises[second]
        if not self.equal:
            variances = [noise.variance for noise in pair]
            by_df = sum(v**2 / (noise.n_seeds - 1) for v, noise in zip(variances, pair, strict=True))
            total = sum(variances)
            return total, sum(n.between_seed_variance for n in pair), total**2 / by_df if by_df else math.inf
        dfs = np.array([noise.n_seeds - 1.0 for noise in self.noises])
        spread = float(dfs @ [noise.spread for noise in self.noises] / dfs.sum())
        luck = float(dfs @ [noise.item_by_seed for noise in self.noises] / dfs.sum())
        per_seed = sum(1 / noise.n_seeds for noise in pair)
        return spread * per_seed, max(spread - luck, 0.0) * per_seed, float(dfs.sum())


def recipe_contrasts(
    scores: Sequence[Floats],
    design: Design,
    pairs: Sequence[tuple[int, int]],
    *,
    n_comparisons: int | None = None,
    conf_level: float = 0.95,
) -> list[RecipeContrast]:
    """The differences of some pairs of recipes, with intervals that hold together.

    Parameters
    ----------
    scores
        One array a recipe, shape (seeds, items), in score, all finite, two seeds at least.
    design
        Strata, clusters and weights of the items, which all recipes answered.
    pairs
        Positions of first and second recipe of each contrast.
    n_comparisons
        How many comparisons the intervals hold for together; default all `pairs`. Where pairs were chosen by a look
        at these scores (each against the best), all pairs that might have been chosen.
    conf_level
        Of all intervals together.

    Returns
    -------
    list of RecipeContrast
        In the order of `pairs`. An interval is open where items allow no variance.

    Raises
    ------
    EstimationError
        A recipe has one seed only, or scores and design differ in their items.

    Notes
    -----
    The variance of a difference is that over items (CR2 of the difference of seed means, in which the luck of each seed
    on each item is contained) plus that of the seeds without this luck; at least the seeds' whole spread. The seeds'
    spread is pooled over recipes with sum(S_r - 1) degrees of freedom, or each recipe's own (Welch) where Bartlett's
    test at 10 % tells them apart; degrees of freedom of the sum by Satterthwaite. p-values by Holm, intervals by
    Bonferroni over `n_comparisons`.

    References
    ----------
    Satterthwaite, F. E. (1946). An approximate distribution of estimates of variance components. Biometrics Bulletin 2,
    110-114. Bartlett, M. S. (1937). Properties of sufficiency and statistical tests. Proc. R. Soc. A 160, 268-282.
    """
    _check(scores, design)
    n_comparisons = len(pairs) if n_comparisons is None else n_comparisons
    noises = [seed_noise(seeds, design) for seeds in scores]
    noise = _SharedNoise(noises, equal_seed_noise(noises))
    means = [seeds.mean(axis=0) for seeds in scores]
    fit = design.fit(np.column_stack(means))
    level = 1 - (1 - conf_level) / max(n_comparisons, 1)
    contrasts = [_contrast(fit, means, noise, pair, level) for pair in pairs]
    # Comparisons that were not asked for count as if their p-values were 1, which makes no other one smaller.
    unasked = np.ones(max(n_comparisons - len(pairs), 0))
    adjusted = holm([*(contrast.estimate.p_value for contrast in contrasts), *unasked])
    return [replace(contrast, p_adjusted=float(p)) for contrast, p in zip(contrasts, adjusted, strict=False)]


def equal_seed_noise(noises: Sequence[SeedNoise]) -> bool:
    """Whether Bartlett's test leaves it open that the seeds of all recipes vary alike."""
    spreads, dfs = np.array([n.spread for n in noises]), np.array([n.n_seeds - 1.0 for n in noises])
    if len(noises) < 2 or (spreads <= VARIANCE_TOLERANCE).all():
        return True
    if (spreads <= VARIANCE_TOLERANCE).any():
        return False
    pooled = dfs @ spreads / dfs.sum()
    correction = 1 + ((1 / dfs).sum() - 1 / dfs.sum()) / (3 * (len(noises) - 1))
    statistic = (dfs.sum() * math.log(pooled) - dfs @ np.log(spreads)) / correction
    return bool(special.chdtrc(len(noises) - 1, statistic) >= UNEQUAL_NOISE_LEVEL)


def _check(scores: Sequence[Floats], design: Design) -> None:
    for seeds in scores:
        if seeds.ndim != 2 or seeds.shape[1] != design.n_items or len(seeds) < 2:
            raise EstimationError(
                f"{design.n_items} items need scores of shape (seeds, items), two seeds or more, found {seeds.shape}."
            )


def _contrast(
    fit: StratifiedMean, means: Sequence[Floats], noise: _SharedNoise, pair: tuple[int, int], level: float
) -> RecipeContrast:
    first, second = pair
    covariance = fit.covariance
    v_items = float(covariance[first, first] + covariance[second, second] - 2 * covariance[first, second])
    v_spread, v_seeds, df_seeds = noise.of_pair(first, second)
    variance = max(v_items + v_seeds, v_spread)
    design = fit.design
    max_difference = float(np.abs(design.weights).sum())
    population = remark(Reason.SEEDS_POPULATION, n=noise.noises[first].n_seeds + noise.noises[second].n_seeds)
    unequal = () if noise.equal else (remark(Reason.UNEQUAL_SEED_NOISE),)
    errors = math.sqrt(v_seeds), math.sqrt(max(v_items, 0.0))
    if design.refusal is not None or variance <= VARIANCE_TOLERANCE:
        difference = design.fit(means[first] - means[second])
        bounds = (-max_difference, max_difference)
        estimate = mean_estimate(difference, bounds=bounds, conf_level=level).noting(*unequal, population)
        return RecipeContrast(first, second, estimate, math.nan, *errors)
    df = variance**2 / (v_spread**2 / df_seeds + max(v_items, 0.0) ** 2 / fit.df)
    estimate = t_estimate(
        float(fit.theta[first] - fit.theta[second]),
        math.sqrt(variance),
        df,
        level,
        bounds=(-max_difference, max_difference),
        n_items=design.n_items,
        n_clusters=design.n_clusters,
        method="two-way variance (items CR2, seeds), Satterthwaite t, Bonferroni",
        remarks=(*unequal, population),
    )
    return RecipeContrast(first, second, estimate, math.nan, *errors)


@dataclass(frozen=True)
class SeedSignal(RemarkedResult):
    """How much recipes differ for how much their seeds do."""

    ratio: Estimate
    """Standard deviation of recipes over that of one recipe's seeds, with F's interval; p-value of no difference."""
    spread_recipes: float
    """Standard deviation of recipes without their seeds' noise, in score; zero where noise explains it all."""
    spread_seeds: float
    """Standard deviation of one recipe's seeds, in score."""


def seed_signal(scores: Sequence[Floats], design: Design, *, conf_level: float = 0.95) -> SeedSignal:
    """The signal (spread of recipes) against the noise (seeds) of these items.

    Parameters
    ----------
    scores
        One array a recipe, shape (seeds, items), finite, two seeds at least; two recipes at least.
    design
        The items with their weights; their own luck does not count, since the question is about these items.
    conf_level
        Of the interval.

    Notes
    -----
    One-way analysis of variance of the seeds' means. With F = MS_recipes / MS_seeds and s seeds a recipe (of unequal
    numbers, s = (N - sum(S_r²)/N) / (R - 1)), the squared ratio is (F - 1) / s, cut at zero, and its interval has the
    ends (F / q - 1) / s, q the quantiles of F with R - 1 and N - R degrees of freedom (exact where numbers are equal).

    References
    ----------
    Searle, S. R., Casella, G. & McCulloch, C. E. (1992). Variance Components, ch. 3.6.
    """
    _check(scores, design)
    if len(scores) < 2:
        raise EstimationError(f"a spread of recipes needs two recipes or more, found {len(scores)}.")
    groups = [seed_noise(seeds, design).means for seeds in scores]
    sizes = np.array([len(group) for group in groups], dtype=float)
    total, n_recipes = sizes.sum(), len(groups)
    grand = float(sum(group.sum() for group in groups) / total)
    df_recipes, df_seeds = n_recipes - 1.0, total - n_recipes
    ms_recipes = float(sizes @ [(group.mean() - grand) ** 2 for group in groups] / df_recipes)
    ms_seeds = float(sum(((group - group.mean()) ** 2).sum() for group in groups) / df_seeds)
    seeds_per_recipe = float((total - (sizes**2).sum() / total) / df_recipes)
    spread_recipes = math.sqrt(max(ms_recipes - ms_seeds, 0.0) / seeds_per_recipe)
    if ms_seeds <= VARIANCE_TOLERANCE:
        reason = Reason.NO_SIGNAL if ms_recipes <= VARIANCE_TOLERANCE else Reason.NO_SEED_NOISE
        return SeedSignal(refused(remark(reason), n_items=design.n_items), spread_recipes, 0.0)
    statistic = ms_recipes / ms_seeds
    p_value = float(special.fdtrc(df_recipes, df_seeds, statistic))
    tails = ((1 + conf_level) / 2, (1 - conf_level) / 2)
    ends = [(statistic / float(special.fdtri(df_recipes, df_seeds, tail)) - 1) / seeds_per_recipe for tail in tails]
    low, high = (math.sqrt(max(end, 0.0)) for end in ends)
    estimate = Estimate(
        math.sqrt(max(statistic - 1, 0.0) / seeds_per_recipe),
        conf_low=low,
        conf_high=high,
        p_value=p_value,
        null_value=0.0,
        n_items=design.n_items,
        n_clusters=design.n_clusters,
        method="one-way analysis of variance of seed means, F",
        remarks=(remark(Reason.NO_SIGNAL),) if p_value >= 1 - conf_level else (),
    )
    return SeedSignal(estimate, spread_recipes, math.sqrt(ms_seeds))
