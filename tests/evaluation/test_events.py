"""An evaluation tells its listener how far it is and what the user should know, and prints nothing."""

from pathlib import Path

import pytest

from capgap.evaluation import EvaluationPlan, evaluate
from capgap.evaluation.progress import request_progress
from capgap.events import Event, Note, StageAdvanced, StageBegun, StageFinished
from capgap.models import expand_models
from capgap.store import RunDirectory
from tests.conftest import make_battery


def plan_of(checkpoints: dict[str, Path], *batteries: Path, **settings: object) -> EvaluationPlan:
    student, teacher = expand_models([str(checkpoints["student"]), str(checkpoints["teacher"])])
    names = tuple(map(str, batteries))
    return EvaluationPlan(students=(student,), teacher=teacher, batteries=names, device="cpu", **settings)  # type: ignore[arg-type]


def test_every_request_is_reported_once_and_nothing_is_printed(
    checkpoints: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    battery = make_battery(tmp_path / "battery", n=12)
    for again in (False, True):
        events: list[Event] = []
        plan = plan_of(checkpoints, battery, notes=("base of student: none",))
        evaluate(plan, tmp_path / "run", on_event=events.append)
        stages = [event for event in events if not isinstance(event, Note)]
        (begun,) = [event for event in stages if isinstance(event, StageBegun)]
        assert begun == stages[0] == StageBegun("evaluating", 2 * (3 * 12 + 12), "request")
        assert stages[-1] == StageFinished("evaluating")
        advanced = [event for event in stages if isinstance(event, StageAdvanced)]
        assert len(advanced) == len(stages) - 2
        assert sum(event.n for event in advanced) == begun.total, f"again: {again}"
        statuses = [event.status for event in advanced if event.status]
        assert {"student: colours_choose", "teacher: colours_generate"} <= set(statuses)
        notes = [event.text for event in events if isinstance(event, Note)]
        assert notes[0].startswith("tiny 1: 2 tasks, 24 items × 2 models")
        assert notes[1] == "base of student: none"
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")


def test_a_stage_that_fails_is_finished_and_never_counts_too_much() -> None:
    events: list[Event] = []
    stage = request_progress(10, events.append)

    def fail() -> None:
        with stage as progress:
            progress.count(3, 4)
            progress.report(100)
            progress.report(1)
            assert (progress.n_computed, progress.n_ledger_hits) == (3, 4)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    name = "evaluating"
    assert events == [
        StageBegun(name, 10, "request"),
        StageAdvanced(name, 7),
        StageAdvanced(name, 3),
        StageFinished(name),
    ]


def test_a_covariate_that_is_a_number_in_one_battery_and_text_in_another_is_unified_with_a_note(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    numbers, texts = make_battery(tmp_path / "numbers", n=6), make_battery(tmp_path / "texts", n=6)
    source = '{depth: "{{depth}}"}'
    text = texts.read_text().replace("name: tiny", "name: other").replace(source, '{depth: "{{depth}} deep"}')
    texts.write_text(text)
    evaluate(plan_of(checkpoints, numbers), tmp_path / "run")
    events: list[Event] = []
    plan = plan_of(checkpoints, texts)
    run = evaluate(plan, tmp_path / "run", on_event=events.append)
    outcomes = run.outcomes(plan.roles.names)
    depths = {name: set(rows["x_depth"]) for name, rows in outcomes.groupby("battery")}
    assert depths == {"tiny": {"1", "2", "3"}, "other": {"1 deep", "2 deep", "3 deep"}}
    note = "covariate x_depth is text in other and a number in tiny; all of it is taken as text"
    assert events[-1] == Note(note, level="warning")
    run.save(state="done")
    assert RunDirectory.open_existing(tmp_path / "run").facts["notes"] == [note]
