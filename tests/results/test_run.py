"""Runs: read lazily, and the comparison that a run directory remembers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import capgap
from capgap import schema
from capgap.cli import _status
from capgap.errors import StoreError
from capgap.events import Event
from capgap.store import RunDirectory
from tests.results.frames import files, outcomes

Made = Callable[..., Path]


def test_a_run_reads_its_tables_when_they_are_asked_for(
    make_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_run(outcomes("big", "after"), students=("after",), teacher="big")
    read: list[str] = []
    original = RunDirectory.read
    monkeypatch.setattr(RunDirectory, "read", lambda self, table: (read.append(table.name), original(self, table))[1])
    run = capgap.load(path)
    assert read == []
    assert set(run.outcomes["model"]) == {"big", "after"}
    assert len(run.outcomes) == 48
    assert read == ["outcomes"]
    assert (len(run.items), len(run.models), len(run.labels)) == (0, 0, 0)
    assert repr(run).startswith("<Run ")


def test_what_is_no_run_directory_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="does not exist"):
        capgap.load(tmp_path / "nowhere")


# --- what a run remembers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        {"teacher": "big", "base": "before", "control": "gold", "margin": 7},
        {"teacher": "none", "base": "none", "students": ["after", "gold"], "conf_level": 0.8},
    ],
    ids=["roles and margin", "declined roles and level"],
)
def test_a_run_repeats_the_comparison_that_was_written_last(arguments: dict[str, Any], make_run: Made) -> None:
    run = make_run(outcomes("big", "before", "after", "gold", n=6), students=("before",), teacher="gold")
    results = capgap.analyze(run, **{"students": "after", **arguments})
    page = results.write(run).read_bytes()
    assert _status(["report", str(run)]) == 0
    assert (run / "report.html").read_bytes() == page
    pd.testing.assert_frame_equal(pd.read_parquet(run / "estimates.parquet"), results.estimates)
    assert capgap.load(run).roles == results.roles


def test_results_that_are_not_written_change_nothing(make_run: Made) -> None:
    run = make_run(outcomes("big", "after"), students=("after",), teacher="big")
    before = files(run)
    capgap.analyze(run, teacher="none", margin=9)
    assert files(run) == before


@pytest.mark.usefixtures("brief_page")
def test_a_margin_that_was_given_once_is_remembered_by_every_command(make_run: Made, tmp_path: Path) -> None:
    run = make_run(outcomes("big", "after", n=6), students=("after",), teacher="big")
    for command, arguments, points in (
        ("report", ["--margin", "7"], "7"),
        ("analyze", [], "7"),
        ("analyze", ["--margin", "3"], "3"),
        ("report", [], "3"),
    ):
        assert _status([command, str(run), *arguments]) == 0
        notes = pd.read_parquet(run / "estimates.parquet").query("quantity == 'equivalence'")["note"]
        assert notes.str.contains(f"{points} points").any()
    capgap.analyze(run, margin=9).write(tmp_path / "elsewhere")
    assert capgap.load(run).facts["margin"] == 3, "what goes elsewhere is not the run's"


@pytest.mark.usefixtures("brief_page")
def test_a_comparison_with_other_sources_is_not_the_runs_own_and_this_is_told(make_run: Made) -> None:
    run = make_run(outcomes("big", "after"), students=("after",), teacher="big")
    events: list[Event] = []
    other = outcomes("gold", n=6)
    for sources in ([run, other], [run, make_run(other, "another")]):
        capgap.analyze(sources, students="gold", margin=9).write(run, on_event=events.append)
    assert sum("will show that run alone" in str(event) for event in events) == 2
    assert capgap.load(run).results.roles == schema.Roles(("after",), "big")
    assert "margin" not in capgap.load(run).facts


def test_imports_with_a_new_model_are_given_their_roles_again(tmp_path: Path) -> None:
    run, table = tmp_path / "run", tmp_path / "t.csv"
    for models, remembered in ((("big", "after"), False), (("big", "after"), True), (("gold",), False)):
        outcomes(*models, n=2).to_csv(table, index=False)
        assert _status(["import", "table", str(table), "--out", str(run)]) == 0
        directory = RunDirectory.open_existing(run)
        assert (directory.roles is not None) == remembered
        directory.save_comparison(schema.Roles(("after",), "big"), ["battery"])


@pytest.mark.usefixtures("brief_page")
def test_a_battery_whose_evaluation_has_not_ended_has_no_part_in_the_remembered_comparison(make_run: Made) -> None:
    run = make_run(outcomes("big", "after"), students=("after",), teacher="big")
    directory = RunDirectory.open_existing(run)
    directory.add_battery("other", "0" * 64)
    half = schema.validate(outcomes("big").assign(battery="other"), schema.OUTCOMES)
    directory.write_outcomes("big", "other", half)
    results = capgap.load(run).results
    assert set(results.outcomes["battery"]) == {"battery"}
    assert any("has not ended" in note for note in results.notes)
    assert "other" not in results.facts["batteries"]
    # Whoever names models has what is there, and the page written of it is repeated.
    chosen = capgap.analyze(run, students="big", teacher="none")
    assert set(chosen.outcomes["battery"]) == {"battery", "other"}
    chosen.write(run)
    pd.testing.assert_frame_equal(capgap.load(run).results.outcomes, chosen.outcomes)
