"""What the next batch of examples would add, by the laws that the data do not reject, that without a ceiling too."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from capgap.errors import EstimationError
from capgap.stats.curves.cost import TENFOLD, examples
from capgap.stats.curves.fit import CurveFit, FormFit, fit_growth
from capgap.stats.curves.solve import CurveBounds
from capgap.stats.estimate import Status

__all__ = ["NextBatch", "next_batch"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class NextBatch:
    """The expected gain in going from one size to a larger one."""

    size_from: float
    """Examples now."""
    size_to: float
    """Examples with the batch."""
    estimate: float
    """Expected gain on the scale of the data, by the leading law."""
    conf_low: float
    """Lowest of the laws' lower ends; never below 0, since the laws rise."""
    conf_high: float
    """Highest of their upper ends."""
    by_form: tuple[tuple[str, float, float, float], ...]
    """Name, estimate, lower and upper end of each accepted law."""
    scale: str
    """``accuracy``, ``per_step`` or ``log_probability``."""
    n_items: int
    """Items."""
    n_clusters: int
    """Clusters that they stand in."""
    conf_level: float
    """Of the interval."""
    status: Status
    """``ok`` or ``refused``."""
    note: str
    """What a reader must know; the reason, where refused."""

    def tidy(self) -> list[dict[str, object]]:
        """The union as one row and one row for each accepted form."""
        shared: dict[str, object] = {
            "quantity": "next_batch_gain",
            "scale": self.scale,
            "size_from": self.size_from,
            "size_to": self.size_to,
            "n_items": self.n_items,
            "n_clusters": self.n_clusters,
        }
        rows = [("union", self.estimate, self.conf_low, self.conf_high), *self.by_form]
        told = [{"status": self.status, "note": self.note}] + [{"status": "ok", "note": ""} for _ in self.by_form]
        return [
            shared | {"form": name, "estimate": estimate, "conf_low": low, "conf_high": high} | more
            for (name, estimate, low, high), more in zip(rows, told, strict=True)
        ]

    def summary(self) -> str:
        """One or two plain sentences."""
        step = f"from {examples(self.size_from)} to {examples(self.size_to)} examples"
        if self.status == "refused":
            return f"Gain {step}: no number. {self.note}."
        told = f"Gain {step}: {self.estimate:+.4f} [{self.conf_low:+.4f}, {self.conf_high:+.4f}] ({self.scale})."
        return told + (f"\nNote: {self.note}." if self.note else "")


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
    shared = (data.scale, data.n_items, len(data.clusters), fit.conf_level)
    growth = fit_growth(fit)
    laws = (*fit.accepted, *((growth,) if growth is not None and not growth.rejected else ()))
    if not laws:
        nan = math.nan
        return NextBatch(start, end, nan, nan, nan, (), *shared, "refused", fit.no_law)
    parts = [(f.form.name, *_gain(f, data.bounds, start, end)) for f in laws]
    leading = min(range(len(laws)), key=lambda i: laws[i].solutions.least + 2 * laws[i].form.n_parameters)
    estimate = parts[leading][1]
    low, high = min(p[2] for p in parts), max(p[3] for p in parts)
    notes = [*fit.notes, *_extrapolated(end, float(data.sizes.max()), [name for name, *_ in parts])]
    return NextBatch(start, end, estimate, low, high, tuple(parts), *shared, "ok", "; ".join(notes))


def _gain(fit: FormFit, bounds: CurveBounds, start: float, end: float) -> tuple[float, float, float]:
    """Estimate, lower and upper end of one form."""
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
    return float(gains[s.best]), max(float(ends[0].min()), 0.0), float(ends[1].max())


def _extrapolated(end: float, largest: float, laws: list[str]) -> list[str]:
    if end <= largest:
        return []
    far = f", more than tenfold ({end / largest:.0f} times)" if end > TENFOLD * largest else ""
    which = "by laws that level off and one that does not" if "logarithmic" in laws else "by laws that all level off"
    return [f"extrapolated beyond the largest size, {examples(largest)}{far}, {which}"]
