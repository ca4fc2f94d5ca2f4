"""The exceptions of capgap, every one a thing that the user can mend.

::

    CapgapError                 exit status 2, message only, no traceback
    ├── UsageError              an option, name or combination that makes no sense
    ├── BatteryError            a battery file, its data or its templates  (also ValueError)
    ├── TableError              a table that lacks, contradicts or duplicates something  (also ValueError)
    ├── StoreError              a run directory, a ledger, a disk
    ├── ModelError              a checkpoint or backend that cannot be found, loaded or used
    ├── DistillError            a distillation file, its data, a training run  (also ValueError)
    └── EstimationError         a number that the data cannot support  (also ValueError)

A message says where, what was expected, what was found and what to do. Anything that is not a `CapgapError`
is a bug and shows its traceback (exit status 1).
"""

import difflib
from collections.abc import Iterable

__all__ = [
    "BatteryError",
    "CapgapError",
    "DistillError",
    "EstimationError",
    "ModelError",
    "StoreError",
    "TableError",
    "UsageError",
    "suggestion",
]


class CapgapError(Exception):
    """Something the user can mend; the command line prints the message and exits with status 2."""


class UsageError(CapgapError):
    """An option, a name or a combination of them that makes no sense."""


class BatteryError(CapgapError, ValueError):
    """A battery file, the data it names, or one of its templates is wrong."""


class TableError(CapgapError, ValueError):
    """A table lacks a required column, holds a value out of range, or says one thing twice."""


class StoreError(CapgapError):
    """A run directory or ledger cannot be read or written, or belongs to something else."""


class ModelError(CapgapError):
    """A model cannot be found, loaded, or asked for what the battery needs."""


class DistillError(CapgapError, ValueError):
    """A distillation file, its data, or the training run it asks for cannot work."""


class EstimationError(CapgapError, ValueError):
    """The data cannot support the number that was asked for."""


def suggestion(word: str, valid_words: Iterable[str], *, limit: int = 12) -> str:
    """The end of an error message: the nearest valid word, else the valid words themselves.

    Parameters
    ----------
    word
        What was found.
    valid_words
        The valid words, in any order.
    limit
        At most this many words are listed where none is near.

    Returns
    -------
    str
        ``" Did you mean 'x'?"`` or ``" Known: a, b, c."``, with the leading space; empty where nothing is known.
    """
    words = sorted(set(valid_words))
    nearest_words = difflib.get_close_matches(str(word), words, n=1, cutoff=0.6)
    if nearest_words:
        return f" Did you mean {nearest_words[0]!r}?"
    if not words:
        return ""
    overflow_text = f" and {len(words) - limit} more" if len(words) > limit else ""
    return f" Known: {', '.join(words[:limit])}{overflow_text}."
