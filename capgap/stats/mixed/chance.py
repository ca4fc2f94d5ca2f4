"""The likelihood of a grid under a link with chance: ``p = c + (1 - c) expit eta``, c what guessing gives on an item.

A right answer that guessing explains says little, so the log-likelihood is not concave in the logit: W, minus its
second derivative, is negative where a right answer was all but a guess. Steps that W allows no use `expected`, W's
expectation, which is positive; the determinant and its slopes are of W itself, hence the gradient stays exact.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from capgap.schema.remarks import Reason, Remark, remark
from capgap.stats.mixed.kernels import MAX_LOGIT, GridLogitKernel, LikelihoodPoint
from capgap.stats.mixed.outcomes import FitOutcomes
from capgap.stats.multiplicity import holm

Floats = NDArray[np.float64]


class ChanceLinkKernel(GridLogitKernel):
    """Students x items of one task with the chance of each item, shape (I,)."""

    link = ", link with chance"

    def __init__(self, successes: Floats, trials: Floats | None, chance: Floats):
        super().__init__(successes, trials)
        self.chance = chance
        self._right = np.asarray(successes, dtype=float)
        self._wrong = (1.0 if trials is None else np.asarray(trials, dtype=float)) - self._right

    def at(self, z: Floats, u: Floats) -> LikelihoodPoint:
        """See `TaskKernel`."""
        mean, one_minus_mu, odds_of_right = self._compute_probabilities(z, u)
        p_right = self.chance + (1 - self.chance) * mean
        value = float(np.vdot(self._right, np.log(p_right)) + np.vdot(self._wrong, np.log(one_minus_mu)))
        value += float(self._wrong.sum(axis=0) @ np.log1p(-self.chance))
        score = self._right * odds_of_right - self._wrong * mean
        weights = self._right * odds_of_right * (odds_of_right + 2 * mean - 1) + self._wrong * mean * one_minus_mu
        return LikelihoodPoint(value, score.sum(axis=0), score.sum(axis=1), weights.sum(axis=0), weights, weights.T)

    def expected(self, point: LikelihoodPoint, z: Floats, u: Floats) -> LikelihoodPoint:
        """See `TaskKernel`."""
        mean, _, odds_of_right = self._compute_probabilities(z, u)
        weights = (self._right + self._wrong) * mean * odds_of_right
        return replace(point, item_weight=weights.sum(axis=0), weights=weights, coupling=weights.T)

    def skewness(
        self, point: LikelihoodPoint, z: Floats, u: Floats, covariance: Floats, shrink: Floats
    ) -> tuple[Floats, Floats, Floats]:
        """See `TaskKernel`."""
        weighted_covariance = covariance @ point.weights
        v = np.einsum("si,si->i", point.weights, weighted_covariance)
        variance = np.diag(covariance)[:, None] - 2.0 * shrink * weighted_covariance + shrink + shrink**2 * v
        mean, one_minus_mu, r = self._compute_probabilities(z, u)
        spread, slope = mean * one_minus_mu, r * (1 - 2 * mean - r)
        # Slope of W in the logit: of right answers by r and its slope, of wrong ones as in the plain logit.
        weight_slope = self._right * (slope * (r + 2 * mean - 1) + r * (slope + 2 * spread))
        weight_slope += self._wrong * spread * (one_minus_mu - mean)
        q = -0.5 * weight_slope * variance
        return q.sum(axis=0), q.sum(axis=1), v

    def without(self, point: LikelihoodPoint, z: Floats, u: Floats, student: int) -> LikelihoodPoint:
        """See `TaskKernel`."""
        mean, _, r = self._compute_probabilities(z[[student]], u)
        student_score = self._right[student] * r[0] - self._wrong[student] * mean[0]
        weights, score = point.weights.copy(), point.score.copy()
        weights[student] = score[student] = 0.0
        items = point.item_score - student_score
        return LikelihoodPoint(np.nan, items, score, point.item_weight - point.weights[student], weights, weights.T)

    def _compute_probabilities(self, z: Floats, u: Floats) -> tuple[Floats, Floats, Floats]:
        """Of every outcome: mu = expit(eta), 1 - mu, and r = p' / p, the slope of a right answer's log-probability."""
        eta = np.clip(z, -MAX_LOGIT, MAX_LOGIT)[:, None] + np.clip(u, -MAX_LOGIT, MAX_LOGIT)
        mean, one_minus_mu = special.expit(eta), special.expit(-eta)
        return mean, one_minus_mu, (1 - self.chance) * one_minus_mu * (mean / (self.chance + (1 - self.chance) * mean))


def cell_chances(outcomes: FitOutcomes) -> Floats:
    """The mean chance of the outcomes of each design row, shape (D,); zero where chances are unknown."""
    if outcomes.chance is None or outcomes.grid is None:
        return np.zeros(len(outcomes.weight))
    means = []
    for (y, n), c in zip(outcomes.grid, outcomes.chance, strict=True):
        trials = np.ones(y.shape) if n is None else np.asarray(n, dtype=float)
        means.append(trials @ c / np.maximum(trials.sum(axis=1), 1.0))
    return np.concatenate(means)


def chance_refusal(outcomes: FitOutcomes) -> Remark | None:
    """Why a link with chance cannot be fitted; None where it can.

    Notes
    -----
    No logit gives less than guessing does, so the link is wrong where a student lies significantly below it (binomial,
    Holm over student and task, 5 %). Unequal chances scatter less than equal ones of the same mean, so the test errs
    towards fitting (Hoeffding 1956, Ann. Math. Statist. 27, 713-721).
    """
    if outcomes.grid is None:
        return remark(Reason.CHANCE_NEEDS_GRID)
    if outcomes.chance is None:
        return remark(Reason.CHANCE_UNKNOWN)
    chance = cell_chances(outcomes)
    # P(as few right answers or fewer, by guessing alone) in each student x task cell.
    p_values = holm(stats.binom.cdf(outcomes.successes, outcomes.weight, chance))
    worst_cell = int(np.argmin(p_values))
    if p_values[worst_cell] >= 0.05:
        return None
    return remark(
        Reason.BELOW_CHANCE,
        student=outcomes.student_names[outcomes.student[worst_cell]],
        share=100 * float(outcomes.successes[worst_cell] / outcomes.weight[worst_cell]),
        task=outcomes.task_names[outcomes.task[worst_cell]],
        chance=100 * float(chance[worst_cell]),
    )
