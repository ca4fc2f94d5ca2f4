"""Language-model head as plain tensors, so that logits are computed only where they are wanted."""

from dataclasses import dataclass, replace
from typing import Any

import torch

_RTOL = 1e-4  # of the largest logit, in float32: the same arithmetic in another order


@dataclass(frozen=True)
class LanguageModelHead:
    """Output projection: ``cap * tanh(scale * (hidden @ weight.T + bias) / cap)``, in float32."""

    weight: torch.Tensor | None
    """Shape (vocabulary, width); None where "hidden states" are logits already."""
    bias: torch.Tensor | None = None
    """Shape (vocabulary,)."""
    scale: float = 1.0
    """What logits are multiplied by (Cohere, Granite)."""
    cap: float | None = None
    """What bounds them (Gemma)."""

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits in float32, shape (positions, vocabulary), of hidden states of shape (positions, width)."""
        if self.weight is not None:
            hidden = torch.nn.functional.linear(hidden.to(self.weight.dtype), self.weight, self.bias)
        raw = hidden if hidden.dtype == torch.float64 else hidden.float()
        if self.scale != 1.0:
            raw = raw * self.scale
        return raw if self.cap is None else torch.tanh(raw / self.cap) * self.cap

    def truncate_vocabulary(self, n_vocabulary: int) -> "LanguageModelHead":
        """Only its first ids; those behind them fill up a table and stand for no text."""
        bias = None if self.bias is None else self.bias[:n_vocabulary]
        return replace(self, weight=None if self.weight is None else self.weight[:n_vocabulary], bias=bias)


def read_lm_head(model: Any) -> LanguageModelHead | None:
    """The head of a causal language model of transformers; None where these numbers do not give its logits.

    It is read from the output embeddings and the config, and compared with the model's own logits before it is
    believed. Its tensors are the model's own parameters.
    """
    layer = model.get_output_embeddings()
    weight = getattr(layer, "weight", None)
    if type(layer) is not torch.nn.Linear or weight is None:
        return None  # an adapter on the head, a head of several layers
    config = model.config.get_text_config(decoder=True)
    softcap = getattr(config, "final_logit_softcapping", None)
    lm_head = LanguageModelHead(weight, layer.bias, scale=_read_logit_scale(config), cap=softcap)
    return lm_head if _matches_model(model, lm_head, weight) else None


def _read_logit_scale(config: Any) -> float:
    multiplier, logit_divisor = getattr(config, "logit_scale", None), getattr(config, "logits_scaling", None)
    if isinstance(multiplier, int | float):
        return float(multiplier)
    return 1 / float(logit_divisor) if isinstance(logit_divisor, int | float) else 1.0


@torch.no_grad()
def _matches_model(model: Any, lm_head: LanguageModelHead, weight: torch.Tensor) -> bool:
    """Whether the head gives the model's own logits for a few tokens."""
    was_training = model.training
    model.eval()
    ids = torch.arange(1, min(6, len(weight)), device=weight.device)[None]
    try:
        expected = model(input_ids=ids, use_cache=False).logits[0]
        backbone = model.get_decoder() if hasattr(model, "get_decoder") else model.base_model
        logits = lm_head.logits(backbone(input_ids=ids, use_cache=False).last_hidden_state[0])
    finally:
        model.train(was_training)
    if expected.shape != logits.shape:
        return False
    rtol = _RTOL if weight.dtype in (torch.float32, torch.float64) else 300 * _RTOL
    return bool((expected - logits).abs().max() <= rtol * expected.abs().max().clamp(min=1.0))
