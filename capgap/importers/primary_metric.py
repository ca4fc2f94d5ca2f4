"""Which of several metrics counts: the user's, else the first in the source's own order that is a score."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from capgap.errors import UsageError, suggestion
from capgap.importers.values import is_score

__all__ = ["PrimaryMetric", "MetricRequest", "choose_primary"]

Metric = tuple[str, str]
"""A metric and the filter before it."""


@dataclass
class MetricRequest:
    """What the user said about the metric that counts: ``[TASK:]METRIC[,FILTER]``."""

    words: Sequence[str] = ()
    """As they were given; the last one that fits a task holds."""
    used: set[str] = field(default_factory=set)
    """Words that fitted a task."""

    def for_task(self, task: str, known: Sequence[Metric]) -> Metric | None:
        """The wanted metric of a task; None where nothing was said that fits it."""
        found = None
        for word in self.words:
            scope, colon, told = word.rpartition(":")
            if colon and scope != task:
                continue
            metric, comma, name = (part.strip() for part in told.partition(","))
            fits = [one for one in known if one[0] == metric and (not comma or one[1] == name)]
            if fits:
                self.used.add(word)
                found = fits[0]
        return found

    def check_used(self, known: set[Metric]) -> None:
        """Refuse a word that fitted no task.

        Raises
        ------
        UsageError
            With the nearest metric.
        """
        for word in self.words:
            if word not in self.used:
                names = sorted({metric if name == "none" else f"{metric},{name}" for metric, name in known})
                told = word.rpartition(":")[2]
                raise UsageError(f"--primary {word}: no task here has this metric.{suggestion(told, names)}")


@dataclass(frozen=True)
class PrimaryMetric:
    """The metric that counts for one task."""

    metric: Metric
    """Its name and filter."""
    note: str = ""
    """What should be said about the choice; empty where it is the source's first."""


def choose_primary(
    values: Mapping[Metric, Sequence[float | None]], wanted: Metric | None, lower: Collection[str] = ()
) -> PrimaryMetric:
    """The metric that counts.

    Parameters
    ----------
    values
        Metric → its values over the items, in the source's own order of metrics; not empty.
    wanted
        What the user asked for.
    lower
        Metrics of which less is better: none of them is a score.
    """
    first = next(iter(values))
    if wanted is not None:
        return PrimaryMetric(wanted)
    for metric, told in values.items():
        known = [value for value in told if value is not None]
        if known and metric[0] not in lower and all(is_score(value) for value in known):
            note = "" if metric == first else f"{_name(first)} is no score between 0 and 1; {_name(metric)} counts"
            return PrimaryMetric(metric, note)
    return PrimaryMetric(first, f"no metric is a score between 0 and 1; {_name(first)} counts, for want of one")


def _name(metric: Metric) -> str:
    return metric[0] if metric[1] == "none" else ",".join(metric)
