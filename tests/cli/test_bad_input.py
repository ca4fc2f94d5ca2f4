"""Bad input ends with status 2, a message that names the place and the way out, no traceback, and nothing lost."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from capgap.cli import _status
from tests.conftest import ROOT, make_battery


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Status and stderr of a command, in this process."""
    status = _status(list(arguments))
    return status, capsys.readouterr().err


def refused(capsys: pytest.CaptureFixture[str], arguments: Sequence[str], *words: str) -> None:
    status, message = run(capsys, *arguments)
    assert status == 2, message
    assert "Traceback" not in message
    for word in words:
        assert word in message, f"{word!r} is not in {message!r}"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["evalute"], ["no command 'evalute'", "Did you mean 'evaluate'"]),
        (["evaluate"], ["Missing option '--student'"]),
        (["evaluate", "--student", "x", "--limt", "3"], ["No such option", "--limit"]),
        (["evaluate", "--student", "no/such/folder"], ["no/such/folder does not exist"]),
        (["evaluate", "--student", "microworld:smal"], ["microworld:smal", "Did you mean 'small'"]),
        (["evaluate", "--student", "microworld:small", "--battery", "pockt"], ["pockt", "pocket"]),
        (["evaluate", "--student", "microworld:small", "--limit", "0"], ["--limit"]),
        (
            ["evaluate", "--student", "microworld:small", "--teacher", "microworld:small"],
            ["teacher and student at once"],
        ),
        (["evaluate", "--student", "microworld:small", "--device", "cudo"], ["cudo", "It sees"]),
        (["analyze", "none.csv"], ["none.csv: no such file"]),
        (["report", "nowhere"], ["nowhere: does not exist"]),
        (["distill", "none.yaml"], ["none.yaml"]),
        (["battery", "check", "pockt"], ["pockt", "pocket"]),
    ],
)
def test_a_wrong_command_is_refused_with_the_nearest_word(
    arguments: list[str],
    words: list[str],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(capsys, arguments, *words)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_results_that_go_to_a_full_disk_are_no_bug() -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "capgap", "battery", "list"]
        process = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert process.returncode == 2
    assert "Traceback" not in process.stderr


def test_empty_and_foreign_directories_are_no_models(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("x")
    refused(capsys, ["evaluate", "--student", str(tmp_path / "empty")], "it is empty", "config.json")
    refused(capsys, ["evaluate", "--student", str(tmp_path / "other")], "it holds notes.txt", "config.json")


def test_an_out_of_something_else_is_refused_and_left_alone(
    capsys: pytest.CaptureFixture[str], checkpoints: dict[str, Path], tiny_battery: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("x")
    arguments = [
        "evaluate",
        "--student",
        str(checkpoints["student"]),
        "--battery",
        str(tiny_battery),
        "--out",
        str(out),
    ]
    refused(capsys, arguments, "no run directory", "thesis.tex", "Choose another --out")
    assert [p.name for p in out.iterdir()] == ["thesis.tex"]


def test_another_battery_of_the_same_name_is_refused_and_loses_nothing(
    capsys: pytest.CaptureFixture[str], checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    battery, out = make_battery(tmp_path / "b"), tmp_path / "out"
    arguments = ["evaluate", "--student", str(checkpoints["student"]), "--battery", str(battery), "--out", str(out)]
    assert run(capsys, *arguments)[0] == 0
    before = {p.name: p.read_bytes() for p in out.iterdir() if p.suffix in (".parquet", ".html")}
    battery.write_text(battery.read_text().replace("max_tokens: 12", "max_tokens: 13"))
    refused(capsys, arguments, "another battery called 'tiny'", "choose another --out")
    assert {p.name: p.read_bytes() for p in out.iterdir() if p.suffix in (".parquet", ".html")} == before


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("format: choose", "formatt: choose", ["tiny.yaml", "formatt", "format"]),
        ("format: choose", "format: chose", ["tiny.yaml", "chose", "choose"]),
        ("name: colours_generate", "name: colours_choose", ["two tasks are named 'colours_choose'"]),
        ("file: items.jsonl", "file: itms.jsonl", ["tiny.yaml", "itms.jsonl", "items.jsonl"]),
        ("seed: 3", "seed: !function os.system", ["!function", "--allow-code"]),
        ("{{q}}", "{{question}}", ["question", "The item has: answer, depth, options, q"]),
        ("{{q}}", "{{q.__class__}}", ["__class__"]),
        ("{{q}}", "{{ ''.__class__.__mro__[1].__subclasses__() }}", ["tiny.yaml"]),
        ("max_tokens: 12", "max_tokens: twelve", ["max_tokens", "twelve"]),
    ],
)
def test_a_wrong_battery_is_refused_with_its_place(
    old: str,
    new: str,
    words: list[str],
    capsys: pytest.CaptureFixture[str],
    checkpoints: dict[str, Path],
    tiny_battery: Path,
) -> None:
    tiny_battery.write_text(tiny_battery.read_text().replace(old, new, 1))
    refused(capsys, ["evaluate", "--student", str(checkpoints["student"]), "--battery", str(tiny_battery)], *words)


def test_zero_items_are_refused(
    capsys: pytest.CaptureFixture[str], checkpoints: dict[str, Path], tiny_battery: Path
) -> None:
    (tiny_battery.parent / "items.jsonl").write_text("")
    refused(
        capsys, ["evaluate", "--student", str(checkpoints["student"]), "--battery", str(tiny_battery)], "items.jsonl"
    )


def test_teacher_and_student_without_a_common_item_are_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    table = tmp_path / "t.csv"
    table.write_text("model,task,item,score\nt,a,1,1\nt,a,2,0\ns,a,3,1\ns,a,4,0\n")
    refused(capsys, ["analyze", str(table), "--teacher", "t", "--out", str(tmp_path / "o")], "common", "item")


def test_a_hub_task_that_is_not_cached_says_how_to_fetch_it(
    capsys: pytest.CaptureFixture[str], checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    arguments = [
        "evaluate",
        "--student",
        str(checkpoints["student"]),
        "--battery",
        "core",
        "--out",
        str(tmp_path / "o"),
    ]
    refused(capsys, arguments, "capgap battery fetch", "--battery pocket")


def test_a_disk_that_cannot_be_written_is_told_by_the_real_program(
    checkpoints: dict[str, Path], tiny_battery: Path
) -> None:
    command = [sys.executable, "-m", "capgap", "evaluate", "--student", str(checkpoints["student"])]
    command += ["--battery", str(tiny_battery), "--device", "cpu", "--out", "/proc/capgap"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "Choose another --out" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("capgap.cli.doctor.examine_machine", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        _status(["doctor"])
