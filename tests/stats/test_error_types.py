import ast
import sys
import time
from pathlib import Path

import pytest

from capgap.stats import ERROR_TYPES, error_types, has_reasoning_steps, step_results
from capgap.stats.error_types import classify_near_miss, is_refusal, is_repeated

LOOP = "Let us see. The answer is that the answer is " + "so we add two and two, " * 30


@pytest.mark.parametrize(
    ("text", "facts", "kinds"),
    [
        ("", {}, ("empty",)),
        (" \n\t…!", {}, ("empty",)),
        ("The sum is", {"cut_off": True}, ("cut_off", "unparsed")),
        (LOOP, {"cut_off": True}, ("cut_off", "repeated", "unparsed")),
        ("I'm sorry, but I cannot answer that.", {}, ("refusal", "unparsed")),
        ("Perhaps.", {}, ("unparsed",)),
        ("It is 41.", {"prediction": "41", "gold": ["42"]}, ("near_miss",)),
        (
            "It is 17.",
            {"prediction": "17", "gold": ["42"], "teacher_prediction": "17.0", "teacher_right": False},
            ("teacher_answer",),
        ),
        (
            "It is 17.",
            {"prediction": "17", "gold": ["42"], "teacher_prediction": "17", "teacher_right": None},
            ("other",),
        ),
        (
            "3 * 4 = 12, 12 + 30 = 42, so 17",
            {"prediction": "17", "gold": ["40"], "gold_steps": ["12", "42", "40"]},
            ("right_steps_wrong_answer",),
        ),
        (
            "42, 12, so 17",
            {"prediction": "17", "gold": ["40"], "gold_steps": ["12", "42", "40"]},
            ("other",),
        ),
        (None, {"prediction": "Paris", "gold": ["Rome"]}, ("other",)),
        (None, {}, ("other",)),
    ],
)
def test_a_wrong_response_has_its_kinds_in_order(text, facts, kinds):
    assert error_types(text, correct=False, **facts) == kinds
    assert list(kinds) == sorted(kinds, key=list(ERROR_TYPES).index)


def test_a_right_answer_fails_only_by_its_steps():
    steps = ["12", "20", "26", "42"]
    assert error_types("I guess 42.", correct=True, prediction="42", gold_steps=steps) == ("wrong_steps_right_answer",)
    assert error_types("12, 20, 26, 42", correct=True, prediction="42", gold_steps=steps) == ()
    assert error_types("42", correct=True, prediction="42") == ()
    assert error_types(None, correct=True, gold_steps=steps) == ()


def test_steps_in_words_are_found_whatever_their_case():
    steps = ["Socrates is a man", "all men are mortal"]
    text = "SOCRATES IS A MAN, and all men are mortal; hence no."
    assert error_types(text, correct=False, prediction="no", gold=["yes"], gold_steps=steps) == (
        "right_steps_wrong_answer",
    )


@pytest.mark.parametrize(
    ("prediction", "gold", "kind"),
    [
        ("41", "42", "off by one"),
        ("-42", "42", "sign"),
        ("4.2", "42", "power of ten"),
        ("$1,250", "1,258.0", "within 1 %"),
        ("1758", "1258", "digit"),
        ("1000", "1005", "digit"),
        ("10.04", "10.1", "within 1 %"),
        ("42", "42.0", ""),
        ("1/2", "0.5", ""),
        ("50 %", "0.5", ""),
        ("0", "1", ""),
        ("forty", "42", ""),
        ("1/0", "42", ""),
        ("9" * 100, "42", ""),
        ("٤١", "42", "off by one"),
    ],
)
def test_near_misses(prediction, gold, kind):
    assert classify_near_miss(prediction, gold) == kind


def test_loops_are_loops_and_prose_is_not():
    prose = Path(__file__).read_text(encoding="utf-8")
    assert is_repeated(LOOP)
    assert is_repeated("ha" * 50)
    assert is_repeated("Step 1. " + "I add one and then I go on. " * 20 + "Answer: 5")
    assert is_repeated("数えます。" * 40)
    assert not is_repeated(prose)
    assert not is_repeated("no no no no")
    assert not is_repeated("The digits are " + " ".join(str(i) for i in range(200)))


def test_refusals_stand_at_the_beginning():
    assert is_refusal("As an AI language model, I have no body.")
    assert is_refusal("I don’t know.")
    assert not is_refusal("x " * 300 + "I'm sorry")
    assert not is_refusal("The answer is 4. I am certain.")


@pytest.mark.parametrize(
    "text",
    ["a" * 100_000, "ab" * 50_000, "9" * 100_000, "9," * 50_000, "-" * 100_000, "i am " * 20_000, "\u0300" * 100_000,
     "ﷺ" * 100_000, "\x00\ud800" * 50_000, "𝟗.𝟗" * 33_000, "a" * 50_000 + "b" + "a" * 50_000,
     " ".join(map(str, range(20_000)))],
    ids=lambda text: ascii(text[:4]),
)  # fmt: skip
def test_hostile_texts_take_linear_time(text):
    def seconds(part: str) -> float:
        started = time.perf_counter()
        facts = {"prediction": part, "gold": [part[:50_000]], "teacher_prediction": part + "x", "teacher_right": False}
        assert error_types(part, correct=False, gold_steps=["17", "a step", "23"], **facts)
        return time.perf_counter() - started

    assert seconds(text) < 3.0


def test_time_grows_no_faster_than_the_text():
    def seconds(n: int) -> float:
        started = time.perf_counter()
        is_repeated("ab" * n + "c" + "ab" * n)
        return time.perf_counter() - started

    assert min(seconds(40_000) for _ in range(3)) < 12 * min(seconds(8_000) for _ in range(3)) + 0.05


def test_the_rules_import_the_standard_library_alone():
    path = Path(sys.modules["capgap.stats.error_types"].__file__)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    modules |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert {module.split(".")[0] for module in modules} <= set(sys.stdlib_module_names)


@pytest.mark.parametrize(
    ("trace", "results"),
    [
        ("7 * 7 = 9 ; 9 + 1 = 0 ;", ("9", "0")),
        ("flip n l o = l n o ; reverse l n o = o n l ;", ("l n o", "o n l")),
        ("lake of baboburg is kovimere ;", ("kovimere",)),
        ("(26 < 18) is False. False or True is True. The answer is", ("false", "true")),
        ("She had 48/2 = <<48/2=24>>24 clips.\nThen 48+24 = <<48+24=72>>72.\n#### 72", ("24", "72")),
        ("He earned 10 dollars.\nSo the answer is 12.", ("10",)),
        ("", ()),
        ("... ;;; ===", ()),
    ],
)
def test_a_step_arrives_at_what_stands_last(trace, results):
    assert step_results(trace) == results


def test_steps_are_read_in_bounded_time():
    assert len(step_results("1 = 1 ; " * 50_000)) == 200
    assert len(step_results("<<" * 50_000)) <= 200


def test_an_answer_alone_is_no_trace():
    gold = ("12", "20", "26", "42")
    assert not has_reasoning_steps("42", gold)
    assert not has_reasoning_steps("The answer is 42.", gold)
    assert has_reasoning_steps("6 + 6 = 12. 12 + 8 = 20. 20 + 6 = 26. The answer is 42.", gold)
