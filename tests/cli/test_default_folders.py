"""Default folders do not collide, and a report about another comparison is kept with a word."""

from pathlib import Path

import pandas as pd
import pytest

import capgap
from capgap.cli import _status
from capgap.events import Event, StageFinished
from capgap.schema import Roles
from capgap.store import RunDirectory
from tests.conftest import make_battery

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def evaluate(*arguments: str | Path) -> None:
    assert _status(["evaluate", *map(str, arguments), "--base", "none", "--device", "cpu", "--limit", "6"]) == 0


def models_of(estimates: Path) -> set[str]:
    return set(pd.read_parquet(estimates)["model"].dropna())


def test_a_second_teacher_leaves_the_page_about_the_first(
    checkpoints: dict[str, Path], tiny_battery: Path, capsys: Captured
) -> None:
    common = ("--student", checkpoints["student"], "--battery", tiny_battery)
    evaluate(*common, "--teacher", checkpoints["teacher"])
    out = Path("capgap-out/student")
    evaluate(*common, "--teacher", checkpoints["teacher"])
    assert not (out / "earlier").exists(), "the same comparison again"
    first = (out / "report.html").read_bytes()
    capsys.readouterr()
    evaluate(*common, "--teacher", f"second={checkpoints['base']}")
    (kept,) = (out / "earlier").iterdir()
    assert "is kept: " in capsys.readouterr().err
    assert (kept / "report.html").read_bytes() == first
    assert models_of(kept / "estimates.parquet") == {"student", "teacher"}
    assert models_of(out / "estimates.parquet") == {"student", "second"}


def test_a_second_battery_leaves_the_page_about_the_first(
    checkpoints: dict[str, Path], tiny_battery: Path, tmp_path: Path
) -> None:
    other = make_battery(tmp_path / "more", n=12)
    other.write_text(other.read_text().replace("name: tiny", "name: more").replace("colours", "shades"))
    common = ("--student", checkpoints["student"], "--teacher", checkpoints["teacher"])
    evaluate(*common, "--battery", tiny_battery)
    out = Path("capgap-out/student")
    first = (out / "report.html").read_bytes()
    evaluate(*common, "--battery", other)
    (kept,) = (out / "earlier").iterdir()
    assert (kept / "report.html").read_bytes() == first
    batteries = set(pd.read_parquet(out / "estimates.parquet").query("level == 'battery'")["group"])
    assert {"tiny", "more"} <= batteries, "both are in the directory, and the page is about both"


def test_a_student_and_its_evaluation_have_folders_of_their_own(
    checkpoints: dict[str, Path], tiny_battery: Path, capsys: Captured
) -> None:
    Path("data.jsonl").write_text('{"prompt": "Q : one ? A :", "completion": " red"}\n' * 4)
    Path("pupil.yaml").write_text(
        f"name: pupil\nstudent: {checkpoints['student']}\ndata: {{file: data.jsonl}}\nsupervision: gold_answers\n"
        f"training: {{max_steps: 1}}\nevaluate: {{battery: {tiny_battery}, limit: 6}}\n"
    )
    assert _status(["distill", "pupil.yaml", "--device", "cpu", "--quiet"]) == 0
    student = capsys.readouterr().out.splitlines()[0]
    assert student == "capgap-out/students/pupil"
    assert (Path(student) / "capgap.json").is_file()
    page = Path("capgap-out/pupil/report.html").read_bytes()
    evaluate("--student", student, "--battery", tiny_battery)
    assert (Path(student) / "capgap.json").is_file()
    kept = [path.read_bytes() for path in Path("capgap-out/pupil").rglob("report.html")]
    assert page in kept, "the file's evaluation had the base, which this one refuses"


def test_a_folder_of_something_else_is_refused(
    checkpoints: dict[str, Path], tiny_battery: Path, capsys: Captured
) -> None:
    other = Path("capgap-out/student/notes.txt")
    other.parent.mkdir(parents=True)
    other.write_text("mine")
    command = ["evaluate", "--student", str(checkpoints["student"]), "--battery", str(tiny_battery)]
    assert _status(command) == 2
    assert "is no run directory: it holds notes.txt" in capsys.readouterr().err
    assert [path.name for path in other.parent.iterdir()] == ["notes.txt"]


def test_the_results_are_of_this_evaluation_whatever_another_process_writes_meanwhile(
    checkpoints: dict[str, Path], tiny_battery: Path
) -> None:
    def meanwhile(event: Event) -> None:
        if isinstance(event, StageFinished):  # models are asked, nothing is analysed yet
            RunDirectory("out").save(roles=Roles(("teacher",)))

    run = capgap.evaluate(
        checkpoints["student"], teacher=checkpoints["teacher"], base="none", battery=tiny_battery, limit=6,
        device="cpu", out="out", on_event=meanwhile,
    )  # fmt: skip
    expected = Roles(("student",), "teacher")
    assert run.results.roles == capgap.load("out").roles == expected
    assert models_of(Path("out/estimates.parquet")) == {"student", "teacher"}
