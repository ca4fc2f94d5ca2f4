"""The distillation file: one student, and everything that its making depends on.

A value given as a list is a factor of a *study*, of which this file is one cell; here it is refused. Words of the
design that this version cannot do yet stand in `NOT_YET` and are refused with their reason.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from capgap.errors import DistillError

__all__ = [
    "ADAPTATIONS",
    "NOT_YET",
    "SUPERVISIONS",
    "Config",
    "Data",
    "Evaluate",
    "CacheFile",
    "Generation",
    "Lora",
    "Microworld",
    "ObjectiveFile",
    "Pruned",
    "Scratch",
    "SoftPrompt",
    "Training",
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
    "teams": "several teachers for one student; name one",
    "hypotheses": "they belong to a study, which `capgap study` will run",
    "study": "one file here is one student, and this key holds a factor of a study; "
    "keep one value, or use `capgap study` (a later version)",
}
"""Known words of the design that this version refuses, each with the reason."""

# Lists that are lists by nature; every other one is a factor.
_PLAIN_LISTS = (("teacher",), ("data", "tasks"), ("lora", "targets"), ("training", "log_to"), ("evaluate", "battery"))


def _not_yet(word: str) -> str:
    return f"{word!r} is not in this version: {NOT_YET[word]}."


def _share(value: float) -> float:
    if not 0 <= value < 1:
        raise ValueError(f"expected a share, from 0 up to but not including 1, found {value:g}.")
    return value


Supervision = Literal["gold_answers", "gold_traces", "answers", "traces", "logits", "context", "on_policy"]
Texts = Literal["gold_answers", "gold_traces", "answers", "traces"]
Adaptation = Literal["full", "lora", "soft_prompt"]
Share = Annotated[float, AfterValidator(_share)]
Words = Annotated[tuple[str, ...], Field(strict=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Microworld(_Strict):
    """A base student of the embedded world, built when asked."""

    layers: int = Field(2, ge=1, le=16)
    """Transformer blocks."""
    width: int = Field(64, ge=8, le=1024)
    """Hidden size."""
    heads: int | None = Field(None, ge=1)
    """Attention heads; default: one for each 16 of width."""
    seed: int = Field(0, ge=0)
    """Seed of its first weights and of its pretraining text."""


class Built(_Strict):
    """A student of the embedded world that no checkpoint holds yet."""

    microworld: Microworld
    """Layers, width, heads and seed."""


class Pruned(_Strict):
    """A checkpoint with fewer layers: those that change their input least are taken out."""

    prune: str = Field(min_length=1)
    """A model word."""
    layers: int = Field(ge=1)
    """How many stay."""


class Scratch(_Strict):
    """A student with random weights."""

    config: str | dict[str, Any]
    """A checkpoint or a ``config.json`` to take the shape of, or the shape itself, with ``model_type``."""
    tokenizer: str = Field(min_length=1)
    """A checkpoint whose tokenizer it gets."""
    seed: int = Field(0, ge=0)
    """Of its weights."""


_WORD = "a model word"
_KINDS: dict[str, type[BaseModel]] = {"microworld": Built, "prune": Pruned, "config": Scratch}


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return next((key for key in _KINDS if key in value), "microworld")
    return next((key for key, kind in _KINDS.items() if isinstance(value, kind)), _WORD)


Student = Annotated[
    Annotated[str, Tag(_WORD)]
    | Annotated[Built, Tag("microworld")]
    | Annotated[Pruned, Tag("prune")]
    | Annotated[Scratch, Tag("config")],
    Discriminator(_kind),
]


class Data(_Strict):
    """Where the examples come from: the training parts of a battery, or a JSONL file."""

    battery: str | None = None
    """Name or file of a battery whose tasks have ``train`` data."""
    tasks: Words | None = None
    """Only these of its tasks."""
    file: str | None = None
    """JSONL with ``prompt`` and ``completion`` (and ``rationale``), or with ``messages``."""
    extract: str | None = None
    """For a file: where a text holds its final answer (a regular expression, as in a battery)."""
    answer_prefix: str = " "
    """For a file: what stands between the rationale and the answer."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.battery is None) == (self.file is None):
            raise ValueError("expected exactly one of 'battery' and 'file'.")
        if self.file is not None and self.tasks is not None:
            raise ValueError("'tasks' chooses among a battery's tasks; beside 'file' it says nothing.")
        if self.battery is not None and self.extract is not None:
            raise ValueError("'extract' belongs to a file; the tasks of a battery say how their answers are found.")
        return self


class Lora(_Strict):
    """The adapter's shape."""

    rank: int = Field(16, ge=1)
    """Rank of each update."""
    alpha: float | None = Field(None, gt=0)
    """Numerator of its scale ``alpha / rank``; default: twice the rank."""
    dropout: Share = 0.0
    """Dropout on its input."""
    targets: str | Words = "all-linear"
    """Which linear layers get one, as peft names them; default: all but the language-model head."""


