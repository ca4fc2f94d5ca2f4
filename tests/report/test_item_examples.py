import pytest

from capgap.report.dumbbell import task_capabilities
from capgap.report.item_examples import examples
from tests.report.fixture import TASKS, comparison


@pytest.fixture(scope="module")
def case():
    return comparison(tasks=TASKS[3:5], n_items=40, students=("s1", "s2"))


def drawn(case, *, seed=0, outcomes=None, per_task=3, show=True):
    outcomes = case.outcomes if outcomes is None else outcomes
    capabilities = task_capabilities(outcomes)
    entries = examples(outcomes, case.roles, capabilities, items=case.items, seed=seed, show=show, n_shown=per_task)
    return {entry.task: entry for entry in entries}


def ids(entries):
    return {task: [example.item for example in entry.examples] for task, entry in entries.items()}


def test_the_choice_depends_on_the_seed_and_not_on_the_order_of_rows(case):
    shuffled = case.outcomes.sample(frac=1, random_state=1)
    assert ids(drawn(case, outcomes=shuffled)) == ids(drawn(case))
    assert ids(drawn(case, seed=1)) != ids(drawn(case))


def test_the_choice_of_a_task_does_not_depend_on_other_tasks(case):
    alone = case.outcomes[case.outcomes["task"] == "chains"]
    assert ids(drawn(case, outcomes=alone))["chains"] == ids(drawn(case))["chains"]


def test_candidates_are_counted_by_hand(case):
    wide = case.outcomes[case.outcomes["task"] == "chains"].pivot(index="item", columns="model", values="score")
    wrong = wide[(wide["teacher"] == 1) & ((wide["s1"] == 0) | (wide["s2"] == 0))]
    entry = drawn(case, per_task=1000)["chains"]
    assert entry.n_candidates == len(wrong) == len(entry.examples)
    assert {example.item for example in entry.examples} == set(wrong.index)


def test_everyone_answers_teacher_first(case):
    example = drawn(case)["chains"].examples[0]
    assert [answer.model for answer in example.answers] == ["teacher", "s1", "base", "control", "s2"]
    assert example.prompt.head.startswith("Q: word")
    assert example.target.head.startswith("word")
    assert all(answer.response.rest.startswith("First word") or answer.response.head for answer in example.answers)


def test_withheld_texts_leave_ids_scores_and_hashes(case):
    for entry in drawn(case, show=False).values():
        for example in entry.examples:
            assert example.prompt is None
            assert example.target is None
            assert len(example.digest) == 12
            for answer in example.answers:
                assert answer.answer is None
                assert answer.response is None
                assert answer.score in (0.0, 1.0)
                assert len(answer.digest) == 12
