"""Responses go out, scores come back, and nothing is judged in silence."""

import json
from pathlib import Path
from typing import Any

import pytest

from capgap import schema
from capgap.errors import TableError
from capgap.evaluation import EvaluationPlan, evaluate
from capgap.events import Event, Listener, Note, ignore
from capgap.models import expand_models
from capgap.store import RunDirectory
from tests.conftest import make_battery


@pytest.fixture
def battery(tmp_path: Path) -> Path:
    path = make_battery(tmp_path / "battery", n=6)
    path.write_text(path.read_text().replace("score: contains", "score: external"))
    return path


def run_of(
    checkpoints: dict[str, Path], battery: Path, folder: Path, on_event: Listener = ignore, **settings: Any
) -> RunDirectory:
    (student,) = expand_models([f"pupil={checkpoints['student']}"])
    plan = EvaluationPlan(students=(student,), batteries=(str(battery),), device="cpu", **settings)
    return evaluate(plan, folder, on_event=on_event)


def warnings(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Note) and event.level == "warning"]


def written_responses(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "responses.jsonl").read_text().splitlines()]


def test_responses_wait_until_their_scores_come_back(
    checkpoints: dict[str, Path], battery: Path, tmp_path: Path
) -> None:
    events: list[Event] = []
    folder = tmp_path / "run"
    table = run_of(checkpoints, battery, folder, events.append).read(schema.OUTCOMES)
    waiting = table[table["task"] == "colours_generate"]
    assert set(waiting["status"]) == {"error"}
    assert waiting["score"].isna().all()
    assert any("6 responses wait for their score" in text for text in warnings(events))
    lines = written_responses(folder)
    assert [set(line) for line in lines[:1]] == [
        {"model", "battery", "task", "item", "variant", "repeat", "prompt", "target", "response"}
    ]
    scores = {line["item"]: n / 10 for n, line in enumerate(lines[:5])}
    text = "".join(json.dumps({**line, "score": scores[line["item"]]}) + "\n" for line in lines[:5])
    (folder / "scores.jsonl").write_text(text)
    events.clear()
    table = run_of(checkpoints, battery, folder, events.append, rescore=True).read(schema.OUTCOMES)
    back = table[table["task"] == "colours_generate"].set_index("item")
    assert {item: row["score"] for item, row in back.iterrows() if row["status"] == "scored"} == scores
    assert (back["status"] == "error").sum() == 1
    assert any("1 responses wait" in text for text in warnings(events))
    assert len(written_responses(folder)) == 6


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"scores.jsonl, line 1: is no JSON"),
        ("[1]", "expected a JSON object, found list"),
        ('{"model": "m"}', "lacks 'battery'"),
        ('{"model":"m","battery":"b","task":"t","item":"i","score":"good"}', "score is 'good'"),
        (
            '{"model":"m","battery":"b","task":"t","item":"i","score":1.5}',
            "score is 1.5. Expected a number from 0 to 1",
        ),
        ('{"model":"m","battery":"b","task":"t","item":"i","score":NaN}', "score is nan"),
        ('{"model":"m","battery":"b","task":"t","item":"i","score":1}\n' * 2, "line 2: scores again what line 1"),
        ("[" * 100_000, "is no JSON"),
    ],
)
def test_scores_that_cannot_be_used_name_their_line(
    checkpoints: dict[str, Path], battery: Path, tmp_path: Path, line: str, message: str
) -> None:
    folder = tmp_path / "run"
    run_of(checkpoints, battery, folder)
    (folder / "scores.jsonl").write_text(line)
    with pytest.raises(TableError, match=message):
        run_of(checkpoints, battery, folder, rescore=True)


def test_repeats_are_rows_of_their_own_and_each_is_scored(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    battery = make_battery(tmp_path / "battery", n=8)
    battery.write_text(
        battery.read_text().replace("score: contains", "score: contains\n    repeats: 5\n    temperature: 2")
    )
    table = run_of(checkpoints, battery, tmp_path / "run").read(schema.OUTCOMES)
    drawn = table[table["task"] == "colours_generate"]
    assert sorted(drawn["repeat"].unique()) == [0, 1, 2, 3, 4]
    assert len(drawn) == 40
    assert drawn.groupby("item")["response"].nunique().max() > 1
    for row in drawn.itertuples():
        assert row.score == float(row.target in row.response)
    assert set(table[table["task"] == "colours_choose"]["repeat"]) == {0}


def test_repeats_without_a_temperature_are_refused(tmp_path: Path) -> None:
    from capgap.battery import load_battery
    from capgap.errors import BatteryError

    battery = make_battery(tmp_path / "battery")
    battery.write_text(battery.read_text().replace("score: contains", "score: contains\n    repeats: 5"))
    with pytest.raises(BatteryError, match="needs a temperature above 0"):
        load_battery(battery)
