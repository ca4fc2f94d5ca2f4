"""Word lists of the text model, read from ``lexicon.txt``."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class CountedWordKind:
    """Words that one feature counts."""

    words: frozenset[str]
    """Lower case."""
    singular: str
    """What one of them is called in a reason."""
    plural_noun: str
    """What several are called."""


def _read_lexicon() -> tuple[dict[str, CountedWordKind], dict[str, frozenset[str]]]:
    """The kinds in the order of the file, and the other lists."""
    word_kinds: dict[str, CountedWordKind] = {}
    word_lists: dict[str, frozenset[str]] = {}
    text = Path(__file__).with_suffix(".txt").read_text(encoding="utf-8")
    for lexicon_section in ("\n" + text).split("\n== ")[1:]:
        header, *lines = [line for line in lexicon_section.splitlines() if not line.startswith("#")]
        name, *display_names = header.split(" | ")
        words = frozenset(" ".join(lines).split())
        if display_names:
            word_kinds[name] = CountedWordKind(words, *display_names)
        else:
            word_lists[name] = words
    return word_kinds, word_lists


COUNTED_WORD_KINDS, WORD_LISTS = _read_lexicon()
"""Name → kind, in the order of the coefficients; and name → words that features use otherwise."""
