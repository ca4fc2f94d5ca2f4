"""`DistillJob`: what all steps of one distillation share."""

from dataclasses import dataclass
from pathlib import Path

from capgap.distillation.config import DistillConfig
from capgap.events import Listener, Note, ignore


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
