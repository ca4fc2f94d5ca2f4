"""The pooling model once more, as one joint normal distribution that is conditioned in full: slow, and no algebra."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from capgap.classification import Evidence
from capgap.classification.pooling import PRIOR_SD, spread

Floats = NDArray[np.float64]


def conditioned(task: Sequence[Evidence], items: Sequence[Sequence[Evidence]]) -> tuple[Floats, Floats]:
    """Means and standard deviations of T and of each theta given all words, shape (1 + items,)."""
    kinds = sorted({e.kind for e in (*task, *(e for words in items for e in words))})
    n, k = len(items), len(kinds)
    # sources of variation: T, delta of each item, F of each kind, an own error of each word
    words = [(None, e) for e in task] + [(i, e) for i, own in enumerate(items) for e in own]
    size = 1 + n + k + len(words)
    variance = np.ones(size)
    variance[0], variance[1 : 1 + n] = PRIOR_SD**2, spread(items) ** 2
    wanted = np.zeros((1 + n, size))
    wanted[:, 0] = 1
    wanted[1:, 1 : 1 + n] = np.eye(n)
    seen = np.zeros((len(words), size))
    for row, (item, e) in enumerate(words):
        seen[row, 0] = 1
        if item is not None:
            seen[row, 1 + item] = 1
        seen[row, 1 + n + kinds.index(e.kind)] = e.sd * np.sqrt(e.shared)
        seen[row, 1 + n + k + row] = e.sd * np.sqrt(max(1 - e.shared, 1e-4))
    cov = wanted * variance @ wanted.T
    if not words:
        return np.zeros(1 + n), np.sqrt(np.diag(cov))
    cross, among = wanted * variance @ seen.T, seen * variance @ seen.T
    gain = cross @ np.linalg.inv(among)
    said = np.array([e.logit for _, e in words])
    return gain @ said, np.sqrt(np.diag(cov - gain @ cross.T))
