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

__all__ = ["CurveBounds", "CurveSolutions", "WhitenedMeans", "explore", "least", "on_grid"]

Floats = NDArray[np.float64]

SLACK = 1e-9
"""By how much a bound may be broken by rounding."""
GRID = (40, 24)
"""Shapes of one grid: D0 by exponents."""
COARSE = (24, 10)
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

    def hold(self, drop: Floats, ceiling: Floats) -> NDArray[np.bool_]:
        """Whether a curve that rises from ``ceiling - drop`` to ``ceiling`` lies within."""
        rising, below = drop >= -SLACK, ceiling <= self.high + SLACK
        return rising & below & (ceiling - drop >= self.low - SLACK)

    def faces(self) -> list[list[tuple[tuple[float, float, float], float]]]:
        """Sets of bounds that may hold with equality together: rows on (drop, ceiling, teacher) and their values."""
        flat, top, bottom = ((1.0, 0.0, 0.0), 0.0), ((0.0, 1.0, 0.0), self.high), ((-1.0, 1.0, 0.0), self.low)
        sets = [[], [flat], [top], [flat, top]]
        return sets + ([[bottom], [flat, bottom], [top, bottom]] if np.isfinite(self.low) else [])


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
        left = form.room_left(self.sizes, shapes)
        padded = np.column_stack([-left, np.zeros(len(left))])
        return np.asarray(solve_triangular(self.root, padded.T, lower=True).T)


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
    def best(self) -> int:
        """The feasible solution with the smallest residual."""
        return int(np.where(self.feasible, self.rss, np.inf).argmin())

    @property
    def least(self) -> float:
        """Its residual sum of squares."""
        return float(self.rss[self.best])

    def within(self, mask: NDArray[np.bool_]) -> "CurveSolutions":
        """Some of the solutions."""
        shapes, beta, inverse, rss, feasible = _fields(self)
        return CurveSolutions(shapes[mask], beta[mask], inverse[mask], rss[mask], feasible[mask])


def condition(beta: Floats, inverse: Floats, rss: Floats, row: Floats, value: float) -> tuple[Floats, Floats, Floats]:
    """The solutions once more with ``row @ beta = value``."""
    # Constrained least squares: beta moves against H⁻¹ row until the condition holds; shapes (n, 3), (n, 3, 3), (n,).
    direction = inverse @ row
    spread = np.maximum(direction @ row, 1e-300)
    miss = beta @ row - value
    # A row that earlier conditions fixed already has no spread left: nothing to move, and no way to hold it.
    stuck = spread < 1e-18
    step = np.where(stuck, 0.0, miss / spread)
    new = beta - direction * step[:, None]
    return (
        new,
        inverse - direction[:, :, None] * direction[:, None, :] / np.where(stuck, 1.0, spread)[:, None, None],
        rss + np.where(stuck, np.where(np.abs(miss) > SLACK, np.inf, 0.0), miss * step),
    )


def on_grid(form: CurveForm, data: WhitenedMeans, bounds: CurveBounds, shapes: Floats) -> CurveSolutions:
    """All solutions for the given shapes: free ones, and those on each set of bounds."""
    drop = data.regressors(form, shapes)
    # Normal equations of all shapes at once: the columns of level and teacher are common, that of the drop is not.
    normal, right = np.empty((len(shapes), 3, 3)), np.empty((len(shapes), 3))
    normal[:, 0, 0] = (drop**2).sum(axis=1)
    for j, fixed in enumerate((data.level, data.teacher), start=1):
        normal[:, 0, j] = normal[:, j, 0] = drop @ fixed
        right[:, j] = data.observed @ fixed
        normal[:, j, j] = fixed @ fixed
    normal[:, 1, 2] = normal[:, 2, 1] = data.level @ data.teacher
    right[:, 0] = drop @ data.observed
    normal[:, range(3), range(3)] *= 1 + RIDGE
    inverse = np.asarray(np.linalg.inv(normal), dtype=np.float64)
    beta = (inverse @ right[:, :, None])[:, :, 0]
    fitted = drop * beta[:, :1] + data.level * beta[:, 1:2] + data.teacher * beta[:, 2:]
    rss = np.asarray(((data.observed - fitted) ** 2).sum(axis=1))
    # Karush-Kuhn-Tucker: the constrained minimum is the best feasible solution over all sets of active bounds.
    parts = []
    for face in bounds.faces():
        part = (beta, inverse, rss)
        for row, value in face:
            part = condition(*part, np.array(row), value)
        parts.append(part)
    all_beta, all_inverse, all_rss = (np.concatenate(column) for column in zip(*parts, strict=True))
    ok = bounds.hold(all_beta[:, 0], all_beta[:, 1]) & np.isfinite(all_rss)
    return CurveSolutions(np.tile(shapes, (len(parts), 1)), all_beta, all_inverse, all_rss, ok)


