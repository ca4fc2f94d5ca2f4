"""Work in equal parts, for several processes and machines."""

from collections.abc import Sequence
from typing import TypeVar

__all__ = ["shard_of"]

Thing = TypeVar("Thing")


def shard_of(things: Sequence[Thing], part: tuple[int, int]) -> Sequence[Thing]:
    """The k-th (from 0) of n consecutive parts that differ by one thing at most."""
    k, n = part
    return things[k * len(things) // n : (k + 1) * len(things) // n]
