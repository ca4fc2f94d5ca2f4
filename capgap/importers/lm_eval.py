"""Results and samples of lm-evaluation-harness to outcomes: today's files and those of 2023."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from capgap.errors import CapgapError, TableError
from capgap.importers.import_batch import ImportBatch, TaskResults, label
from capgap.importers.lm_eval_results import ResultsFile, date_in, read_results
from capgap.importers.lm_eval_rows import TaskMetadata, TaskRows, task_rows
from capgap.importers.lm_eval_samples import LmEvalSample, is_sample, read_sample
from capgap.importers.primary_metric import Metric, MetricRequest
from capgap.importers.reading import files_under, json_document, records
from capgap.importers.settings import ImportSettings, with_constants
from capgap.importers.values import name_text

__all__ = ["import_lm_eval"]

_SUFFIXES = (".json", ".jsonl")
_NEEDS_ITEMS = (
    "aggregates without samples: only items can be paired with another model's. Run lm-eval again with --log_samples"
)
_SAME_MEAN = 1e-6  # aggregates are means of the same numbers, in another order of addition


@dataclass(frozen=True)
class _ImportFiles:
    """The files of an import, told apart by what they hold."""

    results: list[ResultsFile]
    """Under the paths that the user named."""
    beside: list[ResultsFile]
    """Beside a samples file that the user named by itself: they name its model, and are not imported."""
    samples: list[Path]
    """The samples files, the oldest first."""


def import_lm_eval(paths: Sequence[Path], settings: ImportSettings | None = None) -> ImportBatch:
    """What lm-eval's files say about every item, one part a samples file.

    Parameters
    ----------
    paths
        Files, or folders that are searched for ``.json`` and ``.jsonl``.
    settings
        What the user says instead of the files.

    Returns
    -------
    Batch
        Parts in the order of the moments in the files' names. What was not understood is in its list.

    Raises
    ------
    TableError
        A path does not exist.
    UsageError
        The user wants a metric that no task has.
    """
    settings = settings or ImportSettings()
    batch, wanted = ImportBatch("lm-eval"), MetricRequest(settings.primary)
    found = _look(paths, batch, settings)
    sampled: set[tuple[Path, str]] = set()
    metrics: set[Metric] = set()
    for path in found.samples:
        run = _run_of(path, found)
        task = str(settings.constants.get("task") or _task_of(path, run))
        try:
            samples = _samples(path, batch)
            if not samples:
                continue
            model = str(settings.constants.get("model") or (run.model if run else _folder_model(path, batch)))
            read = task_rows(model, name_text(task, "the task"), samples, _known(run, task), wanted)
            batch.parts += _part(path, task, model, run, read, samples, batch)
        except CapgapError as error:
            batch.skip(label(path), str(error))
            continue
        metrics |= read.metrics
        if run is not None and read.rows:
            sampled.add((run.path, task))
    _list_aggregates(found.results, sampled, batch)
    if batch.parts:
        wanted.check_used(metrics)
    return with_constants(batch, settings.constants)


def _look(paths: Sequence[Path], batch: ImportBatch, settings: ImportSettings) -> _ImportFiles:
    """Sort the files by what they hold; what is neither results nor samples is listed."""
    named = set(paths)
    files = list(dict.fromkeys(file for path in paths for file in files_under(path, _SUFFIXES)))
    results: list[ResultsFile] = []
    samples: list[Path] = []
    for file in files:
        if file.suffix.lower() == ".jsonl":
            samples.append(file)
            continue
        try:
            read = _results(file, settings)
            if isinstance(read, ResultsFile):
                results.append(read)
                samples += _samples_of(read) if file in named else []
            elif read:
                samples.append(file)
            else:
                batch.skip(label(file), "holds neither results nor samples of lm-eval")
        except CapgapError as error:
            batch.skip(label(file), str(error))
    samples = list(dict.fromkeys(samples))
    folders = {file.parent for file in samples if file in named} - {found.path.parent for found in results}
    beside = list(_beside(folders, settings))
    return _ImportFiles(results, beside, sorted(samples, key=lambda file: (date_in(file.name), str(file))))


def _samples_of(run: ResultsFile) -> list[Path]:
    """The samples beside a results file that the user named by itself."""
    folder = run.path.parent
    if run.date:
        return sorted(folder.glob(f"samples_*_{run.date}.jsonl"))
    beside = sorted([*folder.glob("*.jsonl"), *folder.glob("*_write_out_info.json")])
    return [file for file in beside if _ending(file, run)]


def _results(file: Path, settings: ImportSettings) -> ResultsFile | bool:
    """The results in a JSON file; else whether it holds samples."""
    data = json_document(file)
    model = settings.constants.get("model")
    if model and isinstance(data, dict) and "results" in data:
        data = {**data, "model_name": model}
    read = read_results(file, data)
    return read if read is not None else isinstance(data, list) and bool(data) and is_sample(data[0])


def _beside(folders: Iterable[Path], settings: ImportSettings) -> Iterable[ResultsFile]:
    for folder in folders:
        for file in sorted(folder.glob("*.json")):
            try:
                read = _results(file, settings)
            except CapgapError:
                continue  # nobody asked for this file; without it the model is named by its folder, and a note says so
            if isinstance(read, ResultsFile):
                yield read


def _run_of(path: Path, found: _ImportFiles) -> ResultsFile | None:
    """The results that belong to a samples file: of the same moment, else of the only model beside it."""
    here = [run for run in (*found.results, *found.beside) if run.path.parent == path.parent]
    date = date_in(path.name)
    same = [run for run in here if run.date == date and date]
    if same:
        return same[0]
    if len({run.model for run in here}) != 1:
        return None
    telling = [run for run in here if _ending(path, run)]
    return max(telling or here, key=lambda run: run.date)


def _ending(path: Path, run: ResultsFile) -> str | None:
    """The longest task of a run with which the name of a file ends."""
    stem = path.stem.removesuffix("_write_out_info")
    fitting = [task for task in (*run.tasks, *run.configs) if stem == task or stem.endswith(f"_{task}")]
    return max(fitting, key=len, default=None)


def _task_of(path: Path, run: ResultsFile | None) -> str:
    name = path.name
    dated = re.fullmatch(r"samples_(.+)_\d{4}-\d{2}-\d{2}T[\d.:-]+\.jsonl?", name)
    if dated:
        return dated.group(1)
    if name.endswith("_write_out_info.json"):
        return name.removesuffix("_write_out_info.json")
    ending = _ending(path, run) if run else None
    return ending or path.stem.removeprefix("samples_")


def _known(run: ResultsFile | None, task: str) -> TaskMetadata:
    if run is None:
        return TaskMetadata()
    return TaskMetadata(run.configs.get(task, {}), run.chat_template, run.lower.get(task, frozenset()))


def _folder_model(path: Path, batch: ImportBatch) -> str:
    """The model by its folder's name, which lm-eval makes from the model's with ``__`` for each slash."""
    folder = path.resolve().parent.name
    model = name_text(re.sub(r"^([^_]+)__([^_].*)$", r"\1/\2", folder), "the model")
    batch.note(f"{label(path)}: no results file beside it says which model this is; its folder does: {model}")
    return model


def _samples(path: Path, batch: ImportBatch) -> list[LmEvalSample]:
    """The records of a samples file, each document and filter once; the others are listed."""
    kept: dict[tuple[int, str], LmEvalSample] = {}
    empty = True
    for record in records(path):
        empty = False
        try:
            if record.trouble:
                raise TableError(record.trouble)
            sample = read_sample(record.value)
        except CapgapError as error:
            reason, _, detail = str(error).partition(":")
            batch.skip(label(path), reason, first=f"{record.place}:{detail}" if detail else record.place)
            continue
        key = (sample.doc_id, sample.filter)
        if key not in kept:
            kept[key] = sample
        elif kept[key] == sample:
            batch.skip(label(path), "a record stands there twice", first=record.place)
        else:
            batch.skip(
                label(path), "another record of a document and filter that stand there already", first=record.place
            )
    if empty:
        batch.skip(label(path), "is empty")
    return list(kept.values())


def _part(
    path: Path,
    task: str,
    model: str,
    run: ResultsFile | None,
    read: TaskRows,
    samples: Sequence[LmEvalSample],
    batch: ImportBatch,
) -> list[TaskResults]:
    if not read.rows:
        named = ", ".join(sorted(read.whole_task)) or "none"
        batch.skip(label(path), f"task {task}: no metric has a value of one item; its metrics: {named}")
        return []
    for note in read.notes:
        batch.note(f"{model}, {note}")
    if read.whole_task:
        batch.skip(label(path), f"metrics of the whole task: {', '.join(sorted(read.whole_task))}")
    asked = dict(run.asked.get(task, {})) if run else {}
    if run is not None:
        _hold_against(run, task, model, read, len({sample.doc_id for sample in samples}), batch)
    return [
        TaskResults(
            source=label(path),
            rows=read.rows,
            items=read.items,
            facts=run.facts if run else {},
            asked=asked,
            items_by_content=all(sample.digest for sample in samples),
        )
    ]


def _hold_against(
    run: ResultsFile, task: str, model: str, read: TaskRows, n_documents: int, batch: ImportBatch
) -> None:
    """Say where the samples do not give the aggregates of their results file."""
    expected = run.n_samples.get(task)
    if expected is not None and expected != n_documents:
        batch.note(f"{model}, {task}: the results are of {expected:,} documents, the samples of {n_documents:,}")
    if read.primary is None or read.primary[0] not in ("acc", "acc_norm", "acc_bytes", "exact_match", "em"):
        return  # other aggregates need not be means
    aggregates = run.tasks.get(task, {})
    told = aggregates.get(",".join(read.primary), aggregates.get(read.primary[0]))
    values = [row["value"] for row in read.rows if row["primary"] and row["value"] is not None]
    if told is not None and values and abs(sum(values) / len(values) - told) > _SAME_MEAN:
        mean = sum(values) / len(values)
        batch.note(f"{model}, {task}: mean {read.primary[0]} of the samples {mean:.6f}, in the results {told:.6f}")


def _list_aggregates(results: Sequence[ResultsFile], sampled: set[tuple[Path, str]], batch: ImportBatch) -> None:
    for run in results:
        alone = [task for task in run.tasks if task not in run.groups and (run.path, task) not in sampled]
        if alone:
            more = f" and {len(alone) - 5} more" if len(alone) > 5 else ""
            batch.skip(label(run.path), _NEEDS_ITEMS, len(alone), first=", ".join(alone[:5]) + more)
