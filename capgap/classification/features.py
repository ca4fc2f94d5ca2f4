"""Features of an item's text: the numbers and words, checkable by a reader, that the text model takes in.

Everything is one pass over the tokens, so time grows linearly with the length of a text.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from capgap.classification.choice_parsing import StemAndChoices, split_off_choices
from capgap.classification.evidence import ItemText
from capgap.classification.lexicon import COUNTED_WORD_KINDS, WORD_LISTS

__all__ = ["FEATURES", "TextFeature", "ItemFeatures", "item_features", "scaled", "table"]

MAX_QUESTION_CHARACTERS = 50_000


@dataclass(frozen=True)
class TextFeature:
    """One feature."""

    name: str
    """Its name in the coefficients."""
    group: str
    """What a reader is told about: features of one group share a reason."""
    value_type: str
    """``count`` (its logarithm counts), ``share`` or ``yes`` (0 or 1)."""


_QUESTION_KINDS = ("who", "which", "what", "when", "where", "why", "how many", "how", "yes or no", "no question")

FEATURES: tuple[TextFeature, ...] = (
    TextFeature("words", "length", "count"),
    TextFeature("sentences before the question", "sentences", "count"),
    TextFeature("lines", "sentences", "count"),
    TextFeature("share of topic words", "topic", "share"),
    TextFeature("commas in a sentence", "sentences", "count"),
    TextFeature("material", "material", "count"),
    TextFeature("numbers", "quantities", "count"),
    TextFeature("two numbers or more", "quantities", "yes"),
    TextFeature("numbers of something", "quantities", "count"),
    TextFeature("years", "years", "count"),
    TextFeature("dates", "dates", "count"),
    TextFeature("operators", "symbols", "count"),
    TextFeature("share of symbols", "symbols", "share"),
    TextFeature("brackets", "symbols", "count"),
    TextFeature("depth of brackets", "symbols", "count"),
    TextFeature("single letters", "symbols", "count"),
    TextFeature("quotation marks", "quotes", "count"),
    *(TextFeature(kind, kind, "count") for kind in COUNTED_WORD_KINDS),
    TextFeature("instruction", "instruction", "yes"),
    TextFeature("instruction with material", "instruction", "yes"),
    TextFeature("request to recall", "instruction", "yes"),
    TextFeature("names", "names", "count"),
    TextFeature("full names", "names", "count"),
    TextFeature("share of names", "names", "share"),
    TextFeature("persons by first name", "persons", "count"),
    TextFeature("names said again", "repetition", "count"),
    TextFeature("words said again", "repetition", "share"),
    TextFeature("question's words said before", "repetition", "share"),
    TextFeature("things in several sentences", "repetition", "count"),
    TextFeature("pronouns in the question", "repetition", "count"),
    TextFeature("new words in the question", "new words", "count"),
    TextFeature("yes or no to choose", "choices", "yes"),
    TextFeature("numbers to choose", "choices", "share"),
    TextFeature("choices told in the text", "choices told", "share"),
    TextFeature("choices made of the same words", "choices told", "share"),
    TextFeature("names to choose", "choices", "share"),
    TextFeature("share of the item in its choices", "choices", "share"),
    *(TextFeature(f"asks: {question}", "question", "yes") for question in _QUESTION_KINDS),
)

_WORD_KINDS_BY_WORD: dict[str, tuple[str, ...]] = {
    word: tuple(name for name, kind in COUNTED_WORD_KINDS.items() if word in kind.words)
    for word in frozenset().union(*(kind.words for kind in COUNTED_WORD_KINDS.values()))
}

_TOKEN_PATTERN = re.compile(r"\d{1,4}[/-]\d{1,2}[/-]\d{1,4}|[^\W\d_]+(?:['’][^\W\d_]+)*|\d+(?:[.,]\d+)*|\n+|[^\w\s]|_")
_SENTENCE_ENDS = frozenset(".?!;")
_OPERATOR_CHARACTERS = frozenset("+-*/=<>^%×÷−·≤≥≠&|")
_OPENING_BRACKETS, _BRACKET_CHARACTERS = frozenset("([{<"), frozenset("()[]{}<>")
_QUOTES = frozenset("\"“”'`")
_PUNCTUATION = frozenset(".,?!;:'\"’“”-–—()…`")
_NON_NAME_WORDS = WORD_LISTS["months"] | WORD_LISTS["no names"]  # capitalised inside sentences, and yet no proper names
MIN_NON_SENTENCE_WORDS = 6  # words in a row without a function word that are no sentence any more


@dataclass(frozen=True)
class ItemFeatures:
    """The features of one item."""

    values: tuple[float, ...]
    """One raw number for each of `FEATURES`."""
    words: Counter[str]
    """Lower-case words of the question and how often; numbers and symbols as `<number>`, `<year>` and themselves."""


def item_features(question: ItemText) -> ItemFeatures:
    """The features of one item; any text will do.

    Parameters
    ----------
    question
        The item; choices that stand inside the text behind letters are found there.
    """
    split = split_off_choices(question, MAX_QUESTION_CHARACTERS)
    return _FeatureReader(split).read()


def table(feature_sets: Sequence[ItemFeatures]) -> NDArray[np.float64]:
    """Features of many items, shape (items, features), counts as logarithms."""
    raw = np.array([item.values for item in feature_sets], dtype=float).reshape(len(feature_sets), len(FEATURES))
    return scaled(raw)


def scaled(raw: NDArray[np.float64]) -> NDArray[np.float64]:
    """Raw features of shape (items, features) with counts as log(1 + n), shares and yes or no as they are."""
    counts = np.array([feature.value_type == "count" for feature in FEATURES])
    return np.where(counts, np.log1p(np.where(counts, raw, 0.0)), raw)


def _strip_plural_s(word: str) -> str:
    """One form for singular and plural, good enough to see that a thing is named again."""
    return word[:-1] if word.endswith("s") and len(word) > 3 else word


class _FeatureReader:
    """One pass over the tokens of a question: a state machine of words, numbers and signs.

    A *run* is a stretch without a function word or the end of a sentence. Its words wait in `pending` until it ends,
    since only then it is known whether they are a sentence (their kinds count) or material (its length counts).
    """

    def __init__(self, split: StemAndChoices) -> None:
        self.split = split
        self.values = {feature.name: 0.0 for feature in FEATURES}
        self.words: Counter[str] = Counter()
        self.names: Counter[str] = Counter()
        self.sentences: list[list[str]] = [[]]
        self.topics: list[set[str]] = [set()]
        self.n_words = self.n_topic = self.n_symbols = self.n_figures = 0
        self.depth = self.commas = self.persons = self.pronouns = 0
        self.since_month = 9  # words and numbers since the name of a month; far at the beginning
        self.pronouns_before = 0  # of the sentence before, where the current one is still empty
        self.run = 0
        self.pending: list[tuple[str, tuple[str, ...] | None]] = []  # word ("" for a name) and its kinds
        self.sentence_start = True  # where a capital makes no name
        self.previous = ""
        self.after_name = self.after_given_name = False

    def read(self) -> ItemFeatures:
        """All features; to be called once."""
        tokens = _TOKEN_PATTERN.findall(self.split.stem)
        for token in tokens:
            first_character = token[0]
            if first_character.isalpha():
                self._count_word(token, first_character)
            elif first_character.isdigit():
                self._count_number_token(token, first_character)
            else:
                self._count_symbol_token(token, first_character)
        self._close_run()
        self._set_total_features(max(1, len(tokens)))
        self._set_sentence_features()
        self._choices(len(tokens))
        return ItemFeatures(tuple(self.values.values()), self.words)

    def _count_word(self, token: str, first_character: str) -> None:
        word = token.lower()
        self.words[word] += 1
        self.n_words += 1
        if self.previous == "<number>" and word not in WORD_LISTS["function words"]:
            self.values["numbers of something"] += 1
        word_kinds = _WORD_KINDS_BY_WORD.get(word)
        if word in WORD_LISTS["function words"]:
            self.pronouns += word in WORD_LISTS["pronouns"]
            self._close_run()
            if word_kinds:
                for kind in word_kinds:
                    self.values[kind] += 1
        else:
            self.sentences[-1].append(_strip_plural_s(word))
            self.run += 1
            self.pending.append((word, word_kinds))
        if len(word) == 1 and word not in "ai":
            self.values["single letters"] += 1
        looks_like_name = first_character.isupper() and not token.isupper() and word not in _NON_NAME_WORDS
        is_given_name = looks_like_name and word in WORD_LISTS["given names"]
        name = looks_like_name and (is_given_name or not self.sentence_start)
        if name:
            self.names[word] += 1
            if self.pending:
                self.pending.pop()
                self.pending.append(("", word_kinds))
            self.values["full names"] += self.after_name
            self.persons += is_given_name and not self.after_name
            self.persons -= self.after_name and self.after_given_name
        self.after_name, self.after_given_name = name, is_given_name and not self.after_name
        self.sentence_start = False
        self.previous = word
        self.since_month = 0 if word in WORD_LISTS["months"] else self.since_month + 1

    def _close_run(self) -> None:
        """What stood in a run counts by its meaning if the run was short, as material if it was long."""
        if self.run >= MIN_NON_SENTENCE_WORDS:
            self.values["material"] = max(self.values["material"], self.run)
        else:
            for word, word_kinds in self.pending:
                if word_kinds:
                    for kind in word_kinds:
                        self.values[kind] += 1
                elif word:
                    self.n_topic += 1
                    self.topics[-1].add(_strip_plural_s(word))
        self.run = 0
        self.pending.clear()

    def _count_number_token(self, token: str, first_character: str) -> None:
        self.after_name = self.sentence_start = False
        self.sentences[-1].append(token)
        self.run += 1
        if len(token) > 5 and ("/" in token or "-" in token):
            self.previous = "<date>"
            self.values["dates"] += 1
        elif len(token) == 4 and first_character in "12" and "1000" <= token < "2100" and self.since_month > 3:
            self.previous = "<year>"
            self.values["years"] += 1
        elif self.since_month <= 1:
            self.previous = "<date>"
            self.values["dates"] += 1
        else:
            self.previous = "<number>"
            self.n_figures += 1
        self.since_month += 1
        self.words[self.previous] += 1

    def _count_symbol_token(self, token: str, first_character: str) -> None:
        self.after_name = False
        self.previous = ""
        if first_character == "\n":
            self.values["lines"] += 1
            self._start_next_sentence()
            return
        self.words[token] += 1
        if token not in _PUNCTUATION:
            self.n_symbols += 1
        if token in _SENTENCE_ENDS:
            self._start_next_sentence()
        elif token == ",":
            self.commas += 1
            self.values["commas in a sentence"] = max(self.values["commas in a sentence"], self.commas)
        elif token in _OPERATOR_CHARACTERS or token in _BRACKET_CHARACTERS:
            self.run += 1
            if token in _OPERATOR_CHARACTERS:
                self.values["operators"] += 1
            if token in _BRACKET_CHARACTERS:
                self._count_bracket_token(token)
        elif token in _QUOTES:
            self.values["quotation marks"] += 1
            self.sentence_start = True
        elif token == ":":
            self.sentence_start = True

    def _count_bracket_token(self, token: str) -> None:
        self.values["brackets"] += 1
        if token in _OPENING_BRACKETS:
            self.depth += 1
            self.values["depth of brackets"] = max(self.values["depth of brackets"], self.depth)
            self.sentence_start = True
        else:
            self.depth = max(0, self.depth - 1)

    def _start_next_sentence(self) -> None:
        self._close_run()
        self.commas = 0
        self.sentence_start = True
        if self.sentences[-1]:
            self.sentences.append([])
            self.topics.append(set())
            self.pronouns_before, self.pronouns = self.pronouns, 0

    def _set_total_features(self, n_tokens: int) -> None:
        """Counts to the numbers that need all of them."""
        values = self.values
        numbers = self.n_figures + values["dates"] + values["number words"]
        values["words"] = self.n_words
        values["share of topic words"] = self.n_topic / n_tokens
        values["share of symbols"] = self.n_symbols / n_tokens
        values["numbers"] = numbers
        values["two numbers or more"] = float(numbers + values["years"] > 1)
        values["names"] = self.names.total()
        values["share of names"] = self.names.total() / max(1, self.n_words)
        values["persons by first name"] = max(0, self.persons)
        values["names said again"] = sum(1 for count in self.names.values() if count > 1)

    def _set_sentence_features(self) -> None:
        """The last sentence, and how much of it stood in earlier ones."""
        content = [sentence for sentence in self.sentences if sentence]
        topics = [topic_words for sentence, topic_words in zip(self.sentences, self.topics, strict=True) if sentence]
        n_words = sum(map(len, content))
        n_sentences_with: Counter[str] = Counter()  # word → sentences that have it
        for sentence in content:
            n_sentences_with.update(set(sentence))
        self.values["sentences before the question"] = max(0, len(content) - 1)
        self.values["words said again"] = 1 - len(n_sentences_with) / n_words if n_words else 0.0
        self.values["things in several sentences"] = sum(1 for n in n_sentences_with.values() if n > 1)
        if content:
            last_sentence_words = set(content[-1])
            repeated = {word for word in last_sentence_words if n_sentences_with[word] > 1}
            self.values["question's words said before"] = len(repeated) / max(1, len(last_sentence_words))
            if len(content) > 1:
                self.values["pronouns in the question"] = self.pronouns if self.sentences[-1] else self.pronouns_before
            self.values["new words in the question"] = len(topics[-1] - repeated)
        self._set_question_features()

    def _set_question_features(self) -> None:
        """Which question word the last question has, and whether a sentence begins with an instruction."""
        text = self.split.stem
        starts = {m.group(1).lower() for m in _SENTENCE_START.finditer(text)}
        has_instruction = bool(starts & WORD_LISTS["task verbs"])
        self.values["instruction"] = float(has_instruction)
        self.values["instruction with material"] = float(has_instruction and bool(_MATERIAL_PATTERN.search(text)))
        self.values["request to recall"] = float(bool(starts & WORD_LISTS["recall verbs"]))
        self.values[f"asks: {_question_word(text)}"] = 1.0

    def _choices(self, n_tokens: int) -> None:
        """What there is to choose from."""
        choices = self.split.choices
        if not choices:
            return
        lower_choices = [choice.lower().strip(" .") for choice in choices]
        self.values["yes or no to choose"] = float(set(lower_choices) <= WORD_LISTS["verdicts"])
        self.values["numbers to choose"] = sum(bool(_DIGIT_FIRST.search(c)) for c in lower_choices) / len(lower_choices)
        tokens = [[w for w in _TOKEN_PATTERN.findall(c) if w not in _PUNCTUATION] for c in lower_choices]
        n_choice_tokens = sum(map(len, tokens))
        self.values["share of the item in its choices"] = n_choice_tokens / max(1, n_tokens + n_choice_tokens)
        stem_overlap = 0.0
        seen: Counter[str] = Counter()
        for choice in tokens:
            content = [w for w in choice if w not in WORD_LISTS["function words"] and len(w) > 1] or choice
            stem_overlap += sum(w in self.words for w in content) / max(1, len(content))
            seen.update(set(content))
        self.values["choices told in the text"] = stem_overlap / len(tokens)
        n_repeated_words = sum(n for n in seen.values() if n > 1)
        self.values["choices made of the same words"] = n_repeated_words / max(1, seen.total())
        n_names = sum(len(c.split()) > 1 and all(w[0].isupper() for w in c.split() if w[0].isalpha()) for c in choices)
        self.values["names to choose"] = n_names / len(choices)


_DIGIT_FIRST = re.compile(r"^\W*\d")
_MATERIAL_PATTERN = re.compile(r"[:\n=]|\d|[\"“'‘].*[\"”'’]")
_WORD_PATTERN = re.compile(r"[^\W\d_]+")
_SENTENCE_START = re.compile(r"(?:^|[.?!:;\n]\s*|[\"“]\s*)([^\W\d_]+)")


def _question_word(text: str) -> str:
    """The kind of the last question, one of `_QUESTION_KINDS`."""
    end = text.rfind("?")
    is_question = end >= 0
    begin = max(text.rfind(end_mark, 0, end) for end_mark in ".!?\n") + 1 if is_question else max(0, len(text) - 400)
    words = _WORD_PATTERN.findall(text[begin : end if is_question else len(text)][:2000].lower())
    if is_question and words and words[0] in WORD_LISTS["auxiliaries"]:
        return "yes or no"
    for n, word in enumerate(words):
        if word == "how" and n + 1 < len(words) and words[n + 1] in ("many", "much", "long", "old", "far"):
            return "how many"
        if word in ("who", "whom", "whose"):
            return "who"
        if word in _QUESTION_KINDS and (is_question or n < 3):
            return str(word)
    if is_question and any(word in WORD_LISTS["auxiliaries"] for word in words):
        return "yes or no"
    return "no question"
