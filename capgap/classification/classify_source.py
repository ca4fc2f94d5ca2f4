"""`classify`: the labels of questions or of a battery, by every kind of evidence that there is."""

from collections.abc import Iterator, Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from capgap import schema
from capgap.battery import Battery, load_battery, prepare_battery
from capgap.classification.behavioural_evidence import behaviour_evidence
from capgap.classification.evidence import Evidence
from capgap.classification.files import OutcomesAndModels, join_answers, parse_items, read_answers, read_items
from capgap.classification.labelling import LabelledItems, UnlabelledItem, classify_items, unlabelled_items
from capgap.classification.pooling import MIXED_P_RANGE, PooledLabel
from capgap.default_folders import CLASSIFY_WORK_FOLDER
from capgap.errors import UsageError
from capgap.events import Listener, Note, ignore
from capgap.models import add_permissions, expand_models

__all__ = ["LabelEvidenceKind", "classify"]

LabelEvidenceKind = Literal["declared", "text", "behaviour"]
AnyPath = str | PathLike[str]
_N_TASKS_SHOWN = 40
_SHOWN_NAME_LENGTH = 60  # of a name


def classify(
    source: AnyPath | Battery | pd.DataFrame | Sequence[str],
    *,
    models: AnyPath | Sequence[AnyPath] = (),
    outcomes: AnyPath | pd.DataFrame | Sequence[AnyPath | pd.DataFrame] = (),
    evidence: Sequence[LabelEvidenceKind] = (),
    limit: int | None = None,
    data_root: AnyPath | None = None,
    device: str | None = None,
    allow_code: bool = False,
    allow_pickle: bool = False,
    work: AnyPath = CLASSIFY_WORK_FOLDER,
    on_event: Listener = ignore,
) -> pd.DataFrame:
    """The `labels` table of questions or of a battery: knowledge or reasoning, how sure, and why.

    Parameters
    ----------
    source
        A list of questions; a frame or a JSONL file with ``text`` and, where known, ``item``, ``task``, ``choices``,
        ``target``, ``capability`` and ``rationale`` (see `read_items`); a battery, its name or its YAML file.
    models
        Model specs; these models are asked too, with and without thoughts. Never one that the labels will compare.
    outcomes
        Answers that are there already, in variants such as ``cot``: run directories or `outcomes` tables.
    evidence
        Only these kinds of evidence; default: all that there is.
    limit
        Items (of a battery: of each task) at most, a seeded sample.
    data_root
        Where a battery finds its data beside its own folder.
    device
        torch device for `models`; None chooses.
    allow_code, allow_pickle
        Permit code that models and batteries bring, and weights as pickles; see SECURITY.md.
    work
        Where answers of `models` are stored as they arrive; the same call goes on where it stopped.
    on_event
        Told of progress and, as notes, of the tasks' labels and their counts.

    Returns
    -------
    pandas.DataFrame
        One row an item, in the order of the source.

    Raises
    ------
    UsageError
        `source` is a file of another kind; or answers of models are given and behaviour is no evidence.
    BatteryError, TableError, ModelError, StoreError
        Something cannot be read, loaded or written.

    Examples
    --------
    >>> labels = classify(["What is 17 + 25 - 8?", "Who wrote Hamlet?"])
    >>> labels["capability"].tolist()
    ['reasoning', 'knowledge']
    """
    specs, tables = _as_list(models), _as_list(outcomes)
    if evidence and "behaviour" not in evidence and (specs or tables):
        raise UsageError("models and outcomes give evidence of behaviour, which evidence (--evidence) leaves out.")
    items = _read_source_items(source, limit, data_root, allow_code)
    answers = [
        (schema.validate(table, schema.OUTCOMES, source="outcomes"), schema.empty(schema.MODELS))
        if isinstance(table, pd.DataFrame)
        else read_answers(table)
        for table in tables
    ]
    if specs:
        # torch and lm-eval are loaded here, where models are asked, and nowhere else in this package
        from capgap.classification.probing import probe_models

        permissions = [key for key, granted in (("allow_code", allow_code), ("allow_pickle", allow_pickle)) if granted]
        expanded_specs = expand_models([add_permissions(fspath(spec), permissions) for spec in specs])
        answers.append(probe_models(expanded_specs, items, Path(work), device=device, on_event=on_event))
    labelled = classify_items(
        items,
        answer_evidence=_answer_evidence_by_task(items, answers, on_event) if answers else {},
        text=None if not evidence or "text" in evidence else lambda _: [],
        declarations=not evidence or "declared" in evidence,
    )
    for summary_note in _summary(items, labelled):
        on_event(summary_note)
    return labelled.labels


def _as_list(value: Any) -> list[Any]:
    """One value, or a sequence of them, as a list."""
    return [value] if isinstance(value, (str, PathLike, pd.DataFrame)) else list(value)


