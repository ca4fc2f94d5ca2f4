"""What the generators share: tables, draws that every version of Python repeats, and the shape of a question."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_NAMES = "Ann Ben Cara Dan Eva Finn Gina Hugo Ivy Jack Kate Leo Mia Noah Olga Paul Rosa Sam Tina Will"
NAMES = tuple(_NAMES.split())

LAST_YEAR = 2024
FACTS = Path(__file__).parent / "facts"


def table(name: str) -> list[dict[str, str]]:
    """The rows of facts/NAME.tsv."""
    lines = (FACTS / f"{name}.tsv").read_text(encoding="utf-8").splitlines()
    head = lines[0].split("\t")
    return [dict(zip(head, line.split("\t"), strict=True)) for line in lines[1:]]


class Draw:
    """Draws that use `random()` only: the one method whose sequence Python promises to keep."""

    def __init__(self, *seed: object) -> None:
        self._random = random.Random(":".join(map(str, seed))).random

    def below(self, n: int) -> int:
        """A whole number from 0 to n - 1."""
        return int(self._random() * n)

    def between(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return low + self.below(high - low + 1)

    def one(self, words: Sequence[T]) -> T:
        """One of them."""
        return words[self.below(len(words))]

    def shuffled(self, words: Sequence[T]) -> list[T]:
        """All of them in another order."""
        out = list(words)
        for last in range(len(out) - 1, 0, -1):
            other = self.below(last + 1)
            out[last], out[other] = out[other], out[last]
        return out

    def some(self, words: Sequence[T], n: int) -> list[T]:
        """Any n of them, in any order."""
        return self.shuffled(words)[:n]

    def even(self, words: Sequence[T], n: int) -> list[T]:
        """Any n, each word as often as the others (or once more), in any order."""
        rounds = -(-n // len(words))
        return self.shuffled([word for _ in range(rounds) for word in self.shuffled(words)][:n])


@dataclass(frozen=True)
class Draft:
    """A question and its answer, before it is one of a task's rows."""

    question: str
    answer: str
    key: str
    """What it asks, whatever the wording: two drafts with one key are one question."""
    cluster: str = ""
    """Items that stand or fall together; empty: the item itself."""
    aliases: tuple[str, ...] = ()
    """Other texts that are the answer too."""
    wrong: tuple[str, ...] = ()
    """Wrong answers to choose between; empty where the answer is a number."""
    scale: str = "number"
    """How far wrong numbers lie from the right one: number or year."""
    near: tuple[int, ...] = ()
    """Numbers that somebody gets who stops too early."""
    facts: tuple[str, ...] = ()
    """What one must know to answer."""
    covariates: dict[str, int] = field(default_factory=dict)
    rationale: str = ""
    chance: float = 0.0
    """Score of a guess where the answer is written, not chosen."""


def wrong_numbers(draw: Draw, draft: Draft, rank: int) -> list[str]:
    """Three wrong numbers, `rank` of them below the answer: so that its place among them tells nothing."""
    gold = int(draft.answer)
    if draft.scale == "year":
        offsets, top = [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15], LAST_YEAR
    else:
        offsets, top = [1, 2, 3, 4, 5, 6, 8, 10, 11, 12], 10**9
    found: list[int] = []
    for side in draw.shuffled([-1] * rank + [1] * (3 - rank)):
        near = [n for n in draft.near if (n - gold) * side > 0]
        fits = [*near, *(gold + side * n for n in draw.shuffled(offsets))]
        found.append(next(n for n in fits if 0 < n <= top and n not in found))
    return [str(n) for n in found]
