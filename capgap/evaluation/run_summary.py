"""The summary of a model's run: identity, facts, notes, seconds; made in this process or in a worker."""

from dataclasses import dataclass, field
from typing import Any

from capgap.models import LoadedModel

__all__ = ["ModelRunSummary", "comparison_note", "summarise_run"]


@dataclass
class ModelRunSummary:
    """What the run directory keeps of a model that was asked, and what the user should know."""

    name: str
    """The model."""
    fingerprint: str
    """See `LoadedModel`."""
    identity: dict[str, Any]
    """See `LoadedModel`."""
    prompting: str
    """See `Prompting.as_text`."""
    facts: dict[str, Any]
    """Its row of the models table."""
    notes: list[str] = field(default_factory=list)
    """See `LoadedModel`."""
    seconds: dict[str, float] = field(default_factory=dict)
    """See `LoadedModel`."""
    n_compared: int = 0
    """Requests compared with lm-eval's own path before the prefix tree's results counted."""
    largest_difference: float = 0.0
    """The largest difference among them, in nats."""


def summarise_run(model: LoadedModel) -> ModelRunSummary:
    """The summary of a loaded model's run."""
    tree = model.tree
    return ModelRunSummary(
        name=model.name,
        fingerprint=model.fingerprint,
        identity=model.identity,
        prompting=model.prompting.as_text(),
        facts=model.facts,
        notes=list(dict.fromkeys(model.notes)),
        seconds=dict(model.seconds),
        n_compared=tree.proven.n_requests if tree is not None else 0,
        largest_difference=tree.proven.largest if tree is not None else 0.0,
    )


def comparison_note(summary: ModelRunSummary) -> str:
    """What was compared before a model's results counted, and what that and hashing cost."""
    seconds = summary.seconds
    return (
        f"{summary.name}: {summary.n_compared} requests compared with lm-eval's own path in "
        f"{seconds.get('proof', 0.0):.1f} s, largest difference {summary.largest_difference:.1g} nats; weights hashed "
        f"in {seconds.get('hashing', 0.0):.1f} s."
    )
