"""Labels of a run: declared, from a file, from the catalogue, from the words of the items."""

import json
from pathlib import Path

import pandas as pd
import pytest

from capgap.cli import _status
from tests.cli.test_analyze import foreign

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def silent(tiny_battery: Path) -> Path:
    """The tiny battery without a word on what it asks for."""
    lines = tiny_battery.read_text().splitlines(keepends=True)
    tiny_battery.write_text("".join(line for line in lines if "capability:" not in line))
    return tiny_battery


def evaluated(checkpoints: dict[str, Path], battery: Path, out: Path, *more: str) -> int:
    models = ["--student", str(checkpoints["student"]), "--teacher", str(checkpoints["teacher"]), "--base", "none"]
    return _status(["evaluate", *models, "--battery", str(battery), "--device", "cpu", "--out", str(out), *more])


def test_items_that_declare_nothing_are_read_labelled_and_marked(
    checkpoints: dict[str, Path], silent: Path, tmp_path: Path, capsys: Captured
) -> None:
    out = tmp_path / "run"
    assert evaluated(checkpoints, silent, out) == 0
    assert "48 of 48 items declare no capability and are labelled" in capsys.readouterr().err
    labels = pd.read_parquet(out / "labels.parquet")
    assert len(labels) == 48
    assert set(labels["source"]) == {"text"}
    assert labels["p_reasoning"].between(labels["conf_low"], labels["conf_high"]).all()
    assert all(json.loads(one)["reasons"] for one in labels["evidence"])
    page = (out / "report.html").read_text()
    assert "48 of 48 items declare no capability" in page
    assert "Reliability of the classifier" in page
    assert _status(["report", str(out)]) == 0
    assert (out / "report.html").read_text() == page
    assert pd.read_parquet(out / "labels.parquet").equals(labels)


def test_a_declared_battery_keeps_its_own_word(
    checkpoints: dict[str, Path], tiny_battery: Path, tmp_path: Path, capsys: Captured
) -> None:
    out = tmp_path / "run"
    assert evaluated(checkpoints, tiny_battery, out) == 0
    assert "declare no capability" not in capsys.readouterr().err
    labels = pd.read_parquet(out / "labels.parquet")
    outcomes = pd.read_parquet(out / "outcomes").drop_duplicates(["task", "item"])
    both = labels.merge(outcomes, on=["task", "item"], suffixes=("", "_declared"))
    assert len(both) == len(labels)
    assert (both["capability"] == both["capability_declared"]).all()
    assert set(labels["source"]) == {"declared"}


def test_labels_of_a_file_win_and_what_it_lacks_is_read(
    checkpoints: dict[str, Path], silent: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert evaluated(checkpoints, silent, out) == 0
    labels = pd.read_parquet(out / "labels.parquet")
    mine = labels.iloc[:10].assign(capability="mixed", p_reasoning=0.5, source="me", evidence=None)
    mine.to_parquet(tmp_path / "mine.parquet")
    assert _status(["analyze", str(out), "--labels", str(tmp_path / "mine.parquet")]) == 0
    found = pd.read_parquet(out / "labels.parquet").set_index(["task", "item"])
    assert len(found) == len(labels)
    assert (found["source"] == "me").sum() == 10
    assert (found.loc[list(zip(mine["task"], mine["item"], strict=True)), "capability"] == "mixed").all()


def test_labels_from_answers_of_a_compared_model_are_refused(
    checkpoints: dict[str, Path], silent: Path, tmp_path: Path, capsys: Captured
) -> None:
    out = tmp_path / "run"
    assert evaluated(checkpoints, silent, out) == 0
    models = pd.read_parquet(out / "models.parquet")
    labels = pd.read_parquet(out / "labels.parquet")
    before = (out / "labels.parquet").read_bytes()
    witness = {"model": "another name", "weights_hash": models["weights_hash"].iloc[0]}
    labels.assign(evidence=json.dumps({"reasons": [], "models": [witness]})).to_parquet(tmp_path / "l.parquet")
    capsys.readouterr()
    assert _status(["analyze", str(out), "--labels", str(tmp_path / "l.parquet")]) == 2
    assert "the comparison would test its own definition" in capsys.readouterr().err
    assert (out / "labels.parquet").read_bytes() == before, "what was there is not lost"


def test_a_file_of_other_items_and_rubbish_are_told(tmp_path: Path, capsys: Captured) -> None:
    table = foreign(tmp_path / "results.csv")
    others = tmp_path / "labels.jsonl"
    others.write_text('{"task": "t", "item": "i", "capability": "reasoning", "p_reasoning": 0.9}\n')
    command = ["analyze", str(table), "--teacher", "big", "--base", "before", "--out", str(tmp_path / "o")]
    assert _status([*command, "--labels", str(others)]) == 2
    assert "none of its labels is of an item of this run" in capsys.readouterr().err
    others.write_bytes(b"\x00\xff rubbish")
    assert _status([*command, "--labels", str(others)]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_the_catalogue_labels_a_foreign_table_of_lm_evals_tasks(tmp_path: Path, capsys: Captured) -> None:
    table = foreign(tmp_path / "results.csv")
    frame = pd.read_csv(table).drop(columns="capability").replace({"task": {"recall": "arc_easy", "sums": "gsm8k"}})
    unknown = frame[frame["task"] == "gsm8k"].assign(task="nobody knows this one")
    pd.concat([frame, unknown]).to_csv(table, index=False)
    out = tmp_path / "o"
    assert _status(["analyze", str(table), "--teacher", "big", "--base", "before", "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert "of the knowledge gap" in said.out
    assert "600 of 600 items declare no capability and are labelled 200 knowledge, 200 reasoning." in said.err
    labels = pd.read_parquet(out / "labels.parquet")
    assert set(labels["task"]) == {"arc_easy", "gsm8k"}, "of what nothing is known there is no label"
    assert labels["evidence"].str.contains("catalogue").all()
