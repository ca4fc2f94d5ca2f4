"""The batch that an importer makes: rows by the file they came from, what was left out and why, and remarks."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from capgap.battery.catalogue import known_label
from capgap.errors import CapgapError, TableError
from capgap.importers.reading import JsonRecord
from capgap.importers.values import short_text, truncate_text

__all__ = ["ImportResult", "SkippedFile", "TaskResults", "catalogue_columns", "item_row", "label"]

SampleType = TypeVar("SampleType")


def label(path: Path) -> str:
    """A file for messages and records: as it was named, without what only means something on this machine."""
    if not path.is_absolute():
        return str(path)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else "/".join(path.parts[-2:])


def item_row(
    battery: str, task: str, item: str, *, variant: str = "default", prompt: Any, choices: Any, target: Any
) -> dict[str, Any]:
    """A row of the items table; lists are written as JSON."""
    texts = {"prompt": prompt, "choices": list(choices) if choices else None, "target": target}
    return {
        **{"battery": battery, "task": task, "item": item, "variant": variant},
        **{name: truncate_text(value) for name, value in texts.items()},
    }


def catalogue_columns(task: str) -> dict[str, Any]:
    """Capability and domain of a task that capgap's catalogue knows."""
    entry = known_label(task)
    return {"capability": entry.capability if entry else None, "domain": entry.domain if entry else None}


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
        times_suffix = f" ({self.count:,} times)" if self.count > 1 else ""
        first_example_suffix = f"; first: {self.first}" if self.first else ""
        return f"{self.where}: {self.reason}{times_suffix}{first_example_suffix}"


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
    setup: Mapping[str, Any] = field(default_factory=dict)
    """How the task was put to the model (solved examples, version), where the file tells."""
    has_content_ids: bool = True
    """Whether equal item ids mean equal questions; where they are only numbers, the questions are compared."""

    @property
    def model(self) -> str:
        """The model's name."""
        return str(self.rows[0]["model"])

    @property
    def task(self) -> str:
        """The task's name."""
        return str(self.rows[0]["task"])


@dataclass
class ImportResult:
    """Everything that one call of an importer found."""

    kind: str
    """``lm-eval``, ``inspect`` or ``table``."""
    parts: list[TaskResults] = field(default_factory=list)
    """In the order in which later files may replace earlier ones."""
    notes: list[str] = field(default_factory=list)
    """What a reader of the numbers should know."""
    _skips_by_reason: dict[tuple[str, str], SkippedFile] = field(default_factory=dict)

    @property
    def n_rows(self) -> int:
        """Rows of outcomes, every metric and filter counted."""
        return sum(len(result.rows) for result in self.parts)

    @property
    def skipped(self) -> list[SkippedFile]:
        """What was not imported, equal reasons in one file counted together."""
        return list(self._skips_by_reason.values())

    def skip(self, source: str | Path, reason: str, count: int = 1, *, first_example: str = "") -> None:
        """List something that is not imported.

        Parameters
        ----------
        source
            The file, or its label (and task).
        reason
            The same words for the same trouble: equal reasons are counted, not repeated.
        count
            How many times.
        first_example
            The one at hand; the first that is given for a reason is kept.
        """
        key = (short_text(label(source) if isinstance(source, Path) else source), short_text(reason, 400))
        previous_entry = self._skips_by_reason.get(key, SkippedFile(*key, 0, short_text(first_example, 300)))
        self._skips_by_reason[key] = replace(previous_entry, count=previous_entry.count + count)

    def note(self, text: str) -> None:
        """Say something about what was imported, once."""
        line = short_text(text, 600)
        if line not in self.notes:
            self.notes.append(line)

    def read_samples(
        self,
        file: Path,
        records: Iterable[JsonRecord],
        parse_sample: Callable[[Any], SampleType],
        key: Callable[[SampleType], Any],
        *,
        duplicate: str,
        empty: str,
    ) -> list[SampleType]:
        """The samples in the records of a file, each key once; the others are listed.

        Parameters
        ----------
        file
            Where they stand.
        records
            One a sample.
        parse_sample
            Makes a sample of a record's value, or raises `CapgapError`.
        key
            What names a sample within the file; of two with one key the first counts.
        duplicate, empty
            Reasons to list a second sample of one key, and a file without records.
        """
        sample_by_key: dict[Any, SampleType] = {}
        is_empty = True
        for record in records:
            is_empty = False
            try:
                if record.read_error:
                    raise TableError(record.read_error)
                sample = parse_sample(record.value)
            except CapgapError as error:
                reason, _, detail = str(error).partition(":")
                self.skip(file, reason, first_example=f"{record.location}:{detail}" if detail else record.location)
                continue
            if sample_by_key.setdefault(key(sample), sample) is not sample:
                is_identical = sample_by_key[key(sample)] == sample
                self.skip(
                    file, "a record stands there twice" if is_identical else duplicate, first_example=record.location
                )
        if is_empty:
            self.skip(file, empty)
        return list(sample_by_key.values())
