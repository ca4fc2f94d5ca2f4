"""Training examples from the rows of a file or of a data set of the hub, with checks of every row."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from capgap.battery.answer_scoring import extract_answer
from capgap.battery.data_source import hub_rows, read_rows
from capgap.distillation.config_keys import DataKeys
from capgap.distillation.data.selection import TaskFormat, TrainingExample
from capgap.errors import BatteryError, DistillError, suggestion

_ROW_KEYS = ("prompt", "completion", "rationale", "messages", "item", "task", "capability", "targets")
_ROLES = ("system", "user", "assistant", "tool")
_CAPABILITIES = ("knowledge", "reasoning", "mixed")


def read_examples(data: DataKeys, *, folder: Path) -> list[TrainingExample]:
    """The examples of ``data.file``.

    Parameters
    ----------
    data
        Names the file and how answers are found in it.
    folder
        A relative name counts from here: where the distillation file lies.

    Raises
    ------
    DistillError
        There is no such file, or a row is no example; the message names the row.
    """
    path = example_file(data, folder=folder)
    try:
        rows = read_rows(path, "data.file")
    except BatteryError as error:
        raise DistillError(f"{error} Expected JSON objects with prompt and completion, one a line.") from error
    # An example is known by the number of its line, or of its row where there are no lines.
    return _records_to_examples(data, ((r.fields, f"{path}: {r.location}", int(r.location.split()[-1])) for r in rows))


def load_hub_examples(data: DataKeys) -> list[TrainingExample]:
    """The examples of ``data.hub``.

    Raises
    ------
    DistillError
        The data set is neither cached nor reachable, holds nothing, or a row is no example; the message names the row.
    """
    return _records_to_examples(data, load_hub_records(data))


def load_hub_records(data: DataKeys) -> list[tuple[dict[str, Any], str, int]]:
    """The rows of ``data.hub``, what to call each in a message, and its number.

    Raises
    ------
    DistillError
        The data set is neither cached nor reachable, or holds nothing.
    """
    location, remedy = f"data.hub {data.hub}, split {data.split}", "Run once with the network, or give a file."
    try:
        rows = hub_rows(str(data.hub), data.subset, data.split, data.revision, location, remedy)
    except BatteryError as error:
        raise DistillError(str(error)) from error
    return [(dict(row.fields), f"{location}: {row.location}", number) for number, row in enumerate(rows, start=1)]


def _records_to_examples(data: DataKeys, records: Iterable[tuple[dict[str, Any], str, int]]) -> list[TrainingExample]:
    """The examples of some records, each with its place for messages and its number."""
    task_format = TaskFormat(extract=data.extract, delimiter="", answer_prefix=data.answer_prefix)
    unknown = next((key for key in data.columns if key not in _ROW_KEYS), None)
    if unknown is not None:
        raise DistillError(f"data.columns: {unknown!r} is no key of an example.{suggestion(unknown, _ROW_KEYS)}")
    return [_to_example(_renamed_columns(record, data, at), task_format, at, number) for record, at, number in records]


def _renamed_columns(record: dict[str, Any], data: DataKeys, location: str) -> dict[str, Any]:
    """A record under the names that examples have."""
    if not data.columns:
        return record
    for key, column in data.columns.items():
        if column not in record:
            raise DistillError(f"{location}: no column {column!r} for {key!r}.{suggestion(column, record)}")
    return record | {key: record[column] for key, column in data.columns.items()}


def example_file(data: DataKeys, *, folder: Path) -> Path:
    """The file that ``data.file`` names.

    Raises
    ------
    DistillError
        There is none.
    """
    path = folder / Path(data.file or "").expanduser()
    if not path.is_file():
        raise DistillError(f"{path}: no such file. data.file counts from the folder of the distillation file.")
    return path


def _to_example(record: dict[str, Any], task_format: TaskFormat, location: str, number: int) -> TrainingExample:
    """One record as an example."""
    if "messages" not in record:
        for key in ("prompt", "completion"):
            if key not in record:
                raise DistillError(f"{location}: no {key!r}.{suggestion(key, record)} Expected {', '.join(_ROW_KEYS)}.")
            if not isinstance(record[key], str) or not record[key].strip():
                raise DistillError(f"{location}: {key!r} should be a text, found {record[key]!r:.60}.")
    metadata = _parse_example_metadata(record, location, number) | {"task_format": task_format}
    if "messages" in record:
        turns = _parse_messages(record["messages"], location)
        return TrainingExample(prompt="", target=turns[-1]["content"], messages=turns, **metadata)
    completion = record["completion"]
    targets = record.get("targets", [_gold_answer(completion, task_format.extract)])
    if not isinstance(targets, list) or not all(isinstance(target, str) for target in targets):
        raise DistillError(f"{location}: 'targets' should be a list of texts, found {targets!r:.60}.")
    return TrainingExample(prompt=record["prompt"], target=completion, targets=tuple(targets), **metadata)


def _gold_answer(completion: str, extract: str | None) -> str:
    """The gold answer in a gold completion."""
    return (extract_answer(completion, extract) if extract else None) or completion.strip()


def _parse_example_metadata(record: dict[str, Any], location: str, number: int) -> dict[str, Any]:
    """What a line may say beside its texts."""
    for key in ("rationale", "task", "capability"):
        if record.get(key) is not None and not isinstance(record[key], str):
            raise DistillError(f"{location}: {key!r} should be a text, found {record[key]!r:.60}.")
    capability = record.get("capability")
    if capability is not None and capability not in _CAPABILITIES:
        raise DistillError(f"{location}: capability {capability!r} is none.{suggestion(capability, _CAPABILITIES)}")
    return {
        "item": str(record.get("item", number)),
        "task": record.get("task") or "file",
        "capability": capability,
        "rationale": record.get("rationale"),
    }


def _parse_messages(value: Any, location: str) -> tuple[dict[str, str], ...]:
    if not isinstance(value, list) or not value:
        raise DistillError(f"{location}: 'messages' should be a list of turns, found {value!r:.60}.")
    turns = []
    for index, turn in enumerate(value, start=1):
        if not isinstance(turn, dict) or not isinstance(turn.get("content"), str) or turn.get("role") not in _ROLES:
            expected_turn_form = f"a role ({', '.join(_ROLES)}) and a content"
            raise DistillError(f"{location}: turn {index} should have {expected_turn_form}, found {turn!r:.80}.")
        turns.append({"role": turn["role"], "content": turn["content"]})
    if turns[-1]["role"] != "assistant":
        raise DistillError(f"{location}: the last turn should be the assistant's, found {turns[-1]['role']!r}.")
    return tuple(turns)
