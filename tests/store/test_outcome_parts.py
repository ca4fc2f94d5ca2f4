"""Outcomes in parts: any name has a file of its own, and the parts are one table."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from capgap import schema
from capgap.errors import TableError
from capgap.events import Event, Note
from capgap.store import RunDirectory, has_outcomes, read_outcomes
from capgap.store.outcome_parts import outcomes_path
from tests.store.rows import outcome_rows

NAMES = [
    "small", "Small", "SMALL", "Qwen/Qwen2.5-1.5B", "Qwen-Qwen2.5-1.5B", "..", ".", "../../etc/passwd", "/abs", "a b",
    "con", "con.x", "nul", "aux.parquet", "x.", "x", "é", "e\u0301", "模型", "🙂", "a" * 300, "a" * 301, "*", "a:b",
    "back\\slash", "tab\tnew\nline", "small.parquet", "-", "+", "small+0123456789abcdef", "a=b", "",
]  # fmt: skip


def test_every_name_has_a_file_of_its_own_on_every_file_system(tmp_path: Path) -> None:
    paths = [outcomes_path(tmp_path, model, "b") for model in NAMES] + [outcomes_path(tmp_path, "m", b) for b in NAMES]
    parts = [path.relative_to(tmp_path / "outcomes") for path in paths]
    assert all(len(part.parts) == 2 and part.suffix == ".parquet" for part in parts), "one folder, one file"
    assert len({str(part).casefold() for part in parts}) == len(parts), "no two meet where A is a"
    for name in (name for part in parts for name in part.parts):
        assert len(f"{name}.1234567.partial") < 200
        assert name.isascii()
        assert not set(name) & set('/\\:*?"<>|= \t\n')
        assert not name.startswith(".")
        assert name.split(".")[0] not in ("con", "nul", "aux")


def test_plain_names_are_their_own_files(tmp_path: Path) -> None:
    assert outcomes_path(tmp_path, "step-200", "core_v1.2") == tmp_path / "outcomes/step-200/core_v1.2.parquet"


def test_models_of_any_name_come_back_as_one_table(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    names = [name for name in NAMES if name]
    for name in names:
        run.write_outcomes(name, "b", outcome_rows(name, "b"))
    outcomes = run.read(schema.OUTCOMES)
    assert set(outcomes["model"]) == set(names)
    assert len(outcomes) == 3 * len(names)
    pd.testing.assert_frame_equal(outcomes, outcomes.sort_values(list(schema.OUTCOME_KEY), ignore_index=True))
    assert set(run.outcomes(["..", "Small", "/abs", "absent"])["model"]) == {"..", "Small", "/abs"}


def test_pandas_reads_the_parts_without_capgap(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    for name in ("a", "Org/B"):
        run.write_outcomes(name, "b", outcome_rows(name, "b"))
    assert len(pd.read_parquet(run.path / "outcomes")) == 6


def test_an_older_file_is_read_with_the_parts_that_supersede_it(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    older = pd.concat([outcome_rows(model, battery, score=0.0) for model in "ab" for battery in ("x", "y")])
    schema.write_df(older, run.path / "outcomes.parquet", schema.OUTCOMES)
    before = (run.path / "outcomes.parquet").read_bytes()
    assert has_outcomes(run.path)
    assert len(run.read(schema.OUTCOMES)) == 12
    run.write_outcomes("a", "y", outcome_rows("a", "y", n=2, score=1.0))
    run.write_outcomes("c", "x", outcome_rows("c", "x", score=1.0))
    sizes = run.read(schema.OUTCOMES).groupby(["model", "battery"])["score"].agg(["size", "mean"])
    assert sizes["size"].to_dict() == {("a", "x"): 3, ("a", "y"): 2, ("b", "x"): 3, ("b", "y"): 3, ("c", "x"): 3}
    assert sizes["mean"].to_dict() == {("a", "x"): 0, ("a", "y"): 1, ("b", "x"): 0, ("b", "y"): 0, ("c", "x"): 1}
    assert set(run.outcomes(["a", "b"])["model"]) == {"a", "b"}
    assert (run.path / "outcomes.parquet").read_bytes() == before, "what an older capgap wrote stays as it is"


def test_a_part_holds_its_own_rows_only(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    with pytest.raises(TableError, match="outcomes of model 'b' on battery 'x', which do not belong there"):
        run.write_outcomes("a", "x", outcome_rows("b", "x"))
    run.write_outcomes("a", "x", outcome_rows("a", "x"))
    part = outcomes_path(run.path, "a", "x")
    part.rename(part.with_name("y.parquet"))
    with pytest.raises(TableError, match="import table FILE"):
        run.read(schema.OUTCOMES)
    part.with_name("y.parquet").write_bytes(b"PAR1")
    with pytest.raises(TableError, match="cannot be read as parquet"):
        run.read(schema.OUTCOMES)


def test_what_is_being_written_is_no_part(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    run.write_outcomes("a", "x", outcome_rows("a", "x"))
    partial = outcomes_path(run.path, "a", "y.parquet").with_name("y.parquet.123.partial")
    partial.write_bytes(b"half")
    assert len(run.read(schema.OUTCOMES)) == 3
    assert len(read_outcomes(tmp_path / "nowhere")) == 0


@pytest.mark.parametrize(
    ("first", "second", "together", "kind"),
    [
        ([1, 2, 3], ["1-2", "3-4", None], ["1", "2", "3", "1-2", "3-4", None], "text"),
        ([1.0, 2.5, None], ["low", "low", "high"], ["1", "2.5", None, "low", "low", "high"], "text"),
        ([1, 2, 3], ["4", "5", None], [1.0, 2.0, 3.0, 4.0, 5.0, None], "numbers"),
        ([True, False, None], ["yes", "no", "no"], ["True", "False", None, "yes", "no", "no"], "text"),
    ],
)
def test_a_covariate_of_two_types_becomes_one_with_a_note(
    tmp_path: Path, first: list[Any], second: list[Any], together: list[Any], kind: str
) -> None:
    events: list[Event] = []
    run = RunDirectory(tmp_path / "run", on_event=events.append)
    run.write_outcomes("m", "a", outcome_rows("m", "a").assign(x_depth=first, x_same=1))
    run.write_outcomes("m", "b", outcome_rows("m", "b").assign(x_depth=second, x_same=2))
    assert events == [], "each part has one type"
    values = run.read(schema.OUTCOMES)["x_depth"]
    assert [None if pd.isna(value) else value for value in values] == together
    assert pd.api.types.is_numeric_dtype(values) == (kind == "numbers")
    (note,) = events
    assert isinstance(note, Note)
    assert note.text == f"covariate x_depth is text in b and a number in a; all of it is taken as {kind}"
    assert note.level == "warning"
    assert run.facts["notes"] == [note.text]
    run.save(state="done")
    assert json.loads((run.path / "run.json").read_text())["notes"] == [note.text]


def test_covariates_of_one_type_stay_as_they_are(tmp_path: Path) -> None:
    events: list[Event] = []
    run = RunDirectory(tmp_path / "run", on_event=events.append)
    covariates = {"x_int": 1, "x_float": 1.5, "x_text": "7", "x_flag": True}
    run.write_outcomes("m", "a", outcome_rows("m", "a").assign(**covariates))
    run.write_outcomes("m", "b", outcome_rows("m", "b"))
    outcomes = run.read(schema.OUTCOMES)
    rows = outcomes[outcomes["battery"] == "a"]
    assert {name: set(rows[name]) for name in covariates} == {name: {value} for name, value in covariates.items()}
    assert outcomes.loc[outcomes["battery"] == "b", list(covariates)].isna().all(axis=None)
    assert pd.api.types.is_numeric_dtype(outcomes["x_int"])
    assert events == []


@pytest.mark.parametrize("beside", [None, "8", 7])
def test_text_stays_text_beside_nothing_and_a_leading_zero_beside_anything(tmp_path: Path, beside: Any) -> None:
    events: list[Event] = []
    run = RunDirectory(tmp_path / "run", on_event=events.append)
    run.write_outcomes("m", "a", outcome_rows("m", "a").assign(x_code=["007", "7", None]))
    run.write_outcomes("m", "b", outcome_rows("m", "b").assign(x_code=beside))
    values = run.read(schema.OUTCOMES)["x_code"]
    assert values.tolist()[:2] == ["007", "7"]
    assert set(values[3:].dropna()) == (set() if beside is None else {str(beside)})
    assert len(events) == (beside == 7), "a note only where types conflict"


def test_one_part_with_two_types_is_written_as_one(tmp_path: Path) -> None:
    events: list[Event] = []
    run = RunDirectory(tmp_path / "run", on_event=events.append)
    run.write_outcomes("m", "a", outcome_rows("m", "a").assign(x_depth=[1, "two", None]))
    assert len(events) == 1
    assert run.read(schema.OUTCOMES)["x_depth"].tolist()[:2] == ["1", "two"]
