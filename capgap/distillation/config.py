"""The distillation file: pydantic model, consistency checks, canonical form and hash of one student's config.

A value given as a list is a factor of a *study*, of which this file is one cell; here it is refused. Words of the
design that this version cannot do yet stand in `UNSUPPORTED` and are refused with their reason.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from capgap.battery import read_yaml
from capgap.distillation import config_keys as keys
from capgap.distillation.supervision import SUPERVISIONS, TEXT_KINDS, Supervision, TrainingTextKind
from capgap.errors import DistillError
from capgap.models import add_permissions

ADAPTATION_DESCRIPTIONS: dict[str, str] = {
    "full": "every weight trains",
    "lora": "low-rank adapters train, the base stays as it is",
    "soft_prompt": "virtual tokens before every prompt train, the base stays as it is",
}
"""Which weights may train."""

UNSUPPORTED: dict[str, str] = {
    "hypotheses": "they belong to a study, which `capgap study` will run",
    "study": "one file here is one student, and this key holds a factor of a study; "
    "keep one value, or use `capgap study` (a later version)",
}
"""Known words of the design that this version refuses, each with the reason."""

# Lists that are lists by nature; every other one is a factor.
_LIST_VALUED_KEYS = (
    ("teacher",),
    ("team", "weights"),
    ("data", "tasks"),
    ("lora", "targets"),
    ("training", "log_to"),
    ("evaluate", "battery"),
)


# Keys that change how a student is made, measured or called, and not which student it is.
_NON_IDENTITY_KEYS: dict[str, Any] = {
    "name": True,
    "evaluate": True,
    "cache": {"folder"},
    "training": {"save_minutes", "keep_checkpoints", "pass_tokens", "gradient_checkpointing", "log_to"},
}
_DEFAULT_LR = {"full": 2e-5, "lora": 2e-4, "soft_prompt": 3e-2}
_DEFAULT_EPOCHS = 3.0


class DistillConfig(keys.StrictKeys):
    """One distillation file."""

    name: str = Field(min_length=1)
    """Name of the student."""
    teacher: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """A model word, or a list of them: one team of teachers."""
    team: keys.TeacherTeamKeys = keys.TeacherTeamKeys()
    """How a team of teachers becomes one."""
    student: keys.StudentSpec
    """A model word, or what to build."""
    data: keys.DataKeys
    """The examples."""
    n_examples: int | None = Field(None, ge=1)
    """How many of them; the smaller number is always a part of the greater. Default: all."""
    diversity: Literal["single", "multi", "universal"] = "universal"
    """One task, the tasks of one capability, or all."""
    train_tasks: str | None = None
    """The task (``single``) or the capability (``multi``)."""
    supervision: keys.SupervisionName
    """One of `SUPERVISIONS`."""
    adaptation: keys.AdaptationName = "full"
    """One of `ADAPTATION_DESCRIPTIONS`."""
    lora: keys.LoraKeys = keys.LoraKeys()
    """The adapter, where there is one."""
    soft_prompt: keys.SoftPromptKeys = keys.SoftPromptKeys()
    """The virtual tokens, where there are any."""
    texts: keys.TextKindName | None = None
    """For ``logits`` and ``context``: the texts over which distributions are learnt; default ``traces``, what the
    teacher itself writes: over texts that it would not write, its distributions say how to leave them."""
    trace_weights: keys.TraceWeights = keys.TraceWeights()
    """Where texts have steps: what their tokens weigh."""
    objective: keys.ObjectiveKeys = keys.ObjectiveKeys()
    """For ``logits``, ``context`` and ``on_policy``: what is minimised."""
    cache: keys.CacheKeys = keys.CacheKeys()
    """For ``logits`` and ``context``: how the teacher's distributions are kept."""
    context: keys.TeacherContextKeys = keys.TeacherContextKeys()
    """For ``context``: what the teacher sees besides."""
    on_policy: keys.OnPolicyKeys = keys.OnPolicyKeys()
    """For ``on_policy``: how the student writes."""
    seed: int = Field(0, ge=0)
    """Of the adapter's first weights, dropout and the order of the examples."""
    data_seed: int | None = Field(None, ge=0)
    """Of the choice of examples; default: the seed."""
    training: keys.TrainingKeys = keys.TrainingKeys()
    """How it is trained."""
    generation: keys.GenerationKeys = keys.GenerationKeys()
    """How the teacher answers."""
    evaluate: keys.EvaluationKeys | None = None
    """What to measure when it is done."""

    @field_validator("teacher", mode="before")
    @classmethod
    def _wrap_teacher_in_tuple(cls, value: Any) -> Any:
        if isinstance(value, list) and any(isinstance(member, list) for member in value):
            raise ValueError(f"teams to choose from: {UNSUPPORTED['study']}.")
        if value is None:
            return ()
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        self._check_supervision()
        self._check_teacher_team()
        self._check_cache()
        train_tasks_description = {"single": "the task", "multi": "the capability"}.get(self.diversity)
        if train_tasks_description and self.train_tasks is None:
            raise ValueError(f"diversity: {self.diversity} needs the key 'train_tasks': {train_tasks_description}.")
        if not train_tasks_description and self.train_tasks is not None:
            raise ValueError("'train_tasks' goes with diversity: single (a task) or multi (a capability).")
        return self

    def _check_supervision(self) -> None:
        """Refuse keys that the way of supervision does not take, and miss those that it needs."""
        kind = self.supervision_kind
        if not self.teacher and not kind.is_control:
            control_names = " and ".join(repr(name) for name, other in SUPERVISIONS.items() if other.is_control)
            raise ValueError(f"supervision {self.supervision!r} needs the key 'teacher'; {control_names} do without.")
        for key in sorted(self.model_fields_set - set(kind.keys)):
            kind_names = [name for name, other in SUPERVISIONS.items() if key in other.keys]
            if kind_names:
                raise ValueError(f"{key!r} belongs to supervision: {' or '.join(kind_names)}, not {self.supervision}.")
        for key, content in kind.required.items():
            if getattr(self, key) == type(self).model_fields[key].default:
                raise ValueError(f"supervision: {self.supervision} needs the key {key!r}: {content}.")
        if self.trace_weights != keys.TraceWeights() and not self.text_kind.has_reasoning:
            raise ValueError(f"trace_weights belong to texts with steps, and these are {self.text_kind_name}.")

    def _check_teacher_team(self) -> None:
        """Refuse what a team of teachers cannot give."""
        n_teachers, max_teachers = len(self.teacher), self.supervision_kind.max_teachers
        if "team" in self.model_fields_set and n_teachers < 2:
            raise ValueError("'team' says how several teachers become one; name them as a list under 'teacher'.")
        if max_teachers is not None and n_teachers > max_teachers:
            raise ValueError(f"supervision: {self.supervision} takes {max_teachers} teacher, found {n_teachers}.")
        if self.team.weights is not None and len(self.team.weights) != n_teachers:
            raise ValueError(f"team.weights has {len(self.team.weights)} numbers for {n_teachers} teachers.")
        if n_teachers > 1 and self.cache.mode == "top_k":
            raise ValueError(
                "cache.mode: top_k: the likeliest tokens of several teachers differ, so that they have no "
                "mixture; use mode: hidden or sample."
            )

    def _check_cache(self) -> None:
        """Refuse what a form of the cache cannot give."""
        if self.cache.mode == "sample" and self.divergence != "forward_kl":
            raise ValueError(f"cache.mode: sample estimates forward_kl without bias, and not {self.divergence}.")
        if self.cache.mode == "top_k" and self.objective.temperature != 1:
            raise ValueError("cache.mode: top_k holds the likeliest tokens at temperature 1; use mode: hidden.")

    @property
    def supervision_kind(self) -> Supervision:
        """What the way of supervision needs, learns and allows."""
        return SUPERVISIONS[self.supervision]

    @property
    def text_kind_name(self) -> str:
        """The texts that the student is trained on, a key of `TEXT_KINDS`."""
        return self.texts or self.supervision_kind.texts

    @property
    def text_kind(self) -> TrainingTextKind:
        """Where these texts come from, and whether they have steps."""
        return TEXT_KINDS[self.text_kind_name]

    @property
    def lead(self) -> str | None:
        """The first teacher."""
        return self.teacher[0] if self.teacher else None

    @property
    def shares(self) -> tuple[float, ...]:
        """Share of each teacher in a mixture of their distributions, shape (teachers,); they add up to 1."""
        weights = self.team.weights or (1.0,) * len(self.teacher)
        return tuple(weight / sum(weights) for weight in weights)

    @property
    def divergence(self) -> str | None:
        """The divergence, with the default of the supervision; None where texts alone are learnt."""
        return self.objective.divergence or self.supervision_kind.divergence

    @property
    def lr(self) -> float:
        """The peak learning rate, with the default that the adaptation asks for."""
        return self.training.lr or _DEFAULT_LR[self.adaptation]

    @property
    def epochs(self) -> float | None:
        """How often each example is seen; None where optimizer steps are counted instead."""
        return self.training.epochs or (None if self.training.max_steps else _DEFAULT_EPOCHS)

    @property
    def effective_data_seed(self) -> int:
        """The seed that chooses the examples."""
        return self.seed if self.data_seed is None else self.data_seed

    def with_load_permissions(self, permissions: Collection[str]) -> Self:
        """The same, with ``allow_code`` or ``allow_pickle`` for each of its checkpoints that does not say otherwise."""
        if not permissions:
            return self
        student = self.student
        if isinstance(student, str):
            student = add_permissions(student, permissions)
        elif isinstance(student, keys.PrunedStudent):
            student = student.model_copy(update={"prune": add_permissions(student.prune, permissions)})
        elif isinstance(student, keys.ScratchStudent):
            student = student.model_copy(update={"tokenizer": add_permissions(student.tokenizer, permissions)})
        teachers = tuple(add_permissions(word, permissions) for word in self.teacher)
        return self.model_copy(update={"student": student, "teacher": teachers})

    @property
    def canonical_config(self) -> dict[str, Any]:
        """All that decides the student, as plain data: the same for two files that ask for the same student.

        Defaults are left out, those too that depend on another key (``training.lr``), so that a key which a later
        version adds with a default that changes nothing leaves the canonical form as it is. Changing a default, or
        anything else here, makes other students of the same files: it needs another ``identity_version``.
        """
        kind = self.supervision_kind
        excluded_keys = _NON_IDENTITY_KEYS | {key: True for key in ("lora", "soft_prompt") if key != self.adaptation}
        if kind.is_control:
            excluded_keys |= {"teacher": True, "generation": True, "team": True}
        elif not self.text_kind.is_from_teacher:
            excluded_keys |= {"generation": True}
        dumped_config = self.model_dump(mode="json", exclude=excluded_keys, exclude_defaults=True)
        for config_section, key, default in (
            (dumped_config, "data_seed", self.seed),
            (dumped_config, "texts", kind.texts),
            (dumped_config.get("objective", {}), "divergence", kind.divergence),
            (dumped_config.get("training", {}), "lr", _DEFAULT_LR[self.adaptation]),
            (dumped_config.get("training", {}), "epochs", _DEFAULT_EPOCHS),
        ):
            if config_section.get(key) == default:
                config_section.pop(key, None)
        # A part whose keys were all left out stays as an empty one.
        return {"identity_version": 2, **{key: value for key, value in dumped_config.items() if value != {}}}

    @property
    def hash(self) -> str:
        """Hex digest of `canonical_config`."""
        return hashlib.sha256(json.dumps(self.canonical_config, sort_keys=True).encode()).hexdigest()[:16]


def load_config(path: Path | str) -> DistillConfig:
    """The distillation file at `path`.

    Raises
    ------
    DistillError
        It is missing, is no YAML, has an unknown key, a wrong value, or a list where one value is meant.
    """
    document = read_yaml(path)
    _refuse_list_values(document.data, document.where)
    return document.validated(DistillConfig, error=DistillError, file_kind="distillation file")


def _refuse_list_values(data: Any, locate: Callable[[tuple[str | int, ...]], str], path: tuple[str, ...] = ()) -> None:
    """Raise where a value is a list though the key takes one: a factor of a study."""
    if not isinstance(data, Mapping):
        return
    for key, value in data.items():
        key_path = (*path, str(key))
        if key_path == ("hypotheses",):
            raise DistillError(f"{locate(key_path)}: 'hypotheses' is not in this version: {UNSUPPORTED['hypotheses']}.")
        if isinstance(value, list) and key_path not in _LIST_VALUED_KEYS:
            raise DistillError(f"{locate(key_path)}: found a list: {UNSUPPORTED['study']}.")
        _refuse_list_values(value, locate, key_path)
