"""Progress events of evaluation, distillation and classification: typed, rendered by whoever listens.

Library functions take ``on_event``, a `Listener`, and never print. The command line draws bars or writes plain lines
(`capgap.cli.progress`); a study collects events of several students; a notebook may count them.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class StageBegun:
    """A stage of work has begun."""

    stage_id: str
    """What is done, in a word or two; names the stage in later events."""
    total: int | None = None
    """Units of work in all; None where nobody knows."""
    unit: str = "item"
    """What is counted, in the singular."""


@dataclass(frozen=True)
class StageAdvanced:
    """Some of a stage's work is done."""

    stage_id: str
    """The stage."""
    n: int = 1
    """Units done since the last event of this stage."""
    status: str = ""
    """What is being worked on, or how it goes (``loss 1.83``); short, one line."""


@dataclass(frozen=True)
class Note:
    """Something that the user should know, one sentence."""

    text: str
    """The sentence."""
    level: Literal["info", "warning"] = "info"
    """Warnings are shown even where progress is not."""


@dataclass(frozen=True)
class StageFinished:
    """A stage of work has ended, whole or not."""

    stage_id: str
    """The stage."""


Event = StageBegun | StageAdvanced | Note | StageFinished
Listener = Callable[[Event], None]
"""Called with every event, in order, in the process of the caller."""


def ignore(event: Event) -> None:
    """A listener that hears nothing: the default of library functions."""


@contextmanager
def stage(on_event: Listener, name: str, total: int | None, unit: str) -> Iterator[Callable[..., None]]:
    """Emit `StageBegun` before and `StageFinished` after a block, however it ends; yields what emits `StageAdvanced`.

    Parameters
    ----------
    on_event
        Listener for the events.
    name, total, unit
        Of `StageBegun`. The yielded function takes ``n`` and ``status`` of `StageAdvanced`.
    """
    on_event(StageBegun(name, total, unit))

    def advance(n: int = 1, status: str = "") -> None:
        on_event(StageAdvanced(name, n, status))

    try:
        yield advance
    finally:
        on_event(StageFinished(name))
