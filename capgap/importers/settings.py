"""Settings of an import: constants for every row, and the metric that counts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from capgap.errors import UsageError, suggestion
from capgap.importers.import_batch import ImportBatch
from capgap.importers.primary_metric import MetricRequest
from capgap.importers.values import is_score, name_text, number
from capgap.schema import CAPABILITIES, FORMATS

CONSTANTS = ("model", "battery", "task", "variant", "capability", "domain", "format", "chance")
"""Columns that may hold one value in every row, said by the user instead of the source."""
_WORDS = {"capability": CAPABILITIES, "format": FORMATS}


@dataclass(frozen=True)
class ImportSettings:
    """What the user says instead of the source."""

    constants: Mapping[str, Any] = field(default_factory=dict)
    """Column → the value that it holds in every row."""
    primary: Sequence[str] = ()
    """``[TASK:]METRIC[,FILTER]``: the metric that counts."""

    @classmethod
    def parsed(cls, constants: Sequence[str] = (), primary: Sequence[str] = ()) -> "ImportSettings":
        """The settings in command-line options.

        Raises
        ------
        UsageError
            A word is no ``COLUMN=VALUE``, its column cannot be constant, or the value does not fit it.
        """
        values = {column: _constant(column, text) for column, text in assignments(constants, "--set").items()}
        return cls(values, tuple(primary))


def assignments(texts: Sequence[str], option: str) -> dict[str, str]:
    """``COLUMN=VALUE`` texts as a mapping.

    Raises
    ------
    UsageError
        A text has no equals sign, or a column comes twice.
    """
    values: dict[str, str] = {}
    for text in texts:
        column, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not column or not value:
            raise UsageError(f"{option} {text}: expected COLUMN=VALUE.")
        if column in values:
            raise UsageError(f"{option} {text}: {column!r} is given twice, first as {values[column]!r}.")
        values[column] = value
    return values


def with_settings(batch: ImportBatch, settings: ImportSettings, wanted: MetricRequest) -> ImportBatch:
    """The batch with the user's constants in every row of its outcomes and, where they belong there, of its items.

    Raises
    ------
    UsageError
        The user wants a metric that no task has.
    """
    if batch.parts:
        wanted.check_used()
    constants = settings.constants
    of_items = {column: value for column, value in constants.items() if column in ("battery", "task", "variant")}
    for part in batch.parts:
        for row in part.rows:
            row.update(constants)
        for item in part.items:
            item.update(of_items)
    return batch


def _constant(column: str, text: str) -> Any:
    where = f"--set {column}={text}"
    if column not in CONSTANTS:
        raise UsageError(f"{where}: {column!r} cannot be one value for every row.{suggestion(column, CONSTANTS)}")
    if column == "chance":
        chance = number(text)
        if not is_score(chance):
            raise UsageError(f"{where}: expected a number from 0 to 1, the score of a guess.")
        return chance
    if column in _WORDS and text not in _WORDS[column]:
        raise UsageError(f"{where}: {text!r} is not one of its words.{suggestion(text, _WORDS[column])}")
    try:
        return name_text(text, column)
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from None
