"""Salvage of a damaged ledger: set aside under another name, its readable rows scanned."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from capgap.errors import StoreError

SalvagedRow = tuple[str, str, str, int, str, str, float]
"""A row of ``responses`` as it stands in the file."""

_SQLITE_SUFFIXES = ("", "-wal", "-shm", "-journal")


def rename_damaged_ledger(path: Path) -> Path:
    """Rename a ledger and the files that SQLite keeps beside it; nothing is deleted.

    Returns
    -------
    pathlib.Path
        Its new name, a number behind ``set-aside`` that was free.

    Raises
    ------
    StoreError
        It cannot be renamed.
    """
    number = 1
    while any(Path(f"{path}.set-aside-{number}{suffix}").exists() for suffix in _SQLITE_SUFFIXES):
        number += 1
    try:
        for suffix in _SQLITE_SUFFIXES:
            if Path(f"{path}{suffix}").exists():
                os.replace(f"{path}{suffix}", f"{path}.set-aside-{number}{suffix}")
    except OSError as error:
        raise StoreError(f"{path}: is damaged and cannot be renamed: {error}. Choose another --out.") from error
    return Path(f"{path}.set-aside-{number}")


def salvage_rows(path: Path) -> Iterator[SalvagedRow]:
    """Every row of a damaged ledger that SQLite can still read; checksums are the caller's business.

    A damaged page ends a scan, so the keys (hex digests) are scanned in 4,096 short ranges.
    """
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        # Text that is no UTF-8 any more would end the scan; its checksum will not match.
        database.text_factory = lambda raw: raw.decode("utf-8", errors="replace")
        for start in range(4096):
            low, high = f"{start:03x}", f"{start + 1:03x}" if start < 4095 else "g"
            with contextlib.suppress(sqlite3.Error):
                yield from database.execute("SELECT * FROM responses WHERE key >= ? AND key < ?", (low, high))
