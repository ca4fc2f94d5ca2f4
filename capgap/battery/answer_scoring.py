"""Scores of generated answers (``exact``, ``numeric``, ``contains``) and the predictions read from them."""

import re
import unicodedata
from collections.abc import Callable, Sequence
from decimal import Decimal
from fractions import Fraction

from capgap.battery.extraction import extract_answer
from capgap.errors import BatteryError, suggestion

__all__ = ["TEXT_SCORERS", "extract_answer", "numbers", "score_generation"]

MAX_RESPONSE_CHARACTERS = 100_000

# A sign counts only where nothing stands before it that it could join: 5-3 has the numbers 5 and 3.
_NUMBER = re.compile(
    r"(?<![\w.])(?P<sign>[-−+]?)(?:[$€£]\s?)?(?P<sign2>[-−]?)"
    r"(?P<whole>[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]{1,60})?"
    r"(?P<part>\.[0-9]{1,60})?(?P<power>[eE][-+]?[0-9]{1,3})?(?:/(?P<under>[0-9]{1,60}))?"
)


def score_generation(
    kind: str, response: str, targets: Sequence[str], extract: str | None = None
) -> tuple[float, str | None]:
    """The score of a generated answer in [0, 1], and the answer that was read from it.

    Parameters
    ----------
    kind
        ``exact``: equal to a target, whatever the case, the white space around and inside, surrounding quotes and a
        final ``. , ; : !``. ``numeric``: the number equals a target's number; read is the last number of the
        response, or the first of what `extract` found; ``$1,234.0`` is 1234 and ``1/2`` is 0.5. ``contains``: a
        target occurs as whole words, whatever the case.
    response
        What the model said.
    targets
        Texts of which any counts.
    extract
        Regular expression: its last match is scored (the first group that matched, else all of it).

    Returns
    -------
    tuple
        Score, and prediction; the prediction is None where the response is *unparsed*: empty, without a number for
        ``numeric``, without a match of `extract` in its last 20,000 characters. The score is then 0.

    Raises
    ------
    BatteryError
        `kind` is none of the three, or `extract` is no expression that comes to an end.
    """
    if kind not in TEXT_SCORERS:
        raise BatteryError(f"unknown score {kind!r} for generated answers.{suggestion(kind, TEXT_SCORERS)}")
    text = response[-MAX_RESPONSE_CHARACTERS:]
    answer = extract_answer(text, extract) if extract else text.strip()
    if not answer:
        return 0.0, None
    return TEXT_SCORERS[kind](answer, targets, bool(extract))


def numbers(text: str) -> list[Fraction]:
    """The numbers in a text, in order, exactly."""
    return [value for value in map(_match_to_fraction, _NUMBER.finditer(text)) if value is not None]


def _match_to_fraction(match: re.Match[str]) -> Fraction | None:
    integer_part, decimal_digits = match["whole"], match["part"]
    if integer_part is None and decimal_digits is None:
        return None
    value = Fraction(Decimal((integer_part or "0").replace(",", "") + (decimal_digits or "") + (match["power"] or "")))
    if match["under"] and int(match["under"]):
        value /= int(match["under"])
    return -value if (match["sign"] + match["sign2"]).strip("+") else value


def _format_fraction(value: Fraction) -> str:
    """The shortest usual spelling: 1234, 0.5, 1/3."""
    if value.denominator == 1:
        return str(value.numerator)
    remaining_denominator = value.denominator
    for prime_factor in (2, 5):
        while remaining_denominator % prime_factor == 0:
            remaining_denominator //= prime_factor
    if remaining_denominator == 1 and value.denominator < 10**30:
        return format((Decimal(value.numerator) / Decimal(value.denominator)).normalize(), "f")
    return f"{value.numerator}/{value.denominator}"


def _score_number(answer: str, targets: Sequence[str], was_extracted: bool) -> tuple[float, str | None]:
    values = numbers(answer)
    if not values:
        return 0.0, None
    value = values[0] if was_extracted else values[-1]
    target_values = {number for target in targets for number in numbers(target)[-1:]}
    return float(value in target_values), _format_fraction(value)


_STRIPPED_CHARACTERS = " \t\n\r\"'`“”‘’«»*"


def _normalise_text(text: str) -> str:
    """Text as ``exact`` compares it; a text of nothing but punctuation stays what it is."""
    casefolded_text = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    stripped_text = casefolded_text.strip(_STRIPPED_CHARACTERS).rstrip(".,;:!").strip(_STRIPPED_CHARACTERS)
    return stripped_text or casefolded_text


def _score_exact_match(answer: str, targets: Sequence[str], was_extracted: bool) -> tuple[float, str | None]:
    normalised_answer = _normalise_text(answer)
    return float(any(normalised_answer == _normalise_text(target) for target in targets)), answer


def _score_words(answer: str, targets: Sequence[str], was_extracted: bool) -> tuple[float, str | None]:
    normalised_answer = _normalise_text(answer)
    for target in targets:
        normalised_target = _normalise_text(target)
        if normalised_target and re.search(rf"(?<!\w){re.escape(normalised_target)}(?!\w)", normalised_answer):
            return 1.0, target
    return 0.0, answer


_Scorer = Callable[[str, Sequence[str], bool], tuple[float, str | None]]
"""Answer, targets, and whether it was extracted → score, and prediction (None: unparsed)."""
TEXT_SCORERS: dict[str, _Scorer] = {"exact": _score_exact_match, "numeric": _score_number, "contains": _score_words}
