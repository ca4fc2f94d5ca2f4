"""CR2 variance and Bell-McCaffrey degrees of freedom of weighted sums of stratum means; clusters may span strata."""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from capgap.errors import EstimationError
from capgap.schema.remarks import Reason, Remark, remark

__all__ = ["Design", "StratifiedMean", "cross_covariance", "stratified_mean"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SMALL_STRATUM = 5
"""Clusters of average variance that a stratum's own are seen with, where this makes a variance larger."""
MAX_CLUSTER_SHARE = 0.9
"""With more of the weight in one cluster CR2 with Bell-McCaffrey t covered 55 to 90 %, as soon as clusters differ."""


@dataclass(frozen=True)
class StratifiedMean:
    """p estimates that share one design."""

    theta: Floats
    """The estimates, shape (p,)."""
    cov: Floats
    """Their CR2 covariance, shape (p, p); NaN where a stratum holds one cluster only."""
    extra_cov: Floats
    """What `cov` may lack where strata of few clusters count as much as large ones, shape (p, p); see `covariance`."""
    scores: Floats
    """What each cluster adds to the estimates' error, shape (n_clusters, p); ``cov = scores.T @ scores``."""
    design: "Design"
    """The items behind them."""
    values: Floats
    """What was averaged, finite rows only, shape (n, p)."""

    @property
    def df(self) -> float:
        """Bell-McCaffrey degrees of freedom, one for all p; NaN where there is no covariance."""
        return self.design.df

    @property
    def covariance(self) -> Floats:
        """The covariance that intervals rest on: ``cov + inflation``, shape (p, p).

        Notes
        -----
        Five items that happen to agree show no variance, and a task of five items that counts as much as one of five
        hundred brings most of it: intervals by CR2 alone covered 65 % there. So each stratum's variance is also
        estimated with `SMALL_STRATUM` clusters of average variance among its own, and where this makes the whole
        larger the difference is added (its positive part, for several estimates). Nothing is added where strata are of
        one size, and next to nothing where they are large.
        """
        return np.asarray(self.cov + self.extra_cov)

    def variance_remarks(self, column: int = 0) -> tuple[Remark, ...]:
        """A remark where most of an estimate's variance is that of average strata; else none."""
        return (remark(Reason.BORROWED_VARIANCE),) if self.extra_cov[column, column] > self.cov[column, column] else ()


@dataclass(frozen=True)
class Design:
    """Which items stand in which stratum and cluster, and how strata weigh; everything that needs no values."""

    stratum: Ints
    """Stratum code of each item, 0 to K - 1, shape (n,)."""
    cluster: Ints
    """Cluster code of each item as it was given, shape (n,)."""
    weights: Floats
    """c_k, shape (K,)."""
    counts: Floats
    """Items of each stratum, shape (K,)."""
    clusters: Ints
    """The distinct cluster codes, ascending, shape (n_clusters,)."""
    pair: Ints
    """(cluster, stratum) pair of each item, shape (n,)."""
    pair_cluster: Ints
    """Position in `clusters` of each pair."""
    pair_cr2_weight: Floats
    """``c_k/n_k (1 - m_gk/n_k)^(-1/2)`` of each pair."""
    pair_inflation: Floats
    """What the squared sum of residuals of each pair adds to `StratifiedMean.extra_cov` before its positive part."""
    df: float
    """Bell-McCaffrey degrees of freedom; NaN where a stratum has one cluster only."""
    is_unbalanced: bool
    """Whether strata differ in size or weight, so that `StratifiedMean.extra_cov` may be more than zero."""
    n_singletons: int
    """Strata with a weight whose items all stand in one cluster: they have no variance."""
    largest_share: float
    """The weight of the largest cluster as a share of all."""
    n_effective: float
    """The smallest ratio of a stratum's clusters to its absolute weight: the units behind the weakest stratum."""

    @classmethod
    def of(cls, strata: ArrayLike, clusters: ArrayLike, *, weights: ArrayLike | None = None) -> Self:
        """The design of some items.

        Parameters
        ----------
        strata
            Stratum of each item, shape (n,); integers or strings. For tasks that count equally: the task.
        clusters
            Cluster of each item as an integer, shape (n,): items of one cluster are dependent, whatever their strata.
        weights
            c_k for each distinct stratum in ascending order, any sign; default 1/K. The share of items in each stratum
            gives the item-weighted mean, positive with negative weights a contrast.

        Raises
        ------
        EstimationError
            There is no item, or shapes disagree.
        """
        names, stratum = np.unique(np.asarray(strata), return_inverse=True)
        cluster = np.asarray(clusters, dtype=np.int64)
        if not len(stratum) == len(cluster):
            raise EstimationError(f"strata and clusters differ in length: {len(stratum)}, {len(cluster)}.")
        if not len(stratum):
            raise EstimationError("no item: nothing to estimate.")
        k = len(names)
        c = np.full(k, 1 / k) if weights is None else np.asarray(weights, dtype=float)
        if c.shape != (k,):
            raise EstimationError(f"{k} strata need {k} weights, found shape {c.shape}.")
        counts = np.bincount(stratum, minlength=k).astype(float)
        labels, g = np.unique(cluster, return_inverse=True)
        # Residuals enter by their sums over (cluster, stratum) pairs: the hat matrix is constant within a pair.
        pairs, pair = np.unique(g * k + stratum, return_inverse=True)
        pair_g, pair_k = pairs // k, pairs % k
        m, n = np.bincount(pair).astype(float), counts[pair_k]
        # A pair that is a whole stratum has no residual: its a_gk would be infinite, and the stratum no variance.
        is_whole_stratum = (m == n) & (c[pair_k] != 0)
        scale = c[pair_k] / n / np.sqrt(np.where(m < n, 1 - m / n, 1.0))
        weighted = c != 0
        n_pairs = np.bincount(pair_k, minlength=k)
        stratum_inflation = _find_stratum_inflation(c, counts, n_pairs)
        clusters_per_weight = n_pairs[weighted] / np.abs(c[weighted])
        shape = (len(labels), k)
        return cls(
            stratum=stratum,
            cluster=cluster,
            weights=c,
            counts=counts,
            clusters=labels,
            pair=pair,
            pair_cluster=pair_g,
            pair_cr2_weight=scale,
            pair_inflation=np.where(m < n, stratum_inflation[pair_k] / np.where(m < n, 1 - m / n, 1.0), 0.0),
            df=math.nan if is_whole_stratum.any() else _bell_mccaffrey(scale, m, n, pair_g, pair_k, shape),
            is_unbalanced=bool(stratum_inflation.any()),
            n_singletons=int(is_whole_stratum.sum()),
            largest_share=float(np.bincount(pair_g, np.abs(c[pair_k]) * m / n).max() / max(np.abs(c).sum(), 1e-300)),
            n_effective=float(clusters_per_weight.min()) if weighted.any() else math.inf,
        )

    @property
    def n_items(self) -> int:
        """Items."""
        return len(self.stratum)

    @property
    def n_clusters(self) -> int:
        """Clusters."""
        return len(self.clusters)

    @property
    def is_simple_random(self) -> bool:
        """Whether this is a plain mean of independent items: one stratum, every item its own cluster."""
        return len(self.counts) == 1 and self.weights[0] == 1 and self.has_independent_items

    @property
    def has_independent_items(self) -> bool:
        """Whether every item is its own cluster."""
        return self.n_clusters == self.n_items

    @property
    def is_weighted_mean(self) -> bool:
        """Whether this is a weighted mean: weights above zero that sum to 1."""
        return bool((self.weights > 0).all()) and abs(float(self.weights.sum()) - 1) < 1e-9

    @property
    def effective_items(self) -> float:
        """Items of one unweighted sample that would know the mean as well: ``1 / sum(c_k² / n_k)``."""
        return float(1 / (self.weights**2 / self.counts).sum())

    @property
    def refusal(self) -> Remark | None:
        """Why there is no covariance to rely on; None where there is one."""
        if not self.n_singletons:
            share = self.largest_share
            return remark(Reason.DOMINANT_CLUSTER, share=100 * share) if share > MAX_CLUSTER_SHARE else None
        if len(self.counts) == 1:
            return remark(Reason.ONE_CLUSTER)
        return remark(Reason.ONE_CLUSTER_IN_TASK, n=self.n_singletons, of=len(self.counts))

    def subset(self, kept_items: NDArray[np.bool_]) -> "Design":
        """The design of some of its items; every stratum that has a weight must keep one.

        Raises
        ------
        EstimationError
            A stratum with a weight is left without an item.
        """
        if kept_items.all():
            return self
        kept_strata = np.bincount(self.stratum[kept_items], minlength=len(self.counts)) > 0
        if (self.weights[~kept_strata] != 0).any():
            raise EstimationError("a stratum has no finite value.")
        return Design.of(self.stratum[kept_items], self.cluster[kept_items], weights=self.weights[kept_strata])

    def mean(self, values: Floats) -> float:
        """The weighted sum of stratum means of finite values, shape (n,), without a variance."""
        return float(self.weights @ (np.bincount(self.stratum, values, len(self.counts)) / self.counts))

    def fit(self, values: ArrayLike) -> StratifiedMean:
        """The estimates ``sum_k c_k * mean of stratum k`` of each column with their joint CR2 covariance.

        Parameters
        ----------
        values
            Shape (n,) or (n, p). Rows with a value that is not finite are left out.

        Raises
        ------
        EstimationError
            Shapes disagree, or a stratum that has a weight has no finite value.
        """
        y = np.asarray(values, dtype=float)
        y = y[:, None] if y.ndim == 1 else y
        if len(y) != self.n_items:
            raise EstimationError(f"{self.n_items} items need as many values, found {len(y)}.")
        finite = np.isfinite(y).all(axis=1)
        if not finite.all():
            return self.subset(finite).fit(y[finite])
        k = len(self.counts)
        means = np.column_stack([np.bincount(self.stratum, column, k) for column in y.T]) / self.counts[:, None]
        scores = np.full((self.n_clusters, y.shape[1]), np.nan)
        extra_cov = np.zeros((y.shape[1],) * 2)
        if not self.n_singletons:
            sums = np.column_stack([np.bincount(self.pair, column) for column in (y - means[self.stratum]).T])
            for j, column in enumerate(sums.T):  # u_g: the scaled sums of a cluster's pairs
                scores[:, j] = np.bincount(self.pair_cluster, self.pair_cr2_weight * column, self.n_clusters)
            if self.is_unbalanced:
                extra_cov = _positive_part(sums.T @ (self.pair_inflation[:, None] * sums))
        return StratifiedMean(self.weights @ means, scores.T @ scores, extra_cov, scores, self, y)


def stratified_mean(
    values: ArrayLike, strata: ArrayLike, clusters: ArrayLike, *, weights: ArrayLike | None = None
) -> StratifiedMean:
    """The estimates ``theta = sum_k c_k * mean of stratum k`` with their joint covariance.

    Parameters
    ----------
    values
        Shape (n,) or (n, p). Rows with a value that is not finite are left out.
    strata, clusters, weights
        As for `Design.of`.

    Raises
    ------
    EstimationError
        No row is left, shapes disagree, or a stratum that has a weight has no finite value.

    Notes
    -----
    With residuals e = y - mean of its stratum, m_gk the items of cluster g in stratum k, n_k those of the stratum:
    ``u_g = sum_k c_k/n_k (1 - m_gk/n_k)^(-1/2) sum_{i in g,k} e_i`` and ``V = sum_g u_g u_g'``. This is CR2 of the
    regression on stratum dummies, whose hat matrix is constant within (cluster, stratum), so that its matrix square
    roots have this closed form. Degrees of freedom match the first two moments of V under independent errors of
    equal variance: with a_gk = (1 - m_gk/n_k)^(-1/2), ``M = diag(D) - B B'``,
    ``D_g = sum_k (c_k/n_k)^2 a_gk^2 m_gk`` and ``B_gk = c_k/n_k a_gk m_gk / sqrt(n_k)``, they are
    ``tr(M)^2 / ||M||^2``, which needs B'B (strata x strata) only.

    References
    ----------
    Bell, R. M. & McCaffrey, D. F. (2002). Bias reduction in standard errors for linear regression with multi-stage
    samples. Survey Methodology 28, 169-181. Here for stratum means, without any matrix of clusters by clusters.
    """
    return Design.of(strata, clusters, weights=weights).fit(values)


def cross_covariance(fit_a: StratifiedMean, fit_b: StratifiedMean) -> Floats:
    """The covariance of the estimates of two fits through the clusters that they share, shape (p first, p second)."""
    _, i, j = np.intersect1d(fit_a.design.clusters, fit_b.design.clusters, assume_unique=True, return_indices=True)
    return np.asarray(fit_a.scores[i].T @ fit_b.scores[j])


def _find_stratum_inflation(weights: Floats, counts: Floats, n_clusters: Ints) -> Floats:
    """What a squared sum of residuals adds where each stratum is seen with clusters of average variance too.

    With V_k a stratum's own variance of one item, V the average over items and g_k its clusters, each V_k becomes
    ``(g_k V_k + s V) / (g_k + s)``; per stratum, shape (K,). Zero where all strata are alike.
    """
    weighted = weights != 0
    sizes = np.column_stack([np.abs(weights), counts, n_clusters])[weighted]
    if not len(sizes) or (np.ptp(sizes, axis=0) <= 1e-12).all():
        return np.zeros(len(weights))
    share = weights**2 / counts * SMALL_STRATUM / (n_clusters + SMALL_STRATUM)
    return np.asarray(weighted * (share.sum() / counts[weighted].sum() - share / counts))


def _positive_part(matrix: Floats) -> Floats:
    """A symmetric matrix without its negative eigenvalues."""
    if len(matrix) == 1:
        return np.maximum(matrix, 0.0)
    values, vectors = np.linalg.eigh(matrix)  # an addition to a covariance may make no contrast's variance smaller
    return np.asarray((vectors * np.maximum(values, 0.0)) @ vectors.T)


def _bell_mccaffrey(scale: Floats, m: Floats, n: Floats, cluster: Ints, stratum: Ints, shape: tuple[int, int]) -> float:
    """Degrees of freedom from (cluster, stratum) pairs; `scale` is ``c_k/n_k a_gk``, `shape` (clusters, strata)."""
    d = np.bincount(cluster, scale**2 * m, shape[0])
    b = scale * m / np.sqrt(n)
    cluster_square_sums = np.bincount(cluster, b**2, shape[0])
    matrix_trace = d.sum() - cluster_square_sums.sum()
    if len(cluster) == shape[0]:  # no cluster spans strata: B'B is diagonal
        gram_squared = float((np.bincount(stratum, b**2, shape[1]) ** 2).sum())
    else:
        matrix = sparse.csr_array((b, (cluster, stratum)), shape=shape)
        gram_squared = float(((matrix.T @ matrix).data ** 2).sum())
    norm = float((d**2).sum() - 2 * (d * cluster_square_sums).sum() + gram_squared)  # ||diag(D) - B B'||²
    return float(matrix_trace**2 / norm) if norm > 0 else math.nan
