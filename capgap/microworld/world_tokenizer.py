"""Tokenizer files of the microworld: one word, one token, split at white space.

No token is added before or after a text, so that a context and its continuation, joined by a space, are encoded as
the one after the other. Decoding joins the words with spaces. ``<eos>`` ends a completion.
"""

import json
from pathlib import Path
from typing import Any

from capgap.microworld.vocabulary import END, PAD, SPECIAL, UNKNOWN
from capgap.microworld.world import World

MAX_LENGTH = 64
"""Longest sequence of the world, in tokens; question, steps and answer always fit."""


def write_tokenizer(world: World, folder: Path) -> None:
    """Write ``tokenizer.json`` and ``tokenizer_config.json``, as `AutoTokenizer.from_pretrained` reads them."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = [{"id": i, "content": word, **flags} for i, word in enumerate(SPECIAL)]
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "WordLevel",
            "vocab": {word: i for i, word in enumerate(world.vocabulary)},
            "unk_token": UNKNOWN,
        },
    }
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END,
        "pad_token": PAD,
        "unk_token": UNKNOWN,
        "model_max_length": MAX_LENGTH,
        "padding_side": "left",
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
    }
    _write(folder / "tokenizer.json", tokenizer)
    _write(folder / "tokenizer_config.json", config)


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
