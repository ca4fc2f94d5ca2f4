"""Flips of a student against its base: items lost and gained, beside what two seeds of one recipe differ by anyway."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from capgap.errors import EstimationError
from capgap.schema.remarks import Reason, remark
from capgap.stats.binary import mcnemar_exact
from capgap.stats.estimate import Estimate, EstimateSet, EstimateStatus, refused, t_critical, t_estimate, t_p_value
from capgap.stats.means import accuracy, mean_estimate, paired_difference
from capgap.stats.seed_noise import MIN_SEEDS
from capgap.stats.stratified import Design

__all__ = ["MIN_FLIP_SEEDS", "FlippedItemList", "FlipShares", "flip_counts", "flip_list", "flips_beyond_seeds"]

Floats = NDArray[np.float64]

MIN_FLIP_SEEDS = 5
"""Items are listed from so many training seeds of one recipe on."""
MIN_FLIP_CANDIDATES = 50
"""The prior of a list is learnt from the items; fewer do not tell it."""
LIST_FDR = 0.1
"""Largest expected share of false entries in a list."""
MIN_FLIP_RATE = 0.5
"""An item is flipped where a student of the recipe flips it with a probability above this."""
N_PRIOR_EM_STEPS = 500
"""Of the nonparametric prior."""


@dataclass(frozen=True)
class FlipShares(EstimateSet):
    """Share of the items that were lost and gained."""

    lost_share: Estimate
    """Base right, student wrong; a share of all items, or its excess over the seeds' own disagreement."""
    gained_share: Estimate
    """Base wrong, student right; likewise."""
    n_lost: int = 0
    """Items lost, where there is one student."""
    n_gained: int = 0
    """Items gained, where there is one student."""
    p_value: float = math.nan
    """One student: that lost and gained are equally likely; exact McNemar, CR2 with t where items come in clusters."""
    seed_flip_share: float = math.nan
    """Share of the items that one seed answers rightly and another wrongly (one direction)."""

    @property
    def heading(self) -> str:
        """What is shown."""
        seed_clause = "" if math.isnan(self.seed_flip_share) else " beyond those between seeds"
        return f"Flips against the base{seed_clause}, shares of all items"

    def estimates(self) -> Iterator[tuple[dict[str, Any], Estimate]]:
        """Lost, then gained."""
        for direction, share in (("lost", self.lost_share), ("gained", self.gained_share)):
            yield {"direction": direction, "seed_disagreement": self.seed_flip_share}, share


@dataclass(frozen=True)
class FlippedItemList(EstimateSet):
    """Items that the recipe, not one seed, gets wrong though the base got them right (or the reverse)."""

    items: NDArray[np.intp]
    """Positions of the listed items, surest first."""
    false_flip_probability: Floats
    """Posterior probability of each listed item that it does not belong there."""
    expected_fdr: float
    """Mean of those: the expected share of false entries; NaN for an empty list."""
    n_candidates: int = 0
    """Items that the base answered rightly (for lost ones), wrongly (for gained ones)."""
    n_seeds: int = 0
    """Training seeds."""
    status: EstimateStatus = "ok"
    """``ok`` or ``refused``."""

    @property
    def heading(self) -> str:
        """How many items, and how many of them are expected to be false."""
        if self.status == "refused":
            return "List of items: refused"
        listed_items_text = f"{len(self.items)} of {self.n_candidates} items listed from {self.n_seeds} seeds"
        share = f", {100 * self.expected_fdr:.1f} % of them expected to be false" if len(self.items) else ""
        return f"{listed_items_text}{share}; probability that each does not belong there"

    def estimates(self) -> Iterator[tuple[dict[str, Any], Estimate]]:
        """The false probability of each listed item."""
        for item, probability in zip(self.items, self.false_flip_probability, strict=True):
            yield {"item": int(item)}, Estimate(float(probability))


