"""Log-likelihoods of many continuations, row by row."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from capgap.models.prefix_tree.row_plan import RowPlan, ScoredContinuation, plan_rows
from capgap.models.prefix_tree.tree_forward import KeptLayers, row_logits, scores
from capgap.models.prefix_tree.tree_proof import TreeProof
from capgap.models.prefix_tree.tree_support import AttentionLayout, attention_of

__all__ = ["Answer", "TreeScorer"]

Answer = tuple[float, bool]
"""Log-likelihood in nats, and whether the continuation is what greedy decoding would write."""


class TreeScorer:
    """Scores pieces as a token tree.

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

    def plan(self, pieces: Sequence[ScoredContinuation]) -> RowPlan:
        """Rows for the pieces; the same whatever their order."""
        return plan_rows([piece.tokens for piece in pieces], self.row_tokens)

    def answers(
        self, pieces: Sequence[ScoredContinuation], plan: RowPlan, wanted: Collection[int]
    ) -> Iterator[dict[int, Answer]]:
        """The answers to some pieces, a row's worth at a time.

        Parameters
        ----------
        pieces, plan
            All pieces, and their plan.
        wanted
            Indices of the pieces to score; rows that none of them needs are left out.

        Yields
        ------
        dict
            Index → answer, of the pieces whose last token was in the row that has just run.
        """
        work = _ScoringWork(pieces, plan, wanted)
        kept: dict[int, KeptLayers] = {}
        partial: dict[int, list[tuple[np.ndarray, np.ndarray]]] = defaultdict(list)
        for index in work.rows:
            row = plan.rows[index]
            asked = work.asked[index]
            places = sorted({place for _, own, _ in asked for place in own})
            column = {place: n for n, place in enumerate(places)}
            with torch.inference_mode():
                logits, layers = row_logits(
                    self.model, self.attention, row, places or [0], None if row.behind is None else kept[row.behind]
                )
                at = [column[place] for _, own, _ in asked for place in own]
                values, greedy = scores(logits, at, [token for _, _, tokens in asked for token in tokens])
            if layers is not None:
                kept[index] = layers
            for gone in work.last_use.pop(index, ()):
                kept.pop(gone, None)
            low = 0
            done: dict[int, Answer] = {}
            for piece, own, _ in asked:
                partial[piece].append((values[low : low + len(own)], greedy[low : low + len(own)]))
                low += len(own)
                if work.ends[piece] == index:
                    parts = partial.pop(piece)
                    done[piece] = (float(sum(v.sum() for v, _ in parts)), bool(all(g.all() for _, g in parts)))
            if done:
                yield done


class _ScoringWork:
    """Which rows must run for some pieces, and what is scored in each."""

    def __init__(self, pieces: Sequence[ScoredContinuation], plan: RowPlan, wanted: Collection[int]) -> None:
        self.asked: dict[int, list[tuple[int, list[int], list[int]]]] = defaultdict(list)
        self.ends: dict[int, int] = {}
        needed: set[int] = set()
        for index in sorted(wanted):
            piece = pieces[index]
            depth = 0
            for row, places in plan.places[index]:
                needed.add(row)
                low = max(piece.first - depth, 0)
                own = places[low:].tolist()
                if own:
                    offset = depth + low - piece.first
                    self.asked[row].append((index, own, list(piece.continuation[offset : offset + len(own)])))
                    self.ends[index] = row
                depth += len(places)
        self.rows = sorted(needed)
        # A kept beginning is dropped after the last row that stands behind it.
        last: dict[int, int] = {}
        for row in self.rows:
            behind = plan.rows[row].behind
            if behind is not None:
                last[behind] = row
        self.last_use: dict[int, list[int]] = defaultdict(list)
        for kept, user in last.items():
            self.last_use[user].append(kept)
