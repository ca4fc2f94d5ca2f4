import fcntl
import io
import logging
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager

import click
import pytest
from click.testing import CliRunner

from capgap.cli.progress import configure_logging, quiet_option, render_progress, verbose_option
from capgap.events import Event, Listener, Note, StageAdvanced, StageBegun, StageFinished

COLUMNS = 60
LONG = (
    "the student 'a' was prompted otherwise than its teacher, and what follows is a word of advice on that: look twice"
)

WORK = """
import logging
from capgap.cli.progress import configure_logging, render_progress
from capgap.events import Note, StageAdvanced, StageBegun, StageFinished
configure_logging(1)
with render_progress(quiet=QUIET) as listener:
    listener(StageBegun("training qwen-student-with-a-long-name", 40, "step"))
    for step in range(40):
        listener(StageAdvanced("training qwen-student-with-a-long-name", 1, f"loss {3 - step / 20:.2f} and more told"))
        if step == 10:
            listener(Note("LONG"))
            listener(Note("mind the \\x1b[31mgap\\r", "warning"))
            logging.getLogger("capgap.models").info("loaded")
        if step == 20:
            listener(StageBegun("reading", None, "text"))
            listener(StageAdvanced("reading", 3))
            listener(StageFinished("reading"))
    listener(StageFinished("training qwen-student-with-a-long-name"))
    listener(StageBegun("evaluating", 10))
    listener(StageAdvanced("evaluating", 4))
print("result")
""".replace("LONG", LONG)


@contextmanager
def _terminal(columns: int) -> Iterator[tuple[int, int]]:
    """Both ends of a pseudo-terminal of that width."""
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    try:
        yield reader, writer
    finally:
        os.close(reader)


def _on_terminal(*, quiet: bool = False, columns: int = COLUMNS, **environment: str) -> str:
    """What a terminal receives on stderr from `WORK`."""
    inherited = {key: value for key, value in os.environ.items() if key not in ("CI", "NO_COLOR")}
    with _terminal(columns) as (reader, writer):
        process = subprocess.Popen(
            [sys.executable, "-c", WORK.replace("QUIET", str(quiet))],
            stderr=writer,
            stdout=subprocess.DEVNULL,
            env=inherited | {"TERM": "xterm"} | environment,
        )
        os.close(writer)
        received = b""
        try:
            while chunk := os.read(reader, 4096):
                received += chunk
        except OSError:  # Linux: the last writer has closed its end
            pass
        assert process.wait() == 0
    return received.decode()


def _screen(received: str) -> list[str]:
    """The lines that stay on the screen: CR, LF, cursor up and erase-line are obeyed."""
    rows, row, column = [""], 0, 0
    for token in re.findall(r"\x1b\[[0-9;]*[A-Za-z]|[^\x1b]", received):
        if token == "\r":
            column = 0
        elif token == "\n":
            row, column = row + 1, 0
            rows += [""] * (row + 1 - len(rows))
        elif token == "\x1b[A":
            row -= 1
        elif token.startswith("\x1b["):
            continue
        else:
            rows[row] = rows[row][:column].ljust(column) + token + rows[row][column + 1 :]
            column += 1
    return [text.rstrip() for text in rows if text.strip()]


def test_a_terminal_keeps_one_clean_line_per_message() -> None:
    received = _on_terminal()
    lines = _screen(received)
    assert "100% |" not in "\n".join(lines), "bars go when their stage ends"
    assert " ".join(line.strip() for line in lines[: next(i for i, x in enumerate(lines) if "warning" in x)]) == LONG
    assert max(map(len, lines)) <= COLUMNS
    rest = [line for line in lines if not line.startswith("  ")][1:]
    assert [re.sub(r"after 0:0\d", "after T", line) for line in rest] == [
        "warning: mind the \N{REPLACEMENT CHARACTER}[31mgap",
        "capgap.models: loaded",
        "reading: 3 texts after T",
        "training qwen-student-with-a-long-name: 40 steps after T",
        "evaluating: 4 of 10 items after T",
    ]


def test_a_bar_fits_sixty_columns_with_its_status() -> None:
    drawn = [part for part in re.split(r"[\r\n]|\x1b\[A", _on_terminal()) if "% |" in part]
    assert drawn
    assert all(len(part) <= COLUMNS for part in drawn)
    assert all(part.startswith("training qwen") or part.startswith("evaluating") for part in drawn)
    assert any("█" in part for part in drawn)


