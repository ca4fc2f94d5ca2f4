"""Items that a student lost or gained against its base, beside what two seeds of one recipe differ by anyway."""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from capgap.errors import EstimationError
from capgap.stats.binary import mcnemar_exact
from capgap.stats.estimate import Estimate, free_text, refused, t_critical, t_p_value
from capgap.stats.means import accuracy, mean_estimate, paired_difference
from capgap.stats.stratified import Design

__all__ = ["MIN_FLIP_SEEDS", "FlipList", "FlipShares", "flip_counts", "flip_list", "flips_beyond_seeds"]

Floats = NDArray[np.float64]

MIN_FLIP_SEEDS = 5
"""Items are listed from so many training seeds of one recipe on."""
MIN_LIST_ITEMS = 50
"""The prior of a list is learnt from the items; fewer do not tell it."""
EM_STEPS = 500
"""Of the nonparametric prior."""
ONE_CHECKPOINT = "one training seed: counts for this checkpoint; another seed would lose and gain other items"


@dataclass(frozen=True)
class FlipShares:
    """Share of the items that were lost and gained."""

    lost: Estimate
    """Base right, student wrong; a share of all items, or its excess over the seeds' own disagreement."""
    gained: Estimate
    """Base wrong, student right; likewise."""
    n_lost: int = 0
    """Items lost, where there is one student."""
    n_gained: int = 0
    """Items gained, where there is one student."""
    p_value: float = math.nan
    """One student: that lost and gained are equally likely; exact McNemar, CR2 with t where items come in clusters."""
    seed_disagreement: float = math.nan
    """Share of the items that one seed answers rightly and another wrongly (one direction)."""

    def tidy(self) -> list[dict[str, object]]:
        """Two rows, lost and gained."""
        return [
            {
                "direction": name,
                "estimate": e.estimate,
                "conf_low": e.conf_low,
                "conf_high": e.conf_high,
                "p_value": e.p_value,
                "seed_disagreement": self.seed_disagreement,
                "n_items": e.n_items,
                "method": e.method,
                "status": e.status,
                "note": e.note,
            }
            for name, e in (("lost", self.lost), ("gained", self.gained))
        ]

    def summary(self) -> str:
        """Plain text."""
        lines = []
        for name, e in (("lost", self.lost), ("gained", self.gained)):
            if e.status == "refused":
                lines.append(f"{name}: refused, {e.note}")
            else:
                lines.append(f"{name}: {100 * e.estimate:.1f} % [{100 * e.conf_low:.1f}, {100 * e.conf_high:.1f}]")
        return "\n".join(lines)


@dataclass(frozen=True)
class FlipList:
    """Items that the recipe, not one seed, gets wrong though the base got them right (or the reverse)."""

    items: NDArray[np.intp]
    """Positions of the listed items, surest first."""
    false_probability: Floats
    """Posterior probability of each listed item that it does not belong there."""
    expected_fdr: float
    """Mean of those: the expected share of false entries; NaN for an empty list."""
    n_candidates: int = 0
    """Items that the base answered rightly (for lost ones), wrongly (for gained ones)."""
    n_seeds: int = 0
    """Training seeds."""
    status: str = "ok"
    """``ok`` or ``refused``."""
    note: str = ""
    """The reason, where it is refused."""

    def tidy(self) -> list[dict[str, object]]:
        """One row per listed item."""
        return [
            {"item": int(i), "false_probability": float(p)}
            for i, p in zip(self.items, self.false_probability, strict=True)
        ]

    def summary(self) -> str:
        """Plain text."""
        if self.status == "refused":
            return f"List of items: refused, {self.note}."
        told = f"{len(self.items)} of {self.n_candidates} items listed from {self.n_seeds} seeds"
        return f"{told}, {100 * self.expected_fdr:.1f} % of them expected to be false" if len(self.items) else told


