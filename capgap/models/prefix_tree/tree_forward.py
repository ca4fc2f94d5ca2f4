"""Forward pass of a `TreeRow`: tree attention mask, cached prefix, and logits at the wanted tokens only."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from capgap.models.prefix_tree.row_plan import TreeRow
from capgap.models.prefix_tree.tree_support import AttentionLayout

_LOGIT_CHUNK_ROWS = 64  # of logits that are normalised together: bounds a copy of them

CachedPrefix = tuple[tuple[torch.Tensor, torch.Tensor], ...]
"""Keys and values of a prefix, layer by layer, each of shape (1, heads, tokens, width of a head)."""


def row_logits(
    model: Any,
    attention: AttentionLayout,
    row: TreeRow,
    indices: Sequence[int] | np.ndarray,
    prefix: CachedPrefix | None,
    *,
    keep_cache: bool | None = None,
) -> tuple[torch.Tensor, CachedPrefix | None]:
    """Logits at some tokens of a row.

    Parameters
    ----------
    model
        A causal language model of transformers.
    attention
        How its layers look back.
    row
        The row.
    indices
        Tokens of the row whose logits are wanted.
    prefix
        Keys and values of `row.prefix_row`; None where it has none.
    keep_cache
        Whether keys and values are wanted; default: where rows stand behind this one.

    Returns
    -------
    logits
        Shape (indices, vocabulary).
    cached
        Keys and values of the prefix together with the row, where they are wanted; else None.
    """
    device, dtype = model.device, model.dtype
    keep_cache = row.is_cached if keep_cache is None else keep_cache
    key_depths = np.concatenate([np.arange(row.start), row.depths])
    visible = _ancestor_mask(row)
    masks = {
        layer_type: _to_additive_mask(_windowed(visible, row.depths, key_depths, window), dtype, device)
        for layer_type, window in attention.windows.items()
    }
    cache = _PrefixCache(prefix) if prefix is not None or keep_cache else None
    logits: torch.Tensor = model(
        input_ids=torch.from_numpy(row.tokens)[None].to(device),
        position_ids=torch.from_numpy(row.depths)[None].to(device),
        attention_mask=masks if attention.masks_by_layer_type else next(iter(masks.values())),
        past_key_values=cache,
        use_cache=cache is not None,
        logits_to_keep=torch.as_tensor(np.asarray(indices, dtype=np.int64), device=device),
    ).logits[0]
    return logits, cache.cached_keys_and_values() if cache is not None and keep_cache else None


def _ancestor_mask(row: TreeRow) -> np.ndarray:
    """What each token of a row may look at: the cached prefix, its ancestors, itself; bool, shape (n, start + n)."""
    n = len(row.tokens)
    visible = np.zeros((n, row.start + n), dtype=bool)
    visible[:, : row.start] = True
    row_mask = visible[:, row.start :]
    # A stretch in which each token is the child of the one before it is filled at once.
    chain_breaks = np.flatnonzero(row.parents != np.arange(-1, n - 1))
    for chain_start, chain_end in zip([0, *chain_breaks], [*chain_breaks, n], strict=True):
        if chain_start == chain_end:
            continue
        parent = row.parents[chain_start]
        if parent >= 0:
            row_mask[chain_start:chain_end, : parent + 1] = row_mask[parent, : parent + 1]
        row_mask[chain_start:chain_end, chain_start:chain_end] = np.tri(chain_end - chain_start, dtype=bool)
    return visible


def _windowed(visible: np.ndarray, query_depths: np.ndarray, key_depths: np.ndarray, window: int | None) -> np.ndarray:
    """The part of a mask that a sliding window leaves; distance is measured in depth, not in the row."""
    if window is None or key_depths.max(initial=0) < window:
        return visible
    visible_in_window: np.ndarray = np.logical_and(visible, query_depths[:, None] - key_depths[None, :] < window)
    return visible_in_window


def _to_additive_mask(visible: np.ndarray, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Additive mask, shape (1, 1, n, keys): 0 where a token may look, else the lowest number; for eager and SDPA."""
    mask = torch.full(visible.shape, torch.finfo(dtype).min, dtype=dtype)
    mask.masked_fill_(torch.from_numpy(visible), 0.0)
    return mask[None, None].to(device)


