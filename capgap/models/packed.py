"""Many sequences in one forward pass without padding, none of which sees another.

A row is sequences laid end to end. Everything in a transformer but attention looks at one token at a time, so only
attention has to know where a sequence ends: each layer lays its queries, keys and values out as grids of sequences of
like length, filled up on the right, where a causal model never looks, and takes the rows out again. No mask over the
whole row is ever made, and no token pays for the length of the row.

Training, the teacher's passes and the proof all run through `Packed.hidden`. Models that cannot be run so (states,
biases by distance, attention of their own) are found by `Packed.prove` and run padded, one sequence a line.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface

__all__ = ["PackedGrid", "PackedBackbone", "PackedRow"]

_NAME = "capgap_packed"
_LIKE = 0.75  # sequences of a grid are at least so long as a share of the longest
_SHORT = 64  # below this, a call costs more than the padding it would spare
_CLOSE = 1e-3  # of the scale of the hidden states: rounding passes, a leak doesn't (PEERS: 0.08 to 0.38)


@dataclass(frozen=True)
class PackedGrid:
    """Sequences of like length, side by side."""

    index: torch.Tensor
    """Where each of their tokens lies in the row; padding repeats the last. Shape (sequences, width)."""
    valid: torch.Tensor
    """Which of them are no padding; bool, shape (sequences, width)."""


@dataclass(frozen=True)
class PackedRow:
    """Sequences that share one forward pass."""

    lengths: tuple[int, ...]
    """Tokens of each, virtual ones included; they lie end to end in this order."""
    device: str | torch.device = "cpu"
    """Where the pass runs."""

    @property
    def n_tokens(self) -> int:
        """Tokens of all."""
        return sum(self.lengths)

    @cached_property
    def positions(self) -> torch.Tensor:
        """Each token's place in its sequence, shape (tokens,)."""
        return self._tensor(np.concatenate([np.arange(length) for length in self.lengths]))

    @cached_property
    def grids(self) -> tuple[PackedGrid, ...]:
        """The row as grids."""
        starts = np.concatenate([[0], np.cumsum(self.lengths)[:-1]])
        groups: list[list[int]] = []
        for sequence in np.argsort(-np.asarray(self.lengths), kind="stable").tolist():
            width = self.lengths[groups[-1][0]] if groups else 0
            if not groups or (width > _SHORT and self.lengths[sequence] < _LIKE * width):
                groups.append([])
            groups[-1].append(sequence)
        grids = []
        for group in groups:
            lengths = np.asarray([self.lengths[sequence] for sequence in group])
            place = np.arange(lengths.max())
            index = starts[group][:, None] + np.minimum(place, lengths[:, None] - 1)
            grids.append(PackedGrid(self._tensor(index), self._tensor(place < lengths[:, None])))
        return tuple(grids)

    @cached_property
    def whole(self) -> PackedGrid:
        """All sequences in one grid, in their order."""
        starts = np.concatenate([[0], np.cumsum(self.lengths)[:-1]])
        lengths, place = np.asarray(self.lengths), np.arange(max(self.lengths))
        index = starts[:, None] + np.minimum(place, lengths[:, None] - 1)
        return PackedGrid(self._tensor(index), self._tensor(place < lengths[:, None]))

    @cached_property
    def spread(self) -> torch.Tensor:
        """The grids' indices one after another: row → grids. Shape (cells,)."""
        return torch.cat([grid.index.flatten() for grid in self.grids])

    @cached_property
    def gather(self) -> torch.Tensor:
        """Which cell of the grids holds each token: grids → row. Shape (tokens,)."""
        valid = torch.cat([grid.valid.flatten() for grid in self.grids])
        cells = valid.nonzero().squeeze(1)
        order = torch.empty_like(cells)
        order[self.spread[cells]] = cells
        return order

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)


class _GatherRows(torch.autograd.Function):
    """Rows of a tensor in another order, some repeated as padding whose gradient is zero; backward is a gather too."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, index: torch.Tensor, back: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(back)
        return values.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (back,) = ctx.saved_tensors
        return gradients[0].index_select(0, back), None, None


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    row: PackedRow | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within the sequences of `row`; tensors of shape (1, heads, tokens, width) as transformers'."""
    if row is None:
        raise RuntimeError(f"{type(module).__name__} does not hand on the row")
    heads, tokens = query.shape[1], query.shape[2]
    repeated = heads // key.shape[1]
    spread, gather = row.spread, row.gather
    rearranged: Any = _GatherRows.apply
    cells = [rearranged(_by_token(states), spread, gather) for states in (query, key, value)]
    done, low = [], 0
    for grid in row.grids:
        n, width = grid.index.shape
        high = low + n * width
        q, k, v = (states[low:high].view(n, width, -1, states.shape[-1]).transpose(1, 2) for states in cells)
        if repeated > 1:
            k, v = (states.repeat_interleave(repeated, dim=1) for states in (k, v))
        seen = _within(width, sliding_window, query.device)
        if softcap is not None:
            out = _capped(q, k, v, seen, scaling, dropout, softcap)
        else:
            out = scaled_dot_product_attention(
                q, k, v, attn_mask=seen, dropout_p=dropout, is_causal=seen is None, scale=scaling
            )
        done.append(out.transpose(1, 2).reshape(n * width, heads, -1))
        low = high
    flat = done[0] if len(done) == 1 else torch.cat(done)
    # Padding is left out here, so that what its queries computed gets no gradient.
    taken: Any = _GatherTokens.apply
    return taken(flat, gather).view(1, tokens, heads, -1), None


