"""Binomial-logit kernels of one task's outcomes, on a grid and in sparse rows: likelihood, weights, third derivatives.

A block is a task. Its linear predictor is ``eta = M z + U u``: z are the block's c coordinates (one for each student,
and, in sparse rows, one for each covariate that varies within student and task), u its I items, and M and U say which
of them a row reads. Items meet each other nowhere, so everything is condensed onto z before any dense algebra begins.

Letters: S students, I items of the block, c coordinates, R rows; W = n mu (1 - mu) the weights, B = U'WM (I x c).
"""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, special

__all__ = ["GridLogitKernel", "LogitKernel", "LikelihoodPoint", "SparseLogitKernel", "sum_by_group"]

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
MAX_LOGIT = 150.0
"""Logits of students and of items are cut here, so that a product of two odds stays a float; no outcome can tell."""
DENSE_ROWS_PER_SLICE = 20_000


@dataclass(frozen=True)
class LikelihoodPoint:
    """A block's likelihood at one value of its coordinates and items."""

    log_likelihood: float
    item_score: Floats
    """U'(y - n mu), shape (I,)."""
    score: Floats
    """M'(y - n mu), shape (c,)."""
    item_weight: Floats
    """U'W1, shape (I,)."""
    weights: Floats
    """W: (S, I) on a grid, (R,) in sparse rows."""
    coupling: Floats
    """B: (I, c)."""


class LogitKernel(Protocol):
    """A block's outcomes."""

    n_items: int
    n_students: int
    link: str
    """What a method's name says of the link; empty for the plain logit."""

    def at(self, z: Floats, u: Floats) -> LikelihoodPoint:
        """The likelihood at coordinates z (c,) and items u (I,)."""

    def expected(self, point: LikelihoodPoint, z: Floats, u: Floats) -> LikelihoodPoint:
        """The same with the expectation of W, which is never negative; of the plain logit it is W itself."""

    def schur_complement(self, point: LikelihoodPoint, shrink: Floats) -> Floats:
        """M'WM - B' diag(shrink) B, shape (c, c)."""

    def skewness(
        self, point: LikelihoodPoint, z: Floats, u: Floats, covariance: Floats, shrink: Floats
    ) -> tuple[Floats, Floats, Floats]:
        """Half the slope of log det in every logit, summed over items and coordinates, and v = diag(B G B').

        ``q = -1/2 W' h`` with h the variance of each logit, given the covariance G of z and ``shrink``, the variance
        of each item given z: ``h = M G M' - 2 shrink M G B' + shrink + shrink² v``.
        """

    def without(self, point: LikelihoodPoint, z: Floats, u: Floats, student: int) -> LikelihoodPoint:
        """The likelihood's slopes at the same place without one student's outcomes; its value is not kept."""


class GridLogitKernel:
    """Students x items of one task; only sums of the outcomes are needed, never their long table."""

    link = ""

    def __init__(self, successes: Floats, trials: Floats | None):
        self.item_successes = successes.sum(axis=0)
        self.cell_successes = successes.sum(axis=1)
        self.trials = trials
        """None where every student answered every item once."""
        self.n_students, self.n_items = successes.shape
        self._single = trials is None or bool(trials.max(initial=0) <= 1)
        self._outcomes = successes

    def at(self, z: Floats, u: Floats) -> LikelihoodPoint:
        """See `LogitKernel`; odds are an outer product, so no exponential is taken per outcome."""
        right_odds = np.exp(np.clip(z, -MAX_LOGIT, MAX_LOGIT))[:, None] * np.exp(np.clip(u, -MAX_LOGIT, MAX_LOGIT))
        one_plus_odds = right_odds + 1.0
        mean = right_odds / one_plus_odds
        # sum of n log(1 + odds), by as few logarithms as can be.
        if self.trials is None:
            normaliser = _sum_of_logs(one_plus_odds)
        elif self._single:
            normaliser = _sum_of_logs(right_odds * self.trials + 1.0)
        else:
            normaliser = float(np.vdot(self.trials, np.log1p(right_odds)))
        if self.trials is not None:
            mean *= self.trials
        cells, items = mean.sum(axis=1), mean.sum(axis=0)
        weights = np.divide(mean, one_plus_odds, out=mean)  # n odds / (1 + odds)²: no 1 - mu, hence no cancellation
        value = float(self.cell_successes @ z + self.item_successes @ u) - normaliser
        return LikelihoodPoint(
            value, self.item_successes - items, self.cell_successes - cells, weights.sum(axis=0), weights, weights.T
        )

    def expected(self, point: LikelihoodPoint, z: Floats, u: Floats) -> LikelihoodPoint:
        """See `LogitKernel`."""
        return point

    def schur_complement(self, point: LikelihoodPoint, shrink: Floats) -> Floats:
        """See `LogitKernel`."""
        scaled = point.weights * np.sqrt(shrink)
        schur_matrix = -(scaled @ scaled.T)
        schur_matrix[np.diag_indices_from(schur_matrix)] += point.weights.sum(axis=1)
        return schur_matrix

    def skewness(
        self, point: LikelihoodPoint, z: Floats, u: Floats, covariance: Floats, shrink: Floats
    ) -> tuple[Floats, Floats, Floats]:
        """See `LogitKernel`."""
        # h of the protocol, built in place: shape (S, I).
        weights = point.weights
        logit_variance = covariance @ weights
        v = np.einsum("si,si->i", weights, logit_variance)
        logit_variance *= -2.0 * shrink
        logit_variance += shrink + shrink**2 * v
        logit_variance += np.diag(covariance)[:, None]
        right_odds = np.exp(np.clip(z, -MAX_LOGIT, MAX_LOGIT))[:, None] * np.exp(np.clip(u, -MAX_LOGIT, MAX_LOGIT))
        one_plus_odds = right_odds + 1.0
        logit_variance *= weights
        logit_variance *= np.subtract(2.0, one_plus_odds, out=right_odds)  # 1 - 2 mu = (1 - odds) / (1 + odds)
        logit_variance /= one_plus_odds
        return -0.5 * logit_variance.sum(axis=0), -0.5 * logit_variance.sum(axis=1), v

    def without(self, point: LikelihoodPoint, z: Floats, u: Floats, student: int) -> LikelihoodPoint:
        """See `LogitKernel`."""
        trials = 1.0 if self.trials is None else self.trials[student]
        mean = trials * special.expit(z[student] + u)
        weights, score = point.weights.copy(), point.score.copy()
        weights[student] = score[student] = 0.0
        items = point.item_score - (self._outcomes[student] - mean)
        return LikelihoodPoint(math.nan, items, score, point.item_weight - point.weights[student], weights, weights.T)


