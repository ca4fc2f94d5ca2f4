"""Expected score of a recipe at a number of examples, and what one new student will show there.

Two questions with two intervals. The *expected* score is the curve's: a confidence interval, which more seeds and items
narrow. The score of a *new student* is one more training run asked the same items: a prediction interval, which holds
that run's own seed and its own answers too, so that it stays wide however well the curve is known.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from capgap.errors import EstimationError
from capgap.schema.remarks import count_text
from capgap.stats.curves.cost import remark_extrapolation
from capgap.stats.curves.data import CurveData
from capgap.stats.curves.fit import CurveFit, FormFit
from capgap.stats.curves.laws import LawUnion, describe_laws, find_horizon_refusal, profile_linear
from capgap.stats.estimate import Estimate

__all__ = ["ScoreAtSize", "expected_score", "new_student_score"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ScoreAtSize(LawUnion):
    """A score at a number of examples; the estimate is the average of the accepted laws, weighted by likelihood."""

    size: float
    """Unique examples."""
    is_prediction: bool
    """Whether the interval is for the score that one new student shows, not for the curve."""

    @property
    def heading(self) -> str:
        """The question."""
        subject = "Score that a new student will show" if self.is_prediction else "Expected score"
        return f"{subject} at {count_text(self.size)} examples ({self.scale})"

    def labels(self) -> dict[str, Any]:
        """The size and the scale."""
        return {"scale": self.scale, "size": self.size}


def expected_score(fit: CurveFit, size: float) -> ScoreAtSize:
    """The curve at a number of unique examples, with a confidence interval: the union of the accepted laws' profiles.

    Parameters
    ----------
    fit
        From `fit_curves`, whose `conf_level` it takes.
    size
        Unique examples, zero or more; refused beyond four times the largest size of the data.
    """

    def by_form(form_fit: FormFit) -> Estimate:
        return profile_linear(form_fit, fit.data.bounds, _curve_rows(form_fit, size))

    return _score(fit, size, by_form, is_prediction=False)


def new_student_score(fit: CurveFit, size: float) -> ScoreAtSize:
    """What one new student of a number of unique examples will score on the same items, with a prediction interval.

    Parameters
    ----------
    fit
        From `fit_curves`, whose `conf_level` it takes.
    size
        Unique examples above zero; refused beyond four times the largest size of the data.

    Notes
    -----
    The new student differs from the curve by its seed (variance tau², independent of all others) and by its answers to
    the items. These go with those of the students that were seen: its covariance with each is that of the mean
    correlation between students, its variance that of the students of the largest size. Given shape and coefficients
    the best prediction is ``x'b + c' V⁻¹ (y - X b)`` with variance ``v - c' V⁻¹ c`` (Goldberger 1962), and the profile
    takes the coefficients' doubt to it.

    References
    ----------
    Goldberger, A. S. (1962). Best linear unbiased prediction in the generalized linear regression model. J. Am. Stat.
    Assoc. 57, 369-375.
    """
    item_covariance, item_variance, spread = _new_student_errors(fit.data)

    def by_form(form_fit: FormFit) -> Estimate:
        variance = item_variance + (form_fit.seed_sd * spread) ** 2
        weights = cho_solve(cho_factor(form_fit.covariance), item_covariance)  # V⁻¹ c, students and teacher
        rows = _curve_rows(form_fit, size)
        room_left = form_fit.form.room_left(fit.data.sizes, form_fit.solutions.shapes)
        rows[:, 0] += room_left @ weights[:-1]
        rows[:, 1] -= weights[:-1].sum()
        rows[:, 2] -= weights[-1]
        residual_variance = max(variance - float(item_covariance @ weights), 0.0)
        offset = float(weights @ fit.data.means)
        return profile_linear(form_fit, fit.data.bounds, rows, offsets=offset, variance=residual_variance)

    return _score(fit, size, by_form, is_prediction=True)


def _score(fit: CurveFit, size: float, by_form: Any, *, is_prediction: bool) -> ScoreAtSize:
    """The union of the accepted forms' intervals around the average curve."""
    if not 0 <= size < np.inf:
        raise EstimationError(f"a curve has a score at a number of examples, zero or more; found {size:g}.")
    data = fit.data
    template = ScoreAtSize(
        n_items=data.n_items,
        n_clusters=len(data.clusters),
        method="GLS profile, union of laws",
        size=size,
        is_prediction=is_prediction,
        scale=data.scale,
        conf_level=fit.conf_level,
    )
    if refusal := find_horizon_refusal(fit, size):
        return replace(template, status="refused", remarks=(refusal,))
    estimates = [by_form(form_fit) for form_fit in fit.accepted_fits]
    return replace(
        template,
        estimate=float(fit.predict([size])[0]),
        conf_low=max(min(estimate.conf_low for estimate in estimates), data.bounds.low),
        conf_high=min(max(estimate.conf_high for estimate in estimates), data.bounds.high),
        form_estimates=tuple((f.form.name, e) for f, e in zip(fit.accepted_fits, estimates, strict=True)),
        remarks=(*fit.remarks, *remark_extrapolation("score", size, float(data.sizes.max())), *describe_laws(fit)),
    )


def _curve_rows(fit: FormFit, size: float) -> Floats:
    """The curve at a size as a row on (drop, ceiling, teacher) for each solution, shape (n, 3)."""
    room_left = fit.form.room_left(np.array([size]), fit.solutions.shapes)[:, 0]
    return np.column_stack([-room_left, np.ones(len(room_left)), np.zeros(len(room_left))])


def _new_student_errors(data: CurveData) -> tuple[Floats, float, float]:
    """Of a new student: covariance with all means through items (m + 1,), variance through items, slope of its seed."""
    m = len(data.sizes)
    item_sd = np.sqrt(np.diag(data.covariance))
    correlation = data.covariance / np.outer(item_sd, item_sd)
    is_largest = data.sizes == data.sizes.max()
    variance = float(np.mean(np.diag(data.covariance)[:m][is_largest]))
    mean_correlation = (correlation[:, :m].sum(axis=1) - np.append(np.ones(m), 0.0)) / np.append(
        np.full(m, m - 1.0), float(m)
    )
    spread = float(data.spread[is_largest].mean())
    return mean_correlation * item_sd * np.sqrt(variance), variance, spread
