"""Parsing of a question into its stem and its choices, wherever the choices stand."""

import re
from dataclasses import dataclass

from capgap.classification.evidence import ItemText


@dataclass(frozen=True)
class StemAndChoices:
    """A question without what is wrapped around it."""

    stem: str
    """What is asked, without choices and without ``Question:`` and ``Answer:``."""
    choices: tuple[str, ...]
    """The answers to choose from."""


_CHOICES_HEADING = re.compile(r"\b(?:answer choices|choices|options)\s*:\s*", re.IGNORECASE)
_CHOICE_LINE_REGEX = re.compile(r"(?:^|\n)[ \t]*(?:\(?([A-Za-z]|\d{1,2})[.)]|[-*•])[ \t]+([^\n]*)")
_INLINE_CHOICE_LABEL = re.compile(r"\(([A-Z])\)\s+")
_LABEL_ONLY = re.compile(r"\s*\(?(?:[A-Za-z]|\d)[.)]?\s*")
_QUESTION_PREFIX = re.compile(r"\s*(?:question|q|passage|context|problem)\s*:\s*", re.IGNORECASE)
_ANSWER_CUE = re.compile(r"\s*\b(?:answer|a)\s*:\s*\Z", re.IGNORECASE)
_INNER_QUESTION_PREFIX = re.compile(r"\n[ \t]*(?:question|q)\s*:\s*", re.IGNORECASE)


def split_off_choices(question: ItemText, limit: int) -> StemAndChoices:
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
    text = _QUESTION_PREFIX.sub("", text, count=1) if _QUESTION_PREFIX.match(text) else text
    text = _INNER_QUESTION_PREFIX.sub("\n", text)
    tail = _ANSWER_CUE.search(text[-60:])
    if tail:
        text = text[: len(text) - (len(text[-60:]) - tail.start())]
    item_choices = tuple(choice[:2000] for choice in question.choices[:50] if choice.strip())
    if item_choices and not all(_LABEL_ONLY.fullmatch(choice) and len(choice.strip()) <= 3 for choice in item_choices):
        return StemAndChoices(text.strip(), item_choices)
    stem, choices_in_text = _split_text_choices(text)
    return StemAndChoices(stem.strip(), choices_in_text or item_choices)


def _split_text_choices(text: str) -> tuple[str, tuple[str, ...]]:
    """Stem and choices of a text that ends with them: behind a heading, or as lines that begin with A, B, C."""
    headers = list(_CHOICES_HEADING.finditer(text))
    if headers:
        header = headers[-1]
        choices = _parse_labelled_choices("\n" + text[header.end() :])
        if len(choices) > 1:
            return text[: header.start()], choices
    first_label = re.search(r"\n[ \t]*\(?A[.)][ \t]", text)
    if first_label:
        choices = _parse_labelled_choices(text[first_label.start() :])
        if len(choices) > 1:
            return text[: first_label.start()], choices
    return text, ()


def _parse_labelled_choices(block: str) -> tuple[str, ...]:
    """What stands behind letters, numbers or dashes; up to fifty."""
    lines = [match.group(2).strip() for match in _CHOICE_LINE_REGEX.finditer(block)]
    if len(lines) < 2:
        pieces = _INLINE_CHOICE_LABEL.split(block)  # alternates text and the letter that follows it
        lines = [choice.strip() for choice in pieces[2::2]]
    return tuple(line[:2000] for line in lines[:50] if line)
