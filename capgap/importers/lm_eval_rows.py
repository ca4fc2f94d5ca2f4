"""One samples file to rows of outcomes and items."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from capgap.battery.catalogue import known_label
from capgap.importers.lm_eval_choices import ItemChoices, read_choices
from capgap.importers.lm_eval_samples import LmEvalSample, item_ids
from capgap.importers.primary_metric import Metric, MetricRequest, choose_primary
from capgap.importers.values import as_json, is_score, kept_text

__all__ = ["TaskMetadata", "TaskRows", "task_rows"]

# lm-eval's regular-expression filters put this in place of an answer that they do not find.
_NOT_FOUND = "[invalid]"
# Of one item these are log-probabilities; one of 0 is no score, whatever a results file says or leaves out.
_PERPLEXITIES = ("perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte")


@dataclass(frozen=True)
class TaskRows:
    """What a samples file becomes."""

    rows: list[dict[str, Any]]
    """Of the outcomes table; empty where no metric has a value of one item."""
    items: list[dict[str, Any]]
    """Of the items table."""
    primary: Metric | None
    """The metric that counts, and its filter."""
    notes: tuple[str, ...]
    """What a reader should know."""
    metrics: frozenset[Metric]
    """All that the file has."""
    whole_task: frozenset[str]
    """Metrics that have no value of one item."""


@dataclass(frozen=True)
class TaskMetadata:
    """What the results file beside the samples tells about their task."""

    config: Mapping[str, Any] = field(default_factory=dict)
    """lm-eval's configuration of the task; empty where it is not known."""
    chat: bool = False
    """Whether prompts went through a chat template: lm-eval then puts no delimiter before a choice."""
    lower: frozenset[str] = frozenset()
    """Metrics of which less is better."""


def task_rows(
    model: str, task: str, samples: Sequence[LmEvalSample], known: TaskMetadata, wanted: MetricRequest
) -> TaskRows:
    """Rows for every item, metric and filter of one task.

    Parameters
    ----------
    model, task
        Their names.
    samples
        One for each document and filter, none twice.
    known
        What is known about the task beside them.
    wanted
        What the user said about the metric that counts.
    """
    values = _values(samples, known.config)
    whole_task = frozenset(name for sample in samples for name in sample.whole_task)
    if not values:
        return TaskRows([], [], None, (), frozenset(), whole_task)
    chosen = choose_primary(values, wanted.for_task(task, list(values)), (*known.lower, *_PERPLEXITIES))
    ids = item_ids(samples)
    choices = _choices(samples, known)
    label = known_label(task)
    shared = {
        "model": model,
        "battery": "lm-eval",
        "task": task,
        "capability": label.capability if label else None,
        "domain": label.domain if label else None,
    }
    rows: list[dict[str, Any]] = []
    unclear = 0
    for sample, own in zip(samples, choices, strict=True):
        for metric, value in sample.metrics.items():
            key = (metric, sample.filter)
            row = {**shared, "item": ids[sample.doc_id], "metric": metric, "filter": sample.filter}
            told = _chosen(own, metric, value) if own is not None else _answered(sample, value)
            rows.append({**row, "primary": key == chosen.metric, "value": value, **told})
            unclear += own is not None and key == chosen.metric and math.isnan(told["margin_target"])
    notes = [f"{task}: {chosen.note}"] if chosen.note else []
    without = len(ids) - len({row["item"] for row in rows if row["primary"]})
    if without:
        notes.append(f"{task}: {without} items have no value of {','.join(chosen.metric)}, which counts")
    if unclear:
        notes.append(f"{task}: {unclear} items without a margin_target, as their right choice is not told for certain")
    return TaskRows(
        rows, _items(task, samples, choices, ids), chosen.metric, tuple(notes), frozenset(values), whole_task
    )


