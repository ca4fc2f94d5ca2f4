"""Catalogue of lm-eval's tasks: the capability and domain of each family, with the reason for the label."""

import re
from fnmatch import translate
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from capgap.battery.yaml_document import read_yaml


class CatalogueLabel(BaseModel):
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


class _Catalogue(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    families: list[CatalogueLabel]


@cache
def catalogue() -> tuple[CatalogueLabel, ...]:
    """The labels of all families, in the order in which names are looked up."""
    document = read_yaml(Path(__file__).with_name("catalogue.yaml"))
    return tuple(document.validated(_Catalogue, file_kind="catalogue").families)


@cache
def _label_lookup() -> tuple[dict[str, CatalogueLabel], tuple[tuple[re.Pattern[str], CatalogueLabel], ...]]:
    """Labels by exact name, and one regular expression for each family: lm-eval has 15,000 names to look up."""
    by_name = {name: label for label in reversed(catalogue()) for name in label.tasks}
    return by_name, tuple((re.compile("|".join(map(translate, label.tasks))), label) for label in catalogue())


def known_label(task: str) -> CatalogueLabel | None:
    """The label of a task of lm-eval: of its own name before a pattern; None where nobody gave one."""
    by_name, family_patterns = _label_lookup()
    return by_name.get(task) or next((label for pattern, label in family_patterns if pattern.match(task)), None)
