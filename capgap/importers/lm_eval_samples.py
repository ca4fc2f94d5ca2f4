"""lm-eval's samples: one record per document and filter, of any of its generations, in one shape.

* Today: ``samples_TASK_DATE.jsonl``, arguments as ``{"gen_args_0": {"arg_0": …}}``, responses as text.
* Early 0.4 (end of 2023): a JSON list in a file that ends in ``.jsonl``, arguments as lists, no hashes, no filter.
* 0.3 (2023, ``--write_out``): ``TASK_write_out_info.json`` with ``prompt_0``, ``logit_0``, ``truth``.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from capgap.errors import TableError
from capgap.importers.values import number

_HASHES = ("doc_hash", "prompt_hash", "target_hash")
_NON_METRIC_KEYS = frozenset(
    ("doc_id", "doc", "target", "truth", "arguments", "resps", "filtered_resps", "filter", "metrics", *_HASHES)
)


@dataclass(frozen=True)
class LmEvalSample:
    """One document, answered and filtered one way."""

    doc_id: int
    """Its place in lm-eval's data."""
    digest: str | None
    """A hash of the document; None where only its place is known."""
    filter: str
    """How the response was filtered; ``none`` where it was not."""
    prompt: str | None
    """What the model read, solved examples included."""
    contexts: tuple[str, ...]
    """What stood before each continuation; empty where the file does not tell it apart."""
    continuations: tuple[str, ...]
    """What was scored after the contexts; empty where an answer was generated or nothing tells."""
    logprobs: tuple[float, ...]
    """Log-probability of each continuation, not finite where the file says so; empty where an answer was generated."""
    response: Any
    """The generated answer; None where continuations were scored."""
    filtered_answer: Any
    """The answer after the filter."""
    target: Any
    """The right answer as the file has it: a text, a place, or several."""
    metrics: Mapping[str, float | None]
    """Metric → value; None where it is no number."""
    whole_task: tuple[str, ...]
    """Metrics whose value is no number of one document (F1, perplexity)."""


def is_sample(value: Any) -> bool:
    """Whether this looks like one of lm-eval's records."""
    return isinstance(value, dict) and "doc_id" in value and ("resps" in value or "logit_0" in value)


def read_sample(record: Any) -> LmEvalSample:
    """The record in one shape.

    Raises
    ------
    TableError
        It is no record of lm-eval's, or says no document or no value.
    """
    if not is_sample(record):
        raise TableError("is no sample of lm-eval: expected an object with doc_id and resps")
    doc_id = record["doc_id"]
    if isinstance(doc_id, bool) or not isinstance(doc_id, int) or abs(doc_id) > 2**53:
        raise TableError("has a doc_id that is no whole number")
    record = _modern_record(record) if "logit_0" in record and "resps" not in record else record
    arguments, resps = _parse_request_pairs(record.get("arguments")), record["resps"]
    if not isinstance(resps, list) or not resps:
        raise TableError("has no responses in resps")
    metrics, whole_task = _parse_sample_metrics(record)
    has_generated_answer = any(isinstance(settings, dict) for _, settings in arguments)
    logprobs = [] if has_generated_answer else [_scored_logprob(response) for response in resps]
    is_scored = bool(logprobs) and None not in logprobs
    filter_name = record.get("filter", "none")
    has_texts = len(arguments) == len(resps) and all(isinstance(text, str) for pair in arguments for text in pair)
    return LmEvalSample(
        doc_id=doc_id,
        digest=_hash_document(record),
        filter=filter_name if isinstance(filter_name, str) and 0 < len(filter_name) <= 200 else "none",
        prompt=arguments[0][0] if arguments and isinstance(arguments[0][0], str) else None,
        contexts=_intern_texts(context for context, _ in arguments) if has_texts and is_scored else (),
        continuations=tuple(text for _, text in arguments) if has_texts and is_scored else (),
        logprobs=tuple(value for value in logprobs if value is not None) if is_scored else (),
        response=None if is_scored else _first_element(resps[0]),
        filtered_answer=None if is_scored else _first_element(record.get("filtered_resps")),
        target=record.get("target"),
        metrics=metrics,
        whole_task=whole_task,
    )


