"""Packed forward passes: many sequences in one pass without padding, none of which sees another.

A row is sequences laid end to end. Everything in a transformer but attention looks at one token at a time, so only
attention has to know where a sequence ends: each layer lays its queries, keys and values out as grids of sequences of
like length, filled up on the right, where a causal model never looks, and takes the rows out again. No mask over the
whole row is ever made, and no token pays for the length of the row.

Training, the teacher's passes and the proof all run through `PackedBackbone.hidden`. Models that cannot be run so
(states, biases by distance, attention of their own) are found by `PackedBackbone.prove_packing` and run padded, one
sequence a line.
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

_PACKED_ATTENTION_NAME = "capgap_packed"
_GRID_LENGTH_RATIO = 0.75  # sequences of a grid are at least so long as a share of its longest
_MIN_SPLIT_WIDTH = 64  # tokens; below this, a call costs more than the padding it would spare
_RTOL = 1e-3  # of the scale of the hidden states: rounding passes, a leak doesn't (PEERS: 0.08 to 0.38)


@dataclass(frozen=True)
class PaddedGrid:
    """Sequences of like length, side by side and padded on the right."""

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
        return self._to_device_tensor(np.concatenate([np.arange(length) for length in self.lengths]))

    @cached_property
    def grids_by_length(self) -> tuple[PaddedGrid, ...]:
        """The row as grids of like length, the longest sequences first."""
        length_groups: list[list[int]] = []
        for sequence in np.argsort(-np.asarray(self.lengths), kind="stable").tolist():
            width = self.lengths[length_groups[-1][0]] if length_groups else 0
            if not length_groups or (width > _MIN_SPLIT_WIDTH and self.lengths[sequence] < _GRID_LENGTH_RATIO * width):
                length_groups.append([])
            length_groups[-1].append(sequence)
        return tuple(self._build_grid(group) for group in length_groups)

    @cached_property
    def single_padded_grid(self) -> PaddedGrid:
        """All sequences in one grid, in their order."""
        return self._build_grid(list(range(len(self.lengths))))

    @cached_property
    def token_of_cell(self) -> torch.Tensor:
        """Which token each cell of the grids holds, grid after grid: row → grids. Shape (cells,)."""
        return torch.cat([grid.index.flatten() for grid in self.grids_by_length])

    @cached_property
    def cell_of_token(self) -> torch.Tensor:
        """Which cell of the grids holds each token: grids → row. Shape (tokens,)."""
        valid = torch.cat([grid.valid.flatten() for grid in self.grids_by_length])
        cells = valid.nonzero().squeeze(1)
        cell_of_token = torch.empty_like(cells)
        cell_of_token[self.token_of_cell[cells]] = cells
        return cell_of_token

    def _build_grid(self, sequences: list[int]) -> PaddedGrid:
        starts = np.concatenate([[0], np.cumsum(self.lengths)[:-1]])[sequences]
        lengths = np.asarray(self.lengths)[sequences]
        column = np.arange(lengths.max())
        index = starts[:, None] + np.minimum(column, lengths[:, None] - 1)
        return PaddedGrid(self._to_device_tensor(index), self._to_device_tensor(column < lengths[:, None]))

    def _to_device_tensor(self, numpy_array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(numpy_array)).to(self.device)


class _GatherTokensToCells(torch.autograd.Function):
    """Gather from tokens to cells, some repeated as padding whose gradient is zero; backward is a gather too."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, index: torch.Tensor, inverse: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(inverse)
        return values.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (inverse,) = ctx.saved_tensors
        return gradients[0].index_select(0, inverse), None, None


