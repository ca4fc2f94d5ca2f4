"""A teacher's next-token distributions over texts: computed in packed passes, cached for all students to come."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from capgap.distillation.data.packing import first_fit
from capgap.distillation.teacher.cache import TeacherCache, compute_cache_address
from capgap.distillation.teacher.signal_forms import CacheForm, TeacherSignal
from capgap.errors import DistillError
from capgap.events import Listener, Note, ignore, stage
from capgap.models.lm_head import LanguageModelHead, read_lm_head
from capgap.models.packed import PackedBackbone, PackedRow

__all__ = ["CachedSignals", "OnlineTeacher", "ScoredText", "score_texts"]

_MAX_PASS_TOKENS = 1024
_SHARD_LOSS_TOKENS = 65_536  # that carry loss; a killed run loses less than this
_PACKING_BLOCK_TEXTS = 1024  # texts: first fit takes the square of them
_MAX_FLOAT16 = 6e4  # just under the largest float16
_N_ROUNDING_ERROR_TEXTS = 64  # on which the cost of rounding is measured

TokenIds = Sequence[Sequence[int]]
"""Of several texts."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ScoredText:
    """One example as a teacher is given it."""

    ids: tuple[int, ...]
    """Token ids, shape (tokens,)."""
    positions: tuple[int, ...]
    """Indices of the tokens behind which its distribution is wanted, shape (positions,)."""

    @property
    def key(self) -> str:
        """Its address in the cache."""
        return compute_cache_address(self.ids, self.positions)


@dataclass(frozen=True)
class CachedSignals:
    """A teacher's signals for some texts."""

    cache: TeacherCache
    """Where they are."""
    keys: tuple[str, ...]
    """Address of each text, shape (texts,)."""
    head: LanguageModelHead | None
    """The teacher's head, where hidden states are kept."""
    n_computed: int
    """Texts whose signals were computed now; the others were there."""

    def signal(self, indices: Sequence[int]) -> TeacherSignal:
        """The teacher's signal at all positions of some texts, one text after the other."""
        return TeacherSignal(head=self.head, **self.cache.get(self.keys[index] for index in indices))


def score_texts(
    load: Callable[[], Any],
    identity: dict[str, Any],
    texts: Sequence[ScoredText],
    form: CacheForm,
    *,
    root: Path,
    n_vocabulary: int,
    device: str,
    on_event: Listener = ignore,
) -> CachedSignals:
    """A teacher's signals over some texts, from the cache where it has them.

    Parameters
    ----------
    load
        Gives the teacher, a causal language model of transformers; called only where something is missing.
    identity
        What tells this teacher from every other: weights, dtype, tokenizer.
    texts
        What it is given, and the positions that are wanted.
    form
        How its distributions are kept.
    root
        Folder of the caches.
    n_vocabulary
        Ids that count; those behind them fill up a table.
    device
        Where the teacher and its head run.
    on_event
        Hears of the stage "teacher's distributions", and of damage.
    """
    identity = {**identity, "mode": form.mode, "n_vocabulary": n_vocabulary}
    if form.mode != "hidden":
        identity["k"] = form.k
    if form.mode == "sample":
        identity["temperature"] = form.temperature
    cache = TeacherCache(root, identity, on_event=on_event)
    keys = tuple(text.key for text in texts)
    n_computed_texts = 0
    with stage(on_event, "teacher's distributions", len(texts), "text") as on_progress:
        if any(key not in cache for key in keys):
            with cache.lock():
                cache.read()  # another process may have been first
                missing = list({key: text for key, text in zip(keys, texts, strict=True) if key not in cache}.values())
                if missing:
                    n_computed_texts = len(missing)
                    teacher = OnlineTeacher(load().to(device), n_vocabulary, [text.ids for text in missing], on_event)
                    _SignalCacheWriter(teacher, cache, form).run(missing, on_progress)
        on_progress(len(texts) - n_computed_texts, "cached")
    logger.debug("%s: computed %d of %d texts", cache.folder, n_computed_texts, len(texts))
    return CachedSignals(cache, keys, cache.head(device), n_computed_texts)


