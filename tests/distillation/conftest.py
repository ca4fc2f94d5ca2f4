"""A tokenizer of words, tiny Llama checkpoints and a small world of sums to distil from."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from capgap.distillation import DistillConfig, distill

WORDS = [
    *"0123456789",
    "+",
    "=",
    ";",
    "Q",
    "A",
    "?",
    "is",
    "the",
    "answer",
    "red",
    "blue",
    "user",
    "assistant",
    "system",
]

# Marks each turn and says itself what the assistant generates.
MARKED = (
    "{% for m in messages %}{{ m['role'] + ' ' }}"
    "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] + ' <eos> ' }}{% endgeneration %}"
    "{% else %}{{ m['content'] + ' ' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant ' }}{% endif %}"
)


@pytest.fixture(autouse=True)
def _offline_and_still(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import torch

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make_tokenizer(*, chat_template: str | None = None) -> Any:
    """One word, one token; ``<bos>`` stands before every text."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: index for index, word in enumerate(["<pad>", "<bos>", "<eos>", "<unk>", *WORDS])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    raw.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>"
    )
    if chat_template is not None:
        tokenizer.chat_template = chat_template
    return tokenizer


def make_model(*, seed: int = 0, layers: int = 1, width: int = 32) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=4 + len(WORDS),
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=layers,
            num_attention_heads=2,
            max_position_embeddings=64,
            tie_word_embeddings=True,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
        )
    )


def save_checkpoint(folder: Path, **options: Any) -> Path:
    make_model(**options).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def sums() -> list[dict[str, Any]]:
    """All sums of two digits below ten, with the steps that lead to them."""
    return [
        {
            "item": f"{a}+{b}",
            "prompt": f"Q {a} + {b} ?",
            "completion": f" A {a + b}",
            "rationale": f"{a} + {b} = {a + b} ;",
            "capability": "reasoning" if b else "knowledge",
        }
        for a in range(10)
        for b in range(10)
        if a + b < 10
    ]


def write_jsonl(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


@contextmanager
def interrupted_at(step: int) -> Iterator[None]:
    """What trains in here is cut off behind a step."""
    from capgap.distillation.training import trainer as training

    class Interrupted(Exception):
        pass

    original = training._TrainerCallback.on_step_end

    def cut(self: Any, args: Any, state: Any, control: Any, **options: Any) -> None:
        original(self, args, state, control, **options)
        if state.global_step == step:
            raise Interrupted

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(training._TrainerCallback, "on_step_end", cut)
        with pytest.raises(Interrupted):
            yield


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained student."""
    return save_checkpoint(tmp_path_factory.mktemp("base") / "base", seed=1)


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher that shows its steps, and knows most sums."""
    folder = tmp_path_factory.mktemp("teacher")
    told = {
        "name": "master",
        "student": str(save_checkpoint(folder / "untrained", seed=2, width=64)),
        "data": {"file": str(write_jsonl(folder / "sums.jsonl", sums())), "extract": r"A (\S+)"},
        "supervision": "gold_traces",
        "training": {"max_steps": 100, "batch_size": 55, "lr": 0.01, "schedule": "linear"},
    }
    return distill(DistillConfig.model_validate(told), folder / "master", device="cpu")


@pytest.fixture(scope="session")
def schooled(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Path:
    """A student that answers at once, and has something for an adapter to bend."""
    folder = tmp_path_factory.mktemp("schooled")
    told = {
        "name": "schooled",
        "student": str(base),
        "data": {"file": str(write_jsonl(folder / "sums.jsonl", sums())), "extract": r"A (\S+)"},
        "supervision": "gold_answers",
        "training": {"max_steps": 100, "batch_size": 55, "lr": 0.01, "schedule": "linear"},
    }
    return distill(DistillConfig.model_validate(told), folder / "out", device="cpu")


@pytest.fixture
def write_sums(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "sums.jsonl", sums())


@pytest.fixture
def make_config(base: Path, write_sums: Path) -> Callable[..., DistillConfig]:
    """A file about the sums, with changes."""

    def make(**changes: Any) -> DistillConfig:
        told: dict[str, Any] = {
            "name": "pupil",
            "student": str(base),
            "data": {"file": str(write_sums), "extract": r"A (\S+)"},
            "supervision": "gold_answers",
            "training": {"max_steps": 20, "batch_size": 8, "lr": 0.01},
        }
        return DistillConfig.model_validate(told | changes)

    return make


os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
