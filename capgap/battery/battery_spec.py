"""Pydantic models of a battery file: its keys, their types, defaults and descriptions; the JSON Schema is theirs."""

from collections import Counter
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from capgap.battery.extraction import syntax_complaint
from capgap.errors import suggestion
from capgap.schema import CAPABILITIES

__all__ = ["BatterySpec", "DataSpec", "BatteryDefaults", "LmEvalTask", "CustomTask", "VariantSpec", "json_schema"]

AnswerFormat = Literal["choose", "generate"]
Fewshot = Literal["fixed", "per_item", "lm_eval"]
_GENERATE_KEYS = ("stop", "max_tokens", "extract", "repeats", "temperature", "guess")
_FORMAT_KEYS = {"choices", "score", "chance", "shot", "primary", *_GENERATE_KEYS}
"""Keys that a variant of another format does not inherit: only the task's own format understands them."""
SCORE_NAMES_BY_FORMAT = {"choose": ("choice", "choice_norm"), "generate": ("exact", "numeric", "contains", "external")}

Scalar = str | int | float
ApproximateItemCount = Annotated[str, Field(pattern=r"^about [1-9][0-9]{0,8}$")]
SafeName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]{0,99}$")]


class _StrictBatteryModel(BaseModel):
    """Unknown keys are mistakes; a number is no text and a text no number."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _ItemsDescription(_StrictBatteryModel):
    """Description of an entry's items, for readers, and for an estimate of cost where the data are not here."""

    source: str | None = Field(None, description="For readers: whose items these are, and from when.")
    size: Annotated[int, Field(ge=1)] | ApproximateItemCount | None = Field(
        None, description="Items before any limit: a number, or 'about N' where that is not certain."
    )
    length: int | None = Field(None, ge=1, description="Characters of a prompt without solved examples, about.")

    @property
    def n_items(self) -> int | None:
        """The number of `size`; None where the file has none."""
        return int(self.size.removeprefix("about ")) if isinstance(self.size, str) else self.size


class BatteryDefaults(_StrictBatteryModel):
    """Defaults of a battery, for every task that does not set the key itself."""

    num_fewshot: int = Field(0, ge=0, le=64, description="Solved examples before each item.")
    fewshot: Fewshot = Field(
        "fixed",
        description="fixed: one seeded block for all; per_item: a block seeded by the item; lm_eval: its sampler.",
    )
    limit: int | None = Field(None, ge=1, description="At most so many items a task: a seeded sample, never the first.")
    seed: int = Field(0, ge=0, description="Draws the sample and the solved examples.")


class DataSpec(_StrictBatteryModel):
    """Data of a task: a file, or a data set of the Hugging Face hub."""

    file: str | None = Field(None, description="jsonl, json, csv or parquet under this file's folder or the data root.")
    hub: str | None = Field(
        None, pattern=r"^[A-Za-z0-9][\w.\-]*(/[A-Za-z0-9][\w.\-]*)?$", description="Name of a data set on the hub."
    )
    subset: str | None = Field(None, description="The hub's configuration name.")
    revision: str | None = Field(None, description="The hub's revision.")
    split: str | None = Field(None, description="The hub's split whose items are evaluated; default test.")
    train: str | None = Field(None, description="File (or hub split) that distillation may ask.")
    fewshot: str | None = Field(None, description="File (or hub split) that solved examples come from.")

    @model_validator(mode="after")
    def _check_single_source(self) -> "DataSpec":
        if (self.file is None) == (self.hub is None):
            raise ValueError("expected exactly one of 'file' and 'hub'.")
        given_hub_keys = [k for k in ("subset", "revision", "split") if getattr(self, k) is not None]
        if self.file is not None and given_hub_keys:
            raise ValueError(f"{given_hub_keys[0]!r} belongs to a data set of the hub; beside 'file' it says nothing.")
        return self


class GuessSpec(_StrictBatteryModel):
    """How often a guess is right where an answer is generated, and why."""

    value: Scalar = Field(description="From 0 to below 1, or a template that gives it.")
    because: str = Field(min_length=3, max_length=500, description="Why a model that knows nothing is right so often.")


_CHANCE = "Score of a guess among choices; default 1 / number of choices. For a generated answer: guess."
_GUESS = "Score of a guess where an answer is generated, with its reason; default 0."
GUESS_ADVICE = (
    "key 'chance' belongs to choices, and a guess of a generated answer counts 0 unless there is a reason: drop it, or "
    'write guess: {value: 0.5, because: "why a guess is right so often"}.'
)
"""What to write instead of a bare `chance` of generated answers."""


