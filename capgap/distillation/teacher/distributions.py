"""What teachers say to every token of a text: one pass over each, kept for all students to come."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from capgap.distillation.teacher.cache import TeacherCache, address
from capgap.distillation.training.micro_batches import micro_batches
from capgap.distillation.training.objectives import TeacherSignal
from capgap.errors import DistillError
from capgap.models.lm_head import LanguageModelHead, head_of
from capgap.models.packed import PackedBackbone, PackedRow

__all__ = ["CacheForm", "CachedSignals", "OnlineTeacher", "ScoredText", "bytes_per_token", "choose_form", "score_texts"]

_PASS_TOKENS = 1024
_SHARD_TOKENS = 65_536  # that carry loss; a killed run loses less than this
_TOGETHER = 1024  # questions whose passes are laid out together: looking for room takes the square of them
_LARGEST_HALF = 6e4


@dataclass(frozen=True)
class CacheForm:
    """How a distribution is kept."""

    mode: str
    """``hidden``, ``top_k`` or ``sample``."""
    k: int = 0
    """Tokens of ``top_k``, draws of ``sample``."""
    temperature: float = 1.0
    """At which ``sample`` draws."""


@dataclass(frozen=True)
class ScoredText:
    """One example as a teacher meets it."""

    ids: tuple[int, ...]
    """Token ids."""
    at: tuple[int, ...]
    """Tokens behind which its distribution is wanted."""

    @property
    def key(self) -> str:
        """Its address in the cache."""
        return address(self.ids, self.at)


@dataclass(frozen=True)
class CachedSignals:
    """A teacher's signals for some questions."""

    cache: TeacherCache
    """Where they are."""
    keys: tuple[str, ...]
    """Address of each question."""
    head: LanguageModelHead | None
    """The teacher's head, where hidden states are kept."""
    n_computed: int
    """Questions that the teacher was asked now; the others were there."""

    def signal(self, names: Sequence[int]) -> TeacherSignal:
        """What the teacher says to some questions, one after the other."""
        found = self.cache.get(self.keys[index] for index in names)
        return TeacherSignal(head=self.head, **found)


def bytes_per_token(mode: str, *, width: int, k: int) -> int:
    """Bytes that a position that carries loss takes."""
    return {"hidden": 2 * width, "top_k": 4 * k + 2 * (k + 1) + 4, "sample": 4 * k + 8}[mode]


def choose_form(
    mode: str, *, k: int, max_gb: float, temperature: float, divergence: str, n_tokens: int, width: int
) -> CacheForm:
    """The form that is asked for; ``auto`` takes hidden states while they are small enough, else a sample.

    Raises
    ------
    DistillError
        Hidden states are too large, and a sample cannot give the divergence.
    """
    if mode == "auto":
        size = n_tokens * bytes_per_token("hidden", width=width, k=k) / 1e9
        if size > max_gb and divergence != "forward_kl":
            raise DistillError(
                f"hidden states for {n_tokens:,} tokens take {size:.1f} GB, over cache.max_gb ({max_gb:g}), and a "
                f"sample gives forward_kl only, not {divergence}. Raise cache.max_gb, or say cache.mode: top_k."
            )
        mode = "hidden" if size <= max_gb else "sample"
    if mode == "hidden":
        return CacheForm("hidden")
    return CacheForm("top_k", k) if mode == "top_k" else CacheForm("sample", k, temperature)


def score_texts(
    load: Callable[[], Any],
    identity: dict[str, Any],
    questions: Sequence[ScoredText],
    form: CacheForm,
    *,
    root: Path,
    n_vocabulary: int,
    device: str,
    tell: Callable[[str], None],
    progress: Callable[[int], None] = lambda n: None,
) -> CachedSignals:
    """A teacher's signals, from the cache where it has them.

    Parameters
    ----------
    load
        Gives the teacher, a causal language model of transformers; called only where something is missing.
    identity
        What tells this teacher from every other: weights, dtype, tokenizer.
    questions
        What it is asked.
    form
        How its distributions are kept.
    root
        Folder of the caches.
    n_vocabulary
        Ids that count; those behind them fill up a table.
    device
        Where the teacher and its head run.
    tell
        Told what happens, in lines.
    progress
        Told how many more questions are answered.
    """
    identity = {**identity, "mode": form.mode, "n_vocabulary": n_vocabulary}
    if form.mode != "hidden":
        identity["k"] = form.k
    if form.mode == "sample":
        identity["temperature"] = form.temperature
    cache = TeacherCache(root, identity, tell=tell)
    keys = tuple(question.key for question in questions)
    n_computed = 0
    if any(key not in cache for key in keys):
        with cache.lock():
            cache.read()  # another process may have been first
            missing = list({key: q for key, q in zip(keys, questions, strict=True) if key not in cache}.values())
            if missing:
                n_computed = len(missing)
                teacher = OnlineTeacher(load().to(device), n_vocabulary, [question.ids for question in missing], tell)
                _TeacherPass(teacher, cache, form).run(missing, progress)
    progress(len(questions) - n_computed)
    return CachedSignals(cache, keys, cache.head(device), n_computed)


