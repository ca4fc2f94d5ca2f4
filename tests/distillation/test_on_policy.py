"""Texts of the student's own, judged by its teacher."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from capgap.distillation import DistillConfig, distill
from capgap.distillation.students.student import apply_adaptation
from capgap.distillation.teacher.distributions import OnlineTeacher
from capgap.distillation.training.divergences import Objective
from capgap.distillation.training.loss_engine import LossEngine
from capgap.distillation.training.on_policy import OnPolicyBatches
from capgap.events import Event, Note
from tests.distillation.conftest import WORDS, interrupted_at, make_model, make_tokenizer, sums
from tests.distillation.test_trainer import weights

Make = Callable[..., DistillConfig]


def writer(model: Any, teacher: Any, **changes: Any) -> OnPolicyBatches:
    prompts = (((1, 11, 5, 12), (1, 16, 11, 5, 12)), ((1, 11, 6, 12, 7, 13), (1, 16, 11, 6, 12, 7, 13)))
    online = OnlineTeacher(teacher, 28, [prompt for _, prompt in prompts])
    fields: dict[str, Any] = {
        "items": ("a", "b"), "prompts": prompts, "student": model, "teacher": online,
        "max_tokens": 6, "temperature": 1.0, "seed": 0, "eos_id": 2, "pad": 0,
    }  # fmt: skip
    return OnPolicyBatches(**{**fields, **changes})


def test_what_is_trained_is_what_was_written_and_what_the_teacher_says_of_it() -> None:
    student, teacher = make_model(seed=1), make_model(seed=2, width=64)
    (batch,) = writer(student, teacher).micro_batches([1, 0], 1000)
    assert sorted(batch.indices) == [0, 1]
    low = 0
    for length, index in zip(batch.row.lengths, batch.indices, strict=True):
        prompt = writer(student, teacher).prompts[index]
        ids = batch.ids[low : low + length].tolist()
        assert tuple(ids[: len(prompt[0])]) == prompt[0]
        places = [n for n, position in enumerate(batch.positions.tolist()) if low <= position < low + length]
        text = batch.labels[places].tolist()
        assert ids[len(prompt[0]) :] == text[:-1]
        with torch.no_grad():
            live = teacher.eval()(torch.tensor([[*prompt[1], *text]])).logits[0, len(prompt[1]) - 1 : -1]
        signal = batch.signals[0]
        assert signal.head is not None
        assert signal.hidden is not None
        torch.testing.assert_close(signal.head.logits(signal.hidden[places]), live, rtol=1e-4, atol=1e-4)
        low += length


def test_a_judge_that_cannot_be_packed_is_found_out_and_runs_padded() -> None:
    from transformers import BloomConfig, BloomForCausalLM

    torch.manual_seed(0)
    teacher = BloomForCausalLM(BloomConfig(vocab_size=28, hidden_size=16, n_layer=2, n_head=2)).eval()
    events: list[Event] = []
    sequences = [(1, 11, 5, 12), (1, 11, 6, 12, 7, 13, 5, 6, 7, 8)]
    live = OnlineTeacher(teacher, 28, sequences, events.append)
    (note,) = events
    assert isinstance(note, Note)
    assert "padded, not packed" in note.text
    for sequence, states in zip(sequences, live.hidden_states(sequences, [range(4), range(10)]), strict=True):
        with torch.no_grad():
            expected = teacher(torch.tensor([sequence])).logits[0]
        torch.testing.assert_close(live.head.logits(states), expected, rtol=1e-4, atol=1e-5)


def test_texts_are_drawn_from_the_student() -> None:
    student = make_model(seed=1)
    texts = writer(student, student, max_tokens=1)
    drawn = [text[0] for seed in range(400) for text in replace(texts, seed=seed)._sample_texts([0])]
    with torch.no_grad():
        expected = torch.softmax(student.eval()(torch.tensor([[1, 11, 5, 12]])).logits[0, -1], -1)
    found = torch.bincount(torch.tensor(drawn), minlength=4 + len(WORDS)) / 400
    assert float((found - expected).abs().max()) < 0.1


def test_one_step_of_one_seed_is_written_once_and_the_same_and_leaves_the_generator_alone() -> None:
    student = make_model(seed=1)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    texts = [writer(student, student, seed=seed)._sample_texts([0, 1]) for seed in (0, 0, 1)]
    assert torch.equal(torch.rand(1), expected)
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]


def test_a_teacher_that_is_the_student_finds_nothing_to_mend() -> None:
    student, teacher = make_model(seed=1), make_model(seed=1)
    engine = LossEngine(student, Objective("reverse_kl"))
    same = tuple((prompt, prompt) for prompt, _ in writer(student, teacher).prompts)
    (batch,) = writer(student, teacher, prompts=same).micro_batches([0, 1], 1000)
    with engine.in_use():
        loss = engine.loss(batch)
    assert float(loss.total.detach()) == pytest.approx(0, abs=1e-5)


def test_virtual_tokens_stand_right_before_a_prompt_that_is_padded(make_config: Make) -> None:
    config = make_config(adaptation="soft_prompt", soft_prompt={"tokens": 3})
    model = apply_adaptation(make_model(layers=2), config, make_tokenizer())
    long, short = writer(model, make_model()).prompts[1], writer(model, make_model()).prompts[0]
    both = writer(model, make_model(), prompts=(short, long), temperature=1e-4)._sample_texts([0, 1])
    alone = writer(model, make_model(), prompts=(short,), temperature=1e-4)._sample_texts([0])
    assert both[0] == alone[0]


@pytest.mark.parametrize("adaptation", ["full", "lora", "soft_prompt"])
def test_a_student_comes_nearer_to_its_teacher_on_texts_of_its_own(
    make_config: Make, tmp_path: Path, teacher: Path, schooled: Path, adaptation: str
) -> None:
    config = make_config(
        supervision="on_policy", teacher=str(teacher), student=str(schooled), adaptation=adaptation,
        on_policy={"max_tokens": 8}, objective={"divergence": "jsd"},
        training={"max_steps": 60, "batch_size": 16, "lr": 0.03 if adaptation == "soft_prompt" else 0.01},
    )  # fmt: skip
    out = distill(config, tmp_path / "out", device="cpu")
    before, after = distance(schooled, None, teacher), distance(schooled, out, teacher)
    assert after < 0.9 * before
    story = json.loads((out / "distill.json").read_text())
    assert story["terms"][0]["divergence"] > 0
    row = json.loads((out / "capgap.json").read_text())
    # What was written, which nobody knew before: at most eight tokens for each of 16 prompts in each of 60 steps.
    assert 16 * 60 <= row["loss_tokens"] <= 8 * 16 * 60
    assert row["loss_tokens"] < row["tokens"]


def distance(student: Path, out: Path | None, teacher: Path) -> float:
    """KL(teacher || student) over the teacher's own kind of texts, by plain transformers and peft."""
    import peft
    from transformers import AutoModelForCausalLM

    judge = AutoModelForCausalLM.from_pretrained(teacher).eval()
    adapter = out is not None and (out / "adapter_config.json").exists()
    model = AutoModelForCausalLM.from_pretrained(student if adapter or out is None else out)
    model = (peft.PeftModel.from_pretrained(model, out) if adapter else model).eval()
    total = []
    for one in sums():
        prompt = make_tokenizer()(one["prompt"])["input_ids"]
        ids = torch.tensor([make_tokenizer()(f"{one['prompt']} {one['rationale']}{one['completion']}")["input_ids"]])
        with torch.no_grad():
            own, wanted = (torch.log_softmax(m(ids).logits[0, -ids.shape[1] :], -1) for m in (model, judge))
        total.append(float((wanted.exp() * (wanted - own)).sum(-1)[len(prompt) - 1 :].mean()))
    return sum(total) / len(total)


def test_a_run_that_was_cut_off_writes_what_it_would_have_written(
    make_config: Make, tmp_path: Path, teacher: Path, schooled: Path
) -> None:
    config = make_config(
        supervision="on_policy", teacher=str(teacher), student=str(schooled), on_policy={"max_tokens": 5},
        training={"max_steps": 6, "batch_size": 8, "lr": 0.01, "save_steps": 2},
    )  # fmt: skip
    whole = distill(config, tmp_path / "whole", device="cpu")
    with interrupted_at(5):
        distill(config, tmp_path / "cut", device="cpu")
    found, expected = weights(distill(config, tmp_path / "cut", device="cpu")), weights(whole)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
