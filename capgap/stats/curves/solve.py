"""Least squares of one form on a grid of shapes, with bounds: the linear half of the variable projection.

With the shape given, the means of the students and the teacher's are linear in three coefficients: the drop ``c - f``,
the ceiling c and the teacher's T. A bound that holds with equality is one linear condition; so is a target. The best
solution under bounds is the best of the feasible ones over the bounds that may hold with equality (Karush-Kuhn-Tucker),
so that every constrained minimum here is exact for its shape.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from capgap.stats.curves.forms import CurveForm

__all__ = ["CurveBounds", "CurveSolutions", "WhitenedMeans", "explore_shapes", "minimise_rss", "solve_on_grid"]

Floats = NDArray[np.float64]

BOUND_TOLERANCE = 1e-9
"""By how much a bound may be broken by rounding."""
FINE_GRID_SHAPE = (40, 24)
"""Shapes of one grid: D0 by exponents."""
COARSE_GRID_SHAPE = (24, 10)
"""Likewise where only the least residual is sought."""
N_ZOOMS = 4
"""Grids around the optimum; the last one's cells are a hundredth of the first one's."""
RIDGE = 1e-10
"""Relative to the diagonal of the normal equations, for shapes that leave two coefficients alike."""


@dataclass(frozen=True)
class CurveBounds:
    """The values that a curve can take."""

    low: float
    """Of the base's f; minus infinity where there is none."""
    high: float
    """Of the ceiling c."""

    def is_within_bounds(self, base_to_ceiling: Floats, ceiling: Floats) -> NDArray[np.bool_]:
        """Whether a curve that rises from ``ceiling - drop`` to ``ceiling`` lies within."""
        is_rising, ceiling_in_bounds = base_to_ceiling >= -BOUND_TOLERANCE, ceiling <= self.high + BOUND_TOLERANCE
        return is_rising & ceiling_in_bounds & (ceiling - base_to_ceiling >= self.low - BOUND_TOLERANCE)

    def list_active_bound_sets(self) -> list[list[tuple[tuple[float, float, float], float]]]:
        """Sets of bounds that may hold with equality together: rows on (drop, ceiling, teacher) and their values."""
        drop_bound, top, bottom = ((1.0, 0.0, 0.0), 0.0), ((0.0, 1.0, 0.0), self.high), ((-1.0, 1.0, 0.0), self.low)
        bound_sets = [[], [drop_bound], [top], [drop_bound, top]]
        return bound_sets + ([[bottom], [drop_bound, bottom], [top, bottom]] if np.isfinite(self.low) else [])


@dataclass(frozen=True)
class WhitenedMeans:
    """The observed means, students first and teacher last, made independent by their covariance."""

    sizes: Floats
    """Shape (m,)."""
    root: Floats
    """Lower Cholesky factor of the covariance, shape (m + 1, m + 1)."""
    observed: Floats
    """Whitened means."""
    level: Floats
    """Whitened regressor of the ceiling: ones for the students, zero for the teacher."""
    teacher: Floats
    """Whitened regressor of T."""

    @classmethod
    def of(cls, sizes: Floats, means: Floats, covariance: Floats) -> "WhitenedMeans":
        """From sizes (m,), means (m + 1,) and their covariance."""
        root = np.asarray(np.linalg.cholesky(covariance), dtype=np.float64)
        students, teacher = np.ones(len(means)), np.zeros(len(means))
        students[-1], teacher[-1] = 0.0, 1.0
        whitened = solve_triangular(root, np.column_stack([means, students, teacher]), lower=True).T
        return cls(sizes, root, whitened[0], whitened[1], whitened[2])

    def regressors(self, form: CurveForm, shapes: Floats) -> Floats:
        """Whitened regressor of the drop, ``-h``, for each shape: (n_shapes, m + 1)."""
        room_left = form.room_left(self.sizes, shapes)
        padded_room_left = np.column_stack([-room_left, np.zeros(len(room_left))])
        return np.asarray(solve_triangular(self.root, padded_room_left.T, lower=True).T)