def _values(samples: Sequence[LmEvalSample], config: Mapping[str, Any]) -> dict[Metric, list[float | None]]:
    """The values of each metric and filter, in lm-eval's order: the first filter and its first metric come first."""
    found: dict[Metric, list[float | None]] = defaultdict(list)
    for sample in samples:
        for metric, value in sample.metrics.items():
            found[(metric, sample.filter)].append(value)
    listed = config.get("metric_list")
    order = [one.get("metric") for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    filters = list(dict.fromkeys(sample.filter for sample in samples))

    def rank(key: Metric) -> tuple[int, int]:
        return filters.index(key[1]), order.index(key[0]) if key[0] in order else len(order)

    return {key: found[key] for key in sorted(found, key=rank)}


def _choices(samples: Sequence[LmEvalSample], known: TaskMetadata) -> list[ItemChoices | None]:
    """The choices of every sample that has several; None for generated answers and single continuations."""
    several = [sample for sample in samples if len(sample.logprobs) > 1]
    delimiter = known.config.get("target_delimiter", " ")
    if known.chat and not known.config.get("gen_prefix"):
        delimiter = ""
    read = iter(read_choices(several, delimiter if isinstance(delimiter, str) else " "))
    return [next(read) if len(sample.logprobs) > 1 else None for sample in samples]


def _chosen(choices: ItemChoices, metric: str, value: float | None) -> dict[str, Any]:
    told = choices.told(metric, value)
    return {
        **_score(value),
        "format": "choose",
        # Of several right choices a guess hits any of them.
        "chance": max(1, len(choices.gold)) / len(choices.logprobs),
        "margin": told.margin if told else math.nan,
        "margin_target": told.margin_target if told else math.nan,
        "target_logprob": choices.target_logprob if math.isfinite(choices.target_logprob) else math.nan,
        "prediction": kept_text(told.prediction) if told else None,
        "target": kept_text(choices.target),
        "response": kept_text(choices.response),
    }


def _answered(sample: LmEvalSample, value: float | None) -> dict[str, Any]:
    if sample.logprobs:  # one continuation: how likely it was, and whether it was the likeliest
        logprob = sample.logprobs[0]
        finite = logprob if math.isfinite(logprob) else math.nan
        told = {"target_logprob": finite, "response": as_json(round(finite, 6)), "prediction": None}
        return {**_score(value), "format": "generate", "target": kept_text(_target(sample)), **told}
    prediction = kept_text(sample.filtered)
    unread = prediction is None or not prediction.strip() or prediction == _NOT_FOUND
    return {
        **_score(value),
        # An answer that nothing could be read from scores 0 and is counted; an empty one can be right.
        **({"status": "unparsed"} if unread and value == 0 else {}),
        "format": "generate",
        "target": kept_text(_target(sample)),
        "prediction": None if unread else (prediction or "").strip(),
        "response": kept_text(sample.response),
    }


def _score(value: float | None) -> dict[str, Any]:
    """Score and status; a value that is not known is an error, never a zero."""
    return {"score": value if is_score(value) else None, "status": "scored" if value is not None else "error"}


def _target(sample: LmEvalSample) -> Any:
    target = sample.target
    return target[0] if isinstance(target, list) and len(target) == 1 else target


def _items(
    task: str, samples: Sequence[LmEvalSample], choices: Sequence[ItemChoices | None], ids: Mapping[int, str]
) -> list[dict[str, Any]]:
    items: dict[str, dict[str, Any]] = {}
    for sample, own in zip(samples, choices, strict=True):
        texts = list(own.texts) if own is not None and own.texts else None
        target = own.target if own is not None else None
        items.setdefault(
            ids[sample.doc_id],
            {
                "battery": "lm-eval",
                "task": task,
                "item": ids[sample.doc_id],
                "variant": "default",
                "prompt": kept_text(sample.prompt),
                "choices": kept_text(texts),
                "target": kept_text(target if target is not None else _target(sample)),
            },
        )
    return list(items.values())
