"""Error types of wrong responses, by rules; the standard library alone, in time linear in the text."""

import re
import unicodedata
from collections.abc import Sequence
from fractions import Fraction

ERROR_TYPES = {
    "empty": "no letter and no digit",
    "cut_off": "cut off at the limit of tokens",
    "repeated": "the same passage over and over",
    "refusal": "declines to answer",
    "unparsed": "no answer was found in the text",
    "teacher_answer": "the wrong answer that the teacher gave",
    "near_miss": "close to the right number: off by one, within 1 %, a slip of sign, digit or power of ten",
    "right_steps_wrong_answer": "every step of the gold trace, but another answer",
    "wrong_steps_right_answer": "the right answer with less than half of the gold trace's steps",
    "other": "a wrong answer of no kind above",
}
"""The types in the order of precedence, and what they mean."""

_REFUSAL_PREFIX_CHARS = 400
"""A refusal stands at the beginning."""
_MIN_LOOP_CHARS = 80
"""A loop at the end of a text covers so many characters,"""
_MIN_LOOP_TURNS = 4
"""and goes round so often."""
_MIN_LOOP_WORDS = 80
"""A text of so many words is also repeated where few of its runs of four words are new."""
_MAX_NEW_RUNS = 0.25
"""Largest share of new runs."""
_MAX_NUMBER_CHARS = 40
"""Longer numbers are no answer of a person."""

_REFUSAL_PATTERN = re.compile(
    r"\b(?:i(?:'m| am) (?:sorry|unable|not able)|i (?:can ?not|can't|won't|will not) "
    r"(?:help|assist|answer|provide|comply|fulfil|do that|solve|continue|determine)|as an ai\b|"
    r"i (?:do not|don't) (?:know|have (?:enough|access))|(?:cannot|can't) be (?:answered|determined)|"
    r"i (?:must|have to) decline|not enough information)"
)
_MOST_STEPS = 200
"""Of a trace; what follows is not looked at."""
_CALCULATOR_MARK = re.compile(r"<<[^<>]{0,200}=([^<>=]{1,40})>>")
_STEP_DELIMITER = re.compile(r"[;\n]|[.!?](?=\s|$)")
_ANSWER_START = re.compile(r"^(?:####|(?:so |thus |therefore,? |hence )?(?:the |final |my )*answer\b)", re.IGNORECASE)
_TRUTH_VALUES = frozenset({"true", "false", "yes", "no"})
_NUMBER = re.compile(r"[-−]?\d[\d,]{0,39}(?:\.\d{1,20})?")
_NUMERIC_ANSWER_PATTERN = re.compile(r"([-−+]?)\s?[$€£]?\s?(\d[\d,]*(?:\.\d*)?|\.\d+)(?:\s?/\s?(\d+))?\s?(%?)")


def error_types(
    text: str | None,
    *,
    correct: bool,
    prediction: str | None = None,
    gold: Sequence[str] = (),
    cut_off: bool = False,
    teacher_prediction: str | None = None,
    teacher_right: bool | None = None,
    gold_steps: Sequence[str] = (),
) -> tuple[str, ...]:
    """The kinds of failure that a response shows, the first being the one to count.

    Parameters
    ----------
    text
        What the model wrote; None where it chose among given answers.
    correct
        Whether its answer was scored right.
    prediction
        The answer found in the text; None where there is none (or where a choice has no text).
    gold
        Right answers.
    cut_off
        Whether the text was cut at the limit of tokens before it was right.
    teacher_prediction, teacher_right
        The teacher's answer to the same item, and whether it was right; None where unknown.
    gold_steps
        Results of the steps of a gold trace in order, the last of them perhaps the answer; empty where there is none.

    Returns
    -------
    tuple of str
        Keys of `ERROR_TYPES` in their order; empty for a right answer, unless its steps are missing from the text.
    """
    steps = None if text is None else _get_step_recall(text, gold_steps, excluded=() if correct else gold)
    if correct:
        return ("wrong_steps_right_answer",) if steps is not None and steps < 0.5 else ()
    found_error_types = []
    empty = text is not None and not any(character.isalnum() for character in text)
    if empty:
        found_error_types.append("empty")
    if cut_off:
        found_error_types.append("cut_off")
    if text is not None and not empty:
        if is_repeated(text):
            found_error_types.append("repeated")
        if is_refusal(text):
            found_error_types.append("refusal")
        if prediction is None:
            found_error_types.append("unparsed")
    if prediction is not None:
        if teacher_prediction is not None and teacher_right is False and _same_answer(prediction, teacher_prediction):
            found_error_types.append("teacher_answer")
        if any(classify_near_miss(prediction, answer) for answer in gold):
            found_error_types.append("near_miss")
    if steps == 1.0:
        found_error_types.append("right_steps_wrong_answer")
    return tuple(found_error_types) or ("other",)


def step_results(reasoning_trace: str) -> tuple[str, ...]:
    """What each step of a trace arrives at, in order.

    Parameters
    ----------
    reasoning_trace
        Steps that end with a line, a semicolon or a sentence. A result is what stands behind the last equals
        sign, a truth value or word that ends it, its last number where it has any; GSM8K's ``<<48/2=24>>`` marks go
        before all that. The sentence that announces the answer is no step.
    """
    calculator_results = _CALCULATOR_MARK.findall(reasoning_trace)
    if calculator_results:
        return tuple(result.strip() for result in calculator_results[:_MOST_STEPS])
    results: list[str] = []
    for step in _STEP_DELIMITER.split(reasoning_trace):
        if len(results) == _MOST_STEPS:
            break
        if not any(character.isalnum() for character in step) or _ANSWER_START.match(step.strip()):
            continue
        results.append(_extract_step_result(step))
    return tuple(result for result in results if result)


