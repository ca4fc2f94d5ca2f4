"""Expected gain of the next batch of examples, by all laws that the data do not reject, a growing one too."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capgap.errors import EstimationError
from capgap.schema.remarks import Reason, count_text, remark
from capgap.stats.curves.cost import extrapolation
from capgap.stats.curves.fit import CurveFit, FormFit, fit_growth
from capgap.stats.curves.solve import CurveBounds
from capgap.stats.estimate import Estimate, EstimateSet

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class NextBatch(Estimate, EstimateSet):
    """The expected gain in going from one size to a larger one, on the scale of the data.

    The estimate is that of the leading law; the interval runs from the lowest of the laws' lower ends (never below 0,
    since the laws rise) to the highest of their upper ends.
    """

    size_from: float
    """Examples now."""
    size_to: float
    """Examples with the batch."""
    form_estimates: tuple[tuple[str, Estimate], ...] = ()
    """Name of each accepted law, and its gain."""
    scale: str
    """``accuracy``, ``per_step`` or ``log_probability``."""
    conf_level: float
    """Of the interval."""

    @property
    def heading(self) -> str:
        """The step and the scale."""
        return f"Gain from {count_text(self.size_from)} to {count_text(self.size_to)} examples ({self.scale})"

    def estimates(self) -> Iterator[tuple[dict[str, Any], Estimate]]:
        """The union of the laws, then each accepted law."""
        for form, gain in (("union", self), *self.form_estimates):
            yield {"scale": self.scale, "size_from": self.size_from, "size_to": self.size_to, "form": form}, gain


def next_batch(
    fit: CurveFit, *, n_more: float | None = None, growth_factor: float = 2.0, size_from: float | None = None
) -> NextBatch:
    """The gain that the next batch of unique examples is expected to bring.

    Parameters
    ----------
    fit
        From `fit_curves`, whose `conf_level` it takes.
    n_more
        Examples of the batch; None: `growth_factor` times the examples there are.
    growth_factor
        To how many times the examples, where `n_more` is None.
    size_from
        Examples now; None: the largest size of the data.

    Raises
    ------
    EstimationError
        The batch is not above zero.

    Notes
    -----
    For a given shape the gain ``(c - f) (h(D1) - h(D2))`` is linear in f and c, so that its profile interval is in
    closed form: the extreme gain among all f, c, T within the cut-off, over shapes and bounds. It is the gain of the
    expected curve, for a recipe's mean over seeds, and not that of one more training run.

    All three forms saturate. Accuracy that rises alike with every doubling often fits them as far as the data go, and
    they then promise too little, so that `logarithmic` growth joins the union where it is not rejected.
    """
    data = fit.data
    start = float(data.sizes.max()) if size_from is None else float(size_from)
    end = start * growth_factor if n_more is None else start + n_more
    if not (math.isfinite(end) and end > start >= 0):
        raise EstimationError(f"the batch must add examples: found {start:g} to {end:g}.")
    gain_template = NextBatch(
        n_items=data.n_items,
        n_clusters=len(data.clusters),
        method="GLS profile, union of laws",
        size_from=start,
        size_to=end,
        scale=data.scale,
        conf_level=fit.conf_level,
    )
    growth = fit_growth(fit)
    laws = (*fit.accepted_fits, *((growth,) if growth is not None and not growth.is_rejected else ()))
    if not laws:
        return replace(gain_template, status="refused", remarks=(fit.no_fit_reason,) if fit.no_fit_reason else ())
    gains = [_gain(f, data.bounds, start, end) for f in laws]
    leading_index = min(range(len(laws)), key=lambda i: laws[i].solutions.min_rss + 2 * laws[i].form.n_parameters)
    remarks = list(extrapolation("gain", end, float(data.sizes.max())))
    if remarks:
        remarks.append(remark(Reason.ONE_LAW_GROWS if laws[-1] is growth else Reason.ALL_LAWS_SATURATE))
    return replace(
        gain_template,
        estimate=gains[leading_index].estimate,
        conf_low=min(gain.conf_low for gain in gains),
        conf_high=max(gain.conf_high for gain in gains),
        form_estimates=tuple((f.form.name, gain) for f, gain in zip(laws, gains, strict=True)),
        remarks=(*fit.remarks, *remarks),
    )


def _gain(fit: FormFit, bounds: CurveBounds, start: float, end: float) -> Estimate:
    """The gain by one form with its profile interval."""
    s = fit.solutions
    shares = fit.form.room_left(np.array([start, end]), s.shapes)
    row = shares[:, 0] - shares[:, 1]  # the gain is drop * row
    max_gain = bounds.high - (s.beta[:, 1] - s.beta[:, 0] * shares[:, 0])  # what is left at the start, whatever the law
    gains, spread = np.minimum(s.beta[:, 0] * row, max_gain), np.maximum(s.inverse[:, 0, 0], 0.0) * row**2
    rss_slack = s.min_rss + fit.cutoff - s.rss  # how far each solution's residual may still rise
    allowed = rss_slack >= 0
    max_step = np.sqrt(np.maximum(rss_slack, 0.0) / np.where(spread > 1e-24, spread, np.inf))
    limits = []
    for sign in (-1.0, 1.0):
        # The least-squares solution moved along the gain until the residual meets the cut-off.
        moved_beta = s.beta + sign * (s.inverse[:, :, 0] * (row * max_step)[:, None])
        ok = allowed & bounds.contains_curve(moved_beta[:, 0], moved_beta[:, 1])
        moved_max = bounds.high - (moved_beta[:, 1] - moved_beta[:, 0] * shares[:, 0])
        limits.append(np.concatenate([np.minimum(moved_beta[:, 0] * row, moved_max)[ok], gains[allowed & s.feasible]]))
    low, high = max(float(limits[0].min()), 0.0), float(limits[1].max())
    return Estimate(float(gains[s.best_idx]), conf_low=low, conf_high=high, method="GLS profile")
