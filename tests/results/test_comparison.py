"""Comparisons: tables and roles from anywhere, labels and models joined."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import capgap
from capgap import schema
from capgap.cli import _status
from capgap.errors import CapgapError, StoreError, TableError, UsageError
from capgap.results import compare
from tests.results.frames import outcomes


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


def test_labels_of_python_are_joined_and_others_refused() -> None:
    frame = outcomes("big", "after", tasks=("recall", "sums"))
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