class SoftPrompt(_Strict):
    """Virtual tokens that stand before every prompt."""

    tokens: int = Field(20, ge=1, le=1000)
    """How many."""
    text: str | None = None
    """A text whose embeddings they begin as; default: embeddings of words of the vocabulary, drawn by the seed."""


class ObjectiveFile(_Strict):
    """What is minimised where the teacher's distributions are learnt: nats per token that carries loss."""

    divergence: Literal["forward_kl", "reverse_kl", "jsd"] | None = None
    """Between the teacher's next-token distribution and the student's; default ``forward_kl``, and ``reverse_kl`` over
    the student's own texts."""
    temperature: float = Field(1.0, gt=0)
    """Divides both sides' logits; the gradient is multiplied by its square, which keeps its size."""
    beta: float = Field(0.5, gt=0, lt=1)
    """Of ``jsd``: near 0 it is forward KL, near 1 reverse KL, up to a factor."""
    weight: float = Field(1.0, gt=0)
    """Of the divergence."""
    cross_entropy: float = Field(0.0, ge=0)
    """Weight of the cross-entropy of the text's own tokens, beside the divergence."""
    max_entropy: float | None = Field(None, gt=0)
    """Learn the distribution only where the teacher's entropy is at most this, in nats."""


class CacheFile(_Strict):
    """How the teacher's distributions are kept."""

    mode: Literal["auto", "hidden", "top_k", "sample"] = "auto"
    """``hidden``: last hidden states, exact up to rounding; ``top_k``: the likeliest tokens and a tail, biased;
    ``sample``: drawn tokens, unbiased, forward KL only; ``auto``: hidden states while they are under `max_gb`."""
    k: int = Field(32, ge=1, le=4096)
    """Tokens of ``top_k``, draws of ``sample``."""
    max_gb: float = Field(20.0, gt=0)
    """Where ``auto`` turns to ``sample``."""
    folder: str | None = None
    """Where it lies; default: ``teacher-cache`` beside the student, so that the students of a study share it."""


class ContextFile(_Strict):
    """What the teacher alone sees."""

    system: str | None = None
    """A system prompt."""
    examples: int = Field(0, ge=0, le=100)
    """Solved examples of the same task before each prompt."""


class OnPolicyFile(_Strict):
    """How the student writes what is judged."""

    temperature: float = Field(1.0, gt=0)
    """At which it samples."""
    max_tokens: int | None = Field(None, ge=1)
    """Longest text; default: what the task gives its answers, at most 256."""


