"""Packed weights: they are scored as what they stand for, or refused before they are loaded."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from capgap.errors import ModelError
from capgap.models import Ledger, check_model, load_model, parse_model, respond
from capgap.models.quantisation import WeightQuantisation, check_device
from tests.conftest import make_checkpoint
from tests.models.test_request_loop import generate, requests, score
from tests.models.tiny_gguf import make_gguf, make_llama

SAME = 1e-3
"""Nats: the same numbers in the same arithmetic, up to 15 nats; rows may lie elsewhere in memory. Measured: 1.4e-4."""


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llama(tmp_path_factory.mktemp("llama") / "plain")


def asked(word: str, ledger: Path) -> tuple[Any, list[Any]]:
    model = load_model(parse_model(word), device="cpu")
    with Ledger(ledger) as book:
        return model, [response.value for (response,) in respond(model, requests(), book)]


def assert_same(ours: list[Any], theirs: list[Any]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        if isinstance(one, tuple):
            assert one[0] == pytest.approx(other[0], abs=SAME)
        else:
            assert one == other


def changed(source: Path, folder: Path, each: Callable[[str, Any], dict[str, Any]], packing: Any = None) -> Path:
    """A copy of a checkpoint whose layers' matrices were replaced, and what its config.json says of it."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(source, folder)
    tensors: dict[str, Any] = {}
    for name, value in load_file(folder / "model.safetensors").items():
        tensors |= each(name, value) if "proj" in name else {name: value}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    if packing is not None:
        say(folder, quantization_config=packing)
    return folder


def say(folder: Path, **more: Any) -> Path:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | more))
    return folder


# --- GGUF


@pytest.mark.parametrize("kind", ["F32", "Q8_0", "Q4_0"])
def test_a_gguf_file_answers_as_the_weights_that_its_blocks_stand_for(llama: Path, tmp_path: Path, kind: str) -> None:
    from gguf import GGMLQuantizationType, quants
    from safetensors.numpy import load_file, save_file

    file = make_gguf(tmp_path / "gguf" / "tiny.gguf", llama, kind=kind)
    rounded = Path(shutil.copytree(llama, tmp_path / "rounded"))
    blocks = GGMLQuantizationType[kind]
    weights = load_file(rounded / "model.safetensors")
    for name, value in weights.items():
        if value.ndim == 2 and kind != "F32":
            weights[name] = quants.dequantize(quants.quantize(value, blocks), blocks)
    save_file(weights, rounded / "model.safetensors", metadata={"format": "pt"})
    model, answers = asked(str(file), tmp_path / "g")
    direct, expected = asked(str(rounded), tmp_path / "d")
    assert_same(answers, expected)
    assert model.lm.tok_encode("Q : one plus two") == direct.lm.tok_encode("Q : one plus two")
    assert model.tree is not None, "its proof holds"
    assert model.facts["n_params"] == direct.facts["n_params"]
    assert any("gguf, unpacked" in note for note in model.notes)


def test_the_fingerprint_of_a_gguf_holds_its_blocks(llama: Path, tmp_path: Path) -> None:
    folders = [tmp_path / kind for kind in ("F32", "Q8_0")]
    models = []
    for folder in folders:
        make_gguf(folder / "tiny.gguf", llama, kind=folder.name)
        models.append(load_model(parse_model(f"m={folder}"), device="cpu"))
    assert models[0].fingerprint != models[1].fingerprint
    assert models[0].identity["quantization"] == {"method": "gguf", "unpacked": True}
    again = load_model(parse_model(f"m={folders[0] / 'tiny.gguf'}"), device="cpu")
    assert again.fingerprint == models[0].fingerprint, "a folder with one file is that file"


def test_a_gguf_is_addressed_as_its_own_template_says(llama: Path, tmp_path: Path) -> None:
    template = "{% for m in messages %}{{ m['role'] }} : {{ m['content'] }} {% endfor %}A :"
    chat = make_gguf(tmp_path / "chat" / "m.gguf", llama, template=template)
    shutil.copy(llama / "tokenizer_config.json", chat.parent)
    model = load_model(parse_model(str(chat)), device="cpu")
    assert model.prompting.chat_template
    assert model.lm.apply_chat_template([{"role": "user", "content": "one"}]) == "user : one A :"
    plain = make_gguf(tmp_path / "plain" / "m.gguf", llama)
    assert not load_model(parse_model(str(plain)), device="cpu").prompting.chat_template


