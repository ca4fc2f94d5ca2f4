"""Students that are made: pruned in depth, from scratch."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from capgap.distillation import DistillConfig, distill
from capgap.distillation.students.construction import construct_student
from capgap.errors import CapgapError
from tests.distillation.conftest import WORDS, make_model, make_tokenizer

Make = Callable[..., DistillConfig]
TEXTS = ["Q 1 + 2 ? 1 + 2 = 3 ; A 3", "Q 4 + 0 ? 4 + 0 = 4 ; A 4"]


@pytest.fixture
def deep(tmp_path: Path) -> Path:
    """Four layers, of which the second and the third do nothing."""
    model = make_model(seed=4, layers=4)
    with torch.no_grad():
        for layer in model.model.layers[1:3]:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
    model.save_pretrained(tmp_path / "deep")
    make_tokenizer().save_pretrained(tmp_path / "deep")
    return tmp_path / "deep"


def test_pruning_takes_out_the_layers_that_change_least(make_config: Make, tmp_path: Path, deep: Path) -> None:
    from transformers import AutoModelForCausalLM

    config = make_config(student={"prune": str(deep), "layers": 2})
    folder = Path(construct_student(config, tmp_path / "out", calibration=TEXTS))
    told = json.loads((folder / "pruned.json").read_text())
    assert told["kept"] == [0, 3]
    assert told["importance"][1] == pytest.approx(0, abs=1e-5)
    small, large = (AutoModelForCausalLM.from_pretrained(one).eval() for one in (folder, deep))
    assert small.config.num_hidden_layers == 2
    ids = torch.tensor([[1, 5, 6, 7, 8]])
    with torch.no_grad():
        torch.testing.assert_close(small(ids).logits, large(ids).logits)  # what is gone did nothing
    assert construct_student(config, tmp_path / "other", calibration=TEXTS) == str(folder)


@pytest.mark.parametrize("kind", ["gpt2", "gemma3_text"])
def test_pruned_models_of_other_shapes_load_and_run(make_config: Make, tmp_path: Path, kind: str) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    shape: dict[str, Any] = {
        "gpt2": {"n_embd": 16, "n_layer": 4, "n_head": 2, "n_positions": 64},
        "gemma3_text": {
            "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 32,
            "num_key_value_heads": 1, "head_dim": 8, "sliding_window": 4,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
        },
    }[kind]  # fmt: skip
    tokens = {"vocab_size": 4 + len(WORDS), "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **tokens, **shape))
    model.save_pretrained(tmp_path / kind)
    make_tokenizer().save_pretrained(tmp_path / kind)
    folder = construct_student(
        make_config(student={"prune": str(tmp_path / kind), "layers": 3}), tmp_path / "out", calibration=TEXTS
    )
    assert AutoModelForCausalLM.from_pretrained(folder)(torch.tensor([[1, 5, 6]])).logits.shape == (1, 3, 28)


def test_a_pruned_student_learns_from_what_it_was_cut_out_of(make_config: Make, tmp_path: Path, deep: Path) -> None:
    config = make_config(
        student={"prune": str(deep), "layers": 3}, teacher=str(deep), supervision="logits", texts="gold_answers",
        training={"max_steps": 10, "batch_size": 16, "lr": 0.01},
    )  # fmt: skip
    out = distill(config, tmp_path / "run" / "out", device="cpu")
    row = json.loads((out / "capgap.json").read_text())
    assert row["n_layers"] == 3
    assert row["base"].startswith("../bases/pruned-")


def test_more_layers_than_there_are_is_told(make_config: Make, tmp_path: Path, deep: Path) -> None:
    with pytest.raises(CapgapError, match=r"student\.layers is 4: ask for fewer"):
        construct_student(make_config(student={"prune": str(deep), "layers": 4}), tmp_path / "out", calibration=TEXTS)


def test_a_shape_becomes_a_student_with_weights_of_its_seed(make_config: Make, tmp_path: Path, base: Path) -> None:
    from transformers import AutoModelForCausalLM

    shape = {"model_type": "llama", "vocab_size": 32, "hidden_size": 16, "intermediate_size": 32}
    shape |= {"num_hidden_layers": 3, "num_attention_heads": 2}
    made = []
    for seed in (0, 0, 1):
        config = make_config(student={"config": shape, "tokenizer": str(base), "seed": seed})
        folder = construct_student(config, tmp_path / "out")
        made.append(AutoModelForCausalLM.from_pretrained(folder).model.embed_tokens.weight)
    assert made[0].shape == (32, 16)
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])
    out = distill(config, tmp_path / "out", device="cpu")
    assert json.loads((out / "capgap.json").read_text())["base_seed"] == 1


def test_the_shape_of_a_checkpoint_can_be_taken(make_config: Make, tmp_path: Path, base: Path) -> None:
    from transformers import AutoConfig

    folder = construct_student(make_config(student={"config": str(base), "tokenizer": str(base)}), tmp_path / "out")
    assert AutoConfig.from_pretrained(folder).hidden_size == AutoConfig.from_pretrained(base).hidden_size


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"model_type": "lama"}, "makes no model"),
        ({"model_type": "llama", "vocab_size": 3}, "vocab_size 3, and the tokenizer has 28 tokens"),
        ({"model_type": "llama", "vocab_size": 32, "hidden_size": 10, "num_attention_heads": 3}, "makes no model"),
    ],
)
def test_an_impossible_shape_is_told(
    make_config: Make, tmp_path: Path, base: Path, shape: dict[str, Any], message: str
) -> None:
    with pytest.raises(CapgapError, match=message):
        construct_student(make_config(student={"config": shape, "tokenizer": str(base)}), tmp_path / "out")
