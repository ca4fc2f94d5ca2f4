"""An evaluation on a directory that holds another one: nothing is lost, and run.json names what is there."""

from pathlib import Path
from typing import Any

import pytest

import capgap
from capgap.cli import _status
from capgap.errors import ModelError, StoreError
from capgap.evaluation import EvaluationPlan, cast_roles, evaluate
from capgap.evaluation.model_runner import ModelRunner
from capgap.schema import OUTCOMES, Roles
from capgap.store import RunDirectory
from tests.conftest import make_battery


def plan_of(checkpoints: dict[str, Path], battery: Path, *students: str, **settings: Any) -> EvaluationPlan:
    teacher = settings.pop("teacher", None)
    models = cast_roles([str(checkpoints[name]) for name in students], teacher=teacher and str(checkpoints[teacher]))
    return EvaluationPlan(**models._asdict(), batteries=(str(battery),), device="cpu", **settings)


def tables(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.parquet")}


def test_outcomes_never_give_way_to_those_of_fewer_items(
    checkpoints: dict[str, Path], tiny_battery: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    evaluate(plan_of(checkpoints, tiny_battery, "student", limit=6), out)
    before, facts = tables(out), RunDirectory.open_existing(out).facts
    for fewer in (
        plan_of(checkpoints, tiny_battery, "student", limit=5),
        plan_of(checkpoints, tiny_battery, "base", teacher="student", limit=1),
        plan_of(checkpoints, tiny_battery, "student", limit=5, rescore=True),
    ):
        with pytest.raises(
            StoreError, match=r"'student' on items of tiny/\w+ that this evaluation leaves out.*--limit 6 or more"
        ):
            evaluate(fewer, out)
        assert tables(out) == before
        kept = RunDirectory.open_existing(out).facts
        assert {**kept, "updated": None} == {**facts, "updated": None}
    evaluate(plan_of(checkpoints, tiny_battery, "base", limit=2), out)  # a model of its own
    grown = evaluate(plan_of(checkpoints, tiny_battery, "student", limit=7), out).read(OUTCOMES)
    assert grown.groupby("model")["item"].nunique().to_dict() == {"base": 4, "student": 14}


def test_the_command_line_says_which_limit_keeps_the_outcomes(
    checkpoints: dict[str, Path], tiny_battery: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", "--student", str(checkpoints["student"]), "--battery", str(tiny_battery), "--device", "cpu"]
    command += ["--base", "none", "--out", str(tmp_path / "run"), "--limit"]
    assert _status([*command, "6"]) == 0
    assert "--base CKPT" not in capsys.readouterr().out
    page = (tmp_path / "run" / "report.html").read_bytes()
    assert _status([*command, "3"]) == 2
    assert "--limit 6 or more" in capsys.readouterr().err
    assert (tmp_path / "run" / "report.html").read_bytes() == page


def test_an_evaluation_that_fails_leaves_the_comparison_of_before(
    checkpoints: dict[str, Path], tiny_battery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, other = tmp_path / "run", make_battery(tmp_path / "more", n=6)
    other.write_text(other.read_text().replace("name: tiny", "name: more"))
    run_model = ModelRunner.run_model

    def failing(self: ModelRunner, plan: EvaluationPlan, spec: Any) -> None:
        if spec.name == "student":
            raise ModelError("no memory")
        run_model(self, plan, spec)

    second = plan_of(checkpoints, other, "student", teacher="teacher", limit=4)
    with monkeypatch.context() as patch:
        patch.setattr(ModelRunner, "run_model", failing)
        with pytest.raises(ModelError):
            evaluate(second, out)
        assert _status(["report", str(out)]) == 2, "no evaluation has ended"
        evaluate(plan_of(checkpoints, tiny_battery, "base", teacher="teacher", limit=6), out, command=["first"])
        with pytest.raises(ModelError):
            evaluate(second, out, command=["second"])
    facts = RunDirectory.open_existing(out).facts
    assert (facts["command"], facts["limit"]) == (["first"], 6)
    run = capgap.load(out)
    assert run.roles == Roles(("base",), "teacher")
    assert set(run.results.outcomes["battery"]) == {"tiny"}
    assert any("more has not ended" in note for note in run.results.notes)
    assert "more" not in run.results.facts["batteries"]
    ended = evaluate(second, out, command=["second"])
    assert ended.roles == second.roles
    assert "pending" not in ended.facts["batteries"]["more"]