def flip_counts(
    base: ArrayLike,
    student: ArrayLike,
    design: Design,
    *,
    margins: tuple[ArrayLike, ArrayLike] | None = None,
    jitter_nats: float = 0.0,
    conf_level: float = 0.95,
) -> FlipShares:
    """What one student lost and gained against its base; no more can be said of one training seed.

    Parameters
    ----------
    base, student
        Right (1) or wrong (0), shape (n,); pairs with NaN do not count.
    design
        Strata, clusters and weights of the items.
    margins
        How far each model's answer is from tipping, in nats, shape (n,) each: best minus second-best log-probability.
        Flips where either margin lies within `jitter_nats` may be numerical noise and are not counted.
    jitter_nats
        Largest difference that the same model shows when it is run twice (other batches, other device).
    conf_level
        Of the intervals, which are for items like these and this checkpoint.

    Raises
    ------
    EstimationError
        Shapes disagree, a score is neither right nor wrong, or `jitter_nats` is given without margins.
    """
    b, s = _right_or_wrong(base, "base"), _right_or_wrong(student, "student")
    if b.shape != s.shape or len(b) != design.n_items:
        raise EstimationError(f"{design.n_items} items need as many scores, found {len(b)} and {len(s)}.")
    if jitter_nats > 0 and margins is None:
        raise EstimationError("a jitter excludes flips by their margins: give the margins of both models.")
    outside_jitter = np.ones(len(b), dtype=bool)
    if margins is not None:
        outside_jitter = np.all([np.abs(np.asarray(m, dtype=float)) > jitter_nats for m in margins], axis=0)
    valid = np.isfinite(b) & np.isfinite(s)
    if not valid.any():
        refusal = refused(remark(Reason.NO_COMMON_ITEMS))
        return FlipShares(refusal, refusal)
    lost, gained = (b == 1) & (s == 0) & outside_jitter, (b == 0) & (s == 1) & outside_jitter
    notes = [remark(Reason.ONE_SEED)]
    if margins is not None:
        n_excluded_flips = int(((b != s) & valid & ~outside_jitter).sum())
        notes.append(remark(Reason.JITTER_EXCLUDED, n=n_excluded_flips, nats=jitter_nats))
    flip_shares = [
        accuracy(np.where(valid, flip, np.nan), design, conf_level=conf_level).noting(*notes) for flip in (lost, gained)
    ]
    n_lost, n_gained = int((lost & valid).sum()), int((gained & valid).sum())
    if design.n_clusters == design.n_items:
        return FlipShares(flip_shares[0], flip_shares[1], n_lost, n_gained, mcnemar_exact(n_lost, n_gained))
    # A passage loses its items together: counted one by one they would be called unequal in 40 % of equal pairs.
    net_flips = paired_difference(np.where(valid, lost.astype(float) - gained, np.nan), design, conf_level=conf_level)
    return FlipShares(flip_shares[0], flip_shares[1], n_lost, n_gained, net_flips.p_value)


def flips_beyond_seeds(base: ArrayLike, students: ArrayLike, design: Design, *, conf_level: float = 0.95) -> FlipShares:
    """Lost and gained shares minus what two seeds of the recipe lose against each other.

    Parameters
    ----------
    base
        Right or wrong, or the share of right answers over repeats, shape (n,).
    students
        The same of R training seeds of one recipe, shape (R, n); items with a NaN do not count.
    design
        Strata, clusters and weights of the items.
    conf_level
        Of the intervals.

    Returns
    -------
    FlipShares
        Excess shares; refused with fewer than three seeds. Zero means: the base differs from a student no more than
        another seed would.

    Notes
    -----
    With p the share of seeds that are right on an item, ``lost = b (1 - p)`` and the seeds' own ``null``, the mean over
    pairs of ``y_r (1 - y_s)`` (of right and wrong: p (1 - p) R / (R - 1), unbiased); the excess is the mean of their
    difference over items. Shares over repeats are the chance that one answer is right, so that all three are of one
    answer of each model, drawn independently. The excess has two intervals, of which the wider one is given, and the
    larger p-value.

    The base as it is: CR2 over the items plus the delete-one-seed jackknife, which counts the chance of single answers
    twice and so errs on the wide side; t with Satterthwaite degrees of freedom. This one knows nothing of the level
    that a base has by chance: where seeds differ by 0.1 or 0.3 logits and there are ten, it alone called a base that
    was one more seed different in 10 and 35 % of runs.

    The base as one more seed: each seed in turn stands in for the base, and the base's share is set against these R
    shares, whose mean is the null: ``t = excess / (s sqrt(1 + 1/R))`` with R - 1 degrees of freedom.

    References
    ----------
    Crawford, J. R. & Howell, D. C. (1998). Comparing an individual's test score against norms derived from small
    samples. The Clinical Neuropsychologist 12, 482-486.
    """
    b, y = np.asarray(base, dtype=float), np.asarray(students, dtype=float)
    if y.ndim != 2 or y.shape[1] != len(b) or len(b) != design.n_items:
        raise EstimationError(f"{design.n_items} items need students of shape (seeds, items), found {y.shape}.")
    if len(y) < MIN_SEEDS:
        refusal = refused(remark(Reason.FEW_SEEDS, n=len(y), least=MIN_SEEDS))
        return FlipShares(refusal, refusal)
    answered = np.isfinite(b) & np.isfinite(y).all(axis=0)
    if not answered.any():
        refusal = refused(remark(Reason.NO_COMMON_ITEMS))
        return FlipShares(refusal, refusal)
    b, y, design = b[answered], y[:, answered], design.subset(answered)

    def excess_flips(seeds: Floats) -> Floats:
        p, null = seeds.mean(axis=0), _seeds_disagree(seeds)
        return np.column_stack([b * (1 - p) - null, (1 - b) * p - null])

    fit = design.fit(excess_flips(y))
    # The excess without each seed, shape (R, 2); its spread is the seeds' part of the variance.
    jackknife = np.array([[design.mean(c) for c in excess_flips(np.delete(y, r, axis=0)).T] for r in range(len(y))])
    spread = (len(y) - 1) / len(y) * ((jackknife - jackknife.mean(axis=0)) ** 2).sum(axis=0)
    seed_as_base_shares = _seed_as_base_shares(y, design)
    flip_shares = [
        _treat_base_as_seed(
            _add_seed_spread(mean_estimate(fit, column=j, conf_level=conf_level), float(spread[j]), len(y), conf_level),
            seed_as_base_shares[:, j],
            conf_level,
        )
        for j in (0, 1)
    ]
    return FlipShares(flip_shares[0], flip_shares[1], seed_flip_share=design.mean(_seeds_disagree(y)))


