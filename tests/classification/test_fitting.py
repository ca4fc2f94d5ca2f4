"""The fit on families made up here, where it is known what must come out."""

import json
import os
import random
from pathlib import Path

import numpy as np
import pytest

from capgap.classification.coefficients import TextModelCoefficients
from capgap.classification.corpus import ItemFamily
from capgap.classification.design_matrices import DesignMatrices, balanced_item_weights, make_design
from capgap.classification.evidence import ItemText
from capgap.classification.exercises import make_exercise_families
from capgap.classification.features import item_features
from capgap.classification.fitting import TUNING_GRID, FitSettings, _columns, fit, leave_families_out, sample, spread
from capgap.classification.metrics import _reliability_and_ece, auroc, compute_held_out_metrics
from capgap.classification.refit import main, refit, write_report
from capgap.classification.text_model import TextModel
from capgap.errors import EstimationError
from tests.classification.test_text_model import PAIRS

ONE = (FitSettings(5.0, 0.3, 1.0),)


def families(n: int = 4, items: int = 12) -> list[ItemFamily]:
    """Facts and sums in several turns of phrase each."""
    rng = random.Random(0)
    facts = [
        "Who ruled {} in old times?",
        "Which river runs through {}?",
        "Name the flag of {}.",
        "{} lies in which land?",
    ]
    sums = [
        "Add {} and {}. Then halve it.",
        "Ben has {} and gets {}. How many has he?",
        "{} * ({} - 2) =",
        "If x = {}, x + {} =",
    ]
    places = ["Norway", "Peru", "Kenya", "Japan", "Chile", "Nepal", "Egypt", "Ghana", "Laos", "Malta", "Oman", "Fiji"]
    found = [
        ItemFamily(f"fact {k}", False, "Known.", tuple(ItemText(facts[k].format(p)) for p in places[:items]))
        for k in range(n)
    ]
    for k in range(n):
        texts = tuple(ItemText(sums[k].format(rng.randint(2, 99), rng.randint(2, 99))) for _ in range(items))
        found.append(ItemFamily(f"sum {k}", True, "Worked out.", texts))
    return found


@pytest.fixture(scope="module")
def design() -> DesignMatrices:
    return make_design(families())


def test_unseen_families_of_a_plain_world_are_told_apart(design: DesignMatrices) -> None:
    found = compute_held_out_metrics(design, leave_families_out(design, grid=ONE))
    assert found.auroc > 0.99
    assert found.accuracy > 0.95


def test_the_shipped_arithmetic_agrees_with_scikit_learn(design: DesignMatrices) -> None:
    coefficients, fitted = fit(design, spreads=(1.0, 1.0), origin={}, grid=ONE)
    model = TextModel(TextModelCoefficients.from_json(coefficients.to_json(), "here"))
    rows = np.arange(len(design.family))
    raw = model.raw_logits([item_features(q) for family in design.families for q in family.questions])
    np.testing.assert_allclose(raw, fitted.logits(design, rows), atol=1e-9, rtol=0)
    theirs = fitted.model.predict_proba(_columns(fitted, design, rows))[:, 1]
    np.testing.assert_allclose(1 / (1 + np.exp(-raw)), theirs, atol=1e-9, rtol=0)


def test_labels_of_a_family_never_touch_its_own_prediction(design: DesignMatrices) -> None:
    plain = leave_families_out(design, grid=ONE)
    # The last family turned around: its own prediction must stay to the last bit, all others may move.
    changed = [*design.families[:-1], ItemFamily("sum 3", False, "Turned.", design.families[-1].questions)]
    turned = leave_families_out(make_design(changed), grid=ONE)
    own = design.family[plain.item] == len(design.families) - 1
    np.testing.assert_array_equal(plain.raw[own], turned.raw[own])
    assert not np.array_equal(plain.raw[~own], turned.raw[~own])


def test_kin_is_left_out_with_a_family_either_way_round() -> None:
    made = families(3)
    made.append(ItemFamily("helper", True, "Kin.", made[-1].questions, frozenset({"sum 2"}), measured=False))
    design = make_design(made)
    names = [design.families[n].name for n in design.without([5])]
    assert "sum 2" not in names
    assert "helper" not in names
    assert "helper" in [design.families[n].name for n in design.without([4])]
    assert 6 not in design.measured


def test_a_helping_family_is_never_predicted() -> None:
    made = families(3)
    made.append(ItemFamily("helper", True, "Kin.", made[-1].questions, measured=False))
    design = make_design(made)
    left_out = leave_families_out(design, grid=ONE)
    assert set(design.family[left_out.item]) == set(range(6))
    assert len(left_out.settings) == 6


