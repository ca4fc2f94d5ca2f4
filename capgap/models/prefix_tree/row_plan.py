"""Planner of forward passes over a prefix tree: no token is computed more often than it must be.

Sorted sequences are the leaves of a tree in which a common prefix is one path. The tree is cut in two steps:

1. A prefix that several rows would repeat, and whose repetition costs more than a pass of its own, becomes a cached
   `TreeRow`: its keys and values stay in memory while the rows behind it run. So does each piece of a sequence that is
   longer than a row.
2. What lies behind one cached prefix is packed into rows of at most `row_tokens` new tokens, in sorted order, at the
   cuts that repeat the fewest tokens (dynamic programming: the cost of a cut is what both sides share).

The plan depends on the set of sequences alone, not on their order. Nothing here needs torch.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

_PASS_COST_IN_TOKENS = 32
"""Cost of an extra forward pass, in tokens: it reads all weights once more, however short it is."""

RowTokenIndices = tuple[tuple[int, np.ndarray], ...]
"""Where the tokens of a sequence are, in its order: (index of a row, indices within that row), …"""


@dataclass(frozen=True)
class ScoredContinuation:
    """A continuation to be scored behind its context, as token ids."""

    tokens: tuple[int, ...]
    """What the model reads: the context and the continuation without its last token."""
    continuation: tuple[int, ...]
    """What is scored; its first token is predicted at ``tokens[len(tokens) - len(continuation)]``."""
    n_cut: int = field(default=0, compare=False)
    """Tokens of the context that were cut off."""

    @classmethod
    def of(cls, context: Sequence[int], continuation: Sequence[int], max_length: int) -> "ScoredContinuation":
        """A continuation behind its context; where both exceed `max_length` tokens, the beginning is cut off."""
        n_cut = max(0, len(context) + len(continuation) - max_length - 1)
        return cls(tuple([*context, *continuation][-(max_length + 1) :][:-1]), tuple(continuation), n_cut)

    @property
    def first(self) -> int:
        """Index in `tokens` at which the first token of the continuation is predicted."""
        return len(self.tokens) - len(self.continuation)


@dataclass(frozen=True)
class TreeRow:
    """One forward pass: new tokens as a forest, each tree growing out of the end of a cached prefix."""

    prefix_row: int | None
    """Index of the row whose keys and values it needs, that row's own prefix included; None: nothing."""
    start: int
    """Tokens of the cached prefix; the depth of the first new token."""
    tokens: np.ndarray
    """New tokens in depth-first order, shape (n,), int64."""
    parents: np.ndarray
    """Index of each token's parent within the row, shape (n,); -1: the end of the cached prefix."""
    depths: np.ndarray
    """Position of each token in its sequence, shape (n,)."""
    is_cached: bool
    """Whether rows behind it need its keys and values; then it is one path."""


@dataclass(frozen=True)
class RowPlan:
    """Rows in an order in which every row follows the one that holds its prefix."""

    rows: tuple[TreeRow, ...]
    """The forward passes."""
    locations: tuple[RowTokenIndices, ...]
    """The tokens of each sequence."""

    @property
    def n_tokens(self) -> int:
        """Tokens computed by all rows together."""
        return sum(len(row.tokens) for row in self.rows)


def plan_rows(sequences: Sequence[Sequence[int]], row_tokens: int, *, common_prefix: int = 0) -> RowPlan:
    """Rows that hold every token of every sequence.

    Parameters
    ----------
    sequences
        Token ids; equal sequences share all their locations. None may be empty.
    row_tokens
        New tokens in one row, at most.
    common_prefix
        Tokens common to all sequences that are cached in any case: other plans will stand behind them too.

    Returns
    -------
    RowPlan
        ``locations[i]`` belongs to ``sequences[i]``.
    """
    # Big-endian bytes sort as the tokens do, and take a tenth of the memory of tuples of integers.
    packed = [np.asarray(sequence, dtype=">u4").tobytes() for sequence in sequences]
    unique_packed = sorted(set(packed))
    planner = _RowPlanner([np.frombuffer(text, dtype=">u4").astype(np.int64) for text in unique_packed], row_tokens)
    planner.plan(common_prefix)
    locations = dict(zip(unique_packed, planner.locations, strict=True))
    return RowPlan(tuple(planner.rows), tuple(locations[text] for text in packed))


