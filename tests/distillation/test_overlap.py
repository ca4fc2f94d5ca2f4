import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest

from capgap import evaluation as engine
from capgap import schema
from capgap.distillation import DistillConfig, distill
from capgap.distillation.data.overlap import find_near_duplicates
from capgap.errors import DistillError, ModelError
from capgap.evaluation.exposure import exposure_of, prompt_digest
from capgap.events import Event, Note
from capgap.models import parse_model
from tests.distillation.conftest import save_checkpoint, write_jsonl

LONG = (
    "Weng earns 12 dollars an hour for babysitting. Yesterday, she just did 50 minutes of babysitting before the "
    "parents came back home. How much did she earn?"
)


@pytest.mark.parametrize(
    ("changed", "near"),
    [
        (LONG, True),
        (LONG.upper().replace(",", " ;"), True),
        (LONG.replace("came back home", "came home"), True),
        (LONG.replace("50", "40"), False),  # another problem
        (LONG.replace("12 dollars", "12 euros").replace("50 minutes", "50 hours").replace("earn?", "get?"), False),
        ("How much did she earn?", False),
    ],
)
def test_the_same_problem_in_almost_the_same_words_is_near_and_another_problem_is_not(changed: str, near: bool):
    assert bool(find_near_duplicates([changed], ["something else altogether", LONG], threshold=0.8)) == near


@pytest.mark.parametrize(("one", "other"), [("3 + 4 =", "3 * 4 ="), ("not (a and b)", "(not a) and b")])
def test_signs_tell_problems_apart(one: str, other: str):
    assert find_near_duplicates([one], [other], threshold=0.8) == {}
    assert find_near_duplicates([one], [one], threshold=0.8) == {0: [0]}


def test_the_similarity_is_the_share_of_runs_of_three_words():
    first, second = "a b c d e f g h i j", "a b c d e f g h i k"  # 7 of 9 different runs
    assert find_near_duplicates([first], [second], threshold=7 / 9) == {0: [0]}
    assert find_near_duplicates([first], [second], threshold=7 / 9 + 1e-9) == {}