class Training(_Strict):
    """The optimizer, the batch, and how long."""

    lr: float | None = Field(None, gt=0)
    """Peak learning rate; default 2e-5 where all weights train, 2e-4 for an adapter."""
    epochs: float | None = Field(None, gt=0)
    """How often each example is seen; default 3."""
    max_steps: int | None = Field(None, ge=1)
    """Optimizer steps, instead of epochs: equal for all students of a study, however many examples they have."""
    batch_size: int = Field(16, ge=1)
    """Examples in one optimizer step."""
    pass_tokens: int = Field(2048, ge=16)
    """Tokens of one forward pass, at most. A step is cut into so many passes as it needs, and its loss is divided once
    by all of its tokens, so this bounds memory and changes nothing else."""
    warmup: Share = 0.05
    """Share of the steps in which the learning rate rises."""
    schedule: Literal["linear", "cosine", "constant"] = "cosine"
    """How it falls after that."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay."""
    beta2: float = Field(0.999, gt=0, lt=1)
    """Decay of Adam's second moment; smaller forgets faster, which short runs like."""
    max_grad_norm: float = Field(1.0, ge=0)
    """Gradients are scaled down to this norm; 0 never scales."""
    max_length: int | None = Field(None, ge=2)
    """Longest example in tokens; default: what the student can hold, at most 2,048."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """``bfloat16`` computes in mixed precision; the weights stay in float32."""
    save_minutes: float = Field(10.0, gt=0)
    """A checkpoint is kept at least this often, so that a killed run goes on."""
    save_steps: int | None = Field(None, ge=1)
    """A checkpoint every so many steps, instead."""
    keep_checkpoints: bool = False
    """Keep all of them when done: points of a learning curve."""
    gradient_checkpointing: bool = False
    """Compute activations twice instead of keeping them: less memory, more time, the same result."""
    log_to: Annotated[tuple[Literal["tensorboard", "wandb", "trackio"], ...], Field(strict=False)] = ()
    """Loggers, as transformers knows them; each needs its package."""

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.epochs is not None and self.max_steps is not None:
            raise ValueError("expected one of 'epochs' and 'max_steps', found both.")
        return self


class Generation(_Strict):
    """How the teacher writes its texts."""

    max_tokens: int | None = Field(None, ge=1)
    """Longest text; default: what the task gives its answers, 512 for a file."""
    temperature: float = Field(0.0, ge=0)
    """0 writes the likeliest text; above 0 it samples."""
    keep: Literal["all", "correct"] = "all"
    """``correct`` drops the examples that the teacher gets wrong."""


class Evaluate(_Strict):
    """What to measure when the student is done."""

    battery: str | Words
    """Names or files of batteries."""
    limit: int | None = Field(None, ge=1)
    """Items per task."""


_BELONGS: dict[str, tuple[str, ...]] = {
    "texts": ("logits", "context"),
    "objective": ("logits", "context", "on_policy"),
    "cache": ("logits", "context"),
    "context": ("context",),
    "on_policy": ("on_policy",),
}
"""Keys that say something for some ways of supervision only."""


class Config(_Strict):
    """One distillation file."""

    name: str = Field(min_length=1)
    """Name of the student."""
    teacher: str | None = None
    """A model word."""
    student: Student
    """A model word, or what to build."""
    data: Data
    """The examples."""
    n_examples: int | None = Field(None, ge=1)
    """How many of them; the smaller number is always a part of the greater. Default: all."""
    diversity: Literal["single", "multi", "universal"] = "universal"
    """One task, the tasks of one capability, or all."""
    train_tasks: str | None = None
    """The task (``single``) or the capability (``multi``)."""
    supervision: Supervision
    """One of `SUPERVISIONS`."""
    adaptation: Adaptation = "full"
    """One of `ADAPTATIONS`."""
    lora: Lora = Lora()
    """The adapter, where there is one."""
    soft_prompt: SoftPrompt = SoftPrompt()
    """The virtual tokens, where there are any."""
    texts: Texts | None = None
    """For ``logits`` and ``context``: the texts over which distributions are learnt; default ``traces``, what the
    teacher itself writes: over texts that it would not write, its distributions say how to leave them."""
    objective: ObjectiveFile = ObjectiveFile()
    """For ``logits``, ``context`` and ``on_policy``: what is minimised."""
    cache: CacheFile = CacheFile()
    """For ``logits`` and ``context``: how the teacher's distributions are kept."""
    context: ContextFile = ContextFile()
    """For ``context``: what the teacher sees besides."""
    on_policy: OnPolicyFile = OnPolicyFile()
    """For ``on_policy``: how the student writes."""
    seed: int = Field(0, ge=0)
    """Of the adapter's first weights, dropout and the order of the examples."""
    data_seed: int | None = Field(None, ge=0)
    """Of the choice of examples; default: the seed."""
    training: Training = Training()
    """How it is trained."""
    generation: Generation = Generation()
    """How the teacher answers."""
    evaluate: Evaluate | None = None
    """What to measure when it is done."""

    @field_validator("teacher", mode="before")
    @classmethod
    def _one_teacher(cls, value: Any) -> Any:
        if isinstance(value, list):
            if any(isinstance(member, list) for member in value):
                raise ValueError(f"teams to choose from: {NOT_YET['study']}.")
            if len(value) != 1:
                raise ValueError(f"several teachers are not in this version: {NOT_YET['teams']}.")
            return value[0]
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.teacher is None and not self.is_control:
            raise ValueError(
                f"supervision {self.supervision!r} needs the key 'teacher'; "
                "'gold_answers' and 'gold_traces' do without."
            )
        for key, ways in _BELONGS.items():
            if key in self.model_fields_set and self.supervision not in ways:
                raise ValueError(f"{key!r} belongs to supervision: {' or '.join(ways)}, not {self.supervision}.")
        if self.supervision == "context" and self.context == ContextFile():
            raise ValueError("supervision: context needs the key 'context': a system prompt, or examples.")
        self._kept_as_it_must_be()
        if (self.diversity == "universal") != (self.train_tasks is None):
            wanted = {"single": "the task", "multi": "the capability"}.get(self.diversity)
            raise ValueError(
                f"diversity: {self.diversity} needs the key 'train_tasks': {wanted}."
                if wanted
                else "'train_tasks' goes with diversity: single (a task) or multi (a capability)."
            )
        return self

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

    @property
    def canonical(self) -> dict[str, Any]:
        """All that decides the student, as plain data: the same for two files that ask for the same student."""
        told = self.model_dump(mode="json", exclude={"evaluate", "name"})
        told["data_seed"] = self.effective_data_seed
        told["training"]["lr"] = self.lr
        for key in ("save_minutes", "keep_checkpoints", "pass_tokens", "gradient_checkpointing", "log_to"):
            del told["training"][key]
        if self.is_control:
            del told["teacher"], told["generation"]
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


def load_config(path: Path | str) -> Config:
    """The distillation file at `path`.

    Raises
    ------
    DistillError
        It is missing, is no YAML, has an unknown key, a wrong value, or a list where one value is meant.
    """
    from capgap.battery import read_yaml

    document = read_yaml(path)
    _refuse_factors(document.data, document.where)
    return document.validated(Config, error=DistillError, what="distillation file")


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
