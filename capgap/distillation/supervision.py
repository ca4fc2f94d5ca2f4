"""Ways of supervision: for each, the texts, the teacher's signal, the teachers and the keys of the file that it takes.

`SUPERVISIONS` is the one place that knows them; no other module compares the name of a way. A way that combines texts
of `TEXT_KINDS` with a `SignalKind` is an entry here and nothing else. A new gold text has its completion in
`data.targets`, a new text of the teacher's in `teacher.generations`, a new signal its step source in
`training.step_sources`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class TrainingTextKind:
    """A kind of completion that a student is trained on."""

    is_from_teacher: bool
    """Whether a teacher generates it; else it is gold, and comes from the data."""
    has_reasoning: bool
    """Whether reasoning stands before the answer; tasks of choices, which show no steps, are left out then."""


TEXT_KINDS: dict[str, TrainingTextKind] = {
    "gold_answers": TrainingTextKind(is_from_teacher=False, has_reasoning=False),
    "gold_traces": TrainingTextKind(is_from_teacher=False, has_reasoning=True),
    "answers": TrainingTextKind(is_from_teacher=True, has_reasoning=False),
    "traces": TrainingTextKind(is_from_teacher=True, has_reasoning=True),
}
"""Texts to train on."""

SignalKind = Literal["texts", "cached", "online"]
"""What a student is told about each token: the texts' own tokens, by cross-entropy; the teacher's distributions over
fixed texts, computed once and kept on the disk; those over texts that the student samples in every step."""


@dataclass(frozen=True)
class Supervision:
    """One way of supervision."""

    summary: str
    """What the student learns from."""
    texts: str
    """Texts that it is trained on, a key of `TEXT_KINDS`; the default where the file may choose."""
    signal: SignalKind = "texts"
    """See `SignalKind`."""
    is_control: bool = False
    """Whether no teacher takes part: the targets are gold. Every other way needs a teacher."""
    max_teachers: int | None = None
    """Most teachers of a team; None: any number."""
    divergence: str | None = None
    """Default divergence; None where no distributions are learnt."""
    keys: tuple[str, ...] = ()
    """Keys of the file that this way takes and others may not."""
    required: Mapping[str, str] = field(default_factory=dict)
    """Those of them that the file must give, each with what to write there."""

    @property
    def learns_distributions(self) -> bool:
        """Whether the teacher's distributions are learnt, not texts alone."""
        return self.signal != "texts"


_DISTRIBUTION_KEYS = ("texts", "trace_weights", "objective", "cache")

SUPERVISIONS: dict[str, Supervision] = {
    "gold_answers": Supervision(
        "the prompts with their gold answers; no teacher: the control of `answers`",
        texts="gold_answers",
        is_control=True,
    ),
    "gold_traces": Supervision(
        "the prompts with their gold steps and answers; no teacher: the control of `traces`",
        texts="gold_traces",
        is_control=True,
        keys=("trace_weights",),
    ),
    "answers": Supervision("the teacher's final answers", texts="answers"),
    "traces": Supervision("the teacher's reasoning and answers", texts="traces", keys=("trace_weights",)),
    "logits": Supervision(
        "the teacher's distribution over every next token of a text",
        texts="traces",
        signal="cached",
        divergence="forward_kl",
        keys=_DISTRIBUTION_KEYS,
    ),
    "context": Supervision(
        "the distributions of a teacher that sees a system prompt or examples which the student never does",
        texts="traces",
        signal="cached",
        divergence="forward_kl",
        keys=(*_DISTRIBUTION_KEYS, "context"),
        required={"context": "a system prompt, or examples"},
    ),
    "on_policy": Supervision(
        "the teacher's distributions over texts that the student writes as it learns",
        texts="gold_answers",  # only their prompts are used, and their lengths where the plan is laid out
        signal="online",
        max_teachers=1,  # it stays in memory beside the student
        divergence="reverse_kl",
        keys=("objective", "on_policy"),
    ),
}
"""Ways of supervision by the word of the file."""
