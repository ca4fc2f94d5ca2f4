"""Ways of supervision are values: what each declares is there, nobody else knows its name, an eighth is an entry."""

import ast
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

import capgap.distillation
from capgap.distillation import SUPERVISIONS, DistillConfig, distill
from capgap.distillation.data import targets
from capgap.distillation.data.selection import TrainingExample
from capgap.distillation.supervision import TEXT_KINDS, SignalKind, Supervision, TrainingTextKind
from capgap.distillation.training.divergences import DIVERGENCES
from capgap.distillation.training.step_sources import BATCH_SOURCE_FACTORIES

Make = Callable[..., DistillConfig]


@pytest.mark.parametrize("name", SUPERVISIONS)
def test_what_a_way_declares_is_there(name: str) -> None:
    way = SUPERVISIONS[name]
    assert way.texts in TEXT_KINDS
    assert way.signal in BATCH_SOURCE_FACTORIES
    assert set(way.keys) <= set(DistillConfig.model_fields)
    assert set(way.required) <= set(way.keys)
    assert (way.divergence in DIVERGENCES) == way.learns_distributions
    assert not (way.is_control and TEXT_KINDS[way.texts].is_from_teacher)


def test_texts_and_signals_have_what_makes_them() -> None:
    assert set(BATCH_SOURCE_FACTORIES) == set(get_args(SignalKind))
    assert set(targets.GOLD_BUILDERS) == {name for name, kind in TEXT_KINDS.items() if not kind.is_from_teacher}


def test_no_other_module_compares_the_name_of_a_way() -> None:
    words, package = {*SUPERVISIONS, *TEXT_KINDS, *get_args(SignalKind)}, Path(capgap.distillation.__file__).parent
    for path in package.rglob("*.py"):
        if path.name == "supervision.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            compared = isinstance(node, (ast.Compare, ast.MatchValue))
            tested = isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("startswith", "endswith")
            if compared or tested:
                constants = {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)}
                assert not constants & {*words, "gold_", "traces"}, f"{path}, line {node.lineno}"


def _gold_steps(example: TrainingExample) -> str:
    return f" {str(example.rationale).strip()}"


@pytest.fixture
def new_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two more ways: one of texts and signals that are there, and one with a text of its own."""
    answer_logits = Supervision(
        "the teacher's distributions over gold answers, which the student may not choose",
        texts="gold_answers",
        signal="cached",
        divergence="reverse_kl",
        max_teachers=1,
        keys=("objective", "cache"),
    )
    monkeypatch.setitem(SUPERVISIONS, "answer_logits", answer_logits)
    monkeypatch.setitem(TEXT_KINDS, "gold_steps", TrainingTextKind(is_from_teacher=False, has_reasoning=True))
    monkeypatch.setitem(targets.GOLD_BUILDERS, "gold_steps", _gold_steps)
    gold_steps = Supervision("the gold steps without the answer", texts="gold_steps", is_control=True)
    monkeypatch.setitem(SUPERVISIONS, "gold_steps", gold_steps)


@pytest.mark.usefixtures("new_ways")
@pytest.mark.parametrize(
    ("supervision", "objective", "n_loss_tokens"),
    [("answer_logits", "reverse_kl", 3), ("gold_steps", "cross_entropy", 7)],
)
def test_an_eighth_way_trains_a_student(
    make_config: Make, tmp_path: Path, teacher: Path, supervision: str, objective: str, n_loss_tokens: int
) -> None:
    config = make_config(supervision=supervision, teacher=str(teacher), training={"max_steps": 15, "lr": 0.01})
    out = distill(config, tmp_path / "out", device="cpu")
    row, record = (json.loads((out / name).read_text()) for name in ("capgap.json", "distill.json"))
    assert (row["supervision"], row["objective"]) == (supervision, objective)
    assert (row["teachers"] is None) == SUPERVISIONS[supervision].is_control
    assert row["loss_tokens"] == 15 * 16 * n_loss_tokens
    assert record["losses"][-1][1] < record["losses"][0][1]
    assert record["identity"]["file"]["supervision"] == supervision


@pytest.mark.usefixtures("new_ways")
@pytest.mark.parametrize(
    "changes",
    [
        {"supervision": "answer_logits"},
        {"supervision": "answer_logits", "teacher": ["a", "b"]},
        {"supervision": "answer_logits", "teacher": "a", "texts": "traces"},
        {"supervision": "gold_steps", "objective": {"beta": 0.1}},
    ],
)
def test_the_file_is_checked_by_what_an_eighth_way_declares(make_config: Make, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"answer_logits|gold_steps"):
        make_config(**changes)
