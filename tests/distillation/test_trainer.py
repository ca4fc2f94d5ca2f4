import copy
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from capgap.distillation import DistillConfig, distill
from capgap.distillation.data.encoding import NO_LOSS, EncodedExample, ExampleEncoder
from capgap.distillation.job import DistillJob
from capgap.distillation.students.student import apply_adaptation, save_student
from capgap.distillation.training import trainer as training
from capgap.distillation.training.batch_source import StoredBatches
from capgap.distillation.training.divergences import Objective
from capgap.distillation.training.loss_engine import LossEngine
from capgap.distillation.training.step_plan import plan_steps
from capgap.distillation.training.trainer import last_checkpoint, train
from capgap.errors import DistillError
from tests.distillation.conftest import interrupted_at, make_model, make_tokenizer, sums

SUMMED_IN_ANOTHER_ORDER = {"rtol": 1e-4, "atol": 1e-6}  # float32 sums over other batches

Make = Callable[..., DistillConfig]


def encoded_sums() -> list[EncodedExample]:
    encoder = ExampleEncoder(make_tokenizer(), max_length=64)
    # Completions of different lengths: where each pass were averaged alone, accumulation would change the loss.
    texts = [
        (s["prompt"], f" {s['rationale']}{s['completion']}" if i % 3 else s["completion"]) for i, s in enumerate(sums())
    ]
    return [encoded for prompt, text in texts if (encoded := encoder.pair(prompt, text)) is not None]


def trained(config: DistillConfig, model: Any, out: Path) -> Any:
    examples = encoded_sums()
    rng = np.random.default_rng(config.seed)
    plan = plan_steps(
        len(examples), batch_size=config.training.batch_size, max_steps=config.training.max_steps, rng=rng
    )
    source = StoredBatches(tuple(map(str, range(len(examples)))), tuple(examples))
    engine = LossEngine(model, Objective(cross_entropy=1.0))
    job = DistillJob(config, out, out, "cpu")
    return train(job, engine, source, plan, lambda place, step: save_student(model, make_tokenizer(), "base", place))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(next(folder.glob("*model.safetensors")))


@pytest.mark.parametrize("adaptation", ["full", "lora", "soft_prompt"])
def test_the_loss_falls(make_config: Make, tmp_path: Path, teacher: Path, adaptation: str) -> None:
    from transformers import AutoModelForCausalLM

    config = make_config(adaptation=adaptation, training={"max_steps": 25, "batch_size": 16, "lr": 0.01})
    model = AutoModelForCausalLM.from_pretrained(teacher)  # it has traces, and here a third are answers alone
    result = trained(config, apply_adaptation(model, config, make_tokenizer()), tmp_path)
    assert result.losses[-1][1] < 0.7 * result.losses[0][1]
    assert (result.steps, len(result.losses)) == (25, 25)
    assert result.n_loss_tokens < result.tokens


