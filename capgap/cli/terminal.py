"""Lines on a terminal or in a log: width, wrapping, colour, bars left whole."""

import os
import textwrap
from typing import TextIO

import click

from capgap.printable_text import one_line


def is_terminal(stream: TextIO) -> bool:
    """Whether somebody looks at the stream on a terminal that moves its cursor."""
    return stream.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("CI")


def n_columns(stream: TextIO) -> int:
    """The terminal's width; 80 where there is none."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):  # no terminal, or a stream without a descriptor
        return 80


def wrapped(text: str, stream: TextIO, *, warning: bool = False) -> list[str]:
    """A message's lines for `write_lines`: of a terminal's width, else one, since logs are searched by line."""
    text = one_line(text)
    if not is_terminal(stream):
        return [text]
    indentation = " " * len("warning: ") if warning else ""  # room for what will stand before the first line
    # words stay whole: commands and paths are there to be copied
    wrapper = textwrap.TextWrapper(n_columns(stream), indentation, "  ", break_long_words=False, break_on_hyphens=False)
    lines = wrapper.wrap(text) or [indentation]
    return [lines[0].removeprefix(indentation), *lines[1:]]


def write_lines(stream: TextIO, lines: list[str], *, warning: bool = False) -> None:
    """Write whole lines: on a terminal bars are cleared for them and drawn again below."""
    on_terminal = is_terminal(stream)
    if warning:
        use_colour = on_terminal and not os.environ.get("NO_COLOR")
        lines = [f"{click.style('warning:', fg='yellow') if use_colour else 'warning:'} {lines[0]}", *lines[1:]]
    if on_terminal:
        from tqdm import tqdm

        tqdm.write("\n".join(lines), file=stream)
    else:
        stream.write("\n".join(lines) + "\n")
    stream.flush()
