"""Labels for the items of a comparison: declared, given by the user, else by the text classifier."""

import json
from collections.abc import Collection, Sequence
from os import PathLike
from typing import Any

import pandas as pd

from capgap import schema
from capgap.classification.evidence import ItemText
from capgap.classification.files import read_labels
from capgap.classification.label_independence import refuse_circular
from capgap.classification.labelling import UnlabelledItem, classify_items
from capgap.classification.text_model import TextModel
from capgap.errors import TableError


def complete_labels(
    outcomes: pd.DataFrame,
    items: pd.DataFrame | None,
    models: pd.DataFrame | None,
    stored_labels: pd.DataFrame | None,
    roles: schema.Roles,
    *,
    given: pd.DataFrame | str | PathLike[str] | None = None,
) -> tuple[pd.DataFrame | None, str]:
    """The `labels` table of all items of which anything is known, and a line that says how it was made.

    Parameters
    ----------
    outcomes
        Their capabilities are what is declared.
    items
        Prompts and choices, where they are known; without them only declarations and the catalogue of lm-eval's task
        families speak.
    models, roles
        Who is compared.
    stored_labels
        Labels of an earlier time, of the run directories that are analysed.
    given
        Labels of the user, as `capgap.classify` gives them or in a file of `capgap classify`; they take the place of
        the remembered ones.

    Returns
    -------
    tuple
        None where nothing is known of any item; the line is empty where every item declares its capability.

    Raises
    ------
    UsageError
        Labels rest on answers of a compared model.
    TableError
        What the user gave is no table of labels, or holds none of the items.
    """
    existing = schema.empty(schema.LABELS) if stored_labels is None else stored_labels
    if given is not None:
        existing = (
            schema.validate(given, schema.LABELS, source="labels")
            if isinstance(given, pd.DataFrame)
            else read_labels(given)
        )
    questions = _list_unlabelled_items(outcomes, items)
    keys = [(question.task, question.item) for question in questions]
    labelled = set(_item_keys(existing))
    if given is not None and labelled.isdisjoint(keys):
        raise TableError(
            f"{'labels' if isinstance(given, pd.DataFrame) else given}: none of its labels is of an item of this run. "
            f"Task and item must be spelt as in the outcomes."
        )
    new_labels = _label_items([question for question, key in zip(questions, keys, strict=True) if key not in labelled])
    run_keys = set(keys)
    tables = [rows for rows in (existing[[key in run_keys for key in _item_keys(existing)]], new_labels) if len(rows)]
    if not tables:
        return None, ""
    labels = schema.concat(tables, schema.LABELS)
    refuse_circular(labels, schema.empty(schema.MODELS) if models is None else models, set(roles.names))
    return labels, _summary(questions, labels)


def _item_keys(table: pd.DataFrame) -> list[tuple[str, str]]:
    return list(zip(table["task"].astype(str), table["item"].astype(str), strict=True))


def _list_unlabelled_items(outcomes: pd.DataFrame, items: pd.DataFrame | None) -> list[UnlabelledItem]:
    """Every item once, with what it declares and, where known, what it asks; the default variant speaks first."""
    texts: dict[tuple[str, str], ItemText] = {}
    if items is not None:
        default_first_items = items.sort_values("variant", key=lambda variant: variant != "default", kind="stable")
        for row in default_first_items.drop_duplicates(["task", "item"]).itertuples(index=False):
            texts[str(row.task), str(row.item)] = ItemText(_text(row.prompt), _choices(row.choices))
    rows = outcomes.drop_duplicates(["task", "item"])[["task", "item", "capability"]]
    return [
        UnlabelledItem(
            task=str(task),
            item=str(item),
            question=texts.get((str(task), str(item)), ItemText("")),
            capability=None if pd.isna(capability) else str(capability),
        )
        for task, item, capability in rows.itertuples(index=False)
    ]


def _text(cell: Any) -> str:
    return "" if pd.isna(cell) else str(cell)


def _choices(cell: Any) -> tuple[str, ...]:
    """The choices of an item, which an items table keeps as a JSON list."""
    try:
        choices = json.loads(_text(cell) or "[]")
    except ValueError:
        return ()
    return tuple(map(str, choices)) if isinstance(choices, list) else ()


def _label_items(questions: Sequence[UnlabelledItem]) -> pd.DataFrame:
    """Labels by declaration, else with the words of the item; items of which nothing is known get none."""
    tasks_with_text = {question.task for question in questions if question.question.text}
    # Of what declares, the declaration is the label; text would only add its doubt.
    text_items = [q for q in questions if q.capability is None and q.task in tasks_with_text]
    declaration_items = [q for q in questions if q.capability is not None or q.task not in tasks_with_text]
    partial_label_tables = []
    if declaration_items:
        partial_label_tables.append(classify_items(declaration_items, text=lambda _: []).labels)
    if text_items:
        # The catalogue's word on lm-eval's tasks is in the outcomes already; others may have a like name.
        partial_label_tables.append(classify_items(text_items, declarations=False).labels)
    labels = schema.concat(partial_label_tables, schema.LABELS)
    return labels[labels["source"] != "none"]


def _summary(questions: Sequence[UnlabelledItem], labels: pd.DataFrame) -> str:
    undeclared: Collection[tuple[str, str]] = {(q.task, q.item) for q in questions if q.capability is None}
    if not undeclared:
        return ""
    counts = labels.loc[[key in undeclared for key in _item_keys(labels)], "capability"].value_counts()
    start = f"{len(undeclared):,} of {len(questions):,} items declare no capability"
    totals = [f"{int(counts[name]):,} {name}" for name in schema.CAPABILITIES if name in counts]
    return (
        f"{start} and are labelled {', '.join(totals)}." if totals else f"{start}, and nothing tells what they ask for."
    )


def classifier_facts(labels: pd.DataFrame | None) -> dict[str, Any] | None:
    """The text model's measured performance on families that it had not seen; None where no label rests on it."""
    if labels is None or not labels["source"].fillna("").str.contains("text").any():
        return None
    measured = TextModel.load_shipped_model().coefficients.provenance.get("measured")
    return dict(measured) if isinstance(measured, dict) else None
