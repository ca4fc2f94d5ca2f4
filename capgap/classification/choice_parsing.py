"""Parsing of a question into its stem and its choices, wherever the choices stand."""

import re
from dataclasses import dataclass

from capgap.classification.evidence import ItemText


@dataclass(frozen=True)
class QuestionParts:
    """A question without what is wrapped around it."""

    stem: str
    """What is asked, without choices and without ``Question:`` and ``Answer:``."""
    choices: tuple[str, ...]
    """The answers to choose from."""


_HEADER = re.compile(r"\b(?:answer choices|choices|options)\s*:\s*", re.IGNORECASE)
_LABELLED = re.compile(r"(?:^|\n)[ \t]*(?:\(?([A-Za-z]|\d{1,2})[.)]|[-*•])[ \t]+([^\n]*)")
_INLINE = re.compile(r"\(([A-Z])\)\s+")
_BARE_LABEL = re.compile(r"\s*\(?(?:[A-Za-z]|\d)[.)]?\s*")
_OPENING = re.compile(r"\s*(?:question|q|passage|context|problem)\s*:\s*", re.IGNORECASE)
_CLOSING = re.compile(r"\s*\b(?:answer|a)\s*:\s*\Z", re.IGNORECASE)
_INNER = re.compile(r"\n[ \t]*(?:question|q)\s*:\s*", re.IGNORECASE)


def split_question(question: ItemText, limit: int) -> QuestionParts:
    """The stem of a question and its choices: those given, else those that stand in the text behind letters.

    Parameters
    ----------
    question
        The item.
    limit
        Characters that are looked at: of a longer text, its first three quarters and its last quarter of so many.
    """
    text = question.text
    if len(text) > limit:
        text = text[: limit * 3 // 4] + "\n" + text[-(limit // 4) :]
    text = _OPENING.sub("", text, count=1) if _OPENING.match(text) else text
    text = _INNER.sub("\n", text)
    tail = _CLOSING.search(text[-60:])
    if tail:
        text = text[: len(text) - (len(text[-60:]) - tail.start())]
    given = tuple(choice[:2000] for choice in question.choices[:50] if choice.strip())
    if given and not all(_BARE_LABEL.fullmatch(choice) and len(choice.strip()) <= 3 for choice in given):
        return QuestionParts(text.strip(), given)
    stem, in_text = _split(text)
    return QuestionParts(stem.strip(), in_text or given)


def _split(text: str) -> tuple[str, tuple[str, ...]]:
    """Stem and choices of a text that ends with them: behind a heading, or as lines that begin with A, B, C."""
    headers = list(_HEADER.finditer(text))
    if headers:
        header = headers[-1]
        choices = _listed("\n" + text[header.end() :])
        if len(choices) > 1:
            return text[: header.start()], choices
    first = re.search(r"\n[ \t]*\(?A[.)][ \t]", text)
    if first:
        choices = _listed(text[first.start() :])
        if len(choices) > 1:
            return text[: first.start()], choices
    return text, ()


def _listed(block: str) -> tuple[str, ...]:
    """What stands behind letters, numbers or dashes; up to fifty."""
    lines = [match.group(2).strip() for match in _LABELLED.finditer(block)]
    if len(lines) < 2:
        pieces = _INLINE.split(block)  # alternates text and the letter that follows it
        lines = [piece.strip() for piece in pieces[2::2]]
    return tuple(line[:2000] for line in lines[:50] if line)