class _PromptAndScoring(_StrictBatteryModel):
    """Keys of prompt and scoring, which a variant may change."""

    format: AnswerFormat | None = Field(None, description="choose: log-likelihood over choices; generate: free text.")
    prompt: str | None = Field(None, description="Template of what the model reads.")
    choices: str | list[Scalar] | None = Field(None, description="Template that gives a list, or a list of templates.")
    target: Scalar | list[Scalar] | None = Field(
        None, description="An integer is an index, a text is a choice, then a letter; a list: any of them counts."
    )
    chance: Scalar | None = Field(None, description=_CHANCE)
    guess: GuessSpec | None = Field(None, description=_GUESS)
    stop: list[str] | None = Field(None, description='Texts that end an answer; default ["\\n"].')
    max_tokens: int | None = Field(None, ge=1, le=131072, description="Longest answer in tokens; default 256.")
    repeats: int | None = Field(None, ge=1, le=1000, description="Answers drawn for each item; default 1.")
    temperature: float | int | None = Field(
        None, ge=0, le=10, description="Of the draws; default 0: the likeliest token, which repeats cannot vary."
    )
    score: str | None = Field(
        None,
        max_length=100,
        description="choice | choice_norm (choose), exact | numeric | contains | external (generate), lm-eval metrics.",
    )
    extract: str | None = Field(None, max_length=500, description="Regular expression; its last match is the answer.")
    shot: str | None = Field(None, description="Template of a solved example's answer; default: the target.")
    delimiter: str | None = Field(
        None, description="Between prompt and answer; default one space, none where either brings white space."
    )
    num_fewshot: int | None = Field(None, ge=0, le=64, description="Solved examples before each item.")
    primary: str | None = Field(None, max_length=200, description="metric,filter that counts; default: as `score`.")
    description: str | None = Field(None, description="For readers: what it measures, why it has its label.")

    @field_validator("extract")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        complaint = syntax_complaint(value) if value else None
        if complaint is not None:
            raise ValueError(complaint)
        return value

    @field_validator("stop")
    @classmethod
    def _not_empty(cls, value: list[str] | None) -> list[str] | None:
        if value is not None and not all(value):
            raise ValueError("an empty stop text would end every answer before it begins.")
        return value


class VariantSpec(_PromptAndScoring):
    """The same items asked another way; what it leaves out is the task's."""


class CustomTask(_PromptAndScoring, _ItemsDescription):
    """A task whose items are rows of data and whose prompts are templates over them."""

    name: SafeName = Field(description="Letters, digits and _ . - only; tells it from the other tasks.")
    data: DataSpec = Field(description="Where its items come from.")
    format: AnswerFormat = Field(description="choose: log-likelihood over choices; generate: free text.")
    prompt: str = Field(description="Template of what the model reads.")
    target: Scalar | list[Scalar] = Field(
        description="An integer is an index, a text is a choice, then a letter; a list: any of them counts."
    )
    capability: str | None = Field(
        None, description="knowledge, reasoning, mixed, or a template that gives one; absent: the classifier decides."
    )
    domain: str | None = Field(None, description="Word or template: science, arithmetic …")
    id: str | None = Field(None, description="Template of an item's id; default: a hash of the rendered item.")
    rationale: str | None = Field(None, description="Template of the gold steps, for traces and their control.")
    cluster: str | None = Field(None, description="Template: items with one value stand or fall together.")
    covariates: dict[SafeName, Scalar] = Field(default_factory=dict, description="Templates; become x_NAME.")
    variants: dict[SafeName, VariantSpec] = Field(default_factory=dict, description="The same items asked another way.")
    limit: int | None = Field(None, ge=1, description="At most so many items: a seeded sample.")

    @field_validator("variants")
    @classmethod
    def _no_default(cls, value: dict[str, VariantSpec]) -> dict[str, VariantSpec]:
        if "default" in value:
            raise ValueError("'default' is the task itself; give the variant another name.")
        return value

    @model_validator(mode="after")
    def _check_format_keys(self) -> "CustomTask":
        other = "generate" if self.format == "choose" else "choose"
        if self.format == "choose":
            if self.choices is None:
                raise ValueError("format: choose needs the key 'choices'.")
            invalid = [key for key in _GENERATE_KEYS if getattr(self, key) is not None]
        elif self.chance is not None:
            raise ValueError(GUESS_ADVICE)
        else:
            invalid = ["choices"] if self.choices is not None else []
        if invalid:
            raise ValueError(f"key {invalid[0]!r} belongs to format: {other}, and this task has format: {self.format}.")
        if (self.repeats or 1) > 1 and not self.temperature:
            raise ValueError(f"repeats: {self.repeats} needs a temperature above 0; without, all answers are the same.")
        if self.score in SCORE_NAMES_BY_FORMAT[other]:
            raise ValueError(
                f"score: {self.score} belongs to format: {other}. "
                f"Expected one of {', '.join(SCORE_NAMES_BY_FORMAT[self.format])}."
            )
        return self

    @property
    def score_name(self) -> str:
        """Name of the score: the key `score`, or the default of the format."""
        return self.score or ("choice" if self.format == "choose" else "exact")

    def varied(self, name: str) -> "CustomTask":
        """The task as one of its variants asks it.

        Raises
        ------
        ValidationError
            What the variant changes does not fit what it leaves.
        """
        variant_values = self.variants[name].model_dump(exclude_unset=True)
        inherited_values = self.model_dump(exclude_unset=True) | {"variants": {}}
        if variant_values.get("format", self.format) != self.format:
            inherited_values = {key: value for key, value in inherited_values.items() if key not in _FORMAT_KEYS}
        return CustomTask.model_validate(inherited_values | variant_values)


