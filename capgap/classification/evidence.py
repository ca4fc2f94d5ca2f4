"""Items' text and evidence on them: what the parts of the classifier hand to each other.

    questions ──text──▶ Evidence ─┐
    declared labels ──▶ Evidence ─┼─pool──▶ Label (one per item, one per task) ──▶ the `labels` table
    answers of models ─▶ Evidence ─┘

Every kind of evidence is a log-odds of `reasoning` with a standard deviation, so that pooling is arithmetic that a
reader can redo by hand, and carries its reasons in words.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class ItemText:
    """The text of an item that the classifier may read."""

    text: str
    """The question, without solved examples and chat template."""
    choices: tuple[str, ...] = ()
    """The answers to choose from; empty where an answer is generated."""
    target: str | None = None
    """The right answer, where it is known."""


@dataclass(frozen=True)
class EvidenceReason:
    """A reason for knowledge or for reasoning, with its weight."""

    words: str
    """A sentence or half of one, which a reader can check against the item."""
    weight: float
    """Its part of the log-odds; above zero speaks for reasoning."""


@dataclass(frozen=True)
class AskedModel:
    """A model whose answers evidence rests on."""

    name: str
    """Its name in tables."""
    weights_hash: str | None = None
    """As in the `models` table; None where nobody knows it."""


@dataclass(frozen=True)
class Evidence:
    """One source's log-odds of reasoning for one item or task, with their standard deviation."""

    kind: str
    """``declared``, ``text`` or ``behaviour``."""
    logit: float
    """Log-odds of reasoning."""
    sd: float
    """Standard deviation of `logit`: how far the source may be off on items of a kind that it has not seen."""
    reasons: tuple[EvidenceReason, ...] = ()
    """Heaviest first."""
    shared: float = 0.8
    """Share of the variance ``sd ** 2`` that the items of one task have in common, and that many items don't mend."""
    models: tuple[AskedModel, ...] = ()
    """Whose answers it rests on; such labels say nothing about a comparison of these models."""

    @property
    def p(self) -> float:
        """Probability of reasoning by the log-odds alone."""
        return 1.0 / (1.0 + math.exp(-max(-700.0, min(700.0, self.logit))))
