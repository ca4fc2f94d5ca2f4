"""A weighted sum of stratum means, clusters that may span strata: CR2 variance, Bell-McCaffrey degrees of freedom."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from capgap.errors import EstimationError

__all__ = ["StratifiedMean", "cross_covariance", "stratified_mean"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class StratifiedMean:
    """The fit of `stratified_mean`: p estimates that share one design."""

    theta: Floats
    """The estimates, shape (p,)."""
    cov: Floats
    """Their CR2 covariance, shape (p, p); NaN where a stratum holds one cluster only."""
    df: float
    """Bell-McCaffrey degrees of freedom, one for all p; NaN where there is no covariance."""
    scores: Floats
    """What each cluster adds to the estimates' error, shape (n_clusters, p); ``cov = scores.T @ scores``."""
    clusters: NDArray[np.int64]
    """The cluster code of each row of `scores`, ascending, shape (n_clusters,)."""
    n_items: int
    """Rows that entered."""
    n_strata: int
    """Strata with a weight other than zero."""
    n_lonely: int
    """Strata whose items all stand in one cluster: they have no variance."""
    n_effective: float
    """The smallest ratio of a stratum's clusters to its absolute weight: the units behind the weakest stratum."""

    @property
    def n_clusters(self) -> int:
        """Clusters that entered."""
        return len(self.clusters)

    @property
    def reason(self) -> str:
        """Why there is no covariance; empty where there is one."""
        if not self.n_lonely:
            return ""
        if self.n_strata == 1:
            return "all items stand in one cluster: no interval"
        return f"{self.n_lonely} of {self.n_strata} tasks have all their items in one cluster: no interval"


def stratified_mean(
    values: ArrayLike,
    strata: ArrayLike,
    clusters: ArrayLike,
    *,
    weights: ArrayLike | None = None,
) -> StratifiedMean:
    """The estimates ``theta = sum_k c_k * mean of stratum k`` with their joint covariance.

    Parameters
    ----------
    values
        Shape (n,) or (n, p). Rows with a value that is not finite are left out.
    strata
        Stratum of each row, shape (n,); integers or strings. For tasks that count equally: the task.
    clusters
        Cluster of each row as an integer, shape (n,): rows of one cluster are dependent, whatever their strata.
    weights
        c_k for each distinct stratum in ascending order, any sign; default 1/K. The share of items in each stratum
        gives the item-weighted mean, and positive with negative weights give a contrast.

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
    y, stratum, cluster, c, counts = _checked(values, strata, clusters, weights)
    n_strata = len(counts)
    means = np.column_stack([np.bincount(stratum, column, n_strata) for column in y.T]) / counts[:, None]
    theta = c @ means
    labels, g = np.unique(cluster, return_inverse=True)
    pairs, pair = np.unique(g * n_strata + stratum, return_inverse=True)
    pair_g, pair_k = pairs // n_strata, pairs % n_strata
    m = np.bincount(pair).astype(float)
    n = counts[pair_k]
    lonely = np.unique(pair_k[(m == n) & (c[pair_k] != 0)])
    clusters_of = np.bincount(pair_k, minlength=n_strata)
    weighted = c != 0
    n_effective = float(np.min(clusters_of[weighted] / np.abs(c[weighted]))) if weighted.any() else math.inf
    if len(lonely):
        p = y.shape[1]
        cov, df, scores = np.full((p, p), np.nan), math.nan, np.full((len(labels), p), np.nan)
    else:
        residual = y - means[stratum]
        sums = np.column_stack([np.bincount(pair, column) for column in residual.T])
        a = np.where(m < n, 1 - m / n, 1.0) ** -0.5
        scale = c[pair_k] / n * a
        scores = np.column_stack([np.bincount(pair_g, scale * column, len(labels)) for column in sums.T])
        cov = scores.T @ scores
        df = _bell_mccaffrey(scale, m, n, pair_g, pair_k, (len(labels), n_strata))
    return StratifiedMean(theta, cov, df, scores, labels, len(y), int(weighted.sum()), len(lonely), n_effective)


def cross_covariance(first: StratifiedMean, second: StratifiedMean) -> Floats:
    """The covariance of the estimates of two fits through the clusters that they share, shape (p first, p second)."""
    _, i, j = np.intersect1d(first.clusters, second.clusters, assume_unique=True, return_indices=True)
    return np.asarray(first.scores[i].T @ second.scores[j])


def _checked(
    values: ArrayLike, strata: ArrayLike, clusters: ArrayLike, weights: ArrayLike | None
) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64], Floats, Floats]:
    """Values (n, p), stratum codes, clusters, weights and counts per stratum, with rows that are not finite gone."""
    y = np.asarray(values, dtype=float)
    y = y[:, None] if y.ndim == 1 else y
    names, stratum = np.unique(np.asarray(strata), return_inverse=True)
    cluster = np.asarray(clusters, dtype=np.int64)
    if not len(y) == len(stratum) == len(cluster):
        raise EstimationError(
            f"values, strata and clusters differ in length: {len(y)}, {len(stratum)}, {len(cluster)}."
        )
    if not len(y):
        raise EstimationError("no item: nothing to estimate.")
    c = np.full(len(names), 1 / len(names)) if weights is None else np.asarray(weights, dtype=float)
    if c.shape != (len(names),):
        raise EstimationError(f"{len(names)} strata need {len(names)} weights, found {c.shape}.")
    finite = np.isfinite(y).all(axis=1)
    if not finite.all():
        y, stratum, cluster = y[finite], stratum[finite], cluster[finite]
    counts = np.bincount(stratum, minlength=len(names)).astype(float)
    if ((counts == 0) & (c != 0)).any():
        lost = names[np.flatnonzero((counts == 0) & (c != 0))[0]]
        raise EstimationError(f"stratum {lost} has no finite value.")
    return y, stratum, cluster, c, np.maximum(counts, 1)


def _bell_mccaffrey(
    scale: Floats,
    m: Floats,
    n: Floats,
    pair_g: NDArray[np.int64],
    pair_k: NDArray[np.int64],
    shape: tuple[int, int],
) -> float:
    """Degrees of freedom from (cluster, stratum) pairs; `scale` is ``c_k/n_k a_gk``."""
    d = np.bincount(pair_g, scale**2 * m, shape[0])
    b = scale * m / np.sqrt(n)
    b_squared = np.bincount(pair_g, b**2, shape[0])
    trace = d.sum() - b_squared.sum()
    if shape[1] == 1:
        gram_squared = float(b @ b) ** 2
    else:
        matrix = sparse.csr_array((b, (pair_g, pair_k)), shape=shape)
        gram_squared = float(((matrix.T @ matrix).data ** 2).sum())
    norm = float((d**2).sum() - 2 * (d * b_squared).sum() + gram_squared)
    return float(trace**2 / norm) if norm > 0 else math.nan