class LmEvalTask(_ItemsDescription):
    """A task, group or tag that lm-eval knows."""

    lm_eval: str = Field(max_length=200, description="Its name there.")
    capability: str | None = Field(None, description="Word, or template over lm-eval's doc; absent: the catalogue's.")
    domain: str | None = Field(None, description="Word or template.")
    num_fewshot: int | None = Field(None, ge=0, le=64, description="Default: lm-eval's own number, then the battery's.")
    primary: str | None = Field(
        None, max_length=200, description="metric,filter that counts; default: lm-eval's first."
    )
    chance: float | None = Field(None, ge=0, lt=1, description=_CHANCE)
    guess: GuessSpec | None = Field(None, description=_GUESS)
    cluster: str | None = Field(None, description="Template over lm-eval's doc.")
    covariates: dict[SafeName, Scalar] = Field(default_factory=dict, description="Templates over lm-eval's doc.")
    limit: int | None = Field(None, ge=1, description="At most so many items: a seeded sample.")
    description: str | None = Field(None, description="For readers: why it has its label.")

    @property
    def name(self) -> str:
        """Its name in messages."""
        return self.lm_eval


_CUSTOM_TASK_TAG, _LM_EVAL_TAG = "a task with data", "a task of lm-eval"


def _task_tag(value: Any) -> str:
    if isinstance(value, LmEvalTask) or (isinstance(value, dict) and "lm_eval" in value):
        return _LM_EVAL_TAG
    return _CUSTOM_TASK_TAG


BatteryTask = Annotated[
    Annotated[CustomTask, Tag(_CUSTOM_TASK_TAG)] | Annotated[LmEvalTask, Tag(_LM_EVAL_TAG)], Discriminator(_task_tag)
]


class BatterySpec(_StrictBatteryModel):
    """A battery: tasks, whose items are asked of every model."""

    name: SafeName = Field(description="Letters, digits and _ . - only.")
    version: Scalar = Field(1, description="Raise it when scores stop being comparable.")
    description: str = Field("", description="What it measures and where the items come from.")
    defaults: BatteryDefaults = Field(
        default_factory=BatteryDefaults, description="What holds where a task says nothing."
    )
    tasks: list[BatteryTask] = Field(min_length=1, description="Tasks with data of their own, and tasks of lm-eval.")

    @field_validator("tasks")
    @classmethod
    def _unique(cls, value: list[CustomTask | LmEvalTask]) -> list[CustomTask | LmEvalTask]:
        duplicate_name = next((name for name, count in Counter(task.name for task in value).items() if count > 1), None)
        if duplicate_name is not None:
            raise ValueError(f"two tasks are named {duplicate_name!r}. Names tell tasks apart.")
        return value


def capability_complaint(capability: str) -> str | None:
    """What is wrong with a capability's name, as the end of a message; None where nothing is."""
    if capability in CAPABILITIES:
        return None
    return f"expected one of {', '.join(CAPABILITIES)}, found {capability!r}.{suggestion(capability, CAPABILITIES)}"


def json_schema() -> dict[str, Any]:
    """JSON Schema of a battery file, for editors."""
    battery_schema = BatterySpec.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "capgap battery"} | battery_schema
