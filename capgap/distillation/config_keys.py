"""Pydantic models of the parts of a distillation file: what each key may hold, its default and what it means."""

from collections.abc import Collection
from functools import partial
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from capgap.distillation.supervision import SUPERVISIONS, TEXT_KINDS
from capgap.errors import suggestion


def _refuse_unknown_name(names: Collection[str], name: str) -> str:
    """The name, if a dictionary has it at the time: an entry there is all that a new one needs."""
    if name not in names:
        raise ValueError(f"expected one of {', '.join(names)}, found {name!r}.{suggestion(name, names)}")
    return name


SupervisionName = Annotated[str, AfterValidator(partial(_refuse_unknown_name, SUPERVISIONS))]
TextKindName = Annotated[str, AfterValidator(partial(_refuse_unknown_name, TEXT_KINDS))]
AdaptationName = Literal["full", "lora", "soft_prompt"]
FractionBelowOne = Annotated[float, Field(ge=0, lt=1)]
StringTuple = Annotated[tuple[str, ...], Field(strict=False)]


class StrictKeys(BaseModel):
    """No unknown keys, no values of another type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class MicroworldStudent(StrictKeys):
    """A base student of the embedded world, built when asked."""

    layers: int = Field(2, ge=1, le=16)
    """Transformer blocks."""
    width: int = Field(64, ge=8, le=1024)
    """Hidden size."""
    heads: int | None = Field(None, ge=1)
    """Attention heads; default: one for each 16 of width."""
    seed: int = Field(0, ge=0)
    """Seed of its first weights and of its pretraining text."""


class BuiltStudent(StrictKeys):
    """A student of the embedded world that no checkpoint holds yet."""

    microworld: MicroworldStudent
    """Layers, width, heads and seed."""


class PrunedStudent(StrictKeys):
    """A checkpoint with fewer layers: those that change their input least are taken out."""

    prune: str = Field(min_length=1)
    """A model word."""
    layers: int = Field(ge=1)
    """How many stay."""


class ScratchStudent(StrictKeys):
    """A student with random weights."""

    config: str | dict[str, Any]
    """A checkpoint or a ``config.json`` to take the shape of, or the shape itself, with ``model_type``."""
    tokenizer: str = Field(min_length=1)
    """A checkpoint whose tokenizer it gets."""
    seed: int = Field(0, ge=0)
    """Of its weights."""


_MODEL_SPEC_TAG = "a model word"
_STUDENT_KINDS = {"microworld": BuiltStudent, "prune": PrunedStudent, "config": ScratchStudent}


def _student_kind(value: Any) -> str:
    """The tag of the union's branch, so that a mistake is told of the branch that nearly fits."""
    if isinstance(value, dict):
        return next((key for key in _STUDENT_KINDS if key in value), "microworld")
    return next((key for key, kind in _STUDENT_KINDS.items() if isinstance(value, kind)), _MODEL_SPEC_TAG)


StudentSpec = Annotated[
    Annotated[str, Tag(_MODEL_SPEC_TAG)]
    | Annotated[BuiltStudent, Tag("microworld")]
    | Annotated[PrunedStudent, Tag("prune")]
    | Annotated[ScratchStudent, Tag("config")],
    Discriminator(_student_kind),
]


