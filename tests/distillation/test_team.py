"""Several teachers: whose texts are learnt, and what the mixture of their distributions is."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from capgap.distillation import DistillConfig, distill
from capgap.distillation.data.selection import TaskFormat, TrainingExample
from capgap.distillation.teacher.generations import TeacherGenerations
from capgap.distillation.teacher.team import select_texts
from capgap.errors import DistillError

Make = Callable[..., DistillConfig]
ASKING = TaskFormat(extract=r"A (\S+)")


def example(item: str, target: str, task: str = "sums", **changes: Any) -> TrainingExample:
    return TrainingExample(
        item, f"Q {item}", target, (target,), task=task, task_format=TaskFormat(**{"extract": r"A (\S+)", **changes})
    )


def said(*texts: tuple[TrainingExample, str], confidence: float = 0.0) -> TeacherGenerations:
    by_example = {(example.task, example.item): confidence - len(example.item) for example, _ in texts}
    return TeacherGenerations(texts, 3, None, 0, 0, 0, confidence=by_example)


ONE, TWO, THREE = example("1", "5"), example("2", "6"), example("3", "7", task="more")


def test_most_agree_and_the_first_of_them_speaks() -> None:
    first, second, third = (
        said((ONE, "so A 4"), (TWO, "A 6")),
        said((ONE, "thus A 5"), (TWO, "A 1")),
        said((ONE, "hence A 5"), (THREE, "A 7")),
    )
    told = select_texts([first, second, third], "agreement", name="x")
    assert {e.item: text for e, text in told.pairs} == {"1": "thus A 5", "2": "A 6", "3": "A 7"}
    assert told.n_right == 3
    assert told.shares == pytest.approx((1 / 3, 1 / 3, 1 / 3))


def test_each_task_has_the_teacher_that_is_right_most_often_on_it() -> None:
    first = said((ONE, "A 5"), (TWO, "A 6"), (THREE, "A 0"))
    second = said((ONE, "A 5"), (THREE, "A 7"))
    told = select_texts([first, second], "task", name="x")
    assert [text for _, text in told.pairs] == ["A 5", "A 6", "A 7"]
    assert told.shares == pytest.approx((2 / 3, 1 / 3))
    unknown = example("4", "5", score="external")
    with pytest.raises(DistillError, match="Use agreement or confidence"):
        select_texts([said((unknown, "A 5")), said((unknown, "A 6"))], "task", name="x")


def test_the_surest_speaks() -> None:
    told = select_texts(
        [said((ONE, "A 1"), confidence=-2.0), said((ONE, "A 2"), confidence=-1.0)], "confidence", name="x"
    )
    assert [text for _, text in told.pairs] == ["A 2"]


@pytest.mark.parametrize("choose", ["agreement", "task", "confidence"])
def test_a_team_teaches_texts(make_config: Make, tmp_path: Path, teacher: Path, schooled: Path, choose: str) -> None:
    config = make_config(
        supervision="traces", teacher=[str(schooled), str(teacher)], team={"choose": choose},
        generation={"max_tokens": 16}, training={"max_steps": 3, "batch_size": 8},
    )  # fmt: skip
    out = distill(config, tmp_path / "out", device="cpu")
    story, row = (json.loads((out / name).read_text()) for name in ("distill.json", "capgap.json"))
    assert sum(story["teacher"]["shares"]) == pytest.approx(1)
    assert len(row["teachers"].split("; ")) == 2


def test_the_surest_by_its_own_log_probabilities(make_config: Make, tmp_path: Path, teacher: Path) -> None:
    """Reference: plain transformers over prompt and text."""
    from transformers import AutoModelForCausalLM

    from capgap.distillation.job import DistillJob
    from capgap.distillation.teacher.generations import generate_texts
    from capgap.distillation.teacher.prompt_context import PromptBuilder
    from tests.distillation.conftest import make_tokenizer

    task_format = TaskFormat(extract=r"A (\S+)", delimiter="")
    examples = [TrainingExample("1", "Q 1 + 2 ?", " A 3", ("3",), task_format=task_format)]
    config = make_config(
        supervision="traces", teacher=[str(teacher)] * 2, team={"choose": "confidence"}, generation={"max_tokens": 16}
    )
    job, context = DistillJob(config, tmp_path / "out", tmp_path, "cpu"), PromptBuilder(config, examples)
    generations = generate_texts(job, str(teacher), examples, context, ledger=tmp_path / "l.sqlite")
    tokenizer, model = make_tokenizer(), AutoModelForCausalLM.from_pretrained(teacher).eval()
    (pair,) = generations.pairs
    text = pair[1].strip()
    ids = torch.tensor([tokenizer(f"Q 1 + 2 ? {text}")["input_ids"]])
    n = len(tokenizer("Q 1 + 2 ?")["input_ids"])
    with torch.no_grad():
        logprobs = torch.log_softmax(model(ids).logits[0, :-1], -1)
    total = float(logprobs.gather(1, ids[0, 1:, None])[n - 1 :].sum())
    assert generations.confidence["file", "1"] == pytest.approx(total / len(text), rel=0.1)  # it begins with a space


def test_distributions_are_mixed_by_weight(make_config: Make, tmp_path: Path, teacher: Path, schooled: Path) -> None:
    first: dict[str, float] = {}
    for name, changes in {
        "left": {"teacher": [str(teacher)]},
        "right": {"teacher": [str(schooled)]},
        "mostly left": {"teacher": [str(teacher), str(schooled)], "team": {"weights": [1e6, 1.0]}},
        "even": {"teacher": [str(teacher), str(schooled)]},
    }.items():
        config = make_config(
            supervision="logits", texts="gold_traces", training={"max_steps": 1, "batch_size": 55}, **changes
        )
        out = distill(config, tmp_path / name, device="cpu")
        story = json.loads((out / "distill.json").read_text())
        first[name] = story["terms"][0]["divergence"]
        assert len(story["distributions"]["computed"]) == len(changes["teacher"])
    assert first["mostly left"] == pytest.approx(first["left"], rel=1e-3)
    # KL is convex in the teacher, and the mixture is another distribution than either
    assert first["even"] < (first["left"] + first["right"]) / 2
    assert abs(first["even"] - first["left"]) > 1e-3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher": ["a"], "team": {"choose": "task"}}, "name them as a list"),
        ({"teacher": ["a", "b"], "supervision": "on_policy"}, "takes 1 teacher, found 2"),
        ({"teacher": ["a", "b"], "team": {"weights": [1.0]}}, "1 numbers for 2 teachers"),
        ({"teacher": ["a", "b"], "supervision": "logits", "cache": {"mode": "top_k"}}, "have no mixture"),
    ],
)
def test_what_a_team_cannot_give_is_refused(make_config: Make, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_config(**{"supervision": "answers", **changes})


def test_teachers_of_different_widths_are_kept_in_one_form(
    make_config: Make, tmp_path: Path, teacher: Path, schooled: Path
) -> None:
    """Hidden states of the narrow one alone would be under the limit, and those of both are over it."""
    n = 55 * 10
    config = make_config(
        supervision="logits", texts="gold_traces", teacher=[str(schooled), str(teacher)],
        cache={"max_gb": 2 * 50 * n / 1e9, "k": 4}, training={"max_steps": 1, "batch_size": 8},
    )  # fmt: skip
    out = distill(config, tmp_path / "out", device="cpu")
    assert json.loads((out / "distill.json").read_text())["distributions"]["form"] == "sample"
