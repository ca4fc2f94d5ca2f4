"""Files of the classifier: questions from JSONL, labels to and from JSONL and Parquet, answers of models."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import pandas as pd

from capgap import schema
from capgap.battery.items import content_ids, sample_positions
from capgap.classification.evidence import ItemText
from capgap.classification.json_lines import json_lines, json_type_in_words
from capgap.classification.labelling import UnlabelledItem, compact_json
from capgap.errors import TableError, UsageError, suggestion
from capgap.schema import CAPABILITIES
from capgap.store import has_outcomes, read_outcomes

OutcomesAndModels = tuple[pd.DataFrame, pd.DataFrame]
"""An `outcomes` table, and the `models` table of those who gave the answers."""

_MAX_LISTED_ERRORS = 10
_OPTIONAL_TEXT_KEYS = ("task", "item", "rationale")


def read_items(path: Path | str, *, limit: int | None = None) -> list[UnlabelledItem]:
    """The items of a JSONL file.

    Parameters
    ----------
    path
        One JSON object a line. ``text`` is the question and must be there; ``item``, ``task``, ``choices``,
        ``target`` (a text, the index of a choice, or a list of them of which the first counts), ``capability`` and
        ``rationale`` (the fact or the steps) where they are known. Without ``item`` the id is a hash of the question
        and its occurrence. Other keys are left alone; empty lines count for nothing.
    limit
        At most so many items: a seeded sample, in the order of the file.

    Raises
    ------
    TableError
        The file cannot be read, or lines of it are no such objects; they are named with what is wrong.
    """
    path = Path(path)
    return parse_items(json_lines(path), path, limit=limit)


def parse_items(
    rows: Iterable[tuple[int, Mapping[str, Any] | str]], source: Path, *, limit: int | None = None
) -> list[UnlabelledItem]:
    """The items of numbered objects with the keys of `read_items`.

    Parameters
    ----------
    rows
        Number and object; a text in the place of an object is a complaint about it.
    source
        Where they stand, for messages; its stem is the task of items that have none.
    limit
        At most so many items: a seeded sample, in order.

    Raises
    ------
    TableError
        Some are no such objects; they are named with what is wrong.
    """
    items: list[UnlabelledItem] = []
    complaints: list[str] = []
    n_wrong = 0
    line_of: dict[tuple[str, str], int] = {}
    n_occurrences: Counter[tuple[str, str]] = Counter()
    for number, row in rows:
        try:
            if isinstance(row, str):
                raise TableError(row)
            item = _parse_item(row, source)
            if row.get("item") is None:  # the same question again is another item
                n_occurrences[item.task, item.item] += 1
                occurrence_number = n_occurrences[item.task, item.item]
                item = item if occurrence_number == 1 else replace(item, item=f"{item.item}-{occurrence_number}")
            at_line = line_of.setdefault((item.task, item.item), number)
            if at_line != number:
                raise TableError(f"item {item.item[:80]!r} of task {item.task[:80]!r} stands in line {at_line} already")
            items.append(item)
        except TableError as error:
            n_wrong += 1
            if len(complaints) < _MAX_LISTED_ERRORS:
                complaints.append(f"{source}, line {number}: {error}.")
    if complaints:
        omissions = [f"and {n_wrong - len(complaints):,} more lines."] if n_wrong > len(complaints) else []
        raise TableError("\n".join([*complaints, *omissions, 'A line is an object such as {"text": "Who wrote …?"}.']))
    if not items:
        raise TableError(f'{source}: holds no question. A line is an object such as {{"text": "Who wrote …?"}}.')
    return items if limit is None else [items[i] for i in sample_positions(len(items), limit, 0, source.name)]


def _parse_item(row: Mapping[str, Any], source: Path) -> UnlabelledItem:
    """One question.

    Raises
    ------
    TableError
        The complaint alone.
    """
    if "text" not in row:
        key_hint = suggestion("text", row) if len(row) > 1 else ""
        raise TableError(f"has no 'text'; it has {', '.join(str(k)[:40] for k in list(row)[:8]) or 'no key'}{key_hint}")
    text, choices = row["text"], row.get("choices") or ()
    if not isinstance(text, str):
        raise TableError(f"'text': expected a text, found {json_type_in_words(text)}")
    if not isinstance(choices, (list, tuple)):
        raise TableError(f"'choices': expected a list, found {json_type_in_words(choices)}")
    capability = row.get("capability")
    if capability is not None and capability not in CAPABILITIES:
        raise TableError(f"'capability': {str(capability)[:40]!r} is not one of its words: {', '.join(CAPABILITIES)}")
    options = tuple(_text(choice, "choices") for choice in choices)
    question = ItemText(_replace_surrogates(text), options, _parse_target(row.get("target"), options))
    task, item, rationale = (None if (v := row.get(key)) is None else _text(v, key) for key in _OPTIONAL_TEXT_KEYS)
    return UnlabelledItem(
        task=source.stem if task is None else task,
        item=content_ids([[question.text, options, question.target]])[0] if item is None else item,
        question=question,
        capability=capability,
        no_task=task is None,
        rationale=rationale,
        labeller="the file",
    )


def _parse_target(value: Any, choices: tuple[str, ...]) -> str | None:
    if isinstance(value, list):
        value = value[0] if value else None
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool) and choices:
        if not 0 <= value < len(choices):
            raise TableError(f"'target': index {str(value)[:20]} of {len(choices)} choices; indices count from 0")
        return choices[value]
    return _text(value, "target")


def _text(value: Any, key: str) -> str:
    if isinstance(value, str):
        return _replace_surrogates(value)
    if isinstance(value, (bool, int, float)):
        return str(value)
    raise TableError(f"{key!r}: expected a text or a number, found {json_type_in_words(value)}")


def _replace_surrogates(text: str) -> str:
    """Half of a surrogate pair is no character: no table and no tokenizer takes it."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def label_lines(labels: pd.DataFrame, *, ascii_only: bool = False) -> Iterator[str]:
    """The `labels` table as lines of JSONL; `evidence` is an object there.

    Parameters
    ----------
    labels
        The table.
    ascii_only
        Whether other letters are escaped, for a stream that can't write them.
    """
    for row in labels.to_dict("records"):
        evidence = json.loads(row["evidence"]) if isinstance(row["evidence"], str) else None
        numbers = {key: round(float(row[key]), 6) for key in ("p_reasoning", "conf_low", "conf_high")}
        ordered = {"item": row["item"], "task": row["task"], "capability": row["capability"], **numbers}
        yield json.dumps({**ordered, "source": row["source"], "evidence": evidence}, ensure_ascii=ascii_only)


