"""Every supervision with every adaptation, on the microworld: each raises the student over its base."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from capgap.distillation import ADAPTATION_DESCRIPTIONS, SUPERVISIONS, DistillConfig, distill

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

_RATE = {"full": 3e-3, "lora": 3e-3, "soft_prompt": 1e-1}


@pytest.fixture(scope="module")
def schooled(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Students that have met questions: what a base that never has writes by itself is nothing to judge, and virtual
    tokens can bend what is there."""
    folder = tmp_path_factory.mktemp("schooled")

    def made(supervision: str) -> Path:
        told = {
            "name": "schooled",
            "student": "microworld:medium",
            "data": {"battery": "microworld", "tasks": ["facts_generate"]},
            "n_examples": 300,
            "supervision": supervision,
            "training": {"max_steps": 100, "batch_size": 32, "lr": 3e-3},
        }
        return distill(DistillConfig.model_validate(told), folder / supervision)

    return made


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("caches")


def accuracy(model: str, out: Path) -> float:
    """On facts that the training pool holds or may hold."""
    from capgap import evaluation as engine

    students, teacher, bases, controls, _ = engine.cast_roles((model,), teacher=None, base="none", control=None)
    plan = engine.EvaluationPlan(
        students=students, teacher=teacher, bases=bases, control_models=controls, batteries=("microworld",), limit=60
    )
    run = engine.evaluate(plan, out, command=[])
    outcomes = run.outcomes(plan.roles.names)
    return float(outcomes[outcomes["primary"] & (outcomes["task"] == "facts_generate")]["score"].mean())


@pytest.mark.parametrize("adaptation", ADAPTATION_DESCRIPTIONS)
@pytest.mark.parametrize("supervision", SUPERVISIONS)
def test_a_student_rises_over_its_base(
    tmp_path: Path, schooled: Callable[[str], Path], caches: Path, supervision: str, adaptation: str
) -> None:
    base = "microworld:medium"
    if supervision == "on_policy" or adaptation == "soft_prompt":
        base = str(schooled("gold_answers" if supervision.endswith("answers") else "gold_traces"))
    gold = supervision.startswith("gold_")
    told: dict[str, Any] = {
        "name": "pupil",
        "student": base,
        "data": {"battery": "microworld", "tasks": ["facts_generate"]},
        "supervision": supervision,
        "adaptation": adaptation,
        "soft_prompt": {"tokens": 16},
        "training": {"max_steps": 300, "batch_size": 32, "lr": _RATE[adaptation]},
    }
    if not gold:
        told["teacher"] = "microworld:teacher"
    if supervision in ("logits", "context"):
        told["cache"] = {"folder": str(caches)}
    if supervision == "context":
        told |= {"context": {"examples": 1}}
    if supervision == "on_policy":
        told |= {"on_policy": {"max_tokens": 16}, "objective": {"divergence": "jsd"}}
    out = distill(DistillConfig.model_validate(told), tmp_path / "pupil")
    before, after = accuracy(base, tmp_path / "base"), accuracy(str(out), tmp_path / "run")
    losses = json.loads((out / "distill.json").read_text())["losses"]
    print(
        f"{supervision:13} {adaptation:12} {before:.2f} -> {after:.2f}, loss {losses[0][1]:.3f} -> {losses[-1][1]:.3f}"
    )
    assert after > before
