"""The embedded models' answers tell the microworld's families apart, without their texts and without their names."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from capgap import schema
from capgap.battery import load_battery, prepare_battery
from capgap.classification import (
    ItemText,
    LabelledItems,
    UnlabelledItem,
    behaviour_evidence,
    classify_items,
    read_answers,
    refuse_circular,
    unlabelled_items,
)
from capgap.classification.behaviour_links import LINKS
from capgap.classification.probing import probe_models
from capgap.errors import UsageError
from capgap.events import Event, Note
from capgap.models import parse_model

TAUGHT = ("teacher", "generalist", "specialist_knowledge", "specialist_reasoning")
SOME = ("teacher", "generalist")
BASES = ("small", "medium", "large")


def items(limit: int | None = None) -> list[UnlabelledItem]:
    return unlabelled_items(prepare_battery(load_battery("microworld"), limit=limit))


def answered(names: Sequence[str], asked: Sequence[UnlabelledItem], folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    return probe_models([parse_model(f"microworld:{name}") for name in names], asked, folder, device="cpu")


def by_behaviour(asked: Sequence[UnlabelledItem], outcomes: pd.DataFrame, models: pd.DataFrame) -> LabelledItems:
    evidence = behaviour_evidence(outcomes, models)
    return classify_items(asked, answer_evidence=evidence, text=lambda questions: [], declarations=False)


def share_right(asked: Sequence[UnlabelledItem], found: LabelledItems) -> float:
    """Share of the items of families other than mixed whose label is that of their family."""
    pairs = zip(asked, found.labels["capability"], strict=True)
    right = [item.capability == got for item, got in pairs if item.capability != "mixed"]
    return sum(right) / len(right)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[UnlabelledItem], pd.DataFrame, pd.DataFrame, Path]:
    folder = tmp_path_factory.mktemp("answers")
    asked = items(limit=24)
    return (asked, *answered(SOME, asked, folder), folder)


Small = tuple[list[UnlabelledItem], pd.DataFrame, pd.DataFrame, Path]


def test_families_are_told_apart(small: Small) -> None:
    asked, outcomes, models, _ = small
    found = by_behaviour(asked, outcomes, models)
    assert len(found.tasks) == 14
    assert share_right(asked, found) >= 0.99
    assert set(found.labels["source"]) == {"behaviour"}


def test_no_name_of_a_task_matters(small: Small) -> None:
    asked, outcomes, models, _ = small
    names = {name: f"t{n}" for n, name in enumerate(sorted({item.task for item in asked}, reverse=True))}
    renamed = [replace(item, task=names[item.task]) for item in asked]
    found = by_behaviour(renamed, outcomes.assign(task=outcomes["task"].map(names)), models)
    plain = by_behaviour(asked, outcomes, models)
    assert found.labels["p_reasoning"].to_list() == plain.labels["p_reasoning"].to_list()


def test_labels_hold_whatever_the_links_say_within_reason(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, outcomes, models, _ = small
    plain = dict(LINKS)
    for slope, moved in itertools.product((0.5, 2.0), (-0.05, 0.0, 0.05)):
        for name, link in plain.items():
            monkeypatch.setitem(LINKS, name, replace(link, slope=slope * link.slope, midpoint=link.midpoint + moved))
        assert share_right(asked, by_behaviour(asked, outcomes, models)) >= 0.99, (slope, moved)


@pytest.mark.parametrize("left_out", ["thoughts mend", "without thoughts", "thoughts bring", "other numbers"])
def test_without_any_one_behaviour_no_label_is_surely_wrong(small: Small, left_out: str) -> None:
    asked, outcomes, models, _ = small
    evidence = behaviour_evidence(outcomes, models)
    less = {t: [e for e in words if not e.reasons[0].words.startswith(left_out)] for t, words in evidence.items()}
    assert sum(map(len, less.values())) < sum(map(len, evidence.values()))
    labels = classify_items(asked, answer_evidence=less, text=lambda questions: [], declarations=False).labels
    said = pd.Series([item.capability for item in asked])
    assert not ((said == "knowledge") & (labels["conf_low"] > 0.5)).any()
    assert not ((said == "reasoning") & (labels["conf_high"] < 0.5)).any()


def test_answers_are_kept_and_asked_once(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, outcomes, _, folder = small
    kept, known = read_answers(folder)
    same_order = [frame.sort_values(list(schema.OUTCOME_KEY), ignore_index=True) for frame in (kept, outcomes)]
    pd.testing.assert_frame_equal(same_order[0], schema.validate(same_order[1], schema.OUTCOMES))
    assert set(known["model"]) == set(SOME)
    assert known["weights_hash"].notna().all()
    monkeypatch.setattr("capgap.models.tree_generation.generate_by_tree", lambda *a: pytest.fail("asked again"))
    monkeypatch.setattr("capgap.models.tree_scoring.score_by_tree", lambda *a: pytest.fail("asked again"))
    again, _ = answered(("generalist",), asked, folder)
    pd.testing.assert_frame_equal(
        again, outcomes[outcomes["model"] == "generalist"].reset_index(drop=True), check_exact=True
    )


def test_labels_cannot_be_used_for_their_own_witnesses(small: Small) -> None:
    asked, outcomes, models, _ = small
    labels = by_behaviour(asked, outcomes, models).labels
    with pytest.raises(UsageError, match="'generalist'"):
        refuse_circular(labels, models, compared=["generalist"])
    copy = models[models["model"] == "teacher"].assign(model="copy")
    with pytest.raises(UsageError, match=r"'copy' \(asked as 'teacher'\)"):
        refuse_circular(labels, copy)


def test_items_that_cannot_be_asked_load_no_model(tmp_path: Path) -> None:
    events: list[Event] = []
    choice = ItemText("Q 7 * 7 ?", ("9", "3"), "9")
    alone = [UnlabelledItem("t", "1", choice, no_task=True), UnlabelledItem("t", "2", ItemText("Q 7 * 7 ?"))]
    alone.append(UnlabelledItem("t", "3", replace(choice, text="Q 7 " + 10_000 * "* 7 ")))
    teacher = parse_model("microworld:teacher")
    outcomes, models = probe_models([teacher], alone, tmp_path / "none", on_event=events.append)
    assert not len(outcomes)
    assert not len(models)
    (note,) = events
    assert isinstance(note, Note)
    assert note.level == "warning"


@pytest.mark.slow
@pytest.mark.parametrize("names", [TAUGHT, (*TAUGHT, *BASES), ("teacher", "generalist"), ("teacher",)])
def test_all_items_of_all_families_by_behaviour_alone(names: tuple[str, ...], tmp_path: Path) -> None:
    asked = items()
    assert share_right(asked, by_behaviour(asked, *answered(names, asked, tmp_path))) >= 0.99


@pytest.mark.slow
def test_without_the_teacher_only_what_no_other_model_can_do_is_left_open(tmp_path: Path) -> None:
    asked = items()
    found = by_behaviour(asked, *answered([name for name in TAUGHT if name != "teacher"], asked, tmp_path))
    for item, got in zip(asked, found.labels["capability"], strict=True):
        allowed = {item.capability, "mixed"} if item.task.startswith("hops") else {item.capability}
        assert got in allowed or item.capability == "mixed"


@pytest.mark.slow
def test_models_that_only_guess_leave_everything_open(tmp_path: Path) -> None:
    asked = items()
    found = by_behaviour(asked, *answered(BASES, asked, tmp_path))
    assert (found.labels["conf_low"] < 0.5).all()
    assert (found.labels["conf_high"] > 0.5).all()