def flip_list(base: ArrayLike, students: ArrayLike, *, direction: str = "lost") -> FlippedItemList:
    """The items that the recipe lost (gained), with a bounded share of false entries.

    Parameters
    ----------
    base
        Right or wrong, shape (n,).
    students
        The same of R training seeds of one recipe, shape (R, n); items with a NaN do not count.
    direction
        ``lost`` or ``gained``.

    Returns
    -------
    FlipList
        Refused below five seeds or fifty candidates.

    Notes
    -----
    The probability p_i that a student is right has a prior that all candidates share, learnt from them twice: a beta
    (maximum marginal likelihood) and free weights on a grid (EM). An item's chance of being a false entry is the
    larger of the two posteriors of ``p_i`` on the wrong side. Items with equal counts enter together, as long as the
    mean of these chances stays below `LIST_FDR`.

    References
    ----------
    Efron, B. (2010). Large-Scale Inference, ch. 5; Newton, M. A. et al. (2004). Detecting differential gene
    expression with a semiparametric hierarchical mixture method. Biostatistics 5, 155-176.
    """
    if direction not in ("lost", "gained"):
        raise EstimationError(f"direction is 'lost' or 'gained', found {direction!r}.")
    b, y = _right_or_wrong(base, "base"), _right_or_wrong(students, "students")
    if y.ndim != 2 or y.shape[1] != len(b):
        raise EstimationError(f"{len(b)} items need students of shape (seeds, items), found {y.shape}.")
    n_seeds = len(y)
    candidates = np.flatnonzero((b == (direction == "lost")) & np.isfinite(y).all(axis=0) & np.isfinite(b))
    reason = None
    if n_seeds < MIN_FLIP_SEEDS:
        reason = remark(Reason.FEW_SEEDS, n=n_seeds, least=MIN_FLIP_SEEDS)
    elif len(candidates) < MIN_FLIP_CANDIDATES:
        reason = remark(Reason.FEW_CANDIDATES, n=len(candidates), direction=direction, least=MIN_FLIP_CANDIDATES)
    if reason is not None:
        empty = np.empty(0, dtype=np.intp), np.empty(0)
        return FlippedItemList(*empty, math.nan, len(candidates), n_seeds, "refused", remarks=(reason,))
    n_flipped_seeds = (y[:, candidates] == (direction == "gained")).sum(axis=0).astype(int)
    chance = _false_flip_probability(n_flipped_seeds, n_seeds)
    order = np.argsort(chance[n_flipped_seeds], kind="stable")
    ranked = chance[n_flipped_seeds][order]
    within_fdr = np.cumsum(ranked) / np.arange(1, len(ranked) + 1) <= LIST_FDR
    n_listed = int(np.flatnonzero(within_fdr)[-1]) + 1 if within_fdr.any() else 0
    while n_listed and n_listed < len(ranked) and ranked[n_listed] == ranked[n_listed - 1]:
        n_listed -= int((ranked[:n_listed] == ranked[n_listed - 1]).sum())  # a group that does not fit whole stays out
    mean = float(ranked[:n_listed].mean()) if n_listed else math.nan
    return FlippedItemList(candidates[order[:n_listed]], ranked[:n_listed], mean, len(candidates), n_seeds)


def _false_flip_probability(n_flipped_seeds: NDArray[np.int_], n_seeds: int) -> Floats:
    """Per count of flipped seeds, 0 to R: the posterior that an item's flip rate is not above `MIN_FLIP_RATE`."""
    counts = np.bincount(n_flipped_seeds, minlength=n_seeds + 1).astype(float)
    k = np.arange(n_seeds + 1)
    grid_posterior = _nonparametric_posterior(counts, n_seeds)
    a, b = _beta_prior(counts, n_seeds)
    return np.maximum(grid_posterior, special.betainc(a + k, b + n_seeds - k, MIN_FLIP_RATE))


