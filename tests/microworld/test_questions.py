from collections import Counter

import numpy as np
import pytest

from capgap.microworld import Q_FAMILIES, World, WorldQuestion, make_world
from capgap.microworld.world_tokenizer import MAX_SEQUENCE_TOKENS
from tests.microworld.interpreter import answer, memory

FAMILIES_AND_DEPTHS = [(family, depth) for family, facts in Q_FAMILIES.items() for depth in facts.depths]


@pytest.fixture(scope="module")
def world() -> World:
    return make_world()


@pytest.fixture(scope="module")
def told(world: World) -> dict[tuple[str, str], str]:
    return memory([s for fact in world.facts for s in (fact.statement, world.link_statement(fact))])


def drawn_questions(world: World, family: str, depth: int, n: int = 60) -> list[WorldQuestion]:
    rng = np.random.default_rng([depth, len(family)])
    return [Q_FAMILIES[family].draw(world, depth, rng) for _ in range(n)]


@pytest.mark.parametrize(("family", "depth"), FAMILIES_AND_DEPTHS)
def test_a_second_reading_of_the_text_gives_the_same_answer(
    world: World, told: dict[tuple[str, str], str], family: str, depth: int
) -> None:
    for question in drawn_questions(world, family, depth):
        assert answer(question.text, told) == question.answer, question.text


@pytest.mark.parametrize(("family", "depth"), FAMILIES_AND_DEPTHS)
def test_the_rationale_has_one_step_for_each_depth_and_ends_in_the_answer(
    world: World, family: str, depth: int
) -> None:
    for question in drawn_questions(world, family, depth):
        assert len(question.steps) == question.depth == depth
        assert all(step.endswith(" ;") and step.count(";") == 1 for step in question.steps)
        last = question.steps[-1].split()
        if family == "lists":
            asked = question.text.split()[-2]
            assert last[-4 if asked == "first" else -2] == question.answer
        else:
            assert last[-2] == question.answer
        assert question.completion == f"{question.rationale} A {question.answer}"


@pytest.mark.parametrize(("family", "depth"), FAMILIES_AND_DEPTHS)
def test_every_word_is_in_the_vocabulary_and_everything_fits_a_sequence(world: World, family: str, depth: int) -> None:
    vocabulary = set(world.vocabulary)
    for question in drawn_questions(world, family, depth):
        words = f"{question.text} {question.completion} <eos>".split()
        assert vocabulary.issuperset([*words, *question.choices])
        assert len(words) <= MAX_SEQUENCE_TOKENS


@pytest.mark.parametrize("family", Q_FAMILIES)
def test_choices_differ_hold_the_answer_and_place_it_anywhere(world: World, family: str) -> None:
    questions = [q for depth in Q_FAMILIES[family].depths for q in drawn_questions(world, family, depth)]
    for question in questions:
        assert len(set(question.choices)) == len(question.choices) >= 2
        assert question.answer in question.choices
    places = Counter(question.choices.index(question.answer) for question in questions)
    assert len(places) == len(questions[0].choices)


@pytest.mark.parametrize("family", ["chains", "booleans", "cups"])
def test_no_answer_is_likelier_than_the_declared_chance(world: World, family: str) -> None:
    # five standard errors of a share; the last operator and operand are shown, which must not help a guess either
    n = 3000
    rng = np.random.default_rng(7)
    questions = [Q_FAMILIES[family].draw(world, 2, rng) for _ in range(n)]
    chance = Q_FAMILIES[family].chance
    counts = Counter(question.answer for question in questions)
    assert max(counts.values()) / n < chance + 5 * (chance * (1 - chance) / n) ** 0.5
    if family != "cups":
        ends = Counter((tuple(q.text.split()[-3:]), q.answer) for q in questions)
        end, _ = ends.most_common(1)[0][0]
        answers = [count for (seen, _), count in ends.items() if seen == end]
        assert max(answers) / sum(answers) < chance + 5 * (chance * (1 - chance) / sum(answers)) ** 0.5