@dataclass(frozen=True)
class CurveSolutions:
    """Least-squares solutions, one for each shape and set of bounds that hold with equality."""

    shapes: Floats
    """(log D0, log exponent), shape (n, 2)."""
    beta: Floats
    """Drop, ceiling, teacher: shape (n, 3)."""
    inverse: Floats
    """What the coefficients' covariance would be, zero across the conditions: shape (n, 3, 3)."""
    rss: Floats
    """Generalised residual sum of squares, shape (n,)."""
    feasible: NDArray[np.bool_]
    """Whether the bounds hold."""

    @property
    def best_idx(self) -> int:
        """The feasible solution with the smallest residual."""
        return int(np.where(self.feasible, self.rss, np.inf).argmin())

    @property
    def min_rss(self) -> float:
        """Its residual sum of squares."""
        return float(self.rss[self.best_idx])

    def within(self, mask: NDArray[np.bool_]) -> "CurveSolutions":
        """Some of the solutions."""
        shapes, beta, inverse, rss, feasible = _list_arrays(self)
        return CurveSolutions(shapes[mask], beta[mask], inverse[mask], rss[mask], feasible[mask])


def constrain(beta: Floats, inverse: Floats, rss: Floats, row: Floats, value: float) -> tuple[Floats, Floats, Floats]:
    """The solutions once more with ``row @ beta = value``."""
    # Constrained least squares: beta moves against H⁻¹ row until the condition holds; shapes (n, 3), (n, 3, 3), (n,).
    direction = inverse @ row
    spread = np.maximum(direction @ row, 1e-300)
    row_violation = beta @ row - value
    # A row that earlier conditions fixed already has no spread left: nothing to move, and no way to hold it.
    row_fixed = spread < 1e-18
    step = np.where(row_fixed, 0.0, row_violation / spread)
    constrained_beta = beta - direction * step[:, None]
    return (
        constrained_beta,
        inverse - direction[:, :, None] * direction[:, None, :] / np.where(row_fixed, 1.0, spread)[:, None, None],
        rss + np.where(row_fixed, np.where(np.abs(row_violation) > BOUND_TOLERANCE, np.inf, 0.0), row_violation * step),
    )


def solve_on_grid(
    form: CurveForm, data: WhitenedMeans, bounds: CurveBounds, shapes: Floats, *, least_only: bool = False
) -> CurveSolutions:
    """All solutions for the given shapes: free ones, and those on each set of bounds.

    With `least_only` the free ones alone where the best of them lies within the bounds: no bound can better it.
    """
    drop_regressors = data.regressors(form, shapes)
    # Normal equations of all shapes at once: the columns of level and teacher are common, that of the drop is not.
    normal_matrix, right_hand_side = np.empty((len(shapes), 3, 3)), np.empty((len(shapes), 3))
    normal_matrix[:, 0, 0] = (drop_regressors**2).sum(axis=1)
    for j, shape_free_regressor in enumerate((data.level, data.teacher), start=1):
        normal_matrix[:, 0, j] = normal_matrix[:, j, 0] = drop_regressors @ shape_free_regressor
        right_hand_side[:, j] = data.observed @ shape_free_regressor
        normal_matrix[:, j, j] = shape_free_regressor @ shape_free_regressor
    normal_matrix[:, 1, 2] = normal_matrix[:, 2, 1] = data.level @ data.teacher
    right_hand_side[:, 0] = drop_regressors @ data.observed
    normal_matrix[:, range(3), range(3)] *= 1 + RIDGE
    inverse = np.asarray(np.linalg.inv(normal_matrix), dtype=np.float64)
    beta = (inverse @ right_hand_side[:, :, None])[:, :, 0]
    fitted = drop_regressors * beta[:, :1] + data.level * beta[:, 1:2] + data.teacher * beta[:, 2:]
    rss = np.asarray(((data.observed - fitted) ** 2).sum(axis=1))
    if least_only:
        is_within = bounds.is_within_bounds(beta[:, 0], beta[:, 1])
        if is_within[rss.argmin()]:
            return CurveSolutions(shapes, beta, inverse, rss, is_within)
    # Karush-Kuhn-Tucker: the constrained minimum is the best feasible solution over all sets of active bounds.
    bound_set_fits = []
    for active_bounds in bounds.list_active_bound_sets():
        solution = (beta, inverse, rss)
        for row, value in active_bounds:
            solution = constrain(*solution, np.array(row), value)
        bound_set_fits.append(solution)
    all_beta, all_covariances, all_rss = (np.concatenate(column) for column in zip(*bound_set_fits, strict=True))
    ok = bounds.is_within_bounds(all_beta[:, 0], all_beta[:, 1]) & np.isfinite(all_rss)
    return CurveSolutions(np.tile(shapes, (len(bound_set_fits), 1)), all_beta, all_covariances, all_rss, ok)