class OnlineTeacher:
    """A teacher in memory.

    Parameters
    ----------
    model
        A causal language model of transformers, on its device.
    n_vocabulary
        Ids that count.
    sequences
        Token ids of some of what it will be asked: packed passes are compared with single ones on them.
    tell
        Told where it runs padded.

    Raises
    ------
    DistillError
        Its head is no plain matrix.
    """

    def __init__(
        self, model: Any, n_vocabulary: int, sequences: Sequence[Sequence[int]], tell: Callable[[str], None]
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        head = head_of(self.model)
        if head is None:
            raise DistillError("the teacher's language-model head is no plain matrix, so its logits cannot be had.")
        self.head = head.cut(n_vocabulary)
        self.packed = PackedBackbone(self.model)
        self.packed.prove(sequences)
        if self.packed.why_not is not None:
            tell(f"the teacher's sequences are padded, not packed: {self.packed.why_not}")

    @torch.no_grad()
    def states(self, sequences: Sequence[Sequence[int]], places: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """Its last hidden states at some tokens of some sequences, each of shape (places, width), in one pass."""
        device = next(self.model.parameters()).device
        row = PackedRow(tuple(map(len, sequences)), device)
        ids = torch.tensor([token for one in sequences for token in one], device=device)
        with self.packed.in_use():
            hidden = torch.split(self.packed.hidden(ids, row), list(row.lengths))
        return [own[torch.tensor(list(at), device=device)] for own, at in zip(hidden, places, strict=True)]


class _TeacherPass:
    """A teacher's pass over questions, and what is kept of it."""

    def __init__(self, teacher: OnlineTeacher, cache: TeacherCache, form: CacheForm) -> None:
        self.teacher, self.cache, self.form = teacher, cache, form
        self.head = teacher.head
        self.errors: list[float] = []

    @torch.no_grad()
    def run(self, questions: Sequence[ScoredText], progress: Callable[[int], None]) -> None:
        """Ask all of them, and keep what is said shard by shard."""
        if self.form.mode == "hidden":
            self.cache.keep_head(self.head)
        waiting: list[tuple[str, dict[str, torch.Tensor]]] = []
        n_waiting = 0
        for low in range(0, len(questions), _TOGETHER):
            part = questions[low : low + _TOGETHER]
            for group in micro_batches([len(question.ids) for question in part], _PASS_TOKENS):
                asked = [part[index] for index in group]
                states = self.teacher.states([one.ids for one in asked], [one.at for one in asked])
                for question, own in zip(asked, states, strict=True):
                    waiting.append((question.key, {name: t.cpu() for name, t in self._kept(question, own).items()}))
                    n_waiting += len(question.at)
                progress(len(group))
                if n_waiting >= _SHARD_TOKENS:
                    self._keep(waiting)
                    waiting, n_waiting = [], 0
        if waiting:
            self._keep(waiting)
        self.cache.tell(error={"what": _ERRORS[self.form.mode], "mean": float(np.mean(self.errors))})

    def _keep(self, waiting: list[tuple[str, dict[str, torch.Tensor]]]) -> None:
        self.cache.append([key for key, _ in waiting], [part for _, part in waiting])

    def _kept(self, question: ScoredText, states: torch.Tensor) -> dict[str, torch.Tensor]:
        if self.form.mode == "hidden":
            half = torch.float16 if float(states.abs().max()) < _LARGEST_HALF else torch.bfloat16
            kept = states.to(half)
            if len(self.errors) < 64:
                self.errors.append(_kl(self.head.logits(states), self.head.logits(kept.to(states.dtype))))
            return {"hidden": kept}
        logits = self.head.logits(states)
        logprobs = torch.log_softmax(logits, dim=-1)
        entropy = -(logprobs.exp() * logprobs).sum(dim=-1)
        if self.form.mode == "top_k":
            best = logprobs.topk(min(self.form.k, logprobs.shape[1] - 1), dim=-1)
            rest = logprobs.scatter(1, best.indices, -torch.inf).logsumexp(dim=-1, keepdim=True)
            self.errors.append(float(rest.exp().mean()))
            kept = torch.cat([best.values, rest], dim=1).clamp_min(-_LARGEST_HALF).half()
            return {"ids": best.indices.int(), "logprobs": kept, "entropy": entropy}
        at_temperature = torch.log_softmax(logits / self.form.temperature, dim=-1)
        drawn = torch.Generator(device=states.device).manual_seed(int(question.key[:12], 16))
        ids = torch.multinomial(at_temperature.exp(), self.form.k, replacement=True, generator=drawn)
        self.errors.append(0.0)
        sampled = -(at_temperature.exp() * at_temperature).sum(dim=-1)
        return {"ids": ids.int(), "entropy": entropy, "sampled_entropy": sampled}


_ERRORS = {
    "hidden": "KL(live || kept), nats, from rounding to 16 bits",
    "top_k": "teacher's mass in the tail (a share, not nats), within which tokens cannot be told apart",
    "sample": "bias of forward KL (none; its noise falls with k)",
}


def _kl(live: torch.Tensor, kept: torch.Tensor) -> float:
    log_p, log_q = torch.log_softmax(live, -1), torch.log_softmax(kept, -1)
    return float((log_p.exp() * (log_p - log_q)).sum(-1).mean())
