"""The summary of a model's run: identity, facts, notes, seconds; made in this process or in a worker."""

from dataclasses import dataclass
from typing import Any

from capgap import schema
from capgap.models import LoadedModel


@dataclass
class ModelRunSummary:
    """What the run directory keeps of a model that was asked, and what the user should know."""

    name: str
    """The model."""
    fingerprint: str
    """See `LoadedModel`."""
    facts: dict[str, Any]
    """What ``run.json`` says of it: identity, prompting, its row of the models table (``facts``), and seconds."""
    notes: list[str]
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
        facts={
            "identity": model.identity,
            "prompting": model.prompting.as_text(),
            "facts": {key: value for key, value in model.facts.items() if key in schema.MODELS.names},
            "seconds": {key: round(value, 2) for key, value in model.seconds.items()},
        },
        notes=list(dict.fromkeys(model.notes)),
        n_compared=tree.proven.n_requests if tree is not None else 0,
        largest_difference=tree.proven.largest_difference if tree is not None else 0.0,
    )


def comparison_note(summary: ModelRunSummary) -> str:
    """What was compared before a model's results counted, and what that and hashing cost."""
    seconds = summary.facts["seconds"]
    return (
        f"{summary.name}: {summary.n_compared} requests compared with lm-eval's own path in "
        f"{seconds.get('proof', 0.0):.1f} s, largest difference {summary.largest_difference:.1g} nats; weights hashed "
        f"in {seconds.get('hashing', 0.0):.1f} s."
    )
