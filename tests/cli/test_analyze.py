"""Statistics and report from tables alone: foreign tables, run directories, roles by option."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from capgap.cli import _status


def foreign(path: Path, *, n: int = 200) -> Path:
    """A CSV with the four columns that are required, and what makes capabilities."""
    rng = np.random.default_rng(7)
    rows = []
    for task, capability, means in (
        ("recall", "knowledge", {"big": 0.9, "before": 0.2, "after": 0.8}),
        ("sums", "reasoning", {"big": 0.9, "before": 0.2, "after": 0.3}),
    ):
        for model, mean in means.items():
            right = rng.random(n) < mean
            rows += [
                {"model": model, "task": task, "item": f"i{i}", "score": float(s), "capability": capability}
                for i, s in enumerate(right)
            ]
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def test_a_foreign_table_becomes_estimates_a_sentence_and_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = foreign(tmp_path / "results.csv")
    out = tmp_path / "out"
    arguments = ["analyze", str(table), "--teacher", "big", "--base", "before", "--out", str(out)]
    assert _status(arguments) == 0
    said = capsys.readouterr()
    assert "of the knowledge gap" in said.out
    assert "of the reasoning gap" in said.out
    made = {"estimates.parquet", "estimates.json", "labels.parquet", "report.html"}
    assert {p.name for p in out.iterdir()} == made
    scores = pd.read_csv(table).groupby(["task", "model"])["score"].mean()
    estimates = pd.DataFrame(json.loads((out / "estimates.json").read_text()))
    for task in ("recall", "sums"):
        found = estimates.query("quantity == 'gap_closure' and level == 'task' and group == @task").iloc[0]
        by_hand = (scores[task, "after"] - scores[task, "before"]) / (scores[task, "big"] - scores[task, "before"])
        assert found["estimate"] == pytest.approx(by_hand, abs=1e-9)
        assert found["conf_low"] < by_hand < found["conf_high"]


def test_json_output_is_json_and_stands_alone_on_stdout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = foreign(tmp_path / "results.csv")
    assert _status(["analyze", str(table), "--teacher", "big", "--json", "--out", str(tmp_path / "o")]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert {e["level"] for e in summary["estimates"]} <= {"battery", "capability"}
    assert summary["report"].endswith("report.html")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--teacher", "bigg"], "no such model in the tables. Did you mean 'big'"),
        (["--student", "aftr"], "no such model in the tables. Did you mean 'after'"),
        (["--teacher", "big", "--student", "big"], "no student is left"),
        (["--teacher", "big", "--student", "big", "--student", "after"], "student 'big' is the teacher too"),
        (["--teacher", "big", "--base", "big"], "base 'big' is the teacher too"),
        (["--teacher", "big", "--base", "before", "--control", "before"], "control 'before' is the base too"),
    ],
)
def test_a_wrong_role_names_the_nearest_model(
    options: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = foreign(tmp_path / "results.csv", n=10)
    assert _status(["analyze", str(table), *options, "--out", str(tmp_path / "o")]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_a_report_is_written_again_from_its_directory(
    checkpoints: dict[str, Path], tiny_battery: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    command = ["evaluate", "--student", str(checkpoints["student"]), "--teacher", str(checkpoints["teacher"])]
    assert (
        _status([*command, "--base", "none", "--battery", str(tiny_battery), "--device", "cpu", "--out", str(out)]) == 0
    )
    said = capsys.readouterr()
    assert "tiny 1: 2 tasks, 48 items × 2 models" in said.err.splitlines()[0]
    first = (out / "report.html").read_text()
    (out / "report.html").unlink()
    assert _status(["report", str(out)]) == 0
    assert (out / "report.html").read_text() == first
    capsys.readouterr()
    assert _status(["analyze", str(out), "--items", "none"]) == 0
    assert " plus " in first
    assert " plus " not in (out / "report.html").read_text(), "--items none leaves no text of an item"


def test_the_margin_of_equivalence_is_the_users(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, out = foreign(tmp_path / "results.csv", n=600), tmp_path / "out"
    arguments = ["analyze", str(table), "--teacher", "big", "--base", "before", "--out", str(out)]
    verdicts = {}
    for points in ("2", "30"):
        assert _status([*arguments, "--margin", points]) == 0
        estimates = pd.read_parquet(out / "estimates.parquet")
        row = estimates.query("quantity == 'equivalence' and group == 'knowledge' and weighting == 'tasks'").iloc[0]
        assert f"{points} points" in row["note"]
        verdicts[points] = row["p_value"]
    assert verdicts["2"] > 0.05 > verdicts["30"]
    assert _status([*arguments, "--margin", "0"]) == 2
    assert "--margin" in capsys.readouterr().err


def test_two_runs_of_one_battery_are_compared_together(
    checkpoints: dict[str, Path], tiny_battery: Path, tmp_path: Path
) -> None:
    for name in ("student", "base"):
        models = ["--student", f"{name}={checkpoints[name]}", "--teacher", f"lead={checkpoints['teacher']}"]
        command = ["evaluate", *models, "--base", "none", "--battery", str(tiny_battery), "--device", "cpu"]
        assert _status([*command, "--out", str(tmp_path / name)]) == 0
    shutil.rmtree(tmp_path / "base" / "outcomes" / "lead")
    both = tmp_path / "both"
    runs = [str(tmp_path / "student"), str(tmp_path / "base")]
    assert _status(["analyze", *runs, "--out", str(both)]) == 0
    gaps = pd.read_parquet(both / "estimates.parquet").query("quantity == 'gap'")
    assert set(gaps["model"]) == {"student", "base"}
    assert len(pd.read_parquet(both / "items.parquet")) == 48
    assert len(pd.read_parquet(both / "labels.parquet")) == 48


def imported(folder: Path, *models: str) -> Path:
    """A directory of imports with these models of `foreign`, and prompts."""
    table = pd.read_csv(foreign(folder.with_suffix(".csv"), n=30))
    table = table.assign(prompt="Q: " + table["item"])[table["model"].isin(models)]
    table.to_csv(folder.with_suffix(".csv"), index=False)
    assert _status(["import", "table", str(folder.with_suffix(".csv")), "--out", str(folder)]) == 0
    return folder


def test_runs_analysed_together_lose_nothing_of_their_own(tmp_path: Path) -> None:
    first, second = imported(tmp_path / "first", "big", "before"), imported(tmp_path / "second", "after")
    made = tmp_path / "models.csv"
    pd.DataFrame({"model": ["after", "before"], "n_examples": [100, None]}).to_csv(made, index=False)
    assert _status(["analyze", str(first), str(second), "--teacher", "big", "--models", str(made)]) == 0
    models = pd.read_parquet(first / "models.parquet").set_index("model")
    assert set(models.index) == {"big", "before", "after"}
    assert models.loc["after", "n_examples"] == 100, "what the user says of a model"
    assert pd.read_parquet(second / "models.parquet")["model"].tolist() == ["after"]
    assert len(pd.read_parquet(first / "items.parquet")) == 60


def test_an_earlier_analysis_in_the_same_folder_has_no_part_in_the_next(tmp_path: Path) -> None:
    table, out = foreign(tmp_path / "results.csv", n=30), tmp_path / "out"
    plain = tmp_path / "plain.csv"
    pd.read_csv(table).drop(columns="capability").to_csv(plain, index=False)
    made = tmp_path / "models.csv"
    pd.DataFrame({"model": ["after"], "n_examples": [100]}).to_csv(made, index=False)
    arguments = ["--teacher", "big", "--out", str(out)]
    assert _status(["analyze", str(table), *arguments, "--models", str(made)]) == 0
    assert _status(["analyze", str(plain), *arguments]) == 0
    assert {path.name for path in out.iterdir()} == {"estimates.parquet", "estimates.json", "report.html"}
    assert "knowledge" not in set(pd.read_parquet(out / "estimates.parquet")["group"])


def test_the_folder_of_another_run_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, table = imported(tmp_path / "run", "big", "after"), foreign(tmp_path / "results.csv", n=30)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert _status(["analyze", str(table), "--teacher", "big", "--out", str(run)]) == 2
    assert "holds a run of its own" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_table_without_rows_is_called_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "head.csv"
    table.write_text("model,task,item,score\n")
    assert _status(["analyze", str(table), "--teacher", "big"]) == 2
    assert "head.csv: no row below the names of the columns" in capsys.readouterr().err


def test_a_folder_that_is_no_run_says_what_to_do_with_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, out = foreign(tmp_path / "results.csv", n=30), tmp_path / "out"
    assert _status(["analyze", str(table), "--teacher", "big", "--out", str(out)]) == 0
    capsys.readouterr()
    for arguments, words in (
        (["report", str(out)], "run that capgap analyze again, or bring them into a directory first"),
        (["analyze", str(tmp_path)], f"name the table: capgap analyze {table}"),
        (["report", str(table)], "is a file. Expected the --out"),
        (["analyze", str(tmp_path / "nowhere")], "nowhere: no such file"),
    ):
        assert _status(arguments) == 2
        assert words in capsys.readouterr().err


def test_a_run_that_ends_while_the_page_is_made_leaves_the_former_page_and_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, out = foreign(tmp_path / "results.csv", n=30), tmp_path / "out"
    arguments = ["analyze", str(table), "--teacher", "big", "--out", str(out)]
    assert _status(arguments) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("capgap.results.results.write_report", stop)
    assert _status([*arguments, "--base", "before"]) == 130
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_models_table_of_other_models_is_refused_and_missing_students_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, made = foreign(tmp_path / "results.csv", n=30), tmp_path / "models.csv"
    arguments = ["analyze", str(table), "--teacher", "big", "--models", str(made), "--out", str(tmp_path / "out")]
    made.write_text("model,n_examples\nAfter,100\n")
    assert _status(arguments) == 2
    assert "none of its models is in the tables, 'After' for one. Did you mean 'after'" in capsys.readouterr().err
    made.write_text("model,n_examples\nafter,100\n")
    assert _status(arguments) == 0
    assert "has no row for before:" in capsys.readouterr().err


def test_the_page_says_which_questions_the_table_is_too_small_for(tmp_path: Path) -> None:
    table, out = foreign(tmp_path / "results.csv", n=30), tmp_path / "out"
    assert _status(["analyze", str(table), "--teacher", "big", "--base", "before", "--out", str(out)]) == 0
    page = (out / "report.html").read_text()
    assert '<p class="next">Next: ' in page
    for words in (
        "six students or more",
        "three students or more of one recipe that differ in a known seed",
        "24 students",
    ):
        assert words in page


def test_samples_of_lm_eval_are_called_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "results" / "model"
    folder.mkdir(parents=True)
    samples = folder / "samples_arc_easy_2026-01-01T00-00-00.000000.jsonl"
    samples.write_text(json.dumps({"doc_id": 0, "resps": [], "filtered_resps": [], "acc": 1}) + "\n")
    for path in (tmp_path / "results", samples):
        assert _status(["analyze", str(path)]) == 2
        assert "capgap import lm-eval" in capsys.readouterr().err


def test_a_table_that_is_named_twice_counts_once(tmp_path: Path) -> None:
    table = foreign(tmp_path / "results.csv", n=30)
    twice = [str(table), str(tmp_path / "." / "results.csv"), f"{tmp_path}/../{tmp_path.name}/results.csv"]
    assert _status(["analyze", *twice, "--teacher", "big", "--out", str(tmp_path / "out")]) == 0


def test_a_student_that_is_named_twice_is_one_student(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = foreign(tmp_path / "results.csv", n=30)
    twice = ["--student", "after", "--student", "after", "--out", str(tmp_path / "out")]
    assert _status(["analyze", str(table), "--teacher", "big", *twice]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2, "a sentence and the next step"


def test_of_many_students_the_terminal_gets_a_page_and_the_report_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    rows = [
        {"model": model, "task": "t", "item": str(i), "score": float(rng.random() < 0.6), "capability": "knowledge"}
        for model in ("big", *(f"student{n:02d}" for n in range(15)))
        for i in range(12)
    ]
    table = tmp_path / "many.csv"
    pd.DataFrame(rows).to_csv(table, index=False)
    out = tmp_path / "out"
    assert _status(["analyze", str(table), "--teacher", "big", "--out", str(out)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("student") for line in said) == 1  # which of them scored highest
    assert said[1].startswith("15 students, one by one")
    page = (out / "report.html").read_text(encoding="utf-8")
    assert all(f"student{n:02d} is " in page for n in range(15))


@pytest.mark.parametrize(
    ("sources", "out", "recorded"),
    [
        (["results.csv", "run"], [], True),
        (["run", "results.csv"], [], False),
        (["run"], ["--out", "elsewhere"], True),
    ],
)
def test_the_command_is_recorded_unless_a_run_is_analysed_in_its_own_directory(
    sources: list[str], out: list[str], recorded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("capgap.cli.analyze.command_line", lambda: ["the", "typed", "command"])
    monkeypatch.setattr(
        "capgap.results.results.write_report", lambda path, run, **_: path.write_text(str(run["command"]))
    )
    imported(tmp_path / "run", "big", "after")
    others = pd.read_csv("run.csv").replace({"model": {"big": "huge", "after": "before"}})
    others.drop(columns="prompt").to_csv("results.csv", index=False)
    assert _status(["analyze", *sources, *out]) == 0
    folder = Path(out[-1] if out else "run" if sources[0] == "run" else "capgap-out/results")
    assert ("typed" in (folder / "report.html").read_text()) == recorded
