"""Grids of students and items with planted patterns, and the classifier that knows the truth."""

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import expit, logsumexp

NAMES = ("log_examples", "adaptation", "log_params")
SURFACES = np.array([[0.5, 0.25, 0.0, 0.3], [0.2, 0.8, 0.0, 0.2], [0.4, 0.25, -2.4, 0.3], [0.0, 0.05, 0.0, 1.4]])
SHARES = (0.45, 0.2, 0.2, 0.15)


def grid_of_students(n_sizes: int, n_params: int) -> np.ndarray:
    """Log examples (about 1e3 to 1e5), full or LoRA, log parameters; centred; shape (2 n_sizes n_params, 3)."""
    examples = np.linspace(0, np.log(64 if n_sizes == 4 else 100), n_sizes)
    params = np.log(np.geomspace(0.5 if n_params > 3 else 1, 7, n_params))
    rows = [(d, m, p) for d in examples for m in (0.0, 1.0) for p in params]
    x = np.array(rows)
    return x - x.mean(axis=0)


@dataclass(frozen=True)
class PatternWorld:
    """What is planted."""

    name: str
    n_sizes: int = 4
    n_params: int = 3
    n_items: int = 600
    shares: tuple[float, ...] = SHARES
    item_sd: float = 1.0
    student_sd: float = 0.2
    student_task_sd: float = 0.0
    """Student x task deviations, 12 tasks: no pattern, since they do not return in other students."""
    two_humps: bool = False
    """Items are either easy or hard: no pattern either."""
    missing: float = 0.0
    chance: float = 0.0
    """Every item can be guessed."""
    told: bool = True
    """Whether the model is told the chance; else hard items have flatter surfaces than it thinks."""

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Scores (S, I), covariates (S, 3), and each item's pattern (I,)."""
        x = grid_of_students(self.n_sizes, self.n_params)
        n = self.n_items
        pattern = rng.choice(len(self.shares), n, p=self.shares)
        ease = rng.normal(0, self.item_sd, n)
        if self.two_humps:
            ease = rng.choice([-2.0, 2.0], n) + rng.normal(0, 0.4, n)
        eta = np.column_stack([np.ones(len(x)), x]) @ SURFACES[pattern].T + ease
        eta += rng.normal(0, self.student_sd, (len(x), 1))
        eta += rng.normal(0, self.student_task_sd, (len(x), 12))[:, np.arange(n) % 12]
        p = self.chance + (1 - self.chance) * expit(eta)
        y = (rng.random(p.shape) < p).astype(float)
        y[rng.random(y.shape) < self.missing] = np.nan
        return y, x, pattern

    def oracle(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """The most probable pattern of each item, given the true surfaces, shares and spread of difficulty."""
        node, weight = np.polynomial.hermite_e.hermegauss(41)
        eta = (np.column_stack([np.ones(len(x)), x]) @ SURFACES.T)[:, :, None] + self.item_sd * node
        seen = np.isfinite(y)
        p = self.chance + (1 - self.chance) * expit(eta)
        joint = np.einsum("si,skq->ikq", np.where(seen, y, 0), np.log(p) - np.log1p(-p))
        joint += np.einsum("si,skq->ikq", seen.astype(float), np.log1p(-p))
        joint += np.log(weight / weight.sum()) + np.log(np.asarray(self.shares))[:, None]
        return np.asarray(logsumexp(joint, axis=2).argmax(axis=1))


SMALL = PatternWorld("24 students x 600 items")
MIDDLE = PatternWorld("60 students x 2,000 items", n_sizes=5, n_params=6, n_items=2000)


def single(world: PatternWorld, name: str, **changes: float) -> PatternWorld:
    """The same world with one pattern."""
    return replace(world, name=name, shares=(1.0,), **changes)
