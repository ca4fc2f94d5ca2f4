"""What there is to tell of a model that was asked, in this process or another."""

from dataclasses import dataclass, field
from typing import Any

from capgap.models import LoadedModel

__all__ = ["ModelRunSummary", "summarise_run", "proof_line"]


@dataclass
class ModelRunSummary:
    """What a worker tells of a model that it has asked."""

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
    proven: tuple[int, float] = (0, 0.0)
    """Requests compared with lm-eval's own path, and the largest difference in nats."""


def summarise_run(model: LoadedModel) -> ModelRunSummary:
    """What there is to tell of a loaded model."""
    tree = model.tree
    return ModelRunSummary(
        name=model.name,
        fingerprint=model.fingerprint,
        identity=model.identity,
        prompting=model.prompting.as_text(),
        facts=model.facts,
        notes=list(dict.fromkeys(model.notes)),
        seconds=dict(model.seconds),
        proven=(tree.proven.n_requests, tree.proven.largest) if tree is not None else (0, 0.0),
    )


def proof_line(told: ModelRunSummary) -> str:
    """What was compared before a model's results counted, and what that and hashing cost."""
    compared, largest = told.proven
    return (
        f"{told.name}: {compared} requests compared with lm-eval's own path in {told.seconds.get('proof', 0.0):.1f} s, "
        f"largest difference {largest:.1g} nats; weights hashed in {told.seconds.get('hashing', 0.0):.1f} s."
    )
