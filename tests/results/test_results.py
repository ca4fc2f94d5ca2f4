"""Results: the files together, in the right order or not at all."""

import html
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import capgap
from capgap import schema
from capgap.errors import StoreError, UsageError
from capgap.events import Event, Note
from capgap.results import compare
from capgap.store import RunDirectory
from tests.analysis import worlds
from tests.results.frames import files, outcomes


def test_files_hold_what_the_results_say(tmp_path: Path) -> None:
    results = capgap.analyze(outcomes("big", "before", "after"), teacher="big", base="before")
    page = results.write(tmp_path / "deep" / "out")
    assert {path.name for path in page.parent.iterdir()} == {"estimates.parquet", "estimates.json", "report.html"}
    pd.testing.assert_frame_equal(pd.read_parquet(page.parent / "estimates.parquet"), results.estimates)
    assert json.loads((page.parent / "estimates.json").read_text()) == schema.json_records(results.estimates)
    assert results.report(tmp_path / "alone.html").read_bytes() == page.read_bytes()
    with pytest.raises(UsageError, match="expected 'some' or 'none'"):
        results.report(tmp_path / "alone.html", items="all")  # type: ignore[arg-type]


def test_a_write_that_ends_early_leaves_everything_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = outcomes("big", "other", "after")
    capgap.analyze(frame, teacher="big").write(tmp_path)
    before = files(tmp_path)
    for place in ("write_report", "keep_former_page"):
        with monkeypatch.context() as patch:

            def stop(*_: object, **__: object) -> None:
                raise KeyboardInterrupt

            patch.setattr(f"capgap.results.results.{place}", stop)
            with pytest.raises(KeyboardInterrupt):
                capgap.analyze(frame, teacher="other").write(tmp_path)
        assert files(tmp_path) == before


@pytest.mark.usefixtures("brief_page")
def test_rows_that_another_process_adds_to_a_run_are_not_lost(make_run: Callable[..., Path]) -> None:
    path = make_run(outcomes("big", "after"), students=("after",), teacher="big")
    row = {"battery": "battery", "task": "recall", "item": "0", "prompt": "Q?"}
    RunDirectory.open_existing(path).merge(schema.ITEMS, schema.df_from_rows([row], schema.ITEMS))
    results = capgap.load(path).results
    RunDirectory.open_existing(path).merge(schema.ITEMS, schema.df_from_rows([row | {"item": "new"}], schema.ITEMS))
    results.write(path)
    assert set(capgap.load(path).items["item"]) == {"0", "new"}


def test_a_run_that_is_no_part_of_the_comparison_is_left_alone(make_run: Callable[..., Path]) -> None:
    path = make_run(outcomes("big", "after"), students=("after",))
    before = files(path)
    with pytest.raises(StoreError, match="holds a run of its own"):
        capgap.analyze(outcomes("big", "other"), teacher="big").write(path)
    assert files(path) == before


@pytest.mark.usefixtures("brief_page")
def test_a_file_that_cannot_take_its_place_is_named(tmp_path: Path) -> None:
    results = capgap.analyze(outcomes("big", "after", n=6), teacher="big")
    for name in ("estimates.json", "report.html", "items.parquet"):
        (tmp_path / name / name / "inside").mkdir(parents=True)
        with pytest.raises(StoreError, match=f"{name}: cannot be written"):
            results.write(tmp_path / name)


def test_the_tables_of_an_earlier_comparison_stay_where_the_next_page_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = pd.DataFrame({"battery": ["battery"], "task": ["recall"], "item": ["0"], "prompt": ["Q?"]})
    made = pd.DataFrame({"model": ["after"], "n_examples": [10]})
    frame = outcomes("big", "other", "after", n=6)
    capgap.analyze(frame, teacher="big", items=items, models=made).write(tmp_path)
    before = files(tmp_path)
    assert {"items.parquet", "models.parquet"} <= before.keys()

    def full(*paths: Any, **_: object) -> None:
        with schema.atomic_write(next(path for path in paths if isinstance(path, Path))):
            raise OSError(28, "No space left on device")

    results = capgap.analyze(frame, teacher="other")
    for broken in ("write_report", "schema.write_json"):
        with monkeypatch.context() as patch:
            patch.setattr(f"capgap.results.results.{broken}", full)
            name = "report.html" if broken == "write_report" else "estimates.json"
            with pytest.raises(StoreError, match=f"{name}: cannot be written: No space left"):
                results.write(tmp_path)
        assert files(tmp_path) == before


def test_every_line_of_the_sentence_stands_on_the_page_once(tmp_path: Path) -> None:
    """Lines of bounds too, which follow the line of their student."""
    table = worlds.outcomes(n_tasks=2, n_items=60, models=("teacher", "student", "base", "other"))
    unread = (table["model"] == "student") & (table["score"] == 0)
    table["status"] = np.where(unread, "unparsed", "scored")
    results = capgap.analyze(table, teacher="teacher", base="base")
    page = html.unescape(results.report(tmp_path / "page.html").read_text())
    lines = results.sentence.splitlines()
    assert any(line.startswith("student: Bounds") for line in lines)
    # The first line is the page's title too.
    assert [page.count(line) for line in lines[1:]] == [1] * (len(lines) - 1)


def test_notes_stand_on_the_page_in_the_notebook_and_in_events(tmp_path: Path) -> None:
    events: list[Event] = []
    made = pd.DataFrame({"model": ["after"], "n_examples": [10]})
    results = capgap.analyze(outcomes("big", "after", "gold", n=6), teacher="big", models=made, on_event=events.append)
    (note,) = results.notes
    assert "has no row for gold" in note
    assert [event.text for event in events if isinstance(event, Note)] == [note]
    assert note in results._repr_html_()
    assert note in results.report(tmp_path / "page.html").read_text()


@pytest.mark.usefixtures("brief_page")
@pytest.mark.parametrize(("role", "option"), [("base", "--base CKPT"), ("teacher", "--teacher CKPT")])
def test_a_role_that_the_user_wants_nobody_for_is_not_advised(
    role: str, option: str, make_run: Callable[..., Path]
) -> None:
    others: dict[str, Any] = {"students": "after"} | ({} if role == "teacher" else {"teacher": "big"})
    run = make_run(outcomes("big", "before", "after", n=6))
    assert option in compare(run, **others).next_step
    declined = compare(run, **others, **{role: "none"})  # type: ignore[arg-type]
    assert option not in declined.next_step
    declined.write(run)
    assert option not in capgap.load(run).results.next_step, "the run remembers"
    assert compare(run, **others, **{role: "before"}).facts["declined_roles"] == []  # type: ignore[arg-type]
