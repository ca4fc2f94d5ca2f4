"""Support check of tree scoring: the attention layout of a model, or the reason why it cannot be scored as a tree."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_FORWARD_ARGUMENTS = ("input_ids", "attention_mask", "position_ids", "past_key_values", "logits_to_keep")
# RoPE whose angles depend on the longest position in the pass: items in one row would change each other.
_LENGTH_DEPENDENT_ROPE = ("dynamic", "longrope")
_ATTENTION_LAYERS = ("full_attention", "sliding_attention", "attention")
# Attention's share of a pass over a row; a longer row spends more on looking at tokens that the mask hides.
_MAX_ATTENTION_SHARE = 0.15
_MIN_EFFICIENT_ROW = 256  # a shorter pass leaves the processor waiting for weights


@dataclass(frozen=True)
class AttentionLayout:
    """Attention windows of a model's layers, and the form in which it takes masks."""

    windows: Mapping[str, int | None]
    """Layer type → tokens that it sees back, itself included; None: all."""
    masks_by_layer_type: bool
    """Whether the model takes one mask per layer type; else one for all layers."""


def read_attention_layout(model: Any) -> AttentionLayout:
    """The attention layout of a transformers model, from its config."""
    config = _text_config(model)
    window = getattr(config, "sliding_window", None)
    if not getattr(config, "use_sliding_window", True):
        window = None
    if getattr(config, "layer_types", None):
        # Models with layer types take a dictionary of masks; both kinds are given, whichever their layers use.
        return AttentionLayout({"full_attention": None, "sliding_attention": window}, masks_by_layer_type=True)
    return AttentionLayout({"every layer": window}, masks_by_layer_type=False)


def fitting_row_tokens(model: Any, batch_tokens: int) -> int:
    """Row length in tokens that keeps attention's share of the work small; `batch_tokens` at most.

    A token costs two operations per weight of the layers, and four per layer, unit of width and token of the row.
    """
    config = _text_config(model)
    layers = int(getattr(config, "num_hidden_layers", 0) or 1)
    heads = int(getattr(config, "num_attention_heads", 0) or 1)
    width = heads * int(getattr(config, "head_dim", None) or getattr(config, "hidden_size", 64) // heads)
    embedding = model.get_input_embeddings().weight.numel()
    weights = max(sum(p.numel() for p in model.parameters()) - embedding, 1)
    fitting = int(_MAX_ATTENTION_SHARE * 2 * weights / (4 * layers * width))
    return min(max(fitting, _MIN_EFFICIENT_ROW), batch_tokens)


def tree_unsupported_reason(model: Any, backend: str = "causal") -> str | None:
    """Why a model cannot be scored as a tree, as far as its config tells; None where nothing speaks against it."""
    base_model = model.get_base_model() if hasattr(model, "get_base_model") else model
    config = _text_config(model)
    missing = [name for name in _FORWARD_ARGUMENTS if name not in inspect.signature(base_model.forward).parameters]
    if backend != "causal":
        return "it is an encoder-decoder model"
    if getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
        return "its soft prompt stands before every row"
    if getattr(base_model, "_is_stateful", False):
        return "it keeps a state from token to token"
    unsupported_layers = [kind for kind in getattr(config, "layer_types", None) or () if kind not in _ATTENTION_LAYERS]
    if unsupported_layers:
        return f"it has layers of {unsupported_layers[0].replace('_', ' ')}"
    if getattr(config, "alibi", False) or config.model_type in ("bloom", "mpt"):
        return "its attention is biased by distance (ALiBi)"
    if missing:
        return f"its forward pass takes no {missing[0]}"
    rope = [kind for kind in _rope_types(config) if kind in _LENGTH_DEPENDENT_ROPE]
    if rope:
        return f"its positions depend on the longest sequence of a pass ({rope[0]} RoPE)"
    attention_backend = getattr(config, "_attn_implementation", None)
    if attention_backend not in ("sdpa", "eager"):
        return f"its attention is {attention_backend}, which takes no masks of ours"
    return None


def _text_config(model: Any) -> Any:
    config = model.config
    return config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config


def _rope_types(config: Any) -> list[str]:
    """Names of the RoPE variants in a config, whether it has one for all layers or one per layer type."""
    settings = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None)
    if not isinstance(settings, Mapping):
        return []
    nested = [value for value in settings.values() if isinstance(value, Mapping)] or [settings]
    return [str(rope_settings.get("rope_type") or rope_settings.get("type") or "") for rope_settings in nested]