class SparseLogitKernel:
    """Rows of one task, each a student's outcomes on one item under one set of covariates."""

    link = ""

    def __init__(
        self, successes: Floats, trials: Floats, student: Ints, item: Ints, design: sparse.csr_array, n_students: int
    ):
        self.successes, self.trials, self.student, self.item, self.maps = successes, trials, student, item, design
        """Shapes (R,), (R,), (R,), (R,) and M (R, c), whose first S columns mark the student."""
        self.n_students = n_students
        self.n_items = int(item.max(initial=-1)) + 1
        unit_weights = np.ones(len(item))
        self._to_items = sparse.csr_array((unit_weights, (item, np.arange(len(item)))), shape=(self.n_items, len(item)))

    def at(self, z: Floats, u: Floats) -> LikelihoodPoint:
        """See `LogitKernel`."""
        eta = self.maps @ z + u[self.item]
        tail = np.exp(-np.abs(eta))  # never above 1, so that nothing overflows on either side
        mean = np.where(eta >= 0, 1.0, tail) / (1.0 + tail)
        value = float(self.successes @ eta - self.trials @ (np.maximum(eta, 0.0) + np.log1p(tail)))
        residual = self.successes - self.trials * mean
        weights = self.trials * tail / (1.0 + tail) ** 2
        coupling = (self._to_items @ self.maps.multiply(weights[:, None]).tocsr()).toarray()
        return LikelihoodPoint(
            value,
            sum_by_group(self.item, residual, self.n_items),
            self.maps.T @ residual,
            sum_by_group(self.item, weights, self.n_items),
            weights,
            coupling,
        )

    def expected(self, point: LikelihoodPoint, z: Floats, u: Floats) -> LikelihoodPoint:
        """See `LogitKernel`."""
        return point

    def schur_complement(self, point: LikelihoodPoint, shrink: Floats) -> Floats:
        """See `LogitKernel`."""
        coordinate_information = (self.maps.T @ self.maps.multiply(point.weights[:, None]).tocsr()).toarray()
        scaled = point.coupling * np.sqrt(shrink)[:, None]
        return np.asarray(coordinate_information - scaled.T @ scaled)

    def skewness(
        self, point: LikelihoodPoint, z: Floats, u: Floats, covariance: Floats, shrink: Floats
    ) -> tuple[Floats, Floats, Floats]:
        """See `LogitKernel`."""
        eta = self.maps @ z + u[self.item]
        v = np.einsum("ic,ic->i", point.coupling @ covariance, point.coupling)
        variance = (shrink + shrink**2 * v)[self.item]
        # In slices: the dense rows of M would be as large as rows x coordinates.
        for start in range(0, len(eta), DENSE_ROWS_PER_SLICE):
            part = slice(start, start + DENSE_ROWS_PER_SLICE)
            rows, i = self.maps[part].toarray(), self.item[part]
            variance[part] += np.einsum("rc,rc->r", rows @ covariance, rows - 2.0 * shrink[i, None] * point.coupling[i])
        q = 0.5 * point.weights * np.tanh(eta / 2) * variance  # -1/2 W (1 - 2 mu) h, and 1 - 2 mu = -tanh(eta / 2)
        return sum_by_group(self.item, q, self.n_items), self.maps.T @ q, v

    def without(self, point: LikelihoodPoint, z: Floats, u: Floats, student: int) -> LikelihoodPoint:
        """See `LogitKernel`."""
        kept_rows = (self.student != student).astype(float)
        kernel_without_student = SparseLogitKernel(
            self.successes * kept_rows, self.trials * kept_rows, self.student, self.item, self.maps, self.n_students
        )
        return kernel_without_student.at(z, u)


def sum_by_group(group_codes: Ints, values: Floats, n: int) -> Floats:
    """Sums of values by code, shape (n,)."""
    return np.bincount(group_codes, values, n).astype(float, copy=False)


def _sum_of_logs(values: Floats) -> float:
    """The sum of logarithms of numbers >= 1, shape (S, I): of products of as many students as a float can hold."""
    max_value = float(values.max(initial=1.0))
    students_per_product = max(1, int(600 / np.log(max(max_value, 2.0))))
    starts = np.arange(0, len(values), students_per_product)
    return float(np.log(np.multiply.reduceat(values, starts, axis=0)).sum()) if len(values) else 0.0