def test_cutting_a_step_into_passes_changes_neither_loss_nor_gradient(
    make_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gradients: list[torch.Tensor] = []

    def keep(self: Any, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        gradients.append(torch.cat([p.grad.flatten().clone() for p in model.parameters()]))

    monkeypatch.setattr(training._TrainerCallback, "on_pre_optimizer_step", keep)
    results = []
    for tokens in (1000, 60, 16):
        told = {"max_steps": 3, "batch_size": 24, "pass_tokens": tokens, "lr": 1e-3}
        config = make_config(training={**told, "max_grad_norm": 0.0})
        results.append(trained(config, make_model(), tmp_path / str(tokens)))
    for step in range(3):
        for other in (1, 2):
            torch.testing.assert_close(gradients[3 * other + step], gradients[step], **SUMMED_IN_ANOTHER_ORDER)
            assert results[other].losses[step][1] == pytest.approx(results[0].losses[step][1], rel=1e-4)


_SPECIAL = {"vocab_size": 32, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_SHAPE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
_WINDOW = {"num_key_value_heads": 1, "head_dim": 8, "sliding_window": 3}
_KINDS: dict[str, dict[str, Any]] = {
    "llama": _SHAPE,
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    "gemma3_text": {**_SHAPE, **_WINDOW, "layer_types": ["sliding_attention", "full_attention"]},
}


def _tiny(kind: str) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **_SPECIAL, **_KINDS[kind]))


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma3_text"])
def test_the_loss_is_that_of_transformers_with_a_mask_and_all_logits(
    make_config: Make, tmp_path: Path, kind: str
) -> None:
    model = _tiny(kind)
    lengths, cuts = [9, 4, 6], [5, 2, 1]
    ids = torch.randint(3, 32, (3, 9), generator=torch.Generator().manual_seed(1))
    labels = ids.clone()
    mask = torch.ones_like(ids)
    for row, (length, cut) in enumerate(zip(lengths, cuts, strict=True)):
        labels[row, :cut] = NO_LOSS
        ids[row, length:], labels[row, length:], mask[row, length:] = 0, NO_LOSS, 0
    examples = [
        EncodedExample(tuple(ids[i, :n].tolist()), tuple(labels[i, :n].tolist())) for i, n in enumerate(lengths)
    ]  # fmt: skip
    with torch.no_grad():
        expected = float(copy.deepcopy(model)(input_ids=ids, attention_mask=mask, labels=labels).loss)
    plan = plan_steps(3, batch_size=3, max_steps=1, rng=np.random.default_rng(0))
    config = make_config(training={"max_steps": 1, "batch_size": 3, "lr": 1e-3})
    engine, source = LossEngine(model, Objective(cross_entropy=1.0)), StoredBatches(("a", "b", "c"), tuple(examples))
    result = train(DistillJob(config, tmp_path, tmp_path, "cpu"), engine, source, plan, lambda place, step: None)
    assert result.losses[0][1] == pytest.approx(expected, rel=1e-5)
    assert (result.tokens, result.n_loss_tokens) == (19, int((labels != NO_LOSS).sum()))


def test_lora_leaves_the_base_as_it_is_and_loads_in_plain_peft(make_config: Make, tmp_path: Path, base: Path) -> None:
    import peft
    from transformers import LlamaForCausalLM

    before = LlamaForCausalLM.from_pretrained(base)
    out = distill(make_config(adaptation="lora", lora={"rank": 4, "dropout": 0.1}), tmp_path / "out")
    assert {"adapter_config.json", "adapter_model.safetensors", "capgap.json", "tokenizer.json"} <= {
        p.name for p in out.iterdir()
    }
    saved = weights(out)
    assert all("lora_" in name for name in saved)
    assert {name.split(".")[-3] for name in saved} == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    }  # fmt: skip
    ids = torch.tensor([[1, 5, 6, 7]])
    with torch.no_grad():
        plain = before(ids).logits
        adapted = peft.PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(base), out).eval()
        with_adapter = adapted(ids).logits
        adapted.set_adapter("default")
        with adapted.disable_adapter():
            assert torch.equal(adapted(ids).logits, plain)
    assert not torch.allclose(with_adapter, plain, atol=1e-3)
    from capgap.models import load_model, parse_model

    loaded = load_model(parse_model(str(out)), device="cpu")
    with torch.no_grad():
        torch.testing.assert_close(loaded.lm.model(ids).logits, with_adapter, rtol=1e-5, atol=1e-6)


def test_targets_that_fit_no_layer_are_told_with_those_that_would(make_config: Make) -> None:
    with pytest.raises(DistillError, match=r"Linear layers: .*q_proj"):
        apply_adaptation(make_model(), make_config(adaptation="lora", lora={"targets": ["query"]}), make_tokenizer())


def test_a_loss_that_is_no_number_stops_with_step_and_items(make_config: Make, tmp_path: Path) -> None:
    model = make_model()
    config = make_config(training={"max_steps": 20, "batch_size": 2, "lr": 1e-3, "save_steps": 2})

    class Poison(torch.nn.Module):
        def __init__(self, inner: torch.nn.Module) -> None:
            super().__init__()
            self.inner, self.calls = inner, itertools.count(1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x) * (float("nan") if next(self.calls) == 7 else 1.0)  # two calls to read the head

    model.model.norm = Poison(model.model.norm)
    with pytest.raises(DistillError, match=r"step 5 of 20: the loss is nan. Items of the pass: \d+, \d+.*checkpoint-4"):
        trained(config, model, tmp_path)


def test_bfloat16_computes_in_it_and_keeps_the_weights(make_config: Make, tmp_path: Path) -> None:
    results, seen = {}, set()
    for dtype in ("float32", "bfloat16"):
        model = make_model()
        model.model.norm.register_forward_hook(lambda m, a, output: seen.add(output.dtype))
        layer = model.model.layers[0].mlp.up_proj
        hook = layer.register_forward_hook(lambda m, a, output, dtype=dtype: seen.add((dtype, output.dtype)))
        config = make_config(training={"max_steps": 10, "batch_size": 8, "lr": 0.01, "dtype": dtype})
        results[dtype] = trained(config, model, tmp_path / dtype).losses
        hook.remove()
        assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert ("bfloat16", torch.bfloat16) in seen
    assert ("float32", torch.bfloat16) not in seen
    assert results["bfloat16"] != results["float32"]
    assert results["bfloat16"][-1][1] == pytest.approx(results["float32"][-1][1], rel=0.05)


def test_checkpointing_activations_changes_no_number(make_config: Make, tmp_path: Path) -> None:
    losses = []
    for on in (False, True):
        told = {"max_steps": 4, "batch_size": 8, "lr": 0.01, "gradient_checkpointing": on}
        out = distill(make_config(adaptation="lora", training=told), tmp_path / str(on), device="cpu")
        losses.append(json.loads((out / "distill.json").read_text())["losses"])
    assert losses[0] == [[step, pytest.approx(loss, rel=1e-5)] for step, loss in losses[1]]


