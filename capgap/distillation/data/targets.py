"""Target completions: the text of a direct answer, and the text of steps and answer, gold or of a teacher.

A student of answers and a student of traces must both give answers that their evaluation can read. So every gold
text is scored as the battery would score it before anything is trained on it.
"""

import re
from collections.abc import Callable, Sequence

from capgap.battery import score_generation
from capgap.battery.answer_scoring import TEXT_SCORERS
from capgap.distillation.config import DistillConfig
from capgap.distillation.data.selection import CompletedExample, TrainingExample
from capgap.errors import DistillError


def leading_delimiter(example: TrainingExample) -> str:
    """What a completion begins with: the task's delimiter, or the white space that a file's completions bring."""
    target = example.target
    return example.task_format.delimiter or target[: len(target) - len(target.lstrip())]


def graded(example: TrainingExample, text: str) -> tuple[float | None, str | None]:
    """The battery's score of a text and the answer that was read from it.

    The score is None where the task is scored by something that is not here (``external``, a metric of lm-eval);
    the answer is None where none could be read.
    """
    task_format = example.task_format
    targets = example.targets or (example.target.strip(),)
    can_score = task_format.score in TEXT_SCORERS
    score, answer = score_generation(task_format.score if can_score else "exact", text, targets, task_format.extract)
    return (score if can_score else None), answer


def gold_answer(example: TrainingExample) -> str:
    """The completion that answers directly: delimiter and gold answer, so that the task can read it.

    The answer is the gold target where the task reads it as such, else the statement around it (``A 7``, ``answer is
    7``) as the solved example or the rationale states it.

    Raises
    ------
    DistillError
        The task's ``extract`` finds the answer in none of them.
    """
    delimiter, target = example.task_format.delimiter, example.target
    if example.choices is not None or example.task_format.extract is None or _is_right(example, target):
        return f"{delimiter}{target}"
    for text in (example.shot, example.rationale):
        answer_phrase = _find_answer_phrase(text, example.task_format.extract) if text else None
        if answer_phrase is not None and _is_right(example, answer_phrase):
            return f"{delimiter}{answer_phrase}"
    raise DistillError(
        f"{_describe_item(example)}: 'extract' ({example.task_format.extract!r}) reads no answer from the target "
        f"{target!r:.60}. Give the task a 'shot' whose text states the answer as a response would."
    )


def gold_trace(example: TrainingExample) -> str:
    """The completion that shows the gold steps and then the answer.

    Raises
    ------
    DistillError
        There are no steps, or the task could not read the answer behind them.
    """
    if example.rationale is None:
        raise DistillError(
            f"{_describe_item(example)}: has no rationale, which supervision gold_traces needs. "
            "Give 'rationale', name other tasks under data.tasks, or use gold_answers."
        )
    steps = example.rationale.strip()
    if example.task_format.extract is not None and _is_right(example, steps):
        return f"{leading_delimiter(example)}{steps}"
    text = f"{leading_delimiter(example)}{steps}{example.task_format.answer_prefix}{gold_answer(example).strip()}"
    if example.task_format.extract is not None or example.task_format.score == "numeric":
        if not _is_right(example, text):
            raise DistillError(
                f"{_describe_item(example)}: the answer cannot be read behind its rationale: {text!r:.120}. "
                f"'extract' is {example.task_format.extract!r}."
            )
    elif example.task != "file" and example.choices is None:
        raise DistillError(f"{_describe_item(example)}: without 'extract', nothing tells steps from answer. Give one.")
    return text


def answer_text(example: TrainingExample, response: str, answer: str) -> str:
    """The completion that states a teacher's answer directly, in the form that the gold answer has.

    Parameters
    ----------
    example
        What was asked.
    response
        The whole text of the teacher.
    answer
        What was read from it.
    """
    extract = example.task_format.extract
    if extract is None or graded(example, example.target)[1] == example.target.strip():
        return f"{leading_delimiter(example)}{answer}"  # the gold answer stands bare too
    return f"{leading_delimiter(example)}{_find_answer_phrase(response, extract) or answer}"


GOLD_BUILDERS: dict[str, Callable[[TrainingExample], str]] = {"gold_answers": gold_answer, "gold_traces": gold_trace}
"""Completions of the gold texts of `supervision.TEXTS`."""


def gold_completions(examples: Sequence[TrainingExample], config: DistillConfig) -> list[CompletedExample]:
    """Examples with the gold completions that the file asks for; a conversation brings its own, and has ``""``.

    Raises
    ------
    DistillError
        Steps are asked for, and there are conversations, which have none; or as `gold_answer` and `gold_trace`.
    """
    if config.text_kind.has_reasoning and any(example.messages is not None for example in examples):
        advice = "use gold_answers, or prompt, completion, rationale."
        raise DistillError(f"{config.name}: messages have no rationale; {advice}")
    completion = GOLD_BUILDERS[config.text_kind_name]
    return [(example, "" if example.messages is not None else completion(example)) for example in examples]


def find_answer_offset(example: TrainingExample, text: str) -> int | None:
    """The character at which the answer's statement begins in a text with steps; None where nothing tells."""
    statement = _find_last_match(example.task_format.extract, text)
    return None if statement is None else statement.start()


def _find_answer_phrase(text: str, extract: str) -> str | None:
    """All of the last match of `extract`: the answer and the words by which it is known."""
    statement = _find_last_match(extract, text)
    return None if statement is None else statement.group(0).strip()


def _find_last_match(pattern: str | None, text: str) -> re.Match[str] | None:
    matches = [] if pattern is None else list(re.finditer(pattern, text))
    return matches[-1] if matches else None


def _is_right(example: TrainingExample, text: str) -> bool:
    score, answer = graded(example, text)
    return score == 1.0 if score is not None else answer is not None


def _describe_item(example: TrainingExample) -> str:
    return f"task {example.task!r}, item {example.item!r}"
