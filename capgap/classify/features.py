"""What stands in an item, as numbers and words that a reader can check: the input of the text model.

Everything is one pass over the tokens, so time grows linearly with the length of a text.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from capgap.classify.choices import Parts, parts
from capgap.classify.evidence import Question
from capgap.classify.lexicon import FUNCTION_WORDS, GIVEN_NAMES, KINDS, RECALL_VERBS, TASK_VERBS

__all__ = ["FEATURES", "Feature", "Reading", "read", "scaled", "table"]

MAX_CHARACTERS = 50_000


@dataclass(frozen=True)
class Feature:
    """One number that is read from an item."""

    name: str
    """Its name in the coefficients."""
    group: str
    """What a reader is told about: features of one group share a reason."""
    how: str
    """``count`` (its logarithm counts), ``share`` or ``yes`` (0 or 1)."""


_QUESTIONS = ("who", "which", "what", "when", "where", "why", "how many", "how", "yes or no", "no question")

FEATURES: tuple[Feature, ...] = (
    Feature("words", "length", "count"),
    Feature("sentences", "sentences", "count"),
    Feature("sentences before the question", "sentences", "count"),
    Feature("lines", "sentences", "count"),
    Feature("share of topic words", "topic", "share"),
    Feature("commas in a sentence", "sentences", "count"),
    Feature("things introduced", "things introduced", "count"),
    Feature("share of function words", "material", "share"),
    Feature("longest run without function words", "material", "count"),
    Feature("numbers", "quantities", "count"),
    Feature("any number", "quantities", "yes"),
    Feature("three numbers or more", "quantities", "yes"),
    Feature("quantities", "quantities", "count"),
    Feature("any quantity", "quantities", "yes"),
    Feature("years", "years", "count"),
    Feature("dates", "dates", "count"),
    Feature("operators", "symbols", "count"),
    Feature("share of symbols", "symbols", "share"),
    Feature("brackets", "symbols", "count"),
    Feature("depth of brackets", "symbols", "count"),
    Feature("single letters", "symbols", "count"),
    Feature("quotation marks", "quotes", "count"),
    *(Feature(kind, kind, "count") for kind in KINDS),
    Feature("instruction", "instruction", "yes"),
    Feature("instruction with material", "instruction", "yes"),
    Feature("request to recall", "instruction", "yes"),
    Feature("names", "names", "count"),
    Feature("full names", "names", "count"),
    Feature("share of names", "names", "share"),
    Feature("persons by first name", "persons", "count"),
    Feature("names said again", "repetition", "count"),
    Feature("words said again", "repetition", "share"),
    Feature("question's words said before", "repetition", "share"),
    Feature("things in several sentences", "repetition", "count"),
    Feature("yes or no to choose", "choices", "yes"),
    Feature("numbers to choose", "choices", "share"),
    Feature("choices told in the text", "choices told", "share"),
    Feature("choices made of the same words", "choices told", "share"),
    Feature("names to choose", "choices", "share"),
    *(Feature(f"asks: {question}", "question", "yes") for question in _QUESTIONS),
)

_COLUMN = {feature.name: n for n, feature in enumerate(FEATURES)}
_KIND_OF: dict[str, tuple[int, ...]] = {
    word: tuple(_COLUMN[kind] for kind, words in KINDS.items() if word in words) for word in frozenset().union(*KINDS.values())
}

_TOKEN = re.compile(r"\d{1,4}[/-]\d{1,2}[/-]\d{1,4}|[^\W\d_]+(?:['’][^\W\d_]+)*|\d+(?:[.,]\d+)*|\n+|[^\w\s]|_")
_SENTENCE_ENDS = frozenset(".?!;")
_OPERATORS = frozenset("+-*/=<>^%×÷−·≤≥≠&|")
_OPEN, _CLOSE = frozenset("([{<"), frozenset(")]}>")
_PLAIN_MARKS = frozenset(".,?!;:'\"’“”-–—()…`")
_AUXILIARIES = frozenset(
    "is are was were do does did can could will would has have had should may might must am shall".split()
)
_MONTHS = frozenset(
    """January February March April May June July August September October November December I Monday Tuesday
    Wednesday Thursday Friday Saturday Sunday True False Yes No AM PM Jan Feb Mar Apr Jun Jul Aug Sep Sept Oct Nov Dec
    Mr Mrs Ms Dr""".split()
)


@dataclass(frozen=True)
class Reading:
    """What was read from one item."""

    values: tuple[float, ...]
    """One raw number for each of `FEATURES`."""
    words: Counter[str]
    """Lower-case words of the question and how often; numbers and symbols as `<number>`, `<year>` and themselves."""


def read(question: Question) -> Reading:
    """Read one item; any text will do.

    Parameters
    ----------
    question
        The item; choices that stand inside the text behind letters are found there.
    """
    split = parts(question, MAX_CHARACTERS)
    return _Reader(split).reading()


def table(readings: Sequence[Reading]) -> NDArray[np.float64]:
    """The numbers of many items, items x features, with counts as logarithms."""
    raw = np.array([reading.values for reading in readings], dtype=float).reshape(len(readings), len(FEATURES))
    return scaled(raw)


def scaled(raw: NDArray[np.float64]) -> NDArray[np.float64]:
    """Counts as log(1 + n), shares and yes or no as they are."""
    counts = np.array([feature.how == "count" for feature in FEATURES])
    return np.where(counts, np.log1p(np.where(counts, raw, 0.0)), raw)


class _Reader:
    """One pass over the tokens of a question."""

    def __init__(self, split: Parts) -> None:
        self.split = split
        self.values = [0.0] * len(FEATURES)
        self.tokens = _TOKEN.findall(split.stem)
        self.words: Counter[str] = Counter()
        self.sentences: list[list[str]] = [[]]
        self.names: Counter[str] = Counter()

    def reading(self) -> Reading:
        self._walk()
        self._sentences()
        self._choices()
        return Reading(tuple(self.values), self.words)

    def _set(self, name: str, value: float) -> None:
        self.values[_COLUMN[name]] = value

    def _walk(self) -> None:
        """Tokens to counts; sentences and names are kept for later."""
        values, words = self.values, self.words
        n_words = n_function = n_symbols = 0
        numbers = quantities = years = operators = brackets = quotes = letters = full = 0
        depth = deepest = run = longest = lines = 0
        topic = persons = commas = most_commas = dates = 0
        given_before = False
        start, before, name_before = True, "", False
        number_column = _COLUMN["number words"]
        current = self.sentences[0]
        for token in self.tokens:
            first = token[0]
            if first.isalpha():
                word = token.lower()
                words[word] += 1
                n_words += 1
                if before == "<number>" and word not in FUNCTION_WORDS:
                    quantities += 1
                if word in FUNCTION_WORDS:
                    n_function += 1
                    run = 0
                else:
                    current.append(word)
                    run += 1
                kinds = _KIND_OF.get(word)
                if kinds:
                    for column in kinds:
                        values[column] += 1
                if len(word) == 1 and word not in "ai":
                    letters += 1
                upper = first.isupper() and len(word) > 1 and token not in _MONTHS
                given = upper and word in GIVEN_NAMES
                is_name = upper and (given or not start)
                if is_name:
                    self.names[word] += 1
                    full += name_before
                    persons += given and not name_before
                    persons -= name_before and given_before
                elif not kinds and word not in FUNCTION_WORDS:
                    topic += 1
                name_before, given_before = is_name, given and not name_before
                start = False
                before = word
                longest = max(longest, run)
                continue
            name_before = False
            if first.isdigit():
                if len(token) > 5 and ("/" in token or "-" in token):
                    dates += 1
                    before = "<date>"
                    words[before] += 1
                    current.append(token)
                    start = False
                    continue
                year = len(token) == 4 and first in "12" and "1000" <= token < "2100"
                before = "<year>" if year else "<number>"
                years += year
                numbers += not year
                words[before] += 1
                current.append(token)
                run += 1
                start = False
            elif first == "\n":
                lines += 1
                if current:
                    current = []
                    self.sentences.append(current)
                start, before = True, ""
            else:
                words[token] += 1
                if token in _OPERATORS:
                    operators += 1
                    run += 1
                if token == ",":
                    commas += 1
                    most_commas = max(most_commas, commas)
                if token in _OPEN:
                    brackets += 1
                    depth += 1
                    deepest = max(deepest, depth)
                elif token in _CLOSE:
                    brackets += 1
                    depth = max(0, depth - 1)
                if token in "\"“”'`":
                    quotes += 1
                if token not in _PLAIN_MARKS:
                    n_symbols += 1
                if token in _SENTENCE_ENDS:
                    commas = 0
                if token in _SENTENCE_ENDS and current:
                    current.append(token)
                    current = []
                    self.sentences.append(current)
                    start = True
                elif token in ":\"“(":
                    start = True
                before = token
            longest = max(longest, run)
        n_tokens = max(1, len(self.tokens))
        self._set("words", n_words)
        self._set("things introduced", words["a"] + words["an"])
        self._set("lines", lines)
        self._set("share of function words", n_function / n_tokens)
        self._set("longest run without function words", longest)
        self._set("numbers", numbers)
        self._set("any number", float(numbers > 0))
        self._set("any quantity", float(numbers + dates + values[number_column] > 0))
        self._set("dates", dates)
        self._set("share of topic words", topic / n_tokens)
        self._set("commas in a sentence", most_commas)
        self._set("persons by first name", max(0, persons))
        self._set("three numbers or more", float(numbers >= 3))
        self._set("quantities", quantities)
        self._set("years", years)
        self._set("operators", operators)
        self._set("share of symbols", n_symbols / n_tokens)
        self._set("brackets", brackets)
        self._set("depth of brackets", deepest)
        self._set("single letters", letters)
        self._set("quotation marks", quotes)
        n_names = self.names.total()
        self._set("names", n_names)
        self._set("full names", full)
        self._set("share of names", n_names / max(1, n_words))
        self._set("names said again", sum(1 for count in self.names.values() if count > 1))

    def _sentences(self) -> None:
        """What is asked, and how much of it was told before."""
        sentences = [sentence for sentence in self.sentences if sentence]
        content = [[w for w in s if w not in _SENTENCE_ENDS] for s in sentences]
        flat = [w for s in content for w in s]
        kinds = set(flat)
        self._set("sentences", len(sentences))
        self._set("sentences before the question", max(0, len(sentences) - 1))
        self._set("words said again", 1 - len(kinds) / len(flat) if flat else 0.0)
        where: Counter[str] = Counter()
        for sentence in content:
            where.update(set(sentence))
        self._set("things in several sentences", sum(1 for n in where.values() if n > 1))
        if len(content) > 1:
            before = {w for s in content[:-1] for w in s}
            last = set(content[-1])
            self._set("question's words said before", len(last & before) / max(1, len(last)))
        self._asked()

    def _asked(self) -> None:
        """Which question word the last question has, and whether a sentence begins with an instruction."""
        text = self.split.stem
        starts = {m.group(1).lower() for m in _STARTS.finditer(text)}
        told = bool(starts & TASK_VERBS)
        self._set("instruction", float(told))
        self._set("instruction with material", float(told and bool(_MATERIAL.search(text))))
        self._set("request to recall", float(bool(starts & RECALL_VERBS)))
        self._set(f"asks: {_question_word(text)}", 1.0)

    def _choices(self) -> None:
        """What there is to choose from."""
        choices = self.split.choices
        if not choices:
            return
        lowered = [choice.lower().strip(" .") for choice in choices]
        self._set("yes or no to choose", float(set(lowered) <= _VERDICTS))
        self._set("numbers to choose", sum(bool(_NUMERIC.search(c)) for c in lowered) / len(lowered))
        tokens = [[w for w in _TOKEN.findall(c) if w not in _PLAIN_MARKS] for c in lowered]
        told = 0.0
        seen: Counter[str] = Counter()
        for choice in tokens:
            content = [w for w in choice if w not in FUNCTION_WORDS and len(w) > 1] or choice
            told += sum(w in self.words for w in content) / max(1, len(content))
            seen.update(set(content))
        self._set("choices told in the text", told / len(tokens))
        shared = sum(n for n in seen.values() if n > 1)
        self._set("choices made of the same words", shared / max(1, seen.total()))
        named = sum(len(c.split()) > 1 and all(w[0].isupper() for w in c.split() if w[0].isalpha()) for c in choices)
        self._set("names to choose", named / len(choices))


_VERDICTS = frozenset("yes no true false valid invalid plausible implausible ambiguous".split())
_NUMERIC = re.compile(r"^\W*\d")
_MATERIAL = re.compile(r"[:\n=]|\d|[\"“'‘].*[\"”'’]")
_WORD = re.compile(r"[^\W\d_]+")
_STARTS = re.compile(r"(?:^|[.?!:;\n]\s*|[\"“]\s*)([^\W\d_]+)")


def _question_word(text: str) -> str:
    """The kind of the last question."""
    end = text.rfind("?")
    asked = end >= 0
    begin = max(text.rfind(mark, 0, end) for mark in ".!?\n") + 1 if asked else max(0, len(text) - 400)
    found = _WORD.findall(text[begin : end if asked else len(text)][:2000].lower())
    if asked and found and found[0] in _AUXILIARIES:
        return "yes or no"
    for n, word in enumerate(found):
        if word == "how" and n + 1 < len(found) and found[n + 1] in ("many", "much", "long", "old", "far"):
            return "how many"
        if word in ("who", "whom", "whose"):
            return "who"
        if word in _QUESTIONS and (asked or n < 3):
            return word
    if asked and any(word in _AUXILIARIES for word in found):
        return "yes or no"
    return "no question"
