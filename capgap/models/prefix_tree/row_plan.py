"""From token sequences to rows: what one forward pass holds, so that no token is computed more often than it must.

Sorted sequences are the leaves of a tree in which a common beginning is one path. The tree is cut in two steps:

1. A beginning that several rows would repeat, and whose repetition costs more than a pass of its own, becomes a
   `TreeRow` that is *kept*: its keys and values stay in memory while the rows behind it run. So does each piece of a
   sequence that is longer than a row.
2. What lies behind one kept beginning is packed into rows of at most `row_tokens` new tokens, in sorted order, at the
   cuts that repeat the fewest tokens (dynamic programming: the cost of a cut is what both sides share).

The plan depends on the set of sequences alone, not on their order. Nothing here needs torch.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

__all__ = ["ScoredContinuation", "RowPlan", "TreeRow", "plan_rows"]

_PASS_TOKENS = 32
"""What an extra forward pass costs, in tokens: it reads all weights once more, however short it is."""


@dataclass(frozen=True)
class ScoredContinuation:
    """One continuation to be scored."""

    tokens: tuple[int, ...]
    """What the model reads: the context and the continuation without its last token."""
    continuation: tuple[int, ...]
    """What is scored; its first token is predicted at ``tokens[len(tokens) - len(continuation)]``."""

    @classmethod
    def of(cls, context: Sequence[int], continuation: Sequence[int], longest: int) -> "ScoredContinuation":
        """A continuation behind its context; one that is too long for `longest` tokens loses its beginning."""
        return cls(tuple([*context, *continuation][-(longest + 1) :][:-1]), tuple(continuation))

    @property
    def first(self) -> int:
        """Index in `tokens` at which the first token of the continuation is predicted."""
        return len(self.tokens) - len(self.continuation)


@dataclass(frozen=True)
class TreeRow:
    """One forward pass: new tokens as a forest, each tree growing out of the end of a kept beginning."""

    behind: int | None
    """Index of the row whose keys and values it needs, that row's own beginning included; None: nothing."""
    start: int
    """Tokens that the kept beginning holds; the depth of its first new token."""
    tokens: np.ndarray
    """New tokens in depth-first order, shape (n,), int64."""
    parents: np.ndarray
    """Index of each token's parent within the row, shape (n,); -1: the end of the kept beginning."""
    depths: np.ndarray
    """Position of each token in its sequence, shape (n,)."""
    kept: bool
    """Whether rows behind it need its keys and values; then it is one path."""


@dataclass(frozen=True)
class RowPlan:
    """Rows in an order in which every row follows the one that it stands behind."""

    rows: tuple[TreeRow, ...]
    """The forward passes."""
    places: tuple[tuple[tuple[int, np.ndarray], ...], ...]
    """For each sequence, where its tokens are: (row, indices within the row), in the order of the sequence."""

    @property
    def n_tokens(self) -> int:
        """Tokens computed by all rows together."""
        return sum(len(row.tokens) for row in self.rows)


def plan_rows(sequences: Sequence[Sequence[int]], row_tokens: int, *, beginning: int = 0) -> RowPlan:
    """Rows that hold every token of every sequence.

    Parameters
    ----------
    sequences
        Token ids; equal sequences share all their places. None may be empty.
    row_tokens
        New tokens in one row, at most.
    beginning
        Tokens common to all sequences that are kept in any case: other plans will stand behind them too.

    Returns
    -------
    Plan
        ``places[i]`` belongs to ``sequences[i]``.
    """
    # Big-endian bytes sort as the tokens do, and take a tenth of the memory of tuples of integers.
    packed = [np.asarray(sequence, dtype=">u4").tobytes() for sequence in sequences]
    unique = sorted(set(packed))
    planner = _RowPlanner([np.frombuffer(text, dtype=">u4").astype(np.int64) for text in unique], row_tokens)
    planner.cut(beginning)
    found = dict(zip(unique, planner.places, strict=True))
    return RowPlan(tuple(planner.rows), tuple(found[text] for text in packed))


