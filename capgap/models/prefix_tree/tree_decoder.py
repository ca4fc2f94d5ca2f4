"""Write on behind many prompts at a time: what they share is read once, and whoever is done leaves the batch.

Prompts are read as rows of a token tree (`plan`, `forward`). Their keys and values are then laid side by side, one line
for each prompt, filled up on the left, so that the new token of every line goes to the same column.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import Cache

from capgap.models.prefix_tree.row_plan import RowPlan, plan_rows
from capgap.models.prefix_tree.tree_forward import CacheLayer, KeptLayers, row_logits
from capgap.models.prefix_tree.tree_support import AttentionLayout

__all__ = ["Choose", "TreeDecoder", "Continuation"]

_GROWTH = 64  # columns by which lines grow
_CROWDED = 0.8  # share of the lines that must be at work still, or the others are cleared away


@dataclass
class Continuation:
    """What was written behind one prompt."""

    tokens: list[int] = field(default_factory=list)
    """Token ids, the one that ended it included."""
    logprob: float = 0.0
    """Sum of their log-probabilities, nats; NaN where they were not wanted."""


Choose = Callable[[torch.Tensor, Sequence[int]], torch.Tensor]
"""Next tokens, shape (lines,), from logits, shape (lines, vocabulary), and the indices of the lines' prompts."""


class TreeDecoder:
    """Writes with one model.

    Parameters
    ----------
    model, attention, row_tokens
        As for a `TreeScorer`.
    """

    def __init__(self, model: Any, attention: AttentionLayout, row_tokens: int) -> None:
        self.model = model
        self.attention = attention
        self.row_tokens = row_tokens
        self._kept: dict[bytes, KeptLayers] = {}

    def write(
        self,
        prompts: Sequence[Sequence[int]],
        limit: int,
        choose: Choose,
        is_done: Callable[[Sequence[int]], bool],
        *,
        beginning: int = 0,
        scored: bool = False,
    ) -> Iterator[dict[int, Continuation]]:
        """Write behind each prompt until it is done.

        Parameters
        ----------
        prompts
            Token ids; equal ones are read once.
        limit
            Tokens to write behind each, at most.
        choose
            Picks the next tokens.
        is_done
            Whether these tokens are a whole answer.
        beginning
            Tokens that all prompts share with those of later calls; their keys and values are kept until then.
        scored
            Whether log-probabilities are wanted; they cost a pass over the vocabulary for every token.

        Yields
        ------
        dict
            Index of the prompt → what was written, of those that have just been done.
        """
        written = [Continuation() for _ in prompts]
        with torch.inference_mode():
            logits, lines = self._read(prompts, beginning)
            while True:
                tokens = choose(logits, lines.owners)
                logprobs = _logprobs(logits, tokens) if scored else [math.nan] * len(lines.owners)
                done: dict[int, Continuation] = {}
                for line, (token, logprob) in enumerate(zip(tokens.tolist(), logprobs, strict=True)):
                    if not lines.alive[line]:
                        continue
                    owner = lines.owners[line]
                    written[owner].tokens.append(token)
                    written[owner].logprob += logprob
                    if len(written[owner].tokens) >= limit or is_done(written[owner].tokens):
                        lines.alive[line] = False
                        done[owner] = written[owner]
                if done:
                    yield done
                if not any(lines.alive):
                    return
                tokens = lines.cleared(tokens)
                logits = lines.step(self.model, self.attention, tokens)

    def _read(self, prompts: Sequence[Sequence[int]], beginning: int) -> tuple[torch.Tensor, "_LineCache"]:
        """Logits behind each prompt, shape (prompts, vocabulary), and their keys and values as lines."""
        plan = plan_rows(prompts, self.row_tokens, beginning=beginning)
        ends: dict[int, list[int]] = {}
        for prompt, places in enumerate(plan.places):
            ends.setdefault(places[-1][0], []).append(prompt)
        lines = _LineCache([len(prompt) for prompt in prompts])
        behind: dict[int, KeptLayers] = {}
        logits: list[torch.Tensor] = [torch.empty(0)] * len(prompts)
        for index, row in enumerate(plan.rows):
            here = ends.get(index, [])
            last = [int(plan.places[prompt][-1][1][-1]) for prompt in here]
            name = self._name(prompts, plan, index, beginning)
            if name in self._kept and not here:
                behind[index] = self._kept[name]
                continue
            known = None if row.behind is None else behind[row.behind]
            own, layers = row_logits(self.model, self.attention, row, last or [0], known, keep=True)
            assert layers is not None
            if row.kept:
                behind[index] = layers
            if name is not None:
                self._kept[name] = layers
            for n, prompt in enumerate(here):
                logits[prompt] = own[n]
                lines.put(
                    prompt, layers, np.concatenate([np.arange(row.start), row.start + plan.places[prompt][-1][1]])
                )
        return torch.stack(logits), lines

    def _name(self, prompts: Sequence[Sequence[int]], plan: RowPlan, index: int, beginning: int) -> bytes | None:
        """What the keys and values of a row are kept under between calls; None where they are not kept."""
        row = plan.rows[index]
        end = row.start + len(row.tokens)
        if not row.kept or end > beginning:
            return None
        name = np.asarray(prompts[0][:end], dtype=">u4").tobytes()
        if name not in self._kept and row.start == 0:
            self._kept.clear()  # another beginning than before; one at a time
        return name