def flip_counts(
    base: ArrayLike,
    student: ArrayLike,
    design: Design,
    *,
    margins: tuple[ArrayLike, ArrayLike] | None = None,
    jitter: float = 0.0,
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
        Flips where either margin lies within `jitter` may be numerical noise and are not counted.
    jitter
        Largest difference that the same model shows when it is run twice (other batches, other device).
    conf_level
        Of the intervals, which are for items like these and this checkpoint.

    Raises
    ------
    EstimationError
        Shapes disagree, a score is neither right nor wrong, or `jitter` is given without margins.
    """
    b, s = _binary(base, "base"), _binary(student, "student")
    if b.shape != s.shape or len(b) != design.n_items:
        raise EstimationError(f"{design.n_items} items need as many scores, found {len(b)} and {len(s)}.")
    if jitter > 0 and margins is None:
        raise EstimationError("a jitter excludes flips by their margins: give the margins of both models.")
    firm = np.ones(len(b), dtype=bool)
    if margins is not None:
        firm = np.all([np.abs(np.asarray(m, dtype=float)) > jitter for m in margins], axis=0)
    known = np.isfinite(b) & np.isfinite(s)
    if not known.any():
        why = refused("no item was answered by both models")
        return FlipShares(why, why)
    lost, gained = (b == 1) & (s == 0) & firm, (b == 0) & (s == 1) & firm
    notes = [ONE_CHECKPOINT]
    if margins is not None:
        n_loose = int(((b != s) & known & ~firm).sum())
        notes.append(f"{n_loose} flips within numerical jitter ({jitter:g} nats) are not counted")
    both = [
        accuracy(np.where(known, flip, np.nan), design, conf_level=conf_level).noting(*notes) for flip in (lost, gained)
    ]
    n_lost, n_gained = int((lost & known).sum()), int((gained & known).sum())
    if design.n_clusters == design.n_items:
        return FlipShares(both[0], both[1], n_lost, n_gained, mcnemar_exact(n_lost, n_gained))
    # A passage loses its items together: counted one by one they would be called unequal in 40 % of equal pairs.
    balance = paired_difference(np.where(known, lost.astype(float) - gained, np.nan), design, conf_level=conf_level)
    return FlipShares(both[0], both[1], n_lost, n_gained, balance.p_value)


def flips_beyond_seeds(base: ArrayLike, students: ArrayLike, design: Design, *, conf_level: float = 0.95) -> FlipShares:
    """Lost and gained shares minus what two seeds of the recipe lose against each other.

    Parameters
    ----------
    base
        Right or wrong, shape (n,).
    students
        The same of R training seeds of one recipe, shape (R, n); items with a NaN do not count.
    design
        Strata, clusters and weights of the items.
    conf_level
        Of the intervals.

    Returns
    -------
    Flips
        Excess shares; refused with fewer than three seeds. Zero means: the base differs from a student no more than
        another seed would.

    Notes
    -----
    With p the share of seeds that are right on an item, ``lost = b (1 - p)`` and the seeds' own
    ``null = p (1 - p) R / (R - 1)`` (unbiased); the excess is the mean of their difference over items. It has two
    intervals, of which the wider one is given, and the larger p-value.

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
    b, y = _binary(base, "base"), _binary(students, "students")
    if y.ndim != 2 or y.shape[1] != len(b) or len(b) != design.n_items:
        raise EstimationError(f"{design.n_items} items need students of shape (seeds, items), found {y.shape}.")
    if len(y) < 3:
        why = refused(f"{len(y)} training seeds are too few to tell flips from noise, 3 are needed")
        return FlipShares(why, why)
    keep = np.isfinite(b) & np.isfinite(y).all(axis=0)
    if not keep.any():
        why = refused("no item was answered by the base and by all seeds")
        return FlipShares(why, why)
    b, y, design = b[keep], y[:, keep], design.kept(keep)

    def excess(seeds: Floats) -> Floats:
        p, r = seeds.mean(axis=0), len(seeds)
        null = p * (1 - p) * r / (r - 1)
        return np.column_stack([b * (1 - p) - null, (1 - b) * p - null])

    fit = design.fit(excess(y))
    jackknife = np.array([[design.mean(c) for c in excess(np.delete(y, r, axis=0)).T] for r in range(len(y))])
    spread = (len(y) - 1) / len(y) * ((jackknife - jackknife.mean(axis=0)) ** 2).sum(axis=0)
    stand_ins = _stand_ins(y, design)
    both = [
        _one_more_seed(
            _with_seeds(mean_estimate(fit, column=j, conf_level=conf_level), float(spread[j]), len(y), conf_level),
            stand_ins[:, j],
            conf_level,
        )
        for j in (0, 1)
    ]
    p = y.mean(axis=0)
    null = design.mean(p * (1 - p) * len(y) / (len(y) - 1))
    return FlipShares(both[0], both[1], seed_disagreement=null)


def flip_list(
    base: ArrayLike, students: ArrayLike, *, direction: str = "lost", fdr: float = 0.1, tipping: float = 0.5
) -> FlipList:
    """The items that the recipe lost (gained), with a bounded share of false entries.

    Parameters
    ----------
    base
        Right or wrong, shape (n,).
    students
        The same of R training seeds of one recipe, shape (R, n); items with a NaN do not count.
    direction
        ``lost`` or ``gained``.
    fdr
        Largest expected share of false entries.
    tipping
        An item is lost where a student of this recipe is right with a probability below this; gained where above.

    Returns
    -------
    FlipList
        Refused below five seeds or fifty candidates.

    Notes
    -----
    The probability p_i that a student is right has a prior that all candidates share, learnt from them twice: a beta
    (maximum marginal likelihood) and free weights on a grid (EM). An item's chance of being a false entry is the
    larger of the two posteriors of ``p_i`` on the wrong side. Items with equal counts enter together, as long as the
    mean of these chances stays below `fdr`.

    References
    ----------
    Efron, B. (2010). Large-Scale Inference, ch. 5; Newton, M. A. et al. (2004). Detecting differential gene
    expression with a semiparametric hierarchical mixture method. Biostatistics 5, 155-176.
    """
    if direction not in ("lost", "gained"):
        raise EstimationError(f"direction is 'lost' or 'gained', found {direction!r}.")
    if not 0 < fdr < 1 or not 0 < tipping < 1:
        raise EstimationError(f"fdr and tipping lie between 0 and 1, found {fdr:g} and {tipping:g}.")
    b, y = _binary(base, "base"), _binary(students, "students")
    if y.ndim != 2 or y.shape[1] != len(b):
        raise EstimationError(f"{len(b)} items need students of shape (seeds, items), found {y.shape}.")
    n_seeds = len(y)
    candidates = np.flatnonzero((b == (direction == "lost")) & np.isfinite(y).all(axis=0) & np.isfinite(b))
    reason = ""
    if n_seeds < MIN_FLIP_SEEDS:
        reason = f"{n_seeds} training seeds are too few for a list of items, {MIN_FLIP_SEEDS} are needed"
    elif len(candidates) < MIN_LIST_ITEMS:
        reason = f"{len(candidates)} items could have been {direction}, {MIN_LIST_ITEMS} are needed to learn how often"
    if reason:
        return FlipList(np.empty(0, dtype=np.intp), np.empty(0), math.nan, len(candidates), n_seeds, "refused", reason)
    flipped = (y[:, candidates] == (direction == "gained")).sum(axis=0).astype(int)
    tip = tipping if direction == "gained" else 1 - tipping
    chance = _false_probability(flipped, n_seeds, tip)
    order = np.argsort(chance[flipped], kind="stable")
    listed = chance[flipped][order]
    keep = np.cumsum(listed) / np.arange(1, len(listed) + 1) <= fdr
    n_listed = int(np.flatnonzero(keep)[-1]) + 1 if keep.any() else 0
    while n_listed and n_listed < len(listed) and listed[n_listed] == listed[n_listed - 1]:
        n_listed -= int((listed[:n_listed] == listed[n_listed - 1]).sum())  # a group that does not fit whole stays out
    mean = float(listed[:n_listed].mean()) if n_listed else math.nan
    return FlipList(candidates[order[:n_listed]], listed[:n_listed], mean, len(candidates), n_seeds)


def _false_probability(flipped: NDArray[np.int_], n_seeds: int, tip: float) -> Floats:
    """Per count of flipped seeds, 0 to R: the posterior probability that an item's flip rate is not above `tip`."""
    counts = np.bincount(flipped, minlength=n_seeds + 1).astype(float)
    k = np.arange(n_seeds + 1)
    free = _free_posterior(counts, n_seeds, tip)
    a, b = _beta_prior(counts, n_seeds)
    return np.maximum(free, special.betainc(a + k, b + n_seeds - k, tip))


def _free_posterior(counts: Floats, n_seeds: int, tip: float) -> Floats:
    grid = (np.arange(100) + 0.5) / 100
    likelihood = stats.binom.pmf(np.arange(n_seeds + 1)[:, None], n_seeds, grid)
    weight = np.full(100, 0.01)
    for _ in range(EM_STEPS):
        joint = likelihood * weight
        weight = (counts / joint.sum(axis=1)) @ joint + 0.01  # one item, spread evenly, was seen before
        weight /= weight.sum()
    joint = likelihood * weight
    return np.asarray(joint[:, grid <= tip].sum(axis=1) / joint.sum(axis=1))


def _beta_prior(counts: Floats, n_seeds: int) -> tuple[float, float]:
    """Maximum marginal likelihood over a grid of mean and log concentration; its refinement would move no list."""
    mean = np.linspace(0.005, 0.995, 100)[:, None]
    size = np.exp(np.linspace(math.log(0.1), math.log(200), 60))
    a, b = mean * size, (1 - mean) * size
    k = np.arange(n_seeds + 1)[:, None, None]
    value = np.tensordot(counts, special.betaln(a + k, b + n_seeds - k) - special.betaln(a, b), 1)
    i, j = np.unravel_index(int(np.argmax(value)), value.shape)
    return float(a[i, j]), float(b[i, j])


def _with_seeds(over_items: Estimate, spread: float, n_seeds: int, conf_level: float) -> Estimate:
    """The same number with the seeds' variance added."""
    note = f"{n_seeds} training seeds; population: this recipe, items like these"
    if over_items.status != "ok":
        return over_items.noting(note)
    items = 0.0 if math.isnan(over_items.std_error) else over_items.std_error**2
    total = items + spread
    if not total > 0:
        return over_items.noting(note)
    df_items = over_items.df if math.isfinite(over_items.df) else float(max(over_items.n_clusters - 1, 1))
    df = total**2 / (items**2 / df_items + spread**2 / (n_seeds - 1))
    error = math.sqrt(total)
    half = t_critical(df, conf_level) * error
    e = over_items.estimate
    return Estimate(
        estimate=e,
        std_error=error,
        df=df,
        conf_low=e - half,
        conf_high=e + half,
        p_value=t_p_value(e / error, df),
        null_value=0.0,
        n_items=over_items.n_items,
        n_clusters=over_items.n_clusters,
        method="CR2 over items + jackknife over seeds, t",
        remarks=free_text("; ".join(filter(None, (over_items.note, note)))),
    )


def _stand_ins(y: Floats, design: Design) -> Floats:
    """Lost and gained shares with each seed in the base's place, against the other seeds, shape (R, 2)."""
    others = (y.sum(axis=0) - y) / (len(y) - 1)
    return np.array(
        [[design.mean(one * (1 - p)), design.mean((1 - one) * p)] for one, p in zip(y, others, strict=True)]
    )


def _one_more_seed(known: Estimate, stand_ins: Floats, conf_level: float) -> Estimate:
    """The same number with the wider interval and the larger p-value of the base as it is and as one more seed."""
    n_seeds = len(stand_ins)
    error = float(stand_ins.std(ddof=1)) * math.sqrt(1 + 1 / n_seeds)
    if known.status != "ok" or not error > 0:
        return known
    df, e = n_seeds - 1.0, known.estimate
    half = t_critical(df, conf_level) * error
    p_value = max(known.p_value, t_p_value(e / error, df))
    known = known.noting("seen as the base that it is and as one more seed: the wider interval")
    if half <= (known.conf_high - known.conf_low) / 2:
        return replace(known, p_value=p_value)
    method = "base as one more seed, Crawford-Howell t"
    return replace(known, std_error=error, df=df, conf_low=e - half, conf_high=e + half, p_value=p_value, method=method)


def _binary(scores: ArrayLike, name: str) -> Floats:
    y = np.asarray(scores, dtype=float)
    if (np.isfinite(y) & (y != 0) & (y != 1)).any():
        raise EstimationError(f"{name}: a flip is between right (1) and wrong (0); found other scores.")
    return y