def _extract_step_result(step: str) -> str:
    _, sign, tail = step.rpartition("=")
    last_word = _normalise_answer(tail.split()[-1]) if tail.split() else ""
    numbers = _NUMBER.findall(tail)
    if sign and not numbers:
        return _normalise_answer(tail)
    return numbers[-1] if numbers and last_word not in _TRUTH_VALUES else last_word


def has_reasoning_steps(text: str, gold_steps: Sequence[str]) -> bool:
    """Whether a response goes through steps at all: more than one, and more than half as many as the gold trace."""
    return len(step_results(text)) > max(1.0, len(gold_steps) / 2)


def is_refusal(text: str) -> bool:
    """Whether a text begins by declining to answer, in English."""
    text_start = text.lstrip()[:_REFUSAL_PREFIX_CHARS].casefold().replace("’", "'")
    return _REFUSAL_PATTERN.search(text_start) is not None


def is_repeated(text: str) -> bool:
    """Whether a text ends in a loop, or says little that is new.

    Notes
    -----
    The loop: the end of the text has a period p that covers at least four turns and 80 characters, found by the
    Z-function of the reversed text (Gusfield 1997), which is linear. The rest: among 80 words or more, less than a
    quarter of the runs of four are new.
    """
    body = text.strip()
    spans = _compute_z_array(body[::-1])
    if any(p + span >= max(_MIN_LOOP_TURNS * p, _MIN_LOOP_CHARS) for p, span in enumerate(spans) if p):
        return True
    words = body.split()
    if len(words) < _MIN_LOOP_WORDS:
        return False
    runs = list(zip(words, words[1:], words[2:], words[3:], strict=False))
    return len(set(runs)) < _MAX_NEW_RUNS * len(runs)


def classify_near_miss(prediction: str, gold: str) -> str:
    """How a number narrowly misses another; empty where it does not, or where either is no number.

    Returns
    -------
    str
        ``sign``, ``off by one``, ``power of ten``, ``digit`` (one digit differs) or ``within 1 %``.
    """
    predicted, target = _parse_number(prediction), _parse_number(gold)
    if predicted is None or target is None or predicted == target:
        return ""
    if predicted == -target:
        return "sign"
    if abs(predicted - target) == 1 and abs(target) >= 2:
        return "off by one"
    if predicted and target and any(predicted * ten == target or target * ten == predicted for ten in (10, 100, 1000)):
        return "power of ten"
    digits, gold_digits = (re.sub(r"[^\d.]", "", number) for number in (prediction, gold))
    if len(digits) == len(gold_digits) > 1 and sum(a != b for a, b in zip(digits, gold_digits, strict=True)) == 1:
        return "digit"
    return "within 1 %" if target and abs(predicted - target) <= abs(target) / 100 else ""


def _compute_z_array(text: str) -> list[int]:
    """The Z-function: how many characters from each position on equal the text's beginning."""
    # [left, end) is the furthest-reaching stretch known to equal the beginning: inside it a value is known already.
    n = len(text)
    z = [0] * n
    window_start = end = 0
    for i in range(1, n):
        k = min(end - i, z[i - window_start]) if i < end else 0
        while i + k < n and text[k] == text[i + k]:
            k += 1
        z[i] = k
        if i + k > end:
            window_start, end = i, i + k
    return z


def _parse_number(text: str) -> Fraction | None:
    """A text that is one number (thousands' commas, a currency, a fraction, a percent sign), else None."""
    if len(text) > _MAX_NUMBER_CHARS:
        return None
    match = _NUMERIC_ANSWER_PATTERN.fullmatch(text.strip().rstrip(".").strip())
    if match is None:
        return None
    sign, digits, denominator, percent = match.groups()
    value = Fraction(digits.replace(",", "").rstrip(".") or "0")
    if denominator:
        if not int(denominator):
            return None
        value /= int(denominator)
    return (-value if sign in ("-", "−") else value) / (100 if percent else 1)


def _same_answer(answer: str, other: str) -> bool:
    """Whether two answers are the same but for case, width, blanks and punctuation at the ends."""
    number, other_number = (_parse_number(text) for text in (answer, other))
    if number is not None and other_number is not None:
        return number == other_number
    return _normalise_answer(answer) == _normalise_answer(other)


def _normalise_answer(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).strip(" .,;:!?\"'()[]")


def _get_step_recall(text: str, steps: Sequence[str], *, excluded: Sequence[str]) -> float | None:
    """Share of the steps' results that stand in the text in order; None where no step is left to look for."""
    steps_to_find = [step for step in steps if not any(_same_answer(step, answer) for answer in excluded)]
    if not steps_to_find:
        return None
    normalised_text = unicodedata.normalize("NFKC", text).casefold()
    numbers = [(match.end(), _parse_number(match.group())) for match in _NUMBER.finditer(normalised_text)]
    # `place` is where the last step that occurs ends in the text, `seen` how many numbers were passed by then.
    start = n_present = seen = 0
    for step in steps_to_find:
        value = _parse_number(step)
        if value is None:
            index = normalised_text.find(_normalise_answer(step), start)
            end = index + len(step) if index >= 0 else -1
        else:
            index = next((i for i in range(seen, len(numbers)) if numbers[i][1] == value and numbers[i][0] > start), -1)
            end = numbers[index][0] if index >= 0 else -1
            seen = index + 1 if index >= 0 else seen
        if end >= 0:
            start, n_present = end, n_present + 1
    return n_present / len(steps_to_find)
