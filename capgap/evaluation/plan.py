"""What an evaluation was asked to do, checked as far as it can be before a model is loaded."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from capgap.errors import ModelError, UsageError
from capgap.models import FoundBase, ModelSpec, expand_models, find_base, locate, parse_model, permitted
from capgap.schema import Roles

__all__ = ["EvaluationPlan", "cast_roles", "default_batteries", "parse_devices", "parse_shard"]


@dataclass(frozen=True)
class EvaluationPlan:
    """Models in their roles, batteries, and how to run them."""

    students: tuple[ModelSpec, ...]
    """The compared models, one at least."""
    teacher: ModelSpec | None = None
    """The model that they learnt from."""
    bases: dict[str, ModelSpec] = field(default_factory=dict)
    """Student's name → the same model before distillation."""
    controls: dict[str, ModelSpec] = field(default_factory=dict)
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
    shard: tuple[int, int] | None = None
    """``(k, n)``: this machine takes the k-th (from 0) of n parts of the requests, and makes no tables."""
    rescore: bool = False
    """Make outcomes again from the ledger, without a model."""
    data_root: Path | None = None
    """Where batteries may find data beside their own folder."""
    notes: tuple[str, ...] = ()
    """What was decided for the user, one sentence each."""

    @property
    def models(self) -> tuple[ModelSpec, ...]:
        """Every model once: the order in which they are asked."""
        every = [
            *([self.teacher] if self.teacher else []),
            *self.bases.values(),
            *self.controls.values(),
            *self.students,
        ]
        return tuple({spec.name: spec for spec in every}.values())

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
            control={student: spec.name for student, spec in self.controls.items()},
        )


def cast_roles(
    students: Sequence[str],
    *,
    teacher: str | None = None,
    base: str | None = None,
    control: str | None = None,
    allow: Collection[str] = (),
) -> tuple[tuple[ModelSpec, ...], ModelSpec | None, dict[str, ModelSpec], dict[str, ModelSpec], list[str]]:
    """Model words in their roles: students, teacher, bases, controls, and notes on what was found.

    A base that is not given is looked for in each student's own files; ``none`` refuses it. Every checkpoint is
    located, so that a wrong path is told before anything runs. What `allow` names (``allow_code``, ``allow_pickle``)
    holds for every checkpoint whose word does not say otherwise, a base that was found among them.

    Raises
    ------
    UsageError
        No student, or one model in two roles that exclude each other.
    ModelError
        A model cannot be found.
    """
    if not students:
        raise UsageError("no student. Say which model to look at: --student CKPT")
    students = [permitted(word, allow) for word in students]
    teacher, base, control = (word and permitted(word, allow) for word in (teacher, base, control))
    compared = expand_models(students)
    for spec in compared:
        if spec.kind in ("checkpoint", "microworld"):
            locate(spec)
    taken = {spec.name: spec for spec in compared}
    lead = _one(teacher, "--teacher", taken)
    if lead is not None and lead.name in taken:
        raise UsageError(f"{lead.name!r} is teacher and student at once. A model cannot have a gap to itself.")
    if lead is not None:
        taken[lead.name] = lead
    notes: list[str] = []
    if base is None:
        bases = _found_bases(compared, taken, notes, allow)
    elif base == "none":
        bases = {}
    else:
        given = _one(base, "--base", taken)
        assert given is not None
        bases = {spec.name: given for spec in compared if spec.name != given.name}
    gold = None if control in (None, "none") else _one(control, "--control", taken)
    controls = {spec.name: gold for spec in compared if gold is not None and spec.name != gold.name}
    return tuple(compared), lead, bases, controls, notes