class OnlineTeacher:
    """A teacher in memory that gives its hidden states.

    Parameters
    ----------
    model
        A causal language model of transformers, on its device.
    n_vocabulary
        Ids that count.
    sequences
        Token ids of some of what it will be given: packed passes are compared with single ones on them.
    on_event
        Hears where it runs padded.

    Raises
    ------
    DistillError
        Its head is no plain matrix.
    """

    def __init__(self, model: Any, n_vocabulary: int, sequences: TokenIds, on_event: Listener = ignore) -> None:
        self.model = model.eval().requires_grad_(False)
        lm_head = read_lm_head(self.model)
        if lm_head is None:
            raise DistillError("the teacher's language-model head is no plain matrix, so its logits cannot be had.")
        self.head = lm_head.truncate_vocabulary(n_vocabulary)
        self.packed = PackedBackbone(self.model)
        self.packed.prove_packing(sequences)
        if self.packed.why_not is not None:
            on_event(Note(f"the teacher's sequences are padded, not packed: {self.packed.why_not}"))

    @torch.no_grad()
    def hidden_states(self, sequences: TokenIds, positions: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """Its last hidden states, in one pass.

        Parameters
        ----------
        sequences
            Token ids of each.
        positions
            Indices of the wanted tokens of each.

        Returns
        -------
        list of tensors
            For each sequence, shape (positions, width).
        """
        device = next(self.model.parameters()).device
        row = PackedRow(tuple(map(len, sequences)), device)
        # All sequences end to end, shape (tokens of all,); the row says where each ends.
        ids = torch.tensor([token for sequence in sequences for token in sequence], device=device)
        with self.packed.in_use():
            sequence_hidden_states = torch.split(self.packed.hidden(ids, row), list(row.lengths))
        indices = (torch.tensor(list(token_indices), device=device) for token_indices in positions)
        return [hidden[token_indices] for hidden, token_indices in zip(sequence_hidden_states, indices, strict=True)]


class _SignalCacheWriter:
    """A teacher's pass over texts, whose distributions it puts into a cache."""

    def __init__(self, teacher: OnlineTeacher, cache: TeacherCache, form: CacheForm) -> None:
        self.teacher, self.cache, self.form = teacher, cache, form
        self.head = teacher.head
        self.errors: list[float] = []
        """What keeping costs, one for each text that was measured; see `_ERROR_DESCRIPTIONS`."""

    @torch.no_grad()
    def run(self, texts: Sequence[ScoredText], on_progress: Callable[[int], None]) -> None:
        """Compute the distributions over all texts and write them shard by shard."""
        if self.form.mode == "hidden":
            self.cache.save_lm_head(self.head)
        unsaved_tensors: dict[str, dict[str, torch.Tensor]] = {}
        n_waiting = 0
        for low in range(0, len(texts), _PACKING_BLOCK_TEXTS):
            block = texts[low : low + _PACKING_BLOCK_TEXTS]
            for group in first_fit([len(text.ids) for text in block], _MAX_PASS_TOKENS):
                batch = [block[index] for index in group]
                hidden = self.teacher.hidden_states([text.ids for text in batch], [text.positions for text in batch])
                for text, text_hidden_states in zip(batch, hidden, strict=True):
                    tensors = self._convert_to_cache_form(text, text_hidden_states)
                    unsaved_tensors[text.key] = {name: values.cpu() for name, values in tensors.items()}
                    n_waiting += len(text.positions)
                on_progress(len(group))
                if n_waiting >= _SHARD_LOSS_TOKENS:
                    self.cache.append(unsaved_tensors)
                    unsaved_tensors, n_waiting = {}, 0
        if unsaved_tensors:
            self.cache.append(unsaved_tensors)
        self.cache.record(error={"what": _ERROR_DESCRIPTIONS[self.form.mode], "mean": float(np.mean(self.errors))})

    def _convert_to_cache_form(self, text: ScoredText, hidden: torch.Tensor) -> dict[str, torch.Tensor]:
        """The tensors of `TeacherSignal` in the cache's form, from hidden states of shape (positions, width)."""
        if self.form.mode == "hidden":
            storage_dtype = torch.float16 if float(hidden.abs().max()) < _MAX_FLOAT16 else torch.bfloat16
            rounded = hidden.to(storage_dtype)
            if len(self.errors) < _N_ROUNDING_ERROR_TEXTS:
                self.errors.append(_mean_kl(self.head.logits(hidden), self.head.logits(rounded.to(hidden.dtype))))
            return {"hidden": rounded}
        logits = self.head.logits(hidden)
        logprobs = torch.log_softmax(logits, dim=-1)
        entropy = -(logprobs.exp() * logprobs).sum(dim=-1)
        if self.form.mode == "top_k":
            top_k = logprobs.topk(min(self.form.k, logprobs.shape[1] - 1), dim=-1)
            # summed in logs: 1 - the others would be all rounding where the tail holds next to nothing
            tail = logprobs.scatter(1, top_k.indices, -torch.inf).logsumexp(dim=-1, keepdim=True)
            self.errors.append(float(tail.exp().mean()))
            buckets = torch.cat([top_k.values, tail], dim=1).clamp_min(-_MAX_FLOAT16).half()
            return {"ids": top_k.indices.int(), "logprobs": buckets, "entropy": entropy}
        at_temperature = torch.log_softmax(logits / self.form.temperature, dim=-1)
        # seeded by the text, so that neither its neighbours nor the order of a run change what is drawn
        generator = torch.Generator(device=hidden.device).manual_seed(int(text.key[:12], 16))
        ids = torch.multinomial(at_temperature.exp(), self.form.k, replacement=True, generator=generator)
        self.errors.append(0.0)
        sampled_entropy = -(at_temperature.exp() * at_temperature).sum(dim=-1)
        return {"ids": ids.int(), "entropy": entropy, "sampled_entropy": sampled_entropy}


_ERROR_DESCRIPTIONS = {
    "hidden": "KL(live || kept), nats, from rounding to 16 bits",
    "top_k": "teacher's mass in the tail (a share, not nats), within which tokens cannot be told apart",
    "sample": "bias of forward KL (none; its noise falls with k)",
}
"""What `_CachingPass.errors` measures in each form; written beside the cache."""


def _mean_kl(exact_logits: torch.Tensor, rounded: torch.Tensor) -> float:
    """KL(live || rounded) in nats, the mean over positions; logits of shape (positions, vocabulary)."""
    log_p, log_q = torch.log_softmax(exact_logits, -1), torch.log_softmax(rounded, -1)
    return float((log_p.exp() * (log_p - log_q)).sum(-1).mean())
