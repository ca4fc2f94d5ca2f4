"""The labels of a run: what items declare, what a file of `capgap classify` says, what their text says."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pandas as pd

from capgap import schema
from capgap.errors import TableError

if TYPE_CHECKING:
    from capgap.classification import UnlabelledItem

__all__ = ["classifier_facts", "labels_for", "labels_option"]

labels_option = click.option(
    "--labels",
    "labels_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Labels of capgap classify, for items that declare none.  [default: read from their text]",
)


def labels_for(
    folder: Path,
    outcomes: pd.DataFrame,
    items: pd.DataFrame | None,
    models: pd.DataFrame | None,
    roles: schema.Roles,
    *,
    file: Path | None = None,
) -> tuple[pd.DataFrame | None, str]:
    """The `labels` table of a run, written to ``labels.parquet`` in its folder, and a line that says how it was made.

    Parameters
    ----------
    folder
        Holds the labels of an earlier time, or will hold these.
    outcomes
        Their capabilities are what is declared.
    items
        Prompts and choices, where they are known; without them only declarations and the catalogue of lm-eval's task
        families speak.
    models, roles
        Who is compared.
    file
        What `capgap classify` wrote; it goes before what the folder holds.

    Returns
    -------
    tuple
        None where nothing is known of any item; the line is empty where every item declares its capability.

    Raises
    ------
    UsageError
        Labels rest on answers of a compared model.
    TableError
        The file is no table of labels, or holds none of the items.
    """
    from capgap.classification import read_labels, refuse_compared

    kept = folder / f"{schema.LABELS.name}.parquet"
    given = schema.empty(schema.LABELS)
    if file is not None:
        given = read_labels(file)
    elif kept.is_file():
        given = schema.read(kept, schema.LABELS)
    asked = _asked(outcomes, items)
    held = set(zip(given["task"].astype(str), given["item"].astype(str), strict=True))
    if file is not None and not any((one.task, one.item) in held for one in asked):
        raise TableError(
            f"{file}: none of its labels is of an item of this run. Task and item must be spelt as in outcomes.parquet."
        )
    fresh = _classified([one for one in asked if (one.task, one.item) not in held])
    wanted = {(one.task, one.item) for one in asked}
    own = [key in wanted for key in zip(given["task"].astype(str), given["item"].astype(str), strict=True)]
    parts = [part for part in (given[own], fresh) if len(part)]
    if not parts:
        return None, ""
    labels = schema.concat(parts, schema.LABELS)
    refuse_compared(labels, schema.empty(schema.MODELS) if models is None else models, set(roles.names))
    schema.write(labels, kept, schema.LABELS)
    return labels, _said(asked, labels)


def _asked(outcomes: pd.DataFrame, items: pd.DataFrame | None) -> "list[UnlabelledItem]":
    """Every item once, with what it declares and, where known, what it asks."""
    from capgap.classification import ItemText, UnlabelledItem

    rows = outcomes.drop_duplicates(["task", "item"])[["task", "item", "capability"]]
    texts: dict[tuple[str, str], Any] = {}
    if items is not None:
        first = items.sort_values("variant", key=lambda v: v != "default", kind="stable")
        first = first.drop_duplicates(["task", "item"])
        texts = {(str(r.task), str(r.item)): r for r in first.itertuples(index=False)}
    found = []
    for task, item, capability in rows.itertuples(index=False):
        row = texts.get((str(task), str(item)))
        question = ItemText("") if row is None else ItemText(_text(row.prompt), _choices(row.choices))
        declared = None if pd.isna(capability) else str(capability)
        found.append(UnlabelledItem(task=str(task), item=str(item), question=question, capability=declared))
    return found


def _text(value: Any) -> str:
    return "" if pd.isna(value) else str(value)


def _choices(value: Any) -> tuple[str, ...]:
    """An items table keeps them as a JSON list."""
    try:
        found = json.loads(_text(value) or "[]")
    except ValueError:
        return ()
    return tuple(str(one) for one in found) if isinstance(found, list) else ()


def _classified(asked: "Sequence[UnlabelledItem]") -> pd.DataFrame:
    """Labels by declaration, else with the words of the item; items of which nothing is known get none."""
    from capgap.classification import classify_items

    worded = {one.task for one in asked if one.question.text}
    # Of what declares, the declaration is the label; text would only add its doubt.
    plain = [one for one in asked if one.capability is not None or one.task not in worded]
    read = [one for one in asked if one.capability is None and one.task in worded]
    parts = []
    if plain:
        parts.append(classify_items(plain, text=lambda _: []).labels)
    if read:
        # The catalogue's word on lm-eval's tasks is in the outcomes already; others may have a like name.
        parts.append(classify_items(read, declarations=False).labels)
    labels = schema.concat(parts, schema.LABELS) if parts else schema.empty(schema.LABELS)
    return labels[labels["source"] != "none"]


def _said(asked: "Sequence[UnlabelledItem]", labels: pd.DataFrame) -> str:
    undeclared = {(one.task, one.item) for one in asked if one.capability is None}
    keys = zip(labels["task"].astype(str), labels["item"].astype(str), strict=True)
    inferred = labels[[key in undeclared for key in keys]]
    if not len(undeclared):
        return ""
    none = f"{len(undeclared):,} of {len(asked):,} items declare no capability"
    if not len(inferred):
        return f"{none}, and nothing tells what they ask for."
    counts = inferred["capability"].value_counts()
    told = ", ".join(f"{int(counts[name]):,} {name}" for name in schema.CAPABILITIES if name in counts)
    return f"{none} and are labelled {told}."


def classifier_facts(labels: pd.DataFrame | None) -> dict[str, Any] | None:
    """What the text model was measured to do on families that it had not seen; None where no label rests on it."""
    if labels is None or not labels["source"].fillna("").str.contains("text").any():
        return None
    from capgap.classification.text_model import TextModel

    measured = TextModel.shipped().coefficients.about.get("measured")
    return dict(measured) if isinstance(measured, dict) else None
