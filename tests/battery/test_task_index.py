import json
import os
from pathlib import Path
from typing import Any

import pytest

from capgap.battery import task_index as module
from capgap.battery.lm_eval_groups import leaf_task_names
from capgap.battery.task_index import TaskIndexEntry, cache_file, read_index, task_index, task_manager

INDEX = {
    "sums": TaskIndexEntry("TASK", "sums/sums.yaml"),
    "all": TaskIndexEntry("GROUP", "sums/all.yaml", ("sums",)),
    "tagged": TaskIndexEntry("TAG", None, ("sums",)),
}


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A cached index."""
    file = tmp_path / "cache" / "index.json"
    module._write_index(file, "these tasks", INDEX)
    return file


def test_what_was_written_is_read_again(kept: Path) -> None:
    assert read_index(kept, "these tasks") == INDEX
    assert [file.name for file in kept.parent.iterdir()] == ["index.json"]


def test_other_tasks_are_not_read(kept: Path) -> None:
    assert read_index(kept, "other tasks") is None
    assert read_index(kept.with_name("absent.json"), "these tasks") is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: b"",
        lambda raw: raw[:-1],
        lambda raw: raw[: len(raw) // 2],
        lambda raw: raw.replace(b"sums.yaml", b"sumz.yaml"),
        lambda raw: raw.replace(b'"format": 1', b'"format": 2'),
        lambda raw: raw.replace(b"\n", b""),
        lambda raw: b"\xff" + raw,
        lambda raw: b"[" * 100_000 + b"\n{}",
        lambda raw: b"null\nnull",
    ],
)
def test_a_damaged_cache_is_no_cache(kept: Path, damage: Any) -> None:
    kept.write_bytes(damage(kept.read_bytes()))
    assert read_index(kept, "these tasks") is None


@pytest.mark.parametrize(
    "entry",
    [
        TaskIndexEntry("TASK", "/tmp/evil.yaml"),
        TaskIndexEntry("TASK", "../../evil.yaml"),
        TaskIndexEntry("TASK", "sums\\..\\..\\evil.yaml"),
        TaskIndexEntry("TASK", "sums/evil.py"),
        TaskIndexEntry("TASK", None),
        TaskIndexEntry("TAG", "sums/sums.yaml"),
        TaskIndexEntry("UNKNOWN", "sums/sums.yaml"),
    ],
)
def test_no_entry_of_a_forged_cache_leads_out_of_lm_evals_folder(tmp_path: Path, entry: TaskIndexEntry) -> None:
    module._write_index(tmp_path / "index.json", "these tasks", INDEX | {"evil": entry})
    assert read_index(tmp_path / "index.json", "these tasks") is None


def test_a_changed_file_means_another_index(tmp_path: Path) -> None:
    (tmp_path / "sums").mkdir()
    (tmp_path / "sums" / "sums.yaml").write_text("task: sums\n")
    (tmp_path / "sums" / "_template_yaml").write_text("tag: a\n")
    seen = [module._fingerprint(tmp_path)]
    (tmp_path / "sums" / "_template_yaml").write_text("tag: bc\n")
    seen.append(module._fingerprint(tmp_path))
    os.utime(tmp_path / "sums" / "sums.yaml", ns=(1, 1))
    seen.append(module._fingerprint(tmp_path))
    (tmp_path / "sums" / "sums.yaml").rename(tmp_path / "sums" / "more.yaml")
    seen.append(module._fingerprint(tmp_path))
    assert len(set(seen)) == 4
    (tmp_path / "sums" / "README.md").write_text("x")
    assert module._fingerprint(tmp_path) == seen[-1]


def test_version_and_folder_have_indices_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    files = {cache_file(Path(folder), version) for folder in ("/a", "/b") for version in ("1", "2")}
    assert len(files) == 4
    assert {file.parent for file in files} == {tmp_path / "capgap"}
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/folder")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_file(Path("/a"), "1").parent == tmp_path / ".cache" / "capgap"


def test_the_second_process_does_not_build_the_index(monkeypatch: pytest.MonkeyPatch) -> None:
    known = task_index()
    task_index.cache_clear()
    monkeypatch.setattr(module, "_build_index", lambda folder: pytest.fail("built again"))
    assert task_index() == known
    assert len(known) > 10_000


def test_a_damaged_cache_is_built_and_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = task_index()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(module, "_build_index", lambda folder: known)
    task_index.cache_clear()
    assert task_index() == known
    (file,) = (tmp_path / "capgap").iterdir()
    file.write_text("{")
    task_index.cache_clear()
    assert task_index() == known
    assert json.loads(file.read_text().split("\n")[0])["format"] == 1


def test_a_cache_that_cannot_be_written_costs_time_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(module, "_build_index", lambda folder: INDEX)
    task_index.cache_clear()
    assert task_index() == INDEX
    task_index.cache_clear()


def test_lm_eval_finds_its_files_through_the_index() -> None:
    manager = task_manager()
    entry = manager.task_index["arc_easy"]
    assert entry.yaml_path.is_file()
    assert "arc_easy" in entry.yaml_path.read_text()
    assert set(manager.task_index["ai2_arc"].tags) == {"arc_easy", "arc_challenge"}


def test_groups_tags_and_groups_within_groups_give_their_leaves() -> None:
    assert leaf_task_names("arc_easy") == ["arc_easy"]
    assert leaf_task_names("ai2_arc") == ["arc_challenge", "arc_easy"]
    assert len(leaf_task_names("mmlu")) == 57
    assert leaf_task_names("no_such_task") == []
