"""Reasons in words: what a group of features says of an item, as half a sentence."""

from collections.abc import Callable, Mapping

from capgap.classification.features import FEATURES
from capgap.classification.lexicon import KINDS

GROUPS: tuple[str, ...] = tuple(dict.fromkeys(feature.group for feature in FEATURES))
"""Groups of features in the order of `FEATURES`; each is one possible reason."""

_Raw = Mapping[str, float]


def _count(value: float, singular: str, plural: str | None = None) -> str:
    n, plural = round(value), plural or f"{singular}s"
    return f"no {plural}" if n == 0 else f"{n:,} {singular if n == 1 else plural}"


def _share(value: float, what: str) -> str:
    return f"{value:.0%} of {what}".replace("%", " %")


def _material(raw: _Raw) -> str:
    if raw["material"]:
        return f"{round(raw['material'])} words or signs in a row that make no sentence"
    return "whole sentences, no list and no expression"


def _sentences(raw: _Raw) -> str:
    before = round(raw["sentences before the question"])
    if before == 0:
        return "one sentence and nothing before it"
    return f"{_count(before, 'sentence')} before what is asked"


def _symbols(raw: _Raw) -> str:
    parts = [_count(raw["operators"], "operator"), _count(raw["brackets"], "bracket")]
    present = [part for part in parts if not part.startswith("no ")]
    if raw["single letters"] >= 2:
        present.append(f"{round(raw['single letters'])} single letters")
    return " and ".join(present[:2]) if present else "no operators, brackets or variables"


def _instruction(raw: _Raw) -> str:
    if raw["instruction with material"]:
        return "an instruction and something to carry it out on"
    if raw["instruction"]:
        return "an instruction to do something"
    return "a request to recall something" if raw["request to recall"] else "no instruction to work something out"


def _names(raw: _Raw) -> str:
    if raw["full names"]:
        return f"{_count(raw['names'], 'name')}, {round(raw['full names'])} of them following another"
    return _count(raw["names"], "proper name")


def _repetition(raw: _Raw) -> str:
    before = raw["question's words said before"]
    if raw["sentences before the question"] and before > 0:
        return _share(before, "what is asked about was told before")
    again = raw["words said again"]
    return _share(again, "words said again") if again > 0 else "nothing said twice"


def _choices(raw: _Raw) -> str:
    if raw["numbers to choose"] > 0.5:
        return "numbers to choose from"
    if raw["yes or no to choose"]:
        return "yes or no, true or false, to choose from"
    return "names to choose from" if raw["names to choose"] > 0.5 else "no numbers to choose from"


def _choices_in_text(raw: _Raw) -> str:
    if raw["choices told in the text"] > 0.5:
        return "choices that the text itself names"
    if raw["choices made of the same words"] > 0.5:
        return "choices made of the same words"
    return "no choices that the text itself names"


def _question(raw: _Raw) -> str:
    for name, value in raw.items():
        if name.startswith("asks: ") and value:
            kind = name.removeprefix("asks: ")
            return "no question" if kind == "no question" else f'a question for "{kind}"'
    return "no question"


# Groups of one feature that is told as a count: the feature, what one of them is called, what several are.
_COUNTED: dict[str, tuple[str, str, str]] = {
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
    **{name: (name, kind.singular, kind.plural) for name, kind in KINDS.items()},
}

_TEXT: dict[str, Callable[[_Raw], str]] = {
    "sentences": _sentences,
    "material": _material,
    "topic": lambda raw: _share(raw["share of topic words"], "it are words of a subject"),
    "quantities": lambda raw: _count(raw["numbers"], "number"),
    "symbols": _symbols,
    "instruction": _instruction,
    "names": _names,
    "repetition": _repetition,
    "choices": _choices,
    "choices told": _choices_in_text,
    "question": _question,
}


def in_words(group: str, raw: Mapping[str, float]) -> str:
    """The reason of a group of features, as half a sentence.

    Parameters
    ----------
    group
        One of `GROUPS`.
    raw
        Raw numbers of the item by the names of `FEATURES`.
    """
    if group in _COUNTED:
        feature, singular, plural = _COUNTED[group]
        return _count(raw[feature], singular, plural)
    return _TEXT[group](raw)