class _RowPlanner:
    """Walks the tree of the sorted, distinct sequences from its root; a subtree is a range of their indices."""

    def __init__(self, sequences: list[np.ndarray], row_tokens: int) -> None:
        self._sequences = sequences
        self._lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
        self._budget = row_tokens
        self._shared = _measure_shared_prefixes(sequences)
        self.rows: list[TreeRow] = []
        self.locations: list[RowTokenIndices] = [()] * len(sequences)

    def plan(self, common_prefix: int) -> None:
        """Rows for all sequences, behind so many tokens that are cached in any case."""
        root: tuple[int | None, RowTokenIndices] = (None, ())
        if self._sequences:
            root = self._cache_prefix(0, 0, common_prefix, *root)
        # An explicit stack: a tree of long documents is deeper than Python's recursion allows.
        subtrees = [(0, len(self._sequences), common_prefix, *root)]
        while subtrees:
            leaf_start, leaf_end, start, prefix_row, prefix = subtrees.pop()
            cacheable_subtrees = self._find_cacheable_subtrees(leaf_start, leaf_end, start)
            cacheable_leaves = {index for low, high, _ in cacheable_subtrees for index in range(low, high)}
            self._pack_in_rows(sorted(set(range(leaf_start, leaf_end)) - cacheable_leaves), start, prefix_row, prefix)
            for low, high, end in reversed(cacheable_subtrees):
                subtrees.append((low, high, end, *self._cache_prefix(low, start, end, prefix_row, prefix)))

    def _cache_prefix(
        self, sequence: int, start: int, end: int, prefix_row: int | None, prefix: RowTokenIndices
    ) -> tuple[int | None, RowTokenIndices]:
        """Cached rows for the tokens from `start` to `end` of a sequence, as many as they need."""
        for low in range(start, end, self._budget):
            high = min(low + self._budget, end)
            tokens = self._sequences[sequence][low:high]
            n = len(tokens)
            row = TreeRow(prefix_row, low, tokens, np.arange(-1, n - 1), np.arange(low, high), is_cached=True)
            self.rows.append(row)
            prefix_row = len(self.rows) - 1
            prefix = (*prefix, (prefix_row, np.arange(n)))
        return prefix_row, prefix

    def _find_cacheable_subtrees(self, leaf_start: int, leaf_end: int, start: int) -> list[tuple[int, int, int]]:
        """Subtrees with a prefix worth caching, and where it ends: ``(first, last, end)``, in order."""
        cacheable_subtrees = []
        candidates = [(leaf_start, leaf_end)]
        while candidates:
            low, high = candidates.pop()
            new_tokens = self._tree_size(low, high, start)
            if new_tokens <= self._budget:
                continue
            if high - low == 1:
                # One long sequence: whole rows of it are cached, the rest is packed with others.
                n_rows = (int(self._lengths[low]) - start - 1) // self._budget
                cacheable_subtrees.append((low, high, start + n_rows * self._budget))
                continue
            end = min(int(self._shared[low + 1 : high].min()), int(self._lengths[low:high].min()))
            repeats = -(-(new_tokens - (end - start)) // self._budget) - 1
            # Caching it takes a pass, and leaves a row behind it and a row beside it that are not full.
            if repeats * (end - start) > 3 * _PASS_COST_IN_TOKENS or end - start >= self._budget:
                cacheable_subtrees.append((low, high, end))
            else:
                candidates += self._split_subtree(low, high, max(end, start))
        return sorted(cacheable_subtrees)

    def _split_subtree(self, leaf_start: int, leaf_end: int, depth: int) -> list[tuple[int, int]]:
        """The subtrees into which a subtree falls behind `depth` common tokens."""
        child_starts = leaf_start + 1 + np.flatnonzero(self._shared[leaf_start + 1 : leaf_end] <= depth)
        return list(pairwise([leaf_start, *child_starts.tolist(), leaf_end]))

    def _tree_size(self, leaf_start: int, leaf_end: int, start: int) -> int:
        """Tokens of a subtree beyond depth `start`: all tokens, less those shared with the sequence before."""
        n_shared = np.maximum(self._shared[leaf_start + 1 : leaf_end], start).sum()
        return int(self._lengths[leaf_start:leaf_end].sum()) - start - int(n_shared)

    def _pack_in_rows(self, sequences: list[int], start: int, prefix_row: int | None, prefix: RowTokenIndices) -> None:
        """Rows for sequences in sorted order, cut where the fewest tokens are repeated."""
        for index in sequences:
            self.locations[index] = prefix
        sequences = [index for index in sequences if self._lengths[index] > start]  # others end with the prefix
        if not sequences:
            return
        suffix_lengths = self._lengths[sequences] - start
        # Tokens behind the prefix that each shares with the one before it; those between may be in cached rows.
        overlap = np.zeros(len(sequences), dtype=np.int64)
        for n, (previous, current_index) in enumerate(pairwise(sequences), start=1):
            overlap[n] = max(int(self._shared[previous + 1 : current_index + 1].min()) - start, 0)
        for low, high in _cheapest_groups(suffix_lengths, overlap, self._budget):
            self._add_row(sequences[low:high], overlap[low:high], start, prefix_row, prefix)

    def _add_row(
        self, members: Sequence[int], overlap: np.ndarray, start: int, prefix_row: int | None, prefix: RowTokenIndices
    ) -> None:
        """One row that holds the tree of some sequences, in depth-first order."""
        tokens: list[np.ndarray] = []
        parents: list[np.ndarray] = []
        token_depths: list[np.ndarray] = []
        path = np.zeros(0, dtype=np.int64)  # indices within the row of the member's tokens
        n_tokens, row = 0, len(self.rows)
        for n, member in enumerate(members):
            suffix = self._sequences[member][start:]
            n_shared = int(overlap[n]) if n else 0  # what it shares with the member before it is in the row already
            new_indices = np.arange(n_tokens, n_tokens + len(suffix) - n_shared)
            n_tokens += len(new_indices)
            parent = path[n_shared - 1] if n_shared else -1
            path = np.concatenate([path[:n_shared], new_indices])
            tokens.append(suffix[n_shared:])
            parents.append(np.concatenate([[parent], new_indices[:-1]])[: len(new_indices)])
            token_depths.append(np.arange(start + n_shared, start + len(suffix)))
            self.locations[member] = (*prefix, (row, path))
        columns = [np.concatenate(column) for column in (tokens, parents, token_depths)]
        self.rows.append(TreeRow(prefix_row, start, columns[0], columns[1], columns[2], is_cached=False))


def _measure_shared_prefixes(sequences: list[np.ndarray]) -> np.ndarray:
    """Length of the common prefix of each sequence and the one before it, shape (sequences,); 0 for the first."""
    shared_lengths = np.zeros(len(sequences), dtype=np.int64)
    for n, (previous, current_sequence) in enumerate(pairwise(sequences), start=1):
        length = min(len(previous), len(current_sequence))
        mismatch_positions = np.flatnonzero(previous[:length] != current_sequence[:length])
        shared_lengths[n] = mismatch_positions[0] if len(mismatch_positions) else length
    return shared_lengths


def _cheapest_groups(suffix_lengths: np.ndarray, overlap: np.ndarray, token_budget: int) -> list[tuple[int, int]]:
    """Consecutive groups whose tree holds at most `token_budget` tokens, repeating as few tokens as possible.

    ``best[j]`` is the least cost of the first `j` sequences in whole groups; a group that starts at `i` repeats
    ``common[i]`` tokens and costs a pass. The candidates for `i` form a sliding window, kept as a monotone queue.

    Parameters
    ----------
    suffix_lengths, overlap
        Tokens of each sequence behind the prefix, and those of them shared with the one before; shape (sequences,).
    token_budget
        Tokens of a group, at most; a single sequence that is longer stands alone.
    """
    n = len(suffix_lengths)
    # size of the group i … j-1 = total[j] - total[i] + common[i]
    total = np.concatenate([[0], np.cumsum(suffix_lengths - overlap)])
    min_costs = np.zeros(n + 1, dtype=np.int64)
    best_group_starts = np.zeros(n + 1, dtype=np.int64)
    queue: deque[tuple[int, int]] = deque()  # (cost, i), costs ascending: the front is the best start still in reach
    for j in range(1, n + 1):
        i = j - 1
        cost = int(min_costs[i]) + int(overlap[i]) + _PASS_COST_IN_TOKENS
        while queue and queue[-1][0] >= cost:
            queue.pop()
        queue.append((cost, i))
        while len(queue) > 1 and total[j] - total[queue[0][1]] + overlap[queue[0][1]] > token_budget:
            queue.popleft()
        min_costs[j], best_group_starts[j] = queue[0]
    group_index_ranges = []
    j = n
    while j > 0:
        group_index_ranges.append((int(best_group_starts[j]), j))
        j = int(best_group_starts[j])
    return group_index_ranges[::-1]
