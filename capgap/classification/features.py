"""What stands in an item, as numbers and words that a reader can check: the input of the text model.

Everything is one pass over the tokens, so time grows linearly with the length of a text.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from capgap.classification.choice_parsing import QuestionParts, split_question
from capgap.classification.evidence import ItemText
from capgap.classification.lexicon import (
    AUXILIARIES,
    FUNCTION_WORDS,
    GIVEN_NAMES,
    KINDS,
    MONTHS,
    NO_NAMES,
    PRONOUNS,
    RECALL_VERBS,
    TASK_VERBS,
    VERDICTS,
)

__all__ = ["FEATURES", "Feature", "ItemFeatures", "item_features", "scaled", "table"]

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
    Feature("sentences before the question", "sentences", "count"),
    Feature("lines", "sentences", "count"),
    Feature("share of topic words", "topic", "share"),
    Feature("commas in a sentence", "sentences", "count"),
    Feature("material", "material", "count"),
    Feature("numbers", "quantities", "count"),
    Feature("two numbers or more", "quantities", "yes"),
    Feature("numbers of something", "quantities", "count"),
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
    Feature("pronouns in the question", "repetition", "count"),
    Feature("new words in the question", "new words", "count"),
    Feature("yes or no to choose", "choices", "yes"),
    Feature("numbers to choose", "choices", "share"),
    Feature("choices told in the text", "choices told", "share"),
    Feature("choices made of the same words", "choices told", "share"),
    Feature("names to choose", "choices", "share"),
    Feature("share of the item in its choices", "choices", "share"),
    *(Feature(f"asks: {question}", "question", "yes") for question in _QUESTIONS),
)

_COLUMN = {feature.name: n for n, feature in enumerate(FEATURES)}
_KIND_OF: dict[str, tuple[int, ...]] = {
    word: tuple(_COLUMN[kind] for kind, words in KINDS.items() if word in words)
    for word in frozenset().union(*KINDS.values())
}

_TOKEN = re.compile(r"\d{1,4}[/-]\d{1,2}[/-]\d{1,4}|[^\W\d_]+(?:['’][^\W\d_]+)*|\d+(?:[.,]\d+)*|\n+|[^\w\s]|_")
_SENTENCE_ENDS = frozenset(".?!;")
_OPERATORS = frozenset("+-*/=<>^%×÷−·≤≥≠&|")
_OPEN, _BRACKETS = frozenset("([{<"), frozenset("()[]{}<>")
_QUOTES = frozenset("\"“”'`")
_PLAIN_MARKS = frozenset(".,?!;:'\"’“”-–—()…`")
MATERIAL = 6  # words in a row without a function word that are no sentence any more

_QUANTITIES, _LETTERS, _FULL, _RUN = (
    _COLUMN[name] for name in ("numbers of something", "single letters", "full names", "material")
)
_YEARS, _DATES, _LINES = (_COLUMN[name] for name in ("years", "dates", "lines"))
_COMMAS, _OPERATOR, _QUOTE = (_COLUMN[name] for name in ("commas in a sentence", "operators", "quotation marks"))
_BRACKET, _DEPTH = (_COLUMN[name] for name in ("brackets", "depth of brackets"))


@dataclass(frozen=True)
class ItemFeatures:
    """What was read from one item."""

    values: tuple[float, ...]
    """One raw number for each of `FEATURES`."""
    words: Counter[str]
    """Lower-case words of the question and how often; numbers and symbols as `<number>`, `<year>` and themselves."""


def item_features(question: ItemText) -> ItemFeatures:
    """Read one item; any text will do.

    Parameters
    ----------
    question
        The item; choices that stand inside the text behind letters are found there.
    """
    split = split_question(question, MAX_CHARACTERS)
    return _FeatureReader(split).reading()


def table(readings: Sequence[ItemFeatures]) -> NDArray[np.float64]:
    """The numbers of many items, items x features, with counts as logarithms."""
    raw = np.array([reading.values for reading in readings], dtype=float).reshape(len(readings), len(FEATURES))
    return scaled(raw)


def scaled(raw: NDArray[np.float64]) -> NDArray[np.float64]:
    """Counts as log(1 + n), shares and yes or no as they are."""
    counts = np.array([feature.how == "count" for feature in FEATURES])
    return np.where(counts, np.log1p(np.where(counts, raw, 0.0)), raw)


def _stem(word: str) -> str:
    """One form for singular and plural, good enough to see that a thing is named again."""
    return word[:-1] if word.endswith("s") and len(word) > 3 else word


class _FeatureReader:
    """One pass over the tokens of a question."""

    def __init__(self, split: QuestionParts) -> None:
        self.split = split
        self.values = [0.0] * len(FEATURES)
        self.words: Counter[str] = Counter()
        self.names: Counter[str] = Counter()
        self.sentences: list[list[str]] = [[]]
        self.topics: list[set[str]] = [set()]
        self.n_words = self.n_topic = self.n_symbols = self.n_figures = 0
        self.depth = self.commas = self.persons = self.pronouns = 0
        self.since_month = 9
        # Words since the last function word: a long run of them is material (a list, an expression), not a sentence.
        self.told_pronouns = 0
        self.run = 0
        self.pending: list[tuple[str, tuple[int, ...] | None]] = []
        self.start = True
        self.before = ""
        self.name_before = self.given_before = False

    def reading(self) -> ItemFeatures:
        tokens = _TOKEN.findall(self.split.stem)
        for token in tokens:
            first = token[0]
            if first.isalpha():
                self._word(token, first)
            elif first.isdigit():
                self._number(token, first)
            else:
                self._sign(token, first)
        self._close_run()
        self._totals(max(1, len(tokens)))
        self._sentences()
        self._choices(len(tokens))
        return ItemFeatures(tuple(self.values), self.words)

    def _set(self, name: str, value: float) -> None:
        self.values[_COLUMN[name]] = value

    def _word(self, token: str, first: str) -> None:
        word = token.lower()
        self.words[word] += 1
        self.n_words += 1
        if self.before == "<number>" and word not in FUNCTION_WORDS:
            self.values[_QUANTITIES] += 1
        kinds = _KIND_OF.get(word)
        if word in FUNCTION_WORDS:
            self.pronouns += word in PRONOUNS
            self._close_run()
            if kinds:
                for column in kinds:
                    self.values[column] += 1
        else:
            self.sentences[-1].append(_stem(word))
            self.run += 1
            self.pending.append((word, kinds))
        if len(word) == 1 and word not in "ai":
            self.values[_LETTERS] += 1
        capital = first.isupper() and not token.isupper() and word not in NO_NAMES
        given = capital and word in GIVEN_NAMES
        name = capital and (given or not self.start)
        if name:
            self.names[word] += 1
            if self.pending:
                self.pending.pop()
                self.pending.append(("", kinds))
            self.values[_FULL] += self.name_before
            self.persons += given and not self.name_before
            self.persons -= self.name_before and self.given_before
        self.name_before, self.given_before = name, given and not self.name_before
        self.start = False
        self.before = word
        self.since_month = 0 if word in MONTHS else self.since_month + 1

    def _close_run(self) -> None:
        """What stood in a run counts by its meaning if the run was short, as material if it was long."""
        if self.run >= MATERIAL:
            self.values[_RUN] = max(self.values[_RUN], self.run)
        if self.run < MATERIAL:
            for word, kinds in self.pending:
                if kinds:
                    for column in kinds:
                        self.values[column] += 1
                elif word:
                    self.n_topic += 1
                    self.topics[-1].add(_stem(word))
        self.run = 0
        self.pending.clear()

    def _number(self, token: str, first: str) -> None:
        self.name_before = self.start = False
        self.sentences[-1].append(token)
        self.run += 1
        if len(token) > 5 and ("/" in token or "-" in token):
            self.before = "<date>"
            self.values[_DATES] += 1
        elif len(token) == 4 and first in "12" and "1000" <= token < "2100" and self.since_month > 3:
            self.before = "<year>"
            self.values[_YEARS] += 1
        elif self.since_month <= 1:
            self.before = "<date>"
            self.values[_DATES] += 1
        else:
            self.before = "<number>"
            self.n_figures += 1
        self.since_month += 1
        self.words[self.before] += 1

    def _sign(self, token: str, first: str) -> None:
        self.name_before = False
        self.before = ""
        if first == "\n":
            self.values[_LINES] += 1
            self._end_sentence()
            return
        self.words[token] += 1
        if token not in _PLAIN_MARKS:
            self.n_symbols += 1
        if token in _SENTENCE_ENDS:
            self._end_sentence()
        elif token == ",":
            self.commas += 1
            self.values[_COMMAS] = max(self.values[_COMMAS], self.commas)
        elif token in _OPERATORS or token in _BRACKETS:
            self.run += 1
            if token in _OPERATORS:
                self.values[_OPERATOR] += 1
            if token in _BRACKETS:
                self._bracket(token)
        elif token in _QUOTES:
            self.values[_QUOTE] += 1
            self.start = True
        elif token == ":":
            self.start = True

    def _bracket(self, token: str) -> None:
        self.values[_BRACKET] += 1
        if token in _OPEN:
            self.depth += 1
            self.values[_DEPTH] = max(self.values[_DEPTH], self.depth)
            self.start = True
        else:
            self.depth = max(0, self.depth - 1)

    def _end_sentence(self) -> None:
        self._close_run()
        self.commas = 0
        self.start = True
        if self.sentences[-1]:
            self.sentences.append([])
            self.topics.append(set())
            self.told_pronouns, self.pronouns = self.pronouns, 0

    def _totals(self, n_tokens: int) -> None:
        """Counts to the numbers that need all of them."""
        values = self.values
        numbers = self.n_figures + values[_DATES] + values[_COLUMN["number words"]]
        self._set("words", self.n_words)
        self._set("share of topic words", self.n_topic / n_tokens)
        self._set("share of symbols", self.n_symbols / n_tokens)
        self._set("numbers", numbers)
        self._set("two numbers or more", float(numbers + values[_YEARS] > 1))
        self._set("names", self.names.total())
        self._set("share of names", self.names.total() / max(1, self.n_words))
        self._set("persons by first name", max(0, self.persons))
        self._set("names said again", sum(1 for count in self.names.values() if count > 1))

    def _sentences(self) -> None:
        """What is asked, and how much of it was told before."""
        content = [sentence for sentence in self.sentences if sentence]
        topics = [topic for sentence, topic in zip(self.sentences, self.topics, strict=True) if sentence]
        n_words = sum(map(len, content))
        where: Counter[str] = Counter()
        for sentence in content:
            where.update(set(sentence))
        self._set("sentences before the question", max(0, len(content) - 1))
        self._set("words said again", 1 - len(where) / n_words if n_words else 0.0)
        self._set("things in several sentences", sum(1 for n in where.values() if n > 1))
        if content:
            last = set(content[-1])
            told = {word for word in last if where[word] > 1}
            self._set("question's words said before", len(told) / max(1, len(last)))
            if len(content) > 1:
                self._set("pronouns in the question", self.pronouns if self.sentences[-1] else self.told_pronouns)
            self._set("new words in the question", len(topics[-1] - told))
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

    def _choices(self, n_tokens: int) -> None:
        """What there is to choose from."""
        choices = self.split.choices
        if not choices:
            return
        lowered = [choice.lower().strip(" .") for choice in choices]
        self._set("yes or no to choose", float(set(lowered) <= VERDICTS))
        self._set("numbers to choose", sum(bool(_NUMERIC.search(c)) for c in lowered) / len(lowered))
        tokens = [[w for w in _TOKEN.findall(c) if w not in _PLAIN_MARKS] for c in lowered]
        n_in_choices = sum(map(len, tokens))
        self._set("share of the item in its choices", n_in_choices / max(1, n_tokens + n_in_choices))
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
    if asked and found and found[0] in AUXILIARIES:
        return "yes or no"
    for n, word in enumerate(found):
        if word == "how" and n + 1 < len(found) and found[n + 1] in ("many", "much", "long", "old", "far"):
            return "how many"
        if word in ("who", "whom", "whose"):
            return "who"
        if word in _QUESTIONS and (asked or n < 3):
            return str(word)
    if asked and any(word in AUXILIARIES for word in found):
        return "yes or no"
    return "no question"