def item_ids(samples: Iterable[LmEvalSample]) -> dict[int, str]:
    """An id for each document: its hash (and the occurrence where it comes again), else its place.

    The same document has the same id whatever model was asked and how many others were.
    """
    hash_by_doc_id = {sample.doc_id: sample.digest for sample in samples}
    occurrences: Counter[str] = Counter()
    ids = {}
    for doc_id, digest in sorted(hash_by_doc_id.items()):
        if digest is None:
            ids[doc_id] = str(doc_id)
            continue
        occurrences[digest] += 1
        ids[doc_id] = digest if occurrences[digest] == 1 else f"{digest}-{occurrences[digest]}"
    return ids


def _parse_request_pairs(value: Any) -> list[tuple[Any, Any]]:
    """Context and continuation (or settings) of each request."""
    if isinstance(value, dict):  # today; the keys are gen_args_0, gen_args_1 …, not always in order
        value = [value.get(f"gen_args_{n}") for n in range(len(value))]
    pairs = []
    for request in value if isinstance(value, list) else []:
        pair = [request.get("arg_0"), request.get("arg_1")] if isinstance(request, dict) else request
        pairs.append((pair[0], pair[1]) if isinstance(pair, list) and len(pair) >= 2 else (None, None))
    return pairs


def _intern_texts(texts: Iterable[str]) -> tuple[str, ...]:
    """The texts, equal ones as one object: every choice of an item repeats its solved examples."""
    unique_texts: dict[str, str] = {}
    return tuple(unique_texts.setdefault(text, text) for text in texts)


def _scored_logprob(response: Any) -> float | None:
    """The log-probability in ``[log-probability, is greedy]``, which may stand in a list of repeats."""
    if isinstance(response, list) and response and isinstance(response[0], list):
        response = response[0]
    if not isinstance(response, list) or len(response) != 2 or response[1] not in (True, False, "True", "False"):
        return None
    return _logprob(response[0])


def _logprob(value: Any) -> float | None:
    """A log-probability; minus infinity and what is no number at all are told apart from other things."""
    if value in ("-inf", "-Infinity", "nan", "NaN") or (isinstance(value, float) and not value > float("-inf")):
        return float("-inf")
    return None if isinstance(value, bool) else number(value)


def _first_element(value: Any) -> Any:
    """The first of several repeats or requests."""
    return value[0] if isinstance(value, list) and value else value


def _parse_sample_metrics(record: dict[str, Any]) -> tuple[dict[str, float | None], tuple[str, ...]]:
    names = record.get("metrics")
    if not (isinstance(names, list) and names and all(isinstance(name, str) for name in names)):
        names = [key for key in record if key not in _NON_METRIC_KEYS and not key.startswith(("prompt_", "logit_"))]
    values: dict[str, float | None] = {}
    whole_task = []
    for name in names:
        value = record.get(name)
        if name not in record or not name or len(name) > 200:
            continue
        if value is None or isinstance(value, (bool, int, float)):
            values[name] = number(value)  # NaN and infinity are values that are not known
        else:
            whole_task.append(name)
    return values, tuple(whole_task)


def _hash_document(record: dict[str, Any]) -> str | None:
    """The hash of the document that today's files carry, or the same hash made from the document itself."""
    digest = record.get("doc_hash")
    if isinstance(digest, str) and digest.isalnum() and 16 <= len(digest) <= 128:
        return digest[:16]
    if not isinstance(record.get("doc"), (dict, list, str)):
        return None
    try:
        text = json.dumps(record["doc"], indent=2, ensure_ascii=False)
    except RecursionError:
        raise TableError("has a document that is nested too deeply") from None
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


def _modern_record(record: dict[str, Any]) -> dict[str, Any]:
    """A record of 2023's ``--write_out`` in today's words; its metrics are text, and no continuation stands alone."""
    n = sum(1 for key in record if key.startswith("logit_"))
    logits = [record.get(f"logit_{i}") for i in range(n)]
    is_scored = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in logits)
    values = {
        key: {"True": 1.0, "False": 0.0}.get(value, number(value)) if isinstance(value, str) else value
        for key, value in record.items()
        if key not in _NON_METRIC_KEYS and not key.startswith(("prompt_", "logit_"))
    }
    return {
        **{key: value for key, value in values.items() if value is not None},
        "doc_id": record["doc_id"],
        "target": record.get("truth"),
        "arguments": [[record.get(f"prompt_{i}"), ""] for i in range(n)],
        "resps": [[[value, False]] for value in logits] if is_scored else [[value] for value in logits],
        "filtered_resps": logits,
    }
