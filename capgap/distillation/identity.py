"""Identity of a student: whether a directory holds this one (finished, or a part), or something else."""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock
from pydantic import BaseModel, ValidationError

from capgap.distillation.config import DistillConfig
from capgap.distillation.config_keys import DataKeys, PrunedStudent
from capgap.distillation.data.pool import source_digest
from capgap.distillation.students.loading import fingerprint
from capgap.errors import DistillError, StoreError
from capgap.models import parse_model
from capgap.models.checkpoint import locate
from capgap.models.model_spec import BACKENDS
from capgap.schema import write_object

__all__ = ["MODEL_ROW_FILE", "begin", "identity", "is_finished", "locked", "recipe_hash"]

MODEL_ROW_FILE = "capgap.json"
"""The student's row of the models table; a directory that has it is finished."""
STUDENT_IDENTITY_FILE = "training.json"
"""The identity of the student, from the moment that work began."""
LOCK_FILE = "student.lock"
"""Held by the process that trains the student; the system releases it when that process ends, however it ends."""


def identity(config: DistillConfig, *, folder: Path) -> dict[str, Any]:
    """All that decides a student: the file, and digests of the data, student and teachers that it names.

    Parameters
    ----------
    config
        The distillation file.
    folder
        Where it lies; relative files count from there.
    """
    student_identity: dict[str, Any] = {"file": config.canonical_config, "data": source_digest(config, folder=folder)}
    if isinstance(config.student, str):
        student_identity["student"] = _weights_digest(config.student)
    elif isinstance(config.student, PrunedStudent):
        student_identity["student"] = _weights_digest(config.student.prune)
    if not config.supervision_kind.is_control:
        student_identity["teacher"] = [_weights_digest(word) for word in config.teacher]
    return student_identity


def recipe_hash(canonical_config: dict[str, Any]) -> str:
    """Twelve hex digits for everything about a student but its seeds, from `DistillConfig.canonical_config`."""
    unseeded_config = json.loads(json.dumps(canonical_config))
    for seed in ("seed", "data_seed"):
        unseeded_config.pop(seed, None)
    if isinstance(unseeded_config["student"], dict):
        unseeded_config["student"].get("microworld", unseeded_config["student"]).pop("seed", None)
    return hashlib.sha256(json.dumps(unseeded_config, sort_keys=True).encode()).hexdigest()[:12]


def is_finished(out: Path, student_identity: dict[str, Any]) -> bool:
    """Whether `out` holds this student, whole; one of identity version 1 is brought up to date.

    Parameters
    ----------
    out
        Directory of the student.
    student_identity
        Its `identity`.

    Raises
    ------
    DistillError
        It holds another one, or a part of another one; the message names the first difference.
    StoreError
        It holds something else.
    """
    if out.exists() and not out.is_dir():
        raise StoreError(f"{out}: is a file. Choose another --out.")
    identity_file, model_row_file = out / STUDENT_IDENTITY_FILE, out / MODEL_ROW_FILE
    if not identity_file.is_file():
        if out.is_dir() and any(file.name != LOCK_FILE for file in out.iterdir()):
            raise StoreError(f"{out}: holds something else, nothing of capgap distill's. Choose another --out.")
        return False
    try:
        saved_student_identity = json.loads(identity_file.read_text(encoding="utf-8"))
        is_identity_version_1 = "identity_version" not in saved_student_identity["file"]
        if is_identity_version_1:
            saved_student_identity["file"] = _upgrade_version_1_file(saved_student_identity["file"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{identity_file}: cannot be read: {error}. Remove {out}, or choose another --out.") from error
    difference = _first_difference(saved_student_identity, json.loads(json.dumps(student_identity)))
    if difference:
        raise DistillError(f"{out}: holds another student: {difference}. Choose another --out, or remove it.")
    if is_identity_version_1 and model_row_file.is_file():
        # Seeds of one recipe are pooled by its hash, so old students must have that of new ones. A directory that
        # cannot be written is still the student that was asked for.
        with suppress(OSError, StoreError):
            try:
                row = {**json.loads(model_row_file.read_text(encoding="utf-8"))}
            except (ValueError, TypeError) as error:
                raise DistillError(
                    f"{model_row_file}: cannot be read: {error}. Remove it: the work is done again."
                ) from error
            write_object(row | {"recipe": recipe_hash(student_identity["file"])}, model_row_file)
            begin(out, student_identity)
    return model_row_file.is_file()


@contextmanager
def locked(out: Path, *, on_wait: Callable[[], None]) -> Iterator[None]:
    """Held while the student in `out` is made, so that no two processes write one checkpoint; the second waits.

    Parameters
    ----------
    out
        Directory of the student, made where it is missing.
    on_wait
        Called once where another process holds it.
    """
    out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / LOCK_FILE)
    try:
        lock.acquire(blocking=False)
    except TimeoutError:
        on_wait()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def begin(out: Path, student_identity: dict[str, Any]) -> None:
    """Mark `out` as the place of this student."""
    write_object(student_identity, out / STUDENT_IDENTITY_FILE)


def _upgrade_version_1_file(file: dict[str, Any]) -> dict[str, Any]:
    """Today's canonical form of a file that version 1 wrote down with all of its defaults.

    Without the defaults it is a file like another, read as today. One that is refused today stays as it is, and so
    differs from any that was asked for.
    """
    defaults = _dump_field_defaults(DistillConfig) | {"data": _dump_field_defaults(DataKeys)}
    try:
        return DistillConfig.model_validate({"name": "any", **_without_defaults(file, defaults)}).canonical_config
    except ValidationError:
        return file


def _dump_field_defaults(model: type[BaseModel]) -> dict[str, Any]:
    """The defaults of a model as plain data; keys that must be given are absent, so nothing can be validated here."""
    return model.model_construct().model_dump(mode="json")


def _without_defaults(values: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """The entries of nested plain data that differ from their defaults."""
    remaining = {}
    for key, value in values.items():
        default = defaults.get(key)
        if isinstance(value, dict) and isinstance(default, dict):
            value = _without_defaults(value, default)
            default = {}
        if value != default:
            remaining[key] = value
    return remaining


def _weights_digest(word: str) -> str:
    """Hash of a checkpoint's weights and tokenizer; the word itself for what is not on this disk."""
    spec = parse_model(word)
    return spec.spec_text if spec.kind in BACKENDS else fingerprint(spec, locate(spec), "tokenizer.json")


def _first_difference(stored_value: Any, new_value: Any, path: str = "") -> str | None:
    """The first key at which two identities differ, and both values, in words; a missing key has its default."""
    both_values = (stored_value, new_value)
    if dict in map(type, both_values) and all(value is None or isinstance(value, dict) for value in both_values):
        stored_value, new_value = stored_value or {}, new_value or {}
        for key in [*new_value, *(key for key in stored_value if key not in new_value)]:
            difference = _first_difference(stored_value.get(key), new_value.get(key), f"{path}.{key}" if path else key)
            if difference:
                return difference
        return None
    if stored_value == new_value:
        return None
    if path in ("data", "student", "teacher"):
        return f"the contents of its {path} have changed"
    stored_text, new_text = ("the default" if value is None else repr(value) for value in both_values)
    return f"its {path.removeprefix('file.')} is {stored_text}, and here it is {new_text}"
