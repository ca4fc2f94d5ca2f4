"""`TreeScorer`: log-likelihoods of many continuations over a prefix tree, row by row."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from capgap.models.prefix_tree.row_plan import RowPlan, ScoredContinuation, plan_rows
from capgap.models.prefix_tree.tree_forward import CachedPrefix, row_logits, token_logprobs
from capgap.models.prefix_tree.tree_proof import TreeProof
from capgap.models.prefix_tree.tree_support import AttentionLayout, attention_of

LogLikelihood = tuple[float, bool]
"""Log-likelihood in nats, and whether the continuation is what greedy decoding would write."""


class TreeScorer:
    """Scores continuations as a token tree.

    Parameters
    ----------
    model
        A causal language model of transformers that `unsupported` has nothing against.
    row_tokens
        New tokens in one forward pass, at most.
    """

    def __init__(self, model: Any, row_tokens: int) -> None:
        self.model = model
        self.row_tokens = row_tokens
        self.attention: AttentionLayout = attention_of(model)
        self.proven = TreeProof()

    def plan(self, continuations: Sequence[ScoredContinuation]) -> RowPlan:
        """Rows for the continuations; the same whatever their order."""
        return plan_rows([continuation.tokens for continuation in continuations], self.row_tokens)

    def log_likelihoods(
        self, continuations: Sequence[ScoredContinuation], plan: RowPlan, wanted: Collection[int]
    ) -> Iterator[dict[int, LogLikelihood]]:
        """The log-likelihoods of some continuations, a row's worth at a time.

        Parameters
        ----------
        continuations, plan
            All continuations, and their plan.
        wanted
            Indices of the continuations to score; rows that none of them needs are left out.

        Yields
        ------
        dict
            Index → log-likelihood, of the continuations whose last token was in the row that has just run.
        """
        work = _ScoringWork(continuations, plan, wanted)
        cached: dict[int, CachedPrefix] = {}
        # Of continuations that several rows score: log-probabilities and greediness, a pair of arrays for each row.
        partial: dict[int, list[tuple[np.ndarray, np.ndarray]]] = defaultdict(list)
        for index in work.rows:
            row = plan.rows[index]
            segments = work.segments[index]
            places = sorted({place for segment in segments for place in segment.places})
            column = {place: n for n, place in enumerate(places)}
            with torch.inference_mode():
                prefix = None if row.prefix_row is None else cached[row.prefix_row]
                logits, layers = row_logits(self.model, self.attention, row, places or [0], prefix)
                columns = [column[place] for segment in segments for place in segment.places]
                tokens = [token for segment in segments for token in segment.tokens]
                values, greedy = token_logprobs(logits, columns, tokens)
            if layers is not None:
                cached[index] = layers
            for unused in work.freed_after.pop(index, ()):
                cached.pop(unused, None)
            low = 0
            complete: dict[int, LogLikelihood] = {}
            for segment in segments:
                high = low + len(segment.places)
                partial[segment.continuation].append((values[low:high], greedy[low:high]))
                low = high
                if work.last_row[segment.continuation] == index:
                    parts = partial.pop(segment.continuation)
                    total = float(sum(logprobs.sum() for logprobs, _ in parts))
                    complete[segment.continuation] = (total, bool(all(flags.all() for _, flags in parts)))
            if complete:
                yield complete


@dataclass(frozen=True)
class _Segment:
    """The tokens of one continuation that one row scores."""

    continuation: int
    """Index of the continuation."""
    places: list[int]
    """Indices within the row at which its tokens are predicted."""
    tokens: list[int]
    """The tokens predicted there."""


class _ScoringWork:
    """Schedule of rows for some continuations: which must run, what each scores, when cached prefixes are freed."""

    def __init__(self, continuations: Sequence[ScoredContinuation], plan: RowPlan, wanted: Collection[int]) -> None:
        self.segments: dict[int, list[_Segment]] = defaultdict(list)
        self.last_row: dict[int, int] = {}
        """Continuation → the row that scores its last token."""
        needed: set[int] = set()
        for index in sorted(wanted):
            continuation = continuations[index]
            depth = 0  # of the first token of a location in the sequence
            for row, places in plan.locations[index]:
                needed.add(row)
                low = max(continuation.first - depth, 0)
                scored_places = places[low:].tolist()
                if scored_places:
                    offset = depth + low - continuation.first
                    tokens = list(continuation.continuation[offset : offset + len(scored_places)])
                    self.segments[row].append(_Segment(index, scored_places, tokens))
                    self.last_row[index] = row
                depth += len(places)
        self.rows = sorted(needed)
        # A cached prefix is dropped after the last row that stands behind it.
        last_user = {prefix: row for row in self.rows if (prefix := plan.rows[row].prefix_row) is not None}
        self.freed_after: dict[int, list[int]] = defaultdict(list)
        for prefix, row in last_user.items():
            self.freed_after[row].append(prefix)
