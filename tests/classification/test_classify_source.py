"""`classify`: the whole way from a source to labels; the command's own tests are in tests/cli/test_classify.py."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from capgap.battery import load_battery
from capgap.classification import classify
from capgap.errors import TableError, UsageError
from capgap.events import Event, Note, StageAdvanced, StageBegun, StageFinished
from tests.classification.worlds import outcomes

ROWS = (
    {"text": "7 + 8?", "item": "a", "task": "sums"},
    {"text": "Who wrote Hamlet?", "item": "b", "task": "names"},
    {"text": "?"},
)


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "q.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def _notes(events: list[Event]) -> list[Note]:
    return [event for event in events if isinstance(event, Note)]


def test_a_file_is_labelled_in_its_order_and_its_tasks_are_noted(questions: Path) -> None:
    events: list[Event] = []
    labels = classify(questions, on_event=events.append)
    assert labels["item"].tolist()[:2] == ["a", "b"]
    assert labels["capability"].tolist() == ["reasoning", "knowledge", "mixed"]
    assert set(labels["source"]) == {"text"}
    notes = _notes(events)
    assert notes == events, "no model is asked, so nothing has a length"
    assert [note.level for note in notes] == ["info"] * 3
    assert [note.text.split(":")[0] for note in notes] == ["sums", "names", "3 items"]


def test_a_loaded_battery_and_its_name_give_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    by_name = classify("microworld", limit=3)
    assert len(by_name) == 14 * 3
    assert classify(load_battery("microworld"), limit=3).equals(by_name)
    assert capsys.readouterr() == ("", ""), "a library prints nothing"


def test_questions_in_a_list_or_a_frame_are_those_of_a_file(questions: Path) -> None:
    texts = ["What is 17 + 25 - 8?", "Who wrote Hamlet?"]
    assert classify(texts)["capability"].tolist() == ["reasoning", "knowledge"]
    frame = pd.DataFrame(ROWS)  # the third has neither item nor task, and null stands in their cells
    assert frame["task"].isna().any()
    numbers = ["p_reasoning", "conf_low", "conf_high"]
    assert classify(frame)[numbers].equals(classify(questions)[numbers])
    choices = pd.DataFrame({"text": ["Which?"], "choices": [np.array(["a", "b"])], "target": ["a"]})
    assert len(classify(choices)) == 1
    with pytest.raises(TableError):
        classify(pd.DataFrame({"txt": ["a"]}))


@pytest.mark.parametrize(("evidence", "sources"), [(["declared"], {"declared"}), (["text"], {"text"})])
def test_only_the_evidence_that_is_wanted_counts(evidence: list[str], sources: set[str]) -> None:
    assert set(classify("microworld", limit=2, evidence=evidence)["source"]) == sources  # type: ignore[arg-type]


def test_a_label_against_its_declaration_is_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    rows = [{"text": "7 + 8?", "item": f"i{n}", "task": "t", "capability": "knowledge"} for n in range(12)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    events: list[Event] = []
    outcomes({("m", "default"): 0.0, ("m", "cot"): 1.0}, n=200).to_parquet(tmp_path / "o.parquet")
    labels = classify(path, outcomes=tmp_path / "o.parquet", on_event=events.append)
    assert labels.equals(classify(path, outcomes=pd.read_parquet(tmp_path / "o.parquet")))
    warnings = [note for note in _notes(events) if note.level == "warning"]
    assert len(warnings) == int((labels["capability"] != "knowledge").any())


def test_answers_that_are_no_evidence_are_a_warning(questions: Path, tmp_path: Path) -> None:
    outcomes({("m", "default"): 0.4}, task="names").to_parquet(tmp_path / "o.parquet")
    events: list[Event] = []
    labels = classify(questions, outcomes=[tmp_path / "o.parquet"], on_event=events.append)
    assert [note.level for note in _notes(events)] == ["warning", "info", "info", "info"]
    assert labels.equals(classify(questions))


def test_asking_a_model_is_a_stage_whose_parts_add_up(tmp_path: Path) -> None:
    events: list[Event] = []
    labels = classify(
        "microworld",
        limit=2,
        models=["microworld:small", "microworld:medium"],
        evidence=["behaviour", "declared"],
        work=tmp_path / "work",
        device="cpu",
        on_event=events.append,
    )
    assert set(labels["source"]) == {"declared"}, "two items of a task are too few"
    (begun,) = (event for event in events if isinstance(event, StageBegun))
    advanced = [event for event in events if isinstance(event, StageAdvanced)]
    assert sum(event.n for event in advanced) == begun.total
    assert list(dict.fromkeys(event.status for event in advanced)) == ["small", "medium"]
    assert events.index(StageFinished(begun.stage_id)) > events.index(advanced[-1])


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"source": "none.jsonl"}, TableError),
        ({"source": __file__}, UsageError),
        ({"models": ["microworld:small"], "evidence": ["text"]}, UsageError),
        ({"outcomes": ["o.parquet"], "evidence": ["declared"]}, UsageError),
        ({"outcomes": ["none.parquet"]}, TableError),
    ],
)
def test_what_cannot_be_done_is_refused(arguments: dict[str, object], error: type[Exception], questions: Path) -> None:
    with pytest.raises(error):
        classify(**{"source": questions, **arguments})  # type: ignore[arg-type]
