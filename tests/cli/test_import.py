"""`capgap import`: from other people's files to a report, by the command line alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from capgap.cli import _status
from tests.cli.test_analyze import foreign
from tests.importers.written import choose_sample, inspect_log, inspect_sample, lm_eval_folder, write_json


def run(*arguments: str | Path) -> int:
    return _status(["import", *map(str, arguments)])


def three_models(root: Path) -> Path:
    """lm-eval's files about a teacher, a base and a student over 60 items of a task that the catalogue knows."""
    for model, right in (("org/teacher", 55), ("org/base", 20), ("org/student", 45)):
        records = [choose_sample(n, gold=n % 3, taken=n % 3 if n < right else (n + 1) % 3) for n in range(60)]
        folder = lm_eval_folder(root, model, records, tasks={})
        for path in folder.glob("samples_*"):
            path.rename(path.with_name(path.name.replace("colours", "arc_easy")))
    return root


def test_lm_evals_files_become_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert run("lm-eval", three_models(tmp_path / "theirs"), "--out", out) == 0
    said = capsys.readouterr()
    assert said.out == f"{out}/outcomes: 3 models, 1 tasks, 60 items, 360 rows (360 new)\n"
    assert "models: org/base, org/student, org/teacher" in said.err
    arguments = ["analyze", str(out), "--teacher", "org/teacher", "--base", "org/base"]
    assert _status(arguments) == 0
    assert "of the knowledge gap" in capsys.readouterr().out
    estimates = pd.DataFrame(json.loads((out / "estimates.json").read_text()))
    closure = estimates.query("quantity == 'gap_closure' and level == 'task'").iloc[0]
    assert closure["estimate"] == pytest.approx((45 - 20) / (55 - 20))
    assert "org/student" in (out / "report.html").read_text()


def test_a_table_becomes_the_report_that_analyze_makes_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = foreign(tmp_path / "theirs.csv")
    frame = pd.read_csv(table).rename(columns={"model": "llm", "item": "qid", "score": "correct"})
    frame.assign(correct=frame["correct"].map({1.0: "true", 0.0: "false"})).to_csv(tmp_path / "named.csv", index=False)
    options = ["--map", "model=llm", "--map", "item=qid", "--map", "score=correct"]
    assert run("table", tmp_path / "named.csv", "--out", tmp_path / "a", *options) == 0
    found = []
    for source, out in ((tmp_path / "a", tmp_path / "a"), (table, tmp_path / "b")):
        arguments = ["analyze", str(source), "--teacher", "big", "--base", "before", "--out", str(out)]
        assert _status(arguments) == 0
        found.append(json.loads((out / "estimates.json").read_text()))
    assert found[0] == found[1]
    capsys.readouterr()


def test_inspects_logs_are_imported_and_the_summary_is_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for model in ("a", "b"):
        write_json(tmp_path / f"{model}.json", inspect_log(model=f"mockllm/{model}"))
    assert run("inspect", tmp_path / "a.json", tmp_path / "b.json", "--out", tmp_path / "out", "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["models"] == ["mockllm/a", "mockllm/b"]
    assert (summary["items"], summary["rows"], summary["new"], summary["not_imported"]) == (3, 6, 6, 0)


def test_what_is_not_imported_is_said_on_stderr_and_in_the_directory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = {"colours": {"acc,none": 0.5}, "piqa": {"acc,none": 0.5}, "boolq": {"acc,none": 0.5}}
    folder = lm_eval_folder(tmp_path / "theirs", tasks=tasks)
    write_json(folder / "notes.json", ["x"])
    assert run("lm-eval", folder, "--out", tmp_path / "out") == 0
    err = capsys.readouterr().err
    assert "not imported, 2 reasons:" in err
    assert "only items can be paired" in err
    assert "(2 times); first: piqa, boolq" in err
    assert "notes.json: holds neither results nor samples of lm-eval" in err
    (note,) = json.loads((tmp_path / "out" / "import.json").read_text())["imports"]
    assert [one["count"] for one in note["not_imported"]] == [1, 2]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["lm-eval", "nowhere", "--out", "o"], ["nowhere: no such file or folder"]),
        (["lm-eval", ".", "--out", "o"], ["nothing was imported", "holds neither"]),
        (["inspect", ".", "--out", "o"], ["nothing was imported", "is no log of inspect"]),
        (["table", "t.csv", "--out", "o"], ["t.csv: nothing says the item", "--map item=COLUMN"]),
        (["table", "t.csv", "--out", "o", "--map", "item=qd"], ["no column 'qd'", "Did you mean 'qid'"]),
        (["table", "t.csv", "--out", "o", "--map", "item=qid"], ["t.csv: line 2, column score", "'often'"]),
        (["table", "t.csv", "--out", "o", "--map", "itm=qid"], ["no column 'itm'", "Did you mean 'item'"]),
        (["table", "t.csv", "--out", "o", "--set", "modl=x"], ["'modl' cannot be one value", "Did you mean 'model'"]),
        (["table", "t.csv"], ["Missing option '--out'"]),
    ],
)
def test_a_mistake_ends_with_status_2_a_way_out_and_no_directory(
    arguments: list[str],
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text("model,task,qid,score\nm,t,1,often\n")
    write_json(tmp_path / "x.json", {"a": 1})
    assert run(*arguments) == 2
    err = capsys.readouterr().err
    assert "Traceback" not in err
    for word in words:
        assert word in err
    assert not (tmp_path / "o").exists()


def test_no_control_character_of_a_file_reaches_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = [inspect_sample(1), {"id": "\x1b[2J"}, inspect_sample(2, scores={"\x1b]0;x\x07": {"value": "what"}})]
    write_json(tmp_path / "log.json", inspect_log(samples, model="\x1b[31mred", status="\x1b[5m"))
    assert run("inspect", tmp_path / "log.json", "--out", tmp_path / "out") == 0
    said = capsys.readouterr()
    assert "red" in said.err
    assert "\x1b" not in said.out + said.err
    assert "\x07" not in said.out + said.err


def test_a_contradiction_needs_replace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    for value, options, status in (("C", [], 0), ("I", [], 2), ("I", ["--replace"], 0)):
        path = write_json(tmp_path / "log.json", inspect_log([inspect_sample(1, value=value)]))
        assert run("inspect", path, "--out", out, *options) == status
    assert "(0 new, 1 answers replaced)" in capsys.readouterr().out


def test_an_evaluations_directory_is_not_mixed_with_imports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = {"layout": 1, "models": {"m": {"fingerprint": "x"}}, "batteries": {"b": {"hash": "y"}}}
    write_json(tmp_path / "run" / "run.json", facts)
    path = write_json(tmp_path / "log.json", inspect_log())
    assert run("inspect", path, "--out", tmp_path / "run") == 2
    assert "the directory of an evaluation" in capsys.readouterr().err


def test_an_import_loads_neither_torch_nor_lm_eval(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", inspect_log())
    code = (
        "import sys\nfrom capgap.cli import main\n"
        "for kind in ('lm-eval', 'inspect', 'table'):\n"
        "    try:\n        main(['import', kind, 'a.json', '--out', f'o-{kind}'])\n"
        "    except SystemExit:\n        pass\n"
        "print(sorted({'torch', 'transformers', 'lm_eval', 'datasets', 'inspect_ai'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path, env=environment
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert (tmp_path / "o-inspect" / "outcomes").is_dir()
