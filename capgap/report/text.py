"""Foreign text made fit to show, and numbers in the words of the report."""

import hashlib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from capgap.printable_text import cut_middle

_NARROW_SPACE = "\u202f"
_MINUS_SIGN = "\u2212"
UNKNOWN_VALUE_MARK = "\u2013"
"""What stands where a number is unknown."""

# C0 controls have visible pictures. C1, lone surrogates, non-characters and the marks that override the direction of
# neighbouring text (they could make a wrong answer read like the right one) become the replacement character.
_INVISIBLE_REGEX = re.compile("[\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
_CONTROL_CHARACTERS = re.compile("[\x00-\x08\x0b-\x1f]")


def sanitise_text(text: object) -> str:
    """The text without anything invisible that could change what stands around it; line ends and tabs stay."""
    cleaned_text = str(text).replace("\r\n", "\n").replace("\r", "\n")
    cleaned_text = _CONTROL_CHARACTERS.sub(lambda match: chr(0x2400 + ord(match.group())), cleaned_text)
    return _INVISIBLE_REGEX.sub("\ufffd", cleaned_text)


def shorten(text: object, limit: int) -> str:
    """One line of at most `limit` characters, its middle left out where it is longer."""
    return cut_middle(" ".join(sanitise_text(text).split()), limit)


@dataclass(frozen=True)
class TextExcerpt:
    """A long text: what is shown at once, what unfolds, and how much is left out."""

    head: str
    """Shown at once."""
    rest: str
    """Shown on request; empty where the head is all."""
    left_out: int
    """Characters that the report does not hold."""


def excerpt(text: object, *, n_head_characters: int = 500, total: int = 2_500) -> TextExcerpt | None:
    """The text in bounds; None where there is none.

    Parameters
    ----------
    text
        Anything; None and NaN are no text.
    n_head_characters
        About this many characters are shown at once.
    total
        At most this many are kept.
    """
    if text is None or text != text:  # NaN is not itself
        return None
    full_text = str(text)
    kept_text = sanitise_text(full_text[:total])
    if len(kept_text) <= n_head_characters * 1.2:
        return TextExcerpt(kept_text, "", max(0, len(full_text) - total))
    return TextExcerpt(kept_text[:n_head_characters], kept_text[n_head_characters:], max(0, len(full_text) - total))


def digest(text: object) -> str:
    """The first 12 hexadecimal digits of the text's SHA-256; a dash where there is no text."""
    if text is None or text != text:
        return UNKNOWN_VALUE_MARK
    return hashlib.sha256(str(text).encode("utf-8", "surrogatepass")).hexdigest()[:12]


_HUNDREDTHS_FORMAT = ".1f"


def number(value: float, form: str) -> str:
    """A number as ``1,234`` or ``−0.25``; what rounds to zero has no sign."""
    formatted = format(abs(value), form)
    return f"{_MINUS_SIGN}{formatted}" if value < 0 and formatted.strip("0.,") else formatted


def percent(value: float | None) -> str:
    """0.613 as ``61.3 %``; a dash where it is unknown."""
    if value is None or math.isnan(value):
        return UNKNOWN_VALUE_MARK
    return f"{number(100 * value, _HUNDREDTHS_FORMAT)}{_NARROW_SPACE}%"


def points(value: float | None) -> str:
    """0.124 as ``+12.4``, in score points out of 100; a dash where it is unknown."""
    if value is None or math.isnan(value):
        return UNKNOWN_VALUE_MARK
    formatted = number(100 * value, _HUNDREDTHS_FORMAT)
    return formatted if formatted.startswith(_MINUS_SIGN) or float(formatted) == 0 else f"+{formatted}"


def interval(low: float | None, high: float | None, *, form: str = "") -> str:
    """The interval in hundredths, or as `form` says; an end that the data leave open is written so; else empty."""
    ends_or_none = [None if end is None or math.isnan(end) else end for end in (low, high)]
    if ends_or_none == [None, None]:
        return ""
    scale, form = (1, form) if form else (100, _HUNDREDTHS_FORMAT)
    end_texts = ("open" if end is None else number(scale * end, form) for end in ends_or_none)
    return f"[{', '.join(end_texts)}]"


def count(value: int | None) -> str:
    """3412 as ``3,412``; a dash where it is unknown."""
    return UNKNOWN_VALUE_MARK if value is None else f"{value:,}"


def p_value(value: float | None) -> str:
    """Two significant digits; nothing where there is no test."""
    if value is None or not math.isfinite(value):
        return ""
    return f"<{_NARROW_SPACE}0.0001" if value < 1e-4 else f"{value:.2g}"


def join(words: Iterable[str], *, limit: int = 8) -> str:
    """``a, b and c``; beyond the limit ``a, b and 12 more``."""
    entries = list(words)
    if len(entries) > limit:
        entries = [*entries[: limit - 1], f"{len(entries) - limit + 1} more"]
    return entries[0] if len(entries) == 1 else f"{', '.join(entries[:-1])} and {entries[-1]}" if entries else ""
