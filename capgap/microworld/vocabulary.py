"""Vocabulary of the microworld: fixed marks and symbols, and invented names drawn from a seed."""

from collections.abc import Sequence

import numpy as np

PAD_TOKEN, EOS_TOKEN, UNKNOWN_TOKEN = "<pad>", "<eos>", "<unk>"
SPECIAL_TOKENS = (PAD_TOKEN, EOS_TOKEN, UNKNOWN_TOKEN)

Q_MARKER, QUESTION_END, ANSWER, STEP_END = "Q", "?", "A", ";"
"""A question runs from ``Q`` to ``?``, the answer follows ``A``; every statement and every step ends with ``;``."""

DIGITS = tuple("0123456789")
OPERATORS = tuple("+-*")
BOOLS = ("true", "false")
GATES = ("and", "or", "xor", "nand", "nor", "iff")
CUPS = tuple("abcde")
LETTERS = tuple("klmnop")
NODES = tuple("qrstuvwxyz")
LIST_OPERATIONS = ("reverse", "rotate", "flip")

FIXED_WORDS = (
    *(Q_MARKER, QUESTION_END, ANSWER, STEP_END, *"=,", *DIGITS, *OPERATORS, *BOOLS, *GATES, *CUPS, *LETTERS, *NODES),
    *LIST_OPERATIONS,
    *("ball", "swap", "first", "last", "from", "hops", "of", "is", "name"),
)
"""Every word that no seed changes, special tokens aside."""

_SYLLABLES = tuple(consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou")


def new_words(n: int, suffix: str, existing_words: Sequence[str], rng: np.random.Generator) -> tuple[str, ...]:
    """`n` different invented words of two syllables and an ending, none of them among `existing_words`.

    Parameters
    ----------
    n
        How many; there are 70 × 70 pairs of syllables.
    suffix
        What every word ends with, a telling one such as ``burg`` for cities; may be empty.
    existing_words
        Words that exist already.
    rng
        Source of the draw.
    """
    words: list[str] = []
    seen = set(existing_words)
    while len(words) < n:
        first_syllable, second_syllable = rng.integers(len(_SYLLABLES), size=2)
        word = _SYLLABLES[first_syllable] + _SYLLABLES[second_syllable] + suffix
        if word not in seen:
            seen.add(word)
            words.append(word)
    return tuple(words)
