"""Batteries by name or file: found, read, validated, hashed, with access to the rows of their data."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

import capgap
from capgap.battery.battery_spec import BatteryDefaults, BatterySpec, CustomTask, LmEvalTask, capability_complaint
from capgap.battery.data_source import SourceRow, fetch_remedy, find_file, hub_rows, read_rows, sha256
from capgap.battery.extraction import backtracking_complaint
from capgap.battery.items import TaskTemplates
from capgap.battery.templates import Template
from capgap.battery.yaml_document import YamlDocument, read_yaml
from capgap.errors import BatteryError, suggestion


@dataclass(frozen=True)
class Battery:
    """A battery file that was read and validated."""

    name: str
    """Its name."""
    version: str
    """Its version."""
    description: str
    """What it says about itself."""
    path: Path
    """The file."""
    tasks: tuple[CustomTask | LmEvalTask, ...]
    """Its tasks as the file has them."""
    defaults: BatteryDefaults
    """What holds where a task says nothing."""
    hash: str
    """SHA-256 over the file and every local data file that it names."""
    roots: tuple[Path, ...]
    """The folders in which data files are looked for."""
    document: YamlDocument
    """The file's data and lines, for messages."""
    allow_code: bool = False
    """Whether lm-eval tasks that run code may be used."""

    def where(self, task: CustomTask | LmEvalTask) -> str:
        """File, line and task, as messages begin."""
        return self.document.where(("tasks", self.tasks.index(task)))

    def rows(self, task: CustomTask, data_role: str = "items") -> list[SourceRow]:
        """The rows of a task: ``items`` (evaluated), ``train`` or ``fewshot``; empty where the task has no such part.

        Raises
        ------
        BatteryError
            The data are missing, not cached, or cannot be read.
        """
        data = task.data
        error_at = (
            f"{self.where(task)}, key 'data.{('file' if data.file else 'hub') if data_role == 'items' else data_role}'"
        )
        if data.hub is not None:
            split = (data.split or "test") if data_role == "items" else getattr(data, data_role)
            remedy = fetch_remedy(self.name)
            return hub_rows(data.hub, data.subset, split, data.revision, error_at, remedy) if split else []
        name = data.file if data_role == "items" else getattr(data, data_role)
        return read_rows(find_file(name, self.roots, error_at), error_at) if name else []


def load_battery(name_or_path: str | Path, *, data_root: Path | str | None = None, allow_code: bool = False) -> Battery:
    """The battery of that name, or in that file, checked as far as it can be without rendering its items.

    Parameters
    ----------
    name_or_path
        A shipped battery (``pocket``) or a YAML file.
    data_root
        A second folder for data files, after the battery's own; default the environment's ``CAPGAP_DATA``.
    allow_code
        Whether lm-eval tasks that run code may be used. A battery file itself never runs code.

    Raises
    ------
    BatteryError
        No such battery; the file is wrong; a data file is missing or outside both folders; a template is refused.
    """
    document = read_yaml(find_battery(name_or_path))
    spec = document.validated(BatterySpec)
    root = data_root if data_root is not None else os.environ.get("CAPGAP_DATA") or None
    if root is not None and not Path(root).is_dir():
        raise BatteryError(f"data root {str(root)!r}: no such folder.")
    roots = (document.path.parent, *([Path(root)] if root is not None else []))
    digest = hashlib.sha256(document.path.read_bytes())
    for position, task in enumerate(spec.tasks):
        error_at = document.where(("tasks", position))
        if isinstance(task, CustomTask):
            for file in _data_files(task, roots, error_at):
                digest.update(sha256(file).encode())
            _check_extract_regexes(task, document, position)
            _check_templates(task, error_at)
        _check_label(task.capability, document.where(("tasks", position, "capability")))
    return Battery(
        name=spec.name,
        version=str(spec.version),
        description=spec.description,
        path=document.path,
        tasks=tuple(spec.tasks),
        defaults=spec.defaults,
        hash=digest.hexdigest(),
        roots=roots,
        document=document,
        allow_code=allow_code,
    )


def find_battery(name_or_path: str | Path) -> Path:
    """The file of a battery.

    Raises
    ------
    BatteryError
        There is neither a shipped battery of that name nor such a file.
    """
    path = Path(name_or_path)
    if path.is_file():
        return path
    batteries = _shipped_batteries()
    if str(name_or_path) in batteries:
        return batteries[str(name_or_path)]
    if path.is_dir():
        raise BatteryError(f"battery {str(path)!r} is a folder; expected a YAML file or one of {', '.join(batteries)}.")
    hint = suggestion(str(name_or_path), batteries)
    if path.suffix in (".yaml", ".yml"):
        raise BatteryError(f"battery {str(path)!r}: no such file.{hint}")
    raise BatteryError(f"unknown battery {str(name_or_path)!r}.{hint} The path of a YAML file is possible too.")


def list_batteries() -> list[str]:
    """The names of the shipped batteries."""
    return sorted(_shipped_batteries())


def _shipped_batteries() -> dict[str, Path]:
    """Name → file: inside the installed package, or at the root of a checkout."""
    package = Path(capgap.__file__).resolve().parent
    for folder in (package / "batteries", package.parent / "batteries"):
        files = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
        if files:
            return files
    return {}


def _data_files(task: CustomTask, roots: tuple[Path, ...], error_at: str) -> list[Path]:
    if task.data.file is None:
        return []
    names = {key: getattr(task.data, key) for key in ("file", "train", "fewshot")}
    return [find_file(name, roots, f"{error_at}, key 'data.{key}'") for key, name in names.items() if name is not None]


def _check_templates(task: CustomTask, error_at: str) -> None:
    TaskTemplates(task, error_at)
    for name in task.variants:
        try:
            TaskTemplates(task.varied(name), f"{error_at}, variant {name!r}")
        except ValidationError as error:
            first_error = error.errors()[0]
            message = str(first_error["ctx"]["error"]) if first_error["type"] == "value_error" else first_error["msg"]
            raise BatteryError(f"{error_at}, variant {name!r}: {message}") from None


def _check_extract_regexes(task: CustomTask, document: YamlDocument, position: int) -> None:
    """The first expression that never ends is refused at once: thousands of them would be tried for hours."""
    keys: tuple[str | int, ...] = ("tasks", position)
    patterns = {(*keys, "extract"): task.extract}
    patterns |= {(*keys, "variants", name, "extract"): variant.extract for name, variant in task.variants.items()}
    for key, extract in patterns.items():
        complaint = backtracking_complaint(extract) if extract is not None else None
        if complaint is not None:
            raise BatteryError(f"{document.where(key)}: {complaint}")


def _check_label(capability: str | None, error_at: str) -> None:
    if capability is None or not Template(capability, error_at).is_literal_text:
        return
    complaint = capability_complaint(capability)
    if complaint:
        raise BatteryError(f"{error_at}: {complaint}")
