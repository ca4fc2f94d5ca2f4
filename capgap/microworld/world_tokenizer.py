"""Tokenizer files of the microworld: one word, one token, split at white space.

No token is added before or after a text, so that a context and its continuation, joined by a space, are encoded as
the one after the other. Decoding joins the words with spaces. ``<eos>`` ends a completion.
"""

import json
from pathlib import Path
from typing import Any

from capgap.microworld.vocabulary import EOS_TOKEN, PAD_TOKEN, SPECIAL_TOKENS, UNKNOWN_TOKEN
from capgap.microworld.world import World

MAX_SEQUENCE_TOKENS = 64
"""Longest sequence of the world, in tokens; question, steps and answer always fit."""


def write_tokenizer(microworld: World, folder: Path) -> None:
    """Write ``tokenizer.json`` and ``tokenizer_config.json``, as `AutoTokenizer.from_pretrained` reads them."""
    token_flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added_tokens = [{"id": i, "content": word, **token_flags} for i, word in enumerate(SPECIAL_TOKENS)]
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added_tokens,
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "WordLevel",
            "vocab": {word: i for i, word in enumerate(microworld.vocabulary)},
            "unk_token": UNKNOWN_TOKEN,
        },
    }
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": EOS_TOKEN,
        "pad_token": PAD_TOKEN,
        "unk_token": UNKNOWN_TOKEN,
        "model_max_length": MAX_SEQUENCE_TOKENS,
        "padding_side": "left",
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
    }
    _write_json(folder / "tokenizer.json", tokenizer)
    _write_json(folder / "tokenizer_config.json", config)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
