"""Hostile files: every one ends in a message, bounded in time and memory, and harms nothing."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from capgap.errors import CapgapError, TableError
from capgap.importers import ImportResult, import_inspect, import_lm_eval, import_result_tables, merge_batch
from capgap.importers import reading as module
from capgap.importers.reading import files_under, parse_json, records
from capgap.importers.values import MAX_TEXT_LENGTH, number, portable_model_name, truncate_text, whole_number
from tests.importers.written import (
    choose_sample,
    generate_sample,
    inspect_log,
    inspect_sample,
    lm_eval_folder,
    write_json,
)

DEEP = "[" * 100_000 + "]" * 100_000
BAD_JSON = {
    "deep": DEEP,
    "twice": '{"doc_id": 1, "doc_id": 2, "resps": [], "eval": {}, "results": {}}',
    "digits": '{"doc_id": ' + "9" * 10_000 + ', "resps": [[""]], "id": 1, "input": ""}',
    "half": '{"a": [1, 2',
    "constant": "NaN",
    "null": "null",
}


def every_importer(path: Path) -> list[ImportResult]:
    """What each importer makes of a file; an error of the user counts as an answer."""
    found = []
    for importer in (import_lm_eval, import_inspect, lambda paths: import_result_tables(paths, {})):
        try:
            found.append(importer([path]))
        except CapgapError:
            continue
    return found


@pytest.mark.parametrize("name", BAD_JSON)
@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_bad_json_is_listed_by_every_importer(name: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"samples_x{suffix}"
    path.write_text(BAD_JSON[name])
    for batch in every_importer(path):
        assert not batch.parts
        assert batch.skipped


@pytest.mark.parametrize(
    "raw", [b"\xff\xfe\x00", b"\x00" * 100, "text".encode("utf-16"), b"PK", b"\xef\xbb\xbf", b" \n "]
)
def test_bytes_that_are_no_text_are_listed_by_every_importer(raw: bytes, tmp_path: Path) -> None:
    for suffix in (".json", ".jsonl", ".eval", ".csv", ".parquet"):
        path = tmp_path / f"x{suffix}"
        path.write_bytes(raw)
        assert not any(batch.parts for batch in every_importer(path))


def test_a_line_of_ten_megabytes_beyond_the_bound_is_listed_and_the_next_one_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_RECORD_BYTES", 9 * 2**20)
    folder = lm_eval_folder(tmp_path, records=[choose_sample(0)], tasks={})
    (path,) = folder.glob("samples_*")
    long = json.dumps(choose_sample(1) | {"doc": "x" * 10_000_000})
    path.write_text(path.read_text() + long + "\n" + json.dumps(choose_sample(2)) + "\n")
    batch = import_lm_eval([folder])
    assert len(batch.parts[0].items) == 2
    assert "is longer than 9 MB; first: line 2" in str(batch.skipped[0])


def test_a_document_beyond_the_bound_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_DOCUMENT_BYTES", 1_000)
    write_json(tmp_path / "log.json", inspect_log())
    assert "is larger than" in import_inspect([tmp_path]).skipped[0].reason


def test_long_answers_are_cut_and_long_names_refused(tmp_path: Path) -> None:
    long = "y" * 5_000_000
    folder = lm_eval_folder(tmp_path, records=generate_sample(0, long), tasks={}, configs={})
    outcomes = merge_batch(import_lm_eval([folder]), tmp_path / "out").outcomes
    assert len(outcomes.loc[0, "response"]) == MAX_TEXT_LENGTH
    assert outcomes.loc[0, "response"].endswith("[cut here by capgap import]")
    write_json(tmp_path / "log.json", inspect_log([inspect_sample(1, id="i" * 10_000_000), inspect_sample(2)]))
    batch = import_inspect([tmp_path / "log.json"])
    assert len(batch.parts[0].rows) == 1
    assert "10,000,000 characters" in batch.skipped[0].reason


def test_half_a_character_and_control_characters_reach_no_terminal(tmp_path: Path) -> None:
    sample = inspect_sample(1, input="\ud800 \x1b[31m", target="\ud800") | {"id": "a\x1b[2J\ud800"}
    write_json(tmp_path / "log.json", inspect_log([sample, {"id": "\x1b]0;title\x07"}], model="\x1b[31mred"))
    batch = import_inspect([tmp_path / "log.json"])
    stored = merge_batch(batch, tmp_path / "out")
    assert stored.outcomes["item"].tolist() == ["a\x1b[2J?"]  # kept as it is: whoever shows it escapes it
    assert all(text.isprintable() for text in [*batch.notes, *map(str, batch.skipped)])


def test_a_file_is_never_read_as_code(tmp_path: Path) -> None:
    words = ["__import__('os').system('touch pwned')", "{{ cycler.__init__.__globals__ }}", "=cmd|'/c calc'!A1"]
    rows = [{"model": word, "task": word, "item": n, "score": 1, "response": word} for n, word in enumerate(words)]
    write_json(tmp_path / "t.json", rows)
    outcomes = merge_batch(import_result_tables([tmp_path / "t.json"], {}), tmp_path / "out").outcomes
    assert sorted(outcomes["model"]) == sorted(words)
    assert not (tmp_path / "pwned").exists()


def test_links_that_lead_round_end(tmp_path: Path) -> None:
    lm_eval_folder(tmp_path)
    (tmp_path / "round").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "broken.json").symlink_to(tmp_path / "nowhere")
    assert len(files_under(tmp_path, (".json", ".jsonl"))) == 2


@pytest.mark.skipif(not hasattr(os, "mkfifo") or sys.platform == "win32", reason="needs named pipes")
def test_a_pipe_is_no_file_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    assert files_under(tmp_path, (".json",)) == []
    with pytest.raises(TableError, match="no such file or folder"):
        files_under(tmp_path / "pipe.json", (".json",))


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_FILES", 3)
    for n in range(5):
        (tmp_path / f"{n}.json").write_text("1")
    with pytest.raises(TableError, match="more than 3 files"):
        files_under(tmp_path, (".json",))


def test_a_byte_order_mark_is_no_part_of_the_first_record(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\n\n{"a": 2}')
    assert [(record.location, record.value) for record in records(path)] == [("line 1", {"a": 1}), ("line 3", {"a": 2})]


@pytest.mark.parametrize(
    ("value", "found"),
    [
        *((1, 1.0), (True, 1.0), ("1e3", 1000.0), (" -2.5 ", -2.5), (".5", 0.5), ("", None), ("1_0", None)),
        *(("nan", None), ("inf", None), (float("inf"), None), (10**400, None), ("1e999", None), ([1], None)),
        *(("9" * 10_000, None), ("\u0663", None), (None, None), ("0x10", None)),
    ],
)
def test_only_a_finite_number_is_a_number(value: Any, found: float | None) -> None:
    assert number(value) == found


@pytest.mark.parametrize(("value", "found"), [(3, 3), ("3", 3), (3.0, 3), (3.5, None), (True, None), (2**63, None)])
def test_only_what_a_column_holds_is_a_whole_number(value: Any, found: int | None) -> None:
    assert whole_number(value) == found


def test_a_name_that_is_only_a_path_stays_something(tmp_path: Path) -> None:
    assert portable_model_name("/") == "/"
    assert portable_model_name("~/models/x") == "x"
    assert truncate_text({"a": [1]}) == '{"a": [1]}'
    assert parse_json("[1]") == [1]
