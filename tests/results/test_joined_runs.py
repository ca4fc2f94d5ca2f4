"""Several runs analysed together: what they say alike counts, and what differs is told."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from capgap import schema
from capgap.results import compare
from capgap.results.joined_runs import join_run_facts, join_run_roles
from capgap.store import RunDirectory
from tests.results.frames import outcomes

Made = Callable[..., Path]


@pytest.fixture
def two_runs(make_run: Made) -> Callable[..., list[Path]]:
    """Two runs with a student each, and facts of their own."""

    def make(first: dict[str, Any], second: dict[str, Any]) -> list[Path]:
        paths = [make_run(outcomes(*pair, n=6), f"run-{pair[0]}") for pair in (("after", "big"), ("gold", "other"))]
        for path, facts in zip(paths, (first, second), strict=True):
            RunDirectory.open_existing(path).save(**facts)
        return paths

    return make


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ({"limit": 6}, {"limit": 12}, ["limit"]),
        ({"limit": 6}, {}, ["limit"]),
        ({"limit": 6, "dtype": None}, {"limit": 6, "dtype": "bfloat16"}, ["dtype"]),
        ({"margin": 3}, {"margin": 5, "device": "cpu"}, ["device", "margin"]),
        ({"versions": {"torch": "2"}}, {"versions": {"torch": "3"}}, ["versions"]),
        ({"limit": 6, "device": "cpu"}, {"limit": 6, "device": "cpu"}, []),
    ],
)
def test_settings_in_which_runs_differ_are_told_and_stand_by_run(
    first: dict[str, Any], second: dict[str, Any], words: list[str], two_runs: Callable[..., list[Path]]
) -> None:
    results = compare(two_runs(first, second), students=["after", "gold"])
    differ = [note for note in results.notes if note.startswith("the runs differ in ")]
    assert [note.split(" (see ")[0] for note in differ] == [f"the runs differ in {', '.join(words)}"] * bool(words)
    alike = {key: value for key, value in first.items() if second.get(key) == value}
    assert alike.items() <= results.facts.items()
    for facts, run in zip((first, second), results.facts["runs"], strict=True):
        assert {key: facts[key] for key in facts if key not in alike}.items() <= run.items()
    assert "limit" in alike or "limit" not in results.facts, "which limit bound is not known of both"


def test_models_and_batteries_of_all_runs_are_known_together(two_runs: Callable[..., list[Path]]) -> None:
    paths = two_runs({}, {})
    for path, name, digest in zip(paths, ("after", "gold"), ("a", "b"), strict=True):
        run = RunDirectory.open_existing(path)
        run.add_model(name, "f", {"word": name})
        run.add_model("big", digest, {})
        run.add_battery("battery", digest, {})
    results = compare(paths, students=["after", "gold"])
    assert set(results.facts["models"]) == {"after", "gold", "big"}
    assert set(results.facts["batteries"]) == {"battery"}
    assert {note for note in results.notes if "not the same" in note} == {
        "model 'big' is not the same in all runs: its fingerprint differs.",
        "battery 'battery' is not the same in all runs: its hash differs.",
    }


def test_a_role_that_runs_give_to_different_models_is_told_unless_the_user_says_who(make_run: Made) -> None:
    paths = [
        make_run(outcomes(*models, n=6), models[0], students=("after",), teacher=models[0], base={"after": models[1]})
        for models in (("big", "before", "after"), ("other", "gold"))
    ]
    results = compare(paths)
    assert results.roles == schema.Roles(("after",), "big", {"after": "gold"})
    assert [note for note in results.notes if " taken" in note] == [
        "the runs have different teachers; 'big' is taken.",
        "the runs give 'after' another base each; 'gold' is taken.",
    ]
    assert not any(" taken" in note for note in compare(paths, teacher="big", base="none").notes)


def test_one_run_is_itself_and_no_run_says_nothing() -> None:
    facts = {"limit": 6, "models": {}, "batteries": {}, "roles": {"students": ["a"]}}
    assert join_run_facts([("run", facts)]) == (facts, [])
    assert join_run_facts([]) == ({}, [])
    assert join_run_roles([]) == ({"students": [], "teacher": None, "base": {}, "control": {}}, [])


def test_what_runs_say_each_stands_on_the_page(two_runs: Callable[..., list[Path]], tmp_path: Path) -> None:
    paths = two_runs({"limit": 6, "command": ["capgap", "first"]}, {"limit": 12, "command": ["capgap", "second"]})
    page = compare(paths, students=["after", "gold"]).report(tmp_path / "page.html").read_text()
    assert "capgap first" in page
    assert "capgap second" in page
    assert "the runs differ in limit" in page
