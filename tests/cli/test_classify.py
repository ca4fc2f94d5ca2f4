"""`capgap classify`: the command as it is typed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from capgap.classification import Evidence, read_labels
from capgap.classification.text_model import TextModel
from capgap.cli import _status
from tests.classification.worlds import outcomes


@pytest.fixture(autouse=True)
def _folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


Captured = pytest.CaptureFixture[str]


def run(capsys: Captured, *arguments: str | Path) -> tuple[int, str, str]:
    status = _status(["classify", *map(str, arguments)])
    out, err = capsys.readouterr()
    return status, out, err


def questions(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


SOME = (
    {"text": "7 + 8?", "item": "a", "task": "sums"},
    {"text": "Who wrote Hamlet?", "item": "b", "task": "names"},
    {"text": "?"},
)


def test_a_file_gives_a_line_for_each_item_on_stdout_and_a_summary_beside(capsys: Captured, tmp_path: Path) -> None:
    status, out, err = run(capsys, questions(tmp_path / "q.jsonl", *SOME))
    assert status == 0
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["item"] for row in rows[:2]] == ["a", "b"]
    for row in rows:
        assert {"item", "task", "capability", "p_reasoning", "conf_low", "conf_high", "source", "evidence"} == set(row)
        assert 0 <= row["conf_low"] <= row["p_reasoning"] <= row["conf_high"] <= 1
        assert row["evidence"]["reasons"]
    assert [row["capability"] for row in rows] == ["reasoning", "knowledge", "mixed"]
    assert "3 items: 1 knowledge, 1 reasoning, 1 mixed; 1 with p from 0.33 to 0.67" in err
    assert "sums: reasoning" in err


@pytest.mark.parametrize("name", ["l.jsonl", "l.parquet"])
def test_out_holds_the_labels_and_is_replaced_only_when_told(name: str, capsys: Captured, tmp_path: Path) -> None:
    source, out = questions(tmp_path / "q.jsonl", *SOME), tmp_path / name
    assert run(capsys, source, "--out", out)[:2] == (0, "")
    assert list(read_labels(out)["capability"]) == ["reasoning", "knowledge", "mixed"]
    before = out.read_bytes()
    status, _, err = run(capsys, source, "--out", out, "--limit", "1")
    assert status == 2
    assert "is there already" in err
    assert out.read_bytes() == before
    assert run(capsys, source, "--out", out, "--limit", "1", "--replace")[0] == 0
    assert len(read_labels(out)) == 1


def test_a_battery_is_labelled_by_what_it_declares_and_says(capsys: Captured, tmp_path: Path) -> None:
    status, _, err = run(capsys, "microworld", "--limit", "4", "--out", "l.parquet")
    assert status == 0
    labels = read_labels(tmp_path / "l.parquet")
    assert len(labels) == 14 * 4
    assert set(labels.loc[labels["task"].str.startswith("two_hops"), "capability"]) == {"mixed"}
    assert "declared, text" in err
    assert "declares it" in labels["evidence"][0]


def test_labels_that_contradict_a_declaration_are_told(
    capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"text": "7 + 8?", "item": f"i{n}", "capability": "knowledge"} for n in range(3)]
    source = questions(tmp_path / "q.jsonl", *rows, {"text": "7 + 8?", "item": "j", "capability": "mixed"})
    assert "otherwise than declared" not in run(capsys, source)[2]
    by_text = run(capsys, source, "--evidence", "text")[2]
    assert "0 of 3 items that are declared knowledge or reasoning are labelled so." in by_text
    sure = [Evidence("text", 9.0, 0.2)]
    monkeypatch.setattr(TextModel, "evidence", lambda self, found: sure * len(found))
    told = run(capsys, source)[2]
    assert "3 items are labelled otherwise than declared, the first is i0 of q: declared knowledge" in told


def test_models_are_asked_and_kept_as_witnesses(capsys: Captured, tmp_path: Path) -> None:
    asked = ["microworld", "--limit", "12", "--evidence", "behaviour", "--model", "microworld:generalist"]
    status, _, err = run(capsys, *asked, "--out", "l.parquet")
    assert status == 0, err
    labels = read_labels(tmp_path / "l.parquet").set_index("task")
    assert (labels.loc["facts_choose", "p_reasoning"] < 0.5).all()
    assert (labels.loc["chains_generate", "p_reasoning"] > 0.5).all()
    (witness,) = json.loads(labels.loc["facts_choose", "evidence"].iloc[0])["models"]
    assert witness["model"] == "generalist"
    assert witness["weights_hash"]
    status, _, _ = run(capsys, *asked[:5], "--outcomes", "capgap-out/classify", "--out", "again.parquet")
    assert status == 0
    assert read_labels(tmp_path / "again.parquet").equals(read_labels(tmp_path / "l.parquet"))


def test_answers_that_are_there_are_evidence(capsys: Captured, tmp_path: Path) -> None:
    outcomes({("m", "default"): 0.4, ("m", "cot"): 0.95}, task="names").to_parquet(tmp_path / "o.parquet")
    source = questions(tmp_path / "q.jsonl", *SOME)
    status, out, _ = run(capsys, source, "--outcomes", tmp_path / "o.parquet")
    assert status == 0
    row, by_text = json.loads(out.splitlines()[1]), json.loads(run(capsys, source)[1].splitlines()[1])
    assert row["source"] == "behaviour, text"
    assert row["p_reasoning"] > by_text["p_reasoning"] + 0.3, "thoughts mend what the words call knowledge"
    assert row["evidence"]["models"] == [{"model": "m", "weights_hash": None}]


def test_answers_that_are_no_evidence_are_told(capsys: Captured, tmp_path: Path) -> None:
    outcomes({("m", "default"): 0.4}, task="names").to_parquet(tmp_path / "o.parquet")
    status, _, err = run(capsys, questions(tmp_path / "q.jsonl", *SOME), "--outcomes", tmp_path / "o.parquet")
    assert status == 0
    assert "are no evidence on any of these tasks" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none.jsonl"], "none.jsonl: cannot be read"),
        (["pockt"], "pocket"),
        (["q.txt"], "ends in .jsonl"),
        (["q.jsonl", "--out", "l.csv"], "ends in .jsonl or .parquet"),
        (["q.jsonl", "--out", "no/l.jsonl"], "there is no folder"),
        (["q.jsonl", "--limit", "0"], "--limit"),
        (["q.jsonl", "--evidence", "txt"], "txt"),
        (["q.jsonl", "--evidence", "text", "--model", "microworld:teacher"], "(--evidence) leaves out"),
        (["q.jsonl", "--outcomes", "none.parquet"], "none.parquet: no such file"),
        (["q.jsonl", "--outcomes", "."], "outcomes.parquet: no such file"),
        (["q.jsonl", "--model", "microworld:techer"], "Did you mean 'teacher'"),
        (["q.jsonl", "--model", "no/such/folder"], "does not exist"),
        (["q.jsonl", "--outcomes", "q.jsonl"], "required column"),
    ],
)
def test_what_the_user_can_mend_is_a_message(
    arguments: list[str], words: str, capsys: Captured, tmp_path: Path
) -> None:
    questions(tmp_path / "q.jsonl", {"text": "7 + 8?", "task": "t", "choices": ["15", "16"]})
    (tmp_path / "q.txt").write_text("7 + 8?")
    status, _, err = run(capsys, *arguments)
    assert status == 2, err
    assert words in err
    assert "Traceback" not in err


def test_a_bad_line_is_named_and_nothing_is_written(capsys: Captured, tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text('{"text": "fine"}\n{"text": 3}\n')
    status, out, err = run(capsys, "q.jsonl", "--out", "l.jsonl")
    assert (status, out) == (2, "")
    assert "q.jsonl, line 2: 'text': expected a text, found a number." in err
    assert not (tmp_path / "l.jsonl").exists()


HOSTILE = [
    "",
    " ",
    "7" * 100_000,
    "Who wrote it? " * 8_000,
    "谁写的？",
    "من كتب هذا الكتاب؟",
    "кто написал 7 + 8",
    "🤷🏽‍♀️" * 50,
    "\x00\x1b[31m\x07",
    "a\ud800b",
    "1e999 + -1e-999 = NaN",
    "{{7*7}} {% raw %}",
    "=" * 1000,
    "<script>alert(1)</script>",
]


def test_hostile_texts_get_an_answer_with_an_interval(capsys: Captured, tmp_path: Path) -> None:
    rows = [{"text": text, "choices": [text[:50] + "x", "b"], "target": 1} for text in HOSTILE]
    status, out, err = run(capsys, questions(tmp_path / "q.jsonl", *rows))
    assert status == 0, err
    found = [json.loads(line) for line in out.splitlines()]
    assert len(found) == len(rows)
    assert all(row["conf_high"] - row["conf_low"] > 0.2 for row in found)
    assert "\x1b" not in err


@pytest.mark.parametrize("seed", range(30))
def test_rubbish_is_refused_or_labelled_and_never_a_traceback(seed: int, capsys: Captured, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    pieces = [
        b'{"text": "a"}',
        b"\n",
        b"\xff\xfe",
        b"\x00",
        b"{",
        b"[" * int(rng.integers(1, 5000)),
        b'"' + b"x" * int(rng.integers(0, 200_000)) + b'"',
        b'{"text": "\\ud800"}',
        b'{"text": "a", "choices": [1e400, -Infinity, NaN]}',
        b'{"text": "a", "item": 1' + b"0" * int(rng.integers(1, 6000)) + b"}",
        b'{"text": ' + b'{"a":' * 50 + b"1" + b"}" * 51,
        b'{"text": "a", "task": "' + b"t" * int(rng.integers(1, 10_000)) + b'"}',
        bytes(rng.integers(0, 256, size=int(rng.integers(1, 300)), dtype=np.uint8)),
    ]
    path = tmp_path / "q.jsonl"
    path.write_bytes(b"\n".join(pieces[i] for i in rng.integers(0, len(pieces), size=int(rng.integers(1, 8)))))
    status, out, err = run(capsys, path)
    assert status in (0, 2)
    if status == 2:
        assert "line " in err or "holds no question" in err
        assert out == ""
        assert all(c.isprintable() or c in "\n\t" for c in err)
    else:
        assert all(json.loads(line)["conf_low"] <= 0.5 for line in out.splitlines())
