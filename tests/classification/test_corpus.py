"""Families of a corpus folder: what is read, and what is refused in which words."""

import json
import re
from pathlib import Path

import pytest
import yaml

from capgap.classification.corpus import read_corpus
from capgap.classification.evidence import ItemText
from capgap.classification.exercises import make_exercise_families
from capgap.errors import TableError

SHIPPED = Path(__file__).resolve().parents[2] / "capgap" / "classification" / "corpus.yaml"


def family(**more: object) -> dict[str, object]:
    return {"family": "f", "files": ["f.jsonl"], "label": "knowledge", "reason": "Because it is so.", **more}


def folder(path: Path, *families: dict[str, object], rows: object = ({"text": "Who?"},)) -> Path:
    (path / "corpus.yaml").write_text(yaml.safe_dump({"version": 1, "families": list(families)}))
    (path / "f.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))  # type: ignore[attr-defined]
    return path


def test_a_folder_of_ones_own_is_read_by_its_own_yaml(tmp_path: Path) -> None:
    rows = [{"q": "Who?", "options": ["a", 2]}, {"q": "What?", "options": ["c", "d"]}]
    found = read_corpus(folder(tmp_path, family(text="q", choices="options", kin=["g"], measured=False), rows=rows))
    assert [one.name for one in found] == ["f"]
    assert found[0].questions == (ItemText("Who?", ("a", "2")), ItemText("What?", ("c", "d")))
    assert (found[0].reasoning, found[0].kin, found[0].measured) == (False, frozenset({"g"}), False)


def test_json_with_examples_is_read(tmp_path: Path) -> None:
    folder(tmp_path, family(files=["f.json"]))
    (tmp_path / "f.json").write_text(json.dumps({"examples": [{"text": "One?"}, {"text": "Two?"}]}))
    assert [question.text for question in read_corpus(tmp_path)[0].questions] == ["One?", "Two?"]


@pytest.mark.parametrize(
    ("change", "rows", "said"),
    [
        ({"files": ["../f.jsonl"]}, [{"text": "a"}], "leaves the corpus folder"),
        ({"files": ["none.jsonl"]}, [{"text": "a"}], "cannot be read"),
        ({"label": "mixed"}, [{"text": "a"}], "label"),
        ({}, [{"txt": "a"}], "Did you mean 'txt'"),
        ({}, [], "family 'f'.*no item"),
        ({}, [3], "expected an object"),
        ({"choices": "options"}, [{"text": "a", "options": "b"}], "not a list"),
        ({"reason": ""}, [{"text": "a"}], "reason"),
    ],
)
def test_a_mistake_says_where_it_is(tmp_path: Path, change: dict[str, object], rows: list[object], said: str) -> None:
    folder(tmp_path, family(**change), rows=rows)
    with pytest.raises(TableError, match=said):
        read_corpus(tmp_path)


def test_a_line_that_is_not_json_is_named(tmp_path: Path) -> None:
    folder(tmp_path, family())
    (tmp_path / "f.jsonl").write_text('{"text": "a"}\n{"text": \n')
    with pytest.raises(TableError, match="line 2"):
        read_corpus(tmp_path)


def test_a_family_that_is_declared_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="twice"):
        read_corpus(folder(tmp_path, family(), family()))


def test_no_folder_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="no such folder"):
        read_corpus(tmp_path / "none")


def test_shipped_families_have_each_file_once_a_label_and_a_reason() -> None:
    families = yaml.safe_load(SHIPPED.read_text())["families"]
    files = [name for one in families for name in one["files"]]
    assert len(files) == len(set(files))
    assert len(families) == 38
    assert all(one["label"] in ("knowledge", "reasoning") and len(one["reason"]) > 20 for one in families)


def test_exercises_are_the_same_for_the_same_seed_and_no_slot_stays_empty() -> None:
    make_exercise_families.cache_clear()
    first = make_exercise_families(3)
    make_exercise_families.cache_clear()
    again = make_exercise_families(3)
    assert [one.questions for one in first] == [one.questions for one in again]
    assert [one.questions for one in first] != [one.questions for one in make_exercise_families(4)]
    pools = {"person", "country", "figure", "noun", "expr", "code", "thing", "numbers"}
    for one in first:
        for question in one.questions:
            text = " ".join((question.text, *question.choices))
            assert not any("{" + pool in text for pool in pools), text


def test_exercises_only_help_and_name_kin_that_exist() -> None:
    measured = {one["family"] for one in yaml.safe_load(SHIPPED.read_text())["families"]}
    found = make_exercise_families()
    assert {one.reasoning for one in found} == {True, False}
    assert not any(one.measured for one in found)
    assert all(one.kin <= measured for one in found)
    assert len({one.name for one in found} | measured) == len(found) + len(measured)
    # Whatever is left out, exercises of both labels remain.
    for name in measured:
        assert {one.reasoning for one in found if name not in one.kin} == {True, False}


def test_no_exercise_is_worded_like_an_item_of_the_pairs() -> None:
    def words(text: str) -> frozenset[str]:
        return frozenset(re.findall(r"\w+", text.lower()))

    pairs = yaml.safe_load(Path(__file__).with_name("pairs.yaml").read_text())["pairs"]
    sides = [pair[side] for pair in pairs for side in ("knowledge", "reasoning")]
    exercised = {words(question.text): question.text for one in make_exercise_families() for question in one.questions}
    for side in sides:
        here = words(side["text"] if isinstance(side, dict) else side)
        near = [text for there, text in exercised.items() if len(here & there) > 0.72 * len(here | there)]
        assert not near, (side, near)
