"""Foreign text made fit to show, and numbers in the words of the report."""

import hashlib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from capgap.printable_text import shortened

__all__ = [
    "NOTHING",
    "Excerpt",
    "clean",
    "count",
    "digest",
    "excerpt",
    "interval",
    "join",
    "p_value",
    "percent",
    "points",
    "shorten",
]

_NARROW = "\u202f"
_MINUS = "\u2212"
NOTHING = "\u2013"
"""What stands where a number is unknown."""

# C0 controls have visible pictures. C1, lone surrogates, non-characters and the marks that override the direction of
# neighbouring text (they could make a wrong answer read like the right one) become the replacement character.
_HIDDEN = re.compile("[\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f]")


def clean(text: object) -> str:
    """The text without anything invisible that could change what stands around it; line ends and tabs stay."""
    shown = str(text).replace("\r\n", "\n").replace("\r", "\n")
    shown = _CONTROL.sub(lambda found: chr(0x2400 + ord(found.group())), shown)
    return _HIDDEN.sub("\ufffd", shown)


def shorten(text: object, limit: int) -> str:
    """One line of at most `limit` characters, its middle left out where it is longer."""
    return shortened(" ".join(clean(text).split()), limit)


@dataclass(frozen=True)
class Excerpt:
    """A long text: what is shown at once, what unfolds, and how much is left out."""

    head: str
    """Shown at once."""
    rest: str
    """Shown on request; empty where the head is all."""
    left_out: int
    """Characters that the report does not hold."""


def excerpt(text: object, *, head: int = 500, total: int = 2_500) -> Excerpt | None:
    """The text in bounds; None where there is none.

    Parameters
    ----------
    text
        Anything; None and NaN are no text.
    head
        About this many characters are shown at once.
    total
        At most this many are kept.
    """
    if text is None or text != text:  # NaN is not itself
        return None
    whole = str(text)
    shown = clean(whole[:total])
    if len(shown) <= head * 1.2:
        return Excerpt(shown, "", max(0, len(whole) - total))
    return Excerpt(shown[:head], shown[head:], max(0, len(whole) - total))


def digest(text: object) -> str:
    """The first 12 hexadecimal digits of the text's SHA-256; a dash where there is no text."""
    if text is None or text != text:
        return NOTHING
    return hashlib.sha256(str(text).encode("utf-8", "surrogatepass")).hexdigest()[:12]


_HUNDREDTHS = ".1f"


def number(value: float, form: str) -> str:
    """A number as ``1,234`` or ``−0.25``; what rounds to zero has no sign."""
    shown = format(abs(value), form)
    return f"{_MINUS}{shown}" if value < 0 and shown.strip("0.,") else shown


def percent(value: float | None) -> str:
    """0.613 as ``61.3 %``; a dash where it is unknown."""
    if value is None or math.isnan(value):
        return NOTHING
    return f"{number(100 * value, _HUNDREDTHS)}{_NARROW}%"


def points(value: float | None) -> str:
    """0.124 as ``+12.4``, in score points out of 100; a dash where it is unknown."""
    if value is None or math.isnan(value):
        return NOTHING
    shown = number(100 * value, _HUNDREDTHS)
    return shown if shown.startswith(_MINUS) or float(shown) == 0 else f"+{shown}"


def interval(low: float | None, high: float | None, *, form: str = "") -> str:
    """The interval in hundredths, or as `form` says; an end that the data leave open is written so; else empty."""
    known = [None if end is None or math.isnan(end) else end for end in (low, high)]
    if known == [None, None]:
        return ""
    scale, form = (1, form) if form else (100, _HUNDREDTHS)
    ends = ("open" if end is None else number(scale * end, form) for end in known)
    return f"[{', '.join(ends)}]"


def count(value: int | None) -> str:
    """3412 as ``3,412``; a dash where it is unknown."""
    return NOTHING if value is None else f"{value:,}"


def p_value(value: float | None) -> str:
    """Two significant digits; nothing where there is no test."""
    if value is None or not math.isfinite(value):
        return ""
    return f"<{_NARROW}0.0001" if value < 1e-4 else f"{value:.2g}"


def join(words: Iterable[str], *, limit: int = 8) -> str:
    """``a, b and c``; beyond the limit ``a, b and 12 more``."""
    every = list(words)
    if len(every) > limit:
        every = [*every[: limit - 1], f"{len(every) - limit + 1} more"]
    return every[0] if len(every) == 1 else f"{', '.join(every[:-1])} and {every[-1]}" if every else ""
