import io

import pytest

from capgap.cli.terminal import wrapped, write_lines


class _Terminal(io.StringIO):
    """A stream that calls itself a terminal and has no descriptor: 80 columns."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> _Terminal:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.delenv("CI", raising=False)
    return _Terminal()


@pytest.mark.parametrize("warning", [False, True])
def test_a_message_fits_the_terminal_with_what_stands_before_it(warning: bool, terminal: _Terminal) -> None:
    text = "one two-three four " * 20 + "capgap-out/" + "x" * 90
    write_lines(terminal, wrapped(text, terminal, warning=warning), warning=warning)
    lines = terminal.getvalue().splitlines()
    assert all(len(line) <= 80 for line in lines[:-1])
    assert len(lines[-1]) == 2 + len("capgap-out/") + 90, "a path stays whole, whatever its length"
    assert " ".join(lines).replace("   ", " ").removeprefix("warning: ") == text
    assert not any(line.endswith("two-") for line in lines)


def test_nothing_is_wrapped_where_nobody_looks() -> None:
    assert wrapped("a " * 200, io.StringIO()) == [("a " * 200).strip()]


@pytest.mark.parametrize("warning", [False, True])
def test_an_empty_message_is_an_empty_line(warning: bool, terminal: _Terminal) -> None:
    assert wrapped("", terminal, warning=warning) == [""]
