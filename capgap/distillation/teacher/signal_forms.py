"""Forms of a teacher's distribution at a position: hidden states, the top k with a tail, or a sample."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from capgap.errors import DistillError
from capgap.models.lm_head import LanguageModelHead

_POSITION_TENSOR_FIELDS = ("hidden", "ids", "logprobs", "entropy", "sampled_entropy")
"""Fields of `TeacherSignal` with a row for each position."""


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
class TeacherSignal:
    """One teacher's distributions at N positions, in exactly one of three forms."""

    hidden: torch.Tensor | None = None
    """Its last hidden states, shape (N, width); with `head`, its distribution itself."""
    head: LanguageModelHead | None = None
    """Its language-model head."""
    ids: torch.Tensor | None = None
    """Tokens, shape (N, k)."""
    logprobs: torch.Tensor | None = None
    """Log-probabilities at temperature 1, nats, shape (N, k + 1): of the likeliest k, and of all others together.
    None: `ids` are a sample."""
    entropy: torch.Tensor | None = None
    """Entropy at temperature 1, nats, shape (N,); where there are ids."""
    sampled_entropy: torch.Tensor | None = None
    """Entropy at the temperature of the sample, nats, shape (N,)."""

    def tile(self, low: int, high: int) -> "TeacherSignal":
        """The positions from `low` to `high`."""
        return self._map_tensors(lambda values: values[low:high])

    def to(self, device: str | torch.device) -> "TeacherSignal":
        """The same on a device."""
        return self._map_tensors(lambda values: values.to(device))

    def _map_tensors(self, transform: Callable[[torch.Tensor], torch.Tensor]) -> "TeacherSignal":
        tensors = {name: getattr(self, name) for name in _POSITION_TENSOR_FIELDS}
        new_fields: dict[str, Any] = {name: transform(values) for name, values in tensors.items() if values is not None}
        return replace(self, **new_fields)


def cache_token_bytes(mode: str, *, width: int, k: int) -> int:
    """Bytes that a position that carries loss takes: 16-bit states and log-probabilities, 32-bit ids and entropies."""
    return {"hidden": 2 * width, "top_k": 4 * k + 2 * (k + 1) + 4, "sample": 4 * k + 8}[mode]


def choose_cache_form(
    mode: str, *, k: int, max_gb: float, temperature: float, divergence: str | None, n_tokens: int, width: int
) -> CacheForm:
    """The form that is asked for; ``auto`` takes hidden states while they are small enough, else a sample.

    Parameters
    ----------
    mode, k, max_gb
        Of the file's ``cache``.
    temperature, divergence
        Of its objective.
    n_tokens
        Positions that carry loss.
    width
        Hidden size of the teachers, summed.

    Raises
    ------
    DistillError
        Hidden states are too large, and a sample cannot give the divergence.
    """
    if mode == "auto":
        size = n_tokens * cache_token_bytes("hidden", width=width, k=k) / 1e9
        if size > max_gb and divergence != "forward_kl":
            raise DistillError(
                f"hidden states for {n_tokens:,} tokens take {size:.1f} GB, over cache.max_gb ({max_gb:g}), and a "
                f"sample gives forward_kl only, not {divergence}. Raise cache.max_gb, or say cache.mode: top_k."
            )
        mode = "hidden" if size <= max_gb else "sample"
    if mode == "hidden":
        return CacheForm("hidden")
    return CacheForm("top_k", k) if mode == "top_k" else CacheForm("sample", k, temperature)
