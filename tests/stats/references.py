"""Slow, literal versions of the estimators, written from their definitions with dense matrices."""

import numpy as np


def inverse_root(matrix):
    """The symmetric inverse square root of a positive definite matrix."""
    values, vectors = np.linalg.eigh(matrix)
    assert values.min() > 1e-10
    return vectors @ np.diag(values**-0.5) @ vectors.T


def dense_cr2(y, strata, clusters, weights):
    """CR2 variance and Bell-McCaffrey df of ``weights @ coefficients`` in the regression of y on stratum dummies."""
    names = np.unique(strata)
    x = (np.asarray(strata)[:, None] == names[None, :]).astype(float)
    bread = np.linalg.inv(x.T @ x)
    residual = y - x @ (bread @ x.T @ y)
    n = len(y)
    annihilator = np.eye(n) - x @ bread @ x.T
    labels = np.unique(clusters)
    total, projections = 0.0, []
    for label in labels:
        inside = np.flatnonzero(np.asarray(clusters) == label)
        adjust = inverse_root(annihilator[np.ix_(inside, inside)])
        row = weights @ bread @ x[inside].T @ adjust
        total += float(row @ residual[inside]) ** 2
        projections.append(annihilator[:, inside] @ row)
    p = np.column_stack(projections)
    gram = p.T @ p
    return float(weights @ (bread @ x.T @ y)), total, np.trace(gram) ** 2 / (gram**2).sum()


def prototype_cr2(d, clusters):
    """Mean, standard error and df as the project's one-stratum prototype computes them (clusters x clusters)."""
    g = np.unique(clusters, return_inverse=True)[1]
    n, total = np.bincount(g), len(d)
    sums = np.bincount(g, d - d.mean())
    h = n / total
    error = np.sqrt((sums**2 / (1 - h)).sum()) / total
    a = np.sqrt(n) / total / np.sqrt(1 - h)
    p = np.diag(a) @ (np.eye(len(n)) - np.outer(np.sqrt(h), np.sqrt(h)))
    m = p @ p.T
    return d.mean(), error, np.trace(m) ** 2 / (m * m).sum()


def tango_statistic(delta, gained, lost, n):
    """Tango's score statistic with the nuisance parameter maximised numerically on the multinomial likelihood."""
    from scipy.optimize import minimize_scalar

    def minus_log_likelihood(q):
        p12, p21, rest = q + delta, q, 1 - 2 * q - delta
        if min(p12, p21, rest) < 0:
            return np.inf
        parts = ((gained, p12), (lost, p21), (n - gained - lost, rest))
        return -sum(k * np.log(max(p, 1e-300)) for k, p in parts if k)

    low, high = max(0.0, -delta), (1 - delta) / 2
    q = minimize_scalar(minus_log_likelihood, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
    return (gained - lost - n * delta) / np.sqrt(n * (2 * q + delta * (1 - delta)))


def bootstrap_ratio_difference(first, second, clusters, *, rng, n_resamples=2000, conf_level=0.95):
    """The percentile interval of the difference of two ratios, whole clusters resampled for both at once.

    `first` and `second` hold values of numerator and denominator, shape (n, 2), and strata, which weigh equally.
    Resamples in which a denominator is not positive or a stratum is empty are left out; where they are more than one in
    twenty there is no interval.
    """
    labels, code = np.unique(np.concatenate(clusters), return_inverse=True)
    split = len(clusters[0])
    counts = rng.multinomial(len(labels), np.full(len(labels), 1 / len(labels)), n_resamples).astype(float)
    draws = _resampled_ratio(first, counts[:, code[:split]]) - _resampled_ratio(second, counts[:, code[split:]])
    usable = draws[np.isfinite(draws)]
    if len(usable) < 0.95 * n_resamples:
        return np.nan, np.nan
    return tuple(np.quantile(usable, [(1 - conf_level) / 2, (1 + conf_level) / 2]))


def _resampled_ratio(data, weights):
    """The ratio of equally weighted stratum means in each resample, shape (resamples,); NaN where there is none."""
    values, stratum = data[0], np.unique(data[1], return_inverse=True)[1]
    member = np.eye(int(stratum.max()) + 1)[stratum]
    size = weights @ member
    with np.errstate(invalid="ignore", divide="ignore"):
        numerator, denominator = (((weights * column) @ member / size).mean(axis=1) for column in values.T)
        return np.where(denominator > 0, numerator / denominator, np.nan)
