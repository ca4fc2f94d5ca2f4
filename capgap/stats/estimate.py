"""What every estimator returns, and the few quantiles that they share."""

import math
from dataclasses import dataclass, replace
from typing import Literal, Self

from scipy import special

from capgap.schema.remarks import Reason, Remark, reason_of, render

__all__ = ["FEW_CLUSTERS", "Estimate", "degenerate_reach", "refused", "t_critical", "t_p_value"]

Status = Literal["ok", "open", "refused"]

FEW_CLUSTERS = 6
"""Below so many clusters the coverage of the clustered intervals was never measured."""


@dataclass(frozen=True)
class Estimate:
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
    status: Status = "ok"
    """``ok``, ``open`` (an end of the interval is unknown) or ``refused`` (no number)."""
    remarks: tuple[Remark, ...] = ()
    """What a reader must know to use the number, as codes; the reason first, where it is refused or open."""

    @property
    def reason(self) -> Reason | None:
        """The code that refuses or qualifies it."""
        return reason_of(self.remarks)

    @property
    def note(self) -> str:
        """The remarks as prose."""
        return render(self.remarks)

    def noting(self, *remarks: Remark | str) -> Self:
        """The same estimate with further remarks."""
        return replace(self, remarks=(*self.remarks, *_coded(remarks)))


def free_text(note: str) -> tuple[Remark, ...]:
    """Transitional: a note without codes."""
    return _coded((note,))


def _coded(remarks: tuple[Remark | str, ...]) -> tuple[Remark, ...]:
    return tuple(
        part
        for remark in remarks
        for part in (
            [Remark(Reason.FREE_TEXT, {"text": text}) for text in remark.split("; ") if text]
            if isinstance(remark, str)
            else [remark]
        )
    )


def refused(*remarks: Remark | str, n_items: int = 0, n_clusters: int = 0, method: str = "") -> Estimate:
    """An estimate without a number, and the reason why first."""
    return Estimate(n_items=n_items, n_clusters=n_clusters, method=method, status="refused", remarks=_coded(remarks))


def t_critical(df: float, conf_level: float) -> float:
    """The two-sided critical value of Student's t; of the normal where `df` is infinite."""
    tail = 0.5 + conf_level / 2
    return float(special.ndtri(tail)) if math.isinf(df) else float(special.stdtrit(df, tail))


def t_p_value(statistic: float, df: float) -> float:
    """The two-sided p-value of a t statistic."""
    if math.isinf(df):
        return float(2 * special.ndtr(-abs(statistic)))
    return float(2 * special.stdtr(df, -abs(statistic)))


def degenerate_reach(n_effective: float, conf_level: float) -> float:
    """How far a mean may lie from a sample without any variation, for values that may move by 1.

    Notes
    -----
    Where n independent units all agree, the share of units that would not is below ``1 - (alpha/2)^(1/n)`` with
    confidence ``1 - alpha/2`` (Clopper & Pearson 1934, no event seen). For a weighted mean over strata the worst case
    puts all deviating units into the stratum with the smallest ratio of units to weight, which is `n_effective`.
    """
    return float(1 - ((1 - conf_level) / 2) ** (1 / max(n_effective, 1.0)))
