"""`classify`: the labels of a JSONL file or a battery, by every kind of evidence that there is."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from capgap.battery import Battery, load_battery, prepare
from capgap.classification.behavioural_evidence import behaviour_evidence
from capgap.classification.evidence import Evidence
from capgap.classification.files import join_answers, parse_items, read_answers, read_items
from capgap.classification.labelling import LabelledItems, UnlabelledItem, classify_items, unlabelled_items
from capgap.classification.pooling import MIDDLE, PooledLabel
from capgap.errors import UsageError
from capgap.events import Listener, Note, ignore

__all__ = ["EvidenceKind", "classify"]

EvidenceKind = Literal["declared", "text", "behaviour"]
_N_TASKS_SHOWN = 40
_N_CHARACTERS_SHOWN = 60  # of a name


def classify(
    source: str | PathLike[str] | Battery | pd.DataFrame | Sequence[str],
    *,
    models: Sequence[str | PathLike[str]] = (),
    outcomes: Sequence[str | PathLike[str]] = (),
    evidence: Collection[EvidenceKind] = ("declared", "text", "behaviour"),
    work: str | Path = "capgap-out/classify",
    limit: int | None = None,
    device: str | None = None,
    data_root: str | Path | None = None,
    allow: Collection[str] = (),
    on_event: Listener = ignore,
) -> pd.DataFrame:
    """The `labels` table of a file of questions or of a battery: knowledge or reasoning, how sure, and why.

    Parameters
    ----------
    source
        A list of questions; a frame with the columns of a line of `read_items`; a JSONL file; the name of a shipped
        battery, a battery's YAML file, or a loaded battery.
    models
        Model specs; these models are asked too, with and without thoughts. Never one that the labels will compare.
    outcomes
        Run directories or `outcomes` tables with answers that are there already, in variants such as ``cot``.
    evidence
        Kinds of evidence that count.
    work
        Where answers of `models` are kept as they arrive; the same call goes on where it stopped.
    limit
        Items (of a battery: of each task) at most, a seeded sample.
    device
        torch device for `models`; None chooses.
    data_root
        Where a battery finds its data beside its own folder.
    allow
        ``allow_code``, ``allow_pickle``: permitted for the battery and for every model.
    on_event
        Told of progress and, as notes, of the tasks' labels and their counts.

    Returns
    -------
    pandas.DataFrame
        One row an item, in the order of the source.

    Raises
    ------
    UsageError
        `source` is a file of another kind; or `models` or `outcomes` are given and behaviour is no evidence.
    BatteryError, TableError, ModelError, StoreError
        Something cannot be read, loaded or written.

    Examples
    --------
    >>> from capgap import classify
    >>> classify(["What is 17 + 25 - 8?", "Who wrote Hamlet?"])["capability"].tolist()
    ['reasoning', 'knowledge']
    >>> labels = classify("pocket", limit=2)
    >>> labels.loc[labels["task"] == "capitals_choose", "capability"].tolist()
    ['knowledge', 'knowledge']
    """
    if (models or outcomes) and "behaviour" not in evidence:
        raise UsageError("models and outcomes give evidence of behaviour, which is left out of the kinds of evidence.")
    items = _read_source(source, limit, data_root, allow)
    behaviour: Mapping[str, Sequence[Evidence]] = {}
    if models or outcomes:
        behaviour = _behaviour(items, models, outcomes, Path(work), device, allow, on_event)
    labelled = classify_items(
        items,
        behaviour=behaviour,
        text=None if "text" in evidence else lambda _: [],
        declarations="declared" in evidence,
    )
    for note in _summary(items, labelled):
        on_event(note)
    return labelled.labels


def _read_source(
    source: str | PathLike[str] | Battery | pd.DataFrame | Sequence[str],
    limit: int | None,
    data_root: str | Path | None,
    allow: Collection[str],
) -> list[UnlabelledItem]:
    if not isinstance(source, (str, PathLike, Battery)):
        rows = _known_cells(source) if isinstance(source, pd.DataFrame) else ({"text": text} for text in source)
        return parse_items(enumerate(rows, 1), Path("questions"), limit=limit)
    if not isinstance(source, Battery):
        path = Path(source)
        if path.suffix in (".jsonl", ".ndjson"):
            return read_items(path, limit=limit)
        if path.is_file() and path.suffix not in (".yaml", ".yml"):
            raise UsageError(f"{source}: expected a name that ends in .jsonl (one JSON object a line), or a battery.")
        source = load_battery(fspath(source), data_root=data_root, allow_code="allow_code" in allow)
    return unlabelled_items(prepare(source, limit=limit))


def _known_cells(frame: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """The rows without what is null; arrays, which Parquet makes of lists, as lists."""
    for row in frame.to_dict("records"):
        cells = {str(key): cell.tolist() if hasattr(cell, "tolist") else cell for key, cell in row.items()}
        yield {key: cell for key, cell in cells.items() if isinstance(cell, (list, tuple)) or pd.notna(cell)}


def _behaviour(
    items: Sequence[UnlabelledItem],
    models: Sequence[str | PathLike[str]],
    outcomes: Sequence[str | PathLike[str]],
    work: Path,
    device: str | None,
    allow: Collection[str],
    on_event: Listener,
) -> dict[str, tuple[Evidence, ...]]:
    """Task → evidence of the models that are asked now, and of answers that are there."""
    tables = [read_answers(path) for path in outcomes]
    if models:
        # torch and lm-eval are loaded here, where models are asked, and nowhere else in this package
        from capgap.classification.probing import probe_models
        from capgap.models import expand_models, permitted

        specs = expand_models([permitted(fspath(model), tuple(allow)) for model in models])
        tables.append(probe_models(specs, items, work, device=device, on_event=on_event))
    tasks = {item.task for item in items}
    by_task = {
        task: words for task, words in behaviour_evidence(*join_answers(tables)).items() if task in tasks and words
    }
    if not by_task:
        sentence = (
            "the answers of models are no evidence on any of these tasks: needed are ten items or more of a task, "
            "asked without thoughts (variant direct or default) and with them (variant cot), of a model that is "
            "better than chance."
        )
        on_event(Note(sentence, "warning"))
    return by_task


def _summary(items: Sequence[UnlabelledItem], labelled: LabelledItems) -> list[Note]:
    """The label of each task, how many items there are of each capability, and how declarations fared."""
    labels, low, high = labelled.labels, *MIDDLE
    notes = [Note(_task_line(name, label)) for name, label in list(labelled.tasks.items())[:_N_TASKS_SHOWN]]
    if len(labelled.tasks) > _N_TASKS_SHOWN:
        notes.append(Note(f"and {len(labelled.tasks) - _N_TASKS_SHOWN:,} more tasks"))
    n_of = labels["capability"].value_counts()
    counts = ", ".join(f"{int(n_of.get(name, 0)):,} {name}" for name in ("knowledge", "reasoning", "mixed"))
    n_middle = int(labels["p_reasoning"].between(low, high).sum())
    kinds = sorted({kind for source in labels["source"] for kind in source.split(", ")})
    notes.append(
        Note(
            f"{len(labels):,} items: {counts}; {n_middle:,} with p from {low:.2f} to {high:.2f}. "
            f"Evidence: {', '.join(kinds)}."
        )
    )
    pairs = [(item, got) for item, got in zip(items, labels["capability"], strict=True) if item.capability]
    if "declared" in kinds:
        notes += _contradictions([(item, got) for item, got in pairs if item.capability != got])
    elif pairs:
        sure = [item.capability == got for item, got in pairs if item.capability != "mixed"]
        notes.append(
            Note(f"{sum(sure):,} of {len(sure):,} items that are declared knowledge or reasoning are labelled so.")
        )
    return notes


def _task_line(name: str, label: PooledLabel) -> str:
    supporting = next((r for r in label.reasons if r.weight * label.logit > 0), None)  # reasons: heaviest first
    interval = f"p {label.p:.2f} [{label.conf_low:.2f}, {label.conf_high:.2f}]"
    reason = f"; {supporting.words}" if supporting else ""
    return f"{name[:_N_CHARACTERS_SHOWN]}: {label.capability}, {interval}{reason}"


def _contradictions(pairs: Sequence[tuple[UnlabelledItem, str]]) -> list[Note]:
    """A warning that names the first item whose label is not its declaration."""
    if not pairs:
        return []
    item, label = pairs[0]
    sentence = (
        f"{len(pairs):,} items are labelled otherwise than declared, the first is {item.item[:_N_CHARACTERS_SHOWN]} of "
        f"{item.task[:_N_CHARACTERS_SHOWN]}: declared {item.capability}, labelled {label}."
    )
    return [Note(sentence, "warning")]