class DataKeys(StrictKeys):
    """Where the examples come from: the training parts of a battery, a JSONL file, or a data set of the hub."""

    battery: str | None = None
    """Name or file of a battery whose tasks have ``train`` data."""
    tasks: StringTuple | None = None
    """Only these of its tasks."""
    file: str | None = None
    """JSONL with ``prompt`` and ``completion`` (and ``rationale``), or with ``messages``."""
    hub: str | None = Field(None, pattern=r"^[A-Za-z0-9][\w.\-]*(/[A-Za-z0-9][\w.\-]*)?$")
    """Name of a data set on the hub, its rows as the lines of a file."""
    subset: str | None = None
    """The hub's configuration name."""
    split: str = "train"
    """The hub's split."""
    revision: str | None = None
    """The hub's revision."""
    columns: dict[str, str] = Field(default_factory=dict)
    """For a file and the hub: what ``prompt``, ``completion`` … are called there."""
    overlap: Literal["exclude", "mark"] = "exclude"
    """Examples that are also evaluation items: kept out, or kept and counted by ``x_exposure``."""
    near: float = Field(0.8, gt=0, le=1)
    """Share of runs of three words, with the same numbers, from which on an example counts as an item."""
    extract: str | None = None
    """For a file: where a text holds its final answer (a regular expression, as in a battery)."""
    answer_prefix: str = " "
    """For a file: what stands between the rationale and the answer."""

    @model_validator(mode="after")
    def _check_single_source(self) -> Self:
        sources = [key for key in ("battery", "file", "hub") if getattr(self, key) is not None]
        if len(sources) != 1:
            raise ValueError("expected exactly one of 'battery', 'file' and 'hub'.")
        for key, source in (("tasks", "battery"), ("subset", "hub"), ("split", "hub"), ("revision", "hub")):
            if key in self.model_fields_set and sources != [source]:
                raise ValueError(f"{key!r} belongs to {source!r}; beside {sources[0]!r} it says nothing.")
        if self.battery is not None and self.columns:
            raise ValueError("'columns' belongs to a file or the hub; a battery's templates name its columns.")
        if self.battery is not None and self.extract is not None:
            raise ValueError("'extract' belongs to a file; the tasks of a battery say how their answers are found.")
        return self


class LoraKeys(StrictKeys):
    """The adapter's shape."""

    rank: int = Field(16, ge=1)
    """Rank of each update."""
    alpha: float | None = Field(None, gt=0)
    """Numerator of its scale ``alpha / rank``; default: twice the rank."""
    dropout: FractionBelowOne = 0.0
    """Dropout on its input."""
    targets: str | StringTuple = "all-linear"
    """Which linear layers get one, as peft names them; default: all but the language-model head."""


class SoftPromptKeys(StrictKeys):
    """Virtual tokens that stand before every prompt."""

    tokens: int = Field(20, ge=1, le=1000)
    """How many."""
    text: str | None = None
    """A text whose embeddings they begin as; default: embeddings of words of the vocabulary, drawn by the seed."""


class ObjectiveKeys(StrictKeys):
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


class CacheKeys(StrictKeys):
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


class TeacherContextKeys(StrictKeys):
    """What the teacher alone sees."""

    system: str | None = None
    """A system prompt."""
    examples: int = Field(0, ge=0, le=100)
    """Solved examples of the same task before each prompt."""


class OnPolicyKeys(StrictKeys):
    """How the student writes what is judged."""

    temperature: float = Field(1.0, gt=0)
    """At which it samples."""
    max_tokens: int | None = Field(None, ge=1)
    """Longest text; default: what the task gives its answers, at most 256."""


class TrainingKeys(StrictKeys):
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
    warmup: FractionBelowOne = 0.05
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
    def _check_epochs_or_steps(self) -> Self:
        if self.epochs is not None and self.max_steps is not None:
            raise ValueError("expected one of 'epochs' and 'max_steps', found both.")
        return self


class GenerationKeys(StrictKeys):
    """How the teacher writes its texts."""

    max_tokens: int | None = Field(None, ge=1)
    """Longest text; default: what the task gives its answers, 512 for a file."""
    temperature: float = Field(0.0, ge=0)
    """0 writes the likeliest text; above 0 it samples."""
    keep: Literal["all", "correct"] = "all"
    """``correct`` drops the examples that the teacher gets wrong."""


class TraceWeights(StrictKeys):
    """How much a token counts in texts with steps."""

    reasoning: float = Field(1.0, ge=0)
    """Before the answer."""
    answer: float = Field(1.0, gt=0)
    """The answer as ``extract`` finds it, and the end of text."""


class TeacherTeamKeys(StrictKeys):
    """How several teachers become one."""

    choose: Literal["agreement", "task", "confidence"] = "agreement"
    """Whose text is learnt: what most answer, the best on each task, or the one surest of its own text."""
    weights: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(strict=False)] | None = None
    """Share of each teacher's distribution in the mixture; default: equal. They need not add up to 1."""


class EvaluationKeys(StrictKeys):
    """What to measure when the student is done."""

    battery: str | StringTuple
    """Names or files of batteries."""
    limit: int | None = Field(None, ge=1)
    """Items per task."""
