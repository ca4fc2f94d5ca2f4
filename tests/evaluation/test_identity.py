"""One ledger for all the models of a comparison, and never another model's answer."""

import shutil
import sqlite3
from pathlib import Path

from safetensors.torch import load_file, save_file

from capgap import schema
from capgap.evaluation import EvaluationPlan, evaluate
from capgap.models import expand_models
from tests.conftest import make_battery


def test_teacher_base_and_students_that_differ_in_one_weight_never_share_a_response(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    twin = Path(shutil.copytree(checkpoints["student"], tmp_path / "twin"))
    weights = load_file(twin / "model.safetensors")
    name = sorted(weights)[-1]
    weights[name] = weights[name].clone()
    weights[name].view(-1)[0] += 1e-6
    save_file(weights, twin / "model.safetensors", metadata={"format": "pt"})
    words = [str(checkpoints["student"]), str(twin), str(checkpoints["teacher"]), str(checkpoints["base"])]
    student, other, teacher, base = expand_models(words)
    battery = make_battery(tmp_path / "battery", n=20)
    plan = EvaluationPlan(
        students=(student, other),
        teacher=teacher,
        bases={student.name: base, other.name: base},
        batteries=(str(battery),),
        device="cpu",
    )
    run = evaluate(plan, tmp_path / "run")
    with sqlite3.connect(tmp_path / "run" / "ledger.sqlite") as db:
        counts = dict(db.execute("SELECT fingerprint, count(*) FROM responses GROUP BY fingerprint").fetchall())
    assert len(counts) == 4
    assert len(set(counts.values())) == 1, "each model was asked everything"
    assert run.facts["requests"]["from_ledger"] == 0
    table = run.read(schema.OUTCOMES)
    margins = table[table["format"] == "choose"].groupby("model")["margin"].sum()
    assert len(set(margins.round(9))) == 4, "the weight that differs is seen in the numbers"


def test_the_name_of_a_model_is_no_part_of_its_identity(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    battery = make_battery(tmp_path / "battery", n=10)
    for name in ("one", "other"):
        (student,) = expand_models([f"{name}={checkpoints['student']}"])
        run = evaluate(EvaluationPlan(students=(student,), batteries=(str(battery),), device="cpu"), tmp_path / "run")
    assert run.facts["requests"]["computed"] == 0
