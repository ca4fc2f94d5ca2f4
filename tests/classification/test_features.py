"""What is read from an item, checked against what a reader counts."""

import random
import time

import numpy as np
import pytest

from capgap.classification.choice_parsing import split_off_choices
from capgap.classification.evidence import ItemText
from capgap.classification.features import FEATURES, item_features, scaled, table
from capgap.classification.reason_texts import GROUPS, describe_group

NAMES = [feature.name for feature in FEATURES]


def values(text: str, *choices: str) -> dict[str, float]:
    return dict(zip(NAMES, item_features(ItemText(text, choices)).values, strict=True))


def test_numbers_in_figures_and_in_words_are_counted_and_years_apart() -> None:
    found = values("In 1999 Ben had 3 apples and seven pears.")
    assert (found["numbers"], found["years"], found["two numbers or more"]) == (2, 1, 1)
    assert values("Ben had apples.")["numbers"] == 0


@pytest.mark.parametrize("text", ["It was 12/24/1937.", "It was May 3, 1999.", "It was on 4 March 1999."])
def test_a_year_within_a_date_is_no_year_that_is_named(text: str) -> None:
    assert values(text)["years"] == 0
    assert values(text)["dates"] >= 1 or values(text)["numbers"] >= 1


def test_operators_brackets_and_their_depth_are_counted() -> None:
    found = values("((3 + 4) * [2 - 1]) =")
    assert (found["operators"], found["brackets"], found["depth of brackets"]) == (4, 6, 2)


def test_unbalanced_brackets_do_not_go_below_the_ground() -> None:
    assert values(")))] (")["depth of brackets"] == 1


def test_full_names_and_first_names_are_told_apart() -> None:
    found = values("Then Alice met Johannes Kepler.")
    assert (found["names"], found["full names"], found["persons by first name"]) == (3, 1, 1)


def test_the_first_word_of_a_sentence_and_capital_letters_make_no_names() -> None:
    assert values("Water boils. Ice melts. WORLD HISTORY is long.")["names"] == 0


def test_a_list_is_material_and_its_words_have_no_meaning() -> None:
    found = values("Sort the list: king river battle novel president treaty")
    assert found["material"] == 7
    assert found["world and its people"] == 0
    assert values("The king fought a battle.")["world and its people"] == 2


def test_what_is_asked_about_was_told_before() -> None:
    told = values("The red box is in the green box. Where is the red box?")
    fresh = values("The red box is in the green box. Who invented paper?")
    assert told["question's words said before"] == 1
    assert fresh["question's words said before"] == 0
    assert (told["new words in the question"], fresh["new words in the question"]) == (0, 1)  # invented is of a kind


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Who wrote it?", "who"),
        ("It is late. Which way leads home?", "which"),
        ("How many are left?", "how many"),
        ("How does it work?", "how"),
        ("Is it late?", "yes or no"),
        ("The capital of Peru is", "no question"),
        ("", "no question"),
    ],
)
def test_every_item_asks_in_exactly_one_way(text: str, kind: str) -> None:
    found = values(text)
    asked = [name for name, value in found.items() if name.startswith("asks: ") and value]
    assert asked == [f"asks: {kind}"]


def test_an_instruction_needs_a_verb_of_doing_at_the_start() -> None:
    assert values("Reverse the word: pencil")["instruction with material"] == 1
    assert values("Name the capital of Peru.")["instruction"] == 0
    assert values("Name the capital of Peru.")["request to recall"] == 1


@pytest.mark.parametrize(
    "text",
    [
        "Question: Where is it?\nChoices:\nA. at home\nB. at sea\nAnswer:",
        "Where is it?\nOptions:\n(A) at home\n(B) at sea",
        "Q: Where is it?\nOptions:\n- at home\n- at sea",
        "Where is it?\nChoices: A. at home\nB. at sea",
        "Where is it?\nA) at home\nB) at sea",
    ],
)
def test_choices_inside_the_text_are_found_and_read_like_declared_ones(text: str) -> None:
    assert split_off_choices(ItemText(text), 10_000).choices == ("at home", "at sea")
    assert item_features(ItemText(text)).values == item_features(ItemText("Where is it?", ("at home", "at sea"))).values


def test_choices_that_are_letters_stand_for_those_in_the_text() -> None:
    split = split_off_choices(ItemText("Where?\nChoices:\nA. home\nB. sea", ("A", "B")), 10_000)
    assert split.choices == ("home", "sea")
    assert split_off_choices(ItemText("Which digit?", ("1", "2")), 10_000).choices == ("1", "2")


def test_choices_that_the_text_names_are_told() -> None:
    assert values("Ann is taller than Bob. Who is tallest?", "Ann", "Bob")["choices told in the text"] == 1
    assert values("Who is tallest?", "Ann", "Bob")["choices told in the text"] == 0


def test_the_target_is_never_read() -> None:
    assert item_features(ItemText("Who?", target="Kepler 3 + 4")) == item_features(ItemText("Who?"))


def test_counts_are_told_as_logarithms_and_shares_as_they_are() -> None:
    raw = np.arange(2.0 * len(FEATURES)).reshape(2, -1) / 100
    found = scaled(raw)
    for n, feature in enumerate(FEATURES):
        expected = np.log1p(raw[:, n]) if feature.value_type == "count" else raw[:, n]
        np.testing.assert_array_equal(found[:, n], expected)


def test_a_table_of_no_items_has_no_rows() -> None:
    assert table([]).shape == (0, len(FEATURES))


def test_every_group_has_words_for_nothing_and_for_something() -> None:
    rng = random.Random(1)
    for group in GROUPS:
        nothing = describe_group(group, dict.fromkeys(NAMES, 0.0))
        something = describe_group(group, {name: rng.choice([1.0, 2.0, 7.0]) for name in NAMES})
        assert nothing
        assert something
        assert nothing == nothing.strip()


HOSTILE = {
    "empty": "",
    "blank": " \n\t\r\n ",
    "null": "a\0b\0",
    "chinese": "法国的首都是哪里？",
    "arabic": "ما هي عاصمة فرنسا؟",
    "emoji": "👩‍👩‍👧‍👦🏳️‍🌈" * 50,
    "surrogate": "\ud800\udfff",
    "combining": "a" + "\u0301" * 5000,
    "marks": "?" * 100_000,
    "newlines": "\n" * 100_000,
    "spaces": " " * 100_000,
    "letters": "a" * 100_000,
    "digits": "9" * 100_000,
    "brackets": "(" * 100_000,
    "closing": ")" * 100_000,
    "options": "Options:" * 12_500,
    "labels": "\n(A) " * 20_000,
    "labels on one line": "(A) " * 25_000,
    "questions": "\nQuestion:" * 10_000,
    "headings": "Question: " * 10_000,
    "tails": "Answer:" * 10_000,
    "apostrophes": "a'" * 50_000,
    "commas": "1," * 50_000,
    "dates": "1/1/1 " * 20_000,
    "words": "the king of France " * 6_000,
    "quotes": '"' * 100_000,
    "quoted": '"a ' * 40_000,
    "dotted": "a. " * 40_000,
    "dashes": "\n- " * 40_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_any_text_is_read_in_linear_time(name: str) -> None:
    start = time.perf_counter()
    found = item_features(ItemText(HOSTILE[name], (HOSTILE[name], "")))
    assert np.isfinite(found.values).all()
    assert time.perf_counter() - start < 2.0


def test_many_choices_and_long_ones_are_read() -> None:
    found = item_features(ItemText("Which?", tuple("word " * 5000 for _ in range(500))))
    assert np.isfinite(found.values).all()
