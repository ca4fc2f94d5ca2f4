"""`TreeDecoder`: generation behind many prompts at a time, with shared prefixes read once.

Prompts are read as rows of a token tree (`row_plan`, `tree_forward`). Their keys and values are then laid side by
side, one line for each prompt, padded on the left, so that the new token of every line goes to the same column.
Lines whose answer is complete leave the batch.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import Cache

from capgap.models.prefix_tree.row_plan import RowPlan, plan_rows
from capgap.models.prefix_tree.tree_forward import CachedPrefix, UnboundedCacheLayer, row_logits
from capgap.models.prefix_tree.tree_support import AttentionLayout

__all__ = ["TokenChooser", "Continuation", "TreeDecoder"]

_GROWTH_COLUMNS = 64  # columns by which lines grow
_MIN_UNFINISHED_SHARE = 0.8  # share of the lines that must be unfinished still, or the others are cleared away


@dataclass
class Continuation:
    """The tokens generated behind one prompt."""

    tokens: list[int] = field(default_factory=list)
    """Token ids, the one that ended it included."""
    logprob: float = 0.0
    """Sum of their log-probabilities, nats; NaN where they were not wanted."""


PromptTokenIds = Sequence[Sequence[int]]
"""Token ids of each prompt."""
TokenChooser = Callable[[torch.Tensor, Sequence[int]], torch.Tensor]
"""Next tokens, shape (lines,), from logits, shape (lines, vocabulary), and the indices of the lines' prompts."""


class TreeDecoder:
    """Generates with one model.

    Parameters
    ----------
    model, attention, row_tokens
        As for a `TreeScorer`.
    """

    def __init__(self, model: Any, attention: AttentionLayout, row_tokens: int) -> None:
        self.model = model
        self.attention = attention
        self.row_tokens = row_tokens
        self._cached: dict[bytes, CachedPrefix] = {}
        """Tokens of a prefix, packed → its keys and values; rows of one common prefix."""

    def generate(
        self,
        prompts: PromptTokenIds,
        limit: int,
        choose_tokens: TokenChooser,
        is_complete_answer: Callable[[Sequence[int]], bool],
        *,
        common_prefix: int = 0,
        scored: bool = False,
    ) -> Iterator[dict[int, Continuation]]:
        """Generate behind each prompt until it is done.

        Parameters
        ----------
        prompts
            Token ids; equal ones are read once.
        limit
            Tokens to generate behind each, at most.
        choose_tokens
            Picks the next tokens.
        is_complete_answer
            Whether these tokens are a complete answer.
        common_prefix
            Tokens that all prompts share with those of later calls; their keys and values are kept until then.
        scored
            Whether log-probabilities are wanted; they cost a pass over the vocabulary for every token.

        Yields
        ------
        dict
            Index of the prompt → what was generated, of those that have just been completed.
        """
        continuations = [Continuation() for _ in prompts]
        with torch.inference_mode():
            logits, lines = self._read_prompts(prompts, common_prefix)
            while True:
                tokens = choose_tokens(logits, lines.prompts)
                logprobs = _chosen_logprobs(logits, tokens) if scored else [math.nan] * len(lines.prompts)
                completed_by_prompt: dict[int, Continuation] = {}
                for line, (token, logprob) in enumerate(zip(tokens.tolist(), logprobs, strict=True)):
                    if not lines.alive[line]:
                        continue
                    prompt = lines.prompts[line]
                    continuation = continuations[prompt]
                    continuation.tokens.append(token)
                    continuation.logprob += logprob
                    if len(continuation.tokens) >= limit or is_complete_answer(continuation.tokens):
                        lines.alive[line] = False
                        completed_by_prompt[prompt] = continuation
                if completed_by_prompt:
                    yield completed_by_prompt
                if not any(lines.alive):
                    return
                tokens = lines.drop_finished_lines(tokens)
                logits = lines.step(self.model, self.attention, tokens)

    def _read_prompts(self, prompts: Sequence[Sequence[int]], common_prefix: int) -> tuple[torch.Tensor, "_LineCache"]:
        """Logits behind each prompt, shape (prompts, vocabulary), and their keys and values as lines."""
        plan = plan_rows(prompts, self.row_tokens, common_prefix=common_prefix)
        prompts_by_last_row: dict[int, list[int]] = defaultdict(list)  # row → prompts that end in it
        for prompt, locations in enumerate(plan.locations):
            prompts_by_last_row[locations[-1][0]].append(prompt)
        lines = _LineCache([len(prompt) for prompt in prompts])
        prefixes: dict[int, CachedPrefix] = {}
        logits: list[torch.Tensor] = [torch.empty(0)] * len(prompts)
        for index, row in enumerate(plan.rows):
            key = self._cache_key(prompts, plan, index, common_prefix)
            if key in self._cached and not prompts_by_last_row[index]:
                prefixes[index] = self._cached[key]
                continue
            prefix = None if row.prefix_row is None else prefixes[row.prefix_row]
            positions = [int(plan.locations[prompt][-1][1][-1]) for prompt in prompts_by_last_row[index]]
            next_logits, layers = row_logits(self.model, self.attention, row, positions or [0], prefix, keep_cache=True)
            assert layers is not None
            if row.is_cached:
                prefixes[index] = layers
            if key is not None:
                self._cached[key] = layers
            for n, prompt in enumerate(prompts_by_last_row[index]):
                logits[prompt] = next_logits[n]
                own_columns = row.start + plan.locations[prompt][-1][1]
                lines.fill(prompt, layers, np.concatenate([np.arange(row.start), own_columns]))
        return torch.stack(logits), lines

    def _cache_key(self, prompts: PromptTokenIds, plan: RowPlan, index: int, common_prefix: int) -> bytes | None:
        """The key under which a row's keys and values outlive this call; None where they do not."""
        row = plan.rows[index]
        end = row.start + len(row.tokens)
        if not row.is_cached or end > common_prefix:
            return None
        key = np.asarray(prompts[0][:end], dtype=">u4").tobytes()
        if key not in self._cached and row.start == 0:
            self._cached.clear()  # another prefix than before; one at a time
        return key