class _GatherTokens(torch.autograd.Function):
    """The cells that hold tokens; in backward the others get zeros."""

    @staticmethod
    def forward(ctx: Any, cells: torch.Tensor, gather: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(gather)
        ctx.shape = cells.shape
        return cells.index_select(0, gather)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        (gather,) = ctx.saved_tensors
        spread = gradients[0].new_zeros(ctx.shape)
        spread.index_copy_(0, gather, gradients[0])
        return spread, None


def _by_token(states: torch.Tensor) -> torch.Tensor:
    """(1, heads, tokens, width) → (tokens, heads, width)."""
    return states[0].transpose(0, 1).contiguous()


def _within(width: int, window: int | None, device: torch.device) -> torch.Tensor | None:
    """What each place of a grid sees where a window is narrower than the grid; None: everything before it."""
    if window is None or width <= window:
        return None
    place = torch.arange(width, device=device)
    distance = place[:, None] - place[None, :]
    return (distance >= 0) & (distance < window)


def _capped(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    seen: torch.Tensor | None,
    scaling: float | None,
    dropout: float,
    cap: float,
) -> torch.Tensor:
    """Attention whose scores are bent to stay below a cap, which no kernel of torch's does."""
    width = query.shape[2]
    if seen is None:
        seen = torch.ones(width, width, dtype=torch.bool, device=query.device).tril()
    scores = (query @ key.transpose(2, 3)) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = torch.tanh(scores / cap) * cap
    weights = scores.masked_fill(~seen, torch.finfo(scores.dtype).min).float().softmax(dim=-1).to(query.dtype)
    return torch.nn.functional.dropout(weights, dropout) @ value


AttentionInterface.register(_NAME, _attention)
AttentionMaskInterface.register(_NAME, lambda *args, **kwargs: None)


class PackedBackbone:
    """The backbone of a causal language model over rows.

    Parameters
    ----------
    model
        A causal language model of transformers, LoRA layers in it or not; not peft's wrapper.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.backbone = model.get_decoder() if hasattr(model, "get_decoder") else model.base_model
        self.why_not: str | None = None
        """Why it runs padded; None: it runs packed."""

    def hidden(self, ids: torch.Tensor, row: PackedRow, *, embeds: torch.Tensor | None = None) -> torch.Tensor:
        """The last hidden states: what the language-model head is given.

        Parameters
        ----------
        ids
            Token ids, shape (tokens,).
        row
            Which of them belong together.
        embeds
            Embeddings to use instead of the ids', shape (tokens, width).

        Returns
        -------
        torch.Tensor
            Shape (tokens, width).
        """
        if self.why_not is not None:
            return self._padded(ids, row, embeds)
        given = {"input_ids": ids[None]} if embeds is None else {"inputs_embeds": embeds[None]}
        states: torch.Tensor = self.backbone(
            **given, position_ids=row.positions[None], attention_mask=None, use_cache=False, row=row
        ).last_hidden_state[0]
        return states

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Whatever runs in here, backward passes included, attends within sequences."""
        if self.why_not is not None:
            yield
            return
        config = self.backbone.config
        before = config._attn_implementation
        config._attn_implementation = _NAME
        try:
            yield
        finally:
            config._attn_implementation = before

    def prove(self, sequences: Sequence[Sequence[int]]) -> None:
        """Run some sequences packed and alone; where the hidden states differ, run padded from now on.

        Parameters
        ----------
        sequences
            Token ids of what will be run; the longest, the shortest and one between are compared, so that one is
            longer than the model's window where any is.
        """
        by_length = sorted(sequences, key=len)
        sequences = [by_length[place] for place in sorted({0, len(by_length) // 2, len(by_length) - 1})]
        mode = self.model.training
        self.model.eval()
        device = next(self.model.parameters()).device
        row = PackedRow(tuple(map(len, sequences)), device)
        ids = torch.tensor([token for sequence in sequences for token in sequence], device=device)
        try:
            with torch.no_grad():
                alone = torch.cat(
                    [
                        self.backbone(input_ids=torch.tensor([list(one)], device=device), use_cache=False)
                        .last_hidden_state[0]
                        .float()
                        for one in sequences
                    ]
                )
                try:
                    with self.in_use():
                        together = self.hidden(ids, row).float()
                except Exception as error:  # what a model that was not made for this raises
                    self.why_not = f"a packed pass fails ({type(error).__name__}: {str(error)[:120]})"
                    return
        finally:
            self.model.train(mode)
        close = _CLOSE if next(self.model.parameters()).dtype == torch.float32 else 30 * _CLOSE
        worst = float((together - alone).abs().max() / alone.abs().max().clamp(min=1e-6))
        if not worst <= close:
            self.why_not = f"its hidden states in a packed pass are not its own (they differ by {worst:.1g})"

    def logits(self, ids: torch.Tensor, row: PackedRow, *, embeds: torch.Tensor | None = None) -> torch.Tensor:
        """Logits of every token, shape (tokens, vocabulary): for heads that are no matrix, padded and dear."""
        grid = row.whole
        given = {"input_ids": ids[grid.index]} if embeds is None else {"inputs_embeds": embeds[grid.index]}
        logits: torch.Tensor = self.model(**given, use_cache=False).logits
        return logits[grid.valid]

    def _padded(self, ids: torch.Tensor, row: PackedRow, embeds: torch.Tensor | None) -> torch.Tensor:
        """One sequence a line, filled up on the right, where a causal model never looks."""
        grid = row.whole
        given = {"input_ids": ids[grid.index]} if embeds is None else {"inputs_embeds": embeds[grid.index]}
        states: torch.Tensor = self.backbone(**given, use_cache=False).last_hidden_state
        return states[grid.valid]
