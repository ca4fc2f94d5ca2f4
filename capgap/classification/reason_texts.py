"""Reasons in words: what a group of features says of an item, as half a sentence."""

from collections.abc import Callable, Mapping

from capgap.classification.features import FEATURES
from capgap.classification.lexicon import COUNTED_WORD_KINDS

GROUPS: tuple[str, ...] = tuple(dict.fromkeys(feature.group for feature in FEATURES))
"""Groups of features in the order of `FEATURES`; each is one possible reason."""

_RawValueByFeature = Mapping[str, float]


def _format_count(value: float, singular: str, plural_noun: str | None = None) -> str:
    n, plural_noun = round(value), plural_noun or f"{singular}s"
    return f"no {plural_noun}" if n == 0 else f"{n:,} {singular if n == 1 else plural_noun}"


def _format_share(value: float, noun_phrase: str) -> str:
    return f"{value:.0%} of {noun_phrase}".replace("%", " %")


def _material_reason_text(raw: _RawValueByFeature) -> str:
    if raw["material"]:
        return f"{round(raw['material'])} words or signs in a row that make no sentence"
    return "whole sentences, no list and no expression"


def _sentences_reason(raw: _RawValueByFeature) -> str:
    n_earlier_sentences = round(raw["sentences before the question"])
    if n_earlier_sentences == 0:
        return "one sentence and nothing before it"
    return f"{_format_count(n_earlier_sentences, 'sentence')} before what is asked"


def _symbols_reason(raw: _RawValueByFeature) -> str:
    symbol_count_texts = [_format_count(raw["operators"], "operator"), _format_count(raw["brackets"], "bracket")]
    nonzero_count_texts = [count_text for count_text in symbol_count_texts if not count_text.startswith("no ")]
    if raw["single letters"] >= 2:
        nonzero_count_texts.append(f"{round(raw['single letters'])} single letters")
    return " and ".join(nonzero_count_texts[:2]) if nonzero_count_texts else "no operators, brackets or variables"


def _instruction_reason_text(raw: _RawValueByFeature) -> str:
    if raw["instruction with material"]:
        return "an instruction and something to carry it out on"
    if raw["instruction"]:
        return "an instruction to do something"
    return "a request to recall something" if raw["request to recall"] else "no instruction to work something out"


def _names_reason(raw: _RawValueByFeature) -> str:
    if raw["full names"]:
        return f"{_format_count(raw['names'], 'name')}, {round(raw['full names'])} of them following another"
    return _format_count(raw["names"], "proper name")


def _repetition_reason(raw: _RawValueByFeature) -> str:
    question_repeat_share = raw["question's words said before"]
    if raw["sentences before the question"] and question_repeat_share > 0:
        return _format_share(question_repeat_share, "what is asked about was told before")
    repeated_word_share = raw["words said again"]
    return _format_share(repeated_word_share, "words said again") if repeated_word_share > 0 else "nothing said twice"


def _choices_reason_text(raw: _RawValueByFeature) -> str:
    if raw["numbers to choose"] > 0.5:
        return "numbers to choose from"
    if raw["yes or no to choose"]:
        return "yes or no, true or false, to choose from"
    return "names to choose from" if raw["names to choose"] > 0.5 else "no numbers to choose from"


def _choices_in_stem_reason(raw: _RawValueByFeature) -> str:
    if raw["choices told in the text"] > 0.5:
        return "choices that the text itself names"
    if raw["choices made of the same words"] > 0.5:
        return "choices made of the same words"
    return "no choices that the text itself names"


def _question_reason_text(raw: _RawValueByFeature) -> str:
    for name, value in raw.items():
        if name.startswith("asks: ") and value:
            kind = name.removeprefix("asks: ")
            return "no question" if kind == "no question" else f'a question for "{kind}"'
    return "no question"


# Groups of one feature that is told as a count: the feature, what one of them is called, what several are.
_COUNT_NOUNS_BY_GROUP: dict[str, tuple[str, str, str]] = {
    "length": ("words", "word", "words"),
    "years": ("years", "year", "years"),
    "dates": ("dates", "date", "dates"),
    "quotes": ("quotation marks", "quotation mark", "quotation marks"),
    "persons": ("persons by first name", "person named by a first name", "persons named by a first name"),
    "new words": (
        "new words in the question",
        "word of the question that nothing before explains",
        "words of the question that nothing before explains",
    ),
    **{name: (name, kind.singular, kind.plural_noun) for name, kind in COUNTED_WORD_KINDS.items()},
}

_REASON_WRITERS: dict[str, Callable[[_RawValueByFeature], str]] = {
    "sentences": _sentences_reason,
    "material": _material_reason_text,
    "topic": lambda raw: _format_share(raw["share of topic words"], "it are words of a subject"),
    "quantities": lambda raw: _format_count(raw["numbers"], "number"),
    "symbols": _symbols_reason,
    "instruction": _instruction_reason_text,
    "names": _names_reason,
    "repetition": _repetition_reason,
    "choices": _choices_reason_text,
    "choices told": _choices_in_stem_reason,
    "question": _question_reason_text,
}


def describe_group(group: str, raw: Mapping[str, float]) -> str:
    """The reason of a group of features, as half a sentence.

    Parameters
    ----------
    group
        One of `GROUPS`.
    raw
        Raw numbers of the item by the names of `FEATURES`.
    """
    if group in _COUNT_NOUNS_BY_GROUP:
        feature, singular, plural_noun = _COUNT_NOUNS_BY_GROUP[group]
        return _format_count(raw[feature], singular, plural_noun)
    return _REASON_WRITERS[group](raw)