def explore_shapes(form: CurveForm, data: WhitenedMeans, bounds: CurveBounds, *, margin: float) -> CurveSolutions:
    """The solutions that a profile at cut-off `margin` can rest on, the best one among them.

    Notes
    -----
    A coarse grid over the form's box finds the shapes whose own residual is within the cut-off of the least; a second
    grid as fine as the first covers the box around these; zooms around the optimum make its residual exact to
    far below what a cut-off can feel. A constrained residual is never below the shape's own, so that nothing outside
    can enter the profile.
    """
    shape_bounds = form.box(data.sizes)
    coarse_fits = solve_on_grid(form, data, bounds, _grid_points(shape_bounds))
    # The residual counts free of bounds here: with bounds it only rises, so no shape is lost.
    shape_bounds = _narrow_shape_bounds(coarse_fits, coarse_fits.rss <= coarse_fits.min_rss + margin, shape_bounds)
    fine_fits = solve_on_grid(form, data, bounds, _grid_points(shape_bounds))
    if fine_fits.min_rss < coarse_fits.min_rss:
        shape_bounds = _narrow_shape_bounds(fine_fits, fine_fits.rss <= fine_fits.min_rss + margin, shape_bounds)
    best_fits = min(coarse_fits, fine_fits, key=lambda solutions: solutions.min_rss)
    cell = (shape_bounds[1] - shape_bounds[0]) / (np.array(FINE_GRID_SHAPE) - 1)
    grid_fits = [coarse_fits, fine_fits, *_solve_zooms(form, data, bounds, best_fits.shapes[best_fits.best_idx], cell)]
    merged = CurveSolutions(
        *(np.concatenate(column) for column in zip(*(_list_arrays(solutions) for solutions in grid_fits), strict=True))
    )
    # Beyond the cut-off even without its condition: no profile at this margin can rest on it.
    return merged.within(merged.rss <= merged.min_rss + margin)


def minimise_rss(form: CurveForm, data: WhitenedMeans, bounds: CurveBounds) -> float:
    """The least residual sum of squares alone, at a tenth of the price."""
    shape_bounds = form.box(data.sizes)
    coarse_fits = solve_on_grid(form, data, bounds, _grid_points(shape_bounds, COARSE_GRID_SHAPE), least_only=True)
    cell = (shape_bounds[1] - shape_bounds[0]) / (np.array(COARSE_GRID_SHAPE) - 1)
    centre = coarse_fits.shapes[coarse_fits.best_idx]
    zoomed_fits = _solve_zooms(form, data, bounds, centre, cell, least_only=True)
    return min(coarse_fits.min_rss, *(zoomed_fit.min_rss for zoomed_fit in zoomed_fits))


def _solve_zooms(
    form: CurveForm,
    data: WhitenedMeans,
    bounds: CurveBounds,
    centre: Floats,
    cell: Floats,
    *,
    least_only: bool = False,
) -> list[CurveSolutions]:
    """Ever smaller grids around the best shape so far, the first one cell to each side."""
    shape_bounds, zoomed_fits = form.box(data.sizes), []
    value = np.inf
    for _ in range(N_ZOOMS):
        zoom_bounds = np.clip(np.stack([centre - cell, centre + cell]), *shape_bounds)
        zoomed_fits.append(solve_on_grid(form, data, bounds, _grid_points(zoom_bounds, (7, 7)), least_only=least_only))
        if zoomed_fits[-1].min_rss < value:
            value, centre = zoomed_fits[-1].min_rss, zoomed_fits[-1].shapes[zoomed_fits[-1].best_idx]
        cell = cell / 2.5
    return zoomed_fits


def _list_arrays(solutions: CurveSolutions) -> tuple[Floats, Floats, Floats, Floats, NDArray[np.bool_]]:
    return solutions.shapes, solutions.beta, solutions.inverse, solutions.rss, solutions.feasible


def _grid_points(box: Floats, shape: tuple[int, int] = FINE_GRID_SHAPE) -> Floats:
    """A regular grid over a box, shape (n, 2); an axis without width gives one point."""
    axes = [
        np.linspace(low, high, n) if high > low else np.array([low]) for low, high, n in zip(*box, shape, strict=True)
    ]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)


def _narrow_shape_bounds(solutions: CurveSolutions, within_margin: NDArray[np.bool_], shape_bounds: Floats) -> Floats:
    """The box of the shapes inside, one cell larger on each side."""
    cell = (shape_bounds[1] - shape_bounds[0]) / (np.array(FINE_GRID_SHAPE) - 1)
    shapes = solutions.shapes[within_margin]
    return np.asarray(np.clip(np.stack([shapes.min(axis=0) - cell, shapes.max(axis=0) + cell]), *shape_bounds))
