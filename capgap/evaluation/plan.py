"""Evaluation plan: models in their roles, batteries, devices; checked as far as it can be without loading a model."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from capgap.errors import ModelError, UsageError
from capgap.models import FoundBase, ModelSpec, add_permissions, expand_models, find_base, locate, parse_model
from capgap.schema import Roles

ShardSpec = tuple[int, int]
"""``(k, n)``: the k-th (from 0) of n parts of the requests."""


@dataclass(frozen=True)
class EvaluationPlan:
    """Models in their roles, batteries, and how to run them."""

    students: tuple[ModelSpec, ...]
    """The compared models, one at least."""
    teacher: ModelSpec | None = None
    """The model that they learnt from."""
    bases: dict[str, ModelSpec] = field(default_factory=dict)
    """Student's name → the same model before distillation."""
    control_models: dict[str, ModelSpec] = field(default_factory=dict)
    """Student's name → the same student trained on gold targets."""
    batteries: tuple[str, ...] = ()
    """Names or files."""
    limit: int | None = None
    """Items a task at most; None leaves it to the battery."""
    device: str | None = None
    """torch device; None chooses."""
    dtype: str | None = None
    """Of the weights; None chooses by device."""
    batch_tokens: int | None = None
    """Padded tokens in one forward pass; None chooses by vocabulary."""
    devices: tuple[str, ...] = ()
    """Several devices, one worker each; `device` is the first of them."""
    workers: int = 1
    """Processes that ask at the same time on one device, one thread each; for small models on a CPU."""
    shard: ShardSpec | None = None
    """The part of the requests that this machine takes; it makes no tables then."""
    rescore: bool = False
    """Make outcomes again from the ledger, without a model."""
    data_root: Path | None = None
    """Where batteries may find data beside their own folder."""
    notes: tuple[str, ...] = ()
    """What was decided for the user, one sentence each."""

    @property
    def models(self) -> tuple[ModelSpec, ...]:
        """Every model once: the order in which they are asked."""
        all_specs = [*filter(None, [self.teacher]), *self.bases.values(), *self.control_models.values(), *self.students]
        return tuple({spec.name: spec for spec in all_specs}.values())

    @property
    def n_workers(self) -> int:
        """Processes that ask at the same time."""
        return max(1, len(self.devices)) * self.workers

    @property
    def shard_name(self) -> str | None:
        """What the ledger of this machine is called beside others; None where it is the only one."""
        return None if self.shard is None else f"{self.shard[0] + 1}-of-{self.shard[1]}"

    @property
    def roles(self) -> Roles:
        """Who is who, by name."""
        return Roles(
            students=tuple(spec.name for spec in self.students),
            teacher=self.teacher.name if self.teacher else None,
            base={student: spec.name for student, spec in self.bases.items()},
            control={student: spec.name for student, spec in self.control_models.items()},
        )


class RoleModels(NamedTuple):
    """Models in their roles; ``EvaluationPlan(**models._asdict(), batteries=…)`` makes a plan of them."""

    students: tuple[ModelSpec, ...]
    """The compared models."""
    teacher: ModelSpec | None
    """The model that they learnt from."""
    bases: dict[str, ModelSpec]
    """Student's name → the same model before distillation."""
    control_models: dict[str, ModelSpec]
    """Student's name → the same student trained on gold targets."""
    notes: tuple[str, ...]
    """What was decided for the user, one sentence each."""


def cast_roles(
    students: Sequence[str],
    *,
    teacher: str | None = None,
    base: str | None = None,
    control: str | None = None,
    permissions: Collection[str] = (),
) -> RoleModels:
    """The models behind model specs, in their roles.

    Parameters
    ----------
    students
        Specs of the compared models, globs allowed.
    teacher, control
        Specs of one model each.
    base
        Spec of one model; None looks for one in each student's own files, ``none`` refuses that.
    permissions
        ``allow_code``, ``allow_pickle``: hold for every checkpoint whose spec does not say otherwise, a base that was
        found among them.

    Raises
    ------
    UsageError
        No student, or one model in two roles that exclude each other.
    ModelError
        A model cannot be found: every checkpoint is located, so that a wrong path is told before anything runs.
    """
    if not students:
        raise UsageError("no student. Say which model to look at: --student CKPT")
    teacher, base, control = (spec and add_permissions(spec, permissions) for spec in (teacher, base, control))
    student_specs = expand_models([add_permissions(spec, permissions) for spec in students])
    for spec in student_specs:
        _check_location(spec)
    by_name = {spec.name: spec for spec in student_specs}
    teacher_spec = _single_model(teacher, "--teacher", by_name)
    if teacher_spec is not None and teacher_spec.name in by_name:
        raise UsageError(f"{teacher_spec.name!r} is teacher and student at once. A model cannot have a gap to itself.")
    if teacher_spec is not None:
        by_name[teacher_spec.name] = teacher_spec
    notes: list[str] = []
    if base is None:
        bases = _find_bases(student_specs, by_name, notes, permissions)
    else:
        bases = _assign_to_students(student_specs, None if base == "none" else _single_model(base, "--base", by_name))
    control_model_spec = None if control == "none" else _single_model(control, "--control", by_name)
    control_models = _assign_to_students(student_specs, control_model_spec)
    return RoleModels(tuple(student_specs), teacher_spec, bases, control_models, tuple(notes))


