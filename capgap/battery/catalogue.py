"""Catalogue of lm-eval's tasks: the capability and domain of each family, with the reason for the label."""

import re
from fnmatch import translate
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from capgap.battery.yaml_document import read_yaml


class TaskFamilyLabel(BaseModel):
    """The label of a family of tasks."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    tasks: list[str] = Field(min_length=1)
    """Names of lm-eval; ``*`` stands for any text, ``?`` for one letter."""
    capability: Literal["knowledge", "reasoning", "mixed"]
    """What it mainly asks for."""
    domain: str = Field(min_length=1)
    """The subject."""
    reason: str = Field(min_length=10)
    """Why it has this label, in one line."""
    source: str = Field(min_length=6)
    """Where its items come from: who looks there can check the reason."""


class _CatalogueFile(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    families: list[TaskFamilyLabel]


@cache
def load_family_labels() -> tuple[TaskFamilyLabel, ...]:
    """The labels of all families, in the order in which names are looked up."""
    document = read_yaml(Path(__file__).with_name("catalogue.yaml"))
    return tuple(document.validated(_CatalogueFile, file_kind="catalogue").families)


@cache
def _build_label_lookup() -> tuple[dict[str, TaskFamilyLabel], tuple[tuple[re.Pattern[str], TaskFamilyLabel], ...]]:
    """Labels by exact name, and one regular expression for each family: lm-eval has 15,000 names to look up."""
    by_name = {name: label for label in reversed(load_family_labels()) for name in label.tasks}
    return by_name, tuple((re.compile("|".join(map(translate, label.tasks))), label) for label in load_family_labels())


def known_label(task: str) -> TaskFamilyLabel | None:
    """The label of a task of lm-eval: of its own name before a pattern; None where nobody gave one."""
    by_name, family_patterns = _build_label_lookup()
    return by_name.get(task) or next((label for pattern, label in family_patterns if pattern.match(task)), None)
