"""The labelled corpus: families of items of one kind and label, read from JSON and JSONL files."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from capgap.battery.data_source import read_rows
from capgap.battery.yaml_document import read_yaml
from capgap.classification.evidence import ItemText
from capgap.errors import BatteryError, TableError, suggestion


@dataclass(frozen=True)
class ItemFamily:
    """Items of one kind, which all have one label."""

    name: str
    """Its name in the table."""
    reasoning: bool
    """True for reasoning, False for knowledge."""
    reason: str
    """Why it has this label."""
    questions: tuple[ItemText, ...]
    """The items."""
    kin: frozenset[str] = frozenset()
    """Names of families of the same kind: whenever one of them is left out of a fit, this one is too."""
    measured: bool = True
    """Whether the family counts in the table; families that only help to fit do not."""


class _ItemFamilySpec(BaseModel):
    """A family as the YAML file has it."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    family: str = Field(min_length=1)
    files: list[str] = Field(min_length=1)
    text: str | list[str] = "text"
    choices: str | None = None
    label: Literal["knowledge", "reasoning"]
    reason: str = Field(min_length=10)
    kin: list[str] = []
    measured: bool = True

    @field_validator("files")
    @classmethod
    def _refuse_outside_paths(cls, files: list[str]) -> list[str]:
        for name in files:
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise ValueError(f"{name!r} leaves the corpus folder; give a path inside it")
        return files


class _LabelledCorpusSpec(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    version: int = 1
    families: list[_ItemFamilySpec] = Field(min_length=1)


def read_corpus(folder: str | Path) -> tuple[ItemFamily, ...]:
    """The labelled families of a folder.

    A folder of one's own holds a ``corpus.yaml`` like the one beside this module: for each family its JSON or JSONL
    files, the key of the question (``text``, by default ``text``), the key of the choices if there are any
    (``choices``; ``letters`` where they stand inside the text), ``label``, a ``reason`` of one line, and, if the
    family is of the same kind as others, their names as ``kin``. Without such a file the folder is read by the file
    beside this module.

    Parameters
    ----------
    folder
        Where the files are.

    Raises
    ------
    TableError
        The folder, a file or a key is missing, a row has no question, or a family is declared twice.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise TableError(f"{folder}: no such folder. A corpus is a folder with the files that its corpus.yaml names.")
    declaration = folder / "corpus.yaml"
    document = read_yaml(declaration if declaration.is_file() else Path(__file__).with_name("corpus.yaml"))
    family_specs = document.validated(_LabelledCorpusSpec, error=TableError, file_kind="corpus").families
    names = [family_spec.family for family_spec in family_specs]
    for n, family_spec in enumerate(family_specs):
        if family_spec.family in names[:n]:
            raise TableError(f"{document.path}: the family {family_spec.family!r} is declared twice.")
    return tuple(_read_family(folder, family_spec) for family_spec in family_specs)


def _read_family(folder: Path, family_spec: _ItemFamilySpec) -> ItemFamily:
    keys = [family_spec.text] if isinstance(family_spec.text, str) else family_spec.text
    choices = None if family_spec.choices == "letters" else family_spec.choices
    questions = tuple(
        _question(row, keys, choices, location)
        for name in family_spec.files
        for location, row in _rows(folder / name, family_spec.family)
    )
    return ItemFamily(
        name=family_spec.family,
        reasoning=family_spec.label == "reasoning",
        reason=family_spec.reason,
        questions=questions,
        kin=frozenset(family_spec.kin),
        measured=family_spec.measured,
    )


def _question(row: dict[str, Any], keys: list[str], choices: str | None, location: str) -> ItemText:
    text = next((row[key] for key in keys if isinstance(row.get(key), str)), None)
    if text is None:
        raise TableError(f"{location}: no text under {' or '.join(map(repr, keys))}.{suggestion(keys[0], row)}")
    if choices is None:
        return ItemText(text)
    row_choices = row.get(choices)
    if not isinstance(row_choices, list):
        raise TableError(f"{location}: {choices!r} is not a list of choices.{suggestion(choices, row)}")
    return ItemText(text, tuple(str(choice) for choice in row_choices))


def _rows(path: Path, family: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a file, each after its place for messages."""
    try:
        rows = read_rows(path, f"corpus.yaml, family {family!r}")
    except BatteryError as error:
        raise TableError(str(error)) from error
    return ((f"{path}, {row.location}", row.fields) for row in rows)
