"""The distillation file: one student, and everything that its making depends on.

A value given as a list is a factor of a *study*, of which this file is one cell; here it is refused. Words of the
design that this version cannot do yet stand in `NOT_YET` and are refused with their reason.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from capgap.distillation.config_keys import (
    AdaptationName,
    BuiltStudent,
    CacheKeys,
    ContextKeys,
    DataKeys,
    EvaluateKeys,
    GenerationKeys,
    LoraKeys,
    ObjectiveKeys,
    OnPolicyKeys,
    PrunedStudent,
    ScratchStudent,
    SoftPromptKeys,
    StrictKeys,
    StudentSpec,
    SupervisionName,
    TeamKeys,
    Texts,
    TraceWeights,
    TrainingKeys,
)
from capgap.errors import DistillError

__all__ = [
    "ADAPTATIONS",
    "NOT_YET",
    "SUPERVISIONS",
    "BuiltStudent",
    "DistillConfig",
    "PrunedStudent",
    "ScratchStudent",
    "load_config",
]

SUPERVISIONS: dict[str, str] = {
    "gold_answers": "the prompts with their gold answers; no teacher: the control of `answers`",
    "gold_traces": "the prompts with their gold steps and answers; no teacher: the control of `traces`",
    "answers": "the teacher's final answers",
    "traces": "the teacher's reasoning and answers",
    "logits": "the teacher's distribution over every next token of a text",
    "context": "the distributions of a teacher that sees a system prompt or examples which the student never does",
    "on_policy": "the teacher's distributions over texts that the student writes as it learns",
}
"""What a student may learn from."""

ADAPTATIONS: dict[str, str] = {
    "full": "every weight trains",
    "lora": "low-rank adapters train, the base stays as it is",
    "soft_prompt": "virtual tokens before every prompt train, the base stays as it is",
}
"""Which weights may train."""

NOT_YET: dict[str, str] = {
    "hypotheses": "they belong to a study, which `capgap study` will run",
    "study": "one file here is one student, and this key holds a factor of a study; "
    "keep one value, or use `capgap study` (a later version)",
}
"""Known words of the design that this version refuses, each with the reason."""

# Lists that are lists by nature; every other one is a factor.
_PLAIN_LISTS = (
    ("teacher",),
    ("team", "weights"),
    ("data", "tasks"),
    ("lora", "targets"),
    ("training", "log_to"),
    ("evaluate", "battery"),
)


def _not_yet(word: str) -> str:
    return f"{word!r} is not in this version: {NOT_YET[word]}."


_BELONGS: dict[str, tuple[str, ...]] = {
    "texts": ("logits", "context"),
    "trace_weights": ("gold_traces", "traces", "logits", "context"),
    "objective": ("logits", "context", "on_policy"),
    "cache": ("logits", "context"),
    "context": ("context",),
    "on_policy": ("on_policy",),
}
"""Keys that say something for some ways of supervision only."""


class DistillConfig(StrictKeys):
    """One distillation file."""

    name: str = Field(min_length=1)
    """Name of the student."""
    teacher: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """A model word, or a list of them: one team of teachers."""
    team: TeamKeys = TeamKeys()
    """How a team of teachers becomes one."""
    student: StudentSpec
    """A model word, or what to build."""
    data: DataKeys
    """The examples."""
    n_examples: int | None = Field(None, ge=1)
    """How many of them; the smaller number is always a part of the greater. Default: all."""
    diversity: Literal["single", "multi", "universal"] = "universal"
    """One task, the tasks of one capability, or all."""
    train_tasks: str | None = None
    """The task (``single``) or the capability (``multi``)."""
    supervision: SupervisionName
    """One of `SUPERVISIONS`."""
    adaptation: AdaptationName = "full"
    """One of `ADAPTATIONS`."""
    lora: LoraKeys = LoraKeys()
    """The adapter, where there is one."""
    soft_prompt: SoftPromptKeys = SoftPromptKeys()
    """The virtual tokens, where there are any."""
    texts: Texts | None = None
    """For ``logits`` and ``context``: the texts over which distributions are learnt; default ``traces``, what the
    teacher itself writes: over texts that it would not write, its distributions say how to leave them."""
    trace_weights: TraceWeights = TraceWeights()
    """Where texts have steps: what their tokens weigh."""
    objective: ObjectiveKeys = ObjectiveKeys()
    """For ``logits``, ``context`` and ``on_policy``: what is minimised."""
    cache: CacheKeys = CacheKeys()
    """For ``logits`` and ``context``: how the teacher's distributions are kept."""
    context: ContextKeys = ContextKeys()
    """For ``context``: what the teacher sees besides."""
    on_policy: OnPolicyKeys = OnPolicyKeys()
    """For ``on_policy``: how the student writes."""
    seed: int = Field(0, ge=0)
    """Of the adapter's first weights, dropout and the order of the examples."""
    data_seed: int | None = Field(None, ge=0)
    """Of the choice of examples; default: the seed."""
    training: TrainingKeys = TrainingKeys()
    """How it is trained."""
    generation: GenerationKeys = GenerationKeys()
    """How the teacher answers."""
    evaluate: EvaluateKeys | None = None
    """What to measure when it is done."""

    @field_validator("teacher", mode="before")
    @classmethod
    def _one_team(cls, value: Any) -> Any:
        if isinstance(value, list) and any(isinstance(member, list) for member in value):
            raise ValueError(f"teams to choose from: {NOT_YET['study']}.")
        if value is None:
            return ()
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.teacher and not self.is_control:
            raise ValueError(
                f"supervision {self.supervision!r} needs the key 'teacher'; "
                "'gold_answers' and 'gold_traces' do without."
            )
        for key, ways in _BELONGS.items():
            if key in self.model_fields_set and self.supervision not in ways:
                raise ValueError(f"{key!r} belongs to supervision: {' or '.join(ways)}, not {self.supervision}.")
        if self.trace_weights != TraceWeights() and not self.told.endswith("traces"):
            raise ValueError(f"trace_weights belong to texts with steps, and these are {self.told}.")
        if self.supervision == "context" and self.context == ContextKeys():
            raise ValueError("supervision: context needs the key 'context': a system prompt, or examples.")
        self._kept_as_it_must_be()
        self._a_team()
        if (self.diversity == "universal") != (self.train_tasks is None):
            wanted = {"single": "the task", "multi": "the capability"}.get(self.diversity)
            raise ValueError(
                f"diversity: {self.diversity} needs the key 'train_tasks': {wanted}."
                if wanted
                else "'train_tasks' goes with diversity: single (a task) or multi (a capability)."
            )
        return self

    def _a_team(self) -> None:
        """Refuse what a team cannot give."""
        if "team" in self.model_fields_set and len(self.teacher) < 2:
            raise ValueError("'team' says how several teachers become one; name them as a list under 'teacher'.")
        if self.supervision == "on_policy" and len(self.teacher) > 1:
            raise ValueError("on_policy has one judge in memory; name one teacher.")
        if self.team.weights is not None and len(self.team.weights) != len(self.teacher):
            raise ValueError(f"team.weights has {len(self.team.weights)} numbers for {len(self.teacher)} teachers.")
        if len(self.teacher) > 1 and self.distributions and self.cache.mode == "top_k":
            raise ValueError(
                "cache.mode: top_k: the likeliest tokens of several teachers differ, so that they have no "
                "mixture; use mode: hidden or sample."
            )

    def _kept_as_it_must_be(self) -> None:
        """Refuse what a form of the cache cannot give."""
        mode, asked = self.cache.mode, self.objective
        if mode == "sample" and self.divergence != "forward_kl":
            raise ValueError(f"cache.mode: sample estimates forward_kl without bias, and not {self.divergence}.")
        if mode == "top_k" and asked.temperature != 1:
            raise ValueError("cache.mode: top_k holds the likeliest tokens at temperature 1; use mode: hidden.")

    @property
    def is_control(self) -> bool:
        """Whether the targets are gold, so that no teacher takes part."""
        return self.supervision.startswith("gold_")

    @property
    def told(self) -> Texts:
        """Where the texts come from that the student is trained on."""
        match self.supervision:
            case "logits" | "context":
                return self.texts or "traces"
            case "on_policy":  # prompts alone count
                return "gold_answers"
            case _ as texts:
                return texts

    @property
    def lead(self) -> str | None:
        """The first teacher."""
        return self.teacher[0] if self.teacher else None

    @property
    def shares(self) -> tuple[float, ...]:
        """Share of each teacher in a mixture of their distributions."""
        weights = self.team.weights or (1.0,) * len(self.teacher)
        return tuple(weight / sum(weights) for weight in weights)

    @property
    def distributions(self) -> bool:
        """Whether the teacher's distributions are learnt, not texts alone."""
        return self.supervision in ("logits", "context", "on_policy")

    @property
    def divergence(self) -> str:
        """The divergence, with the default that the supervision asks for."""
        return self.objective.divergence or ("reverse_kl" if self.supervision == "on_policy" else "forward_kl")

    @property
    def lr(self) -> float:
        """The peak learning rate, with the default that the adaptation asks for."""
        return self.training.lr or {"full": 2e-5, "lora": 2e-4, "soft_prompt": 3e-2}[self.adaptation]

    @property
    def effective_data_seed(self) -> int:
        """The seed that chooses the examples."""
        return self.seed if self.data_seed is None else self.data_seed

    def permitting(self, allow: Collection[str]) -> Self:
        """The same, with ``allow_code`` or ``allow_pickle`` for each of its checkpoints that does not say otherwise."""
        from capgap.models import permitted

        if not allow:
            return self
        student = self.student
        if isinstance(student, str):
            student = permitted(student, allow)
        elif isinstance(student, PrunedStudent):
            student = student.model_copy(update={"prune": permitted(student.prune, allow)})
        elif isinstance(student, ScratchStudent):
            student = student.model_copy(update={"tokenizer": permitted(student.tokenizer, allow)})
        teachers = tuple(permitted(word, allow) for word in self.teacher)
        return self.model_copy(update={"student": student, "teacher": teachers})

    @property
    def canonical(self) -> dict[str, Any]:
        """All that decides the student, as plain data: the same for two files that ask for the same student."""
        told = self.model_dump(mode="json", exclude={"evaluate", "name"})
        told["data_seed"] = self.effective_data_seed
        told["training"]["lr"] = self.lr
        for key in ("save_minutes", "keep_checkpoints", "pass_tokens", "gradient_checkpointing", "log_to"):
            del told["training"][key]
        if self.is_control:
            del told["teacher"], told["generation"], told["team"]
        elif self.told.startswith("gold_"):
            del told["generation"]
        for adaptation in ("lora", "soft_prompt"):
            if self.adaptation != adaptation:
                del told[adaptation]
        del told["cache"]["folder"]
        told["texts"], told["objective"]["divergence"] = self.told, self.divergence
        for key, wanted in _BELONGS.items():
            if self.supervision not in wanted:
                del told[key]
        return told

    @property
    def hash(self) -> str:
        """Hex digest of `canonical`."""
        return hashlib.sha256(json.dumps(self.canonical, sort_keys=True).encode()).hexdigest()[:16]


def load_config(path: Path | str) -> DistillConfig:
    """The distillation file at `path`.

    Raises
    ------
    DistillError
        It is missing, is no YAML, has an unknown key, a wrong value, or a list where one value is meant.
    """
    from capgap.battery import read_yaml

    document = read_yaml(path)
    _refuse_factors(document.data, document.where)
    return document.validated(DistillConfig, error=DistillError, what="distillation file")


def _refuse_factors(data: Any, where: Callable[[tuple[str | int, ...]], str], trail: tuple[str, ...] = ()) -> None:
    """Raise where a value is a list though the key takes one: a factor of a study."""
    if not isinstance(data, Mapping):
        return
    for key, value in data.items():
        here = (*trail, str(key))
        if here == ("hypotheses",):
            raise DistillError(f"{where(here)}: {_not_yet('hypotheses')}")
        if isinstance(value, list) and here not in _PLAIN_LISTS:
            raise DistillError(f"{where(here)}: found a list: {NOT_YET['study']}.")
        _refuse_factors(value, where, here)
