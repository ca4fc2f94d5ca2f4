"""Logs of inspect_ai to outcomes: ``.json`` logs, and ``.eval`` archives, finished or not."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capgap.errors import CapgapError, TableError
from capgap.importers.archive import Archive
from capgap.importers.import_batch import ImportResult, TaskResults, catalogue_columns, item_row, label
from capgap.importers.inspect_samples import InspectSample, InspectScorerResult, read_inspect_sample
from capgap.importers.primary_metric import MetricId, MetricRequest, PrimaryMetric, choose_primary
from capgap.importers.reading import JsonRecord, files_under, first_byte, json_document
from capgap.importers.settings import ImportSettings, with_settings
from capgap.importers.values import (
    as_mapping,
    name_text,
    number,
    portable_model_name,
    score_and_status,
    text_or_list,
    truncate_text,
    whole_number,
)

_LOG_SUFFIXES = (".json", ".eval")
_NO_SCORER = "score"
_DUPLICATE_REASON = "another sample of an id and epoch that stand there already"
_NO_SAMPLE_REASON = "holds no samples: only items can be paired (log_samples was off, or only a header)"


@dataclass(frozen=True)
class _LogHeader:
    """What a log says about itself."""

    model: str
    task: str
    created_at: str
    status: str
    scorers: tuple[str, ...]
    """In the order in which they were declared."""
    checkpoint: str | None
    n_expected: int | None
    """Samples times epochs, where the log says."""
    setup: dict[str, Any]
    """See `TaskResults`."""


def import_inspect(paths: Sequence[Path], settings: ImportSettings | None = None) -> ImportResult:
    """What inspect's logs say about every sample and epoch, one part a log.

    Parameters
    ----------
    paths
        Logs, or folders that are searched for ``.json`` and ``.eval``.
    settings
        What the user says instead of the logs.

    Returns
    -------
    ImportBatch
        Parts in the order in which the logs were created. What was not understood is in its list.

    Raises
    ------
    TableError
        A path does not exist.
    UsageError
        The user wants a metric that no task has.
    """
    settings = settings or ImportSettings()
    batch, metric_request = ImportResult("inspect"), MetricRequest(settings.primary)
    dated_results: list[tuple[str, TaskResults]] = []
    for file in dict.fromkeys(file for path in paths for file in files_under(path, _LOG_SUFFIXES)):
        try:
            with _open_log(file) as (header, records):
                log = _parse_log_header(header, settings)
                samples = batch.read_samples(
                    file,
                    records,
                    read_inspect_sample,
                    lambda s: (s.item, s.epoch),
                    duplicate=_DUPLICATE_REASON,
                    empty=_NO_SAMPLE_REASON,
                )
                if samples:
                    dated_results.append((log.created_at, _task_results(file, log, samples, metric_request, batch)))
        except CapgapError as error:
            batch.skip(file, str(error))
    batch.parts = [result for _, result in sorted(dated_results, key=lambda pair: pair[0])]
    return with_settings(batch, settings, metric_request)


@contextmanager
def _open_log(file: Path) -> Iterator[tuple[Any, Iterator[JsonRecord]]]:
    """The header of a log, and its samples one by one."""
    if first_byte(file) != b"P":  # every ZIP archive begins with it, and no JSON does
        document = json_document(file)
        if not isinstance(document, dict) or not isinstance(document.get("eval"), dict):
            raise TableError("is no log of inspect: expected an object with eval and samples")
        yield document, _number_records("sample", document.get("samples"))
        return
    with closing(Archive(file)) as log_archive:
        start = next((name for name in ("header.json", "_journal/start.json") if name in log_archive.names), None)
        if start is None:
            raise TableError("is no log of inspect: it holds neither header.json nor _journal/start.json")
        yield log_archive.json(start), _read_archived_samples(log_archive)


def _read_archived_samples(log_archive: Archive) -> Iterator[JsonRecord]:
    """The samples in an archive; where there are none, their summaries without the question, which they shorten."""
    names = [name for name in log_archive.names if name.startswith("samples/") and name.endswith(".json")]
    for name in names:
        try:
            yield JsonRecord(name, log_archive.json(name))
        except TableError as error:
            yield JsonRecord(name, read_error=str(error).rstrip("."))
    if not names and "summaries.json" in log_archive.names:
        for record in _number_records("summary", log_archive.json("summaries.json")):
            summary = as_mapping(record.value)
            yield JsonRecord(record.location, {**summary, "input": None} if "input" in summary else record.value)


def _number_records(word: str, values: Any) -> Iterator[JsonRecord]:
    value_list = values if isinstance(values, list) else []
    return (JsonRecord(f"{word} {n}", value) for n, value in enumerate(value_list, start=1))


def _parse_log_header(data: Any, settings: ImportSettings) -> _LogHeader:
    spec = as_mapping(data).get("eval")
    if not isinstance(spec, dict):
        raise TableError("is no log of inspect: its header has no eval")
    model = name_text(spec.get("model"), "the model")
    local_path = as_mapping(spec.get("model_args")).get("model_path")
    checkpoint = portable_model_name(local_path if isinstance(local_path, str) and local_path else model)
    n_samples = whole_number(as_mapping(spec.get("dataset")).get("samples"))
    epochs = whole_number(as_mapping(spec.get("config")).get("epochs"))
    scorer_list = spec.get("scorers")
    scorers = [as_mapping(scorer).get("name") for scorer in (scorer_list if isinstance(scorer_list, list) else [])]
    version = number(spec.get("task_version"))
    status, created_at = data.get("status"), spec.get("created")
    return _LogHeader(
        model=str(settings.fixed_values.get("model") or name_text(checkpoint, "the model")),
        task=str(settings.fixed_values.get("task") or name_text(spec.get("task"), "the task")),
        created_at=created_at if isinstance(created_at, str) else "",
        status=status if isinstance(status, str) else "started",
        scorers=tuple(name for name in scorers if isinstance(name, str)),
        checkpoint=checkpoint,
        n_expected=n_samples * (epochs or 1) if n_samples is not None else None,
        setup={"version": version} if version is not None else {},
    )


def _task_results(
    file: Path, log: _LogHeader, samples: Sequence[InspectSample], metric_request: MetricRequest, batch: ImportResult
) -> TaskResults:
    log_name = f"{log.model}, {log.task}"
    if log.status != "success" or (log.n_expected is not None and log.n_expected > len(samples)):
        expected = f" of {log.n_expected:,}" if log.n_expected is not None else ""
        batch.note(f"{log_name}: the log's status is {log.status}; it holds {len(samples):,}{expected} samples")
    for scorer, count in Counter(name for sample in samples for name in sample.unreadable_scorers).items():
        batch.skip(file, f"scorer {scorer}: a value that is neither number nor word", count)
    primary = _primary_metric(log, samples, metric_request)
    if primary.note:
        batch.note(f"{log_name}: {primary.note}")
    rows = [row for sample in samples for row in _rows(log, sample, primary.metric[0])]
    n_errors = sum(1 for row in rows if row["primary"] and row["status"] == "error")
    if n_errors:
        batch.note(f"{log_name}: {n_errors:,} samples ended in an error or without a score; they have none here")
    first_epoch_by_item: dict[str, InspectSample] = {}
    for sample in samples:
        first_epoch_by_item.setdefault(sample.item, sample)
    return TaskResults(
        source=label(file),
        rows=rows,
        items=[
            item_row("inspect", log.task, item, prompt=s.prompt, choices=s.choices, target=text_or_list(s.targets))
            for item, s in first_epoch_by_item.items()
        ],
        facts={"checkpoint": log.checkpoint},
        setup=log.setup,
        has_content_ids=False,
    )


def _primary_metric(log: _LogHeader, samples: Sequence[InspectSample], metric_request: MetricRequest) -> PrimaryMetric:
    """The scorer that counts: the first declared one that gives scores."""
    values: dict[MetricId, list[float | None]] = {}
    for sample in samples:
        for name, result in sample.scores.items():
            values.setdefault((name, "none"), []).append(result.value)

    def rank(metric: MetricId) -> int:
        scorer = metric[0].partition(".")[0]
        return log.scorers.index(scorer) if scorer in log.scorers else len(log.scorers)

    # A scorer that gives several values has a metric for each, called scorer.part.
    ordered = {metric: values[metric] for metric in sorted(values, key=rank)}
    if not ordered:  # every sample failed
        return PrimaryMetric((log.scorers[0] if log.scorers else _NO_SCORER, "none"))
    return choose_primary(ordered, metric_request.metric_for_task(log.task, list(ordered)))


def _rows(log: _LogHeader, sample: InspectSample, primary: str) -> Iterator[dict[str, Any]]:
    """A row for every scorer; one without a score where the sample failed before the one that counts."""
    shared_columns = {
        **{"model": log.model, "battery": "inspect", "task": log.task, "item": sample.item},
        **catalogue_columns(log.task.rsplit("/", 1)[-1]),
        "repeat": sample.epoch - 1,
        "format": "generate",
        # A letter is right by luck as often as there are letters; of several right ones nobody says how many count.
        "chance": 1 / len(sample.choices) if sample.choices and len(sample.targets) == 1 else None,
        "target": truncate_text(text_or_list(sample.targets)),
        "response": sample.response,
        "n_tokens": sample.n_tokens,
        "stop_reason": sample.stop_reason,
    }
    for metric, result in {primary: InspectScorerResult(None, None, False), **sample.scores}.items():
        is_primary_metric = metric == primary
        value = None if sample.has_failed and is_primary_metric else result.value
        columns = score_and_status(value)
        if value == 0 and result.is_unparsed:
            columns["status"] = "unparsed"
        yield {
            **shared_columns,
            "metric": metric,
            "primary": is_primary_metric,
            "value": value,
            "prediction": result.answer,
            **columns,
        }
