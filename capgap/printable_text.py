"""Foreign text made fit for a line that a person reads: without control characters, on one line, in bounds."""

import re


def make_printable(text: str) -> str:
    """The text without control characters but line feeds and tabs: it may quote a file, and a terminal obeys some."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


def one_line(text: str) -> str:
    """The text on one line, without control characters."""
    return make_printable(" ".join(text.split()))


def cut_middle(text: str, limit: int) -> str:
    """At most so many characters, the middle left out where there are more: both ends of a name tell."""
    if len(text) <= limit:
        return text
    tail = max(0, limit - 1) // 3
    return f"{text[: max(0, limit - 1 - tail)].rstrip()}…{text[len(text) - tail :].lstrip()}"


def natural_order(name: str) -> list[tuple[int, int, str]]:
    """Sort key that orders names by their numbers: checkpoint-200 before checkpoint-1000."""
    chunks = re.split(r"([0-9]+)", name)
    return [(0, int(chunk), "") if chunk.isdecimal() else (1, 0, chunk) for chunk in chunks]