def test_loggers_get_the_curve(make_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[str, float]] = []
    monkeypatch.setattr(
        training.TrainerCallback, "on_log", lambda self, args, state, control, logs=None, **_: told.append(logs or {})
    )
    original = training._TrainerCallback.on_train_begin

    def with_a_logger(self: Any, *args: Any, **options: Any) -> None:
        original(self, *args, **options)
        self.trainer.args.report_to = ["a logger"]  # Trainer itself refuses one that it does not know

    monkeypatch.setattr(training._TrainerCallback, "on_train_begin", with_a_logger)
    result = trained(make_config(training={"max_steps": 3, "batch_size": 8, "lr": 0.01}), make_model(), tmp_path)
    curve = [entry["loss"] for entry in told if "divergence" in entry]
    assert list(dict.fromkeys(curve)) == [loss for _, loss in result.losses]


def test_a_logger_that_is_not_here_is_told(make_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "find_spec", lambda name: None)
    with pytest.raises(DistillError, match="wandb is not installed"):
        trained(make_config(training={"max_steps": 1, "log_to": ["wandb"]}), make_model(), tmp_path)


@pytest.mark.parametrize(("adaptation", "n_passes"), [("full", 2), ("lora", 1), ("soft_prompt", 2)])
def test_a_run_that_was_cut_off_ends_with_the_weights_of_one_that_was_not(
    make_config: Make, tmp_path: Path, adaptation: str, n_passes: int
) -> None:
    told = {"max_steps": 12, "batch_size": 16, "pass_tokens": 400 // n_passes, "lr": 0.01, "save_steps": 5}
    config = make_config(adaptation=adaptation, lora={"dropout": 0.2}, training=told)
    whole = distill(config, tmp_path / "whole", device="cpu")
    with interrupted_at(8):
        distill(config, tmp_path / "cut", device="cpu")
    partial = tmp_path / "cut" / "checkpoint-10"  # killed inside a save: weights, and no state of the trainer
    partial.mkdir()
    (partial / "model.safetensors").write_bytes(b"half")
    assert last_checkpoint(tmp_path / "cut") == tmp_path / "cut" / "checkpoint-5"
    resumed = distill(config, tmp_path / "cut", device="cpu")
    expected, found = weights(whole), weights(resumed)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    stories = [json.loads((folder / "distill.json").read_text()) for folder in (whole, resumed)]
    assert stories[0]["losses"] == stories[1]["losses"]
    assert not list(resumed.glob("checkpoint-*"))


_RUN = """
import sys, torch
from pathlib import Path
from capgap.distillation import distill, load_config
torch.set_num_threads(1)
path = Path(sys.argv[1])
distill(load_config(path), sys.argv[2], folder=path.parent, device="cpu")
"""


def _newest(out: Path) -> int:
    return max((int(one.name.removeprefix("checkpoint-")) for one in out.glob("checkpoint-*")), default=0)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("supervision", ["gold_traces", "logits"])
def test_twenty_kills_at_random_moments_change_nothing(
    tmp_path: Path, schooled: Path, teacher: Path, write_sums: Path, supervision: str
) -> None:
    """Packing, several passes a step and dropout are on; a checkpoint is saved so often that kills fall into saves."""
    file = tmp_path / "pupil.yaml"
    judged = f"teacher: {teacher}\ntexts: gold_traces\n" if supervision == "logits" else ""
    file.write_text(
        f"name: pupil\nstudent: {schooled}\ndata: {{file: {write_sums}, extract: 'A (\\S+)'}}\n"
        f"supervision: {supervision}\n{judged}adaptation: lora\nlora: {{dropout: 0.1}}\n"
        "training: {max_steps: 400, batch_size: 32, pass_tokens: 128, save_steps: 2}\n"
    )

    def start(out: Path) -> "subprocess.Popen[bytes]":
        return subprocess.Popen([sys.executable, "-c", _RUN, str(file), str(out)], env=dict(os.environ))

    assert start(tmp_path / "a" / "whole").wait() == 0
    cut, drawn, kills, in_a_save = tmp_path / "b" / "cut", random.Random(0), 0, 0
    while kills < 20:
        known, process = _newest(cut), start(cut)
        while _newest(cut) == known and process.poll() is None:
            time.sleep(0.005)  # until it trains again
        time.sleep(drawn.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        if process.wait() == 0:
            break
        kills += 1
        in_a_save += any(not (one / "trainer_state.json").exists() for one in cut.glob("checkpoint-*"))
    assert kills == 20, "the run was done before it had been killed twenty times"
    assert start(cut).wait() == 0
    expected, found = weights(tmp_path / "a" / "whole"), weights(cut)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    print(f"{kills} kills, {in_a_save} of them inside a save")
