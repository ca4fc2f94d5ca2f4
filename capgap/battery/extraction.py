"""Answer extraction: regular expressions of battery files on models' responses, in bounded time and memory.

An expression is written as for Python's ``re``. It is matched by the package `regex`, which understands the same
words and can be stopped: an expression such as ``(a|aa)+$`` needs longer than the universe has for some answers of a
hundred characters. What explodes on short texts made of the expression's own letters is refused when the battery is
read. What takes long only on some answer reads nothing from that answer (it is unparsed, which is counted and
reported); on the third such answer the expression is refused.
"""

import math
import re
import time
import warnings
from collections import OrderedDict
from functools import lru_cache
from typing import Any

import regex

from capgap.errors import BatteryError

__all__ = ["syntax_complaint", "backtracking_complaint", "extract_answer"]

MATCH_TIMEOUT = 5.0
"""Processor time for one answer; an ordinary expression takes some thousandth of it."""
MAX_SEARCHED_CHARACTERS = 20_000
"""Only the end of a longer answer is searched, so that quadratic expressions stay below the limit."""
MAX_UNROLLED_COPIES = 10_000
"""A counted repeat is unrolled by the matcher: ``((a{1000}){1000}){1000}`` would fill any memory."""
_REGEX_MESSAGE = "expected a regular expression, found {!r}"
_PROBE_SECONDS = 0.5
_PROBE_LENGTH = 100
_MAX_HANGS = 3

# In re these are plain braces, in regex they allow errors: ``cat{e<=1}``.
_FUZZY_BRACES_REGEX = re.compile(r"(?<!\\)\{[^{}()\[\]\\]*[idse][^{}()\[\]\\]*\}")
_GROUP_REPEAT_REGEX = re.compile(r"(?<!\\)\)\{(\d*)(?:,(\d*))?\}")
_REPEAT_REGEX = re.compile(r"(?<!\\)\{(\d*)(?:,(\d*))?\}")


@lru_cache(maxsize=512)
def syntax_complaint(extract: str) -> str | None:
    """Why an expression is no valid pattern, as the end of a message; None where it is one."""
    expected = _REGEX_MESSAGE.format(extract)
    try:
        # re decides what may be written; some remarks about sets are meant for the programmers of expressions.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            re.compile(extract)
            if _FUZZY_BRACES_REGEX.search(extract):
                return f"{expected}: write \\{{ for a brace that is meant as such."
            if _unrolled_copies(extract) > MAX_UNROLLED_COPIES:
                return f"{expected}: it repeats something more than {MAX_UNROLLED_COPIES:,} times."
            regex.compile(extract)
    except (re.error, regex.error, OverflowError, RecursionError, MemoryError) as error:
        return f"{expected}: {error or type(error).__name__}."
    return None


@lru_cache(maxsize=512)
def backtracking_complaint(extract: str) -> str | None:
    """Why a valid expression is refused for catastrophic backtracking, as the end of a message; None where it is not.

    Half a second for one that explodes, a thousandth for the others; so it is no part of `complaint`, which is asked
    about every expression of a file before any is refused.
    """
    probe = _find_backtracking_text(regex.compile(extract), extract)
    if probe is None:
        return None
    return (
        f"{_REGEX_MESSAGE.format(extract)}: it does not come to an end on the {len(probe)} characters {probe[:12]!r}…, "
        f"since it can divide them in countless ways. Let the parts of a repeat begin differently: 'a+' for '(a|aa)+'."
    )


def extract_answer(response: str, extract: str) -> str | None:
    """The answer in a response: the first group (else all) of the last match, stripped; None where nothing matches.

    That text is searched again, so that ``answer is (.*)`` finds the last answer of a line that gives several.

    Raises
    ------
    BatteryError
        This is no expression, or it took too long on several answers.
    """
    return _compile_expression(extract).read(response[-MAX_SEARCHED_CHARACTERS:])


class _Expression:
    """A compiled expression, and the answers on which it ran out of time: the third of them is an error."""

    def __init__(self, extract: str) -> None:
        complaint = syntax_complaint(extract) or backtracking_complaint(extract)
        if complaint is not None:
            raise BatteryError(f"key 'extract': {complaint}")
        self.extract = extract
        self.pattern: Any = regex.compile(extract)
        self.slow: OrderedDict[str, None] = OrderedDict()

    def read(self, text: str) -> str | None:
        if text in self.slow:
            return None
        end = time.process_time() + MATCH_TIMEOUT
        try:
            answer = self._extract_last_match(text, end)
            while answer:
                narrower_answer = self._extract_last_match(answer, end)
                if narrower_answer is None or narrower_answer == answer:
                    break
                answer = narrower_answer
            return answer
        except TimeoutError:
            self.slow[text] = None
            if len(self.slow) < _MAX_HANGS:
                return None
            del self.slow[text]  # asked again, it fails again
            raise BatteryError(
                f"key 'extract': {self.extract!r} was stopped after {MATCH_TIMEOUT:g} seconds on {_MAX_HANGS} answers, "
                f"the last of {len(text):,} characters that begin {text[:40]!r}. Say more exactly what stands around "
                f"the answer, and let the parts of a repeat begin differently."
            ) from None

    def _extract_last_match(self, text: str, end: float) -> str | None:
        last_match = None
        # The limit of regex counts from the first match on; it is processor time, which other programs do not shorten.
        for match in self.pattern.finditer(text, timeout=max(end - time.process_time(), 1e-3)):
            last_match = match
        if last_match is None:
            return None
        matched_groups = [group for group in last_match.groups() if group is not None]
        return str(matched_groups[0] if matched_groups else last_match.group(0)).strip()


_compile_expression = lru_cache(maxsize=256)(_Expression)


def _unrolled_copies(extract: str) -> int:
    """Upper bound of the copies of a pattern's innermost part: counted groups may stand in each other."""

    def counts(pattern: re.Pattern[str]) -> list[int]:
        return [int((high or low or "0")[:9]) for low, high in pattern.findall(extract)]

    return math.prod(max(count, 1) for count in counts(_GROUP_REPEAT_REGEX)) * max(counts(_REPEAT_REGEX), default=1)


def _find_backtracking_text(pattern: Any, extract: str) -> str | None:
    """A short text on which the expression does not come to an end, if one of a few dozen is such a text."""
    plain_text = re.sub(r"\\[AbBZ]|\\(.)|[][(){}*+?|^$.]", lambda m: m.group(1) or "", extract)
    letters = list(dict.fromkeys("a1 " + "".join(c for c in extract if not c.isascii() or c.isalnum())))[:12]
    units_to_repeat = [*letters, *(f"{letter} " for letter in letters[:4]), "a1", "ab"]
    affixes = dict.fromkeys((("", ""), (plain_text[: _PROBE_LENGTH // 2], ""), ("", plain_text[-_PROBE_LENGTH // 2 :])))
    for prefix, suffix in affixes:
        for repeated_unit in units_to_repeat:
            probe = f"{prefix}{repeated_unit * (_PROBE_LENGTH // len(repeated_unit))}{suffix}\x00"
            try:
                for _ in pattern.finditer(probe, timeout=_PROBE_SECONDS):
                    pass
            except TimeoutError:
                return probe
    return None
