"""Whether a directory holds this student, a part of it, or something else."""

import hashlib
import json
from pathlib import Path
from typing import Any

from capgap.distillation.config import DistillConfig, PrunedStudent
from capgap.distillation.students.loading import fingerprint
from capgap.errors import DistillError, StoreError
from capgap.schema import write_object

__all__ = ["FINISHED", "begin", "finished", "identity", "recipe"]

FINISHED = "capgap.json"
"""The student's row of the models table; a directory that has it is finished."""
BEGUN = "training.json"
"""What was asked, from the moment that work began."""


def identity(config: DistillConfig, out: Path, *, folder: Path) -> dict[str, Any]:
    """All that decides a student: the file, and the contents of the data, base and teacher that it names."""
    told: dict[str, Any] = {"file": config.canonical, "data": _data_digest(config, folder)}
    if isinstance(config.student, str):
        told["student"] = _weights(config.student)
    elif isinstance(config.student, PrunedStudent):
        told["student"] = _weights(config.student.prune)
    if not config.is_control:
        told["teacher"] = [_weights(word) for word in config.teacher]
    return told


def recipe(config: DistillConfig) -> str:
    """A short hash of everything about a student but its seeds."""
    told = config.canonical
    del told["seed"], told["data_seed"]
    if isinstance(told["student"], dict):
        told["student"].get("microworld", told["student"]).pop("seed", None)
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]


def finished(out: Path, wanted: dict[str, Any]) -> bool:
    """Whether `out` holds this student, whole.

    Raises
    ------
    DistillError
        It holds another one, or a part of another one; the message names the first difference.
    StoreError
        It holds something else.
    """
    if out.exists() and not out.is_dir():
        raise StoreError(f"{out}: is a file. Choose another --out.")
    begun = out / BEGUN
    if not begun.is_file():
        if out.is_dir() and any(out.iterdir()):
            raise StoreError(f"{out}: holds something else, nothing of capgap distill's. Choose another --out.")
        return False
    try:
        found = json.loads(begun.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StoreError(f"{begun}: cannot be read: {error}. Remove {out}, or choose another --out.") from error
    difference = _difference(found, json.loads(json.dumps(wanted)))
    if difference:
        raise DistillError(
            f"{out}: holds another student: {difference}. Choose another --out, or remove it to make this one."
        )
    return (out / FINISHED).is_file()


def begin(out: Path, wanted: dict[str, Any]) -> None:
    """Mark `out` as the place of this student."""
    out.mkdir(parents=True, exist_ok=True)
    write_object(wanted, out / BEGUN)


def _data_digest(config: DistillConfig, folder: Path) -> str:
    from capgap.distillation.data.pool import source_digest

    return source_digest(config, folder=folder)


def _weights(word: str) -> str:
    """Hash of a checkpoint's weights; the word itself for what is not on this disk."""
    from capgap.models import parse_model
    from capgap.models.checkpoint import locate
    from capgap.models.model_spec import BACKENDS

    spec = parse_model(word)
    if spec.kind in BACKENDS:
        return spec.spec_text
    return fingerprint(spec, locate(spec), "tokenizer.json")


def _difference(found: Any, wanted: Any, trail: str = "") -> str | None:
    """The first place where two answers to "what was asked" differ, in words."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in [*wanted, *(key for key in found if key not in wanted)]:
            here = f"{trail}.{key}" if trail else key
            told = _difference(found.get(key), wanted.get(key), here)
            if told:
                return told
        return None
    if found == wanted:
        return None
    named = trail.removeprefix("file.")
    if trail in ("data", "student", "teacher"):
        return f"the contents of its {named} have changed"
    return f"its {named} is {found!r}, and here it is {wanted!r}"
