import numpy as np
import pytest

from capgap.classification.prompt_variants import ENGLISH, WORLD, NumberSubstitution, draw_choices

RNG = np.random.default_rng(0)


def test_the_microworld_is_asked_in_its_own_language() -> None:
    question = WORLD.strip_cue("Q 7 * 7 ? A")
    assert question == "Q 7 * 7 ?"
    assert WORLD.without(question) == "Q 7 * 7 ? A"
    assert WORLD.thought_prompt(question) == "Q 7 * 7 ?"
    assert WORLD.cot_prompt(question, " 7 * 7 = 9 ; ") == "Q 7 * 7 ? 7 * 7 = 9 ; A"
    assert WORLD.fact_prompt(question, "7 * 7 = 9 ;") == "Q 7 * 7 ? 7 * 7 = 9 ; A"
    assert WORLD.answer("9") == WORLD.answer("A 9") == " 9"


def test_thoughts_stand_between_the_question_and_the_same_cue() -> None:
    question = ENGLISH.strip_cue("How many? \n")
    assert ENGLISH.without(question) == "How many?\nThe answer is"
    assert ENGLISH.cot_prompt(question, " One. Two. ").startswith(ENGLISH.thought_prompt(question) + " One. Two.")
    assert ENGLISH.cot_prompt(question, "x").endswith("the answer is")
    assert ENGLISH.fact_prompt(question, "There are two.") == "There are two.\n\nHow many?\nThe answer is"
    assert ENGLISH.answer("two") == " two"


def test_numbers_are_exchanged_for_others_of_the_task_that_are_as_long() -> None:
    numbers = NumberSubstitution(["In 1961 and 1969", "in 1970, 3 men", "4 dogs"])
    for _ in range(20):
        changed = numbers.renumbered("In 1961, 3 men", np.random.default_rng())
        assert changed is not None
        year, men = changed.removeprefix("In ").split(", ")
        assert year in {"1969", "1970"}
        assert men == "4 men"


@pytest.mark.parametrize("text", ["no number", "the only 12345", "", "٣ رجال"])
def test_a_question_without_another_number_is_not_changed(text: str) -> None:
    assert NumberSubstitution([text]).renumbered(text, RNG) is None


def test_borrowed_answers_hold_the_right_one_once_and_only_right_ones_of_others() -> None:
    targets = ["a", "b", "c", "d", "e", None, "a"]
    found = draw_choices(["?"] * 7, targets, 4, np.random.default_rng(1))
    for target, choices in zip(targets, found, strict=True):
        if target is None:
            assert choices == ()
        else:
            assert len(choices) == len(set(choices)) == 4
            assert target in choices
            assert set(choices) <= {"a", "b", "c", "d", "e"}
    assert len({choices.index(t) for t, choices in zip(targets, found, strict=True) if t}) > 1


def test_an_answer_that_stands_in_the_question_is_not_told_by_looking() -> None:
    found = draw_choices(["of w, x, y, z?", "?", "?", "?", "?"], ["w", "x", "y", "z", "q"], 4, np.random.default_rng(2))
    assert set(found[0]) == {"w", "x", "y", "z"}


def test_one_answer_for_all_leaves_nothing_to_choose() -> None:
    assert draw_choices(["?", "?"], ["yes", "yes"], 4, RNG) == [(), ()]
