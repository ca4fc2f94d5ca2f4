"""Word lists of the text model, read from ``lexicon.txt``."""

from dataclasses import dataclass
from pathlib import Path

__all__ = ["KINDS", "LISTS", "WordKind"]


@dataclass(frozen=True)
class WordKind:
    """Words that one feature counts."""

    words: frozenset[str]
    """Lower case."""
    singular: str
    """What one of them is called in a reason."""
    plural: str
    """What several are called."""


def _read() -> tuple[dict[str, WordKind], dict[str, frozenset[str]]]:
    """The kinds in the order of the file, and the other lists."""
    kinds: dict[str, WordKind] = {}
    lists: dict[str, frozenset[str]] = {}
    text = Path(__file__).with_suffix(".txt").read_text(encoding="utf-8")
    for section in ("\n" + text).split("\n== ")[1:]:
        head, *lines = [line for line in section.splitlines() if not line.startswith("#")]
        name, *called = head.split(" | ")
        words = frozenset(" ".join(lines).split())
        if called:
            kinds[name] = WordKind(words, *called)
        else:
            lists[name] = words
    return kinds, lists


KINDS, LISTS = _read()
"""Name → kind, in the order of the coefficients; and name → words that features use otherwise."""
