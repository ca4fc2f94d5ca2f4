"""Progress events rendered on stderr: bars on a terminal, plain lines in a pipe, a log file or CI; set-up of logging.

A command writes ``with terminal_progress(quiet=quiet) as listener:`` and hands the listener to a library function as
``on_event``. What a command says beside that while a stage runs goes through the listener too, as a `Note`: text that
is written past a bar ends up glued to it.
"""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

import click

from capgap.cli.terminal import is_terminal, n_columns, wrapped, write_lines
from capgap.events import Event, Listener, Note, StageAdvanced, StageBegun
from capgap.printable_text import cut_middle, make_printable, one_line

if TYPE_CHECKING:
    from tqdm import tqdm

_MAX_SILENCE = 30.0  # seconds
_MIN_SILENCE = 3.0  # seconds
_MIN_BAR_WIDTH = 8
_NON_BAR_COLUMNS = 30  # of a line with a bar: percentage, counts, time left and the marks between them
_FORMAT = "{desc} {percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt}, {remaining} left{postfix}"
_COUNT_FORMAT = "{desc}: {n_fmt} {unit}, {elapsed}{postfix}"


@contextmanager
def render_progress(*, quiet: bool = False, stream: TextIO | None = None) -> Iterator[Listener]:
    """A listener that draws progress events on a stream until the block ends, however it ends.

    Parameters
    ----------
    quiet
        Warnings alone.
    stream
        Where to; stderr by default. Bars are drawn where it is a terminal (and neither ``CI`` is set nor ``TERM`` is
        ``dumb``); anything else gets lines that end in a line feed and hold no other control character.
    """
    renderer = _ProgressRenderer(sys.stderr if stream is None else stream, quiet)
    try:
        yield renderer
    finally:
        renderer.close()


@dataclass
class _OpenStage:
    """A stage that has begun and not finished."""

    event: StageBegun
    started: float
    line_at: float
    """When its last line was written, seconds of the clock."""
    n_done_at_line: int = 0
    """Units done by then."""
    n_done: int = 0
    tqdm_bar: "tqdm[Any] | None" = None
    """None where plain lines are written."""

    def is_line_due(self, now: float) -> bool:
        """Whether another plain line is due: each 30 seconds, or each tenth if that is not too soon."""
        tenth_done = bool(self.event.total) and self.n_done - self.n_done_at_line >= (self.event.total or 0) / 10
        silence = now - self.line_at
        # the last unit is told by the line at the end
        return self.n_done != self.event.total and (silence >= _MAX_SILENCE or (tenth_done and silence >= _MIN_SILENCE))


class _ProgressRenderer:
    """Bars on a terminal, of which one line is left at the end; elsewhere plain lines for begin, progress and end."""

    monotonic_clock: Callable[[], float] = staticmethod(time.monotonic)

    def __init__(self, stream: TextIO, quiet: bool) -> None:
        self.stream, self.quiet = stream, quiet
        self.stages: dict[str, _OpenStage] = {}

    def __call__(self, event: Event) -> None:
        """Render one event."""
        if isinstance(event, Note):
            if event.level == "warning" or not self.quiet:
                warning = event.level == "warning"
                write_lines(self.stream, wrapped(event.text, self.stream, warning=warning), warning=warning)
        elif self.quiet:
            return
        elif isinstance(event, StageAdvanced):
            self._advance(event)
        else:
            self._finish_stage(event.stage_id)  # a name that is begun again is another round of it
            if isinstance(event, StageBegun):
                self._begin_stage(event)

    def close(self) -> None:
        """End the stages that an exception left open, the innermost first."""
        for name in reversed(list(self.stages)):
            self._finish_stage(name)

    def _begin_stage(self, event: StageBegun) -> None:
        now = self.monotonic_clock()
        stage = self.stages[event.stage_id] = _OpenStage(event, now, now)
        if is_terminal(self.stream):
            stage.tqdm_bar = _create_tqdm_bar(event, self.stream)
        else:
            total_text = "" if event.total is None else f": {_count(event.total, event.unit)}"
            write_lines(self.stream, [one_line(event.stage_id + total_text)])

    def _advance(self, event: StageAdvanced) -> None:
        if event.stage_id not in self.stages:
            self._begin_stage(StageBegun(event.stage_id))
        stage, status = self.stages[event.stage_id], one_line(event.status)
        stage.n_done += event.n
        if stage.tqdm_bar is not None:
            status_width = n_columns(self.stream) - len(stage.tqdm_bar.desc) - _NON_BAR_COLUMNS - _MIN_BAR_WIDTH
            stage.tqdm_bar.set_postfix_str(cut_middle(status, status_width) if status_width > 3 else "", refresh=False)
            stage.tqdm_bar.update(event.n)
        elif stage.is_line_due(now := self.monotonic_clock()):
            stage.line_at, stage.n_done_at_line = now, stage.n_done
            total = stage.event.total
            share = f" of {total:,} ({100 * stage.n_done / total:.0f} %)" if total else ""
            text = f"{event.stage_id}: {stage.n_done:,}{share}" + (f", {status}" if status else "")
            write_lines(self.stream, [one_line(text)])

    def _finish_stage(self, name: str) -> None:
        stage = self.stages.pop(name, None)
        if stage is None:
            return
        if stage.tqdm_bar is not None:
            stage.tqdm_bar.close()
        total, seconds = stage.event.total, round(self.monotonic_clock() - stage.started)
        # A stage that stopped early says so.
        prefix = f"{stage.n_done:,} of " if total is not None and 0 < stage.n_done < total else ""
        tally = prefix + _count(stage.n_done if total is None else total, stage.event.unit) if stage.n_done else "ended"
        write_lines(self.stream, [one_line(f"{name}: {tally} after {seconds // 60}:{seconds % 60:02d}")])


def _create_tqdm_bar(event: StageBegun, stream: TextIO) -> "tqdm[Any]":
    from tqdm import tqdm

    name, form = cut_middle(one_line(event.stage_id), n_columns(stream) // 3), _FORMAT if event.total else _COUNT_FORMAT
    options: dict[str, Any] = {"leave": False, "dynamic_ncols": True, "miniters": 1}
    return tqdm(desc=name, total=event.total, unit=f"{event.unit}s", file=stream, bar_format=form, **options)


class _LogHandler(logging.Handler):
    """Log records as lines on whatever stderr is now, above bars that are being drawn."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        warning = record.levelno >= logging.WARNING
        write_lines(sys.stderr, make_printable(self.format(record)).splitlines(), warning=warning)


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
"""Passes ``quiet`` to the command, for `render_progress`."""
verbose_option = click.option(
    "-v", "--verbose", count=True, expose_value=False, help="Log what is done; -vv logs more.",
    callback=lambda context, option, verbosity: configure_logging(verbosity),
)  # fmt: skip
"""Sets the level of capgap's loggers; passes nothing to the command."""


def _count(n: int, unit: str) -> str:
    return f"{n:,} {unit}{'' if n == 1 else 's'}"