class UnboundedCacheLayer(CacheLayerMixin):  # type: ignore[misc]
    """What transformers asks of a layer's cache, for layers that are filled from the beginning and have no limit."""

    def __init__(self) -> None:
        super().__init__()
        self.is_initialized = True

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing to prepare."""

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Keys that a query meets, and where they start."""
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        """No limit."""
        return -1


class _PrefixLayer(UnboundedCacheLayer):
    """Cache layer that puts a prefix in front of the new keys and values and never changes it."""

    def __init__(self, prefix: tuple[torch.Tensor, torch.Tensor] | None = None) -> None:
        super().__init__()
        self._prefix = prefix
        self.cached_keys_and_values: tuple[torch.Tensor, torch.Tensor] | None = None
        """Of the prefix and the row, once the layer has run."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of the prefix and the row in one, shape (1, heads, tokens, width of a head)."""
        if self._prefix is not None:
            keys, values = self._prefix
            key_states = torch.cat([keys, key_states], dim=-2)
            value_states = torch.cat([values, value_states], dim=-2)
        self.cached_keys_and_values = (key_states, value_states)
        return key_states, value_states

    def get_seq_length(self) -> int:
        """Tokens of the prefix."""
        return 0 if self._prefix is None else int(self._prefix[0].shape[-2])


class _PrefixCache(Cache):  # type: ignore[misc]
    """Cache of a forward pass behind a cached prefix, or of one that is to be cached."""

    def __init__(self, prefix: CachedPrefix | None) -> None:
        super().__init__(layers=[_PrefixLayer(layer) for layer in prefix or ()])
        if prefix is None:
            self.layer_class_to_replicate = _PrefixLayer  # as many as the model asks for

    def cached_keys_and_values(self) -> CachedPrefix:
        """Keys and values of the prefix and the row, layer by layer."""
        layers: Sequence[Any] = self.layers
        return tuple(layer.cached_keys_and_values for layer in layers)


def token_logprobs(logits: torch.Tensor, rows: Sequence[int], tokens: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities of tokens, and whether each is the likeliest.

    Parameters
    ----------
    logits
        Shape (n, vocabulary).
    rows, tokens
        Which row of `logits`, and which token id; both of shape (m,).

    Returns
    -------
    logprobs
        In nats, float64, shape (m,).
    greedy
        Bool, shape (m,).
    """
    logit_row_indices = torch.as_tensor(np.asarray(rows, dtype=np.int64), device=logits.device)
    ids = torch.as_tensor(np.asarray(tokens, dtype=np.int64), device=logits.device)
    values = torch.empty(len(ids), dtype=torch.float32, device=logits.device)
    for low in range(0, len(logits), _LOGIT_CHUNK_ROWS):
        is_in_chunk = (logit_row_indices >= low) & (logit_row_indices < low + _LOGIT_CHUNK_ROWS)
        # log_softmax, whose rounding lm-eval's numbers have; logsumexp is closer to the truth, by 1e-5 nats a token
        logprobs = torch.log_softmax(logits[low : low + _LOGIT_CHUNK_ROWS].float(), dim=-1)
        values[is_in_chunk] = logprobs[logit_row_indices[is_in_chunk] - low, ids[is_in_chunk]]
    # argmax, which decides ties, is computed only where the token has the largest logit: seldom, and it costs a pass.
    greedy = logits[logit_row_indices, ids] >= logits.amax(dim=-1)[logit_row_indices]
    if bool(greedy.any()):
        greedy[greedy.clone()] = logits[logit_row_indices[greedy]].argmax(dim=-1) == ids[greedy]
    return values.double().cpu().numpy(), greedy.cpu().numpy()
