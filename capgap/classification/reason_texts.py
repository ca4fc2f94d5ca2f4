"""What a group of features found in an item, in words."""

from collections.abc import Callable, Mapping

from capgap.classification.features import FEATURES

__all__ = ["GROUPS", "in_words"]

GROUPS: tuple[str, ...] = tuple(dict.fromkeys(feature.group for feature in FEATURES))
"""Groups of features in the order of `FEATURES`; each is one possible reason."""

_Raw = Mapping[str, float]


def _count(value: float, one: str, many: str | None = None) -> str:
    n = round(value)
    return f"no {many or one + 's'}" if n == 0 else f"{n:,} {one if n == 1 else many or one + 's'}"


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
    found = [part for part in parts if not part.startswith("no ")]
    if raw["single letters"] >= 2:
        found.append(f"{round(raw['single letters'])} single letters")
    return " and ".join(found[:2]) if found else "no operators, brackets or variables"


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


def _choices_told(raw: _Raw) -> str:
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


# Groups of one feature whose count is told: the feature, the word for one, the words for any other number.
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
    "truth words": ("truth words", "word about truth or inference", "words about truth or inference"),
    "negations": ("negations", "negation", "negations"),
    "conditionals": ("conditionals", "word such as if or unless", "words such as if or unless"),
    "quantifiers": ("quantifiers", "word such as each, all or exactly", "words such as each, all or exactly"),
    "comparatives": ("comparatives", "comparative", "comparatives"),
    "ordinals": ("ordinals", "word such as first or last", "words such as first or last"),
    "places in an order": ("places in an order", "word of position (left, north)", "words of position (left, north)"),
    "time spans": ("time spans", "word of time (day, hour, ago)", "words of time (day, hour, ago)"),
    "changes": ("changes", "thing done (gives, takes, moves)", "things done (gives, takes, moves)"),
    "totals": ("totals", "word of reckoning (total, each)", "words of reckoning (total, each)"),
    "number words": ("number words", "number in words", "numbers in words"),
    "letters and digits": (
        "letters and digits",
        "word about letters, digits or lists",
        "words about letters, digits or lists",
    ),
    "words for names and terms": (
        "words for names and terms",
        "word that asks for a name or term",
        "words that ask for a name or term",
    ),
    "world and its people": (
        "world and its people",
        "word for what reference books hold",
        "words for what reference books hold",
    ),
    "how things usually are": (
        "how things usually are",
        "word for how things usually are",
        "words for how things usually are",
    ),
}

_SAID: dict[str, Callable[[_Raw], str]] = {
    "sentences": _sentences,
    "material": _material,
    "topic": lambda raw: _share(raw["share of topic words"], "it are words of a subject"),
    "quantities": lambda raw: _count(raw["numbers"], "number"),
    "symbols": _symbols,
    "instruction": _instruction,
    "names": _names,
    "repetition": _repetition,
    "choices": _choices,
    "choices told": _choices_told,
    "question": _question,
}


def in_words(group: str, raw: Mapping[str, float]) -> str:
    """What the group found, as half a sentence.

    Parameters
    ----------
    group
        One of `GROUPS`.
    raw
        Raw numbers of the item by the names of `FEATURES`.
    """
    if group in _COUNTED:
        feature, one, many = _COUNTED[group]
        return _count(raw[feature], one, many)
    return _SAID[group](raw)