def parse_devices(word: str | None) -> tuple[str, ...]:
    """The devices of ``--device``: one, or several GPUs (``cuda:0,2``); without a word, all GPUs that are visible.

    Returns
    -------
    tuple of str
        Empty where there is no GPU and no word: the default device.

    Raises
    ------
    UsageError
        The word is no list of devices.
    """
    if word is None:
        import torch

        return tuple(f"cuda:{n}" for n in range(torch.cuda.device_count()))
    kind, _, indices = word.partition(":")
    if "," not in word:
        return (word,)
    numbers = [part.removeprefix(f"{kind}:") for part in indices.split(",")]
    if not kind or not all(number.isdigit() for number in numbers) or len(set(numbers)) != len(numbers):
        raise UsageError(f"--device {word}: expected one device, or several GPUs by number: cuda:0,2")
    return tuple(f"{kind}:{number}" for number in numbers)


def parse_shard(word: str | None) -> tuple[int, int] | None:
    """``K/N`` (from 1) as ``(K - 1, N)``.

    Raises
    ------
    UsageError
        It is no such pair.
    """
    if word is None:
        return None
    k, slash, n = word.partition("/")
    if not slash or not k.isdigit() or not n.isdigit() or not 1 <= int(k) <= int(n) <= 10_000:
        raise UsageError(f"--shard {word}: expected K/N with K from 1 to N, such as 1/4.")
    return int(k) - 1, int(n)


def _one(word: str | None, option: str, taken: dict[str, ModelSpec]) -> ModelSpec | None:
    """The one model behind an option; a model that is known already keeps its name."""
    if word is None:
        return None
    found = expand_models([word])
    if len(found) != 1:
        raise UsageError(f"{option} {word}: matches {len(found)} models. Name one.")
    spec = found[0]
    for known in taken.values():
        if known.spec_text == spec.spec_text:
            return known
    if spec.name in taken:
        raise ModelError(f"two models are called {spec.name!r}. Give one a name: {option} NAME={word}")
    if spec.kind in ("checkpoint", "microworld"):
        locate(spec)
    return spec


def _found_bases(
    students: Sequence[ModelSpec], taken: dict[str, ModelSpec], notes: list[str], allow: Collection[str]
) -> dict[str, ModelSpec]:
    """What the students' own files call their base, one model for students that share it."""
    bases: dict[str, ModelSpec] = {}
    by_word: dict[str, ModelSpec] = {spec.spec_text: spec for spec in taken.values()}
    names = set(taken)
    for spec in students:
        found = find_base(spec)
        if found is None:
            continue
        base = _located(spec, replace(found, spec_text=permitted(found.spec_text, allow)), notes)
        if base is None or base.spec_text == spec.spec_text:
            continue
        if base.spec_text not in by_word:
            name = base.name if base.name not in names else f"{base.name} (base)"
            names.add(name)
            by_word[base.spec_text] = ModelSpec(name, base.checkpoint, base.kind, base.options)
        bases[spec.name] = by_word[base.spec_text]
        notes.append(
            f"base of {spec.name}: {bases[spec.name].location} (from {Path(found.source).name}; --base none refuses)"
        )
    return bases


def _located(spec: ModelSpec, found: FoundBase, notes: list[str]) -> ModelSpec | None:
    """A found base that is there; one that is not is told, never fatal: nobody asked for it by name."""
    try:
        base = parse_model(found.spec_text)
        locate(base)
    except ModelError as error:
        first = str(error).split(". ")[0]
        notes.append(
            f"base of {spec.name}: {found.spec_text}, named by {Path(found.source).name}, is left out: {first}."
        )
        return None
    return base


def default_batteries(students: Sequence[ModelSpec]) -> tuple[str, ...]:
    """``microworld`` where every student speaks the microworld's language, else ``core``."""
    return ("microworld",) if all(_speaks_microworld(spec) for spec in students) else ("core",)


def _speaks_microworld(spec: ModelSpec) -> bool:
    if spec.kind == "microworld":
        return True
    if spec.kind != "checkpoint":
        return False
    base = str(locate(spec).training_record.get("base") or "")
    return base.startswith("microworld:")
