"""Run the rows of a plan: masks from the tree, keys and values of kept beginnings, the head only where it is asked."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from capgap.models.prefix_tree.row_plan import TreeRow
from capgap.models.prefix_tree.tree_support import AttentionLayout

__all__ = ["KeptLayers", "CacheLayer", "row_logits", "scores"]

_ROWS_AT_ONCE = 64  # of logits that are normalised together: bounds a copy of them

KeptLayers = tuple[tuple[torch.Tensor, torch.Tensor], ...]
"""Keys and values of a kept beginning, layer by layer, each of shape (1, heads, tokens, width of a head)."""


def row_logits(
    model: Any,
    attention: AttentionLayout,
    row: TreeRow,
    places: Sequence[int] | np.ndarray,
    behind: KeptLayers | None,
    *,
    keep: bool | None = None,
) -> tuple[torch.Tensor, KeptLayers | None]:
    """Logits at some tokens of a row.

    Parameters
    ----------
    model
        A causal language model of transformers.
    attention
        How its layers look back.
    row
        The row.
    places
        Indices of the tokens whose logits are wanted.
    behind
        What `row.behind` kept; None where it stands behind nothing.
    keep
        Whether keys and values are wanted; default: where rows stand behind this one.

    Returns
    -------
    logits
        Shape (places, vocabulary).
    kept
        Keys and values of the beginning together with the row, where they are wanted; else None.
    """
    device, dtype = model.device, model.dtype
    keep = row.kept if keep is None else keep
    depths = np.concatenate([np.arange(row.start), row.depths])
    visible = _visible(row)
    masks = {
        kind: _additive(_within(visible, row.depths, depths, window), dtype, device)
        for kind, window in attention.windows.items()
    }
    cache = _KeptCache(behind) if behind is not None or keep else None
    wanted = torch.as_tensor(np.asarray(places, dtype=np.int64), device=device)
    logits: torch.Tensor = model(
        input_ids=torch.from_numpy(row.tokens)[None].to(device),
        position_ids=torch.from_numpy(row.depths)[None].to(device),
        attention_mask=masks if attention.by_layer_type else next(iter(masks.values())),
        past_key_values=cache,
        use_cache=cache is not None,
        logits_to_keep=wanted,
    ).logits[0]
    return logits, cache.together() if cache is not None and keep else None


def _visible(row: TreeRow) -> np.ndarray:
    """What each token of a row may look at: the kept beginning, its ancestors, itself; bool, (n, start + n)."""
    n = len(row.tokens)
    seen = np.zeros((n, row.start + n), dtype=bool)
    seen[:, : row.start] = True
    own = seen[:, row.start :]
    # A stretch in which each token is the child of the one before it is filled at once.
    starts = np.flatnonzero(row.parents != np.arange(-1, n - 1))
    for first, last in zip([0, *starts], [*starts, n], strict=True):
        if first == last:
            continue
        parent = row.parents[first]
        if parent >= 0:
            own[first:last, : parent + 1] = own[parent, : parent + 1]
        own[first:last, first:last] = np.tri(last - first, dtype=bool)
    return seen


def _within(visible: np.ndarray, own: np.ndarray, depths: np.ndarray, window: int | None) -> np.ndarray:
    """The part of `visible` that a sliding window leaves; distance is measured in depth, not in the row."""
    if window is None or depths.max(initial=0) < window:
        return visible
    near: np.ndarray = np.logical_and(visible, own[:, None] - depths[None, :] < window)
    return near


def _additive(visible: np.ndarray, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """0 where a token may look, the lowest number elsewhere: what both eager and SDPA attention take."""
    mask = torch.full(visible.shape, torch.finfo(dtype).min, dtype=dtype)
    mask.masked_fill_(torch.from_numpy(visible), 0.0)
    return mask[None, None].to(device)


class CacheLayer(CacheLayerMixin):  # type: ignore[misc]
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


class _KeptLayer(CacheLayer):
    """A layer that offers the kept beginning in front of the new keys and values, and never changes it."""

    def __init__(self, kept: tuple[torch.Tensor, torch.Tensor] | None = None) -> None:
        super().__init__()
        self._kept = kept
        self.whole: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The beginning and the new ones in one."""
        if self._kept is not None:
            keys, values = self._kept
            key_states = torch.cat([keys, key_states], dim=-2)
            value_states = torch.cat([values, value_states], dim=-2)
        self.whole = (key_states, value_states)
        return key_states, value_states

    def get_seq_length(self) -> int:
        """Tokens of the beginning."""
        return 0 if self._kept is None else int(self._kept[0].shape[-2])


class _KeptCache(Cache):  # type: ignore[misc]
    """The cache that a forward pass behind a kept beginning, or one that is to be kept, is given."""

    def __init__(self, kept: KeptLayers | None) -> None:
        layers = [_KeptLayer(pair) for pair in kept] if kept is not None else []
        super().__init__(layers=layers)
        if kept is None:
            self.layer_class_to_replicate = _KeptLayer  # as many as the model asks for

    def together(self) -> KeptLayers:
        """Keys and values of the beginning and the row, layer by layer."""
        layers: Sequence[Any] = self.layers
        return tuple(layer.whole for layer in layers)


def scores(logits: torch.Tensor, rows: Sequence[int], tokens: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
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
    at = torch.as_tensor(np.asarray(rows, dtype=np.int64), device=logits.device)
    wanted = torch.as_tensor(np.asarray(tokens, dtype=np.int64), device=logits.device)
    values = torch.empty(len(wanted), dtype=torch.float32, device=logits.device)
    for low in range(0, len(logits), _ROWS_AT_ONCE):
        here = (at >= low) & (at < low + _ROWS_AT_ONCE)
        # log_softmax, whose rounding lm-eval's numbers have; logsumexp is closer to the truth, by 1e-5 nats a token
        logprobs = torch.log_softmax(logits[low : low + _ROWS_AT_ONCE].float(), dim=-1)
        values[here] = logprobs[at[here] - low, wanted[here]]
    # The likeliest token is looked for only where the wanted one has the largest logit: seldom, and it costs a pass.
    greedy = logits[at, wanted] >= logits.amax(dim=-1)[at]
    if bool(greedy.any()):
        greedy[greedy.clone()] = logits[at[greedy]].argmax(dim=-1) == wanted[greedy]
    return values.double().cpu().numpy(), greedy.cpu().numpy()
