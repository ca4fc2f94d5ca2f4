"""Foreign text on one line, in bounds, without what a terminal obeys."""

import pytest

from capgap.importers.values import short_text
from capgap.printable_text import cut_middle, make_printable, natural_order, one_line
from capgap.report.text import shorten


def test_printable_keeps_line_breaks_and_nothing_else_that_a_terminal_obeys() -> None:
    assert make_printable("a\nb\tc\x1b[2Jd\r") == "a\nb\tc\N{REPLACEMENT CHARACTER}[2Jd\N{REPLACEMENT CHARACTER}"
    assert one_line(" a\n\n b\x07\u202e ") == "a b\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize(
    ("limit", "expected"), [(6, "abcdef"), (5, "abc…f"), (4, "ab…f"), (3, "ab…"), (1, "…"), (0, "…"), (-3, "…")]
)
def test_what_is_too_long_loses_its_middle(limit: int, expected: str) -> None:
    assert cut_middle("abcdef", limit) == expected


def test_terminal_import_and_page_shorten_alike() -> None:
    name = "organisation/a-model-of-a-long-name-checkpoint-1200"
    assert cut_middle(name, 20) == short_text(name, 20) == shorten(name, 20)
    assert short_text({"a": 1}) == "an object"


def test_names_are_ordered_by_their_numbers():
    names = ["s-10", "s-9", "checkpoint-1000", "checkpoint-200", "7", "s"]
    assert sorted(names, key=natural_order) == ["7", "checkpoint-200", "checkpoint-1000", "s", "s-9", "s-10"]
