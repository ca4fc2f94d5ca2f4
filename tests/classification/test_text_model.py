"""Text evidence: what holds whatever the coefficients, and what the shipped ones reach."""

import json
import math
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from capgap.classification.coefficients import TextModelCoefficients
from capgap.classification.evidence import ItemText
from capgap.classification.exercises import make_exercise_families
from capgap.classification.features import FEATURES, item_features, table
from capgap.classification.refit import read_pairs
from capgap.classification.text_model import TextModel, measure_text_novelty
from capgap.errors import TableError
from tests.classification.test_features import HOSTILE

PAIRS = Path(__file__).with_name("pairs.yaml")
SUM = ItemText("Ben has 12 apples. He gives 5 of them to Anna and buys twice as many as he has left. How many has he?")
FACT = ItemText("Which river flows through the capital of Austria?")


@pytest.fixture(scope="module")
def model() -> TextModel:
    return TextModel.load_shipped_model()


def test_facts_and_problems_come_out_on_their_sides(model: TextModel) -> None:
    fact, problem = model.evidence([FACT, SUM])
    assert fact.p < 0.2 < 0.8 < problem.p
    assert fact.kind == problem.kind == "text"


def test_pairs_alike_in_words_are_told_apart(model: TextModel) -> None:
    rows = read_pairs(PAIRS)
    assert len(rows) >= 70
    knowledge = model.evidence([one for _, one, _ in rows])
    reasoning = model.evidence([one for _, _, one in rows])
    right = sum(one.logit < 0 for one in knowledge) + sum(one.logit > 0 for one in reasoning)
    assert right / (2 * len(rows)) >= 0.85
    assert np.mean([r.logit > k.logit for k, r in zip(knowledge, reasoning, strict=True)]) >= 0.95


def test_an_item_has_the_same_evidence_alone_and_among_others(model: TextModel) -> None:
    together = model.evidence([FACT, SUM, ItemText("")])
    alone = [model.evidence([question])[0] for question in (FACT, SUM, ItemText(""))]
    for one, other in zip(together, alone, strict=True):
        assert one.logit == pytest.approx(other.logit, abs=1e-12)
        assert [reason.words for reason in one.reasons] == [reason.words for reason in other.reasons]


def test_no_items_have_no_evidence(model: TextModel) -> None:
    assert model.evidence([]) == []


def test_reasons_are_the_heaviest_first_and_of_three_at_least(model: TextModel) -> None:
    for one in model.evidence([FACT, SUM]):
        sizes = [abs(reason.weight) for reason in one.reasons]
        assert len(sizes) >= 3
        assert sizes == sorted(sizes, reverse=True)
        assert sum(sizes) < 5 * (abs(one.logit) + 5)


def test_the_heaviest_reasons_speak_for_the_side_that_the_item_is_on(model: TextModel) -> None:
    fact, problem = model.evidence([FACT, SUM])
    assert fact.reasons[0].weight < 0 < problem.reasons[0].weight


def test_all_parts_and_the_intercept_sum_to_the_log_odds(model: TextModel) -> None:
    c = model.coefficients
    reading = item_features(SUM)
    parts = np.clip((table([reading])[0] - c.mean) / c.scale, -c.clip, c.clip) * c.weight
    words = sum(c.words.get(word, 0.0) for word in reading.words)
    assert model.raw_logits([reading])[0] == pytest.approx(parts.sum() + words + c.intercept, abs=1e-12)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_texts_have_finite_evidence(model: TextModel, name: str) -> None:
    (one,) = model.evidence([ItemText(HOSTILE[name])])
    assert math.isfinite(one.logit)
    assert math.isfinite(one.sd)
    assert one.sd >= model.evidence([SUM])[0].sd - 1e-12
    assert one.reasons


@pytest.mark.parametrize(
    "text", ["", "   ", "法国的首都是哪里？", "Какой город столица Франции?", "…?!", "ما هي عاصمة فرنسا؟"]
)
def test_what_cannot_be_read_says_nothing_with_a_wide_spread(model: TextModel, text: str) -> None:
    (one,) = model.evidence([ItemText(text)])
    (plain,) = model.evidence([SUM])
    assert abs(one.logit) < 0.5
    assert one.sd > 1.4 * plain.sd


def test_a_text_far_longer_than_any_is_less_sure(model: TextModel) -> None:
    long, plain = model.evidence([ItemText((SUM.text + " ") * 900), SUM])
    assert len(SUM.text) * 900 > 90_000
    assert long.sd > plain.sd


def test_strangeness_grows_with_unknown_words(model: TextModel) -> None:
    known = model.coefficients.known
    found = [
        measure_text_novelty(item_features(ItemText(text)), known)
        for text in ("What is the sum of 3 and 4?", "Wat blorp 4", "xq zv")
    ]
    assert found[0] == 0
    assert found == sorted(found)
    assert found[-1] == 1


def test_no_probability_is_surer_than_the_number_of_families_allows(model: TextModel) -> None:
    for one in model.evidence([ItemText("((3 + 4) * 5) - 2 = " * 30), FACT, SUM]):
        assert 0.01 - 1e-9 <= one.p <= 0.99 + 1e-9


def test_an_item_takes_less_than_half_a_millisecond(model: TextModel) -> None:
    questions = [question for family in make_exercise_families() for question in family.questions][:1500]
    start = time.process_time()
    model.evidence(questions)
    assert time.process_time() - start < 0.0005 * len(questions)


def test_the_file_gives_the_same_model_back(model: TextModel, tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    path.write_text(model.coefficients.to_json(), encoding="utf-8")
    again = TextModel.read(path)
    assert again.coefficients.to_json() == model.coefficients.to_json()
    np.testing.assert_array_equal(again.raw_logits([item_features(SUM)]), model.raw_logits([item_features(SUM)]))


def test_the_shipped_file_is_small_and_for_these_features(model: TextModel) -> None:
    path = Path(sys.modules[TextModel.__module__].__file__ or "").with_name("text_model.json")
    assert path.stat().st_size < 200_000
    assert [one["name"] for one in json.loads(path.read_text())["features"]] == [one.name for one in FEATURES]


@pytest.mark.parametrize(
    "change",
    [
        {"version": 99},
        {"features": []},
        {"intercept": "a"},
        {"intercept": float("nan")},
        {"family_sd": -1.0},
        {"clip": 0.0},
        {"calibration": {"slope": -1.0, "offset": 0.0, "low": 0.01, "high": 0.01}},
        {"calibration": {}},
        {"words": 3},
        {"known": None},
    ],
)
def test_a_damaged_file_is_refused_with_its_name(model: TextModel, tmp_path: Path, change: dict[str, object]) -> None:
    data = json.loads(model.coefficients.to_json()) | change
    path = tmp_path / "broken.json"
    path.write_text(json.dumps(data))
    with pytest.raises(TableError, match=r"broken\.json"):
        TextModel.read(path)


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "[" * 100_000])
def test_what_is_no_model_is_refused(text: str) -> None:
    with pytest.raises(TableError, match="here"):
        TextModelCoefficients.from_json(text, "here")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="cannot be read"):
        TextModel.read(tmp_path / "none.json")
