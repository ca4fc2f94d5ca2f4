"""Index of lm-eval's tasks, groups and tags, kept in the user's cache folder.

lm-eval reads 15,000 YAML files whenever a task is named, which takes seconds. What it finds there depends on these
files alone: their names, sizes and times of change, lm-eval's version and its folder are the key of one JSON file.
Whatever is wrong with that file (cut off, edited, of another version) means that the index is built anew.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import TypeAdapter

from capgap.battery.lm_eval_output import quiet
from capgap.user_cache import user_cache, write_cache_file

_CACHE_FORMAT_VERSION = 1
_NOT_TASKS = {".py", ".pyc", ".md", ".txt"}


@dataclass(frozen=True)
class TaskIndexEntry:
    """A name of lm-eval's: a task, a group or a tag."""

    kind: str
    """``TASK``, ``PY_TASK``, ``GROUP`` or ``TAG``."""
    path: str | None
    """Its YAML file, relative to lm-eval's folder of tasks; None for a tag."""
    members: tuple[str, ...] = ()
    """What a group or tag stands for, names again."""


_INDEX_TYPE_ADAPTER = TypeAdapter(dict[str, TaskIndexEntry])


@cache
def task_index() -> dict[str, TaskIndexEntry]:
    """The index by name: from the cache where that is valid, else from lm-eval; once a process."""
    folder, version = _find_installed_lm_eval()
    file, fingerprint = cache_file(folder, version), _fingerprint(folder)
    index = read_index(file, fingerprint)
    if index is None:
        index = _build_index(folder)
        _write_index(file, fingerprint, index)
    return index


@cache
def task_manager() -> Any:
    """lm-eval's TaskManager over the index; it reads a task's YAML file when the task is loaded."""
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks._index import Entry, Kind

    folder, _ = _find_installed_lm_eval()
    with quiet():
        lm_eval_manager = TaskManager(include_defaults=False)
    for name, entry in task_index().items():
        lm_eval_manager.task_index[name] = Entry(
            name=name,
            kind=Kind[entry.kind],
            yaml_path=folder / entry.path if entry.path else None,
            tags=set(entry.members) if entry.kind == "TAG" else set(),
        )
    return lm_eval_manager


def cache_file(folder: Path, version: str) -> Path:
    """The cache file of the index of the lm-eval in a folder."""
    key = hashlib.sha256(f"{version}\0{folder}".encode()).hexdigest()[:16]
    return user_cache() / f"lm-eval-tasks-{key}.json"


def read_index(file: Path, fingerprint: str) -> dict[str, TaskIndexEntry] | None:
    """The index in the file; None where it is absent, damaged, or of other tasks."""
    try:
        header, body = file.read_text(encoding="utf-8").split("\n", 1)
        if json.loads(header) != _cache_header(fingerprint, body):
            return None
        entries = _INDEX_TYPE_ADAPTER.validate_json(body)
    except (OSError, ValueError, RecursionError):
        return None
    return entries if entries and all(map(_has_safe_yaml_path, entries.values())) else None


def _has_safe_yaml_path(entry: TaskIndexEntry) -> bool:
    """Whether an entry stays in lm-eval's folder: a forged index must not lead to a YAML file that runs code."""
    if entry.kind == "TAG":
        return entry.path is None
    if entry.kind not in ("TASK", "PY_TASK", "GROUP") or entry.path is None:
        return False
    path = PurePosixPath(entry.path)
    return not path.is_absolute() and ".." not in path.parts and "\\" not in entry.path and path.suffix == ".yaml"


def _find_installed_lm_eval() -> tuple[Path, str]:
    from importlib.metadata import version

    import lm_eval.tasks

    return Path(lm_eval.tasks.__file__).parent, version("lm_eval")


def _fingerprint(folder: Path) -> str:
    """Digest of name, size and time of change of every file that a task may be made of."""
    digest = hashlib.sha256()
    for line in sorted(_list_file_stats(str(folder), "")):
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _list_file_stats(folder: str, root_relative_folder: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            name = f"{root_relative_folder}/{entry.name}"
            if entry.is_dir():
                if entry.name != "__pycache__":
                    yield from _list_file_stats(entry.path, name)
            elif os.path.splitext(entry.name)[1] not in _NOT_TASKS:
                file_stat = entry.stat()
                yield f"{name}\0{file_stat.st_size}\0{file_stat.st_mtime_ns}\n"


def _build_index(folder: Path) -> dict[str, TaskIndexEntry]:
    from lm_eval.tasks import TaskManager

    with quiet():
        index = TaskManager().task_index
    return {name: _to_index_entry(index[name], folder) for name in sorted(index)}


def _to_index_entry(entry: Any, folder: Path) -> TaskIndexEntry:
    path = entry.yaml_path.relative_to(folder).as_posix() if entry.yaml_path is not None else None
    if entry.kind.name == "TAG":
        return TaskIndexEntry("TAG", path, tuple(sorted(entry.tags)))
    members = tuple(_member_names((entry.cfg or {}).get("task"))) if entry.kind.name == "GROUP" else ()
    return TaskIndexEntry(entry.kind.name, path, members)


def _member_names(members: Any) -> Iterator[str]:
    """The names in a group's list: a text, or an entry with changes of its own; an inline group has a list again."""
    for member in members if isinstance(members, list) else [members]:
        if isinstance(member, str):
            yield member
        elif isinstance(member, Mapping):
            inline_members = member.get("task")
            yield from _member_names(inline_members if inline_members is not None else member.get("group"))


def _write_index(file: Path, fingerprint: str, index: dict[str, TaskIndexEntry]) -> None:
    body = json.dumps(_INDEX_TYPE_ADAPTER.dump_python(index, mode="json"), ensure_ascii=False)
    with suppress(OSError):  # a cache that can't be written costs time, nothing else
        write_cache_file(file, f"{json.dumps(_cache_header(fingerprint, body))}\n{body}".encode())


def _cache_header(fingerprint: str, body: str) -> dict[str, Any]:
    return {"format": _CACHE_FORMAT_VERSION, "tasks": fingerprint, "digest": hashlib.sha256(body.encode()).hexdigest()}