def test_an_adapter_may_stand_on_a_gguf(llama: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(llama)
    adapted = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapter")
    file = make_gguf(tmp_path / "gguf" / "m.gguf", llama)
    over_gguf, answers = asked(f"{tmp_path / 'adapter'},adapter_base={file}", tmp_path / "g")
    over_plain, expected = asked(str(tmp_path / "adapter"), tmp_path / "p")
    assert_same(answers, expected)
    assert over_gguf.fingerprint != over_plain.fingerprint
    assert over_gguf.facts["adaptation"] == "lora"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "truncated: its tensor .* ends behind"),
        (lambda path: path.write_bytes(path.read_bytes()[:200]), "its GGUF header cannot be read"),
        (lambda path: path.write_bytes(b"GGML" + path.read_bytes()[4:]), "does not begin as a GGUF file does"),
        (lambda path: path.write_bytes(b""), "does not begin as a GGUF file does"),
        (lambda path: shutil.copy(path, path.with_name("b.gguf")), r"holds 2 GGUF files. Say which: .*a\.gguf"),
    ],
)
def test_a_gguf_that_cannot_be_read_is_refused_before_it_is_loaded(
    llama: Path, tmp_path: Path, spoil: Callable[[Path], Any], message: str
) -> None:
    file = make_gguf(tmp_path / "g" / "a.gguf", llama)
    spoil(file)
    with pytest.raises(ModelError, match=message):
        check_model(parse_model(str(file.parent)))


