"""What a group of features found in an item, in words."""

from collections.abc import Callable, Mapping

from capgap.classify.features import FEATURES

__all__ = ["GROUPS", "in_words"]

GROUPS: tuple[str, ...] = tuple(dict.fromkeys(feature.group for feature in FEATURES))
"""Groups of features in the order of `FEATURES`; each is one possible reason."""

_Raw = Mapping[str, float]


def _count(value: float, one: str, many: str | None = None) -> str:
    n = round(value)
    return f"no {many or one + 's'}" if n == 0 else f"{n:,} {one if n == 1 else many or one + 's'}"


def _share(value: float, what: str) -> str:
    return f"{value:.0%} of {what}".replace("%", " %")


def _quantities(raw: _Raw) -> str:
    return _count(raw["numbers"], "number")


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


_SAID: dict[str, Callable[[_Raw], str]] = {
    "length": lambda raw: _count(raw["words"], "word"),
    "sentences": _sentences,
    "material": lambda raw: (
        f"{round(raw['material'])} words or signs in a row that make no sentence"
        if raw["material"]
        else "whole sentences, no list and no expression"
    ),
    "topic": lambda raw: _share(raw["share of topic words"], "it are words of a subject"),
    "quantities": _quantities,
    "years": lambda raw: _count(raw["years"], "year"),
    "dates": lambda raw: _count(raw["dates"], "date in figures", "dates in figures"),
    "symbols": _symbols,
    "quotes": lambda raw: _count(raw["quotation marks"], "quotation mark"),
    "instruction": _instruction,
    "names": _names,
    "persons": lambda raw: _count(raw["persons by first name"], "person named by a first name", "persons named by a first name"),
    "repetition": _repetition,
    "choices": _choices,
    "choices told": _choices_told,
    "question": _question,
    "new words": lambda raw: _count(raw["new words in the question"], "word of the question that nothing before explains", "words of the question that nothing before explains"),
    "truth words": lambda raw: _count(raw["truth words"], "word about truth or inference", "words about truth or inference"),
    "negations": lambda raw: _count(raw["negations"], "negation"),
    "conditionals": lambda raw: _count(raw["conditionals"], "if, unless or therefore", "if, unless or therefore"),
    "quantifiers": lambda raw: _count(raw["quantifiers"], "word such as each, all or exactly", "words such as each, all or exactly"),
    "comparatives": lambda raw: _count(raw["comparatives"], "comparative"),
    "ordinals": lambda raw: _count(raw["ordinals"], "place in an order (first, last)", "places in an order (first, last)"),
    "places in an order": lambda raw: _count(raw["places in an order"], "word of position (left, before)", "words of position (left, before)"),
    "time spans": lambda raw: _count(raw["time spans"], "word of time (day, hour, ago)", "words of time (day, hour, ago)"),
    "changes": lambda raw: _count(raw["changes"], "thing done (gives, takes, moves)", "things done (gives, takes, moves)"),
    "totals": lambda raw: _count(raw["totals"], "word of reckoning (total, each, left)", "words of reckoning (total, each, left)"),
    "number words": lambda raw: _count(raw["number words"], "number in words", "numbers in words"),
    "letters and digits": lambda raw: _count(raw["letters and digits"], "word about letters, digits or lists", "words about letters, digits or lists"),
    "words for names and terms": lambda raw: _count(raw["words for names and terms"], "word that asks for a name or term", "words that ask for a name or term"),
    "world and its people": lambda raw: _count(raw["world and its people"], "word for what reference books hold", "words for what reference books hold"),
    "how things usually are": lambda raw: _count(raw["how things usually are"], "word for how things usually are", "words for how things usually are"),
}  # fmt: skip


def in_words(group: str, raw: Mapping[str, float]) -> str:
    """What the group found, as half a sentence.

    Parameters
    ----------
    group
        One of `GROUPS`.
    raw
        Raw numbers of the item by the names of `FEATURES`.
    """
    return _SAID[group](raw)