def _logprobs(logits: torch.Tensor, tokens: torch.Tensor) -> list[float]:
    chosen: list[float] = logits.float().log_softmax(-1).gather(1, tokens[:, None])[:, 0].tolist()
    return chosen


class _LineCache:
    """Keys and values of several prompts side by side, and what was written behind them."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self.owners = list(range(len(lengths)))
        self.alive = [True] * len(lengths)
        self._lengths = torch.tensor(lengths)
        self._filled = max(lengths)
        self._layers: list[_LineLayer] = []

    def put(self, line: int, layers: KeptLayers, columns: np.ndarray) -> None:
        """Copy some columns of a row's keys and values to the right end of a line."""
        if not self._layers:
            self._layers = [_LineLayer(len(self.owners), self._filled, keys, values) for keys, values in layers]
            self._lengths = self._lengths.to(layers[0][0].device)
        for own, (keys, values) in zip(self._layers, layers, strict=True):
            own.put(line, keys, values, torch.as_tensor(columns, device=keys.device))

    def cleared(self, tokens: torch.Tensor) -> torch.Tensor:
        """The tokens of the lines that stay; lines that are done go once they are many."""
        if sum(self.alive) > _CROWDED * len(self.alive):
            return tokens
        stay = torch.tensor([n for n, alive in enumerate(self.alive) if alive], device=tokens.device)
        self.owners = [owner for owner, alive in zip(self.owners, self.alive, strict=True) if alive]
        self.alive = [True] * len(self.owners)
        self._lengths = self._lengths[stay.to(self._lengths.device)]
        for layer in self._layers:
            layer.select(stay)
        return tokens[stay]

    def step(self, model: Any, attention: AttentionLayout, tokens: torch.Tensor) -> torch.Tensor:
        """Read one token on every line; logits behind it, shape (lines, vocabulary)."""
        columns = torch.arange(self._filled + 1, device=self._lengths.device)
        real = columns[None, :] >= (self._filled - self._lengths)[:, None]
        masks = {}
        for kind, window in attention.windows.items():
            seen = real if window is None else real & (self._filled - columns < window)[None, :]
            mask = torch.full(seen.shape, torch.finfo(model.dtype).min, dtype=model.dtype, device=seen.device)
            masks[kind] = mask.masked_fill_(seen, 0.0)[:, None, None, :]
        for layer in self._layers:
            layer.make_room(self._filled + 1)
        logits: torch.Tensor = model(
            input_ids=tokens[:, None],
            position_ids=self._lengths[:, None].to(tokens.device),
            attention_mask=masks if attention.by_layer_type else next(iter(masks.values())),
            past_key_values=Cache(layers=list(self._layers)),
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        self._filled += 1
        self._lengths = self._lengths + 1
        return logits


class _LineLayer(CacheLayer):
    """Keys and values of one layer, shape (lines, heads, columns, width of a head), with room to grow."""

    def __init__(self, lines: int, filled: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()
        self._filled = filled
        room = filled + _GROWTH
        self._keys = keys.new_zeros(lines, keys.shape[1], room, keys.shape[3])
        self._values = values.new_zeros(lines, values.shape[1], room, values.shape[3])

    def put(self, line: int, keys: torch.Tensor, values: torch.Tensor, columns: torch.Tensor) -> None:
        """Copy some columns of a row to the right end of a line."""
        first = self._filled - len(columns)
        self._keys[line, :, first : self._filled] = keys[0][:, columns]
        self._values[line, :, first : self._filled] = values[0][:, columns]

    def select(self, lines: torch.Tensor) -> None:
        """Keep some lines."""
        here = lines.to(self._keys.device)
        self._keys, self._values = self._keys[here], self._values[here]

    def make_room(self, columns: int) -> None:
        """So many columns at least."""
        if columns > self._keys.shape[2]:
            more = (0, 0, 0, columns - self._keys.shape[2] + _GROWTH)
            self._keys = torch.nn.functional.pad(self._keys, more)
            self._values = torch.nn.functional.pad(self._values, more)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the new column; all columns so far."""
        self._keys[:, :, self._filled : self._filled + 1] = key_states
        self._values[:, :, self._filled : self._filled + 1] = value_states
        self._filled += 1
        return self._keys[:, :, : self._filled], self._values[:, :, : self._filled]

    def get_seq_length(self) -> int:
        """Columns so far."""
        return self._filled
