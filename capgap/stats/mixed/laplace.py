"""The Laplace likelihood of the crossed logit, restricted (REML) or full, with its exact gradient.

Every random effect is written as sigma times a standard normal one, so that matrices stay bounded as a sigma goes to
zero. Unknowns are eliminated in the order items (diagonal), student x task (S x S within a task), task effects (q x q
within a task); what is left, the core of fixed effects, students and bases, is small and dense.

With the mode (beta, b) of the penalised log-likelihood f and H minus its Hessian there, the objective is
``f - 1/2 log det H``, beta integrated under a flat prior (REML). Its derivative in log sigma_g is
``|b_g|² + 2 b_g' D_g + tr(H⁻¹)_gg - n_g``, where ``D = H⁻¹ A'q`` with ``q = -1/2 W' h``, h the variance of each logit,
is the first-order distance of the posterior mean from the mode. The reported fixed effects are ``beta + D_beta``.
The full likelihood takes the determinant over the random effects alone: with C the fixed effects' part of H⁻¹ it gains
``- 1/2 log det C``, and h and the trace are those that are left once the fixed effects are known.

References
----------
Breslow, N. E. & Clayton, D. G. (1993). Approximate inference in generalized linear mixed models. JASA 88, 9-25.
Tierney, L. & Kadane, J. B. (1986). Accurate approximations for posterior moments and marginal densities. JASA 81,
82-86.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from capgap.stats.mixed.evaluation import (
    ConditionalMode,
    FactorisedHessian,
    ObjectiveEvaluation,
    RightHandSide,
    SigmaByUnknown,
    UnknownsLayout,
)
from capgap.stats.mixed.kernels import LikelihoodPoint, LogitKernel, sum_by_group

__all__ = ["LaplaceLikelihood"]

Floats = NDArray[np.float64]

NEWTON_TOLERANCE = 1e-9
"""Newton stops where a step can raise the log-likelihood by half of this only."""
MAX_NEWTON_STEPS = 50


class LaplaceLikelihood:
    """The objective over blocks that share a layout; remembers the last mode as the next start.

    Parameters
    ----------
    kernels
        Outcomes of each block, with equally many coordinates c.
    core
        How coordinates hang on the core, shape (K, c, r).
    slopes
        How they hang on the task's own effects, shape (K, c, q).
    layout
        Which unknown belongs to which variance.
    restricted
        Whether the fixed effects are integrated out of what the variances are estimated by.
    """

    def __init__(
        self,
        kernels: Sequence[LogitKernel],
        core_maps: Floats,
        slopes: Floats,
        layout: UnknownsLayout,
        *,
        restricted: bool = True,
    ):
        self.kernels, self.core, self.slopes, self.layout = kernels, core_maps, slopes, layout
        self.restricted = restricted
        self._ends = np.cumsum([k.n_items for k in kernels])[:-1]
        self._students = kernels[0].n_students
        n_items = sum(k.n_items for k in kernels)
        shapes = (core_maps.shape[2],), (len(kernels), slopes.shape[2]), (len(kernels), self._students), (n_items,)
        self._mode = ConditionalMode(*map(np.zeros, shapes))
        self._sigma = np.ones(len(layout.sizes))
        self.n_passes = 0

    @property
    def method(self) -> str:
        """What it is called."""
        return ("REML Laplace" if self.restricted else "ML Laplace") + self.kernels[0].link

    def _expand_sigmas(self) -> SigmaByUnknown:
        layout, sigma = self.layout, self._sigma
        return SigmaByUnknown(
            np.where(layout.core < 0, 1.0, np.append(sigma, 1.0)[layout.core]),
            sigma[layout.task],
            0.0 if layout.cell is None else float(sigma[layout.cell]),
            0.0 if layout.item is None else float(sigma[layout.item]),
        )

    def _change_sigmas(self, sigma: Floats) -> None:
        """Keep the effects themselves where they are while sigma moves, so that the last mode is a good start."""
        old_sigmas, self._sigma = self._expand_sigmas(), sigma
        new_sigmas, mode = self._expand_sigmas(), self._mode
        self._mode = ConditionalMode(
            mode.core * (old_sigmas.core / new_sigmas.core),
            mode.task * (old_sigmas.task / new_sigmas.task),
            mode.cell * (old_sigmas.cell / new_sigmas.cell if new_sigmas.cell else 0.0),
            mode.item * (old_sigmas.item / new_sigmas.item if new_sigmas.item else 0.0),
        )

    def _coordinates(self, mode: ConditionalMode) -> Floats:
        """Of every block, shape (K, c)."""
        scale = self._expand_sigmas()
        z = self.core @ (scale.core * mode.core) + _block_matvec(self.slopes, scale.task * mode.task)
        z[:, : self._students] += scale.cell * mode.cell
        return z

    def _penalised_likelihood(self, mode: ConditionalMode) -> tuple[float, list[LikelihoodPoint]]:
        """The penalised log-likelihood and every block's point."""
        self.n_passes += 1
        items = np.split(self._expand_sigmas().item * mode.item, self._ends)
        points = [k.at(z, u) for k, z, u in zip(self.kernels, self._coordinates(mode), items, strict=True)]
        core_random_effects = mode.core[self.layout.n_fixed_effects :]
        sum_of_squares = sum(float(np.vdot(b, b)) for b in (core_random_effects, mode.task, mode.cell, mode.item))
        return sum(p.log_likelihood for p in points) - 0.5 * sum_of_squares, points

    def _factor_hessian(self, points: list[LikelihoodPoint]) -> FactorisedHessian:
        """Factorise minus the Hessian: items, student x task, task effects, core.

        Each step is a Schur complement: what is left of the coordinates' block (K, c, c) once these unknowns have been
        solved for. The order is from many unknowns that meet in one block only to few that meet in all.
        """
        scale, s, n_fixed = self._expand_sigmas(), self._students, self.layout.n_fixed_effects
        d = 1.0 + scale.item**2 * np.concatenate([point.item_weight for point in points])
        if not (d > 0).all():
            raise LinAlgError("not a maximum in some item")
        # Items: a diagonal. `shrink` is the variance of each item given the coordinates.
        shrink = np.split(scale.item**2 / d, self._ends)
        q = np.stack([k.schur_complement(p, x) for k, p, x in zip(self.kernels, points, shrink, strict=True)])
        log_det, schur_complement = float(np.log(d).sum()), q
        cell = np.zeros((len(points), 0, 0))
        if scale.cell:
            # Student x task: one effect on each of the first S coordinates of a block.
            cell, block_log_det = _invert_and_log_det(scale.cell**2 * q[:, :s, :s] + np.eye(s))
            log_det += block_log_det
            schur_complement = q - scale.cell**2 * (q[:, :, :s] @ (cell @ q[:, :s]))
        slopes = self.slopes * scale.task
        task_coupling = slopes.swapaxes(1, 2) @ schur_complement
        task = np.zeros((len(points), 0, 0))
        if len(scale.task):
            # Task effects: q of each block.
            task, block_log_det = _invert_and_log_det(task_coupling @ slopes + np.eye(len(scale.task)))
            log_det += block_log_det
            schur_complement = schur_complement - task_coupling.swapaxes(1, 2) @ (task @ task_coupling)
        # The core, summed over blocks; fixed effects have no prior, random ones a unit one.
        flat_core_maps = self.core.reshape(-1, len(scale.core))
        core_matrix = flat_core_maps.T @ (schur_complement @ self.core).reshape(flat_core_maps.shape)
        core_matrix = scale.core[:, None] * (core_matrix + core_matrix.T) / 2 * scale.core
        core_matrix[np.diag_indices_from(core_matrix)] += np.r_[np.zeros(n_fixed), np.ones(len(core_matrix) - n_fixed)]
        cholesky_factor = cho_factor(core_matrix, lower=True, check_finite=False)
        log_det += 2 * float(np.log(np.diag(cholesky_factor[0])).sum())
        return FactorisedHessian(points, d, q, cell, task, task_coupling, cholesky_factor, log_det)

    def _solved(self, system: FactorisedHessian, residual: RightHandSide) -> tuple[ConditionalMode, float]:
        """H⁻¹ times a residual, and the residual times that.

        Forward through items, student x task and task effects to the core, then back in the opposite order.
        """
        scale, s = self._expand_sigmas(), self._students
        direct_terms, block_rhs = residual.direct_terms, residual.coordinates
        scaled_item_rhs = direct_terms.item / system.d
        power = float(direct_terms.item @ scaled_item_rhs)
        item_blocks = np.split(scale.item * scaled_item_rhs, self._ends)
        block_rhs = block_rhs - np.stack([p.coupling.T @ x for p, x in zip(system.points, item_blocks, strict=True)])
        cells, tasks = direct_terms.cell, direct_terms.task
        if scale.cell:
            cells = cells + scale.cell * block_rhs[:, :s]
            solution = _block_matvec(system.cell, cells)
            power += float(np.vdot(cells, solution))
            block_rhs = block_rhs - scale.cell * _block_matvec(system.q[:, :, :s], solution)
        if len(scale.task):
            tasks = tasks + scale.task * _block_matvec(self.slopes.swapaxes(1, 2), block_rhs)
            solution = _block_matvec(system.task, tasks)
            power += float(np.vdot(tasks, solution))
            block_rhs = block_rhs - _block_matvec(system.task_coupling.swapaxes(1, 2), solution)
        core_rhs = direct_terms.core + scale.core * np.tensordot(block_rhs, self.core, 2)
        core_step = cho_solve(system.factor, core_rhs, check_finite=False)
        power += float(core_rhs @ core_step)
        # Back substitution: z are the coordinates that the core moves, then the task effects, then student x task.
        z = self.core @ (scale.core * core_step)
        if len(scale.task):
            tasks = _block_matvec(system.task, tasks - _block_matvec(system.task_coupling, z))
            z = z + _block_matvec(self.slopes, scale.task * tasks)
        if scale.cell:
            cells = _block_matvec(system.cell, cells - scale.cell * _block_matvec(system.q[:, :s], z))
            z[:, :s] += scale.cell * cells
        item_shift = np.concatenate([p.coupling @ x for p, x in zip(system.points, z, strict=True)])
        return ConditionalMode(core_step, tasks, cells, (direct_terms.item - scale.item * item_shift) / system.d), power

    def _score(self, mode: ConditionalMode, points: list[LikelihoodPoint]) -> RightHandSide:
        """The gradient of the penalised log-likelihood."""
        penalised = mode.core.copy()
        penalised[: self.layout.n_fixed_effects] = 0.0
        items = self._expand_sigmas().item * np.concatenate([point.item_score for point in points])
        direct_terms = ConditionalMode(-penalised, -mode.task, -mode.cell, items - mode.item)
        return RightHandSide(direct_terms, np.stack([point.score for point in points]))

    def _iter_blocks(
        self, mode: ConditionalMode, points: list[LikelihoodPoint]
    ) -> Iterator[tuple[LogitKernel, LikelihoodPoint, Floats, Floats]]:
        """Every block with its point, coordinates and items."""
        items = np.split(self._expand_sigmas().item * mode.item, self._ends)
        return zip(self.kernels, points, self._coordinates(mode), items, strict=True)

    def _find_conditional_mode(self) -> tuple[float, FactorisedHessian, bool]:
        """Newton's method with step-halving from the last mode."""
        mode = self._mode
        value, points = self._penalised_likelihood(mode)
        for _ in range(MAX_NEWTON_STEPS):
            try:
                system = self._factor_hessian(points)
            except LinAlgError:  # under a link with chance the Hessian may be indefinite: step by its expectation
                system = self._factor_hessian([k.expected(p, z, u) for k, p, z, u in self._iter_blocks(mode, points)])
            step, power = self._solved(system, self._score(mode, points))
            if power < NEWTON_TOLERANCE:
                self._mode = mode
                return value, system if system.points is points else self._factor_hessian(points), True
            size = 1.0
            while True:
                trial = mode.take_step(step, size)
                trial_likelihood, trial_points = self._penalised_likelihood(trial)
                # The function is concave: only rounding can make a short step look downhill.
                if trial_likelihood >= value - 1e-12 * abs(value) or size < 1e-6:
                    break
                size /= 2
            mode, value, points = trial, trial_likelihood, trial_points
        self._mode = mode
        return value, self._factor_hessian(points), False

    def points(self) -> list[LikelihoodPoint]:
        """Every block's likelihood at the last mode."""
        return self._penalised_likelihood(self._mode)[1]

    def leave_out_student(self, points: list[LikelihoodPoint], student: int) -> list[LikelihoodPoint]:
        """The same points without one student's outcomes."""
        return [kernel.without(point, z, u, student) for kernel, point, z, u in self._iter_blocks(self._mode, points)]

    def beta_step(self, points: list[LikelihoodPoint]) -> Floats:
        """One Newton step of the fixed effects from the last mode, the outcomes being those of `points`.

        Raises
        ------
        LinAlgError
            The fixed effects are not identified by them.
        """
        step, _ = self._solved(self._factor_hessian(points), self._score(self._mode, points))
        return step.core[: self.layout.n_fixed_effects]

    def leave_out_task(self, left_out_task: int) -> "LaplaceLikelihood":
        """The objective of all blocks but one, at the same mode; sizes are not adapted: not for evaluating."""
        keep = np.arange(len(self.kernels)) != left_out_task
        kernels = [kernel for k, kernel in enumerate(self.kernels) if k != left_out_task]
        rest = LaplaceLikelihood(kernels, self.core[keep], self.slopes[keep], self.layout, restricted=self.restricted)
        mode, items = self._mode, np.split(self._mode.item, self._ends)
        item = np.concatenate(items[:left_out_task] + items[left_out_task + 1 :])
        rest._mode, rest._sigma = ConditionalMode(mode.core, mode.task[keep], mode.cell[keep], item), self._sigma
        return rest

    def evaluate(self, theta: Floats) -> ObjectiveEvaluation:
        """The objective and its gradient at log sigmas `theta`, shape (G,)."""
        self._change_sigmas(np.exp(theta))
        try:
            value, system, converged = self._find_conditional_mode()
        except LinAlgError:
            return self._failed_evaluation(theta)
        return self._evaluate_gradient(theta, value - 0.5 * self._log_det(system), system, converged)

    def value(self, theta: Floats) -> float:
        """The objective alone, at less than half of the cost."""
        self._change_sigmas(np.exp(theta))
        try:
            value, system, _ = self._find_conditional_mode()
        except LinAlgError:
            return self._failed_evaluation(theta).value
        return value - 0.5 * self._log_det(system)

    def _log_det(self, system: FactorisedHessian) -> float:
        """Of H, or of its part for the random effects."""
        if self.restricted:
            return system.log_det
        p = self.layout.n_fixed_effects
        fixed_covariance = cho_solve(system.factor, np.eye(len(self.layout.core), p), check_finite=False)[:p]
        return system.log_det + float(np.linalg.slogdet(fixed_covariance)[1])

    def _failed_evaluation(self, theta: Floats) -> ObjectiveEvaluation:
        """What stands for a value where the Hessian is not positive definite."""
        p, g = self.layout.n_fixed_effects, len(theta)
        self._mode = ConditionalMode(*map(np.zeros_like, self._mode))
        unknown = np.full(p, np.nan)
        return ObjectiveEvaluation(
            theta.copy(), -math.inf, np.zeros(g), unknown, unknown, np.full((p, p), np.nan), np.full(g, np.nan), False
        )

    def _evaluate_gradient(
        self, theta: Floats, value: float, system: FactorisedHessian, converged: bool
    ) -> ObjectiveEvaluation:
        """The value with its gradient: covariance of the coordinates, third derivatives, bias correction."""
        mode, scale, p = self._mode, self._expand_sigmas(), self.layout.n_fixed_effects
        inverse = cho_solve(system.factor, np.eye(len(self.layout.core)), check_finite=False)
        spread = inverse
        if not self.restricted:
            # Given the fixed effects: the full likelihood takes h and the trace without their uncertainty.
            spread = inverse - inverse[:, :p] @ np.linalg.solve(inverse[:p, :p], inverse[:p])
        covariance, inverse_trace = self._compute_covariance(system, spread)
        shrink = scale.item**2 / system.d
        block_items, block_shrink = np.split(scale.item * mode.item, self._ends), np.split(shrink, self._ends)
        kernel_inputs = zip(system.points, self._coordinates(mode), block_items, covariance, block_shrink, strict=True)
        skewness = [kernel.skewness(*inputs) for kernel, inputs in zip(self.kernels, kernel_inputs, strict=True)]
        items, coordinates, v = zip(*skewness, strict=True)
        if self.layout.item is not None:
            inverse_trace[self.layout.item] += float(((1.0 + shrink * np.concatenate(v)) / system.d).sum())
        direct_terms = ConditionalMode(*map(np.zeros_like, mode))._replace(item=scale.item * np.concatenate(items))
        bias_correction_rhs = RightHandSide(direct_terms, np.stack(coordinates))
        # D of the module's docstring: H⁻¹ A'q, the distance of the posterior mean from the mode.
        shift, _ = self._solved(system, bias_correction_rhs)
        gradient = self._products_by_variance(mode, mode.take_step(shift, 2.0)) + inverse_trace - self.layout.sizes
        mode_shift_covariance = mode.core[:p].copy(), shift.core[:p], inverse[:p, :p]
        return ObjectiveEvaluation(theta.copy(), value, gradient, *mode_shift_covariance, inverse_trace, converged)

    def _compute_covariance(self, system: FactorisedHessian, inverse: Floats) -> tuple[Floats, Floats]:
        """Of each block's coordinates (K, c, c), and the trace of H⁻¹ over each variance but the items'."""
        scale, s, layout = self._expand_sigmas(), self._students, self.layout
        inverse_trace = sum_by_group(layout.core + 1, np.diag(inverse), len(layout.sizes) + 1)[1:]
        scaled_core_maps = self.core * scale.core
        covariance = scaled_core_maps @ inverse @ scaled_core_maps.swapaxes(1, 2)
        if len(scale.task):
            slopes = self.slopes * scale.task
            projection = system.task @ system.task_coupling
            spread = projection @ covariance
            task_traces = np.einsum("kii->i", system.task) + np.einsum("kic,kic->i", spread, projection)
            np.add.at(inverse_trace, layout.task, task_traces)
            # (I - N pulled) covariance (I - N pulled)' + N task N'
            covariance = covariance - slopes @ spread
            covariance = covariance + (slopes @ system.task - covariance @ projection.swapaxes(1, 2)) @ slopes.swapaxes(
                1, 2
            )
        if layout.cell is not None:
            projection = scale.cell * (system.cell @ system.q[:, :s])
            spread = projection @ covariance
            inverse_trace[layout.cell] += float(np.einsum("kii->", system.cell) + np.vdot(spread, projection))
            # The same once more, the effects meeting the first S coordinates only.
            covariance = covariance.copy()
            covariance[:, :s] -= scale.cell * spread
            covariance[:, :, :s] += scale.cell * np.pad(
                scale.cell * system.cell, ((0, 0), (0, covariance.shape[1] - s), (0, 0))
            ) - scale.cell * (covariance @ projection.swapaxes(1, 2))
        return covariance, inverse_trace

    def _products_by_variance(self, a: ConditionalMode, b: ConditionalMode) -> Floats:
        """Inner products of the random effects, summed within each variance, shape (G,)."""
        layout, n = self.layout, len(self.layout.sizes)
        # Fixed effects have the code -1: they fall into the first sum, which is cut off.
        inner_products = sum_by_group(layout.core + 1, a.core * b.core, n + 1)[1:]
        np.add.at(inner_products, layout.task, (a.task * b.task).sum(axis=0))
        if layout.cell is not None:
            inner_products[layout.cell] += np.vdot(a.cell, b.cell)
        if layout.item is not None:
            inner_products[layout.item] += a.item @ b.item
        return inner_products


def _block_matvec(matrices: Floats, vectors: Floats) -> Floats:
    """Matrix times vector in each block: (K, a, b) and (K, b) to (K, a)."""
    return (matrices @ vectors[:, :, None])[:, :, 0]


def _invert_and_log_det(matrices: Floats) -> tuple[Floats, float]:
    """Inverses and the sum of log determinants of symmetric matrices that are no smaller than the identity."""
    lower = np.linalg.cholesky(matrices)
    inverse = np.linalg.inv(matrices)
    log_det = 2 * float(np.log(np.diagonal(lower, axis1=1, axis2=2)).sum())
    return (inverse + inverse.swapaxes(1, 2)) / 2, log_det
