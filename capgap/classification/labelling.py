"""Labelling of items: evidence of all kinds is collected task by task and pooled into the `labels` table."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from capgap import schema
from capgap.battery import PreparedTask
from capgap.classification.declared_labels import find_shared_declaration, weigh_label
from capgap.classification.evidence import Evidence, ItemText
from capgap.classification.pooling import PooledLabel, TaskLabels, pool, pool_lone_item
from capgap.classification.text_model import TextModel

_MAX_REASON_LENGTH = 240  # characters


@dataclass(frozen=True)
class UnlabelledItem:
    """An item to be labelled."""

    task: str
    """Name of its task; for an item without one, of the file it stands in."""
    item: str
    """Its id within the task."""
    question: ItemText
    """What it asks."""
    capability: str | None = None
    """What its battery or file declares."""
    no_task: bool = False
    """Whether it has no task: its neighbours then say nothing about it."""
    rationale: str | None = None
    """Text that contains the fact, or the steps, where there is any."""
    labeller: str | None = None
    """Who declares `capability`; None for a task of lm-eval, where the catalogue may have."""


@dataclass(frozen=True)
class LabelledItems:
    """The labels of items and of their tasks."""

    labels: pd.DataFrame
    """The `labels` table, one row for each item, in the order of the items."""
    tasks: Mapping[str, PooledLabel]
    """Task → its own label; without items that have no task."""


def unlabelled_items(prepared_tasks: Iterable[PreparedTask]) -> list[UnlabelledItem]:
    """The items of a prepared battery, once each, in its order; variants are the same items."""
    items: dict[tuple[str, str], UnlabelledItem] = {}
    for task in prepared_tasks:
        for item in task.items:
            target = item.targets[0] if item.targets else None
            items.setdefault(
                (task.name, item.item),
                UnlabelledItem(
                    task=task.name,
                    item=item.item,
                    question=ItemText(item.prompt, item.choices or (), target),
                    capability=item.capability,
                    rationale=item.rationale,
                    labeller=None if task.score is None else "its battery",
                ),
            )
    return list(items.values())


def classify_items(
    items: Sequence[UnlabelledItem],
    *,
    answer_evidence: Mapping[str, Sequence[Evidence]] | None = None,
    text: Callable[[Sequence[ItemText]], Sequence[Evidence]] | None = None,
    declarations: bool = True,
) -> LabelledItems:
    """Labels of items from declarations, their text, and the behaviour of models.

    Parameters
    ----------
    items
        What to label; the pair of task and id is distinct.
    answer_evidence
        Task → evidence from answers, see `behaviour_evidence`.
    text
        Gives the evidence of each question's text; default: the shipped model. ``lambda questions: []`` leaves text
        out.
    declarations
        Whether declared labels and the catalogue count.

    Returns
    -------
    LabelledItems
        `evidence` of its table is a JSON object: ``reasons`` (words and weight), ``models`` (whose answers it rests
        on: name and weights_hash), ``task`` (probability of the whole task with its interval; not where the item has
        no task).
    """
    texts = list((text or TextModel.load_shipped_model().evidence)([item.question for item in items]))
    words = [[texts[i]] if texts else [] for i in range(len(items))]
    indices_by_task: dict[str, list[int]] = defaultdict(list)
    rows: list[dict[str, Any]] = [{} for _ in items]
    for i, item in enumerate(items):
        if item.no_task:
            declaration = weigh_label(item.capability, None, labeller=item.labeller) if declarations else None
            rows[i] = _row(item, pool_lone_item([*words[i], *([declaration] if declaration else [])]), None)
        else:
            indices_by_task[item.task].append(i)
    tasks: dict[str, PooledLabel] = {}
    for task, members in indices_by_task.items():
        task_evidence = (answer_evidence or {}).get(task, ())
        task_labels = _pool_task([items[i] for i in members], [words[i] for i in members], task_evidence, declarations)
        tasks[task] = task_labels.task
        for i, label in zip(members, task_labels.items, strict=True):
            rows[i] = _row(items[i], label, task_labels.task)
    frame = schema.df_from_rows(rows, schema.LABELS) if rows else schema.empty(schema.LABELS)
    return LabelledItems(frame, tasks)


def _pool_task(
    items: Sequence[UnlabelledItem], words: list[list[Evidence]], model_evidence: Sequence[Evidence], declarations: bool
) -> TaskLabels:
    """The pooled labels of one task: a declaration that all items share is evidence on the task, others on items."""
    task_evidence = list(model_evidence)
    if declarations:
        item_declarations = [weigh_label(item.capability, item.task, labeller=item.labeller) for item in items]
        task_declaration = find_shared_declaration(item_declarations)
        if task_declaration is not None:
            task_evidence.append(task_declaration)
        else:
            words = [[*evidence, *([d] if d else [])] for evidence, d in zip(words, item_declarations, strict=True)]
    return pool(task_evidence, words)


def _row(item: UnlabelledItem, label: PooledLabel, task: PooledLabel | None) -> dict[str, Any]:
    evidence: dict[str, Any] = {
        "reasons": [{"words": _reason_on_one_line(r.words), "weight": round(r.weight, 3)} for r in label.reasons],
        "models": [{"model": m.name, "weights_hash": m.weights_hash} for m in label.models],
    }
    if task is not None:
        evidence["task"] = {"p": round(task.p, 4), "low": round(task.conf_low, 4), "high": round(task.conf_high, 4)}
    return {
        "task": item.task,
        "item": item.item,
        "capability": label.capability,
        "p_reasoning": label.p,
        "conf_low": label.conf_low,
        "conf_high": label.conf_high,
        "source": ", ".join(label.kinds) or "none",
        "evidence": compact_json(evidence),
    }


def compact_json(evidence: Mapping[str, Any]) -> str:
    """Evidence as compact JSON, for a table's cell."""
    return json.dumps(evidence, ensure_ascii=False, separators=(",", ":"))


def _reason_on_one_line(words: str) -> str:
    """A reason on one line, without control characters, bounded: it may quote an item."""
    line = " ".join("".join(c if c.isprintable() else " " for c in words[: 4 * _MAX_REASON_LENGTH]).split())
    return line if len(line) <= _MAX_REASON_LENGTH else f"{line[: _MAX_REASON_LENGTH - 1]}…"
