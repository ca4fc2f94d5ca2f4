import json
from pathlib import Path

import pytest

from capgap.errors import StoreError
from capgap.evaluation import RunDirectory


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(StoreError, match=r"is no run directory: it holds thesis.tex.*nothing was changed"):
        RunDirectory(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"layout": "x", "models": {}, "batteries": {}}'])
def test_a_note_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(StoreError, match="is no note of a run"):
        RunDirectory(tmp_path)
    assert (tmp_path / "run.json").read_text() == content


def test_a_newer_layout_and_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"layout": 99, "models": {}, "batteries": {}}))
    with pytest.raises(StoreError, match="newer capgap"):
        RunDirectory(tmp_path)
    with pytest.raises(StoreError, match="is a file"):
        RunDirectory(tmp_path / "run.json")


def test_one_name_for_two_batteries_or_models_is_refused(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    run.add_battery("mine", "a" * 64, {})
    run.add_battery("mine", "a" * 64, {})
    with pytest.raises(StoreError, match=r"another battery called 'mine' \(hash aaaaaaaaaaaa, now bbbbbbbbbbbb\)"):
        run.add_battery("mine", "b" * 64, {})
    run.add_model("m", "x", {"word": "out/m", "identity": {"weights": 1, "dtype": "float32"}})
    with pytest.raises(StoreError, match=r"they differ in dtype.*NAME=out/m"):
        run.add_model("m", "y", {"word": "out/m", "identity": {"weights": 1, "dtype": "bfloat16"}})


def test_a_missing_run_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"does not exist\. Expected the --out"):
        RunDirectory.existing(tmp_path / "none")
    with pytest.raises(StoreError, match="is no run directory"):
        RunDirectory.existing(tmp_path)


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        RunDirectory(tmp_path / "file" / "run")
