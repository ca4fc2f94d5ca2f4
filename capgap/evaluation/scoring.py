"""Scoring of responses: lm-eval filters and scores, capgap adds margins, predictions and the status of an answer.

`value` is lm-eval's number, untouched, and the score is it. `status` is ``unparsed`` where no answer could be read from
a generation; `stop_reason` says how it ended (`capgap.schema.STOP_REASONS`), `n_prompt_cut` how many tokens of its
prompt were lost.
"""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from capgap.battery import Item, PreparedTask, score_generation
from capgap.models import ModelResponse

# lm-eval's regular-expression filters put this in place of an answer that they do not find.
_NO_ANSWER = "[invalid]"
_CAPGAP_SCORERS = ("exact", "numeric", "contains")


def outcome_rows(
    model: str, battery: str, prepared_task: PreparedTask, responses: Sequence[Sequence[ModelResponse]]
) -> list[dict[str, Any]]:
    """The rows of the outcomes table for one model and one task.

    Parameters
    ----------
    model, battery
        Their names.
    prepared_task
        The task; its ``lm_task.instances`` hold the responses already (see `respond`).
    responses
        The same responses with their endings, shape (instances, repeats), in the order of the instances.
    """
    rows: list[dict[str, Any]] = []
    # Tasks that draw several answers have rows for each draw; log-likelihoods have one.
    for repeat in range(max(map(len, responses), default=0)):
        rows += _rows_of_repeat(model, battery, prepared_task, [repeats[repeat] for repeats in responses], repeat)
    return rows


def _rows_of_repeat(
    model: str, battery: str, prepared_task: PreparedTask, responses: Sequence[ModelResponse], repeat: int
) -> list[dict[str, Any]]:
    """One draw of every item: lm-eval's filters see it alone, for most of them keep the first of several."""
    task = prepared_task.lm_task
    # An item with n choices has n instances, which lm-eval filters and scores together; idx is the choice.
    pairs_by_doc: dict[int, list[tuple[Any, ModelResponse]]] = defaultdict(list)
    for instance, response in zip(task.instances, responses, strict=True):
        instance.resps, instance.filtered_resps = [response.value], {}
        pairs_by_doc[int(instance.doc_id)].append((instance, response))
    task.apply_filters()
    filters = list(task.instances[0].filtered_resps)
    primary = tuple(prepared_task.primary.split(","))
    rows: list[dict[str, Any]] = []
    for doc_id, pairs in sorted(pairs_by_doc.items()):
        pairs.sort(key=lambda pair: pair[0].idx)
        item = prepared_task.items[doc_id]
        item_columns = _item_columns(model, battery, prepared_task, item) | {"repeat": repeat}
        for name in filters:
            filter_outputs = [instance.filtered_resps[name] for instance, _ in pairs]
            values = task.process_results(pairs[0][0].doc, filter_outputs)
            answer_columns = _answer_columns(prepared_task, item, filter_outputs, [response for _, response in pairs])
            for metric, value in values.items():
                number = _float_or_none(value)
                if number is None:
                    continue  # a metric over the whole task, such as perplexity or F1, has no value of one item
                metric_columns = {"metric": metric, "filter": name, "primary": (metric, name) == primary}
                rows.append({**item_columns, **metric_columns, **answer_columns(metric, number)})
    return rows


def _item_columns(model: str, battery: str, prepared_task: PreparedTask, item: Item) -> dict[str, Any]:
    """Columns that are the same for every metric of an item."""
    return {
        **{"model": model, "battery": battery, "task": prepared_task.name, "format": prepared_task.format},
        **{name: getattr(item, name) for name in ("item", "variant", "capability", "domain", "cluster", "chance")},
        "target": _format_target(item),
        **{f"x_{key}": value for key, value in item.covariates.items()},
    }


def _format_target(item: Item) -> str | None:
    """The right answer as text; several as a JSON list."""
    texts = list(item.targets)
    if not texts and item.choices:
        texts = [item.choices[index] for index in item.gold]
    if len(texts) == 1:
        return str(texts[0])
    return json.dumps(texts, ensure_ascii=False) if texts else None