def _packed_attention(
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
    queries_per_key = heads // key.shape[1]  # grouped-query attention
    gather_to_cells: Any = _GatherTokensToCells.apply
    # Queries, keys and values, each (cells, heads, width of a head).
    cells = [gather_to_cells(_tokens_first(qkv), row.token_of_cell, row.cell_of_token) for qkv in (query, key, value)]
    outputs: list[torch.Tensor] = []
    low = 0
    for grid in row.grids_by_length:
        n, width = grid.index.shape
        high = low + n * width
        # (sequences, heads, width, width of a head), as torch's kernels take them
        q, k, v = (qkv[low:high].view(n, width, -1, qkv.shape[-1]).transpose(1, 2) for qkv in cells)
        if queries_per_key > 1:
            k, v = (qkv.repeat_interleave(queries_per_key, dim=1) for qkv in (k, v))
        visible = _window_mask(width, sliding_window, query.device)
        if softcap is not None:
            out = _softcapped_attention(q, k, v, visible, scaling, dropout, softcap)
        else:
            out = scaled_dot_product_attention(
                q, k, v, attn_mask=visible, dropout_p=dropout, is_causal=visible is None, scale=scaling
            )
        outputs.append(out.transpose(1, 2).reshape(n * width, heads, -1))
        low = high
    padded_outputs = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
    # Padding is left out here, so that what its queries computed gets no gradient.
    gather_to_tokens: Any = _GatherCellsToTokens.apply
    return gather_to_tokens(padded_outputs, row.cell_of_token).view(1, tokens, heads, -1), None


class _GatherCellsToTokens(torch.autograd.Function):
    """Gather from cells to tokens; in backward the cells of padding get zeros."""

    @staticmethod
    def forward(ctx: Any, cells: torch.Tensor, cell_of_token: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(cell_of_token)
        ctx.shape = cells.shape
        return cells.index_select(0, cell_of_token)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        (cell_of_token,) = ctx.saved_tensors
        padded_gradients = gradients[0].new_zeros(ctx.shape)
        padded_gradients.index_copy_(0, cell_of_token, gradients[0])
        return padded_gradients, None


def _tokens_first(head_first_states: torch.Tensor) -> torch.Tensor:
    """(1, heads, tokens, width) → (tokens, heads, width)."""
    return head_first_states[0].transpose(0, 1).contiguous()


def _window_mask(width: int, window: int | None, device: torch.device) -> torch.Tensor | None:
    """Sliding-window mask of a grid, bool, shape (width, width); None where the window hides nothing."""
    if window is None or width <= window:
        return None
    column = torch.arange(width, device=device)
    distance = column[:, None] - column[None, :]
    return (distance >= 0) & (distance < window)


def _softcapped_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    visible: torch.Tensor | None,
    scaling: float | None,
    dropout: float,
    softcap: float,
) -> torch.Tensor:
    """Attention with soft-capped scores, ``cap * tanh(scores / cap)``, which no kernel of torch's does."""
    width = query.shape[2]
    if visible is None:
        visible = torch.ones(width, width, dtype=torch.bool, device=query.device).tril()
    scores = (query @ key.transpose(2, 3)) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = torch.tanh(scores / softcap) * softcap
    weights = scores.masked_fill(~visible, torch.finfo(scores.dtype).min).float().softmax(dim=-1).to(query.dtype)
    return torch.nn.functional.dropout(weights, dropout) @ value


AttentionInterface.register(_PACKED_ATTENTION_NAME, _packed_attention)
AttentionMaskInterface.register(_PACKED_ATTENTION_NAME, lambda *args, **kwargs: None)


class PackedBackbone:
    """Backbone of a causal language model that runs packed rows, or padded ones where packing fails.

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
            padded: torch.Tensor = self.backbone(**_padded_inputs(ids, row, embeds), use_cache=False).last_hidden_state
            return padded[row.single_padded_grid.valid]
        inputs = {"input_ids": ids[None]} if embeds is None else {"inputs_embeds": embeds[None]}
        hidden_states: torch.Tensor = self.backbone(
            **inputs, position_ids=row.positions[None], attention_mask=None, use_cache=False, row=row
        ).last_hidden_state[0]
        return hidden_states

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Switch attention to packed rows for what runs in here, backward passes included."""
        if self.why_not is not None:
            yield
            return
        config = self.backbone.config
        original_attention = config._attn_implementation
        config._attn_implementation = _PACKED_ATTENTION_NAME
        try:
            yield
        finally:
            config._attn_implementation = original_attention

    def prove_packing(self, sequences: Sequence[Sequence[int]]) -> None:
        """Compare hidden states of sequences run packed and alone; where they differ, run padded from now on.

        Parameters
        ----------
        sequences
            Token ids of what will be run; the longest, the shortest and one between are compared, so that one is
            longer than the model's window where any is.
        """
        sorted_sequences = sorted(sequences, key=len)
        sequences = [sorted_sequences[n] for n in sorted({0, len(sorted_sequences) // 2, len(sorted_sequences) - 1})]
        was_training = self.model.training
        self.model.eval()
        device = next(self.model.parameters()).device
        row = PackedRow(tuple(map(len, sequences)), device)
        ids = torch.tensor([token for sequence in sequences for token in sequence], device=device)
        try:
            with torch.no_grad():
                inputs = [torch.tensor([list(sequence)], device=device) for sequence in sequences]
                outputs = [self.backbone(input_ids=sequence, use_cache=False) for sequence in inputs]
                unpacked_states = torch.cat([output.last_hidden_state[0].float() for output in outputs])
                try:
                    with self.in_use():
                        packed_states = self.hidden(ids, row).float()
                except Exception as error:  # what a model that was not made for this raises
                    self.why_not = f"a packed pass fails ({type(error).__name__}: {str(error)[:120]})"
                    return
        finally:
            self.model.train(was_training)
        rtol = _RTOL if next(self.model.parameters()).dtype == torch.float32 else 30 * _RTOL
        difference = float((packed_states - unpacked_states).abs().max() / unpacked_states.abs().max().clamp(min=1e-6))
        if not difference <= rtol:  # also where it is NaN
            self.why_not = f"its hidden states in a packed pass are not its own (they differ by {difference:.1g})"

    def logits(self, ids: torch.Tensor, row: PackedRow, *, embeds: torch.Tensor | None = None) -> torch.Tensor:
        """Logits of every token, shape (tokens, vocabulary): for heads that are no matrix, padded and dear."""
        logits: torch.Tensor = self.model(**_padded_inputs(ids, row, embeds), use_cache=False).logits
        return logits[row.single_padded_grid.valid]


def _padded_inputs(ids: torch.Tensor, row: PackedRow, embeds: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """Inputs of one sequence a line, padded on the right, where a causal model never looks."""
    index = row.single_padded_grid.index
    return {"input_ids": ids[index]} if embeds is None else {"inputs_embeds": embeds[index]}
