"""Shards: consecutive, nearly equal parts of work, for several processes and machines."""

from collections.abc import Sequence
from typing import TypeVar

_Item = TypeVar("_Item")


def select_shard(items: Sequence[_Item], shard: tuple[int, int]) -> Sequence[_Item]:
    """The k-th (from 0) of n consecutive shards, ``shard = (k, n)``; their sizes differ by one at most."""
    k, n = shard
    return items[k * len(items) // n : (k + 1) * len(items) // n]
