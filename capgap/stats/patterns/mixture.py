"""Mixture of logistic response surfaces by EM: items that students answer alike, whatever their difficulty."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2
from scipy.special import expit

__all__ = ["AnswerGrid", "ItemMixture", "fit_mixture", "predicted_scores"]

Floats = NDArray[np.float64]

MAX_ABS_EASE = 6.0
"""Difficulties lie within so many logits of the mean; beyond, an answer is as good as certain."""
EASE_PRIOR_WEIGHT = 5.0
"""The distribution of ease starts as if so many items had been seen, normal with a wide spread (`PRIOR_SD`)."""
PRIOR_SD = 2.0
"""Of those, in logits."""
SLOPE_RIDGE = 0.5
"""Penalty on squared surface coefficients; a pattern of some dozen items has hundreds of answers against it."""
PROBE_ITERATIONS = 12
"""EM steps after which only the best start goes on."""
MAX_STEP = 1.0
"""Longest Newton step, in logits."""


@dataclass(frozen=True)
class AnswerGrid:
    """The outcome grid and the students' design."""

    successes: Floats
    """Scores in [0, 1], 0 where there is none, shape (S, n)."""
    seen: Floats
    """1 where there is a score, else 0, shape (S, n)."""
    design: Floats
    """Constant and standardised covariates of the students, shape (S, p)."""
    chance: Floats
    """Probability that who does not know an item gets it right, shape (n,); 0 where nothing can be guessed."""

    def students(self, student_idx: NDArray[np.intp]) -> "AnswerGrid":
        """Some of the students."""
        return AnswerGrid(self.successes[student_idx], self.seen[student_idx], self.design[student_idx], self.chance)

    def items(self, item_idx: NDArray[np.intp]) -> "AnswerGrid":
        """Some of the items."""
        return AnswerGrid(self.successes[:, item_idx], self.seen[:, item_idx], self.design, self.chance[item_idx])

    @property
    def is_complete(self) -> bool:
        """Whether every student answered every item."""
        return bool(self.seen.all())


@dataclass(frozen=True)
class ItemMixture:
    """K response surfaces with one distribution of difficulty, fitted by EM."""

    surface_logits: Floats
    """Logit coefficients of each pattern: constant, then one per standardised covariate, shape (K, p)."""
    shares: Floats
    """Share of the items in each pattern, shape (K,), descending."""
    offsets: Floats
    """What each student has beyond its covariates, shape (S,)."""
    offset_sd: float
    """Standard deviation of the offsets."""
    nodes: Floats
    """Ease of an item in logits (the negative of its difficulty), shape (Q,); the weighted mean is zero."""
    weights: Floats
    """Share of the items at each node, shape (Q,); the same in all patterns."""
    posterior: Floats
    """Probability of (pattern, ease) given an item's answers, shape (n, K, Q)."""
    log_likelihood: float
    """Observed-data log-likelihood, penalties not counted."""
    converged: bool
    """Whether EM came to rest."""

    @property
    def memberships(self) -> Floats:
        """Probability that an item belongs to each pattern, shape (n, K)."""
        return np.asarray(self.posterior.sum(axis=2))


@dataclass
class _EmState:
    """What EM moves."""

    surface_logits: Floats
    offsets: Floats
    offset_sd: float
    shares: Floats
    weights: Floats
    """Share of the items at each node of ease."""


