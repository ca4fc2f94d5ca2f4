"""`DistillJob`: what all steps of one distillation share, and the progress events of their stages."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from capgap.distillation.config import DistillConfig
from capgap.events import Advanced, Begun, Finished, Listener, Note, ignore


@dataclass(frozen=True)
class DistillJob:
    """One call of `distill`."""

    config: DistillConfig
    """The distillation file."""
    out: Path
    """Directory of the student."""
    folder: Path
    """Relative files of the distillation file count from here."""
    device: str | None = None
    """``cpu``, ``cuda`` …; None: the best there is."""
    on_event: Listener = ignore
    """Hears of the progress."""

    def note(self, text: str) -> None:
        """Tell the user something, under the student's name."""
        self.on_event(Note(f"{self.config.name}: {text}"))


@contextmanager
def stage(on_event: Listener, name: str, total: int | None, unit: str) -> Iterator[Callable[..., None]]:
    """Emit `Begun` before and `Finished` after a block, however it ends; yields a function that emits `Advanced`.

    Parameters
    ----------
    on_event
        Who hears of it.
    name, total, unit
        Of `Begun`. The yielded function takes ``n`` and ``status`` of `Advanced`.
    """
    on_event(Begun(name, total, unit))

    def advance(n: int = 1, status: str = "") -> None:
        on_event(Advanced(name, n, status))

    try:
        yield advance
    finally:
        on_event(Finished(name))
