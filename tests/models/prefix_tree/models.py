"""Tiny randomly initialised models of the architectures that people distil, as ordinary checkpoints."""

from pathlib import Path
from typing import Any

from tests.conftest import WORDS, make_checkpoint

_COMMON: dict[str, Any] = {
    "vocab_size": len(WORDS),
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": 0,
    "initializer_range": 0.4,  # sharper than usual, so that answers differ between items
}
_LLAMA_LIKE: dict[str, Any] = {
    **_COMMON,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
}
WINDOW = 24

SETTINGS: dict[str, dict[str, Any]] = {
    "llama": _LLAMA_LIKE,
    "qwen3": _LLAMA_LIKE,
    "mistral": {**_LLAMA_LIKE, "sliding_window": WINDOW},
    "gemma3_text": {
        **_LLAMA_LIKE,
        "sliding_window": WINDOW,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "query_pre_attn_scalar": 8,
        "tie_word_embeddings": False,  # tied, a random Gemma repeats the last token for ever
    },
    "gemma2": {
        **_LLAMA_LIKE,
        "sliding_window": WINDOW,
        "query_pre_attn_scalar": 8,
        "attn_implementation": "eager",
        "tie_word_embeddings": False,
    },
    "gpt2": {**_COMMON, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 512},
    "gpt_neox": {
        **{k: v for k, v in _LLAMA_LIKE.items() if k not in ("num_key_value_heads", "head_dim")},
        "rotary_pct": 0.5,
    },
    "opt": {
        **{k: v for k, v in _LLAMA_LIKE.items() if k not in ("num_key_value_heads", "head_dim", "intermediate_size")},
        "ffn_dim": 48,
        "word_embed_proj_dim": 32,
        "init_std": 0.4,
    },
    "bloom": {**_COMMON, "hidden_size": 32, "n_layer": 2, "n_head": 4},
    "mamba": {**_COMMON, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8},
}
TREE = ("llama", "qwen3", "mistral", "gemma3_text", "gemma2", "gpt2", "gpt_neox", "opt")
PLAIN = {"bloom": "ALiBi", "mamba": "a state from token to token"}


def make_model(folder: Path, kind: str, *, seed: int = 0, **changes: Any) -> Path:
    """A checkpoint of an architecture, with the word-level tokenizer of the other tests."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    make_checkpoint(folder, seed=seed)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(seed)
    settings = {**SETTINGS[kind], **changes}
    implementation = settings.pop("attn_implementation", None)
    config = AutoConfig.for_model(kind, **settings)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=implementation)
    for name, parameter in model.named_parameters():
        if "norm" in name and "weight" in name:
            # weights of one hide a norm that is applied in the wrong place
            torch.nn.init.normal_(parameter, 1.0 if "gemma" not in kind else 0.0, 0.1)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
