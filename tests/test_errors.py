import pytest

from capgap import errors
from capgap.errors import CapgapError, suggestion


def test_every_exception_is_a_capgap_error_and_in_the_drawn_tree() -> None:
    classes = [getattr(errors, name) for name in errors.__all__ if name.endswith("Error")]
    assert all(issubclass(cls, CapgapError) for cls in classes)
    assert all(cls.__name__ in str(errors.__doc__) for cls in classes)


@pytest.mark.parametrize(
    ("word", "known", "expected"),
    [
        ("knowlege", ["knowledge", "reasoning"], " Did you mean 'knowledge'?"),
        ("zzz", ["b", "a"], " Known: a, b."),
        ("zzz", [], ""),
        ("zzz", [str(n) for n in range(20)], " Known: 0, 1, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19 and 8 more."),
    ],
)
def test_suggestion_names_the_nearest_word_else_the_known_ones(word: str, known: list[str], expected: str) -> None:
    assert suggestion(word, known) == expected