class _RowPlanner:
    """Walks the tree of the sorted sequences from its root."""

    def __init__(self, sequences: list[np.ndarray], row_tokens: int) -> None:
        self._sequences = sequences
        self._lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
        self._budget = row_tokens
        self._shared = _shared_lengths(sequences)
        self.rows: list[TreeRow] = []
        self.places: list[tuple[tuple[int, np.ndarray], ...]] = [()] * len(sequences)

    def cut(self, beginning: int) -> None:
        """Rows for all sequences, behind so many tokens that are kept in any case."""
        behind, before = self._keep(0, 0, beginning, None, ()) if self._sequences else (None, ())
        # An explicit stack: a tree of long documents is deeper than Python's recursion allows.
        todo = [(0, len(self._sequences), beginning, behind, before)]
        while todo:
            first, last, start, behind, before = todo.pop()
            blocks = self._blocks(first, last, start)
            loose = sorted(set(range(first, last)) - {i for a, b, _ in blocks for i in range(a, b)})
            self._pack(loose, start, behind, before)
            for a, b, end in reversed(blocks):
                todo.append((a, b, end, *self._keep(a, start, end, behind, before)))

    def _keep(
        self, sequence: int, start: int, end: int, behind: int | None, before: tuple[tuple[int, np.ndarray], ...]
    ) -> tuple[int | None, tuple[tuple[int, np.ndarray], ...]]:
        """A kept beginning from `start` to `end`, in as many rows as it needs."""
        for low in range(start, end, self._budget):
            high = min(low + self._budget, end)
            tokens = self._sequences[sequence][low:high]
            n = len(tokens)
            row = TreeRow(behind, low, tokens, np.arange(-1, n - 1), np.arange(low, high), kept=True)
            self.rows.append(row)
            behind = len(self.rows) - 1
            before = (*before, (behind, np.arange(n)))
        return behind, before

    def _blocks(self, first: int, last: int, start: int) -> list[tuple[int, int, int]]:
        """Ranges of sequences with a beginning worth keeping, and where it ends: ``(first, last, end)``."""
        found = []
        todo = [(first, last)]
        while todo:
            a, b = todo.pop()
            beyond = self._size(a, b, start)
            if beyond <= self._budget:
                continue
            if b - a == 1:
                # One long sequence: whole rows of it are kept, the rest is packed with others.
                pieces = (int(self._lengths[a]) - start - 1) // self._budget
                found.append((a, b, start + pieces * self._budget))
                continue
            end = min(int(self._shared[a + 1 : b].min()), int(self._lengths[a:b].min()))
            repeats = -(-(beyond - (end - start)) // self._budget) - 1
            # Keeping it takes a pass, and leaves a row behind it and a row beside it that are not full.
            if repeats * (end - start) > 3 * _PASS_TOKENS or end - start >= self._budget:
                found.append((a, b, end))
            else:
                todo += self._children(a, b, max(end, start))
        return sorted(found)

    def _children(self, a: int, b: int, end: int) -> list[tuple[int, int]]:
        """The ranges into which ``a … b`` falls behind `end` common tokens."""
        cuts = [a, *(a + 1 + int(i) for i in np.flatnonzero(self._shared[a + 1 : b] <= end)), b]
        return list(pairwise(cuts))

    def _size(self, a: int, b: int, start: int) -> int:
        """Tokens of the tree of ``a … b`` beyond `start`."""
        return int(self._lengths[a:b].sum()) - start - int(np.maximum(self._shared[a + 1 : b], start).sum())

    def _pack(
        self, loose: list[int], start: int, behind: int | None, before: tuple[tuple[int, np.ndarray], ...]
    ) -> None:
        """Rows for sequences in sorted order, cut where the fewest tokens are repeated."""
        for i in loose:
            self.places[i] = before
        loose = [i for i in loose if self._lengths[i] > start]  # the others end where the kept beginning ends
        if not loose:
            return
        new = self._lengths[loose] - start
        common = np.zeros(len(loose), dtype=np.int64)
        for n in range(1, len(loose)):
            common[n] = max(int(self._shared[loose[n - 1] + 1 : loose[n] + 1].min()) - start, 0)
        for low, high in _cuts(new, common, self._budget):
            self._row(loose[low:high], common[low:high], start, behind, before)

    def _row(
        self,
        members: Sequence[int],
        common: np.ndarray,
        start: int,
        behind: int | None,
        before: tuple[tuple[int, np.ndarray], ...],
    ) -> None:
        tokens: list[np.ndarray] = []
        parents: list[np.ndarray] = []
        depths: list[np.ndarray] = []
        path = np.zeros(0, dtype=np.int64)
        count, index = 0, len(self.rows)
        for n, member in enumerate(members):
            new = self._sequences[member][start:]
            shared = int(common[n]) if n else 0  # what it shares with the member before it is there already
            fresh = np.arange(count, count + len(new) - shared)
            count += len(fresh)
            head = path[shared - 1] if shared else -1
            path = np.concatenate([path[:shared], fresh])
            tokens.append(new[shared:])
            parents.append(np.concatenate([[head], fresh[:-1]])[: len(fresh)])
            depths.append(np.arange(start + shared, start + len(new)))
            self.places[member] = (*before, (index, path))
        self.rows.append(
            TreeRow(behind, start, np.concatenate(tokens), np.concatenate(parents), np.concatenate(depths), kept=False)
        )


def _shared_lengths(sequences: list[np.ndarray]) -> np.ndarray:
    """Length of the common beginning of each sequence and the one before it; 0 for the first."""
    shared = np.zeros(len(sequences), dtype=np.int64)
    for n in range(1, len(sequences)):
        a, b = sequences[n - 1], sequences[n]
        m = min(len(a), len(b))
        differs = np.flatnonzero(a[:m] != b[:m])
        shared[n] = differs[0] if len(differs) else m
    return shared


def _cuts(new: np.ndarray, common: np.ndarray, budget: int) -> list[tuple[int, int]]:
    """Consecutive groups whose tree holds at most `budget` tokens, repeating as few tokens as possible.

    ``best[j]`` is the least cost of the first `j` sequences in whole groups; a group that starts at `i` repeats
    ``common[i]`` tokens and costs a pass. The candidates for `i` form a sliding window, kept as a monotone queue.
    """
    n = len(new)
    # size of the group i … j-1 = total[j] - total[i] + common[i]
    total = np.concatenate([[0], np.cumsum(new - common)])
    best = np.zeros(n + 1, dtype=np.int64)
    came_from = np.zeros(n + 1, dtype=np.int64)
    queue: deque[tuple[int, int]] = deque()
    for j in range(1, n + 1):
        i = j - 1
        cost = int(best[i]) + int(common[i]) + _PASS_TOKENS
        while queue and queue[-1][0] >= cost:
            queue.pop()
        queue.append((cost, i))
        # A single sequence that is too long stands alone.
        while len(queue) > 1 and total[j] - total[queue[0][1]] + common[queue[0][1]] > budget:
            queue.popleft()
        best[j], came_from[j] = queue[0]
    groups = []
    j = n
    while j > 0:
        groups.append((int(came_from[j]), j))
        j = int(came_from[j])
    return groups[::-1]