def _read_source_items(
    source: AnyPath | Battery | pd.DataFrame | Sequence[str],
    limit: int | None,
    data_root: AnyPath | None,
    allow_code: bool,
) -> list[UnlabelledItem]:
    if isinstance(source, (str, PathLike)):
        path = Path(source)
        if path.suffix in (".jsonl", ".ndjson"):
            return read_items(path, limit=limit)
        if path.is_file() and path.suffix not in (".yaml", ".yml"):
            raise UsageError(f"{source}: expected a name that ends in .jsonl (one JSON object a line), or a battery.")
        root = None if data_root is None else Path(data_root)
        source = load_battery(fspath(source), data_root=root, allow_code=allow_code)
    if isinstance(source, Battery):
        return unlabelled_items(prepare_battery(source, limit=limit))
    rows = _rows_without_nulls(source) if isinstance(source, pd.DataFrame) else ({"text": text} for text in source)
    return parse_items(enumerate(rows, 1), Path("questions"), limit=limit)


def _rows_without_nulls(frame: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """The rows without what is null; arrays, which Parquet makes of lists, as lists."""
    for row in frame.to_dict("records"):
        cells = {str(key): cell.tolist() if hasattr(cell, "tolist") else cell for key, cell in row.items()}
        yield {key: cell for key, cell in cells.items() if isinstance(cell, (list, tuple)) or pd.notna(cell)}


def _answer_evidence_by_task(
    items: Sequence[UnlabelledItem], answers: Sequence[OutcomesAndModels], on_event: Listener
) -> Mapping[str, Sequence[Evidence]]:
    """Task → evidence from answers, for the tasks of these items."""
    tasks = {item.task for item in items}
    evidence_by_task = {
        task: words for task, words in behaviour_evidence(*join_answers(answers)).items() if task in tasks and words
    }
    if not evidence_by_task:
        sentence = (
            "the answers of models are no evidence on any of these tasks: needed are ten items or more of a task, "
            "asked without thoughts (variant direct or default) and with them (variant cot), of a model that is "
            "better than chance."
        )
        on_event(Note(sentence, "warning"))
    return evidence_by_task


def _summary(items: Sequence[UnlabelledItem], labelled: LabelledItems) -> list[Note]:
    """The label of each task, how many items there are of each capability, and how declarations fared."""
    labels, low, high = labelled.labels, *MIXED_P_RANGE
    notes = [Note(_task_line(name, label)) for name, label in list(labelled.tasks.items())[:_N_TASKS_SHOWN]]
    if len(labelled.tasks) > _N_TASKS_SHOWN:
        notes.append(Note(f"and {len(labelled.tasks) - _N_TASKS_SHOWN:,} more tasks"))
    label_counts = labels["capability"].value_counts()
    counts = ", ".join(f"{int(label_counts.get(name, 0)):,} {name}" for name in ("knowledge", "reasoning", "mixed"))
    n_in_mixed_range = int(labels["p_reasoning"].between(low, high).sum())
    evidence_kinds = sorted({kind for source in labels["source"] for kind in source.split(", ")})
    notes.append(
        Note(
            f"{len(labels):,} items: {counts}; {n_in_mixed_range:,} with p from {low:.2f} to {high:.2f}. "
            f"Evidence: {', '.join(evidence_kinds)}."
        )
    )
    pairs = [(item, label) for item, label in zip(items, labels["capability"], strict=True) if item.capability]
    contradicting_pairs = [(item, label) for item, label in pairs if item.capability != label]
    if "declared" in evidence_kinds and contradicting_pairs:
        item, label = contradicting_pairs[0]
        sentence = (
            f"{len(contradicting_pairs):,} items are labelled otherwise than declared, the first is "
            f"{item.item[:_SHOWN_NAME_LENGTH]} of {item.task[:_SHOWN_NAME_LENGTH]}: declared {item.capability}, "
            f"labelled {label}."
        )
        notes.append(Note(sentence, "warning"))
    elif pairs and "declared" not in evidence_kinds:
        agrees = [item.capability == label for item, label in pairs if item.capability != "mixed"]
        sentence = f"{sum(agrees):,} of {len(agrees):,} items that are declared knowledge or reasoning are labelled so."
        notes.append(Note(sentence))
    return notes


def _task_line(name: str, label: PooledLabel) -> str:
    main_reason = next((r for r in label.reasons if r.weight * label.logit > 0), None)  # reasons: heaviest first
    interval = f"p {label.p:.2f} [{label.conf_low:.2f}, {label.conf_high:.2f}]"
    reason = f"; {main_reason.words}" if main_reason else ""
    return f"{name[:_SHOWN_NAME_LENGTH]}: {label.capability}, {interval}{reason}"
