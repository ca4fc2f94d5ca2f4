"""Vocabulary of the microworld: fixed marks and symbols, and invented names drawn from a seed."""

from collections.abc import Sequence

import numpy as np

__all__ = [
    "ANSWER",
    "CUPS",
    "DIGITS",
    "END",
    "GATES",
    "LETTERS",
    "LIST_OPERATIONS",
    "NODES",
    "OPERATORS",
    "PAD",
    "QUESTION",
    "SPECIAL",
    "STEP",
    "SYMBOLS",
    "TRUTH",
    "UNKNOWN",
    "invent",
]

PAD, END, UNKNOWN = "<pad>", "<eos>", "<unk>"
SPECIAL = (PAD, END, UNKNOWN)

QUESTION, ASK, ANSWER, STEP = "Q", "?", "A", ";"
"""A question runs from ``Q`` to ``?``, the answer follows ``A``; every statement and every step ends with ``;``."""

DIGITS = tuple("0123456789")
OPERATORS = tuple("+-*")
TRUTH = ("true", "false")
GATES = ("and", "or", "xor", "nand", "nor", "iff")
CUPS = tuple("abcde")
LETTERS = tuple("klmnop")
NODES = tuple("qrstuvwxyz")
LIST_OPERATIONS = ("reverse", "rotate", "flip")

SYMBOLS = (
    *(QUESTION, ASK, ANSWER, STEP, *"=,", *DIGITS, *OPERATORS, *TRUTH, *GATES, *CUPS, *LETTERS, *NODES),
    *LIST_OPERATIONS,
    *("ball", "swap", "first", "last", "from", "hops", "of", "is", "name"),
)
"""Every word that no seed changes, special tokens aside."""

_SYLLABLES = tuple(consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou")


def invent(n: int, ending: str, taken: Sequence[str], rng: np.random.Generator) -> tuple[str, ...]:
    """`n` different invented words of two syllables and an ending, none of them among `taken`.

    Parameters
    ----------
    n
        How many; there are 70 × 70 pairs of syllables.
    ending
        What every word ends with, a telling one such as ``burg`` for cities; may be empty.
    taken
        Words that exist already.
    rng
        Source of the draw.
    """
    words: list[str] = []
    seen = set(taken)
    while len(words) < n:
        first, second = rng.integers(len(_SYLLABLES), size=2)
        word = _SYLLABLES[first] + _SYLLABLES[second] + ending
        if word not in seen:
            seen.add(word)
            words.append(word)
    return tuple(words)
