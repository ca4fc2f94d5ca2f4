"""Packed passes against sequences alone: hidden states, logits, gradients; and models that cannot be packed."""

from typing import Any

import pytest
import torch

from capgap.models.lm_head import LanguageModelHead, read_lm_head
from capgap.models.packed import PackedBackbone, PackedRow

SHAPE: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GROUPED = {"num_key_value_heads": 2, "head_dim": 8}
KINDS: dict[str, dict[str, Any]] = {
    "llama": GROUPED,
    "qwen3": GROUPED,
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128},
    "gpt_neox": {},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "mistral": {**GROUPED, "sliding_window": 8},
    "gemma2": {**GROUPED, "sliding_window": 8},
    "gemma3_text": {**GROUPED, "sliding_window": 8},
    "cohere": {"num_key_value_heads": 2, "logit_scale": 0.25},
    "granite": {"num_key_value_heads": 2, "logits_scaling": 3.0},
    "phi": {},
}
LENGTHS = (5, 30, 70, 12, 1, 66, 29)


def build(kind: str, **changes: Any) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(
        AutoConfig.for_model(kind, **SHAPE, **KINDS.get(kind, {}), **changes)
    ).eval()


def sequences() -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(3, 97, (length,), generator=generator).tolist() for length in LENGTHS]


@pytest.mark.parametrize("kind", KINDS)
def test_a_packed_pass_gives_the_logits_and_the_gradients_of_sequences_alone(kind: str) -> None:
    model = build(kind)
    packed, head = PackedBackbone(model), read_lm_head(model)
    assert head is not None
    packed.prove_packing(sequences())
    assert packed.why_not is None
    row, ids = PackedRow(LENGTHS), torch.tensor([token for one in sequences() for token in one])
    chosen = torch.randn(len(ids), 97, generator=torch.Generator().manual_seed(2))
    alone = torch.cat([model(input_ids=torch.tensor([one]), use_cache=False).logits[0] for one in sequences()])
    (alone * chosen).sum().backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    with packed.in_use():
        together = head.logits(packed.hidden(ids, row))
        (together * chosen).sum().backward()
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    for name, parameter in model.named_parameters():
        if name in expected:
            scale = float(expected[name].abs().max())
            torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-3, atol=1e-5 * max(scale, 1.0))


def test_padding_runs_what_cannot_be_packed_and_gives_the_same() -> None:
    model = build("llama", attn_implementation="eager")
    packed = PackedBackbone(model)
    row, ids = PackedRow(LENGTHS), torch.tensor([token for one in sequences() for token in one])
    with torch.no_grad():
        with packed.in_use():
            expected = packed.hidden(ids, row)
        packed.why_not = "for this test"
        with packed.in_use():
            torch.testing.assert_close(packed.hidden(ids, row), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["bloom", "mamba"])
def test_states_and_biases_by_distance_are_found_out(kind: str) -> None:
    packed = PackedBackbone(build(kind))
    packed.prove_packing(sequences())
    assert packed.why_not is not None
    assert "packed pass" in packed.why_not


def test_an_attention_that_ignores_the_row_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from capgap.models import packed as module

    whole = PackedRow((sum(LENGTHS),))
    original = module._packed_attention
    leaking = lambda *args, row, **options: original(*args, row=whole, **options)  # noqa: E731
    monkeypatch.setitem(module.AttentionInterface._global_mapping, module._PACKED_ATTENTION_NAME, leaking)
    packed = PackedBackbone(build("llama"))
    packed.prove_packing(sequences())
    assert packed.why_not is not None


def test_the_model_is_as_it_was_behind_a_packed_pass() -> None:
    model = build("llama")
    before = model.config._attn_implementation
    packed = PackedBackbone(model)
    with pytest.raises(RuntimeError, match="inside"), packed.in_use():
        raise RuntimeError("inside")
    assert model.config._attn_implementation == before
    assert model(input_ids=torch.tensor([[3, 4]])).logits.shape == (1, 2, 97)


def test_gradient_checkpointing_changes_no_gradient() -> None:
    gradients = []
    for checkpointing in (False, True):
        model = build("llama").train()
        if checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        packed = PackedBackbone(model)
        ids = torch.tensor([token for one in sequences() for token in one])
        with packed.in_use():
            packed.hidden(ids, PackedRow(LENGTHS)).square().sum().backward()
        gradients.append(model.model.layers[0].mlp.up_proj.weight.grad)
    torch.testing.assert_close(gradients[1], gradients[0])


def test_grids_hold_every_token_once_and_little_else() -> None:
    row = PackedRow((3, 100, 2, 90, 40, 1))
    assert row.token_of_cell[row.cell_of_token].tolist() == list(range(row.n_tokens))
    assert [grid.index.shape[0] for grid in row.grids_by_length] == [2, 4]  # beside 100, 90 is alike and 40 is not
    assert row.positions.tolist() == [place for length in row.lengths for place in range(length)]


def test_a_head_is_scale_cap_and_bias() -> None:
    head = LanguageModelHead(torch.tensor([[2.0], [4.0]]), torch.tensor([1.0, 0.0]), scale=0.5, cap=3.0)
    raw = torch.tensor([[3.5, 6.0]])
    torch.testing.assert_close(head.logits(torch.tensor([[3.0]])), torch.tanh(raw / 3) * 3)
    assert head.truncate_vocabulary(1).logits(torch.tensor([[3.0]])).shape == (1, 1)


def test_a_head_that_is_not_what_it_seems_is_not_believed() -> None:
    model = build("llama")
    assert read_lm_head(model) is not None
    original = model.forward
    model.forward = lambda *args, **options: _doubled(original(*args, **options))
    assert read_lm_head(model) is None


def _doubled(output: Any) -> Any:
    output.logits = output.logits * 2
    return output
