"""Logs of inspect_ai to outcomes: ``.json`` logs, and ``.eval`` archives, finished or not."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capgap.battery.catalogue import known_label
from capgap.errors import CapgapError, TableError
from capgap.importers.archive import Archive
from capgap.importers.import_batch import ImportBatch, TaskResults, label
from capgap.importers.inspect_samples import InspectSample, ScorerResult, read_inspect_sample
from capgap.importers.primary_metric import Metric, MetricRequest, PrimaryMetric, choose_primary
from capgap.importers.reading import FileRecord, files_under, first_byte, json_document
from capgap.importers.settings import ImportSettings, with_constants
from capgap.importers.values import as_json, is_score, kept_text, model_place, name_text, number, whole_number

__all__ = ["import_inspect"]

_SUFFIXES = (".json", ".eval")
_NO_SCORER = "score"


@dataclass(frozen=True)
class _LogHeader:
    """What a log says about itself."""

    model: str
    task: str
    created: str
    status: str
    scorers: tuple[str, ...]
    """In the order in which they were declared."""
    checkpoint: str | None
    n_expected: int | None
    """Samples times epochs, where the log says."""
    asked: dict[str, Any]


def import_inspect(paths: Sequence[Path], settings: ImportSettings | None = None) -> ImportBatch:
    """What inspect's logs say about every sample and epoch, one part a log.

    Parameters
    ----------
    paths
        Logs, or folders that are searched for ``.json`` and ``.eval``.
    settings
        What the user says instead of the logs.

    Returns
    -------
    Batch
        Parts in the order in which the logs were created. What was not understood is in its list.

    Raises
    ------
    TableError
        A path does not exist.
    UsageError
        The user wants a metric that no task has.
    """
    settings = settings or ImportSettings()
    batch, wanted = ImportBatch("inspect"), MetricRequest(settings.primary)
    known: set[Metric] = set()
    dated: list[tuple[str, TaskResults]] = []
    for file in dict.fromkeys(file for path in paths for file in files_under(path, _SUFFIXES)):
        try:
            with _opened(file) as (header, samples):
                log = _header(header, settings)
                read = _samples(file, samples, batch)
                if read:
                    dated.append((log.created, _part(file, log, read, wanted, known, batch)))
        except CapgapError as error:
            batch.skip(label(file), str(error))
    batch.parts = [part for _, part in sorted(dated, key=lambda pair: pair[0])]
    if batch.parts:
        wanted.check_used(known)
    return with_constants(batch, settings.constants)


@contextmanager
def _opened(file: Path) -> Iterator[tuple[Any, Iterator[tuple[FileRecord, bool]]]]:
    """The header of a log, and its samples one by one, each with whether it is whole (and no summary)."""
    if first_byte(file) != b"P":  # every ZIP archive begins with it, and no JSON does
        document = json_document(file)
        if not isinstance(document, dict) or not isinstance(document.get("eval"), dict):
            raise TableError("is no log of inspect: expected an object with eval and samples")
        found = document.get("samples")
        listed = found if isinstance(found, list) else []
        yield document, ((FileRecord(f"sample {n}", value), True) for n, value in enumerate(listed, start=1))
        return
    with Archive(file) as archive:
        start = next((name for name in ("header.json", "_journal/start.json") if name in archive.names), None)
        if start is None:
            raise TableError("is no log of inspect: it holds neither header.json nor _journal/start.json")
        yield archive.json(start), _archived(archive)


def _archived(archive: Archive) -> Iterator[tuple[FileRecord, bool]]:
    names = [name for name in archive.names if name.startswith("samples/") and name.endswith(".json")]
    for name in names:
        try:
            yield FileRecord(name, archive.json(name)), True
        except TableError as error:
            yield FileRecord(name, trouble=str(error).rstrip(".")), True
    if not names and "summaries.json" in archive.names:
        found = archive.json("summaries.json")
        for number_, value in enumerate(found if isinstance(found, list) else [], start=1):
            yield FileRecord(f"summary {number_}", value), False


def _header(data: Any, settings: ImportSettings) -> _LogHeader:
    spec = data.get("eval") if isinstance(data, dict) else None
    if not isinstance(spec, dict):
        raise TableError("is no log of inspect: its header has no eval")
    model = name_text(spec.get("model"), "the model")
    arguments = spec.get("model_args")
    local = arguments.get("model_path") if isinstance(arguments, dict) else None
    checkpoint = model_place(local if isinstance(local, str) and local else model)
    dataset, config = spec.get("dataset"), spec.get("config")
    n_samples = whole_number(dataset.get("samples")) if isinstance(dataset, dict) else None
    epochs = whole_number(config.get("epochs")) if isinstance(config, dict) else None
    listed = spec.get("scorers")
    scorers = [one.get("name") for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    version = number(spec.get("task_version"))
    status, created = data.get("status"), spec.get("created")
    return _LogHeader(
        model=str(settings.constants.get("model") or name_text(checkpoint, "the model")),
        task=str(settings.constants.get("task") or name_text(spec.get("task"), "the task")),
        created=created if isinstance(created, str) else "",
        status=status if isinstance(status, str) else "started",
        scorers=tuple(name for name in scorers if isinstance(name, str)),
        checkpoint=checkpoint,
        n_expected=n_samples * (epochs or 1) if n_samples is not None else None,
        asked={"version": version} if version is not None else {},
    )


def _samples(file: Path, found: Iterator[tuple[FileRecord, bool]], batch: ImportBatch) -> list[InspectSample]:
    """The samples of a log, each id and epoch once; the others are listed."""
    kept: dict[tuple[str, int], InspectSample] = {}
    empty = True
    for record, whole in found:
        empty = False
        try:
            if record.trouble:
                raise TableError(record.trouble)
            sample = read_inspect_sample(record.value, whole=whole)
        except CapgapError as error:
            reason, _, detail = str(error).partition(":")
            batch.skip(label(file), reason, first=f"{record.place}:{detail}" if detail else record.place)
            continue
        key = (sample.item, sample.epoch)
        if key in kept:
            batch.skip(label(file), "another sample of an id and epoch that stand there already", first=record.place)
        else:
            kept[key] = sample
    if empty:
        batch.skip(label(file), "holds no samples: only items can be paired (log_samples was off, or only a header)")
    return list(kept.values())


def _part(
    file: Path,
    log: _LogHeader,
    samples: Sequence[InspectSample],
    wanted: MetricRequest,
    known: set[Metric],
    batch: ImportBatch,
) -> TaskResults:
    where = f"{log.model}, {log.task}"
    if log.status != "success" or (log.n_expected is not None and log.n_expected > len(samples)):
        expected = f" of {log.n_expected:,}" if log.n_expected is not None else ""
        batch.note(f"{where}: the log's status is {log.status}; it holds {len(samples):,}{expected} samples")
    for scorer, count in Counter(name for sample in samples for name in sample.unknown).items():
        batch.skip(label(file), f"scorer {scorer}: a value that is neither number nor word", count)
    chosen = _chosen(log, samples, wanted)
    known |= {(name, "none") for sample in samples for name in sample.scores}
    if chosen.note:
        batch.note(f"{where}: {chosen.note}")
    rows = [row for sample in samples for row in _rows(log, sample, chosen.metric[0])]
    n_errors = sum(1 for row in rows if row["primary"] and row["status"] == "error")
    if n_errors:
        batch.note(f"{where}: {n_errors:,} samples ended in an error or without a score; they have none here")
    return TaskResults(
        source=label(file),
        rows=rows,
        items=_items(log, samples),
        facts={"checkpoint": log.checkpoint},
        asked=log.asked,
        items_by_content=False,
    )


def _chosen(log: _LogHeader, samples: Sequence[InspectSample], wanted: MetricRequest) -> PrimaryMetric:
    """The scorer that counts: the first declared one that gives scores."""
    values: dict[Metric, list[float | None]] = {}
    for sample in samples:
        for name, scored in sample.scores.items():
            values.setdefault((name, "none"), []).append(scored.value)

    def rank(metric: Metric) -> int:
        scorer = metric[0].partition(".")[0]
        return log.scorers.index(scorer) if scorer in log.scorers else len(log.scorers)

    ordered = {metric: values[metric] for metric in sorted(values, key=rank)}
    if not ordered:  # every sample failed
        return PrimaryMetric((log.scorers[0] if log.scorers else _NO_SCORER, "none"))
    return choose_primary(ordered, wanted.for_task(log.task, list(ordered)))


def _rows(log: _LogHeader, sample: InspectSample, primary: str) -> Iterator[dict[str, Any]]:
    """A row for every scorer; one without a score where the sample failed before the one that counts."""
    known = known_label(log.task.rsplit("/", 1)[-1])
    shared = {
        "model": log.model,
        "battery": "inspect",
        "task": log.task,
        "capability": known.capability if known else None,
        "domain": known.domain if known else None,
        "item": sample.item,
        "repeat": sample.epoch - 1,
        "format": "generate",
        # A letter is right by luck as often as there are letters; of several right ones nobody says how many count.
        "chance": 1 / len(sample.choices) if sample.choices and len(sample.targets) == 1 else None,
        "target": kept_text(_target(sample)),
        "response": sample.response,
        "n_tokens": sample.n_tokens,
        "stop_reason": sample.stop_reason,
    }
    scores = {primary: ScorerResult(None, None, False), **sample.scores}
    for metric, scored in scores.items():
        counts = metric == primary
        value = None if sample.failed and counts else scored.value
        status = "scored"
        if value is None:
            status = "error"
        elif value == 0 and sample.cut_off:
            status = "truncated"
        elif value == 0 and scored.unread:
            status = "unparsed"
        yield {
            **shared,
            "metric": metric,
            "primary": counts,
            "value": value,
            "score": value if is_score(value) else None,
            "status": status,
            "prediction": scored.answer,
        }


def _target(sample: InspectSample) -> str | None:
    if len(sample.targets) == 1:
        return sample.targets[0]
    return as_json(list(sample.targets)) if sample.targets else None


def _items(log: _LogHeader, samples: Sequence[InspectSample]) -> list[dict[str, Any]]:
    items: dict[str, dict[str, Any]] = {}
    for sample in samples:
        items.setdefault(
            sample.item,
            {
                "battery": "inspect",
                "task": log.task,
                "item": sample.item,
                "variant": "default",
                "prompt": sample.prompt,
                "choices": kept_text(list(sample.choices)) if sample.choices else None,
                "target": kept_text(_target(sample)),
            },
        )
    return list(items.values())
