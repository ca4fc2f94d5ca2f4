"""The restricted Laplace likelihood of the crossed logit with its exact gradient.

Every random effect is written as sigma times a standard normal one, so that matrices stay bounded as a sigma goes to
zero. Unknowns are eliminated in the order items (diagonal), student x task (S x S within a task), task effects (q x q
within a task); what is left, the core of fixed effects, students and bases, is small and dense.

With the mode (beta, b) of the penalised log-likelihood f and H minus its Hessian there, the objective is
``f - 1/2 log det H``, beta integrated under a flat prior (REML). Its derivative in log sigma_g is
``|b_g|² + 2 b_g' D_g + tr(H⁻¹)_gg - n_g``, where ``D = H⁻¹ A'q`` with ``q = -1/2 W' h``, h the variance of each logit,
is the first-order distance of the posterior mean from the mode. The reported fixed effects are ``beta + D_beta``.

References
----------
Breslow, N. E. & Clayton, D. G. (1993). Approximate inference in generalized linear mixed models. JASA 88, 9-25.
Tierney, L. & Kadane, J. B. (1986). Accurate approximations for posterior moments and marginal densities. JASA 81, 82-86.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve, solve_triangular

from capgap.stats.mixed.kernels import Kernel, Point

__all__ = ["Block", "Evaluation", "Laplace", "Layout"]

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

DECREMENT = 1e-9
"""Newton stops where a step can raise the log-likelihood by half of this only."""
MOST_STEPS = 50


@dataclass(frozen=True)
class Layout:
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


class Block(NamedTuple):
    """A task: its outcomes, and how its coordinates hang on the core and on the task's own effects."""

    kernel: Kernel
    core: Floats
    """Shape (c, r)."""
    slopes: Floats
    """Shape (c, q)."""


@dataclass(frozen=True)
class Evaluation:
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


class _Mode(NamedTuple):
    """The unknowns on the scale of unit variances."""

    core: Floats
    task: Floats
    cell: Floats
    item: list[Floats]


class _Local(NamedTuple):
    """What eliminating one block left behind, for solving again."""

    point: Point
    d: Floats
    shrink: Floats
    q: Floats
    """Q: after the items, (c, c)."""
    cell_factor: tuple[Floats, bool] | None
    q_cell: Floats
    """After student x task."""
    task_factor: tuple[Floats, bool] | None
    pull: Floats
    """N'Q (q, c)."""
    core: Floats
    """F: core map times sigma (c, r)."""
    slopes: Floats
    """N: slopes times sigma (c, q)."""


class _System(NamedTuple):
    locals: list[_Local]
    factor: tuple[Floats, bool]
    log_det: float


class _Residual(NamedTuple):
    """A right-hand side of the whole system."""

    core: Floats
    task: Floats
    cell: Floats
    item: list[Floats]
    coordinates: list[Floats]
    """On each block's coordinates; what core, task and cell get through their maps."""


