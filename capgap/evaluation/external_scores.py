"""External scores: responses are written to one file, their scores come back in another.

A task with ``score: external`` is answered by the model and judged by somebody else: a person, a judge model, a tool.
``responses.jsonl`` in the run directory holds what there is to judge; ``scores.jsonl`` beside it is read whenever the
tables are made: the same line with ``score``, a number from 0 to 1 (true and false count as 1 and 0).
"""

import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from capgap.battery import PreparedTask
from capgap.errors import TableError
from capgap.schema import atomic_write
from capgap.store import RunDirectory

__all__ = ["ExternalScoring"]

_KEY_COLUMNS = ("model", "battery", "task", "item", "variant", "repeat")
_LONGEST_LINE = 10_000_000

OutcomeRowKey = tuple[str, str, str, str, str, int]


class ExternalScoring:
    """Responses of one model that are judged elsewhere, and the scores that came back.

    Parameters
    ----------
    run
        The run directory.
    model
        The model's name.

    Raises
    ------
    TableError
        ``scores.jsonl`` holds a line that cannot be used.
    """

    def __init__(self, run: RunDirectory, model: str) -> None:
        self._run = run
        self._model = model
        self._scores: dict[OutcomeRowKey, float] | None = None
        self._responses: list[dict[str, Any]] = []
        self._n_unscored = 0

    def scored(self, rows: Iterable[dict[str, Any]], task: PreparedTask) -> list[dict[str, Any]]:
        """Outcome rows with the scores that came back; those without wait, with status ``error``."""
        if self._scores is None:
            self._scores = dict(_read_scores(self._run.path / "scores.jsonl"))
        prompts = {(item.item, item.variant): item.prompt for item in task.items}
        scored_rows = []
        for row in rows:
            texts = {"prompt": prompts[(row["item"], row["variant"])], **{k: row[k] for k in ("target", "response")}}
            self._responses.append({key: row[key] for key in _KEY_COLUMNS} | texts)
            # Without a score a row is an error, never a zero; it is scored when the tables are made again.
            score = self._scores.get(_outcome_key(row), math.nan)
            is_unscored = math.isnan(score)
            self._n_unscored += is_unscored
            scored_rows.append(row | {"value": score, "score": score, "status": "error" if is_unscored else "scored"})
        return scored_rows

    def write_responses(self) -> list[str]:
        """Write ``responses.jsonl``, other models' lines kept; returns what the user has to do, if anything."""
        if not self._responses:
            return []
        path = self._run.path / "responses.jsonl"
        with self._run.hold_tables_lock():  # another process may add its model's lines
            other_lines = [line for line in _read_json_lines(path) if line.get("model") != self._model]
            text = (json.dumps(line, ensure_ascii=False, default=str) for line in [*other_lines, *self._responses])
            with atomic_write(path) as partial_path:
                partial_path.write_text("".join(f"{line}\n" for line in text), encoding="utf-8", errors="surrogatepass")
        if not self._n_unscored:
            return []
        return [
            f"{self._model}: {self._n_unscored:,} responses wait for their score. Judge {path}, write the same lines "
            f'with "score" (0 to 1) to {path.with_name("scores.jsonl")}, and run the same command with --rescore.'
        ]


def _read_scores(path: Path) -> Iterator[tuple[OutcomeRowKey, float]]:
    line_numbers: dict[OutcomeRowKey, int] = {}
    for number, line in enumerate(_read_json_lines(path), start=1):
        location = f"{path}, line {number}"
        missing_keys = [key for key in (*_KEY_COLUMNS[:4], "score") if key not in line]
        if missing_keys:
            raise TableError(f"{location}: lacks {missing_keys[0]!r}. Expected {', '.join(_KEY_COLUMNS)} and score.")
        score = line["score"]
        if not isinstance(score, (bool, int, float)) or not 0.0 <= float(score) <= 1.0:
            raise TableError(f"{location}: score is {score!r}. Expected a number from 0 to 1.")
        key = _outcome_key({"variant": "default", "repeat": 0, **line})
        if key in line_numbers:
            raise TableError(f"{location}: scores again what line {line_numbers[key]} scored. Keep one of them.")
        line_numbers[key] = number
        yield key, float(score)


def _read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="surrogatepass") as file:
        for number, text in enumerate(file, start=1):
            if not text.strip():
                continue
            if len(text) > _LONGEST_LINE:
                raise TableError(f"{path}, line {number}: is longer than {_LONGEST_LINE:,} characters.")
            try:
                line = json.loads(text)
            except (ValueError, RecursionError) as error:
                raise TableError(f"{path}, line {number}: is no JSON: {error}.") from error
            if not isinstance(line, dict):
                raise TableError(f"{path}, line {number}: expected a JSON object, found {type(line).__name__}.")
            yield line


def _outcome_key(row: dict[str, Any]) -> OutcomeRowKey:
    model, battery, task, item, variant, repeat = (row[key] for key in _KEY_COLUMNS)
    return str(model), str(battery), str(task), str(item), str(variant), int(repeat)
