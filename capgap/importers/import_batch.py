"""What an import found: rows by the file they came from, what was left out and why, and remarks."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from capgap.importers.values import shown

__all__ = ["ImportBatch", "TaskResults", "SkippedFile", "label"]


def label(path: Path) -> str:
    """A file for messages and records: as it was named, without what only means something on this machine."""
    if not path.is_absolute():
        return str(path)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else "/".join(path.parts[-2:])


@dataclass(frozen=True)
class SkippedFile:
    """Something that was not imported."""

    where: str
    """The file, and the task or line in it."""
    reason: str
    """What was expected and what was found."""
    count: int
    """How many lines, samples or tasks this is about."""

    first: str = ""
    """The first of them, where that says more than the reason."""

    def __str__(self) -> str:
        """One line for the terminal."""
        times = f" ({self.count:,} times)" if self.count > 1 else ""
        first = f"; first: {self.first}" if self.first else ""
        return f"{self.where}: {self.reason}{times}{first}"


@dataclass
class TaskResults:
    """What one file says about one task of one model; not empty."""

    source: str
    """The file, as messages name it."""
    rows: list[dict[str, Any]]
    """Rows of the outcomes table."""
    items: list[dict[str, Any]] = field(default_factory=list)
    """Rows of the items table."""
    facts: dict[str, Any] = field(default_factory=dict)
    """The model's row of the models table without its name, as far as the file tells."""
    asked: Mapping[str, Any] = field(default_factory=dict)
    """How the task was asked (solved examples, version), where the file tells."""
    items_by_content: bool = True
    """Whether equal item ids mean equal questions; where they are only numbers, the questions are compared."""

    @property
    def model(self) -> str:
        """The model's name."""
        return str(self.rows[0]["model"])

    @property
    def battery(self) -> str:
        """The battery that the task belongs to."""
        return str(self.rows[0].get("battery", "battery"))

    @property
    def task(self) -> str:
        """The task's name."""
        return str(self.rows[0]["task"])


@dataclass
class ImportBatch:
    """Everything that one call of an importer found."""

    kind: str
    """``lm-eval``, ``inspect`` or ``table``."""
    parts: list[TaskResults] = field(default_factory=list)
    """In the order in which later files may replace earlier ones."""
    notes: list[str] = field(default_factory=list)
    """What a reader of the numbers should know."""
    _skipped: dict[tuple[str, str], SkippedFile] = field(default_factory=dict)

    @property
    def n_rows(self) -> int:
        """Rows of outcomes, every metric and filter counted."""
        return sum(len(part.rows) for part in self.parts)

    @property
    def skipped(self) -> list[SkippedFile]:
        """What was not imported, equal reasons in one file counted together."""
        return list(self._skipped.values())

    def skip(self, where: str, reason: str, count: int = 1, *, first: str = "") -> None:
        """List something that is not imported.

        Parameters
        ----------
        where
            The file (and task).
        reason
            The same words for the same trouble: equal reasons are counted, not repeated.
        count
            How many times.
        first
            The one at hand; the first that is given for a reason is kept.
        """
        key = (shown(where), shown(reason, 400))
        before = self._skipped.get(key, SkippedFile(*key, 0, shown(first, 300)))
        self._skipped[key] = replace(before, count=before.count + count)

    def note(self, text: str) -> None:
        """Say something about what was imported, once."""
        line = shown(text, 600)
        if line not in self.notes:
            self.notes.append(line)
