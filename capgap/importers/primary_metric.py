"""The primary metric of a task: the user's, else the first in the source's own order that is a score."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from capgap.errors import UsageError, suggestion
from capgap.importers.values import is_valid_score

__all__ = ["MetricRequest", "PrimaryMetric", "choose_primary"]

MetricId = tuple[str, str]
"""A metric and the filter before it."""


@dataclass
class MetricRequest:
    """What the user said about the metric that counts: ``[TASK:]METRIC[,FILTER]``."""

    texts: Sequence[str] = ()
    """As they were given; the last one that fits a task holds."""
    used: set[str] = field(default_factory=set)
    """Texts that fitted a task."""
    known: set[MetricId] = field(default_factory=set)
    """Metrics of all tasks so far."""

    def metric_for_task(self, task: str, metrics: Sequence[MetricId]) -> MetricId | None:
        """The wanted metric among those of a task; None where nothing was said that fits it."""
        self.known |= set(metrics)
        requested_metric = None
        for text in self.texts:
            scope, colon, name = text.rpartition(":")
            if colon and scope != task:
                continue
            metric, comma, filter_name = (name_part.strip() for name_part in name.partition(","))
            fitting = [key for key in metrics if key[0] == metric and (not comma or key[1] == filter_name)]
            if fitting:
                self.used.add(text)
                requested_metric = fitting[0]
        return requested_metric

    def check_used(self) -> None:
        """Refuse a text that fitted no task.

        Raises
        ------
        UsageError
            With the nearest metric.
        """
        for text in self.texts:
            if text not in self.used:
                hint = suggestion(text.rpartition(":")[2], map(_name, self.known))
                raise UsageError(f"--primary {text}: no task here has this metric.{hint}")


@dataclass(frozen=True)
class PrimaryMetric:
    """The metric that counts for one task."""

    metric: MetricId
    """Its name and filter."""
    note: str = ""
    """What should be said about the choice; empty where it is the source's first."""


def choose_primary(
    values: Mapping[MetricId, Sequence[float | None]], requested_metric: MetricId | None, lower: Collection[str] = ()
) -> PrimaryMetric:
    """The primary metric of a task, from the values of all its metrics.

    Parameters
    ----------
    values
        Metric → its values over the items, in the source's own order of metrics; not empty.
    requested_metric
        What the user asked for.
    lower
        Metrics of which less is better: none of them is a score.
    """
    if requested_metric is not None:
        return PrimaryMetric(requested_metric)
    default = next(iter(values))
    for metric, item_values in values.items():
        known_values = [value for value in item_values if value is not None]
        if known_values and metric[0] not in lower and all(map(is_valid_score, known_values)):
            note = "" if metric == default else f"{_name(default)} is no score between 0 and 1; {_name(metric)} counts"
            return PrimaryMetric(metric, note)
    return PrimaryMetric(default, f"no metric is a score between 0 and 1; {_name(default)} counts, for want of one")


def _name(metric: MetricId) -> str:
    return metric[0] if metric[1] == "none" else ",".join(metric)