def _nonparametric_posterior(counts: Floats, n_seeds: int) -> Floats:
    grid = (np.arange(100) + 0.5) / 100  # of an item's probability to be flipped
    likelihood = stats.binom.pmf(np.arange(n_seeds + 1)[:, None], n_seeds, grid)
    weight = np.full(100, 0.01)
    for _ in range(N_PRIOR_EM_STEPS):
        joint_density = likelihood * weight
        weight = (counts / joint_density.sum(axis=1)) @ joint_density + 0.01  # one item, spread evenly, was seen before
        weight /= weight.sum()
    joint_density = likelihood * weight
    return np.asarray(joint_density[:, grid <= MIN_FLIP_RATE].sum(axis=1) / joint_density.sum(axis=1))


def _beta_prior(counts: Floats, n_seeds: int) -> tuple[float, float]:
    """Maximum marginal likelihood over a grid of mean and log concentration; its refinement would move no list."""
    mean = np.linspace(0.005, 0.995, 100)[:, None]
    size = np.exp(np.linspace(math.log(0.1), math.log(200), 60))
    a, b = mean * size, (1 - mean) * size
    k = np.arange(n_seeds + 1)[:, None, None]
    value = np.tensordot(counts, special.betaln(a + k, b + n_seeds - k) - special.betaln(a, b), 1)
    i, j = np.unravel_index(int(np.argmax(value)), value.shape)
    return float(a[i, j]), float(b[i, j])


def _add_seed_spread(item_estimate: Estimate, spread: float, n_seeds: int, conf_level: float) -> Estimate:
    """The same number with the seeds' variance added."""
    item_estimate = item_estimate.noting(remark(Reason.SEEDS_POPULATION, n=n_seeds))
    if item_estimate.status != "ok":
        return item_estimate
    items = 0.0 if math.isnan(item_estimate.std_error) else item_estimate.std_error**2
    total = items + spread
    if not total > 0:
        return item_estimate
    df_items = item_estimate.df if math.isfinite(item_estimate.df) else float(max(item_estimate.n_clusters - 1, 1))
    df = total**2 / (items**2 / df_items + spread**2 / (n_seeds - 1))
    return t_estimate(
        item_estimate.estimate,
        math.sqrt(total),
        df,
        conf_level,
        n_items=item_estimate.n_items,
        n_clusters=item_estimate.n_clusters,
        method="CR2 over items + jackknife over seeds, t",
        remarks=item_estimate.remarks,
    )


def _seeds_disagree(y: Floats) -> Floats:
    """Chance that one seed is right and another is wrong, unbiased: the mean over pairs of seeds, shape (n,)."""
    n_seeds, right = len(y), y.sum(axis=0)
    return np.asarray((right * (n_seeds - right) - (y * (1 - y)).sum(axis=0)) / (n_seeds * (n_seeds - 1)))


def _seed_as_base_shares(y: Floats, design: Design) -> Floats:
    """Lost and gained shares with each seed in the base's place, against the other seeds, shape (R, 2)."""
    other_seeds_mean = (y.sum(axis=0) - y) / (len(y) - 1)
    pairs = zip(y, other_seeds_mean, strict=True)
    return np.array([[design.mean(seed * (1 - p)), design.mean((1 - seed) * p)] for seed, p in pairs])


def _treat_base_as_seed(fixed_base_estimate: Estimate, seed_as_base_shares: Floats, conf_level: float) -> Estimate:
    """The same number with the wider interval and the larger p-value of the base as it is and as one more seed."""
    n_seeds = len(seed_as_base_shares)
    error = float(seed_as_base_shares.std(ddof=1)) * math.sqrt(1 + 1 / n_seeds)
    if fixed_base_estimate.status != "ok" or not error > 0:
        return fixed_base_estimate
    df, e = n_seeds - 1.0, fixed_base_estimate.estimate
    half_width = t_critical(df, conf_level) * error
    p_value = max(fixed_base_estimate.p_value, t_p_value(e / error, df))
    estimate = replace(fixed_base_estimate.noting(remark(Reason.BASE_AS_SEED)), p_value=p_value)
    if half_width <= (fixed_base_estimate.conf_high - fixed_base_estimate.conf_low) / 2:
        return estimate
    method = "base as one more seed, Crawford-Howell t"
    return replace(estimate, std_error=error, df=df, conf_low=e - half_width, conf_high=e + half_width, method=method)


def _right_or_wrong(scores: ArrayLike, name: str) -> Floats:
    y = np.asarray(scores, dtype=float)
    if (np.isfinite(y) & (y != 0) & (y != 1)).any():
        raise EstimationError(f"{name}: a flip is between right (1) and wrong (0); found other scores.")
    return y
