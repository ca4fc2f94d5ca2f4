"""A team of teachers as one: whose text a student learns, prompt by prompt."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from capgap.distillation.data.selection import TrainingExample
from capgap.distillation.data.targets import graded
from capgap.distillation.teacher.generations import TaskItemKey, TeacherGenerations
from capgap.errors import DistillError


def select_texts(generations: Sequence[TeacherGenerations], team_choice_rule: str, *, name: str) -> TeacherGenerations:
    """One text for each prompt that any teacher answered.

    Parameters
    ----------
    generations
        Of each teacher, in the order of the file.
    team_choice_rule
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
    if len(generations) == 1:
        return generations[0]
    # Key of an example → index of a teacher → its text.
    texts: dict[TaskItemKey, dict[int, str]] = defaultdict(dict)
    examples: dict[TaskItemKey, TrainingExample] = {}
    for teacher, teacher_generations in enumerate(generations):
        for example, text in teacher_generations.pairs:
            examples[example.task, example.item] = example
            texts[example.task, example.item][teacher] = text
    if team_choice_rule == "task":
        best_teacher_by_task = _best_by_task(generations, name)
        chosen = {key: best_teacher_by_task[key[0]] for key in texts}
    elif team_choice_rule == "confidence":
        chosen = {key: max(texts[key], key=lambda n: generations[n].confidence[key]) for key in texts}
    else:
        chosen = {key: _majority(examples[key], candidates) for key, candidates in texts.items()}
    # the best teacher of a task may have no text for a prompt of it
    chosen = {key: teacher for key, teacher in chosen.items() if teacher in texts[key]}
    pairs = tuple((examples[key], texts[key][teacher]) for key, teacher in chosen.items())
    scores = [graded(example, text)[0] for example, text in pairs]
    n_right = None if None in scores else scores.count(1.0)
    shares = tuple(list(chosen.values()).count(n) / max(len(chosen), 1) for n in range(len(generations)))
    first = generations[0]
    return replace(
        first, pairs=pairs, n_right=n_right, n_unparsed=first.n_asked - len(pairs), n_cut=0, n_wrong_dropped=0,
        shares=shares,
    )  # fmt: skip


def _majority(example: TrainingExample, texts: Mapping[int, str]) -> int:
    """The first teacher that gives the answer which most give."""
    answers = {teacher: graded(example, text)[1] or text.strip() for teacher, text in texts.items()}
    answer_votes = Counter(answers.values())
    return max(answers, key=lambda teacher: (answer_votes[answers[teacher]], -teacher))


def _best_by_task(generations: Sequence[TeacherGenerations], name: str) -> dict[str, int]:
    """The teacher that is right most often on each task; one that does not answer is not right."""
    # Task → number of right answers of each teacher, shape (teachers,).
    n_right: dict[str, list[float]] = defaultdict(lambda: [0.0] * len(generations))
    for teacher, teacher_generations in enumerate(generations):
        for example, text in teacher_generations.pairs:
            score = graded(example, text)[0]
            if score is None:
                raise DistillError(
                    f"{name}: team.choose: task, and nothing here tells which answers of task {example.task!r} are "
                    "right. Use agreement or confidence."
                )
            n_right[example.task][teacher] += score
    # index gives the first of equals
    return {task: sums.index(max(sums)) for task, sums in n_right.items()}