def _float_or_none(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float, np.integer, np.floating, np.bool_)) else None


def _answer_columns(
    prepared_task: PreparedTask, item: Item, filter_outputs: Sequence[Any], responses: Sequence[ModelResponse]
) -> Callable[[str, float], dict[str, Any]]:
    """Metric and its value → score, status, prediction, margins, the response and its ending."""
    if item.choices and isinstance(responses[0].value, tuple):
        logprobs = np.array([response.value[0] for response in responses[: len(item.choices)]])
        cuts = [response.n_prompt_cut for response in responses if response.n_prompt_cut is not None]
        prompt_columns = {"n_prompt_cut": max(cuts, default=None)}
        return lambda metric, value: _choice_columns(item, logprobs, metric, value) | prompt_columns
    return lambda metric, value: _generation_columns(prepared_task, item, filter_outputs[0], responses[0], value)


def _choice_columns(item: Item, logprobs: np.ndarray, metric: str, value: float) -> dict[str, Any]:
    """Columns of an item whose choices were scored; `logprobs` (choices,) are ranked as the metric ranks them."""
    choices = item.choices or ()
    weights = {
        "acc_norm": np.array([float(len(choice)) for choice in choices]),
        "acc_bytes": np.array([float(len(choice.encode())) for choice in choices]),
    }
    # lm-eval divides by characters (acc_norm) or bytes; where a choice is empty it cannot, and ranks as acc does.
    ranked = logprobs / weights[metric] if metric in weights and weights[metric].all() else logprobs
    best_index = int(np.argmax(ranked))
    columns: dict[str, Any] = {
        **_score(value),
        "status": "scored",
        "prediction": choices[best_index],
        "response": json.dumps([round(float(value), 6) for value in logprobs]),
    }
    if len(ranked) > 1:
        ordered = np.sort(ranked)
        columns["margin"] = float(ordered[-1] - ordered[-2])
    gold = [index for index in item.gold if 0 <= index < len(ranked)]
    if gold:  # several may be right: the likeliest of them against the likeliest wrong one
        columns["target_logprob"] = float(logprobs[gold].max())
        wrong_choice_scores = np.delete(ranked, gold)
        if len(wrong_choice_scores):
            columns["margin_target"] = float(ranked[gold].max() - wrong_choice_scores.max())
    return columns


def _generation_columns(
    prepared_task: PreparedTask, item: Item, filtered_answer: Any, response: ModelResponse, value: float
) -> dict[str, Any]:
    answer = response.value
    columns = {**_score(value), "status": "scored", "prediction": None, "n_prompt_cut": response.n_prompt_cut}
    if isinstance(answer, tuple):  # one continuation, scored: log-probability and whether it is the greedy one
        return columns | {"target_logprob": answer[0], "response": json.dumps(round(answer[0], 6))}
    if not isinstance(answer, str):
        return columns | {"response": json.dumps(answer)}
    text = filtered_answer[0] if isinstance(filtered_answer, (list, tuple)) and filtered_answer else filtered_answer
    columns["prediction"] = _extract_prediction(prepared_task, item, str(text))
    if columns["prediction"] is None:
        columns["status"] = "unparsed"
    return columns | {"response": answer, "n_tokens": response.n_tokens, "stop_reason": response.stop_reason}


def _extract_prediction(prepared_task: PreparedTask, item: Item, text: str) -> str | None:
    """The answer in a response, as its score reads it; None where there is none."""
    if prepared_task.score in _CAPGAP_SCORERS:
        return score_generation(prepared_task.score, text, item.targets, prepared_task.extract)[1]
    return None if not text.strip() or text == _NO_ANSWER else text.strip()


def _score(value: float) -> dict[str, float]:
    """The value, and the score where the value lies in [0, 1]."""
    return {"value": value, "score": value if 0.0 <= value <= 1.0 else math.nan}