def _chosen_logprobs(logits: torch.Tensor, tokens: torch.Tensor) -> list[float]:
    chosen: list[float] = logits.float().log_softmax(-1).gather(1, tokens[:, None])[:, 0].tolist()
    return chosen


class _LineCache:
    """Keys and values of several prompts side by side, and of what was generated behind them.

    All lines end at one column, `_filled`; a line of `n` tokens begins at column ``_filled - n``, and the mask hides
    what stands before it.
    """

    def __init__(self, lengths: Sequence[int]) -> None:
        self.prompts = list(range(len(lengths)))
        """Index of each line's prompt."""
        self.alive = [True] * len(lengths)
        """Whether each line's answer is unfinished."""
        self._lengths = torch.tensor(lengths)
        self._filled = max(lengths)
        self._layers: list[_LineCacheLayer] = []

    def fill(self, line: int, layers: CachedPrefix, columns: np.ndarray) -> None:
        """Copy some columns of a row's keys and values to the right end of a line."""
        if not self._layers:
            self._layers = [_LineCacheLayer(len(self.prompts), self._filled, keys, values) for keys, values in layers]
            self._lengths = self._lengths.to(layers[0][0].device)
        for cache_layer, (keys, values) in zip(self._layers, layers, strict=True):
            cache_layer.fill(line, keys, values, torch.as_tensor(columns, device=keys.device))

    def drop_finished_lines(self, tokens: torch.Tensor) -> torch.Tensor:
        """The tokens of the lines that stay, shape (lines,); finished lines go once they are many."""
        if sum(self.alive) > _MIN_UNFINISHED_SHARE * len(self.alive):
            return tokens
        kept_lines = torch.tensor([n for n, is_alive in enumerate(self.alive) if is_alive], device=tokens.device)
        self.prompts = [prompt for prompt, is_alive in zip(self.prompts, self.alive, strict=True) if is_alive]
        self.alive = [True] * len(self.prompts)
        self._lengths = self._lengths[kept_lines.to(self._lengths.device)]
        for layer in self._layers:
            layer.select(kept_lines)
        return tokens[kept_lines]

    def step(self, model: Any, attention: AttentionLayout, tokens: torch.Tensor) -> torch.Tensor:
        """Read one token on every line; logits behind it, shape (lines, vocabulary)."""
        columns = torch.arange(self._filled + 1, device=self._lengths.device)
        is_token = columns[None, :] >= (self._filled - self._lengths)[:, None]  # (lines, columns); False: padding
        masks = {}
        for layer_type, window in attention.windows.items():
            visible = is_token if window is None else is_token & (self._filled - columns < window)[None, :]
            mask = torch.full(visible.shape, torch.finfo(model.dtype).min, dtype=model.dtype, device=visible.device)
            masks[layer_type] = mask.masked_fill_(visible, 0.0)[:, None, None, :]
        for layer in self._layers:
            layer.ensure_column_capacity(self._filled + 1)
        logits: torch.Tensor = model(
            input_ids=tokens[:, None],
            position_ids=self._lengths[:, None].to(tokens.device),
            attention_mask=masks if attention.masks_by_layer_type else next(iter(masks.values())),
            past_key_values=Cache(layers=list(self._layers)),
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        self._filled += 1
        self._lengths = self._lengths + 1
        return logits


class _LineCacheLayer(UnboundedCacheLayer):
    """Keys and values of one layer, shape (lines, heads, columns, width of a head), with room to grow."""

    def __init__(self, n_lines: int, n_filled_columns: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()
        self._filled = n_filled_columns
        n_columns = n_filled_columns + _GROWTH_COLUMNS
        self._keys = keys.new_zeros(n_lines, keys.shape[1], n_columns, keys.shape[3])
        self._values = values.new_zeros(n_lines, values.shape[1], n_columns, values.shape[3])

    def fill(self, line: int, keys: torch.Tensor, values: torch.Tensor, columns: torch.Tensor) -> None:
        """Copy some columns of a row to the right end of a line."""
        first_column = self._filled - len(columns)
        self._keys[line, :, first_column : self._filled] = keys[0][:, columns]
        self._values[line, :, first_column : self._filled] = values[0][:, columns]

    def select(self, lines: torch.Tensor) -> None:
        """Keep some lines."""
        indices = lines.to(self._keys.device)
        self._keys, self._values = self._keys[indices], self._values[indices]

    def ensure_column_capacity(self, n_columns: int) -> None:
        """Grow to so many columns at least."""
        if n_columns > self._keys.shape[2]:
            padding = (0, 0, 0, n_columns - self._keys.shape[2] + _GROWTH_COLUMNS)
            self._keys = torch.nn.functional.pad(self._keys, padding)
            self._values = torch.nn.functional.pad(self._values, padding)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the new column; keys and values of all columns so far."""
        self._keys[:, :, self._filled : self._filled + 1] = key_states
        self._values[:, :, self._filled : self._filled + 1] = value_states
        self._filled += 1
        return self._keys[:, :, : self._filled], self._values[:, :, : self._filled]

    def get_seq_length(self) -> int:
        """Columns so far."""
        return self._filled
