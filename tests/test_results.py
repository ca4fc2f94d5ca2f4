"""Results: tables and roles from anywhere, the files together, former pages kept, runs read lazily."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import capgap
from capgap import schema
from capgap.cli import _status
from capgap.errors import CapgapError, StoreError, TableError, UsageError
from capgap.events import Event
from capgap.results import compare
from capgap.store import RunDirectory

ACCURACY = {"big": 0.9, "other": 0.8, "before": 0.2, "after": 0.7, "gold": 0.4}


def outcomes(*models: str, tasks: tuple[str, ...] = ("recall", "sums"), n: int = 24) -> pd.DataFrame:
    """Right and wrong of these models, the same whichever others are asked for."""
    rows = []
    for model in models:
        for task in tasks:
            right = np.random.default_rng([len(model), ord(model[0]), len(task)]).random(n) < ACCURACY.get(model, 0.5)
            rows += [{"model": model, "task": task, "item": str(i), "score": float(s)} for i, s in enumerate(right)]
    return pd.DataFrame(rows)


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Makes a run directory from a frame, with the roles that it remembers."""

    def make(frame: pd.DataFrame, name: str = "run", **roles: Any) -> Path:
        run = RunDirectory(tmp_path / name)
        rows = schema.validate(frame, schema.OUTCOMES)
        for (model, battery), part in rows.groupby(["model", "battery"]):
            run.write_outcomes(str(model), str(battery), part)
        if roles:
            run.save(roles=schema.Roles(**roles))
        return run.path

    return make


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- where outcomes come from ------------------------------------------------------------------------------------


def test_a_frame_a_file_a_run_and_a_list_give_the_same_numbers(tmp_path: Path, make_run: Callable[..., Path]) -> None:
    frame = outcomes("big", "before", "after")
    frame.to_parquet(tmp_path / "t.parquet")
    directory = make_run(frame)
    sources: list[Any] = [
        frame,
        tmp_path / "t.parquet",
        str(tmp_path / "t.parquet"),
        directory,
        capgap.load(directory),
        [frame[frame["model"] == "big"], make_run(frame[frame["model"] != "big"], "students")],
        [directory, directory / ".." / "run"],
    ]
    tables = [capgap.analyze(source, teacher="big", base="before").estimates for source in sources]
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table, tables[0])


def test_the_callers_frames_are_not_changed() -> None:
    frame = outcomes("big", "after")
    before = frame.copy(deep=True)
    capgap.analyze(frame, teacher="big")
    pd.testing.assert_frame_equal(frame, before)


@pytest.mark.parametrize(
    ("frame", "error", "words"),
    [
        (outcomes("big").head(0), TableError, "no row below the names"),
        (outcomes("big").drop(columns="score"), TableError, "score"),
        (pd.concat([outcomes("big"), outcomes("big")]), TableError, "share their key"),
        ("nowhere.csv", TableError, "nowhere.csv: no such file"),
        ("x" * 5000, UsageError, "cannot be a path"),
        ("a\0b", UsageError, "cannot be a path"),
        (None, UsageError, "NoneType"),
        ([{"model": "big"}], UsageError, "dict"),
    ],
)
def test_what_is_no_outcomes_is_refused(frame: Any, error: type[CapgapError], words: str) -> None:
    with pytest.raises(error, match=words):
        capgap.analyze(frame)


def test_an_error_of_the_comparison_is_raised_by_analyze_itself() -> None:
    frame = pd.concat([outcomes("big", tasks=("a",)), outcomes("after", tasks=("b",))])
    with pytest.raises(TableError, match="no common item"):
        capgap.analyze(frame, teacher="big")


# --- roles -----------------------------------------------------------------------------------------------------------

KNOWN = ("big", "other", "before", "after", "gold")


@pytest.mark.parametrize(
    ("arguments", "students", "teacher", "base", "control"),
    [
        ({}, KNOWN, None, {}, {}),
        ({"students": "after", "teacher": "big", "base": "before"}, ("after",), "big", {"after": "before"}, {}),
        ({"students": "after", "teacher": "big"}, ("after",), "big", {}, {}),
        ({"students": ["after", "after"], "base": {"after": "before"}}, ("after",), None, {"after": "before"}, {}),
        ({"students": ["after", "gold"], "control": "gold"}, ("after", "gold"), None, {}, {"after": "gold"}),
    ],
)  # fmt: skip
def test_roles_are_names_or_names_by_student(
    arguments: dict[str, Any], students: tuple[str, ...], teacher: str | None, base: Any, control: Any
) -> None:
    roles = compare(outcomes(*KNOWN, n=2), **arguments).roles
    assert set(roles.students) == set(students)
    assert (roles.teacher, roles.base, roles.control) == (teacher, base, control)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"teacher": "bigg"}, "teacher 'bigg': no such model in the tables. Did you mean 'big'"),
        ({"students": "aftr"}, "student 'aftr': no such model"),
        ({"base": {"after": "befor"}}, "base 'befor': no such model"),
        ({"students": "after", "base": {"gold": "before"}}, "'gold' has a base or control but is no student"),
        ({"students": ["big", "after"], "teacher": "big"}, "student 'big' is the teacher too"),
        ({"students": "big", "teacher": "big"}, "no student is left"),
        ({"teacher": "big", "control": {"after": "big"}}, "control 'big' is the teacher too"),
        ({"base": "before", "control": {"after": "before"}}, "control 'before' is the base too"),
        ({"teacher": ["big"]}, "expected the name of a model"),
        ({"teacher": 1}, "expected the name of a model"),
        ({"teacher": {"after": "big"}}, "teacher is one model"),
        ({"base": ["before"]}, "expected the name of a model"),
        ({"base": {"after": ["before"]}}, "no such model"),
        ({"students": 5}, "expected one of them or a list"),
        ({"students": "after", "base": "after"}, "with itself"),
        ({"students": "after", "control": {"after": "after"}}, "with itself"),
        ({"margin": "wide"}, "margin is 'wide'"),
        ({"conf_level": "high"}, "conf_level is 'high'"),
    ],
)
def test_roles_that_cannot_be_are_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        compare(outcomes(*KNOWN, n=2), **arguments)