class Laplace:
    """The objective over blocks that share a layout; remembers the last mode as the next start."""

    def __init__(self, blocks: list[Block], layout: Layout):
        self.blocks, self.layout = blocks, layout
        students = blocks[0].kernel.n_students
        shape = len(blocks), len(layout.task)
        items = [np.zeros(b.kernel.n_items) for b in blocks]
        self._mode = _Mode(np.zeros(len(layout.core)), np.zeros(shape), np.zeros((len(blocks), students)), items)
        self._sigma = np.ones(len(layout.sizes))
        self.n_passes = 0

    # The mode -------------------------------------------------------------------------------------------------------

    def _scales(self, sigma: Floats) -> tuple[Floats, Floats, float, float]:
        """Sigma of each core unknown (1 for fixed), task effect, cell and item (0 where there is none)."""
        layout = self.layout
        core = np.where(layout.core < 0, 1.0, np.append(sigma, 1.0)[layout.core])
        cell = 0.0 if layout.cell is None else float(sigma[layout.cell])
        item = 0.0 if layout.item is None else float(sigma[layout.item])
        return core, sigma[layout.task], cell, item

    def _rescale(self, sigma: Floats) -> None:
        """Keep the effects themselves where they are while sigma moves."""
        old, new = self._scales(self._sigma), self._scales(sigma)
        ratios = [np.divide(a, b, out=np.zeros_like(np.asarray(a)), where=np.asarray(b) > 0) for a, b in zip(old, new)]
        mode = self._mode
        item = [u * ratios[3] for u in mode.item]
        self._mode = _Mode(mode.core * ratios[0], mode.task * ratios[1], mode.cell * ratios[2], item)
        self._sigma = sigma

    def _coordinates(self, mode: _Mode) -> list[Floats]:
        """z of every block."""
        core, task, cell, _ = self._scales(self._sigma)
        found = []
        for k, block in enumerate(self.blocks):
            z = block.core @ (core * mode.core) + block.slopes @ (task * mode.task[k])
            z[: block.kernel.n_students] += cell * mode.cell[k]
            found.append(z)
        return found

    def _at(self, mode: _Mode) -> tuple[float, list[Point]]:
        """The penalised log-likelihood and every block's point."""
        self.n_passes += 1
        item = self._scales(self._sigma)[3]
        zs = self._coordinates(mode)
        points = [b.kernel.at(z, item * u) for b, z, u in zip(self.blocks, zs, mode.item, strict=True)]
        random = mode.core[self.layout.n_fixed :]
        penalty = random @ random + (mode.task**2).sum() + (mode.cell**2).sum() + sum(float(u @ u) for u in mode.item)
        return sum(p.log_likelihood for p in points) - 0.5 * float(penalty), points

    def _eliminated(self, points: list[Point]) -> _System:
        """Factorise minus the Hessian, block by block, then the core."""
        core, task, cell, item = self._scales(self._sigma)
        p, log_det, found = self.layout.n_fixed, 0.0, []
        left = np.diag(np.r_[np.zeros(p), np.ones(len(core) - p)])
        for block, point in zip(self.blocks, points, strict=True):
            s = block.kernel.n_students
            d = 1.0 + item**2 * point.item_weight
            shrink = item**2 / d
            q = block.kernel.condensed(point, shrink)
            log_det += float(np.log(d).sum())
            cell_factor, q_cell = None, q
            if cell:
                cell_factor = cho_factor(cell**2 * q[:s, :s] + np.eye(s), lower=True, check_finite=False)
                log_det += 2 * float(np.log(np.diag(cell_factor[0])).sum())
                half = solve_triangular(cell_factor[0], cell * q[:s], lower=True, check_finite=False)
                q_cell = q - half.T @ half
            f, n = block.core * core, block.slopes * task
            pull, task_factor, q_task = n.T @ q_cell, None, q_cell
            if len(task):
                task_factor = cho_factor(pull @ n + np.eye(len(task)), lower=True, check_finite=False)
                log_det += 2 * float(np.log(np.diag(task_factor[0])).sum())
                half = solve_triangular(task_factor[0], pull, lower=True, check_finite=False)
                q_task = q_cell - half.T @ half
            left += f.T @ (q_task @ f)
            found.append(_Local(point, d, shrink, q, cell_factor, q_cell, task_factor, pull, f, n))
        factor = cho_factor(left, lower=True, check_finite=False)
        return _System(found, factor, log_det + 2 * float(np.log(np.diag(factor[0])).sum()))

    def _solved(self, system: _System, residual: _Residual) -> tuple[_Mode, float]:
        """H⁻¹ times a residual, and the residual times that."""
        cell, item = self._scales(self._sigma)[2:]
        core_side, power = residual.core.copy(), 0.0
        sides: list[tuple[Floats, Floats]] = []
        for k, local in enumerate(system.locals):
            s = residual.cell.shape[1]
            items = residual.item[k]
            power += float(items @ (items / local.d))
            rest = residual.coordinates[k] - local.point.coupling.T @ (item * items / local.d)
            cells = residual.cell[k]
            if local.cell_factor is not None:
                cells = cells + cell * rest[:s]
                solved = cho_solve(local.cell_factor, cells, check_finite=False)
                power += float(cells @ solved)
                rest = rest - cell * local.q[:, :s] @ solved
            tasks = residual.task[k]
            if local.task_factor is not None:
                tasks = tasks + local.slopes.T @ rest
                solved = cho_solve(local.task_factor, tasks, check_finite=False)
                power += float(tasks @ solved)
                rest = rest - local.pull.T @ solved
            core_side += local.core.T @ rest
            sides.append((cells, tasks))
        core = cho_solve(system.factor, core_side, check_finite=False)
        power += float(core_side @ core)
        task, cells_found, items_found = np.zeros_like(residual.task), np.zeros_like(residual.cell), []
        for k, (local, (cells, tasks)) in enumerate(zip(system.locals, sides, strict=True)):
            s, z = residual.cell.shape[1], local.core @ core
            if local.task_factor is not None:
                task[k] = cho_solve(local.task_factor, tasks - local.pull @ z, check_finite=False)
                z = z + local.slopes @ task[k]
            if local.cell_factor is not None:
                cells_found[k] = cho_solve(local.cell_factor, cells - cell * local.q[:s] @ z, check_finite=False)
                z[:s] += cell * cells_found[k]
            items_found.append((residual.item[k] - item * (local.point.coupling @ z)) / local.d)
        return _Mode(core, task, cells_found, items_found), power

    def _score(self, mode: _Mode, points: list[Point]) -> _Residual:
        """The gradient of the penalised log-likelihood."""
        item = self._scales(self._sigma)[3]
        core = -np.r_[np.zeros(self.layout.n_fixed), mode.core[self.layout.n_fixed :]]
        items = [item * point.item_score - u for point, u in zip(points, mode.item, strict=True)]
        return _Residual(core, -mode.task, -mode.cell, items, [point.score for point in points])

    def _climb(self) -> tuple[float, _System, bool]:
        """Newton's method with step-halving from the last mode."""
        mode = self._mode
        value, points = self._at(mode)
        for _ in range(MOST_STEPS):
            system = self._eliminated(points)
            step, power = self._solved(system, self._score(mode, points))
            if power < DECREMENT:
                self._mode = mode
                return value, system, True
            size = 1.0
            while True:
                trial = _moved(mode, step, size)
                found, reached = self._at(trial)
                # The function is concave: only rounding can make a short step look downhill.
                if found >= value - 1e-12 * abs(value) or size < 1e-6:
                    break
                size /= 2
            mode, value, points = trial, found, reached
        self._mode = mode
        return value, self._eliminated(points), False

    # The objective --------------------------------------------------------------------------------------------------

    def evaluate(self, theta: Floats) -> Evaluation:
        """The objective and its gradient at log sigmas `theta`, shape (G,)."""
        self._rescale(np.exp(theta))
        try:
            value, system, converged = self._climb()
            value -= 0.5 * system.log_det
            return self._differentiated(theta, value, system, converged)
        except LinAlgError:
            return self._failed(theta)

    def _failed(self, theta: Floats) -> Evaluation:
        p, g = self.layout.n_fixed, len(theta)
        nothing = np.full(p, np.nan)
        return Evaluation(
            theta, -1e300, np.zeros(g), nothing, nothing, np.full((p, p), np.nan), np.full(g, np.nan), False
        )

    def _differentiated(self, theta: Floats, value: float, system: _System, converged: bool) -> Evaluation:
        layout, mode = self.layout, self._mode
        cell, item = self._scales(self._sigma)[2:]
        inverse = cho_solve(system.factor, np.eye(len(layout.core)), check_finite=False)
        trace = np.bincount(layout.core + 1, np.diag(inverse), len(theta) + 1)[1:]
        zs, item_side, side = self._coordinates(mode), [], []
        for block, local, z, u in zip(self.blocks, system.locals, zs, mode.item, strict=True):
            covariance = local.core @ inverse @ local.core.T
            if local.task_factor is not None:
                own = cho_solve(local.task_factor, np.eye(len(layout.task)), check_finite=False)
                pulled = own @ local.pull
                np.add.at(trace, layout.task, np.diag(own + pulled @ covariance @ pulled.T))
                keep = np.eye(len(z)) - local.slopes @ pulled
                covariance = keep @ covariance @ keep.T + local.slopes @ own @ local.slopes.T
            if local.cell_factor is not None and layout.cell is not None:
                s = block.kernel.n_students
                own = cho_solve(local.cell_factor, np.eye(s), check_finite=False)
                pulled = cell * (own @ local.q[:s])
                spread = pulled @ covariance
                trace[layout.cell] += np.trace(own) + np.vdot(spread, pulled)
                # (I - cell J pulled) covariance (...)' + cell² J own J', J embedding students among the coordinates
                covariance = covariance.copy()
                covariance[:s] -= cell * spread
                covariance[:, :s] -= cell * covariance @ pulled.T
                covariance[:s, :s] += cell**2 * own
            q_item, q, v = block.kernel.skewness(local.point, z, item * u, covariance, local.shrink)
            if layout.item is not None:
                trace[layout.item] += float(((1.0 + item**2 * v / local.d) / local.d).sum())
            item_side.append(item * q_item)
            side.append(q)
        nothing = np.zeros(len(layout.core)), np.zeros_like(mode.task), np.zeros_like(mode.cell)
        shift, _ = self._solved(system, _Residual(*nothing, item_side, side))
        square = self._by_variance(mode, mode) + 2 * self._by_variance(mode, shift)
        p = layout.n_fixed
        return Evaluation(
            theta.copy(),
            value,
            square + trace - layout.sizes,
            mode.core[:p].copy(),
            shift.core[:p],
            inverse[:p, :p],
            trace,
            converged,
        )

    def _by_variance(self, a: _Mode, b: _Mode) -> Floats:
        """Inner products of the random effects, summed within each variance, shape (G,)."""
        layout, n = self.layout, len(self.layout.sizes)
        found = np.bincount(layout.core + 1, a.core * b.core, n + 1)[1:]
        np.add.at(found, layout.task, (a.task * b.task).sum(axis=0))
        if layout.cell is not None:
            found[layout.cell] += np.vdot(a.cell, b.cell)
        if layout.item is not None:
            found[layout.item] += sum(float(x @ y) for x, y in zip(a.item, b.item, strict=True))
        return found


def _moved(mode: _Mode, step: _Mode, size: float) -> _Mode:
    items = [u + size * v for u, v in zip(mode.item, step.item, strict=True)]
    return _Mode(mode.core + size * step.core, mode.task + size * step.task, mode.cell + size * step.cell, items)
