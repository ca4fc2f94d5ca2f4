"""One sample of an inspect log to what its rows need: the question, the answer, and each scorer's value as a number."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from capgap.errors import TableError
from capgap.importers.values import as_mapping, name_text, number, truncate_text, whole_number
from capgap.schema import stop_reason_of

# inspect's letters (correct, partial, incorrect, no answer) and the words that its own metrics read.
_LETTERS = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}
_SCORE_BY_WORD = {"yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}
_MAX_SCORE_PARTS = 100
_NO_ANSWER = ("invalid_response_format", "no_response")
# The instrument failed: whatever stands there says nothing of the answer.
_NO_SCORE_REASONS = ("grader_failed", "scoring_failed")
_CUT_OFF_REASONS = ("max_tokens", "model_length")
_ATTACHMENT_URI = "attachment://"


@dataclass(frozen=True)
class InspectScorerResult:
    """What one scorer said."""

    value: float | None
    """Its value; None where it is not known."""
    answer: str | None
    """The answer that the scorer read."""
    is_unparsed: bool
    """Whether the scorer found no answer."""


@dataclass(frozen=True)
class InspectSample:
    """One sample, answered once."""

    item: str
    """Its id."""
    epoch: int
    """Which repeat, counted from 1."""
    prompt: str | None
    """The question; None in a summary, which shortens it."""
    choices: tuple[str, ...]
    """The answers to choose from; empty where there are none."""
    targets: tuple[str, ...]
    """The right answers."""
    response: str | None
    """What the model wrote at last."""
    n_tokens: int | None
    """Tokens that it wrote."""
    stop_reason: str | None
    """How it ended, one of `capgap.schema.STOP_REASONS`."""
    has_failed: bool
    """Whether the sample ended with an error."""
    scores: Mapping[str, InspectScorerResult]
    """Metric → what was said; parts of one score as ``scorer.part_name``."""
    unreadable_scorers: tuple[str, ...]
    """Scorers whose value is neither number, word nor several of these."""


def read_inspect_sample(data: Any) -> InspectSample:
    """The sample in the JSON of a sample, or of its summary.

    Raises
    ------
    TableError
        It is no sample, or has no id.
    """
    if not isinstance(data, dict) or "id" not in data or "input" not in data:
        raise TableError("is no sample of inspect: expected an object with id, epoch and input")
    epoch = whole_number(data.get("epoch", 1))
    if epoch is None or epoch < 1:
        raise TableError("has an epoch that is no number from 1 on")
    output, attachments = as_mapping(data.get("output")), as_mapping(data.get("attachments"))
    choices = output.get("choices")
    choice = as_mapping(choices[0]) if isinstance(choices, list) and choices else {}
    completion = output.get("completion")
    if not isinstance(completion, str):
        completion = as_mapping(choice.get("message")).get("content")
    stop = output.get("stop_reason", choice.get("stop_reason"))
    stop = stop if isinstance(stop, str) and len(stop) <= 40 else None
    is_cut_off = stop in _CUT_OFF_REASONS or data.get("limit") not in (None, {}, "")
    scores, unreadable = _parse_scores(data.get("scores"))
    return InspectSample(
        item=name_text(data["id"], "a sample"),
        epoch=epoch,
        prompt=truncate_text(_text(data["input"], attachments)),
        choices=_resolve_texts(data.get("choices"), attachments),
        targets=_resolve_texts(data.get("target"), attachments),
        response=truncate_text(_text(completion, attachments)),
        n_tokens=whole_number(as_mapping(output.get("usage")).get("output_tokens")),
        # inspect's "stop" is an end of the model's own or a stop string.
        stop_reason="limit" if is_cut_off else "end" if stop == "stop" else stop_reason_of(stop),
        has_failed=data.get("error") not in (None, "", {}),
        scores=scores,
        unreadable_scorers=unreadable,
    )


def _resolve_texts(value: Any, attachments: Mapping[str, Any]) -> tuple[str, ...]:
    """The texts in a list, or a single text that is not empty."""
    texts = value if isinstance(value, list) else [value or None]
    return tuple(_resolve_attachment(text, attachments) for text in texts if isinstance(text, str))


def _resolve_attachment(text: str, attachments: Mapping[str, Any]) -> str:
    """The text, or what it refers to: inspect keeps long texts once, under a hash."""
    attached_text = attachments.get(text.removeprefix(_ATTACHMENT_URI)) if text.startswith(_ATTACHMENT_URI) else None
    return attached_text if isinstance(attached_text, str) else text


def _text(value: Any, attachments: Mapping[str, Any]) -> str | None:
    """A text, the texts of messages, or the text parts of one message's content."""
    if isinstance(value, str):
        return _resolve_attachment(value, attachments)
    if not isinstance(value, list):
        return None
    texts = []
    for member in value:
        message = as_mapping(member)
        content = message.get("content", message.get("text", member))
        if isinstance(content, list):
            part_texts = (as_mapping(message_part).get("text") for message_part in content)
            content = " ".join(message_part for message_part in part_texts if isinstance(message_part, str))
        if isinstance(content, str):
            role = message.get("role")
            text = _resolve_attachment(content, attachments)
            texts.append(f"{role}: {text}" if isinstance(role, str) and len(value) > 1 else text)
    return "\n\n".join(texts)


def _parse_scores(value: Any) -> tuple[dict[str, InspectScorerResult], tuple[str, ...]]:
    """Each scorer's results, and the scorers whose value cannot be read."""
    scores: dict[str, InspectScorerResult] = {}
    unreadable = []
    for name, member in as_mapping(value).items():
        score = member if isinstance(member, dict) and "value" in member else {"value": member}
        reason = score.get("reason") if isinstance(score.get("reason"), str) else None
        answer = truncate_text(score.get("answer")) if isinstance(score.get("answer"), str) else None
        is_unparsed = score["value"] == "N" or reason in _NO_ANSWER
        for metric, raw in _metric_values(name_text(name, "a scorer"), score["value"]).items():
            result = None if reason in _NO_SCORE_REASONS else _parse_score_value(raw)
            # NaN is inspect's own mark for "not scored".
            is_missing = reason in _NO_SCORE_REASONS or raw is None or (isinstance(raw, float) and raw != raw)
            if result is None and not is_missing:
                unreadable.append(metric)
            else:
                scores[metric] = InspectScorerResult(result, answer or None, is_unparsed)
    return scores, tuple(unreadable)


def _metric_values(metric: str, value: Any) -> dict[str, Any]:
    """A scorer's value under its name, or its parts under theirs."""
    if isinstance(value, dict):
        members = list(value.items())[:_MAX_SCORE_PARTS]
        return {name_text(f"{metric}.{key}", "a part of a score"): raw for key, raw in members}
    if isinstance(value, list):
        return {f"{metric}.{n}": raw for n, raw in enumerate(value[:_MAX_SCORE_PARTS])}
    return {metric: value}


def _parse_score_value(value: Any) -> float | None:
    if isinstance(value, str) and len(value) <= 60:
        word_value = _LETTERS.get(value, _SCORE_BY_WORD.get(value.strip().lower()))
        return word_value if word_value is not None else number(value)
    return number(value)