def test_families_count_alike_whatever_their_size() -> None:
    family = np.array([0] * 10 + [1] * 1 + [2] * 5)
    label = np.array([False] * 11 + [True] * 5)
    weights = balanced_item_weights(family, label, np.ones(3))
    assert weights.sum() == pytest.approx(16)
    assert weights[family == 0].sum() == pytest.approx(weights[family == 1].sum())
    assert weights[label].sum() == pytest.approx(weights[~label].sum())


def test_auroc_agrees_with_scikit_learn_ties_included() -> None:
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(1)
    score = rng.integers(0, 9, 200).astype(float)
    label, weight = rng.random(200) < 0.4, rng.random(200)
    assert auroc(score, label, weight) == pytest.approx(roc_auc_score(label, score, sample_weight=weight), abs=1e-12)


def test_a_calibration_that_is_right_has_no_error_and_a_wrong_one_its_distance() -> None:
    p = np.repeat([0.15, 0.85], 100)
    label = np.concatenate([np.arange(100) < 15, np.arange(100) < 85])
    assert _reliability_and_ece(p, label, np.ones(200))[1] == pytest.approx(0, abs=1e-12)
    assert _reliability_and_ece(p, np.ones(200, dtype=bool), np.ones(200))[1] == pytest.approx((0.85 + 0.15) / 2)


def test_the_spread_of_families_is_that_of_their_means(design: DesignMatrices) -> None:
    left_out = leave_families_out(design, grid=ONE)
    family_sd, item_sd = spread(design, left_out)
    family = design.family[left_out.item]
    means = np.array([left_out.logit[family == n].mean() for n in range(8)])
    residual = np.concatenate([means[:4] - means[:4].mean(), means[4:] - means[4:].mean()])
    assert family_sd == pytest.approx(np.sqrt((residual**2).sum() / 6))
    assert item_sd > 0


def test_a_sample_has_at_most_so_many_items_of_each_family(design: DesignMatrices) -> None:
    rows = sample(design, 5)
    assert (np.bincount(design.family[rows]) == 5).all()
    np.testing.assert_array_equal(rows, sample(design, 5))


def test_too_few_families_are_refused() -> None:
    with pytest.raises(EstimationError, match="three"):
        leave_families_out(make_design(families(2)), grid=ONE)


def corpus_folder(path: Path) -> Path:
    path.mkdir()
    lines = ["families:"]
    for n, family in enumerate(families(3)):
        (path / f"{n}.jsonl").write_text("".join(json.dumps({"text": q.text}) + "\n" for q in family.questions))
        label = "reasoning" if family.reasoning else "knowledge"
        lines += [f"  - {{family: '{family.name}', files: [{n}.jsonl], label: {label}, reason: Made up here.}}"]
    (path / "corpus.yaml").write_text("\n".join(lines) + "\n")
    return path


def test_one_command_writes_coefficients_and_table_without_any_item(tmp_path: Path) -> None:
    corpus, out = corpus_folder(tmp_path / "corpus"), tmp_path / "out"
    assert main([str(corpus), "--out", str(out), "--limit", "10", "--no-exercises", "--pairs", str(PAIRS)]) == 0
    table = (out / "README.md").read_text()
    assert all(f"| fact {n} | knowledge | 12 |" in table for n in range(3))
    assert "pairs alike in words" in table
    assert "Norway" not in "".join(path.read_text() for path in out.iterdir() if path.name != "text_model.json")
    confusion = json.loads((out / "confusion.json").read_text())
    assert all(sum(confusion[label].values()) == pytest.approx(1) for label in ("knowledge", "reasoning"))
    assert TextModel.read(out / "text_model.json").evidence([ItemText("Add 3 and 4.")])[0].sd > 0


def test_a_corpus_that_is_not_there_ends_with_a_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none"), "--out", str(tmp_path)]) == 2
    assert "no such folder" in capsys.readouterr().err
    assert main([str(tmp_path), "--limit", "0"]) == 2


def test_the_same_corpus_gives_the_same_coefficients(tmp_path: Path) -> None:
    corpus = corpus_folder(tmp_path / "corpus")
    one, two = (refit(corpus, with_exercises=False, grid=ONE).coefficients.to_json() for _ in range(2))
    assert one == two
    assert len(make_exercise_families()) > 50
    assert len(TUNING_GRID) > 1


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif("CAPGAP_SHARED_DATA" not in os.environ, reason="needs CAPGAP_SHARED_DATA")
def test_goals_hold_on_families_that_the_fit_has_not_seen(tmp_path: Path) -> None:
    result = refit(os.environ["CAPGAP_SHARED_DATA"])
    write_report(tmp_path, result, command="test", pairs=PAIRS)
    found = result.metrics
    assert found.auroc >= 0.97
    assert found.accuracy >= 0.92
    assert sum(row.accuracy < 0.7 for row in found.families) <= 3
    assert found.ece <= 0.05
    assert found.ece_balanced <= 0.05
