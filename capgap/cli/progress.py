"""Progress events rendered on stderr: bars on a terminal, plain lines in a pipe, a log file or CI; set-up of logging.

A command writes ``with terminal_progress(quiet=quiet) as listener:`` and hands the listener to a library function as
``on_event``. What a command says beside that while a stage runs goes through the listener too, as a `Note`: text that
is written past a bar ends up glued to it.
"""

import logging
import os
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

import click

from capgap.events import Advanced, Begun, Event, Finished, Listener, Note

if TYPE_CHECKING:
    from tqdm import tqdm

__all__ = ["configure_logging", "printable", "quiet_option", "terminal_progress", "verbose_option"]

_SECONDS_BETWEEN_LINES = 30.0
_SECONDS_BETWEEN_TENTHS = 3.0
_NARROWEST_BAR = 8
_FIXED_COLUMNS = 30  # of a line with a bar: percentage, counts, time left and the marks between them
_FORMAT = "{desc} {percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt}, {remaining} left{postfix}"
_FORMAT_WITHOUT_TOTAL = "{desc} {n_fmt} {unit}, {elapsed}{postfix}"


def printable(message: str) -> str:
    """The message without control characters: it may quote a file, and a terminal obeys some of them."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in message)


@contextmanager
def terminal_progress(*, quiet: bool = False, stream: TextIO | None = None) -> Iterator[Listener]:
    """A listener that draws progress events on a stream until the block ends, however it ends.

    Parameters
    ----------
    quiet
        Warnings alone.
    stream
        Where to; stderr by default. Bars are drawn where it is a terminal (and neither ``CI`` is set nor ``TERM`` is
        ``dumb``); anything else gets lines that end in a line feed and hold no other control character.
    """
    target = sys.stderr if stream is None else stream
    renderer = (_Bars if _is_terminal(target) and not quiet else _Lines)(target, quiet=quiet)
    try:
        yield renderer
    finally:
        renderer.close()


@dataclass
class _Stage:
    """A stage that has begun and not finished."""

    begun: Begun
    started: float
    n_done: int = 0
    line_at: float = 0.0
    """When its last line was written, seconds of the clock."""
    n_at_line: int = 0
    """Units done by then."""
    bar: "tqdm[Any] | None" = None


class _Lines:
    """Plain lines: one where a stage begins and ends, and between them one per tenth or per 30 seconds."""

    clock: Callable[[], float] = staticmethod(time.monotonic)

    def __init__(self, stream: TextIO, *, quiet: bool = False) -> None:
        self.stream = stream
        self.quiet = quiet
        self.stages: dict[str, _Stage] = {}

    def __call__(self, event: Event) -> None:
        """Render one event."""
        if isinstance(event, Note):
            if event.level == "warning" or not self.quiet:
                self.write(event.text, warning=event.level == "warning")
        elif self.quiet:
            return
        elif isinstance(event, Begun):
            self._finish(event.stage)  # a name that is begun again is another round of it
            self._begin(event)
        elif isinstance(event, Advanced):
            if event.stage not in self.stages:
                self._begin(Begun(event.stage))
            stage = self.stages[event.stage]
            stage.n_done += event.n
            self._show(stage, event.status)
        elif isinstance(event, Finished):
            self._finish(event.stage)

    def close(self) -> None:
        """End the stages that an exception left open, the innermost first."""
        for name in reversed(list(self.stages)):
            self._finish(name)

    def write(self, text: str, *, warning: bool = False) -> None:
        """Write one message."""
        _write_message(self.stream, text, warning=warning)

    def _begin(self, begun: Begun) -> None:
        now = self.clock()
        self.stages[begun.stage] = _Stage(begun, started=now, line_at=now)
        self.write(begun.stage + ("" if begun.total is None else f": {_count(begun.total, begun.unit)}"))

    def _show(self, stage: _Stage, status: str) -> None:
        now, total = self.clock(), stage.begun.total
        waited = now - stage.line_at
        tenth = bool(total) and stage.n_done - stage.n_at_line >= (total or 0) / 10
        if stage.n_done == total or not (
            waited >= _SECONDS_BETWEEN_LINES or (tenth and waited >= _SECONDS_BETWEEN_TENTHS)
        ):
            return  # the last unit is told by the line at the end
        stage.line_at, stage.n_at_line = now, stage.n_done
        part = f" of {total:,} ({100 * stage.n_done / total:.0f} %)" if total else ""
        self.write(f"{stage.begun.stage}: {stage.n_done:,}{part}" + (f", {status}" if status else ""))

    def _finish(self, name: str) -> None:
        stage = self.stages.pop(name, None)
        if stage is None:
            return
        total = stage.begun.total
        # A stage that stopped early says so; one whose units nobody counted was done as a whole.
        part = f"{stage.n_done:,} of " if total is not None and 0 < stage.n_done < total else ""
        amount = part + _count(stage.n_done if total is None else total, stage.begun.unit) + " "
        seconds = round(self.clock() - stage.started)
        self.write(f"{name}: {amount if stage.n_done else 'ended '}after {seconds // 60}:{seconds % 60:02d}")


class _Bars(_Lines):
    """A bar for each stage that runs; a finished one leaves one line."""

    def _begin(self, begun: Begun) -> None:
        from tqdm import tqdm

        name = _shortened(_one_line(begun.stage), _columns(self.stream) // 3)
        bar = tqdm(
            total=begun.total,
            desc=name + ("" if begun.total else ":"),
            unit=f"{begun.unit}s",
            file=self.stream,
            leave=False,
            dynamic_ncols=True,
            miniters=1,
            bar_format=_FORMAT if begun.total else _FORMAT_WITHOUT_TOTAL,
        )
        self.stages[begun.stage] = _Stage(begun, started=self.clock(), bar=bar)

    def _show(self, stage: _Stage, status: str) -> None:
        assert stage.bar is not None
        room = _columns(self.stream) - len(stage.bar.desc) - _FIXED_COLUMNS - _NARROWEST_BAR
        stage.bar.set_postfix_str(_shortened(_one_line(status), room) if room > 3 else "", refresh=False)
        stage.bar.update(stage.n_done - stage.bar.n)

    def _finish(self, name: str) -> None:
        stage = self.stages.get(name)
        if stage is not None and stage.bar is not None:
            stage.bar.close()
        super()._finish(name)


class _LogHandler(logging.Handler):
    """Log records as lines on whatever stderr is now, above bars that are being drawn."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        _write_message(sys.stderr, self.format(record), warning=record.levelno >= logging.WARNING, wrapped=False)