def test_a_gguf_without_its_reader_names_the_command(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = make_gguf(tmp_path / "a.gguf", llama)
    monkeypatch.setattr("capgap.models.gguf.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"pip install 'capgap\[gguf\]'"):
        check_model(parse_model(str(file)))
    with pytest.raises(ModelError, match="pip install"):
        load_model(parse_model(str(file)))


def test_a_quantised_file_is_not_quantised_again(llama: Path, tmp_path: Path) -> None:
    file = make_gguf(tmp_path / "a.gguf", llama)
    with pytest.raises(ModelError, match="quantised already"):
        check_model(parse_model(f"{file},quantization=4bit"))


# --- quantization_config


@pytest.mark.parametrize(
    ("packing", "message"),
    [
        ({"quant_method": "gptq", "bits": 4}, r"gptq \(4 bit\), and what unpacks .* pip install .*gptqmodel"),
        ({"quant_method": "awq", "bits": 4}, "pip install gptqmodel"),
        ({"quant_method": "aqlm"}, r"pip install 'aqlm\[gpu,cpu\]'"),
        ({"quant_method": "quanto"}, "pip install optimum-quanto"),
        ({"quant_method": "auto-round"}, "pip install auto-round"),
        ({"bits": 4, "group_size": 64}, r"names no quant_method \(it has bits, group_size\)"),
        (["x"], "quantization_config: expected an object, found list"),
    ],
)
def test_packed_weights_that_cannot_be_unpacked_are_refused_before_they_are_loaded(
    tmp_path: Path, packing: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("capgap.models.installed_packages.find_spec", lambda name: None)
    folder = say(make_checkpoint(tmp_path / "m"), quantization_config=packing)
    (folder / "model.safetensors").rename(folder / "kept")
    shutil.copy(folder / "kept", folder / "model.safetensors")
    for attempt in (check_model, load_model):
        with pytest.raises(ModelError, match=message):
            attempt(parse_model(str(folder)))  # type: ignore[operator]


@pytest.mark.parametrize(("method", "device"), [("higgs", "cpu"), ("vptq", "mps"), ("fbgemm_fp8", "cpu")])
def test_packed_weights_that_need_another_device_say_which(method: str, device: str) -> None:
    with pytest.raises(ModelError, match=f"unpacked on a CUDA device only, and this is {device}"):
        check_device(WeightQuantisation(method, {}), device, "m")
    check_device(WeightQuantisation(method, {}), "cuda:1", "m")


def test_a_method_that_transformers_does_not_know_is_refused(tmp_path: Path) -> None:
    folder = say(make_checkpoint(tmp_path / "m"), quantization_config={"quant_method": "modelopt"})
    with pytest.raises(ModelError, match=r"modelopt, which this transformers cannot unpack. It knows .*gptq"):
        load_model(parse_model(str(folder)), device="cpu")


@pytest.mark.parametrize("file", ["quantize_config.json", "hf_quant_config.json"])
def test_weights_of_older_tools_are_not_taken_for_plain_ones(tmp_path: Path, file: str) -> None:
    folder = make_checkpoint(tmp_path / "m")
    (folder / file).write_text("{}")
    with pytest.raises(ModelError, match=f"looks quantised .it has {file}"):
        check_model(parse_model(str(folder)))


def test_weights_that_no_file_holds_are_never_noise(tmp_path: Path) -> None:
    folder = changed(make_checkpoint(tmp_path / "m"), tmp_path / "n", lambda name, value: {})
    with pytest.raises(ModelError, match=r"its files lack 14 of the weights .*fill them with noise"):
        load_model(parse_model(str(folder)), device="cpu")


def test_scales_that_nobody_reads_are_no_small_matter(tmp_path: Path) -> None:
    packing = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
    folder = changed(
        make_checkpoint(tmp_path / "m"),
        tmp_path / "n",
        lambda name, value: {name: value, f"{name}_odd": value.clone()},
        packing,
    )
    with pytest.raises(ModelError, match="does not read 14 of their parts"):
        load_model(parse_model(str(folder)), device="cpu")


def _fp8(name: str, value: Any) -> dict[str, Any]:
    import torch

    scale = value.abs().max() / 448
    return {name: (value / scale).to(torch.float8_e4m3fn), f"{name}_scale_inv": scale.reshape(1, 1)}


def test_fp8_weights_are_computed_as_what_they_stand_for(tmp_path: Path) -> None:
    packing = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
    plain = make_checkpoint(tmp_path / "plain")
    packed = changed(plain, tmp_path / "packed", _fp8, packing)

    def unpacked(name: str, value: Any) -> dict[str, Any]:
        weight, scale = _fp8(name, value).values()
        return {name: weight.float() * scale}

    model, answers = asked(str(packed), tmp_path / "p")
    direct, expected = asked(str(changed(plain, tmp_path / "unpacked", unpacked)), tmp_path / "u")
    assert_same(answers, expected)
    assert model.identity["quantization"]["quant_method"] == "fp8"
    assert model.fingerprint != direct.fingerprint
    assert any("fp8, unpacked to torch.float32" in note for note in model.notes)


def test_compressed_tensors_are_computed_as_what_they_stand_for(tmp_path: Path) -> None:
    import torch

    pack = pytest.importorskip("compressed_tensors.compressors.pack_quantized.helpers").pack_to_int32

    def integers(value: Any) -> tuple[Any, Any]:
        scale = value.abs().amax(1, keepdim=True) / 7
        return (value / scale).round().clamp(-8, 7).to(torch.int8), scale

    def packed(name: str, value: Any) -> dict[str, Any]:
        numbers, scale = integers(value)
        return {f"{name}_packed": pack(numbers, 4), f"{name}_scale": scale, f"{name}_shape": torch.tensor(value.shape)}

    weights = {"num_bits": 4, "type": "int", "strategy": "channel", "symmetric": True, "dynamic": False}
    packing = {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
    }
    plain = make_checkpoint(tmp_path / "plain")
    unpacked = changed(
        plain, tmp_path / "unpacked", lambda name, value: {name: integers(value)[0] * integers(value)[1]}
    )
    _, answers = asked(str(changed(plain, tmp_path / "packed", packed, packing)), tmp_path / "p")
    _, expected = asked(str(unpacked), tmp_path / "u")
    assert_same(answers, expected)


def test_quantization_without_its_package_names_the_command(
    checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("capgap.models.installed_packages.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"quantization=4bit, and .* pip install bitsandbytes"):
        check_model(parse_model(f"{checkpoints['base']},quantization=4bit"))


@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_bitsandbytes_passes_its_proof_or_takes_lm_evals_way(tmp_path: Path, bits: str) -> None:
    pytest.importorskip("bitsandbytes")
    plain = make_checkpoint(tmp_path / "plain", width=64)
    model, answers = asked(f"{plain},quantization={bits}", tmp_path / "q")
    direct, _ = asked(str(plain), tmp_path / "p")
    assert len(answers) == len(requests())
    if bits == "8bit":  # what is rounded hangs on who shares the pass, so a tree cannot agree to 1e-3
        assert any("slower path" in note for note in model.notes)
    else:
        assert model.tree is not None
        assert model.tree.proven.n_requests
    assert model.facts["n_params"] == direct.facts["n_params"], "packed weights count as what they stand for"
    assert model.identity["quantization"][f"load_in_{bits}"]


# --- other architectures


def test_an_encoder_decoder_is_asked_as_lm_eval_asks_it(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    sizes = {"vocab_size": 23, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
    torch.manual_seed(0)
    ids = {"decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}
    t5 = T5ForConditionalGeneration(T5Config(**sizes, **ids, initializer_factor=3.0)).eval()
    t5.save_pretrained(tmp_path / "t5")
    for file in checkpoints["base"].glob("tokenizer*"):
        shutil.copy(file, tmp_path / "t5")
    model = load_model(parse_model(str(tmp_path / "t5")), device="cpu")
    assert any("encoder-decoder" in note for note in model.notes)
    encode = model.lm.tok_encode
    context, continuation = torch.tensor([encode("Q : one A :")]), torch.tensor([encode("red blue")])
    with torch.no_grad():
        table = torch.log_softmax(t5(input_ids=context, labels=continuation).logits[0], -1)
        written = t5.generate(context, max_new_tokens=5, do_sample=False)[0, 1:]
    expected = table.gather(1, continuation[0][:, None]).sum().item()
    with Ledger(tmp_path / "l") as ledger:
        long = generate("Q : one A :", limit=5, until=("zzz",))
        (scored,), (text,) = respond(model, [score("Q : one A :", " red blue"), long], ledger)
    assert scored.value[0] == pytest.approx(expected, rel=1e-5)
    assert text.value == model.lm.tok_decode(written)
    assert text.n_tokens <= 5, "the length of the prompt is no part of the limit"
