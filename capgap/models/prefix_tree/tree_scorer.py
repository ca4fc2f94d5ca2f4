"""`TreeScorer`: log-likelihoods of many continuations over a prefix tree, row by row."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from capgap.models.prefix_tree.row_plan import RowPlan, ScoredContinuation, plan_rows
from capgap.models.prefix_tree.tree_forward import CachedPrefix, row_logits, token_logprobs
from capgap.models.prefix_tree.tree_proof import ProofRecord
from capgap.models.prefix_tree.tree_support import AttentionLayout, read_attention_layout

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
        self.attention: AttentionLayout = read_attention_layout(model)
        self.proven = ProofRecord()

    def plan(self, continuations: Sequence[ScoredContinuation]) -> RowPlan:
        """Rows for the continuations; the same whatever their order."""
        return plan_rows([continuation.tokens for continuation in continuations], self.row_tokens)

    def log_likelihoods(
        self, continuations: Sequence[ScoredContinuation], plan: RowPlan, to_score: Collection[int]
    ) -> Iterator[dict[int, LogLikelihood]]:
        """The log-likelihoods of some continuations, a row's worth at a time.

        Parameters
        ----------
        continuations, plan
            All continuations, and their plan.
        to_score
            Indices of the continuations to score; rows that none of them needs are left out.

        Yields
        ------
        dict
            Index → log-likelihood, of the continuations whose last token was in the row that has just run.
        """
        schedule = _ScoringSchedule(continuations, plan, to_score)
        cached_prefixes: dict[int, CachedPrefix] = {}
        # Of continuations that several rows score: log-probabilities and greediness, a pair of arrays for each row.
        partial_scores: dict[int, list[tuple[np.ndarray, np.ndarray]]] = defaultdict(list)
        for index in schedule.rows:
            row = plan.rows[index]
            row_segments = schedule.segments[index]
            row_positions = sorted({row_position for segment in row_segments for row_position in segment.row_positions})
            column = {row_position: n for n, row_position in enumerate(row_positions)}
            with torch.inference_mode():
                prefix = None if row.prefix_row is None else cached_prefixes[row.prefix_row]
                logits, layers = row_logits(self.model, self.attention, row, row_positions or [0], prefix)
                columns = [column[row_position] for segment in row_segments for row_position in segment.row_positions]
                tokens = [token for segment in row_segments for token in segment.tokens]
                values, greedy = token_logprobs(logits, columns, tokens)
            if layers is not None:
                cached_prefixes[index] = layers
            for freed_row in schedule.freed_after.pop(index, ()):
                cached_prefixes.pop(freed_row, None)
            low = 0
            complete_scores: dict[int, LogLikelihood] = {}
            for segment in row_segments:
                high = low + len(segment.row_positions)
                partial_scores[segment.continuation].append((values[low:high], greedy[low:high]))
                low = high
                if schedule.last_row[segment.continuation] == index:
                    row_scores = partial_scores.pop(segment.continuation)
                    total = float(sum(logprobs.sum() for logprobs, _ in row_scores))
                    complete_scores[segment.continuation] = (total, bool(all(is_top.all() for _, is_top in row_scores)))
            if complete_scores:
                yield complete_scores


@dataclass(frozen=True)
class _ContinuationSegment:
    """The tokens of one continuation that one row scores."""

    continuation: int
    """Index of the continuation."""
    row_positions: list[int]
    """Indices within the row at which its tokens are predicted."""
    tokens: list[int]
    """The tokens predicted there."""


class _ScoringSchedule:
    """Schedule of rows for some continuations: which must run, what each scores, when cached prefixes are freed."""

    def __init__(self, continuations: Sequence[ScoredContinuation], plan: RowPlan, to_score: Collection[int]) -> None:
        self.segments: dict[int, list[_ContinuationSegment]] = defaultdict(list)
        self.last_row: dict[int, int] = {}
        """Continuation → the row that scores its last token."""
        rows_to_run: set[int] = set()
        for index in sorted(to_score):
            continuation = continuations[index]
            depth = 0  # of the first token of a location in the sequence
            for row, row_positions in plan.locations[index]:
                rows_to_run.add(row)
                low = max(continuation.first - depth, 0)
                prediction_positions = row_positions[low:].tolist()
                if prediction_positions:
                    offset = depth + low - continuation.first
                    tokens = list(continuation.continuation[offset : offset + len(prediction_positions)])
                    self.segments[row].append(_ContinuationSegment(index, prediction_positions, tokens))
                    self.last_row[index] = row
                depth += len(row_positions)
        self.rows = sorted(rows_to_run)
        # A cached prefix is dropped after the last row that stands behind it.
        last_user = {prefix: row for row in self.rows if (prefix := plan.rows[row].prefix_row) is not None}
        self.freed_after: dict[int, list[int]] = defaultdict(list)
        for prefix, row in last_user.items():
            self.freed_after[row].append(prefix)
