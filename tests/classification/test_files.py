import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from capgap import schema
from capgap.classification import classify_items, read_items, read_labels, write_label_file
from capgap.errors import StoreError, TableError, UsageError
from tests.classification.standin import text_evidence


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


def test_a_line_with_everything(tmp_path: Path) -> None:
    row = {"text": "2+2?", "item": 7, "task": "sums", "choices": [3, 4], "target": 1, "capability": "reasoning"}
    (item,) = read_items(lines(tmp_path / "q.jsonl", {**row, "rationale": "2+2=4", "source": "mine"}))
    assert (item.task, item.item, item.no_task) == ("sums", "7", False)
    assert (item.question.choices, item.question.target) == (("3", "4"), "4")
    assert (item.capability, item.rationale, item.labeller) == ("reasoning", "2+2=4", "the file")


def test_a_line_with_nothing_but_its_text(tmp_path: Path) -> None:
    first, second = read_items(lines(tmp_path / "mine.jsonl", {"text": "a"}, "", {"text": ""}))
    assert first.no_task
    assert first.task == second.task == "mine"
    assert first.item != second.item


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("{", "is not JSON"),
        ("[1]", "expected an object, found a list"),
        ("NaN", "expected an object, found a number"),
        ({"txt": "a", "b": 1}, "has no 'text'; it has txt, b Did you mean 'txt'?"),
        ({}, "it has no key"),
        ({"text": 5}, "'text': expected a text, found a number"),
        ({"text": None}, "found null"),
        ({"text": {"a": 1}}, "found an object"),
        ({"text": "a", "choices": "b"}, "'choices': expected a list, found a text"),
        ({"text": "a", "choices": [["b"]]}, "'choices': expected a text or a number, found a list"),
        ({"text": "a", "choices": ["b", "c"], "target": 2}, "index 2 of 2 choices"),
        ({"text": "a", "choices": ["b", "c"], "target": -1}, "index -1 of 2 choices"),
        ({"text": "a", "target": {"b": 1}}, "'target': expected"),
        ({"text": "a", "capability": "recall"}, "'capability': 'recall' is not one of its words"),
        ({"text": "a", "capability": ["knowledge"]}, "'capability'"),
        ({"text": "a", "item": [1]}, "'item'"),
        ('{"text": "a", "item": ' + "9" * 5000 + "}", "is not JSON: Exceeds"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_a_bad_line_is_named_with_file_and_number(row: Any, words: str, tmp_path: Path) -> None:
    path = lines(tmp_path / "q.jsonl", {"text": "fine"}, row)
    with pytest.raises(TableError) as caught:
        read_items(path)
    assert f"{path}, line 2: " in str(caught.value)
    assert words in str(caught.value)


def test_many_bad_lines_are_counted(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"line 10: (.|\n)*and 15 more lines"):
        read_items(lines(tmp_path / "q.jsonl", *["x"] * 25))


def test_one_item_twice_is_refused_with_both_lines(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="line 3: item 'i' of task 't' stands in line 1 already"):
        read_items(lines(tmp_path / "q.jsonl", *[{"text": "a", "task": t, "item": "i"} for t in "tut"]))


def test_the_same_question_without_an_id_is_another_item(tmp_path: Path) -> None:
    found = read_items(lines(tmp_path / "q.jsonl", *[{"text": "a"}] * 3, {"text": "b"}))
    ids = [item.item for item in found]
    assert ids[1:3] == [f"{ids[0]}-2", f"{ids[0]}-3"]
    assert len(set(ids)) == 4


def test_bytes_that_are_no_text_are_told(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_bytes(b'{"text": "a"}\n\xff\xfe\x00\n')
    with pytest.raises(TableError, match="line 2: is not UTF-8"):
        read_items(path)
    for missing in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(TableError, match="cannot be read"):
            read_items(missing)
    with pytest.raises(TableError, match="holds no question"):
        read_items(lines(tmp_path / "empty.jsonl"))


def test_half_a_surrogate_pair_becomes_a_question_mark(tmp_path: Path) -> None:
    (item,) = read_items(lines(tmp_path / "q.jsonl", '{"text": "a\\ud800", "item": "\\udfff", "choices": ["\\ud801"]}'))
    assert (item.question.text, item.item, item.question.choices) == ("a?", "?", ("?",))


@pytest.mark.parametrize("name", ["l.jsonl", "l.parquet"])
def test_labels_come_back_as_they_were_written(name: str, tmp_path: Path) -> None:
    rows = [{"text": "7 + 8", "item": "007", "task": "1e3"}, {"text": "wer ist’s", "item": "é\t\x07", "task": "t"}]
    items = read_items(lines(tmp_path / "q.jsonl", *rows))
    labels = classify_items(items, text=text_evidence).labels
    write_label_file(labels, tmp_path / name)
    found = read_labels(tmp_path / name)
    pd.testing.assert_frame_equal(found, labels, check_exact=False, atol=1e-6)
    assert list(found["item"]) == ["007", "é\t\x07"]


def test_a_file_that_is_there_is_replaced_only_when_told(tmp_path: Path) -> None:
    labels = schema.empty(schema.LABELS)
    out = tmp_path / "l.jsonl"
    out.write_text("mine")
    with pytest.raises(UsageError, match="is there already"):
        write_label_file(labels, out)
    assert out.read_text() == "mine"
    write_label_file(labels, out, replace=True)
    assert out.read_text() == ""
    with pytest.raises(UsageError, match=r"\.jsonl or \.parquet"):
        write_label_file(labels, tmp_path / "l.csv")
    with pytest.raises(UsageError, match="no folder"):
        write_label_file(labels, tmp_path / "none" / "l.jsonl")


def test_what_cannot_be_written_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "l.jsonl"
    out.write_text("mine")

    def full(labels: pd.DataFrame) -> list[str]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("capgap.classification.files.label_lines", full)
    with pytest.raises(StoreError, match="No space left"):
        write_label_file(schema.empty(schema.LABELS), out, replace=True)
    assert out.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [out]


GOOD = {"task": "t", "item": "1", "capability": "knowledge", "p_reasoning": 0.2, "conf_low": 0.1, "conf_high": 0.4}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"p_reasoning": 1.2}, "is no probability"),
        ({"conf_high": "high"}, "should hold float values"),
        ({"conf_low": 0.3}, "outside its own interval"),
        ({"capability": "recall"}, "'recall' is not one of its words"),
        ({"item": None}, "a value is required"),
        ({"colour": 1}, "unknown column 'colour'"),
    ],
)
def test_labels_of_another_form_are_refused(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    path = lines(tmp_path / "l.jsonl", GOOD, {**GOOD, "item": "2", **change})
    with pytest.raises(TableError, match=words):
        read_labels(path)


def test_labels_that_somebody_wrote_by_hand_need_only_what_they_are(tmp_path: Path) -> None:
    found = read_labels(lines(tmp_path / "l.jsonl", {"task": "t", "item": 1, "capability": "mixed"}))
    assert found["capability"][0] == "mixed"
    assert found["p_reasoning"].isna().all()
    (tmp_path / "l.csv").write_text("task,item,capability\nt,1,knowledge\n")
    assert read_labels(tmp_path / "l.csv")["item"][0] == "1"
