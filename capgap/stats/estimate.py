"""`Estimate`, a number with its interval and remarks; `EstimateSet`, several of them; t intervals and exact bounds."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Self

from scipy import special

from capgap.schema.remarks import Reason, Remark, first_limiting_reason, remark, render

EstimateStatus = Literal["ok", "open", "refused"]

FEW_CLUSTERS = 6
"""Below so many clusters the coverage of the clustered intervals was never measured."""


@dataclass(frozen=True)
class RemarkedResult:
    """What carries remarks: codes with figures, from which its reason and its note are made."""

    remarks: tuple[Remark, ...] = field(default=(), kw_only=True)
    """What a reader must know, as codes; the reason first, where it is refused or open."""

    @property
    def reason(self) -> Reason | None:
        """The code that refuses or qualifies it."""
        return first_limiting_reason(self.remarks)

    @property
    def remark_codes(self) -> tuple[Reason, ...]:
        """The codes of all remarks, those that only inform too."""
        return tuple(remark.code for remark in self.remarks)

    @property
    def note(self) -> str:
        """The remarks as prose."""
        return render(self.remarks)

    def noting(self, *remarks: Remark) -> Self:
        """The same with further remarks."""
        return replace(self, remarks=(*self.remarks, *remarks))


@dataclass(frozen=True)
class Estimate(RemarkedResult):
    """One number with its interval; what is unknown is NaN, never zero."""

    estimate: float = math.nan
    """The point estimate."""
    std_error: float = math.nan
    """Its standard error; NaN where the method has none (exact, score and degenerate cases)."""
    df: float = math.nan
    """Degrees of freedom of the t reference; NaN where none is used."""
    conf_low: float = math.nan
    """Lower end of the interval."""
    conf_high: float = math.nan
    """Upper end of the interval."""
    p_value: float = math.nan
    """Two-sided p-value against `null_value`."""
    null_value: float = math.nan
    """What the p-value is tested against."""
    n_items: int = 0
    """Items that the estimate rests on."""
    n_clusters: int = 0
    """Clusters that they stand in."""
    method: str = ""
    """Name of the estimator of the interval."""
    status: EstimateStatus = "ok"
    """``ok``, ``open`` (an end of the interval is unknown) or ``refused`` (no number)."""

    def record(self) -> dict[str, Any]:
        """Its fields as one row; the remarks as ``reason`` and ``note``."""
        values = {f.name: getattr(self, f.name) for f in fields(Estimate) if f.name != "remarks"}
        return {**values, "reason": self.reason, "note": self.note}

    def __str__(self) -> str:
        """Number, interval, degrees of freedom and p-value, as far as they are known, and the note."""
        if self.status == "refused":
            return f"refused, {self.note}"
        interval = f" [{_show_value(self.conf_low)}, {_show_value(self.conf_high)}]"
        text_parts = [
            _show_value(self.estimate) + ("" if math.isnan(self.conf_low) and math.isnan(self.conf_high) else interval),
            *([f"df = {self.df:.1f}"] if math.isfinite(self.df) else []),
            *([f"p = {self.p_value:.3g}"] if math.isfinite(self.p_value) else []),
        ]
        return ", ".join(text_parts) + (f" ({self.note})" if self.note else "")


@dataclass(frozen=True)
class EstimateSet(RemarkedResult):
    """Estimates that belong together; a subclass says which, and gets its rows and its text from here."""

    @property
    def heading(self) -> str:
        """First line of the summary."""
        raise NotImplementedError

    def estimates(self) -> Iterator[tuple[dict[str, Any], Estimate]]:
        """Each number after its labels: what tells it from the others, and figures that belong to it."""
        raise NotImplementedError

    def tidy(self) -> list[dict[str, Any]]:
        """One row for each number: its labels and the fields of `Estimate`."""
        return [{**labels, **estimate.record()} for labels, estimate in self.estimates()]

    def summary(self) -> str:
        """Plain text: the heading, a line for each number, the note."""
        lines = [self.heading]
        for labels, estimate in self.estimates():
            words = (
                value if isinstance(value, str) else f"{name} {_show_value(value)}"
                for name, value in labels.items()
                if value not in ("", None) and value == value  # NaN is unlike itself
            )
            lines.append(f"  {', '.join(words)}: {estimate}")
        text = "\n".join(lines)
        return text if self.note in text else f"{text}\nNote: {self.note}."


def _show_value(value: float) -> str:
    """A number to three digits, thousands not as powers of ten."""
    return f"{value:,.0f}" if 1000 <= abs(value) < math.inf else f"{value:.3g}"


def refused(*remarks: Remark, n_items: int = 0, n_clusters: int = 0, method: str = "") -> Estimate:
    """An estimate without a number, and the reason why first."""
    return Estimate(n_items=n_items, n_clusters=n_clusters, method=method, status="refused", remarks=remarks)


def few_clusters(n_clusters: int, min_clusters: int = FEW_CLUSTERS) -> tuple[Remark, ...]:
    """A remark where the clusters are fewer than the coverage of an interval was ever measured with; else none."""
    return () if n_clusters >= min_clusters else (remark(Reason.FEW_CLUSTERS, n=n_clusters, least=min_clusters),)


def t_critical(df: float, conf_level: float) -> float:
    """The two-sided critical value of Student's t; of the normal where `df` is infinite."""
    tail = 0.5 + conf_level / 2
    return float(special.ndtri(tail)) if math.isinf(df) else float(special.stdtrit(df, tail))


def t_p_value(statistic: float, df: float) -> float:
    """The two-sided p-value of a t statistic."""
    if math.isinf(df):
        return float(2 * special.ndtr(-abs(statistic)))
    return float(2 * special.stdtr(df, -abs(statistic)))


def t_estimate(
    estimate: float,
    std_error: float,
    df: float,
    conf_level: float,
    *,
    null: float = 0.0,
    bounds: tuple[float, float] = (-math.inf, math.inf),
    **fields: Any,
) -> Estimate:
    """An estimate with its t interval, cut at the values that are possible, and its p-value.

    Parameters
    ----------
    estimate, std_error, df
        The number, its standard error (above zero), and the degrees of freedom of the t reference.
    conf_level
        Of the interval.
    null
        Value to test against; NaN for no test.
    bounds
        The possible values.
    fields
        Further fields of `Estimate`.
    """
    half_width = t_critical(df, conf_level) * std_error
    low, high = max(bounds[0], estimate - half_width), min(bounds[1], estimate + half_width)
    p_value = t_p_value((estimate - null) / std_error, df) if math.isfinite(null) else math.nan
    return Estimate(estimate, std_error, df, low, high, p_value, null, **fields)


def no_variation_bound(n_effective: float, conf_level: float) -> float:
    """How far a mean may lie from a sample without any variation, for values that may move by 1.

    Notes
    -----
    Where n independent units all agree, the share of units that would not is below ``1 - (alpha/2)^(1/n)`` with
    confidence ``1 - alpha/2`` (Clopper & Pearson 1934, no event seen). For a weighted mean over strata the worst case
    puts all deviating units into the stratum with the smallest ratio of units to weight, which is `n_effective`.
    """
    return float(1 - ((1 - conf_level) / 2) ** (1 / max(n_effective, 1.0)))