def write_label_file(labels: pd.DataFrame, path: Path | str, *, replace: bool = False) -> None:
    """Write labels, as a Parquet table or as JSONL by the name's end, whole or not at all.

    Parameters
    ----------
    labels
        The `labels` table.
    path
        Ends in ``.parquet`` or ``.jsonl``.
    replace
        Whether a file that is there may be replaced.

    Raises
    ------
    UsageError
        The file is there and `replace` is false, or its name ends otherwise.
    StoreError
        It cannot be written.
    """
    path = Path(path)
    check_output_path(path, replace=replace)
    if path.suffix == ".parquet":
        schema.write_df(labels, path, schema.LABELS)
        return
    with schema.atomic_write(path) as temporary_path, temporary_path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{line}\n" for line in label_lines(labels))


def check_output_path(path: Path, *, replace: bool) -> None:
    """Refuse, before anything is computed, a file of labels that could not be written.

    Raises
    ------
    UsageError
        See `write_label_file`.
    """
    if path.suffix not in (".parquet", ".jsonl"):
        raise UsageError(f"--out {path}: expected a name that ends in .jsonl or .parquet.")
    if path.exists() and not replace:
        raise UsageError(f"--out {path}: is there already. Choose another name, or say --replace.")
    if not path.parent.is_dir():
        raise UsageError(f"--out {path}: there is no folder {path.parent}.")


def read_labels(path: str | PathLike[str]) -> pd.DataFrame:
    """A file of labels as `write_label_file` wrote it, or of the same form.

    Returns
    -------
    pandas.DataFrame
        The `labels` table.

    Raises
    ------
    TableError
        The file cannot be read, is no such table, or holds a probability outside [0, 1] or outside its interval.
    """
    path = Path(path)
    if path.suffix == ".jsonl":
        rows = []
        for number, parsed in json_lines(path):
            if isinstance(parsed, str):
                raise TableError(f"{path}, line {number}: {parsed}.")
            row = {key: value for key, value in parsed.items() if value is not None}
            if isinstance(row.get("evidence"), dict):
                row["evidence"] = compact_json(row["evidence"])
            rows.append(row)
        frame = schema.df_from_rows(rows, schema.LABELS, source=str(path))
    else:
        frame = schema.read_df(path, schema.LABELS)
    for name in ("p_reasoning", "conf_low", "conf_high"):
        for n, value in enumerate(frame[name]):
            if not (math.isnan(value) or 0 <= value <= 1):
                raise TableError(f"{path}: column {name!r}, row {n}: {value:g} is no probability.")
    crossed = (frame["conf_low"] > frame["p_reasoning"] + 1e-5) | (frame["conf_high"] < frame["p_reasoning"] - 1e-5)
    if bool(crossed.any()):
        raise TableError(f"{path}: row {int(crossed.to_numpy().argmax())}: p_reasoning lies outside its own interval.")
    return frame


def read_answers(path: str | PathLike[str]) -> OutcomesAndModels:
    """Outcomes and models of a run directory, of what `probe_models` stored, or of one table.

    Parameters
    ----------
    path
        A folder with outcomes (see `capgap.store`) and, where it has one, ``models.parquet``; or an `outcomes` table
        alone, whose models are known by name only.

    Raises
    ------
    TableError
        See `capgap.schema.read_df`.
    """
    path = Path(path)
    if not path.is_dir():
        return schema.read_df(path, schema.OUTCOMES), schema.empty(schema.MODELS)
    models = path / "models.parquet"
    facts = schema.read_df(models, schema.MODELS) if models.is_file() else schema.empty(schema.MODELS)
    outcomes = read_outcomes(path) if has_outcomes(path) else schema.read_df(path / "outcomes.parquet", schema.OUTCOMES)
    return outcomes, facts


def join_answers(answer_sources: Sequence[OutcomesAndModels]) -> OutcomesAndModels:
    """Answers from several places as one; of what stands in two of them, the later counts.

    Raises
    ------
    TableError
        Two places call different models by one name.
    """
    outcomes, models = ([answers[n] for answers in answer_sources if len(answers[n])] for n in (0, 1))
    facts = pd.concat(models, ignore_index=True) if models else schema.empty(schema.MODELS)
    hashes = facts.dropna(subset="weights_hash").groupby("model")["weights_hash"].nunique()
    clashes = hashes[hashes > 1]
    if len(clashes):
        raise TableError(
            f"two different models are called {clashes.index[0]!r} in these answers. Give one another name: NAME=CKPT."
        )
    rows = pd.concat(outcomes, ignore_index=True) if outcomes else schema.empty(schema.OUTCOMES)
    return (
        schema.validate(rows.drop_duplicates(list(schema.OUTCOMES.key), keep="last"), schema.OUTCOMES),
        schema.validate(facts.drop_duplicates("model", keep="last"), schema.MODELS),
    )
