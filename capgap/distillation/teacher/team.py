"""Several teachers for one student: whose text is learnt, prompt by prompt."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from capgap.distillation.data.selection import TrainingExample
from capgap.distillation.data.targets import graded
from capgap.distillation.teacher.generations import TeacherGenerations
from capgap.errors import DistillError

__all__ = ["select_texts"]

Key = tuple[str, str]


def select_texts(said: Sequence[TeacherGenerations], how: str, *, name: str) -> TeacherGenerations:
    """One text for each prompt that any teacher answered.

    Parameters
    ----------
    said
        What each teacher says, in the order of the file.
    how
        ``agreement``: the answer that most teachers give, in the words of the first who gives it; the first teacher's
        where they are equally many. ``task``: each task's texts are those of the teacher that is right most often on
        it. ``confidence``: the text that its own teacher finds likeliest, by the mean log-probability of a character,
        which tokenizers share.
    name
        Of the student, for messages.

    Raises
    ------
    DistillError
        ``task``, and nothing tells which answers of a task are right.
    """
    if len(said) == 1:
        return said[0]
    texts: dict[Key, dict[int, str]] = defaultdict(dict)
    examples: dict[Key, TrainingExample] = {}
    for teacher, one in enumerate(said):
        for example, text in one.pairs:
            examples[example.task, example.item] = example
            texts[example.task, example.item][teacher] = text
    if how == "task":
        best = _best_by_task(said, name)
        picked = {key: best[key[0]] for key in texts}
    elif how == "confidence":
        picked = {key: max(own, key=lambda teacher: said[teacher].sure[key]) for key, own in texts.items()}
    else:
        picked = {key: _agreed(examples[key], own) for key, own in texts.items()}
    picked = {key: teacher for key, teacher in picked.items() if teacher in texts[key]}
    pairs = tuple((examples[key], texts[key][teacher]) for key, teacher in picked.items())
    right = [graded(example, text)[0] for example, text in pairs]
    n_right = None if any(score is None for score in right) else sum(score == 1.0 for score in right)
    first = said[0]
    return replace(
        first, pairs=pairs, n_right=n_right, n_unparsed=first.n_asked - len(pairs), n_cut=0, n_wrong_dropped=0,
        shares=tuple(sum(teacher == n for teacher in picked.values()) / max(len(picked), 1) for n in range(len(said))),
    )  # fmt: skip


def _agreed(example: TrainingExample, texts: Mapping[int, str]) -> int:
    """The first teacher that gives the answer which most give."""
    answers = {teacher: graded(example, text)[1] or text.strip() for teacher, text in texts.items()}
    votes = Counter(answers.values())
    return max(answers, key=lambda teacher: (votes[answers[teacher]], -teacher))


def _best_by_task(said: Sequence[TeacherGenerations], name: str) -> dict[str, int]:
    """The teacher that is right most often on each task; who does not answer is not right."""
    right: dict[str, list[float]] = defaultdict(lambda: [0.0] * len(said))
    for teacher, one in enumerate(said):
        for example, text in one.pairs:
            score = graded(example, text)[0]
            if score is None:
                raise DistillError(
                    f"{name}: team.choose: task, and nothing here tells which answers of task {example.task!r} are "
                    "right. Use agreement or confidence."
                )
            right[example.task][teacher] += score
    return {task: max(range(len(said)), key=lambda teacher: (sums[teacher], -teacher)) for task, sums in right.items()}
