"""The ledger: every response of every model, in SQLite, from the moment it exists.

A row is found by the hash of all that can change an answer: the model's fingerprint (weights, adapter, dtype,
tokenizer, prompting, …), the kind of request, its text and settings, and the repeat. So a ledger can't serve one
model's answers to another, and a killed run loses at most the batch it was in.
"""

import hashlib
import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from capgap.errors import StoreError

__all__ = ["Ledger", "request_key"]

_APPLICATION_ID = 0x63617067  # "capg": tells a ledger from any other SQLite file
_VERSION = 1

_TABLES = """
CREATE TABLE IF NOT EXISTS models (
  fingerprint TEXT PRIMARY KEY, description TEXT NOT NULL, created REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS responses (
  key TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, kind TEXT NOT NULL, repeat INTEGER NOT NULL,
  response TEXT NOT NULL, checksum TEXT NOT NULL, created REAL NOT NULL
) WITHOUT ROWID;
"""


def request_key(fingerprint: str, kind: str, arguments: Sequence[Any], repeat: int = 0, path: str = "lm-eval") -> str:
    """Hex digest that names one request to one model.

    Parameters
    ----------
    fingerprint
        The model's, see `LoadedModel.fingerprint`.
    kind
        lm-eval's request type: ``loglikelihood``, ``loglikelihood_rolling`` or ``generate_until``.
    arguments
        Its arguments: texts and generation settings.
    repeat
        Which of several samples of one request.
    path
        How it was computed, ``tree`` or ``lm-eval``: they agree up to rounding, and a run keeps to one.
    """
    text = json.dumps([fingerprint, kind, path, list(arguments), repeat], sort_keys=True, default=str)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


class Ledger:
    """Responses by request key, in one SQLite file (WAL mode; several processes of one machine may share it).

    Raises
    ------
    StoreError
        The file is something else, was written by a newer capgap, is damaged, or the disk is full or read-only.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        with self._told("opened"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            fresh = not self.path.exists() or self.path.stat().st_size == 0
            # isolation_level None: transactions are written out below, one for each batch
            self._db = sqlite3.connect(self.path, timeout=60.0, isolation_level=None)
            self._prepare(fresh)

    def _prepare(self, fresh: bool) -> None:
        if not fresh:
            (application,) = self._db.execute("PRAGMA application_id").fetchone()
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            (tables,) = self._db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'responses'").fetchone()
            if application != _APPLICATION_ID and tables == 0 and version == 0:
                (any_table,) = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()
                fresh = any_table == 0  # killed between creating the file and its first table
            if not fresh and application != _APPLICATION_ID:
                raise StoreError(f"{self.path}: is an SQLite file of something else. Use another --out.")
            if version > _VERSION:
                raise StoreError(f"{self.path}: was written by a newer capgap (layout {version}). Update capgap.")
        self._db.execute("PRAGMA journal_mode = WAL")
        # NORMAL survives a killed process whole; only a power cut may take the last batches
        self._db.execute("PRAGMA synchronous = NORMAL")
        if fresh:
            self._db.executescript(
                f"BEGIN IMMEDIATE; {_TABLES} PRAGMA application_id = {_APPLICATION_ID};"
                f" PRAGMA user_version = {_VERSION}; COMMIT;"
            )

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; what was put stays."""
        self._db.close()

    def __len__(self) -> int:
        """Responses in the ledger, of all models."""
        with self._told("read"):
            (count,) = self._db.execute("SELECT count(*) FROM responses").fetchone()
        return int(count)

    def get(self, keys: Iterable[str]) -> dict[str, Any]:
        """The responses that are there, by key; a row whose checksum is wrong counts as absent."""
        wanted = list(dict.fromkeys(keys))
        found: dict[str, Any] = {}
        with self._told("read"):
            for start in range(0, len(wanted), 500):
                part = wanted[start : start + 500]
                marks = ",".join("?" * len(part))
                query = f"SELECT key, response, checksum FROM responses WHERE key IN ({marks})"
                for key, response, checksum in self._db.execute(query, part):
                    if _checksum(key, response) == checksum:
                        found[key] = json.loads(response)
        return found

    def describe(self, fingerprint: str, description: Mapping[str, Any]) -> None:
        """Keep what a fingerprint stands for, so that the ledger explains itself."""
        row = (fingerprint, json.dumps(dict(description), sort_keys=True, default=str), time.time())
        with self._transaction():
            self._db.execute("INSERT OR IGNORE INTO models VALUES (?, ?, ?)", row)

    def put(self, fingerprint: str, kind: str, rows: Iterable[tuple[str, int, Any]]) -> None:
        """Write the responses of one batch, all or none.

        Parameters
        ----------
        fingerprint, kind
            As in `request_key`.
        rows
            ``(key, repeat, response)``; the response is whatever JSON can hold.
        """
        now = time.time()
        values = []
        for key, repeat, response in rows:
            text = json.dumps(response)  # ASCII: a lone surrogate from a broken file is no valid UTF-8
            values.append((key, fingerprint, kind, repeat, text, _checksum(key, text), now))
        with self._transaction():
            self._db.executemany("INSERT OR REPLACE INTO responses VALUES (?, ?, ?, ?, ?, ?, ?)", values)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._told("written"):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    @contextmanager
    def _told(self, verb: str) -> Iterator[None]:
        """Turn what SQLite and the file system say into what the user can do."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise StoreError(f"{self.path}: the ledger cannot be {verb}: {error}. {_remedy(str(error))}") from error
        except OSError as error:
            reason = error.strerror or str(error)
            raise StoreError(f"{self.path}: the ledger cannot be {verb}: {reason}. Choose another --out.") from error


def _checksum(key: str, response: str) -> str:
    return hashlib.blake2b(f"{key}{response}".encode("ascii"), digest_size=8).hexdigest()


def _remedy(message: str) -> str:
    remedies = {
        "full": "Free some space and run the same command again; it goes on where it stopped.",
        "readonly": "Choose an --out that can be written.",
        "unable to open": "Choose an --out that can be written.",
        "locked": "Another process holds it; wait for it and run the same command again.",
        "not a database": "It is no ledger, or damaged: move it away and run the same command again.",
        "malformed": "It is damaged: move it away and run the same command again.",
        "I/O": "The disk failed: check it, or choose another --out.",
    }
    found = (remedy for word, remedy in remedies.items() if word in message)
    return next(found, "Move it away or choose another --out.")
