"""A tiny Llama with a byte-level tokenizer, as a checkpoint and as a GGUF file of the same weights."""

from pathlib import Path
from typing import Any

import numpy as np

TEXT = ["Q : one plus two ? A : three", "the capital of red is blue and green", "four five six seven one two three"]
WIDTH, HEADS, LAYERS, INNER = 32, 4, 2, 64
_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_WHOLE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def make_llama(folder: Path, *, seed: int = 0) -> Path:
    """The checkpoint."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(TEXT, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>")
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=core.get_vocab_size(),
        hidden_size=WIDTH,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        max_position_embeddings=128,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=1,
        initializer_range=0.5,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_gguf(path: Path, checkpoint: Path, *, kind: str = "F32", template: str | None = None) -> Path:
    """The same model in llama.cpp's format, its matrices in blocks of `kind`."""
    import json

    from gguf import GGMLQuantizationType, GGUFWriter, TokenType, quants
    from safetensors.numpy import load_file

    path.parent.mkdir(parents=True, exist_ok=True)
    writer = GGUFWriter(path, "llama")
    vocabulary = json.loads((checkpoint / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    tokens = sorted(vocabulary["vocab"], key=vocabulary["vocab"].__getitem__)
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL if n < 2 else TokenType.NORMAL for n in range(len(tokens))])
    writer.add_token_merges([" ".join(pair) for pair in vocabulary["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_add_bos_token(False)
    if template is not None:
        writer.add_chat_template(template)
    for name, value in load_file(checkpoint / "model.safetensors").items():
        ours = _name(name)
        if ours.endswith(("attn_q.weight", "attn_k.weight")):
            value = _turned(value)
        if kind == "F32" or value.ndim < 2:
            writer.add_tensor(ours, value)
        else:
            blocks = GGMLQuantizationType[kind]
            writer.add_tensor(ours, quants.quantize(value, blocks), raw_dtype=blocks)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _name(name: str) -> str:
    head = name.removesuffix(".weight")
    if head in _WHOLE:
        return f"{_WHOLE[head]}.weight"
    layer, _, part = head.removeprefix("model.layers.").partition(".")
    return f"blk.{layer}.{_LAYER[part]}.weight"


def _turned(value: Any) -> Any:
    """llama.cpp turns neighbouring pairs of a head, transformers its halves; the rows are interleaved."""
    heads = value.reshape(HEADS, 2, WIDTH // HEADS // 2, -1)
    return np.ascontiguousarray(heads.swapaxes(1, 2).reshape(value.shape))