def configure_logging(verbosity: int = 0) -> None:
    """Send capgap's log records to stderr: warnings, with 1 what is done, with 2 or more everything.

    The command line calls this; the library only ever calls ``logging.getLogger(__name__)``.
    """
    logger = logging.getLogger("capgap")
    logger.setLevel([logging.WARNING, logging.INFO, logging.DEBUG][min(verbosity, 2)])
    if not any(isinstance(handler, _LogHandler) for handler in logger.handlers):
        handler = _LogHandler()
        handler.setFormatter(logging.Formatter("{name}: {message}", style="{"))
        logger.addHandler(handler)


quiet_option = click.option("-q", "--quiet", is_flag=True, help="Warnings only, no progress.")
"""Passes ``quiet`` to the command, for `terminal_progress`."""

verbose_option = click.option(
    "-v",
    "--verbose",
    count=True,
    expose_value=False,
    callback=lambda ctx, param, value: configure_logging(value),
    help="Log on stderr what is done; -vv logs more.",
)
"""Sets the level of capgap's loggers; passes nothing to the command."""


def _write_message(stream: TextIO, text: str, *, warning: bool, wrapped: bool = True) -> None:
    """Write a message on lines of its own: bars are cleared for it and drawn again below."""
    terminal = _is_terminal(stream)
    lines = [_one_line(text)] if wrapped else printable(text).splitlines()
    if warning:
        lines[0] = f"warning: {lines[0]}"
    if terminal and wrapped:
        # Words stay whole: commands and paths are there to be copied.
        width = _columns(stream)
        lines = textwrap.wrap(
            lines[0], width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
        ) or [""]
    if warning and terminal and not os.environ.get("NO_COLOR"):
        lines[0] = lines[0].replace("warning:", click.style("warning:", fg="yellow"), 1)
    if terminal:
        from tqdm import tqdm

        tqdm.write("\n".join(lines), file=stream)
    else:
        stream.write("\n".join(lines) + "\n")
    stream.flush()


def _is_terminal(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("CI")


def _columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):  # no terminal, or a stream without a descriptor
        return 80


def _one_line(text: str) -> str:
    return printable(" ".join(text.split()))


def _shortened(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"


def _count(n: int, unit: str) -> str:
    return f"{n:,} {unit}{'' if n == 1 else 's'}"