def test_a_run_remembers_its_roles_and_arguments_go_before_them(make_run: Callable[..., Path]) -> None:
    path = make_run(outcomes(*KNOWN), students=("after",), teacher="big", base={"after": "before"})
    run = capgap.load(path)
    assert run.results.roles == run.roles == schema.Roles(("after",), "big", {"after": "before"})
    other = capgap.analyze(run, teacher="other", base="none", control="gold")
    assert other.roles == schema.Roles(("after",), "other", {}, {"after": "gold"})


def test_a_role_without_outcomes_and_a_run_without_roles_say_what_to_do(make_run: Callable[..., Path]) -> None:
    unfinished = make_run(outcomes("big"), students=("after",), teacher="big")
    with pytest.raises(StoreError, match="has no outcomes of 'after' yet"):
        _ = capgap.load(unfinished).results
    imports = capgap.load(make_run(outcomes("big", "after"), "imports"))
    with pytest.raises(StoreError, match="names no roles"):
        _ = imports.results
    assert capgap.analyze(imports, teacher="big").roles.students == ("after",)


# --- runs ------------------------------------------------------------------------------------------------------------


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
    assert len(run.outcomes) == 96
    assert read == ["outcomes"]
    assert (len(run.items), len(run.models), len(run.labels)) == (0, 0, 0)
    assert repr(run).startswith("<Run ")


def test_what_is_no_run_directory_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="does not exist"):
        capgap.load(tmp_path / "nowhere")


# --- files -----------------------------------------------------------------------------------------------------------


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


def test_rows_that_another_process_adds_to_a_run_are_not_lost(make_run: Callable[..., Path]) -> None:
    path = make_run(outcomes("big", "after"), students=("after",), teacher="big")
    row = {"battery": "battery", "task": "recall", "item": "0", "prompt": "Q?"}
    RunDirectory.existing(path).merge(schema.ITEMS, schema.from_rows([row], schema.ITEMS))
    results = capgap.load(path).results
    RunDirectory.existing(path).merge(schema.ITEMS, schema.from_rows([row | {"item": "new"}], schema.ITEMS))
    results.write(path)
    assert set(capgap.load(path).items["item"]) == {"0", "new"}


def test_a_run_that_is_no_part_of_the_comparison_is_left_alone(make_run: Callable[..., Path]) -> None:
    path = make_run(outcomes("big", "after"), students=("after",))
    before = files(path)
    with pytest.raises(StoreError, match="holds a run of its own"):
        capgap.analyze(outcomes("big", "other"), teacher="big").write(path)
    assert files(path) == before


# --- former pages ----------------------------------------------------------------------------------------------------


@pytest.fixture
def first_page(tmp_path: Path) -> tuple[Path, bytes]:
    """A folder with a page about ``after`` against ``big``."""
    folder = tmp_path / "out"
    return folder, capgap.analyze(outcomes("big", "after"), teacher="big").write(folder).read_bytes()


@pytest.mark.parametrize(
    ("frame", "arguments"),
    [
        (outcomes("other", "after"), {"teacher": "other"}),
        (outcomes("big", "after"), {"teacher": "none"}),
        (outcomes("big", "gold"), {"teacher": "big"}),
        (outcomes("big", "after"), {"teacher": "after"}),
        (outcomes("big", "after", tasks=("recall", "sums", "more")), {"teacher": "big"}),
        (outcomes("big", "after").assign(battery="another"), {"teacher": "big"}),
    ],
    ids=["teacher", "no teacher", "student", "swapped", "tasks", "battery"],
)
def test_a_page_about_another_comparison_is_kept_and_told(
    frame: pd.DataFrame, arguments: dict[str, str], first_page: tuple[Path, bytes]
) -> None:
    folder, page = first_page
    events: list[Event] = []
    numbers = (folder / "estimates.parquet").read_bytes()
    capgap.analyze(frame, **arguments).write(folder, on_event=events.append)  # type: ignore[arg-type]
    (kept,) = (folder / "earlier").iterdir()
    assert (kept / "report.html").read_bytes() == page
    assert (kept / "estimates.parquet").read_bytes() == numbers
    assert (folder / "report.html").read_bytes() != page
    assert str(kept) in str(events)


