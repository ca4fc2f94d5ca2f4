"""Ledger: an SQLite store of model responses, each written as soon as it is there and found by a request key.

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
from typing import Any

from filelock import FileLock

from capgap.errors import StoreError
from capgap.models.ledger_salvage import rename_damaged_ledger, salvage_rows

_APPLICATION_ID = 0x63617067  # "capg": tells a ledger from any other SQLite file
_LAYOUT_VERSION = 1

_CREATE_TABLES_SQL = """
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
    """Responses by request key, in one SQLite file.

    Several processes of one machine may share a file (WAL mode). A machine that shares the folder over a network
    writes a file of its own, ``ledger.SHARD.sqlite``, and all of them are read together.

    Parameters
    ----------
    path
        The file ``…/ledger.sqlite``.
    shard
        Write ``…/ledger.SHARD.sqlite`` instead; for machines that share a folder.

    Attributes
    ----------
    path, main : pathlib.Path
        The file that is written, and the one that it would be without a shard.
    notes : list of str
        What happened to damaged files, a sentence each.

    Raises
    ------
    StoreError
        The file was written by a newer capgap, or the disk is full or read-only.
    """

    def __init__(self, path: Path | str, *, shard: str | None = None) -> None:
        self.main = main = Path(path)
        self.path = main if shard is None else main.with_name(f"{main.stem}.{shard}{main.suffix}")
        self.notes: list[str] = []
        # WAL needs shared memory, which a network folder does not give.
        self._journal = "WAL" if shard is None else "DELETE"
        with self._store_errors("opened"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{self.path}.lock", timeout=120):
                self._open_or_replace()
            self._others = self._open_other_shards(main)

    def _open_or_replace(self) -> None:
        """Open the file; one that is damaged or no ledger is set aside, and its readable responses taken over."""
        try:
            # isolation_level None: transactions are written out below, one for each batch
            self._db = sqlite3.connect(self.path, timeout=60.0, isolation_level=None)
            damage = self._prepare_tables()
        except sqlite3.DatabaseError as error:
            if not _is_corruption_error(error):
                raise
            damage = str(error)
        if damage is None:
            return
        self._db.close()
        backup_path = rename_damaged_ledger(self.path)
        self._db = sqlite3.connect(self.path, timeout=60.0, isolation_level=None)
        self._prepare_tables()
        n_salvaged = 0
        with self._write_transaction():
            for row in salvage_rows(backup_path):
                key, response, checksum = row[0], row[4], row[5]
                if _checksum(key, response) == checksum:
                    self._db.execute("INSERT OR IGNORE INTO responses VALUES (?, ?, ?, ?, ?, ?, ?)", row)
                    n_salvaged += 1
        self.notes.append(
            f"{self.path} was {damage}: it is kept as {backup_path.name}; {n_salvaged:,} responses could be taken over."
        )

    def _prepare_tables(self) -> str | None:
        """Create the tables where there are none; why the file cannot be used, or None."""
        (application_id,) = self._db.execute("PRAGMA application_id").fetchone()
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        (tables,) = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if application_id != _APPLICATION_ID and tables:
            return "an SQLite file of something else"
        if version > _LAYOUT_VERSION:
            raise StoreError(f"{self.path}: was written by a newer capgap (layout {version}). Update capgap.")
        if tables:
            (verdict,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                return f"damaged ({verdict})"
        self._db.execute(f"PRAGMA journal_mode = {self._journal}")
        # NORMAL survives a killed process whole; only a power cut may take the last batches
        self._db.execute("PRAGMA synchronous = NORMAL")
        if not tables:
            self._db.executescript(
                f"BEGIN IMMEDIATE; {_CREATE_TABLES_SQL} PRAGMA application_id = {_APPLICATION_ID};"
                f" PRAGMA user_version = {_LAYOUT_VERSION}; COMMIT;"
            )
        return None

    def _open_other_shards(self, main: Path) -> list[sqlite3.Connection]:
        """Read-only connections to the ledgers of other shards; one that cannot be read is noted and left alone."""
        other_ledgers = []
        for path in sorted(main.parent.glob(f"{main.stem}*{main.suffix}")):
            if path == self.path or not path.is_file():
                continue
            try:
                database = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=60.0)
                (application_id,) = database.execute("PRAGMA application_id").fetchone()
                database.execute("SELECT key FROM responses LIMIT 1").fetchone()
            except sqlite3.Error as error:
                self.notes.append(f"{path} cannot be read ({error}); its responses will be asked again.")
                continue
            if application_id == _APPLICATION_ID:
                other_ledgers.append(database)
        return other_ledgers

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; what was put stays."""
        for database in (self._db, *self._others):
            database.close()

    def __len__(self) -> int:
        """Number of responses in all files together; one that two files hold counts twice."""
        with self._store_errors("read"):
            counts = [db.execute("SELECT count(*) FROM responses").fetchone()[0] for db in (self._db, *self._others)]
        return int(sum(counts))

    def get(self, keys: Iterable[str]) -> dict[str, Any]:
        """The recorded responses by key; a row whose checksum is wrong counts as absent."""
        distinct_keys = list(dict.fromkeys(keys))
        responses: dict[str, Any] = {}
        with self._store_errors("read"):
            for database in (self._db, *self._others):
                missing = [key for key in distinct_keys if key not in responses]
                responses |= _read_responses(database, missing)
        return responses

    def describe(self, fingerprint: str, description: Mapping[str, Any]) -> None:
        """Record what a fingerprint stands for, so that the ledger explains itself."""
        row = (fingerprint, json.dumps(dict(description), sort_keys=True, default=str), time.time())
        with self._write_transaction():
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
        with self._write_transaction():
            self._db.executemany("INSERT OR REPLACE INTO responses VALUES (?, ?, ?, ?, ?, ?, ?)", values)

    @contextmanager
    def _write_transaction(self) -> Iterator[None]:
        with self._store_errors("written"):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    @contextmanager
    def _store_errors(self, verb: str) -> Iterator[None]:
        """Turn the errors of SQLite and the file system into a `StoreError` that says what to do."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise StoreError(f"{self.path}: the ledger cannot be {verb}: {error}. {_get_remedy(str(error))}") from error
        except TimeoutError as error:
            raise StoreError(f"{self.path}: another process has been opening it for two minutes.") from error
        except OSError as error:
            reason = error.strerror or str(error)
            raise StoreError(f"{self.path}: the ledger cannot be {verb}: {reason}. Choose another --out.") from error


def _read_responses(database: sqlite3.Connection, keys: Sequence[str]) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for start in range(0, len(keys), 500):  # SQLite bounds the parameters of a statement
        chunk = keys[start : start + 500]
        query = f"SELECT key, response, checksum FROM responses WHERE key IN ({','.join('?' * len(chunk))})"
        for key, response, checksum in database.execute(query, chunk):
            if _checksum(key, response) == checksum:
                responses[key] = json.loads(response)
    return responses


def _checksum(key: str, response: str) -> str:
    # what we write is ASCII; what a damaged file holds may be anything
    return hashlib.blake2b(f"{key}{response}".encode(errors="replace"), digest_size=8).hexdigest()


def _is_corruption_error(error: sqlite3.DatabaseError) -> bool:
    return any(word in str(error) for word in ("not a database", "malformed"))


def _get_remedy(message: str) -> str:
    remedies_by_word = {
        "full": "Free some space and run the same command again; it goes on where it stopped.",
        "readonly": "Choose an --out that can be written.",
        "unable to open": "Choose an --out that can be written.",
        "locked": "Another process holds it; wait for it and run the same command again.",
        "malformed": "It is damaged: run the same command again, which sets it aside and takes over what it can.",
        "I/O": "The disk failed: check it, or choose another --out.",
    }
    matching_remedies = (remedy for word, remedy in remedies_by_word.items() if word in message)
    return next(matching_remedies, "Move it away or choose another --out.")