def explore(form: CurveForm, data: WhitenedMeans, bounds: CurveBounds, *, margin: float) -> CurveSolutions:
    """The solutions that a profile at cut-off `margin` can rest on, the best one among them.

    Notes
    -----
    A coarse grid over the form's box finds the shapes whose own residual is within the cut-off of the least; a second
    grid as fine as the first covers the box around these; zooms around the optimum make its residual exact to
    far below what a cut-off can feel. A constrained residual is never below the shape's own, so that nothing outside
    can enter the profile.
    """
    box = form.box(data.sizes)
    coarse = on_grid(form, data, bounds, _mesh(box))
    # The residual counts free of bounds here: with bounds it only rises, so no shape is lost.
    box = _around(coarse, coarse.rss <= coarse.least + margin, box)
    fine = on_grid(form, data, bounds, _mesh(box))
    if fine.least < coarse.least:
        box = _around(fine, fine.rss <= fine.least + margin, box)
    best = min(coarse, fine, key=lambda part: part.least)
    cell = (box[1] - box[0]) / (np.array(GRID) - 1)
    parts = [coarse, fine, *_zooms(form, data, bounds, best.shapes[best.best], cell)]
    merged = CurveSolutions(
        *(np.concatenate(column) for column in zip(*(_fields(part) for part in parts), strict=True))
    )
    # Beyond the cut-off even without its condition: no profile at this margin can rest on it.
    return merged.within(merged.rss <= merged.least + margin)


def least(form: CurveForm, data: WhitenedMeans, bounds: CurveBounds) -> float:
    """The least residual sum of squares alone, at a tenth of the price."""
    box = form.box(data.sizes)
    coarse = on_grid(form, data, bounds, _mesh(box, COARSE))
    cell = (box[1] - box[0]) / (np.array(COARSE) - 1)
    zooms = _zooms(form, data, bounds, coarse.shapes[coarse.best], cell)
    return min(coarse.least, *(zoom.least for zoom in zooms))


def _zooms(
    form: CurveForm, data: WhitenedMeans, bounds: CurveBounds, centre: Floats, cell: Floats
) -> list[CurveSolutions]:
    """Ever smaller grids around the best shape so far, the first one cell to each side."""
    box, parts = form.box(data.sizes), []
    value = np.inf
    for _ in range(N_ZOOMS):
        small = np.clip(np.stack([centre - cell, centre + cell]), *box)
        parts.append(on_grid(form, data, bounds, _mesh(small, (7, 7))))
        if parts[-1].least < value:
            value, centre = parts[-1].least, parts[-1].shapes[parts[-1].best]
        cell = cell / 2.5
    return parts


def _fields(part: CurveSolutions) -> tuple[Floats, Floats, Floats, Floats, NDArray[np.bool_]]:
    return part.shapes, part.beta, part.inverse, part.rss, part.feasible


def _mesh(box: Floats, shape: tuple[int, int] = GRID) -> Floats:
    """A regular grid over a box, shape (n, 2); an axis without width gives one point."""
    axes = [
        np.linspace(low, high, n) if high > low else np.array([low]) for low, high, n in zip(*box, shape, strict=True)
    ]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)


def _around(solutions: CurveSolutions, inside: NDArray[np.bool_], box: Floats) -> Floats:
    """The box of the shapes inside, one cell larger on each side."""
    cell = (box[1] - box[0]) / (np.array(GRID) - 1)
    shapes = solutions.shapes[inside]
    return np.asarray(np.clip(np.stack([shapes.min(axis=0) - cell, shapes.max(axis=0) + cell]), *box))
