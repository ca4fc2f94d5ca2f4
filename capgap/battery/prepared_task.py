"""`PreparedTask`: one task of a battery, rendered to items and to an lm-eval Task."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from capgap.battery.items import Item

_ValueType = TypeVar("_ValueType")


@dataclass(frozen=True)
class PreparedTask:
    """A task in one variant: its items, an lm-eval Task over them, and how it is asked and scored."""

    battery: str
    """Name of its battery."""
    name: str
    """Name of the task."""
    variant: str
    """How it is asked; ``default`` is the task itself."""
    format: str
    """``choose`` or ``generate``."""
    num_fewshot: int
    """Solved examples before each item."""
    primary: str
    """The ``metric,filter`` whose value is the item's score."""
    items: tuple[Item, ...]
    """The items asked; ``items[i]`` is the document `i` of `lm_task`."""
    n_available: int
    """Items before the limit."""
    lm_task: Any
    """An lm-eval Task: ``build_all_requests``, ``instances``, ``apply_filters``, ``process_results``."""
    score: str | None = None
    """``choice``, ``exact`` …; None where lm-eval's own task decides."""
    extract: str | None = None
    """What the answer is read with before it is scored."""
    stop: tuple[str, ...] = ()
    """Texts that end a generated answer."""
    max_tokens: int | None = None
    """Longest generated answer; None for choices."""
    fewshot: str = "fixed"
    """How the solved examples are chosen."""
    repeats: int = 1
    """Answers drawn for each item."""

    @cached_property
    def capability(self) -> str | None:
        """The capability of all its items; None where they differ or nobody said."""
        return common_value_or_none(item.capability for item in self.items)

    @cached_property
    def domain(self) -> str | None:
        """The domain of all its items; None where they differ or nobody said."""
        return common_value_or_none(item.domain for item in self.items)


def common_value_or_none(values: Iterable[_ValueType | None]) -> _ValueType | None:
    """The one value that all have, else None."""
    distinct = set(values)
    return distinct.pop() if len(distinct) == 1 else None