@pytest.mark.parametrize(
    ("models", "arguments"),
    [
        (("big", "after"), {}),
        (("big", "after", "gold"), {}),
        (("big", "after", "before"), {"base": "before"}),
    ],
    ids=["again", "one student more", "its base too"],
)
def test_a_comparison_that_contains_the_former_one_takes_its_place(
    models: tuple[str, ...], arguments: dict[str, str], first_page: tuple[Path, bytes]
) -> None:
    folder, _ = first_page
    capgap.analyze(outcomes(*models), teacher="big", **arguments).write(folder)  # type: ignore[arg-type]
    assert not (folder / "earlier").exists()


def test_going_to_and_fro_keeps_two_pages(first_page: tuple[Path, bytes]) -> None:
    folder, _ = first_page
    frame = outcomes("big", "other", "after")
    for teacher in ("other", "big", "other", "big"):
        capgap.analyze(frame, students="after", teacher=teacher).write(folder)
    assert len(list((folder / "earlier").iterdir())) == 2


@pytest.mark.parametrize("damage", ["missing", "rubbish", "old"])
def test_a_page_whose_numbers_cannot_be_read_is_kept(damage: str, first_page: tuple[Path, bytes]) -> None:
    folder, page = first_page
    numbers = folder / "estimates.parquet"
    if damage == "missing":
        numbers.unlink()
    elif damage == "rubbish":
        numbers.write_bytes(b"\x00 rubbish")
    else:
        pd.read_parquet(numbers).drop(columns="roles").to_parquet(numbers)
    capgap.analyze(outcomes("big", "after"), teacher="big").write(folder)
    (kept,) = (folder / "earlier").iterdir()
    assert (kept / "report.html").read_bytes() == page
    numbers.unlink()
    (folder / "report.html").write_text("another page")
    capgap.analyze(outcomes("big", "after"), teacher="big").write(folder)
    pages = {path.read_bytes() for path in folder.glob("earlier/*/report.html")}
    assert pages == {page, b"another page"}  # each has a place of its own


# --- notebooks -------------------------------------------------------------------------------------------------------


def test_a_notebook_shows_sentence_next_step_and_headline_numbers_escaped() -> None:
    hostile = "<script>alert(1)</script>"
    frame = outcomes("big", "before", "after").replace({"model": {"after": hostile}})
    results = capgap.analyze(frame, teacher="big", base="before")
    html = results._repr_html_()
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "gap closure" in html
    assert html.count("<table") == 1
    closure = results.estimates.query("quantity == 'gap_closure' and level == 'battery' and weighting == 'tasks'")
    assert f"{100 * closure['estimate'].iloc[0]:.1f}" in html
    assert len(repr(results)) < 200


def test_of_many_students_a_notebook_gets_a_page() -> None:
    students = [f"student{n:02d}" for n in range(30)]
    frame = outcomes("big", *students, tasks=("t",), n=12)
    html = capgap.analyze(frame, teacher="big")._repr_html_()
    assert html.count("<tr") <= 25
    assert "and 6 more rows" in html
    assert "more lines" in html


# --- labels and models -----------------------------------------------------------------------------------------------


def test_labels_of_python_are_joined_and_others_refused() -> None:
    frame = outcomes("big", "after")
    labels = pd.DataFrame(
        {"task": task, "item": str(n), "capability": capability}
        for task, capability in (("recall", "knowledge"), ("sums", "reasoning"))
        for n in range(24)
    )
    results = capgap.analyze(frame, teacher="big", labels=labels)
    assert set(results.estimates.query("level == 'capability'")["group"]) == {"knowledge", "reasoning"}
    assert results.notes == ("48 of 48 items declare no capability and are labelled 24 knowledge, 24 reasoning.",)
    with pytest.raises(TableError, match="labels: none of its labels is of an item"):
        capgap.analyze(frame, teacher="big", labels=labels.assign(task=labels["task"] + "?"))


def test_a_models_table_of_other_models_is_refused() -> None:
    with pytest.raises(TableError, match="none of its models is in the tables, 'Afer' for one"):
        capgap.analyze(outcomes("big", "after"), teacher="big", models=pd.DataFrame({"model": ["Afer"]}))


def test_imports_analysed_from_python_and_the_command_line_agree(tmp_path: Path) -> None:
    outcomes("big", "after").to_csv(tmp_path / "t.csv", index=False)
    assert _status(["import", "table", str(tmp_path / "t.csv"), "--out", str(tmp_path / "run")]) == 0
    assert _status(["analyze", str(tmp_path / "run"), "--teacher", "big"]) == 0
    written = pd.read_parquet(tmp_path / "run" / "estimates.parquet")
    pd.testing.assert_frame_equal(written, capgap.analyze(tmp_path / "run", teacher="big").estimates)
