import time
from pathlib import Path

import pytest

from capgap.battery import extraction as module
from capgap.battery import load_battery, prepare_battery, score_generation
from capgap.battery.battery_check import mean_primary_score
from capgap.battery.extraction import backtracking_complaint, extract_answer, syntax_complaint
from capgap.errors import BatteryError

from .conftest import Write

# Each of these takes longer than anybody would wait, or more memory than anybody has, in a matcher without bounds.
EXPLODING = [
    "(a|a)*$",
    "(a|aa)+$",
    r"answer is (b|b)*$",
    r"(?:\w|[a-z])*!$",
    "(a{1000}){1000}",
    "(?:(?:a{1000}){1000}){1000}",
    "(" * 100 + "a|a" + ")*" * 100 + "$",
]


@pytest.mark.parametrize("extract", EXPLODING)
def test_an_expression_that_explodes_is_refused_before_anything_is_asked(extract: str) -> None:
    start = time.process_time()
    told = syntax_complaint(extract) or backtracking_complaint(extract)
    assert told is not None
    assert "does not come to an end" in told or "repeats something" in told
    assert time.process_time() - start < 3


@pytest.mark.parametrize(
    ("extract", "words"),
    [
        ("(", "unterminated"),
        ("a{1,99999999999999999999}", "too large"),
        (r"\p{L}+", "bad escape"),
        ("cat{e<=1}", r"write \{"),
        ("(" * 400 + "a" + ")" * 400, "expected a regular expression"),
    ],
)
def test_what_is_no_expression_of_pythons_says_so(extract: str, words: str) -> None:
    told = syntax_complaint(extract)
    assert told is not None
    assert words in told
    with pytest.raises(BatteryError, match="key 'extract'"):
        extract_answer("x", extract)


@pytest.mark.parametrize(
    "extract",
    [
        "answer is (.*)",
        r"(?is)^(?:.*\banswer\s+is\b:?)?\W*(?:(?:the|a|an)\s+)?(\w+)",
        r"#### (-?[0-9.,]+)",
        r"\\boxed\{(.*?)\}",
        r"\(([A-D])\)",
        r"\s*(\w+)\s*(\w+)\s*$",
        r"(?<=so )\d{1,4}(?:,\d{3})*",
        r"(a+)+$",  # this matcher is not caught by it
    ],
)
def test_what_people_write_is_not_refused(extract: str) -> None:
    assert syntax_complaint(extract) is None
    assert backtracking_complaint(extract) is None


def test_the_battery_names_the_line_of_a_bad_expression(write: Write) -> None:
    path = write(("score: numeric", "score: numeric\n    extract: '(a|aa)+$'"))
    with pytest.raises(BatteryError, match=r"mine\.yaml, line 20, .*'extract': .*does not come to an end"):
        load_battery(path)


def test_thousands_of_exploding_expressions_take_no_longer_than_one(write: Write) -> None:
    variants = ", ".join(f"v{n}: {{extract: '(a|aa)+{n}?$'}}" for n in range(2_000))
    path = write(("score: numeric", f"score: numeric\n    variants: {{{variants}}}"))
    start = time.process_time()
    with pytest.raises(BatteryError, match=r"variants\.v0\.extract"):
        load_battery(path)
    assert time.process_time() - start < 10


def test_an_answer_that_takes_too_long_is_unparsed_and_the_third_refuses_the_expression(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MATCH_TIMEOUT", 0.05)
    extract = r"(\w+)(\w+)(\w+)\s$"
    assert syntax_complaint(extract) is None
    slow = [letter * 9_999 + "!" for letter in "abc"]
    for answer in (slow[0], slow[1], slow[0]):  # the same answer again is not another one
        assert score_generation("exact", answer, ["x"], extract) == (0.0, None)
    assert score_generation("exact", "abcd ", ["c"], extract)[1] == "ab"
    for _ in range(2):
        with pytest.raises(BatteryError, match=r"stopped after 0\.05 seconds on 3 answers, the last of 10,000"):
            extract_answer(slow[2], extract)


def test_only_the_end_of_a_long_answer_is_searched() -> None:
    assert extract_answer("answer is 3\n" + "x" * module.MAX_SEARCHED_CHARACTERS, "answer is (.*)") is None
    assert extract_answer("x" * module.MAX_SEARCHED_CHARACTERS + "\nanswer is 3", "answer is (.*)") == "3"


def test_lm_evals_metrics_read_with_the_same_bounds(write: Write) -> None:
    path = write(
        ("score: numeric", "score: exact_match\n    extract: 'answer is (.*)'"), ('"{{text}} so', '"{{text}} so')
    )
    prepared = prepare_battery(load_battery(path))[1]
    assert mean_primary_score(prepared, lambda item, request: f"answer is 7. So the answer is {item.targets[0]}") == 1.0
    assert mean_primary_score(prepared, lambda item, request: item.targets[0]) == 0.0


def test_no_expression_of_a_shipped_battery_is_refused() -> None:
    from capgap.battery import list_batteries

    for name in list_batteries():
        assert Path(load_battery(name).path).is_file()
