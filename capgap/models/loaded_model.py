"""`LoadedModel`: an lm-eval `LM` with its facts and the fingerprint of all that can change an answer."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from capgap.models.prompting import PromptSettings

if TYPE_CHECKING:  # at run time it would load torch
    from capgap.models.prefix_tree import TreeScorer


class TreeScoreMismatch(Exception):
    """A model's log-likelihoods as a tree are not lm-eval's; the message says where they differ."""


@dataclass
class LoadedModel:
    """A model ready to be asked: its lm-eval `LM`, facts, identity and limits."""

    name: str
    """Its name in tables and reports."""
    lm: Any
    """An ``lm_eval.api.model.LM``."""
    facts: dict[str, Any]
    """Its row of the models table."""
    identity: dict[str, Any]
    """All that can change an answer, by name."""
    fingerprint: str
    """Hex digest of `identity`."""
    prompting: PromptSettings = field(default_factory=PromptSettings)
    """System prompt, chat template and thinking."""
    batch_tokens: int = 2048
    """Tokens in one forward pass, at most."""
    probe_no_scores_reason: Callable[[], str | None] | None = None
    """Finds out why it gives no log-likelihoods, where that cannot be told before: a server is asked for one."""
    max_batch_requests: int = 64
    """Requests that are handed over at a time, at most; what is handed over is answered, or lost, together."""
    notes: list[str] = field(default_factory=list)
    """What its user should know, one sentence each; filled while it is asked."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Time spent on it beside asking: ``hashing``, ``loading``, ``proof``."""

    @cached_property
    def no_scores_reason(self) -> str | None:
        """Why it gives no log-likelihoods, as the end of a sentence; None where it gives them."""
        return self.probe_no_scores_reason() if self.probe_no_scores_reason is not None else None

    @property
    def can_score(self) -> bool:
        """Whether it gives log-likelihoods."""
        return self.no_scores_reason is None

    @property
    def tree(self) -> "TreeScorer | None":
        """The scorer of its log-likelihoods as a token tree; None: lm-eval's own path."""
        scorer: TreeScorer | None = getattr(self.lm, "tree", None)
        return scorer

    def drop_tree_scoring(self, reason: str) -> None:
        """Take lm-eval's own path from now on, and note the reason."""
        self.lm.tree = None
        self.notes.append(f"{self.name} is asked on lm-eval's own, slower path: {reason}.")


def identity_digest(identity: Mapping[str, Any]) -> str:
    """Hex digest of an identity."""
    text = json.dumps(dict(identity), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
