"""What the teacher sees and the student doesn't."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from capgap.distillation import DistillConfig, distill
from capgap.distillation.data.selection import TrainingExample
from capgap.distillation.teacher.prompt_context import PromptBuilder, teacher_spec
from capgap.errors import DistillError

Make = Callable[..., DistillConfig]


def pool(n: int = 6) -> list[TrainingExample]:
    return [TrainingExample(item=str(i), prompt=f"Q {i} + 1 ?", target=f"A {i + 1}", task="sums") for i in range(n)]


def test_solved_examples_stand_before_the_prompt_and_never_its_own(make_config: Make) -> None:
    config = make_config(supervision="context", teacher="t", context={"examples": 3})
    context = PromptBuilder(config, pool())
    for example in pool():
        asked = context.prompt(example)
        *solved, own = asked.split("\n\n")
        assert own == example.prompt
        assert len(solved) == 3
        assert all(text.startswith("Q ") and " A " in text for text in solved)
        assert not any(text.startswith(example.prompt) for text in solved)
    assert PromptBuilder(config, pool()[::-1]).prompt(pool()[0]) == context.prompt(pool()[0])


def test_too_few_solved_examples_are_told(make_config: Make) -> None:
    with pytest.raises(DistillError, match=r"asks for 6 solved examples .* has 6"):
        PromptBuilder(make_config(supervision="context", teacher="t", context={"examples": 6}), pool())


def test_the_system_prompt_is_the_teachers_alone(make_config: Make) -> None:
    told = {"supervision": "context", "context": {"system": "Be brief, please."}}
    assert teacher_spec(make_config(teacher="t", **told), "t").get("system_prompt") == "Be brief, please."
    assert teacher_spec(make_config(teacher="t"), "t").get("system_prompt") is None
    with pytest.raises(DistillError, match="Keep one"):
        teacher_spec(make_config(teacher="t", **told), "t,system_prompt=mine")


@pytest.mark.parametrize("texts", ["gold_answers", "traces"])
def test_a_student_learns_what_its_teacher_says_with_a_context(
    make_config: Make, tmp_path: Path, teacher: Path, texts: str
) -> None:
    config = make_config(
        supervision="context", teacher=str(teacher), context={"system": "the answer is "}, texts=texts,
        generation={"max_tokens": 12}, training={"max_steps": 40, "batch_size": 16, "lr": 0.01},
    )  # fmt: skip
    out = distill(config, tmp_path / "out", device="cpu")
    story = json.loads((out / "distill.json").read_text())
    assert story["terms"][-1]["divergence"] < 0.7 * story["terms"][0]["divergence"]
    assert json.loads((out / "capgap.json").read_text())["supervision"] == "context"
    plain = make_config(
        supervision="logits", teacher=str(teacher), texts="gold_answers", training={"max_steps": 1, "batch_size": 4}
    )
    other = distill(plain, tmp_path / "plain", device="cpu")
    # The same texts under another prompt are other questions to the teacher.
    assert json.loads((other / "distill.json").read_text())["distributions"]["computed"] == [55]
