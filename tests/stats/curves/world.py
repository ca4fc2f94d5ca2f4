"""Simulated students of a known curve: right and wrong answers to items that they share."""

import math
from dataclasses import dataclass, field

import numpy as np
from scipy.special import expit

SIZES = (0.0, 250.0, 750.0, 2250.0, 6750.0, 20250.0, 60750.0)
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(41)
WEIGHTS = WEIGHTS / WEIGHTS.sum()


def power(c=0.78, f=0.35, scale=1500.0, exponent=0.8):
    return lambda d: c - (c - f) * (1 + d / scale) ** -exponent


def exponential(c=0.78, f=0.35, scale=5000.0):
    return lambda d: c - (c - f) * np.exp(-d / scale)


def logistic(c=0.78, f=0.35, scale=2500.0, exponent=1.1):
    return lambda d: c - (c - f) / (1 + (d / scale) ** exponent)


def level_of(accuracy, sd):
    """The logit whose mean probability over normal items is the accuracy, elementwise."""
    low, high = np.full_like(accuracy, -12.0), np.full_like(accuracy, 12.0)
    for _ in range(60):
        middle = (low + high) / 2
        above = expit(middle[:, None] + np.multiply.outer(sd, NODES)) @ WEIGHTS > accuracy
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    return (low + high) / 2


@dataclass(frozen=True)
class CurveWorld:
    """A curve, its students and its items."""

    curve: object = field(default_factory=power)
    teacher: float = 0.80
    sizes: tuple[float, ...] = SIZES
    n_seeds: int = 3
    seed_sd: float = 0.1
    """Between seeds, on the logit."""
    nested: float = 0.0
    """Share of the seeds' variance that nested subsets share by sqrt(D / E)."""
    item_sd: float = 1.2
    share: float = 0.9
    chance: float = 0.0

    def students(self):
        """Sizes and seeds of the students: one base, then every size once per seed."""
        positive = [d for d in self.sizes if d > 0]
        base = [d for d in self.sizes if d == 0]
        sizes = np.array(base + positive * self.n_seeds)
        seeds = ["base"] * len(base) + [f"s{k}" for k in range(self.n_seeds) for _ in positive]
        return sizes, seeds

    def truth(self):
        """Where the curve meets the target for good, by bisection; infinite for never within a billion examples."""
        target = self.chance + self.share * (self.teacher - self.chance)
        d = np.concatenate([[0.0], np.geomspace(1, 1e9, 20001)])
        above = self.curve(d) >= target
        if not above[-1]:
            return math.inf
        last = np.flatnonzero(~above)
        if not len(last):
            return 0.0
        low, high = d[last[-1]], d[last[-1] + 1]
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (low, middle) if self.curve(np.array([middle]))[0] >= target else (middle, high)
        return float(low)

    def effects(self, rng):
        """What each student's seed adds to its logit; zero for the base."""
        sizes, seeds = self.students()
        trained = np.flatnonzero(sizes > 0)
        small, large = np.minimum.outer(sizes, sizes), np.maximum.outer(sizes, sizes)
        same = np.equal.outer(seeds, seeds) & ~np.eye(len(sizes), dtype=bool)
        correlation = np.eye(len(sizes)) + same * self.nested * np.sqrt(small / np.maximum(large, 1))
        effect = np.zeros(len(sizes))
        root = np.linalg.cholesky(correlation[np.ix_(trained, trained)])
        effect[trained] = self.seed_sd * root @ rng.standard_normal(len(trained))
        return effect

    def draw(self, rng, n_items, effect=None):
        """Scores (students, items), the teacher's, sizes, seeds."""
        sizes, seeds = self.students()
        effect = self.effects(rng) if effect is None else effect
        sd = np.where(sizes > 0, np.hypot(self.item_sd, self.seed_sd), self.item_sd)
        level = level_of(self.curve(sizes), sd)
        item = rng.normal(0, self.item_sd, n_items)
        scores = (rng.random((len(sizes), n_items)) < expit((level + effect)[:, None] + item)).astype(float)
        own = level_of(np.array([self.teacher]), np.array([self.item_sd]))[0]
        teacher = (rng.random(n_items) < expit(own + item)).astype(float)
        return scores, teacher, sizes, seeds
