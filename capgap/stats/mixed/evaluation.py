"""Data types of the Laplace likelihood: its unknowns, the factorised Hessian, the objective at one point."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from capgap.stats.mixed.kernels import LikelihoodPoint

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]


@dataclass(frozen=True)
class UnknownsLayout:
    """Which unknown belongs to which variance; indices into the vector of sigmas."""

    sizes: Ints
    """Random effects of each variance, shape (G,)."""
    core: Ints
    """Of each core unknown, shape (r,); -1 for the fixed effects, which come first."""
    task: Ints
    """Of each effect of a task, shape (q,)."""
    cell: int | None
    """Of student x task."""
    item: int | None

    @property
    def n_fixed_effects(self) -> int:
        """Fixed effects."""
        return int((self.core < 0).sum())


class ConditionalMode(NamedTuple):
    """The unknowns on the scale of unit variances."""

    core: Floats
    """Shape (r,)."""
    task: Floats
    """Shape (K, q)."""
    cell: Floats
    """Shape (K, S)."""
    item: Floats
    """Shape (I,), block after block."""

    def take_step(self, step: "ConditionalMode", size: float) -> "ConditionalMode":
        """The unknowns after a step of the given size."""
        return ConditionalMode(*(a + size * b for a, b in zip(self, step, strict=True)))


class SigmaByUnknown(NamedTuple):
    """The sigma of each unknown; zero where a model has no such term."""

    core: Floats
    task: Floats
    cell: float
    item: float


class RightHandSide(NamedTuple):
    """A right-hand side: what falls on each unknown directly, and what it gets through the blocks' coordinates."""

    direct_terms: ConditionalMode
    coordinates: Floats
    """Shape (K, c)."""


class FactorisedHessian(NamedTuple):
    """Minus the Hessian, eliminated: all that solving needs again; K blocks of c coordinates."""

    points: list[LikelihoodPoint]
    d: Floats
    """Of items: 1 + sigma² U'W1, shape (I,)."""
    q: Floats
    """After the items, (K, c, c)."""
    cell: Floats
    """Inverse of the student x task part, (K, S, S)."""
    task: Floats
    """Inverse of the part of task effects, (K, q, q)."""
    task_coupling: Floats
    """Task slopes times what is left after student x task, (K, q, c)."""
    factor: tuple[Floats, bool]
    """Of the core."""
    log_det: float


@dataclass(frozen=True)
class ObjectiveEvaluation:
    """The objective at one vector of log sigmas, and what comes with it."""

    theta: Floats
    value: float
    gradient: Floats
    """Of the value in theta."""
    beta: Floats
    """The mode of the fixed effects."""
    shift: Floats
    """D_beta: the bias correction."""
    covariance: Floats
    """Of the fixed effects, shape (p, p)."""
    trace: Floats
    """tr(H⁻¹)_gg of each variance: n_g where the data say nothing, 0 where they say all."""
    converged: bool
