"""One sample of an inspect log to what its rows need: the question, the answer, and each scorer's value as a number."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from capgap.errors import TableError
from capgap.importers.values import kept_text, name_text, number, whole_number

__all__ = ["InspectSample", "ScorerResult", "read_inspect_sample"]

# inspect's letters (correct, partial, incorrect, no answer) and the words that its own metrics read.
_WORDS = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}
_SPELLED = {"yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}
_MAX_PARTS = 100
_NO_ANSWER = ("invalid_response_format", "no_response")
_NO_SCORE = (
    "grader_failed",
    "scoring_failed",
)  # the instrument failed: whatever stands there says nothing of the answer
_CUT_OFF = ("max_tokens", "model_length")
_ATTACHED = "attachment://"


@dataclass(frozen=True)
class ScorerResult:
    """What one scorer said."""

    value: float | None
    """Its value; None where it is not known."""
    answer: str | None
    """The answer that the scorer read."""
    unread: bool
    """Whether the scorer found no answer."""


@dataclass(frozen=True)
class InspectSample:
    """One sample, answered once."""

    item: str
    """Its id."""
    epoch: int
    """Which repeat, counted from 1."""
    prompt: str | None
    """The question."""
    choices: tuple[str, ...]
    """The answers to choose from; empty where there are none."""
    targets: tuple[str, ...]
    """The right answers."""
    response: str | None
    """What the model wrote at last."""
    n_tokens: int | None
    """Tokens that it wrote."""
    stop_reason: str | None
    """Why it stopped."""
    cut_off: bool
    """Whether a limit ended it."""
    failed: bool
    """Whether the sample ended with an error."""
    scores: Mapping[str, ScorerResult]
    """Metric → what was said; parts of one score as ``scorer.part``."""
    unknown: tuple[str, ...]
    """Scorers whose value is neither number, word nor several of these."""


def read_inspect_sample(data: Any, *, whole: bool = True) -> InspectSample:
    """The sample in one shape.

    Parameters
    ----------
    data
        The JSON of a sample, or of its summary.
    whole
        False for a summary, whose question is shortened and therefore left out.

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
    output = _object(data.get("output"))
    attachments = _object(data.get("attachments"))
    scores, unknown = _scores(data.get("scores"))
    stop = _stop_reason(output)
    limit = data.get("limit")
    return InspectSample(
        item=name_text(data["id"], "a sample"),
        epoch=epoch,
        prompt=kept_text(_text(data["input"], attachments)) if whole else None,
        choices=tuple(_resolved(choice, attachments) for choice in _texts(data.get("choices"))),
        targets=tuple(_resolved(target, attachments) for target in _texts(data.get("target"))),
        response=kept_text(_text(_completion(output), attachments)),
        n_tokens=whole_number(_object(output.get("usage")).get("output_tokens")),
        stop_reason="length" if stop in _CUT_OFF else stop,
        cut_off=stop in _CUT_OFF or limit not in (None, {}, ""),
        failed=data.get("error") not in (None, "", {}),
        scores=scores,
        unknown=unknown,
    )


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value] if value else []
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _resolved(text: str, attachments: Mapping[str, Any]) -> str:
    """The text that a reference stands for; inspect keeps long texts once, under their hash."""
    if text.startswith(_ATTACHED):
        found = attachments.get(text.removeprefix(_ATTACHED))
        return found if isinstance(found, str) else text
    return text


def _text(value: Any, attachments: Mapping[str, Any]) -> str | None:
    """A text, the texts of messages, or the text parts of one message's content."""
    if isinstance(value, str):
        return _resolved(value, attachments)
    if not isinstance(value, list):
        return None
    parts = []
    for part in value:
        told = _object(part)
        inner = told.get("content", told.get("text", part))
        if isinstance(inner, list):
            inner = " ".join(_object(one).get("text", "") for one in inner if isinstance(_object(one).get("text"), str))
        if isinstance(inner, str):
            role = told.get("role")
            text = _resolved(inner, attachments)
            parts.append(f"{role}: {text}" if isinstance(role, str) and len(value) > 1 else text)
    return "\n\n".join(parts)


def _completion(output: dict[str, Any]) -> Any:
    if isinstance(output.get("completion"), str):
        return output["completion"]
    choices = output.get("choices")
    first = _object(choices[0]) if isinstance(choices, list) and choices else {}
    return _object(first.get("message")).get("content")


def _stop_reason(output: dict[str, Any]) -> str | None:
    choices = output.get("choices")
    first = _object(choices[0]) if isinstance(choices, list) and choices else {}
    told = output.get("stop_reason", first.get("stop_reason"))
    return told if isinstance(told, str) and len(told) <= 40 else None


def _scores(found: Any) -> tuple[dict[str, ScorerResult], tuple[str, ...]]:
    scores: dict[str, ScorerResult] = {}
    unknown = []
    for name, score in _object(found).items():
        told = score if isinstance(score, dict) and "value" in score else {"value": score}
        metric = name_text(name, "a scorer")
        parts = _parts(metric, told["value"])
        answer = kept_text(told.get("answer")) if isinstance(told.get("answer"), str) else None
        reason = told.get("reason") if isinstance(told.get("reason"), str) else None
        unread = told["value"] == "N" or reason in _NO_ANSWER
        for part, value in parts.items():
            found_value = None if reason in _NO_SCORE else _number(value)
            if found_value is None and reason not in _NO_SCORE and not _not_scored(value):
                unknown.append(part)
            else:
                scores[part] = ScorerResult(found_value, answer or None, unread)
    return scores, tuple(unknown)


def _parts(metric: str, value: Any) -> dict[str, Any]:
    """A scorer's value under its name, or its parts under theirs."""
    if isinstance(value, dict):
        named = list(value.items())[:_MAX_PARTS]
        return {name_text(f"{metric}.{key}", "a part of a score"): part for key, part in named}
    if isinstance(value, list):
        return {f"{metric}.{n}": part for n, part in enumerate(value[:_MAX_PARTS])}
    return {metric: value}


def _number(value: Any) -> float | None:
    if isinstance(value, str) and len(value) <= 60:
        spelled = _WORDS.get(value, _SPELLED.get(value.strip().lower()))
        return spelled if spelled is not None else number(value)
    return number(value)


def _not_scored(value: Any) -> bool:
    """Whether the value says that there is none; NaN is inspect's own mark for it."""
    return value is None or (isinstance(value, float) and value != value)
