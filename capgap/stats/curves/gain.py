"""Expected gain of the next batch of examples, by all laws that the data do not reject, a growing one too."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from capgap.errors import EstimationError
from capgap.schema.remarks import count_text
from capgap.stats.curves.cost import remark_extrapolation
from capgap.stats.curves.fit import CurveFit, FormFit
from capgap.stats.curves.laws import LawUnion, describe_laws, find_horizon_refusal, profile_linear
from capgap.stats.curves.solve import CurveBounds
from capgap.stats.estimate import Estimate


@dataclass(frozen=True, kw_only=True)
class NextBatchGain(LawUnion):
    """The expected gain in going from one size to a larger one, on the scale of the data.

    The estimate is that of the accepted laws' average, weighted by likelihood; the interval runs from the lowest of
    their lower ends (never below 0, since the laws rise) to the highest of their upper ends.
    """

    size_from: float
    """Examples now."""
    size_to: float
    """Examples with the batch."""

    @property
    def heading(self) -> str:
        """The step and the scale."""
        return f"Gain from {count_text(self.size_from)} to {count_text(self.size_to)} examples ({self.scale})"

    def labels(self) -> dict[str, Any]:
        """The step and the scale."""
        return {"scale": self.scale, "size_from": self.size_from, "size_to": self.size_to}


def next_batch(
    fit: CurveFit, *, n_new_examples: float | None = None, growth_factor: float = 2.0, size_before: float | None = None
) -> NextBatchGain:
    """The gain that the next batch of unique examples is expected to bring.

    Parameters
    ----------
    fit
        From `fit_curves`, whose `conf_level` it takes.
    n_new_examples
        Examples of the batch; None: `growth_factor` times the examples there are.
    growth_factor
        To how many times the examples, where `n_new_examples` is None.
    size_before
        Examples now; None: the largest size of the data.

    Returns
    -------
    NextBatch
        Refused where no law fits, and beyond four times the largest size.

    Raises
    ------
    EstimationError
        The batch is not above zero.

    Notes
    -----
    It is the gain of the expected curve, for a recipe's mean over seeds, and not that of one more training run.
    """
    data = fit.data
    start = float(data.sizes.max()) if size_before is None else float(size_before)
    end = start * growth_factor if n_new_examples is None else start + n_new_examples
    if not (math.isfinite(end) and end > start >= 0):
        raise EstimationError(f"the batch must add examples: found {start:g} to {end:g}.")
    blank_gain_estimate = NextBatchGain(
        n_items=data.n_items,
        n_clusters=len(data.clusters),
        method="GLS profile, union of laws",
        size_from=start,
        size_to=end,
        scale=data.scale,
        conf_level=fit.conf_level,
    )
    if refusal := find_horizon_refusal(fit, end):
        return replace(blank_gain_estimate, status="refused", remarks=(refusal,))
    gains = [_estimate_form_gain(f, data.bounds, start, end) for f in fit.accepted_fits]
    at_start, at_end = fit.predict([start, end])
    return replace(
        blank_gain_estimate,
        estimate=float(at_end - at_start),
        conf_low=max(min(gain.conf_low for gain in gains), 0.0),
        conf_high=max(gain.conf_high for gain in gains),
        form_estimates=tuple((f.form.name, gain) for f, gain in zip(fit.accepted_fits, gains, strict=True)),
        remarks=(*fit.remarks, *remark_extrapolation("gain", end, float(data.sizes.max())), *describe_laws(fit)),
    )


@dataclass(frozen=True, kw_only=True)
class DoublingRise(LawUnion):
    """The mean rise of the curve with each doubling of the examples, from the smallest size above zero to the largest.

    A line through the logarithm of size says this of a curve that need not be one. No law is asked beyond the data.
    """

    size_from: float
    """The smallest size above zero."""
    size_to: float
    """The largest size."""

    @property
    def heading(self) -> str:
        """The sizes and the scale."""
        sizes = f"{count_text(self.size_from)} to {count_text(self.size_to)} examples"
        return f"Rise with each doubling, {sizes} ({self.scale})"

    def labels(self) -> dict[str, Any]:
        """The sizes and the scale."""
        return {"scale": self.scale, "size_from": self.size_from, "size_to": self.size_to}


def doubling_rise(fit: CurveFit) -> DoublingRise:
    """The mean rise with each doubling between the smallest size above zero and the largest, over all accepted laws."""
    data = fit.data
    start, end = float(data.sizes[data.sizes > 0].min(initial=np.inf)), float(data.sizes.max())
    n_doublings = math.log2(end / start) if 0 < start < end else math.nan
    template = DoublingRise(
        n_items=data.n_items,
        n_clusters=len(data.clusters),
        method="GLS profile, union of laws",
        size_from=start,
        size_to=end,
        scale=data.scale,
        conf_level=fit.conf_level,
    )
    if fit.no_fit_reason:
        return replace(template, status="refused", remarks=(fit.no_fit_reason,))
    gains = [_estimate_form_gain(f, data.bounds, start, end) for f in fit.accepted_fits]
    rises = [
        replace(
            gain,
            estimate=gain.estimate / n_doublings,
            conf_low=gain.conf_low / n_doublings,
            conf_high=gain.conf_high / n_doublings,
        )
        for gain in gains
    ]
    at_start, at_end = fit.predict([start, end])
    return replace(
        template,
        estimate=float(at_end - at_start) / n_doublings,
        conf_low=min(rise.conf_low for rise in rises),
        conf_high=max(rise.conf_high for rise in rises),
        form_estimates=tuple((f.form.name, rise) for f, rise in zip(fit.accepted_fits, rises, strict=True)),
        remarks=(*fit.remarks, *describe_laws(fit)),
    )


def _estimate_form_gain(fit: FormFit, bounds: CurveBounds, start: float, end: float) -> Estimate:
    """The gain by one form with its profile interval: the drop times the room that the batch takes."""
    room_left = fit.form.room_left(np.array([start, end]), fit.solutions.shapes)
    rows = np.zeros((len(room_left), 3))
    rows[:, 0] = room_left[:, 0] - room_left[:, 1]
    gain = profile_linear(fit, bounds, rows)
    return replace(gain, conf_low=max(gain.conf_low, 0.0))