@pytest.mark.parametrize(("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colour_is_for_terminals_that_did_not_decline(environment: dict[str, str], coloured: bool) -> None:
    assert ("\x1b[33m" in _on_terminal(**environment)) == coloured


@pytest.mark.parametrize("environment", [{"CI": "true"}, {"TERM": "dumb"}])
def test_ci_and_dumb_terminals_get_plain_lines(environment: dict[str, str]) -> None:
    received = _on_terminal(**environment).replace("\r\n", "\n")  # the terminal's own line discipline adds those
    assert "\r" not in received
    assert "\x1b" not in received


def test_quiet_shows_warnings_alone_on_a_terminal_too() -> None:
    lines = _screen(_on_terminal(quiet=True))
    assert lines == ["warning: mind the \N{REPLACEMENT CHARACTER}[31mgap", "capgap.models: loaded"]


def test_a_pipe_gets_whole_lines_and_stdout_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WORK.replace("QUIET", "False")], capture_output=True, text=True, check=True
    )
    assert done.stdout == "result\n"
    assert not set("\r\x1b") & set(done.stderr)
    lines = done.stderr.splitlines()
    assert LONG in lines, "a log is searched by line, so messages are not wrapped"
    assert lines[0] == "training qwen-student-with-a-long-name: 40 steps"
    assert lines[-2:] == ["evaluating: 10 items", "evaluating: 4 of 10 items after 0:00"]


class _Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def _lines_of_work(seconds_per_unit: float, units: int = 1000, total: int | None = 1000) -> list[str]:
    """The lines of a stage at an even pace."""
    stream, clock = io.StringIO(), _Clock()
    with render_progress(stream=stream) as listener:
        listener.monotonic_clock = clock  # type: ignore[attr-defined]
        listener(StageBegun("training", total, "step"))
        for _ in range(units):
            clock.now += seconds_per_unit
            listener(StageAdvanced("training", 1, "loss 1.0"))
        listener(StageFinished("training"))
    return stream.getvalue().splitlines()


@pytest.mark.parametrize(
    ("seconds_per_unit", "between"),
    [
        (0.0001, 0),  # done within a second
        (0.1, 9),  # a line each tenth
        (0.9, 30),  # 900 s: a line each 30 s
    ],
)
def test_a_log_gets_a_line_per_tenth_or_half_minute(seconds_per_unit: float, between: int) -> None:
    lines = _lines_of_work(seconds_per_unit)
    assert lines[0] == "training: 1,000 steps"
    assert lines[-1].startswith("training: 1,000 steps after ")
    assert len(lines) - 2 == pytest.approx(between, abs=1)
    assert all(re.fullmatch(r"training: \d+ of 1,000 \(\d+ %\), loss 1.0", line) for line in lines[1:-1])


def test_work_of_unknown_size_is_told_by_time() -> None:
    lines = _lines_of_work(1.0, units=100, total=None)
    assert lines == [
        "training",
        *(f"training: {n}, loss 1.0" for n in (30, 60, 90)),
        "training: 100 steps after 1:40",
    ]


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([StageAdvanced("a"), StageFinished("a")], ["a", "a: 1 item after 0:00"]),  # never begun
        ([StageFinished("a")], []),
        ([StageBegun("a"), StageFinished("a")], ["a", "a: ended after 0:00"]),
        (
            [StageBegun("a", 1), StageBegun("a", 2)],
            ["a: 1 item", "a: ended after 0:00", "a: 2 items", "a: ended after 0:00"],
        ),
        ([StageBegun("a", 0), StageBegun("b", 1), StageAdvanced("b")], None),
        ([Note("x\ny\x07\u202e")], ["x y\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}"]),
        ([Note("")], [""]),
    ],
)
def test_odd_sequences_of_events_are_rendered(events: list[Event], expected: list[str] | None) -> None:
    stream = io.StringIO()
    with render_progress(stream=stream) as listener:
        for event in events:
            listener(event)
    lines = stream.getvalue().splitlines()
    assert lines == expected if expected is not None else lines[-2:] == ["b: 1 item after 0:00", "a: ended after 0:00"]


def test_an_exception_passes_and_leaves_no_stage_open() -> None:
    stream = io.StringIO()

    def fail(listener: Listener) -> None:
        listener(StageBegun("training", 4))
        listener(StageAdvanced("training"))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), render_progress(stream=stream) as listener:
        fail(listener)
    assert stream.getvalue().splitlines()[-1] == "training: 1 of 4 items after 0:00"


@click.command()
@quiet_option
@verbose_option
def _command(quiet: bool) -> None:
    with render_progress(quiet=quiet) as listener:
        listener(Note("note"))
        listener(Note("grave", "warning"))
    logger = logging.getLogger("capgap.somewhere")
    logger.debug("debug")
    logger.info("info")
    logger.warning("warned")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], ["note", "warning: grave", "warning: capgap.somewhere: warned"]),
        (["--quiet"], ["warning: grave", "warning: capgap.somewhere: warned"]),
        (["-q", "-v"], ["warning: grave", "capgap.somewhere: info", "warning: capgap.somewhere: warned"]),
        (["-vv"], ["note", "warning: grave", "capgap.somewhere: debug", "capgap.somewhere: info"]),
    ],
)
def test_options_choose_what_is_shown(options: list[str], expected: list[str]) -> None:
    try:
        result = CliRunner().invoke(_command, options)
    finally:
        configure_logging(0)
    assert result.exit_code == 0
    assert result.stdout == ""
    assert result.stderr.splitlines()[: len(expected)] == expected