def fit_mixture(
    answers: AnswerGrid,
    n_patterns: int,
    rng: np.random.Generator,
    *,
    n_starts: int = 4,
    max_iterations: int = 300,
    tolerance: float = 5e-5,
) -> ItemMixture:
    """The mixture of `n_patterns` surfaces, best of several starts.

    Parameters
    ----------
    answers
        S students x n items.
    n_patterns
        K.
    rng
        Draws the starts.
    n_starts
        Partitions to start from: k-means on each item's ridge slopes, and one at random.
    max_iterations
        EM steps at most.
    tolerance
        EM rests when the log-likelihood rises by less, in nats per item.

    Notes
    -----
    ``P(y_si = 1) = c_i + (1 - c_i) P(z_si = 1)``, ``logit P(z_si = 1) = x_s' g_k + o_s + a_i``: c_i is its chance
    (known, so that hard items that are guessed make no pattern of their own), z_si whether the student knows it, k the
    item's pattern, ``o_s ~ N(0, tau²)``, the item's ease a_i on a grid finer than S answers can tell apart, with free
    weights that all patterns share (Kiefer & Wolfowitz 1956). Since that distribution is free, items that differ in
    difficulty alone gain nothing from a second pattern. The z are missing data of EM.

    References
    ----------
    Dempster, A. P., Laird, N. M. & Rubin, D. B. (1977). Maximum likelihood from incomplete data via the EM algorithm.
    JRSS B 39, 1-38; Kiefer, J. & Wolfowitz, J. (1956). Consistency of the maximum likelihood estimator in the presence
    of infinitely many incidental parameters. Ann. Math. Statist. 27, 887-906.
    """
    grid = _EaseGrid.of(answers)
    starts = 1 if n_patterns == 1 else n_starts
    best_start: tuple[float, _EmState] | None = None
    slopes = _item_slopes(answers)
    for start in range(starts):
        label = _draw_start_labels(slopes, n_patterns, rng, draw_randomly=start == starts - 1)
        state = grid.start(label, n_patterns)
        value, _ = grid.run(state, PROBE_ITERATIONS if starts > 1 else 0, tolerance)
        if best_start is None or value > best_start[0]:
            best_start = value, state
    assert best_start is not None
    state = best_start[1]
    value, converged = grid.run(state, max_iterations, tolerance)
    posterior, value = grid.expectation_step(state)
    order = np.argsort(-state.shares, kind="stable")
    mean_ease = float(state.weights @ grid.nodes)  # the constant and the mean of the grid say the same: one is zero
    return ItemMixture(
        surface_logits=state.surface_logits[order] + mean_ease * np.eye(1, answers.design.shape[1]),
        shares=state.shares[order],
        offsets=state.offsets,
        offset_sd=state.offset_sd,
        nodes=grid.nodes - mean_ease,
        weights=state.weights,
        posterior=posterior.reshape(len(posterior), n_patterns, -1)[:, order],
        log_likelihood=value,
        converged=converged,
    )


def predicted_scores(mixture: ItemMixture, held_out: AnswerGrid) -> Floats:
    """How probable the answers of students that the mixture has not seen are, given what it learnt of the items.

    Parameters
    ----------
    mixture
        Fitted to other students' answers to the same items.
    held_out
        S students x the same n items.

    Returns
    -------
    ndarray
        Log-probability of each answer, shape (S, n), 0 where there is none.

    Notes
    -----
    The level of each new student is set so that its expected number of right answers is the observed one (with a weak
    normal prior), whatever the number of patterns: only the profile over items is judged.
    """
    weights = mixture.posterior.reshape(held_out.successes.shape[1], -1)
    eta = held_out.design @ mixture.surface_logits.T
    eta = (eta[:, :, None] + mixture.nodes).reshape(len(eta), -1)
    counts = (held_out.seen * (1 - held_out.chance)) @ weights
    total = held_out.successes.sum(axis=1) - held_out.seen @ held_out.chance
    offset = np.zeros(len(eta))
    for _ in range(25):  # Newton on each new student's level
        p = expit(eta + offset[:, None])
        score = total - (counts * p).sum(axis=1) - offset
        offset += np.clip(score / ((counts * p * (1 - p)).sum(axis=1) + 1), -MAX_STEP, MAX_STEP)
    p = held_out.chance + (1 - held_out.chance) * (expit(eta + offset[:, None]) @ weights.T)
    p = np.clip(p, 1e-12, 1 - 1e-12)
    return np.asarray(held_out.successes * np.log(p) + (held_out.seen - held_out.successes) * np.log1p(-p))