def test_what_many_items_share_makes_no_two_questions_near():
    people = [f"person{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(200)]
    asked = [f"In which of all the cities of this small country does {who} live and work today" for who in people]
    found = find_near_duplicates([asked[3], asked[3].replace("persona", "nobody")], asked, threshold=0.6)
    assert 3 in found[0]
    assert 1 not in found


def test_scripts_without_spaces_are_cut_into_characters():
    text = "小明有十二个苹果他给了小红三个请问他还剩下几个苹果"
    assert find_near_duplicates([text.replace("请问", "请问，")], [text], threshold=0.8) == {0: [0]}
    assert find_near_duplicates(["今天天气很好我们一起去公园散步吧你觉得怎么样"], [text], threshold=0.8) == {}


def test_hostile_texts_pass():
    odd = ["", "\0\ud800", "x" * 100_000, "x " * 50_000]
    assert find_near_duplicates(odd, odd[::-1], threshold=0.8) == {1: [2], 2: [1], 3: [0]}


@pytest.fixture
def overlapping(tmp_path: Path) -> Path:
    """A battery of one task, and training data of which one example is an item and another one nearly."""
    words = ["red", "blue", "the", "answer", "is", "Q", "A"]
    item = " ".join(words + words[::-1])
    (tmp_path / "tiny.yaml").write_text(
        "name: tiny\nversion: 1\ndescription: d\ntasks:\n- name: sums\n  data: {file: items.jsonl}\n"
        "  format: generate\n"
        '  prompt: "{{q}}"\n  target: "{{a}}"\n  capability: reasoning\n  max_tokens: 4\n'
    )
    asked = [{"q": "Q 1 + 1 ?", "a": "2"}, {"q": item, "a": "3"}, {"q": "Q 5 + 4 ?", "a": "9"}]
    write_jsonl(tmp_path / "items.jsonl", asked)
    told = ["Q 1 + 1 ?", item + " Q", "Q 2 + 2 ?", "q 1  + 1 ?"]
    answers = ["2", "3", "4", "red"]
    write_jsonl(
        tmp_path / "train.jsonl", [{"prompt": p, "completion": f" A {a}"} for p, a in zip(told, answers, strict=True)]
    )
    return tmp_path


def _file(folder: Path, **data: Any) -> DistillConfig:
    return DistillConfig.model_validate(
        {
            "name": "pupil",
            "student": str(save_checkpoint(folder / "base")),
            "data": {"file": "train.jsonl", **data},
            "supervision": "gold_answers",
            "training": {"max_steps": 1, "batch_size": 4, "lr": 0.01},
            "evaluate": {"battery": "tiny.yaml"},
        }
    )


def test_items_in_the_training_data_stay_out_with_a_count(overlapping: Path):
    events: list[Event] = []
    out = distill(_file(overlapping), overlapping / "out", folder=overlapping, device="cpu", on_event=events.append)
    story = json.loads((out / "distill.json").read_text())
    assert (story["n_held_out"], story["n_near"], story["n_trained_on"]) == (2, 1, 1)
    notes = [event.text for event in events if isinstance(event, Note)]
    assert "2 are evaluation items and stay out; 1 are evaluation items in almost the same words" in notes[0]
    assert exposure_of(parse_model(str(out))) == {prompt_digest("Q 2 + 2 ?"): 1}


def test_items_that_stay_in_are_counted_by_x_exposure_and_unknown_where_nobody_counted(overlapping: Path):
    out = distill(_file(overlapping, overlap="mark"), overlapping / "out", folder=overlapping, device="cpu")
    assert json.loads((out / "distill.json").read_text())["n_trained_on"] == 4
    students, teacher, bases, controls, _ = engine.cast_roles([f"pupil={out}"])
    plan = engine.EvaluationPlan(
        students=students,
        teacher=teacher,
        bases=bases,
        control_models=controls,
        batteries=(str(overlapping / "tiny.yaml"),),
        device="cpu",
    )
    run = engine.evaluate(plan, overlapping / "run", command=["capgap"])
    table = run.read(schema.OUTCOMES).set_index("item")
    student = table[table["model"] == "pupil"]
    items = pd.read_parquet(run.path / "items.parquet").set_index("item")["prompt"]
    counts = {items[item]: count for item, count in student["x_exposure"].items()}
    assert sorted(counts.values()) == [0, 1, 2]
    assert (counts["Q 1 + 1 ?"], counts["Q 5 + 4 ?"]) == (2, 0)
    assert table[table["model"] != "pupil"]["x_exposure"].isna().all()


def test_a_damaged_file_of_exposure_is_told(overlapping: Path):
    out = distill(_file(overlapping), overlapping / "out", folder=overlapping, device="cpu")
    (out / "exposure.json").write_text('{"touches": [1]}')
    with pytest.raises(ModelError, match=r"exposure\.json: cannot be read"):
        exposure_of(parse_model(str(out)))


def test_a_data_set_of_the_hub_is_read_like_a_file(
    make_config: Callable[..., DistillConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    rows = [{"question": f"Q {a} + 1 ?", "answer": f" A {a + 1}", "messages": None} for a in range(8)]
    asked: list[Any] = []

    def load(name: str, subset: str | None, *, split: str, revision: str | None) -> datasets.Dataset:
        asked.append((name, subset, split, revision))
        return datasets.Dataset.from_list([{k: v for k, v in row.items() if v is not None} for row in rows])

    monkeypatch.setattr(datasets, "load_dataset", load)
    columns = {"prompt": "question", "completion": "answer"}
    config = make_config(data={"hub": "org/sums", "subset": "main", "columns": columns}, n_examples=5)
    out = distill(config, tmp_path / "out", device="cpu")
    assert set(asked) == {("org/sums", "main", "train", None)}
    assert json.loads((out / "distill.json").read_text())["n_trained_on"] == 5
    rows[0]["answer"] = " A 7"
    with pytest.raises(DistillError, match="contents of its data have changed"):
        distill(config, tmp_path / "out", device="cpu")
    wrong = make_config(data={"hub": "org/sums", "columns": {"prompt": "questoin", "completion": "answer"}})
    with pytest.raises(DistillError, match=r"row 0: no column 'questoin' for 'prompt'.*Did you mean 'question'"):
        distill(wrong, tmp_path / "other", device="cpu")


def test_a_data_set_that_is_not_here_is_told_without_a_word_of_batteries(
    make_config: Callable[..., DistillConfig], tmp_path: Path
):
    with pytest.raises(DistillError, match=r"org/none.*Run once with the network, or give a file") as told:
        distill(make_config(data={"hub": "org/none"}), tmp_path / "out", device="cpu")
    assert "battery" not in str(told.value)


def test_the_note_about_a_base_that_was_found_names_no_place_of_this_machine(overlapping: Path):
    out = distill(_file(overlapping), overlapping / "out", folder=overlapping, device="cpu")
    *_, notes = engine.cast_roles([str(out)])
    assert any(note.startswith("base of out: base (from capgap.json") for note in notes)
    assert str(overlapping) not in " ".join(notes)
