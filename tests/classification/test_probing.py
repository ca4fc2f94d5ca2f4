"""Models of everyday language are asked; the microworld's are in test_microworld.py."""

import json
import math
from pathlib import Path

import pandas as pd
import pytest

from capgap import schema
from capgap.classification import ItemText, UnlabelledItem, behaviour_evidence, read_answers
from capgap.classification.probing import probe_models
from capgap.errors import TableError, UsageError
from capgap.models import parse_model
from tests.conftest import make_checkpoint

COLOURS = ("red", "blue", "green")


def items(n: int = 24, *, task: str = "t", known: bool = True) -> list[UnlabelledItem]:
    """Choices in the words of the tiny checkpoints."""
    return [
        UnlabelledItem(
            task,
            f"i{i}",
            ItemText(f"Q : the capital of {['one', 'two', 'three', 'four'][i % 4]} ? {i}", COLOURS, COLOURS[i % 3]),
            rationale="the capital is red" if i % 2 else None,
        )
        if known
        else UnlabelledItem(task, f"i{i}", ItemText(f"Q : {i}", COLOURS))
        for i in range(n)
    ]


def asked(folder: Path, out: Path, name: str, what: list[UnlabelledItem], n_items: int = 100) -> pd.DataFrame:
    return probe_models([parse_model(f"{name}={folder}")], what, out, device="cpu", n_items=n_items)[0]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model") / "plain")


def test_every_item_is_asked_in_each_way_that_it_allows(plain: Path, tmp_path: Path) -> None:
    found = asked(plain, tmp_path, "m", items())
    counts = found["variant"].value_counts()
    assert counts["direct"] == counts["cot"] == 24
    assert counts["fact"] == 12
    assert counts["numbers"] == 24
    assert set(found["chance"]) == {1 / 3}
    for response, prediction in zip(found["response"], found["prediction"], strict=True):
        logprobs = json.loads(response)
        assert prediction == COLOURS[logprobs.index(max(logprobs))]


def test_with_other_numbers_nobody_knows_the_right_answer(plain: Path, tmp_path: Path) -> None:
    found = asked(plain, tmp_path, "m", items())
    assert found.loc[found["variant"] == "numbers", "score"].isna().all()
    assert found.loc[found["variant"] != "numbers", "score"].isin([0, 1]).all()


def test_an_answer_behind_thoughts_that_were_cut_off_is_wrong_without_being_judged(plain: Path, tmp_path: Path) -> None:
    found = asked(plain, tmp_path, "m", items())  # a random model hardly comes to an end
    thinking = found[found["variant"] == "cot"]
    is_cut_off = (thinking["stop_reason"] == "limit") & (thinking["score"] == 0)
    assert is_cut_off.sum() > 0.1 * len(thinking)
    assert set(thinking["status"]) == {"scored"}
    assert set(found.loc[found["variant"] == "direct", "status"]) == {"scored"}
    assert behaviour_evidence(found) == {"t": ()}


def test_an_unknown_answer_has_no_score_and_makes_no_evidence_of_accuracy(plain: Path, tmp_path: Path) -> None:
    found = asked(plain, tmp_path, "m", items(known=False))
    assert found["score"].isna().all()
    assert behaviour_evidence(found) == {"t": ()}


def test_a_model_that_guesses_gives_no_evidence(plain: Path, tmp_path: Path) -> None:
    found = asked(plain, tmp_path, "m", items(60))
    assert all(e.sd > 2 for e in behaviour_evidence(found)["t"])


def test_a_chat_model_is_asked_through_its_template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    real = probe_models.__globals__["respond"]

    def respond(model: object, instances: list[object], *more: object, **named: object) -> object:
        read.extend(instance.args[0] for instance in instances)  # type: ignore[attr-defined]
        return real(model, instances, *more, **named)

    monkeypatch.setitem(probe_models.__globals__, "respond", respond)
    asked(make_checkpoint(tmp_path / "chat", chat=True), tmp_path / "out", "chat", items(4))
    assert read
    assert all(
        text.startswith("user : Q : the capital") or text.startswith("user : the") or "A : " in text for text in read
    )
    assert any(text.rstrip().endswith("Let's think step by step.") for text in read)
    assert any(text.endswith("Therefore, the answer is") for text in read)


def test_of_a_large_task_a_seeded_sample_is_asked(plain: Path, tmp_path: Path) -> None:
    one, two = (asked(plain, tmp_path / str(n), "m", items(60), n_items=12) for n in range(2))
    assert one["item"].nunique() == 12
    assert set(one["item"]) == set(two["item"])
    assert set(one["item"]) != {f"i{i}" for i in range(12)}


def test_answers_of_several_calls_stand_together_and_a_later_one_counts(plain: Path, tmp_path: Path) -> None:
    asked(plain, tmp_path, "m", items(12))
    asked(plain, tmp_path, "m", items(12, task="u"))
    asked(plain, tmp_path, "n", items(12))
    asked(plain, tmp_path, "m", items(14))
    outcomes, models = read_answers(tmp_path)
    assert set(zip(outcomes["model"], outcomes["task"], strict=True)) == {("m", "t"), ("m", "u"), ("n", "t")}
    assert outcomes.loc[(outcomes["model"] == "m") & (outcomes["task"] == "t"), "item"].nunique() == 14
    assert set(models["model"]) == {"m", "n"}
    schema.validate(outcomes, schema.OUTCOMES)


def test_a_folder_that_cannot_be_added_to_is_refused_before_anything_is_asked(plain: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    with pytest.raises(UsageError, match="directory of a run"):
        asked(plain, tmp_path / "run", "m", items(4))
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "outcomes.parquet").write_bytes(b"PAR1")
    with pytest.raises(TableError, match="cannot be read as parquet"):
        asked(plain, tmp_path / "odd", "m", items(4))
    assert [p.name for p in (tmp_path / "odd").iterdir()] == ["outcomes.parquet"]


def test_a_text_beyond_the_models_length_is_an_answer_and_no_traceback(plain: Path, tmp_path: Path) -> None:
    long = [UnlabelledItem("t", f"i{i}", ItemText("red " * (500 + i), COLOURS, "red")) for i in range(3)]
    odd = [
        UnlabelledItem("t", "e", ItemText("", COLOURS, "red")),
        UnlabelledItem("t", "u", ItemText("谁\x00写的？", ("y", "x"), "x")),
    ]
    odd.append(UnlabelledItem("t", "n", ItemText("red ?", (" ", "x"), "x")))
    found = asked(plain, tmp_path, "m", [*long, *odd])
    assert found["item"].nunique() == 5
    assert all(math.isfinite(v) for response in found["response"] for v in json.loads(response))


def test_a_model_that_must_think_is_refused(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "chat", chat=True)
    with pytest.raises(UsageError, match="enable_thinking=off"):
        probe_models(
            [parse_model(f"{folder},enable_thinking=on,think_end=A")], items(4), tmp_path / "out", device="cpu"
        )
