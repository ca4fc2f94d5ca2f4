"""Layout of the unknowns of the Laplace likelihood, and the objective with its gradient at one point."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["ObjectiveEvaluation", "UnknownsLayout"]

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
    def n_fixed(self) -> int:
        """Fixed effects."""
        return int((self.core < 0).sum())


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
