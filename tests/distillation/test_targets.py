import pytest

from capgap.distillation.data.selection import TaskFormat, TrainingExample
from capgap.distillation.data.targets import answer_text, gold_answer, gold_trace
from capgap.errors import DistillError

STATED = TaskFormat(extract=r"answer is (\S+)", score="exact")
NUMERIC = TaskFormat(score="numeric")
MARKED = TaskFormat(extract=r"(A \S+)")
FILE = TaskFormat(extract=r"A (\S+)", delimiter="")
WORDS = {"rationale": "So the answer is 7"}
SHOT = {"shot": "The answer is 7"}


def example(task_format: TaskFormat, **changes: object) -> TrainingExample:
    told = {"item": "1", "prompt": "Q ?", "target": "7", "targets": ("7",), "rationale": "5 + 2 = 7 ;", "task": "t"}
    return TrainingExample(**{**told, **changes}, task_format=task_format)  # type: ignore[arg-type]


# task_format, what differs, gold answer, gold trace, the teacher's text, what was read from it, its student's text
CASES = [
    (NUMERIC, {}, " 7", " 5 + 2 = 7 ; 7", "It is 8.", "8", " 8"),
    (MARKED, {"target": "A 7", "targets": ("A 7",)}, " A 7", " 5 + 2 = 7 ; A 7", " 5 ; A 8", "A 8", " A 8"),
    (STATED, WORDS, " answer is 7", " So the answer is 7", "the answer is 8", "8", " answer is 8"),
    (STATED, SHOT, " answer is 7", " 5 + 2 = 7 ; answer is 7", "the answer is 8", "8", " answer is 8"),
    (FILE, {"target": " A 7"}, " A 7", " 5 + 2 = 7 ; A 7", "5 ; A 8", "8", " A 8"),
    (TaskFormat(), {"choices": ("7", "8"), "rationale": None}, " 7", None, "", "8", " 8"),
]


@pytest.mark.parametrize(("task_format", "changes", "answer", "trace", "said", "read", "copied"), CASES)
def test_gold_and_taught_answers_have_one_form(
    task_format: TaskFormat,
    changes: dict[str, object],
    answer: str,
    trace: str | None,
    said: str,
    read: str,
    copied: str,
) -> None:
    made = example(task_format, **changes)
    assert gold_answer(made) == answer
    assert answer_text(made, said, read) == copied
    if trace is not None:
        assert gold_trace(made) == trace


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (example(MARKED, rationale=None), "has no rationale"),
        (example(TaskFormat()), "without 'extract'"),
        (example(TaskFormat(extract=r"= (\d+) done", score="exact")), "reads no answer from the target '7'"),
        (example(TaskFormat(extract=r"(\d+) ;", score="exact"), target="7 ;", targets=("9",)), "'extract'"),
    ],
)
def test_a_gold_text_that_evaluation_could_not_read_is_refused(made: TrainingExample, message: str) -> None:
    with pytest.raises(DistillError, match=message):
        gold_trace(made)
