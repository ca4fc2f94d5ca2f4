"""Settings of an import: constants for every row, and the metric that counts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from capgap.errors import UsageError, suggestion
from capgap.importers.import_batch import ImportResult
from capgap.importers.primary_metric import MetricRequest
from capgap.importers.values import is_valid_score, name_text, number
from capgap.schema import ANSWER_FORMATS, CAPABILITIES

FIXED_COLUMNS = ("model", "battery", "task", "variant", "capability", "domain", "format", "chance")
"""Columns that may hold one value in every row, said by the user instead of the source."""
_ALLOWED_WORDS = {"capability": CAPABILITIES, "format": ANSWER_FORMATS}


@dataclass(frozen=True)
class ImportSettings:
    """What the user says instead of the source."""

    fixed_values: Mapping[str, Any] = field(default_factory=dict)
    """Column → the value that it holds in every row."""
    primary: Sequence[str] = ()
    """``[TASK:]METRIC[,FILTER]``: the metric that counts."""

    @classmethod
    def parsed(cls, set_options: Sequence[str] = (), primary: Sequence[str] = ()) -> "ImportSettings":
        """The settings in command-line options.

        Raises
        ------
        UsageError
            A word is no ``COLUMN=VALUE``, its column cannot be constant, or the value does not fit it.
        """
        values = {column: _parse_constant(column, text) for column, text in parse_pairs(set_options, "--set").items()}
        return cls(values, tuple(primary))


def parse_pairs(texts: Sequence[str], option: str) -> dict[str, str]:
    """``COLUMN=VALUE`` texts as a mapping.

    Raises
    ------
    UsageError
        A text has no equals sign, or a column comes twice.
    """
    values: dict[str, str] = {}
    for text in texts:
        column, equals, value = (partition_piece.strip() for partition_piece in text.partition("="))
        if not equals or not column or not value:
            raise UsageError(f"{option} {text}: expected COLUMN=VALUE.")
        if column in values:
            raise UsageError(f"{option} {text}: {column!r} is given twice, first as {values[column]!r}.")
        values[column] = value
    return values


def with_settings(batch: ImportResult, settings: ImportSettings, metric_request: MetricRequest) -> ImportResult:
    """The batch with the user's constants in every row of its outcomes and, where they belong there, of its items.

    Raises
    ------
    UsageError
        The user wants a metric that no task has.
    """
    if batch.parts:
        metric_request.check_used()
    fixed_values = settings.fixed_values
    item_values = {column: value for column, value in fixed_values.items() if column in ("battery", "task", "variant")}
    for result in batch.parts:
        for row in result.rows:
            row.update(fixed_values)
        for item in result.items:
            item.update(item_values)
    return batch


def _parse_constant(column: str, text: str) -> Any:
    option = f"--set {column}={text}"
    if column not in FIXED_COLUMNS:
        raise UsageError(f"{option}: {column!r} cannot be one value for every row.{suggestion(column, FIXED_COLUMNS)}")
    if column == "chance":
        chance = number(text)
        if not is_valid_score(chance):
            raise UsageError(f"{option}: expected a number from 0 to 1, the score of a guess.")
        return chance
    if column in _ALLOWED_WORDS and text not in _ALLOWED_WORDS[column]:
        raise UsageError(f"{option}: {text!r} is not one of its words.{suggestion(text, _ALLOWED_WORDS[column])}")
    try:
        return name_text(text, column)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from None
