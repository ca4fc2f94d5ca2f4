"""Teachers' distributions: asked once, kept, and what they say when they are read again is what they said."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from capgap.distillation import DistillConfig, distill
from capgap.distillation.teacher.distributions import ScoredText, score_texts
from capgap.distillation.teacher.signal_forms import CacheForm, TeacherSignal, cache_token_bytes, choose_cache_form
from capgap.distillation.teacher.signals import check_tokenizers
from capgap.distillation.training.divergences import DIVERGENCES, Objective
from capgap.distillation.training.objectives import tile_loss
from capgap.errors import DistillError
from capgap.events import Event, Listener, Note, ignore
from capgap.models.lm_head import read_lm_head
from tests.distillation.conftest import WORDS, make_model, make_tokenizer, save_checkpoint

Make = Callable[..., DistillConfig]
QUESTIONS = [
    ScoredText((1, 5, 6, 7, 8), (2, 3, 4)),
    ScoredText((1, 9, 10), (1, 2)),
    ScoredText((1, *range(4, 24)), tuple(range(10, 20))),
]


def ask(
    root: Path,
    form: CacheForm,
    *,
    texts: Sequence[ScoredText] = QUESTIONS,
    load: Callable[[], Any] = lambda: make_model(seed=7),
    on_event: Listener = ignore,
) -> Any:
    identity, n_vocabulary = {"teacher": "seven"}, 4 + len(WORDS)
    return score_texts(
        load, identity, texts, form, root=root, n_vocabulary=n_vocabulary, device="cpu", on_event=on_event
    )


def live() -> torch.Tensor:
    model = make_model(seed=7).eval()
    with torch.no_grad():
        return torch.cat([model(torch.tensor([q.ids])).logits[0, list(q.positions)] for q in QUESTIONS])


def never() -> Any:
    raise AssertionError("the teacher was loaded again")


def losses(signal: Any, objective: Objective) -> tuple[float, torch.Tensor]:
    n = sum(len(question.positions) for question in QUESTIONS)
    logits = torch.randn(n, 4 + len(WORDS), generator=torch.Generator().manual_seed(3))
    told = tile_loss(logits, torch.zeros(n, dtype=torch.long), torch.ones(n), objective, (signal,))
    return float(told.total), told.gradient


@pytest.mark.parametrize("name", DIVERGENCES)
def test_a_kept_teacher_says_what_a_live_one_says(tmp_path: Path, name: str) -> None:
    from capgap.models.lm_head import LanguageModelHead

    ask(tmp_path, CacheForm("hidden"))
    kept = ask(tmp_path, CacheForm("hidden"), load=never).signal(range(len(QUESTIONS)))
    torch.testing.assert_close(kept.head.logits(kept.hidden), live(), rtol=0, atol=2e-3)
    value, gradient = losses(kept, Objective(name, 1.5))
    expected, own = losses(TeacherSignal(hidden=live(), head=LanguageModelHead(None)), Objective(name, 1.5))
    assert value == pytest.approx(expected, rel=1e-3)
    torch.testing.assert_close(gradient, own, rtol=0, atol=1e-3)


def test_the_likeliest_tokens_and_their_tail_are_the_teachers(tmp_path: Path) -> None:
    signal = ask(tmp_path, CacheForm("top_k", 5)).signal([2, 0])
    logprobs = torch.log_softmax(live(), -1)
    logprobs = torch.cat([logprobs[5:], logprobs[:3]])
    best = logprobs.topk(5, dim=-1)
    assert torch.equal(signal.ids.long(), best.indices)
    torch.testing.assert_close(signal.logprobs[:, :5].float(), best.values, rtol=1e-3, atol=1e-3)
    tail = 1 - best.values.exp().sum(-1)
    torch.testing.assert_close(signal.logprobs[:, 5].float().exp(), tail, rtol=5e-3, atol=1e-5)
    torch.testing.assert_close(signal.entropy, -(logprobs.exp() * logprobs).sum(-1), rtol=1e-4, atol=1e-4)


def test_a_sample_is_drawn_from_the_teacher_and_is_the_same_in_any_order(tmp_path: Path) -> None:
    signal = ask(tmp_path / "a", CacheForm("sample", 20_000, 1.5)).signal(range(3))
    expected = torch.softmax(live() / 1.5, -1)
    found = torch.stack([torch.bincount(row.long(), minlength=expected.shape[1]) / 20_000 for row in signal.ids])
    assert float((found - expected).abs().max()) < 0.02
    again = ask(tmp_path / "b", CacheForm("sample", 20_000, 1.5), texts=QUESTIONS[::-1])
    assert torch.equal(again.signal([2, 1, 0]).ids, signal.ids)


def test_bytes_per_token_are_those_on_the_disk(tmp_path: Path) -> None:
    n = sum(len(question.positions) for question in QUESTIONS)
    for form in (CacheForm("hidden"), CacheForm("top_k", 5), CacheForm("sample", 7)):
        judged = ask(tmp_path, form)
        tensors = load_file(next(judged.cache.folder.glob("shard-*.safetensors")))
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        assert size == n * cache_token_bytes(form.mode, width=32, k=form.k)


def test_what_rounding_and_the_tail_cost_is_written_down(tmp_path: Path) -> None:
    hidden, top = (ask(tmp_path, form).cache.facts()["error"] for form in (CacheForm("hidden"), CacheForm("top_k", 3)))
    assert 0 <= hidden["mean"] < 1e-5
    assert 0.05 < top["mean"] < 1
    assert "tail" in top["what"]


def test_only_what_is_missing_is_asked(tmp_path: Path) -> None:
    first = ask(tmp_path, CacheForm("hidden"), texts=QUESTIONS[:2])
    assert (first.n_computed, ask(tmp_path, CacheForm("hidden")).n_computed) == (2, 1)


@pytest.mark.parametrize("how", ["cut", "changed", "no note", "note cut"])
def test_a_damaged_shard_is_told_and_only_its_signals_are_asked_again(tmp_path: Path, how: str) -> None:
    cache = ask(tmp_path, CacheForm("hidden")).cache
    shard, note = cache.folder / "shard-0000.safetensors", cache.folder / "shard-0000.json"
    data = bytearray(shard.read_bytes())
    if how == "cut":
        shard.write_bytes(data[:-8])
    elif how == "changed":
        data[-1] ^= 1
        shard.write_bytes(data)
    elif how == "no note":
        note.unlink()
    else:
        note.write_text(note.read_text()[:-5])
    events: list[Event] = []
    again = ask(tmp_path, CacheForm("hidden"), on_event=events.append)
    assert again.n_computed == 3
    warnings = [event for event in events if isinstance(event, Note) and event.level == "warning"]
    assert len(warnings) == (how != "no note")
    kept = again.signal(range(3))
    torch.testing.assert_close(kept.head.logits(kept.hidden), live(), rtol=0, atol=2e-3)


def test_another_teacher_or_another_form_has_a_folder_of_its_own(tmp_path: Path) -> None:
    folders = {
        ask(tmp_path, form).cache.folder for form in (CacheForm("hidden"), CacheForm("top_k", 3), CacheForm("top_k", 4))
    }
    other = score_texts(
        lambda: make_model(seed=8), {"teacher": "eight"}, QUESTIONS, CacheForm("hidden"),
        root=tmp_path, n_vocabulary=4 + len(WORDS), device="cpu",
    )  # fmt: skip
    assert len(folders | {other.cache.folder}) == 4
    assert other.n_computed == 3


def test_auto_keeps_hidden_states_while_they_are_small() -> None:
    told: dict[str, Any] = {"k": 32, "temperature": 2.0, "width": 1000, "divergence": "forward_kl"}
    assert choose_cache_form("auto", max_gb=1, n_tokens=500_000, **told) == CacheForm("hidden")
    assert choose_cache_form("auto", max_gb=1, n_tokens=500_001, **told) == CacheForm("sample", 32, 2.0)
    with pytest.raises(DistillError, match=r"reverse_kl\. Raise cache\.max_gb, or say cache\.mode: top_k"):
        choose_cache_form("auto", max_gb=1, n_tokens=500_001, **{**told, "divergence": "reverse_kl"})


def test_a_larger_table_is_reconciled_and_another_tokenizer_refused() -> None:
    tokenizer, more = make_tokenizer(), make_tokenizer()
    assert check_tokenizers("pupil", tokenizer, make_tokenizer()) is None
    more.add_tokens(["<think>"])
    assert "1 more" in str(check_tokenizers("pupil", tokenizer, more))
    more.add_tokens(["x"])
    other = make_tokenizer()
    other.add_tokens(["x", "<think>"])
    with pytest.raises(DistillError, match=r"is 29 and 28|is 28 and 29"):
        check_tokenizers("pupil", more, other)


OBJECTIVES: list[dict[str, Any]] = [
    {"divergence": "forward_kl"},
    {"divergence": "reverse_kl", "temperature": 2.0},
    {"divergence": "jsd", "beta": 0.3, "cross_entropy": 0.5},
    {"divergence": "forward_kl", "max_entropy": 1.0, "cross_entropy": 0.1},
]


@pytest.mark.parametrize("adaptation", ["full", "lora", "soft_prompt"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_students_of_distributions_come_nearer_to_their_teacher(
    make_config: Make, tmp_path: Path, teacher: Path, schooled: Path, adaptation: str, objective: dict[str, Any]
) -> None:
    config = make_config(
        student=str(schooled), supervision="logits", teacher=str(teacher), adaptation=adaptation, objective=objective,
        texts="gold_traces", training={"max_steps": 30, "batch_size": 16, "lr": 0.05 if adaptation != "full" else 0.01},
    )  # fmt: skip
    out = distill(config, tmp_path / "out", device="cpu")
    story, row = (json.loads((out / name).read_text()) for name in ("distill.json", "capgap.json"))
    terms = story["terms"]
    assert terms[-1]["loss"] < 0.95 * terms[0]["loss"]
    assert (story["distributions"]["form"], story["distributions"]["computed"]) == ("hidden", [55])
    assert row["objective"].startswith(objective["divergence"])
    if "max_entropy" in objective:
        assert 0 <= terms[0]["gated"] < 1


def test_four_students_ask_one_teacher_once(make_config: Make, tmp_path: Path, teacher: Path) -> None:
    asked = []
    for seed in range(4):
        config = make_config(
            supervision="logits",
            teacher=str(teacher),
            texts="gold_answers",
            seed=seed,
            training={"max_steps": 1, "batch_size": 4},
        )
        out = distill(config, tmp_path / str(seed), device="cpu")
        asked.append(json.loads((out / "distill.json").read_text())["distributions"]["computed"][0])
    assert asked == [55, *[0] * 3]


def test_a_teacher_of_texts_gives_no_distributions(make_config: Make, tmp_path: Path) -> None:
    config = make_config(
        supervision="logits", texts="gold_answers", teacher="local-completions:model=x,base_url=http://localhost:1"
    )
    with pytest.raises(DistillError, match="gives texts, not distributions"):
        distill(config, tmp_path / "out", device="cpu")


def test_a_teacher_with_a_larger_table_teaches(make_config: Make, tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "large", seed=3)
    model = make_model(seed=3)
    model.resize_token_embeddings(64)
    model.save_pretrained(folder)
    told = {"texts": "gold_answers", "training": {"max_steps": 2, "batch_size": 4}}
    config = make_config(supervision="logits", teacher=str(folder), **told)
    out = distill(config, tmp_path / "out", device="cpu")
    assert read_lm_head(model) is not None
    assert json.loads((out / "capgap.json").read_text())["supervision"] == "logits"


def test_a_full_disk_is_told_by_the_file_and_what_is_whole_stays(
    make_config: Make, tmp_path: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors import SafetensorError

    from capgap.distillation.teacher import cache
    from capgap.errors import StoreError

    def full(tensors: Any, file: Path) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    config = make_config(
        supervision="logits", teacher=str(teacher), texts="gold_answers", training={"max_steps": 1, "batch_size": 4}
    )
    with monkeypatch.context() as patched:
        patched.setattr(cache, "save_file", full)
        with pytest.raises(StoreError, match=r"teacher-cache/\w+/head\.safetensors: cannot be written: .*Free some"):
            distill(config, tmp_path / "out", device="cpu")
    out = distill(config, tmp_path / "out", device="cpu")
    assert json.loads((out / "distill.json").read_text())["distributions"]["computed"] == [55]
