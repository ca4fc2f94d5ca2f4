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
from capgap.stats.estimate import Estimate, Result

__all__ = ["NextBatch", "next_batch"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class NextBatch(Estimate, Result):
    """The expected gain in going from one size to a larger one, on the scale of the data.

    The estimate is that of the leading law; the interval runs from the lowest of the laws' lower ends (never below 0,
    since the laws rise) to the highest of their upper ends.
    """

    size_from: float
    """Examples now."""
    size_to: float
    """Examples with the batch."""
    by_form: tuple[tuple[str, Estimate], ...] = ()
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
        for form, gain in (("union", self), *self.by_form):
            yield {"scale": self.scale, "size_from": self.size_from, "size_to": self.size_to, "form": form}, gain


def next_batch(
    fit: CurveFit, *, n_more: float | None = None, factor: float = 2.0, size_from: float | None = None
) -> NextBatch:
    """The gain that the next batch of unique examples is expected to bring.

    Parameters
    ----------
    fit
        From `fit_curves`, whose `conf_level` it takes.
    n_more
        Examples of the batch; None: `factor` times the examples there are.
    factor
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
    end = start * factor if n_more is None else start + n_more
    if not (math.isfinite(end) and end > start >= 0):
        raise EstimationError(f"the batch must add examples: found {start:g} to {end:g}.")
    whole = NextBatch(
        n_items=data.n_items,
        n_clusters=len(data.clusters),
        method="GLS profile, union of laws",
        size_from=start,
        size_to=end,
        scale=data.scale,
        conf_level=fit.conf_level,
    )
    growth = fit_growth(fit)
    laws = (*fit.accepted, *((growth,) if growth is not None and not growth.rejected else ()))
    if not laws:
        return replace(whole, status="refused", remarks=(fit.no_law,) if fit.no_law else ())
    gains = [_gain(f, data.bounds, start, end) for f in laws]
    leading = min(range(len(laws)), key=lambda i: laws[i].solutions.least + 2 * laws[i].form.n_parameters)
    remarks = list(extrapolation("gain", end, float(data.sizes.max())))
    if remarks:
        remarks.append(remark(Reason.ONE_LAW_GROWS if laws[-1] is growth else Reason.ALL_LAWS_SATURATE))
    return replace(
        whole,
        estimate=gains[leading].estimate,
        conf_low=min(gain.conf_low for gain in gains),
        conf_high=max(gain.conf_high for gain in gains),
        by_form=tuple((f.form.name, gain) for f, gain in zip(laws, gains, strict=True)),
        remarks=(*fit.remarks, *remarks),
    )


def _gain(fit: FormFit, bounds: CurveBounds, start: float, end: float) -> Estimate:
    """The gain by one form with its profile interval."""
    s = fit.solutions
    left = fit.form.room_left(np.array([start, end]), s.shapes)
    row = left[:, 0] - left[:, 1]
    most = bounds.high - (s.beta[:, 1] - s.beta[:, 0] * left[:, 0])  # what is left at the start, whatever the law
    gains, spread = np.minimum(s.beta[:, 0] * row, most), np.maximum(s.inverse[:, 0, 0], 0.0) * row**2
    room = s.least + fit.cutoff - s.rss
    inside = room >= 0
    reach = np.sqrt(np.maximum(room, 0.0) / np.where(spread > 1e-24, spread, np.inf))
    ends = []
    for sign in (-1.0, 1.0):
        # The least-squares solution moved along the gain until the residual meets the cut-off.
        moved = s.beta + sign * (s.inverse[:, :, 0] * (row * reach)[:, None])
        ok = inside & bounds.hold(moved[:, 0], moved[:, 1])
        room_moved = bounds.high - (moved[:, 1] - moved[:, 0] * left[:, 0])
        ends.append(np.concatenate([np.minimum(moved[:, 0] * row, room_moved)[ok], gains[inside & s.feasible]]))
    low, high = max(float(ends[0].min()), 0.0), float(ends[1].max())
    return Estimate(float(gains[s.best]), conf_low=low, conf_high=high, method="GLS profile")
