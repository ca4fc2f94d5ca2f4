import math

import pytest

from capgap.report import text


@pytest.mark.parametrize(
    ("value", "percent", "points"),
    [
        (0.613, "61.3\u202f%", "+61.3"),
        (-0.0201, "\u22122.0\u202f%", "\u22122.0"),
        (-0.0001, "0.0\u202f%", "0.0"),
        (0.0, "0.0\u202f%", "0.0"),
        (None, "\u2013", "\u2013"),
        (math.nan, "\u2013", "\u2013"),
    ],
)
def test_numbers_are_rounded_once_and_the_unknown_is_a_dash(value, percent, points):
    assert text.percent(value) == percent
    assert text.points(value) == points


def test_an_interval_says_which_end_is_open():
    assert text.interval(0.1, 0.25) == "[10.0, 25.0]"
    assert text.interval(None, 0.25) == "[open, 25.0]"
    assert text.interval(-0.1, math.nan) == "[\u221210.0, open]"
    assert text.interval(None, None) == ""


def test_clean_text_shows_controls_and_keeps_lines():
    assert text.sanitise_text("a\x00b\r\nc\td\u202ee\ud800") == "a\u2400b\nc\td\ufffde\ufffd"
    assert text.sanitise_text("\u05e9\u200f \U0001f468\u200d\U0001f469") == "\u05e9\u200f \U0001f468\u200d\U0001f469"


@pytest.mark.parametrize("length", [1, 10, 11, 80, 500])
def test_shortened_text_keeps_its_bound_and_both_ends(length):
    word = "".join(chr(97 + i % 26) for i in range(length))
    short = text.shorten(word, 10)
    assert len(short) <= 10
    assert (short == word) == (length <= 10)
    assert short[0] == word[0]
    assert short[-1] == word[-1]


def test_an_excerpt_loses_nothing_without_saying_so():
    part = text.excerpt("x" * 3000, n_head_characters=100, total=1000)
    assert len(part.head) + len(part.rest) + part.left_out == 3000
    assert text.excerpt("", n_head_characters=100).head == ""
    assert text.excerpt(None) is None
    assert text.excerpt(math.nan) is None


def test_the_digest_is_sha256():
    assert text.digest("abc") == "ba7816bf8f01"
    assert text.digest(None) == "\u2013"


def test_lists_are_bounded():
    assert text.join([]) == ""
    assert text.join(["a"]) == "a"
    assert text.join(["a", "b", "c"]) == "a, b and c"
    assert text.join(map(str, range(20)), limit=3) == "0, 1 and 18 more"
