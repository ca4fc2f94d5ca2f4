"""The samples of one task of lm-eval, with the results file they belong to, to rows of outcomes and items."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from capgap.importers.import_batch import ImportResult, TaskResults, catalogue_columns, item_row, label
from capgap.importers.lm_eval_choices import ItemChoices, read_choices
from capgap.importers.lm_eval_results import ResultsFile
from capgap.importers.lm_eval_samples import LmEvalSample, item_ids
from capgap.importers.primary_metric import MetricId, MetricRequest, choose_primary
from capgap.importers.values import as_json, as_mapping, score_and_status, truncate_text

# lm-eval's regular-expression filters put this in place of an answer that they do not find.
_NO_ANSWER = "[invalid]"
# Of one item these are log-probabilities; one of 0 is no score, whatever a results file says or leaves out.
_PERPLEXITY_METRICS = ("perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte")
_MEAN_METRICS = ("acc", "acc_norm", "acc_bytes", "exact_match", "em")
"""Metrics whose aggregate is the mean of the items; others need not be."""
_MEAN_TOLERANCE = 1e-6  # aggregates are means of the same numbers, in another order of addition


def task_results(
    path: Path,
    model: str,
    task: str,
    samples: Sequence[LmEvalSample],
    run: ResultsFile | None,
    metric_request: MetricRequest,
    batch: ImportResult,
) -> TaskResults | None:
    """Rows for every item, metric and filter of one task; None, and listed, where no metric has a value of one item.

    Parameters
    ----------
    path, model, task
        The samples file, and whose it is.
    samples
        One for each document and filter, none twice.
    run
        The results file beside them; None where there is none.
    metric_request
        What the user said about the metric that counts.
    batch
        Takes notes, and lists what has no row.
    """
    config = run.configs.get(task, {}) if run else {}
    values = _values_by_metric(samples, config)
    whole_task = ", ".join(sorted({name for sample in samples for name in sample.whole_task}))
    if not values:
        batch.skip(path, f"task {task}: no metric has a value of one item; its metrics: {whole_task or 'none'}")
        return None
    lower = run.lower.get(task, frozenset()) if run else frozenset()
    # Values, and with them the primary metric, are of the file; which items lack it is seen in the rows below.
    primary = choose_primary(values, metric_request.metric_for_task(task, list(values)), (*lower, *_PERPLEXITY_METRICS))
    ids = item_ids(samples)
    choices = _choices(samples, config, has_chat_template=run is not None and run.chat_template)
    rows = list(_rows(model, task, samples, choices, ids, primary.metric))
    items: dict[str, dict[str, Any]] = {}
    for sample, options in zip(samples, choices, strict=True):
        if ids[sample.doc_id] not in items:
            texts, target = (options.texts, options.target) if options is not None else (None, None)
            items[ids[sample.doc_id]] = item_row(
                *("lm-eval", task, ids[sample.doc_id]),
                prompt=sample.prompt,
                choices=texts,
                target=target if target is not None else _unwrap_target(sample),
            )
    if whole_task:
        batch.skip(path, f"metrics of the whole task: {whole_task}")
    primary_rows = [row for row in rows if row["primary"]]
    for note_text in _note_row_problems(primary_rows, len(ids), primary.metric, task, run):
        batch.note(f"{model}, {task}: {note_text}")
    if primary.note:
        batch.note(f"{model}, {task}: {primary.note}")
    return TaskResults(
        source=label(path),
        rows=rows,
        items=list(items.values()),
        facts=run.facts if run else {},
        setup=run.setups.get(task, {}) if run else {},
        has_content_ids=all(sample.digest for sample in samples),
    )


def _rows(
    model: str,
    task: str,
    samples: Sequence[LmEvalSample],
    choices: Sequence[ItemChoices | None],
    ids: Mapping[int, str],
    primary: MetricId,
) -> Iterable[dict[str, Any]]:
    shared_columns = {"model": model, "battery": "lm-eval", "task": task, **catalogue_columns(task)}
    for sample, options in zip(samples, choices, strict=True):
        item = {**shared_columns, "item": ids[sample.doc_id], "filter": sample.filter}
        for metric, value in sample.metrics.items():
            row = {"metric": metric, "primary": (metric, sample.filter) == primary, "value": value}
            answer = _answer_columns(sample, value) if options is None else _choice_columns(options, metric, value)
            yield {**item, **row, **score_and_status(value), **answer}


def _note_row_problems(
    primary_rows: Sequence[dict[str, Any]], n_documents: int, primary: MetricId, task: str, run: ResultsFile | None
) -> Iterable[str]:
    """Where the rows of the metric that counts lack something, or disagree with their results file."""
    n_without_value = n_documents - len({row["item"] for row in primary_rows})
    if n_without_value:
        yield f"{n_without_value} items have no value of {','.join(primary)}, which counts"
    n_without_margin = sum(1 for row in primary_rows if math.isnan(row.get("margin_target", 0.0)))
    if n_without_margin:
        yield f"{n_without_margin} items without a margin_target, as their right choice is not told for certain"
    if run is None:
        return
    n_expected = run.n_samples.get(task, n_documents)
    if n_expected != n_documents:
        yield f"the results are of {n_expected:,} documents, the samples of {n_documents:,}"
    task_aggregates = run.tasks.get(task, {})
    primary_aggregate = task_aggregates.get(",".join(primary), task_aggregates.get(primary[0]))
    values = [row["value"] for row in primary_rows if row["value"] is not None]
    if primary[0] in _MEAN_METRICS and primary_aggregate is not None and values:
        mean = sum(values) / len(values)
        if abs(mean - primary_aggregate) > _MEAN_TOLERANCE:
            yield f"mean {primary[0]} of the samples {mean:.6f}, in the results {primary_aggregate:.6f}"


def _values_by_metric(samples: Sequence[LmEvalSample], config: Mapping[str, Any]) -> dict[MetricId, list[float | None]]:
    """The values of each metric and filter, in lm-eval's order: the first filter and its first metric come first."""
    values: dict[MetricId, list[float | None]] = defaultdict(list)
    for sample in samples:
        for metric, value in sample.metrics.items():
            values[(metric, sample.filter)].append(value)
    metric_list = config.get("metric_list")
    order = [as_mapping(metric).get("metric") for metric in metric_list] if isinstance(metric_list, list) else []
    filters = list(dict.fromkeys(sample.filter for sample in samples))

    def rank(key: MetricId) -> tuple[int, int]:
        return filters.index(key[1]), order.index(key[0]) if key[0] in order else len(order)

    return {key: values[key] for key in sorted(values, key=rank)}


