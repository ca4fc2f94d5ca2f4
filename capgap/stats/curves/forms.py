"""Saturating curve forms ``a(D) = c - (c - f) h(D)``, each by h, its share of room still left, from 1 down to 0."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["CURVE_FORMS", "FORM_NAMES", "HORIZON_FACTOR", "CurveForm", "curve_form", "build_log_curve"]

Floats = NDArray[np.float64]

SIZE_SCALE_SEARCH_FACTOR = 10.0
"""The size parameter D0 is sought from a tenth of the smallest to ten times the largest size above zero."""
MIN_ROOM_LEFT_SHARE = 1e-300
HORIZON_FACTOR = 4.0
"""Up to how many times the largest size of the data a curve speaks; beyond, nothing is said."""


@dataclass(frozen=True)
class CurveForm:
    """One law, linear in the base's accuracy f and the ceiling c once its shape (log D0, log exponent) is given."""

    name: str
    """``power``, ``exponential``, ``logistic`` or ``logarithmic``."""
    n_parameters: int
    """f, c and the shape parameters."""
    exponents: tuple[float, float]
    """Where the exponent is sought; equal ends where there is none."""
    left: Callable[[Floats, Floats, Floats], Floats]
    """h of (D, D0, exponent), arrays that broadcast."""
    size: Callable[[Floats, Floats, Floats], Floats]
    """Its inverse: D of (h, D0, exponent) for h in (0, 1]."""

    def room_left(self, sizes: Floats, shapes: Floats) -> Floats:
        """H at each size for each shape, shape (n_shapes, n_sizes)."""
        scale, exponent = np.exp(shapes).T[:, :, None]
        return self.left(sizes[None], scale, exponent)

    def size_at(self, room_left: Floats, shapes: Floats) -> Floats:
        """The size at which the share `room_left` of the room is left, one per shape; 0 for a share of 1 and more."""
        scale, exponent = np.exp(shapes).T
        return self.size(np.clip(room_left, MIN_ROOM_LEFT_SHARE, 1.0), scale, exponent)

    def box(self, sizes: Floats) -> Floats:
        """Lower and upper end of (log D0, log exponent), shape (2, 2)."""
        positive = sizes[sizes > 0]
        scale = np.log([positive.min() / SIZE_SCALE_SEARCH_FACTOR, positive.max() * SIZE_SCALE_SEARCH_FACTOR])
        return np.column_stack([scale, np.log(self.exponents)])


CURVE_FORMS: dict[str, CurveForm] = {
    form.name: form
    for form in (
        CurveForm(
            "power",
            4,
            (0.1, 3.0),
            lambda d, scale, exponent: np.exp(-exponent * np.log1p(d / scale)),
            lambda h, scale, exponent: scale * np.expm1(-np.log(h) / exponent),
        ),
        CurveForm(
            "exponential",
            3,
            (1.0, 1.0),
            lambda d, scale, exponent: np.exp(-d / scale) + 0 * exponent,
            lambda h, scale, exponent: -scale * np.log(h) + 0 * exponent,
        ),
        CurveForm(
            "logistic",
            4,
            (0.4, 4.0),
            lambda d, scale, exponent: 1 / (1 + (d / scale) ** exponent),
            lambda h, scale, exponent: scale * ((1 - h) / h) ** (1 / exponent),
        ),
    )
}
"""By name. Power ``(1 + D/D0)^-e``, exponential ``exp(-D/D0)``, logistic in log D ``1 / (1 + (D/D0)^e)``."""


FORM_NAMES = (*CURVE_FORMS, "logarithmic")
"""All laws that are fitted: those that level off, and the one that does not."""


def curve_form(name: str, sizes: Floats) -> CurveForm:
    """The law of a name for students of some sizes."""
    return CURVE_FORMS[name] if name in CURVE_FORMS else build_log_curve(HORIZON_FACTOR * float(sizes.max()))


def build_log_curve(reference: float) -> CurveForm:
    """The law without a ceiling, ``f + k log(1 + D/D0)``: from D0 on accuracy rises alike with every doubling.

    It cannot go on for ever; but as far as a curve speaks (`HORIZON_FACTOR`) nothing need end it, and where it holds
    the forms that level off promise too little.

    Parameters
    ----------
    reference
        Examples at which its value is what the other forms have as ceiling; beyond, h is negative.
    """

    def room_left(sizes: Floats, scale: Floats, exponent: Floats) -> Floats:
        return np.asarray(1 - np.log1p(sizes / scale) / np.log1p(reference / scale) + 0 * exponent)

    def size(h: Floats, scale: Floats, exponent: Floats) -> Floats:
        return np.asarray(scale * np.expm1((1 - h) * np.log1p(reference / scale)) + 0 * exponent)

    return CurveForm("logarithmic", 3, (1.0, 1.0), room_left, size)
