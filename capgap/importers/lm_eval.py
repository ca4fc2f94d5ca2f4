"""Results and samples of lm-evaluation-harness to outcomes: today's files and those of 2023."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from capgap.errors import CapgapError
from capgap.importers.import_batch import ImportResult, label
from capgap.importers.lm_eval_results import ResultsFile, date_in, read_results
from capgap.importers.lm_eval_rows import task_results
from capgap.importers.lm_eval_samples import is_sample, read_sample
from capgap.importers.primary_metric import MetricRequest
from capgap.importers.reading import files_under, json_document, records
from capgap.importers.settings import ImportSettings, with_settings
from capgap.importers.values import name_text

_RESULT_SUFFIXES = (".json", ".jsonl")
_NO_SAMPLE_REASON = (
    "aggregates without samples: only items can be paired with another model's. Run lm-eval again with --log_samples"
)
_DUPLICATE = "another record of a document and filter that stand there already"


@dataclass(frozen=True)
class _ImportFiles:
    """The files of an import, told apart by what they hold."""

    results: list[ResultsFile]
    """Under the paths that the user named."""
    adjacent_results: list[ResultsFile]
    """Beside a samples file that the user named by itself: they name its model, and are not imported."""
    samples: list[Path]
    """The samples files, the oldest first."""


def import_lm_eval(paths: Sequence[Path], settings: ImportSettings | None = None) -> ImportResult:
    """What lm-eval's files say about every item, one part a samples file.

    Parameters
    ----------
    paths
        Files, or folders that are searched for ``.json`` and ``.jsonl``.
    settings
        What the user says instead of the files.

    Returns
    -------
    ImportBatch
        Parts in the order of the moments in the files' names. What was not understood is in its list.

    Raises
    ------
    TableError
        A path does not exist.
    UsageError
        The user wants a metric that no task has.
    """
    settings = settings or ImportSettings()
    batch, metric_request = ImportResult("lm-eval"), MetricRequest(settings.primary)
    files = _sort_import_files(paths, batch, settings)
    sampled: set[tuple[Path, str]] = set()
    for path in files.samples:
        run = _match_results_file(path, files)
        task = str(settings.fixed_values.get("task") or _infer_task_name(path, run))
        try:
            samples = batch.read_samples(
                path, records(path), read_sample, lambda s: (s.doc_id, s.filter), duplicate=_DUPLICATE, empty="is empty"
            )
            if not samples:
                continue
            model = str(settings.fixed_values.get("model") or (run.model if run else _model_from_folder(path, batch)))
            result = task_results(path, model, name_text(task, "the task"), samples, run, metric_request, batch)
        except CapgapError as error:
            batch.skip(path, str(error))
            continue
        if result is not None:
            batch.parts.append(result)
            sampled |= {(run.path, task)} if run else set()
    _skip_aggregates(files.results, sampled, batch)
    return with_settings(batch, settings, metric_request)


def _sort_import_files(paths: Sequence[Path], batch: ImportResult, settings: ImportSettings) -> _ImportFiles:
    """Sort the files by what they hold; what is neither results nor samples is listed."""
    requested_paths = set(paths)
    results: list[ResultsFile] = []
    samples: list[Path] = []
    for file in dict.fromkeys(file for path in paths for file in files_under(path, _RESULT_SUFFIXES)):
        if file.suffix.lower() == ".jsonl":
            samples.append(file)
            continue
        try:
            content = _detect_json_content(file, settings)
        except CapgapError as error:
            batch.skip(file, str(error))
            continue
        if isinstance(content, ResultsFile):
            results.append(content)
            samples += _find_run_samples(content) if file in requested_paths else []
        elif content:
            samples.append(file)
        else:
            batch.skip(file, "holds neither results nor samples of lm-eval")
    # Oldest first: with --replace a later file's answers stand.
    samples = sorted(set(samples), key=lambda file: (date_in(file.name), str(file)))
    folders = {file.parent for file in samples if file in requested_paths} - {run.path.parent for run in results}
    return _ImportFiles(results, list(_find_adjacent_results(folders, settings)), samples)


def _find_run_samples(run: ResultsFile) -> list[Path]:
    """The samples beside a results file that the user named by itself."""
    folder = run.path.parent
    if run.date:
        return sorted(folder.glob(f"samples_*_{run.date}.jsonl"))
    adjacent_files = sorted([*folder.glob("*.jsonl"), *folder.glob("*_write_out_info.json")])
    return [file for file in adjacent_files if _task_in_file_name(file, run)]


def _detect_json_content(file: Path, settings: ImportSettings) -> ResultsFile | bool:
    """The results in a JSON file; else whether it holds samples."""
    data = json_document(file)
    model = settings.fixed_values.get("model")
    if model and isinstance(data, dict) and "results" in data:
        data = {**data, "model_name": model}
    results = read_results(file, data)
    return results if results is not None else isinstance(data, list) and bool(data) and is_sample(data[0])


def _find_adjacent_results(folders: Iterable[Path], settings: ImportSettings) -> Iterator[ResultsFile]:
    for folder in folders:
        for file in sorted(folder.glob("*.json")):
            try:
                content = _detect_json_content(file, settings)
            except CapgapError:
                continue  # nobody asked for this file; without it the model is named by its folder, and a note says so
            if isinstance(content, ResultsFile):
                yield content


def _match_results_file(path: Path, files: _ImportFiles) -> ResultsFile | None:
    """The results that belong to a samples file: of the same moment, else of the only model beside it."""
    folder_results = [run for run in (*files.results, *files.adjacent_results) if run.path.parent == path.parent]
    date = date_in(path.name)
    same_date_results = [run for run in folder_results if run.date == date and date]
    if same_date_results:
        return same_date_results[0]
    if len({run.model for run in folder_results}) != 1:
        return None
    task_results_files = [run for run in folder_results if _task_in_file_name(path, run)]
    return max(task_results_files or folder_results, key=lambda run: run.date)


def _task_in_file_name(path: Path, run: ResultsFile) -> str | None:
    """The longest task of a run with which the name of a file ends."""
    stem = path.stem.removesuffix("_write_out_info")
    fitting = [task for task in (*run.tasks, *run.configs) if stem == task or stem.endswith(f"_{task}")]
    return max(fitting, key=len, default=None)


def _infer_task_name(path: Path, run: ResultsFile | None) -> str:
    dated_name_match = re.fullmatch(r"samples_(.+)_\d{4}-\d{2}-\d{2}T[\d.:-]+\.jsonl?", path.name)
    if dated_name_match:
        return dated_name_match.group(1)
    if path.name.endswith("_write_out_info.json"):
        return path.name.removesuffix("_write_out_info.json")
    return (_task_in_file_name(path, run) if run else None) or path.stem.removeprefix("samples_")


def _model_from_folder(path: Path, batch: ImportResult) -> str:
    """The model by its folder's name, which lm-eval makes from the model's with ``__`` for each slash."""
    folder = path.resolve().parent.name
    model = name_text(re.sub(r"^([^_]+)__([^_].*)$", r"\1/\2", folder), "the model")
    batch.note(f"{label(path)}: no results file beside it says which model this is; its folder does: {model}")
    return model


def _skip_aggregates(results: Sequence[ResultsFile], sampled: set[tuple[Path, str]], batch: ImportResult) -> None:
    """List the tasks of which there are aggregates alone."""
    for run in results:
        tasks = [task for task in run.tasks if task not in run.groups and (run.path, task) not in sampled]
        if tasks:
            omitted_suffix = f" and {len(tasks) - 5} more" if len(tasks) > 5 else ""
            batch.skip(run.path, _NO_SAMPLE_REASON, len(tasks), first_example=", ".join(tasks[:5]) + omitted_suffix)