def _choices(
    samples: Sequence[LmEvalSample], config: Mapping[str, Any], *, has_chat_template: bool
) -> list[ItemChoices | None]:
    """The choices of every sample that has several; None for generated answers and single continuations."""
    choice_samples = [sample for sample in samples if len(sample.logprobs) > 1]
    delimiter = config.get("target_delimiter", " ")
    if has_chat_template and not config.get("gen_prefix"):
        delimiter = ""  # as in lm-eval
    choices = iter(read_choices(choice_samples, delimiter if isinstance(delimiter, str) else " "))
    return [next(choices) if len(sample.logprobs) > 1 else None for sample in samples]


def _choice_columns(choices: ItemChoices, metric: str, value: float | None) -> dict[str, Any]:
    metric_ranking = choices.rank_by_metric(metric, value)
    return {
        "format": "choose",
        # Of several right choices a guess hits any of them.
        "chance": max(1, len(choices.gold)) / len(choices.logprobs),
        "margin": metric_ranking.margin if metric_ranking else math.nan,
        "margin_target": metric_ranking.margin_target if metric_ranking else math.nan,
        "target_logprob": choices.target_logprob if math.isfinite(choices.target_logprob) else math.nan,
        "prediction": truncate_text(metric_ranking.prediction) if metric_ranking else None,
        "target": truncate_text(choices.target),
        "response": truncate_text(choices.response),
    }


def _answer_columns(sample: LmEvalSample, value: float | None) -> dict[str, Any]:
    """Columns of an item that was answered in words, or of whose one continuation the probability was taken."""
    columns: dict[str, Any] = {"format": "generate", "target": truncate_text(_unwrap_target(sample))}
    if sample.logprobs:
        logprob = sample.logprobs[0] if math.isfinite(sample.logprobs[0]) else math.nan
        return {**columns, "target_logprob": logprob, "response": as_json(round(logprob, 6)), "prediction": None}
    prediction = truncate_text(sample.filtered_answer) or ""
    is_unparsed = not prediction.strip() or prediction == _NO_ANSWER
    if is_unparsed and value == 0:
        columns["status"] = "unparsed"  # it scores 0 and is counted; an empty answer can be right
    prediction_column = None if is_unparsed else prediction.strip()
    return {**columns, "prediction": prediction_column, "response": truncate_text(sample.response)}


def _unwrap_target(sample: LmEvalSample) -> Any:
    target = sample.target
    return target[0] if isinstance(target, list) and len(target) == 1 else target