def parse_devices(text: str | None) -> tuple[str, ...]:
    """The devices of ``--device``: one, or several GPUs (``cuda:0,2``); where None is given, all visible GPUs.

    Returns
    -------
    tuple of str
        Empty where none is given and there is no GPU: the default device.

    Raises
    ------
    UsageError
        The text is no list of devices.
    """
    if text is None:
        import torch

        return tuple(f"cuda:{n}" for n in range(torch.cuda.device_count()))
    kind, _, indices = text.partition(":")
    if "," not in text:
        return (text,)
    numbers = [gpu_number_text.removeprefix(f"{kind}:") for gpu_number_text in indices.split(",")]
    if not kind or not all(number.isdigit() for number in numbers) or len(set(numbers)) != len(numbers):
        raise UsageError(f"--device {text}: expected one device, or several GPUs by number: cuda:0,2")
    return tuple(f"{kind}:{number}" for number in numbers)


def parse_shard(text: str | None) -> ShardSpec | None:
    """``K/N`` (from 1) as ``(K - 1, N)``.

    Raises
    ------
    UsageError
        It is no such pair.
    """
    if text is None:
        return None
    k, separator, n = text.partition("/")
    if not separator or not k.isdigit() or not n.isdigit() or not 1 <= int(k) <= int(n) <= 10_000:
        raise UsageError(f"--shard {text}: expected K/N with K from 1 to N, such as 1/4.")
    return int(k) - 1, int(n)


def _single_model(text: str | None, option: str, by_name: Mapping[str, ModelSpec]) -> ModelSpec | None:
    """The one model behind an option; a model that is known already keeps its name."""
    if text is None:
        return None
    specs = expand_models([text])
    if len(specs) != 1:
        raise UsageError(f"{option} {text}: matches {len(specs)} models. Name one.")
    spec = specs[0]
    for known_model_spec in by_name.values():
        if known_model_spec.spec_text == spec.spec_text:
            return known_model_spec
    if spec.name in by_name:
        raise ModelError(f"two models are called {spec.name!r}. Give one a name: {option} NAME={text}")
    _check_location(spec)
    return spec


def _assign_to_students(students: Sequence[ModelSpec], model: ModelSpec | None) -> dict[str, ModelSpec]:
    """One model as the base or control of every student but itself."""
    return {spec.name: model for spec in students if model is not None and spec.name != model.name}


def _check_location(spec: ModelSpec) -> None:
    if spec.kind in ("checkpoint", "microworld"):
        locate(spec)


def _find_bases(
    students: Sequence[ModelSpec], by_name: Mapping[str, ModelSpec], notes: list[str], permissions: Collection[str]
) -> dict[str, ModelSpec]:
    """What the students' own files call their base, one model for students that share it."""
    bases: dict[str, ModelSpec] = {}
    model_by_spec_text: dict[str, ModelSpec] = {spec.spec_text: spec for spec in by_name.values()}
    names = set(by_name)
    for student in students:
        found_base = find_base(student)
        if found_base is None:
            continue
        found_base = replace(found_base, spec_text=add_permissions(found_base.spec_text, permissions))
        base = _existing_base(student, found_base, notes)
        if base is None or base.spec_text == student.spec_text:
            continue
        if base.spec_text not in model_by_spec_text:
            # Names are the key of every table: a base that is called like another model gets a name of its own.
            name = base.name if base.name not in names else f"{base.name} (base)"
            names.add(name)
            model_by_spec_text[base.spec_text] = ModelSpec(name, base.checkpoint, base.kind, base.options)
        bases[student.name] = model_by_spec_text[base.spec_text]
        notes.append(
            f"base of {student.name}: {bases[student.name].location} (from {Path(found_base.source).name}; --base none "
            f"refuses)"
        )
    return bases


def _existing_base(student: ModelSpec, found_base: FoundBase, notes: list[str]) -> ModelSpec | None:
    """The base that a student's files name; None, with a note, where it is not there: nobody gave it by name."""
    try:
        base = parse_model(found_base.spec_text)
        locate(base)
    except ModelError as error:
        reason = str(error).split(". ")[0]
        notes.append(
            f"base of {student.name}: {found_base.spec_text}, named by {Path(found_base.source).name}, is left out: "
            f"{reason}."
        )
        return None
    return base


def default_batteries(students: Sequence[ModelSpec]) -> tuple[str, ...]:
    """``microworld`` where every student speaks the microworld's language, else ``core``."""
    return ("microworld",) if all(_is_microworld_model(spec) for spec in students) else ("core",)


def _is_microworld_model(spec: ModelSpec) -> bool:
    if spec.kind == "microworld":
        return True
    if spec.kind != "checkpoint":
        return False
    base = str(locate(spec).training_record.get("base") or "")
    return base.startswith("microworld:")