@dataclass(frozen=True)
class _EaseGrid:
    """The answers with the grid of ease, and the steps of EM on them."""

    answers: AnswerGrid
    nodes: Floats
    prior: Floats
    """Items at each node before any was seen, shape (Q,)."""
    is_complete: bool
    kinds: tuple[tuple[float, NDArray[np.intp] | slice], ...]
    """Each chance that occurs, with its items."""

    @classmethod
    def of(cls, answers: AnswerGrid) -> "_EaseGrid":
        # An item's ease is known to about 2/sqrt(S) logits; the sum over a grid is as good as the integral from there.
        step = min(0.8, 3.0 / math.sqrt(len(answers.design)))
        nodes = np.linspace(-MAX_ABS_EASE, MAX_ABS_EASE, 2 * math.ceil(MAX_ABS_EASE / step) + 1)
        normal_density = np.exp(-0.5 * (nodes / PRIOR_SD) ** 2)
        chances = np.unique(answers.chance)
        items_by_chance = tuple((float(c), np.flatnonzero(answers.chance == c)) for c in chances)
        all_items = ((float(chances[0]), slice(None)),)  # views of the answers, no copies
        prior = EASE_PRIOR_WEIGHT * normal_density / normal_density.sum()
        return cls(answers, nodes, prior, answers.is_complete, all_items if len(chances) == 1 else items_by_chance)

    def start(self, label: NDArray[np.intp], n_patterns: int) -> _EmState:
        """The state after one step from a partition, every item's ease taken from its share of right answers."""
        a = self.answers
        n_items = a.successes.shape[1]
        soft_labels = np.full((n_items, n_patterns), 0.1 / n_patterns)
        soft_labels[np.arange(n_items), label] += 0.9
        share = (a.successes.sum(axis=0) + 0.5) / (a.seen.sum(axis=0) + 1)
        item_ease = np.log(share / (1 - share))
        item_ease -= item_ease.mean()
        item_node_weights = np.exp(-0.5 * ((item_ease[:, None] - self.nodes) / 0.6) ** 2)
        item_node_weights /= item_node_weights.sum(axis=1, keepdims=True)
        shape = n_patterns, a.design.shape[1]
        state = _EmState(
            surface_logits=np.zeros(shape),
            offsets=np.zeros(len(a.design)),
            offset_sd=0.2,
            shares=np.full(n_patterns, 1 / n_patterns),
            weights=self.prior / self.prior.sum(),
        )
        responsibilities = (soft_labels[:, :, None] * item_node_weights[:, None, :]).reshape(n_items, -1)
        for _ in range(3):
            self.maximise(state, responsibilities)
        return state

    def run(self, state: _EmState, n_iterations: int, tolerance: float) -> tuple[float, bool]:
        """EM steps until rest; the state is moved in place."""
        previous_value = -math.inf
        for _ in range(n_iterations):
            responsibilities, value = self.expectation_step(state)
            if value - previous_value < tolerance * len(responsibilities) and previous_value > -math.inf:
                return value, True
            self.maximise(state, responsibilities)
            previous_value = value
        return previous_value, False

    def _student_logits(self, state: _EmState) -> Floats:
        """Logits of student x (pattern, ease), shape (S, K Q)."""
        level = self.answers.design @ state.surface_logits.T + state.offsets[:, None]
        return np.asarray((level[:, :, None] + self.nodes).reshape(len(level), -1))

    def expectation_step(self, state: _EmState) -> tuple[Floats, float]:
        """Probabilities of (pattern, ease) of each item, shape (n, K Q), and the log-likelihood."""
        a = self.answers
        eta = self._student_logits(state)
        posterior = np.empty((a.successes.shape[1], eta.shape[1]))
        for chance, items in self.kinds:
            # Per answer: log P(wrong) for all, plus the log odds of right against wrong for those that are right.
            log_p_wrong = math.log1p(-chance) - np.logaddexp(0, eta)
            log_odds = eta if chance == 0 else np.log(chance + (1 - chance) * expit(eta)) - log_p_wrong
            missed = log_p_wrong.sum(axis=0) if self.is_complete else a.seen[:, items].T @ log_p_wrong
            posterior[items] = a.successes[:, items].T @ log_odds + missed
        with np.errstate(divide="ignore"):  # a pattern may have died out
            prior = np.log(state.shares)[:, None] + np.log(state.weights)
        posterior += prior.ravel()
        top = posterior.max(axis=1, keepdims=True)
        np.exp(posterior - top, out=posterior)
        total = posterior.sum(axis=1, keepdims=True)
        posterior /= total
        return posterior, float((np.log(total) + top).sum())

    def maximise(self, state: _EmState, responsibilities: Floats) -> None:
        """One Newton step for surfaces and offsets; the rest in closed form."""
        a, q = self.answers, len(self.nodes)
        weight = responsibilities.sum(axis=0)
        n = np.broadcast_to(weight, (len(a.design), len(weight))) if self.is_complete else a.seen @ responsibilities
        p = expit(self._student_logits(state))
        y = np.zeros_like(p)
        for chance, items in self.kinds:  # of what is right, the part that is known and not guessed
            p_known = 1.0 if chance == 0 else p / (chance + (1 - chance) * p)
            y += p_known * (a.successes[:, items] @ responsibilities[items])
        # Sums over ease: all that a surface needs.
        residual = (y - n * p).reshape(len(p), -1, q).sum(axis=2)
        curvature = (n * p * (1 - p)).reshape(len(p), -1, q).sum(axis=2)
        ridge = SLOPE_RIDGE * np.eye(a.design.shape[1])
        for k, pattern_logits in enumerate(state.surface_logits):
            hessian = a.design.T @ (curvature[:, k, None] * a.design) + ridge
            step = np.linalg.solve(hessian, a.design.T @ residual[:, k] - ridge @ pattern_logits)
            pattern_logits += np.clip(step, -MAX_STEP, MAX_STEP)
        # Offsets: one Newton step each under their normal prior, whose variance is then set by its EM update.
        precision = state.offset_sd**-2
        offset_hessian = curvature.sum(axis=1) + precision
        offset_score = (y - n * expit(self._student_logits(state))).sum(axis=1)
        state.offsets += np.clip((offset_score - precision * state.offsets) / offset_hessian, -MAX_STEP, MAX_STEP)
        state.offset_sd = max(0.02, float(np.sqrt(np.mean(state.offsets**2 + 1 / offset_hessian))))
        state.shares = weight.reshape(-1, q).sum(axis=1) / weight.sum()
        counts = weight.reshape(-1, q).sum(axis=0) + self.prior
        state.weights = counts / counts.sum()


def _item_slopes(answers: AnswerGrid) -> Floats:
    """A rough slope of each item on each covariate, each scaled to the same spread, shape (n, p - 1)."""
    x = answers.design
    centre = np.where(answers.seen > 0, 2 * answers.successes - 1, 0.0)
    slopes = np.linalg.solve(x.T @ x + 0.1 * np.eye(x.shape[1]), x.T @ centre).T[:, 1:]
    spread = slopes.std(axis=0)
    return np.asarray(slopes / np.where(spread > 0, spread, 1.0))


def _draw_start_labels(slopes: Floats, k: int, rng: np.random.Generator, *, draw_randomly: bool) -> NDArray[np.intp]:
    if k == 1:
        return np.zeros(len(slopes), dtype=np.intp)
    if draw_randomly:
        return rng.integers(0, k, len(slopes)).astype(np.intp)
    return np.asarray(kmeans2(slopes, k, minit="++", rng=rng, missing="warn")[1], dtype=np.intp)
