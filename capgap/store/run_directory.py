"""A run directory: what was run, the ledger of responses, the tables, and how far it all went.

::

    DIR/run.json                          what was run: models, batteries, roles, versions, command; and its state
    DIR/ledger.sqlite                     every response as it arrives (capgap.models)
    DIR/outcomes/MODEL/BATTERY.parquet    outcomes in parts, see capgap.store.outcome_parts
    DIR/items.parquet  models.parquet     what was asked, and whom
    DIR/labels.parquet  estimates.parquet  estimates.json  report.html
    DIR/tables.lock                       held while a file that several writers share is read, merged and written

The same command on the same directory goes on where it stopped. Another model or battery is added to it; a model or
battery of a known name with other contents is refused, because two things under one name would be one in every table.
"""

import json
import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pandas as pd
from filelock import FileLock

from capgap import schema
from capgap.errors import StoreError
from capgap.events import Event, Listener, Note, ignore
from capgap.store.outcome_parts import has_outcomes, read_outcomes, write_part
from capgap.store.writable_folder import write_errors_explained

_LAYOUT_VERSION = 2
"""1 had all outcomes in one file, and is still read."""
_RUN_JSON_FILE, _TABLES_LOCK_FILE = "run.json", "tables.lock"
_LOCK_SECONDS = 120

_logger = logging.getLogger(__name__)


class RunDirectory:
    """A run directory: its tables, ``run.json`` and lock; made where there is none.

    Several processes may write to one directory: parts of the outcomes are their own, and whatever they share is read
    anew, merged and written while the directory's lock is held.

    Parameters
    ----------
    path
        The directory; an existing one must be empty or a run directory.
    on_event
        Listener for notes on the tables, such as covariates of two types.

    Attributes
    ----------
    path : pathlib.Path
        The directory.
    facts : dict
        ``run.json`` as this process last read or wrote it.

    Raises
    ------
    StoreError
        It is a file, holds something else, was written by a newer capgap, or cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> import pandas as pd
    >>> from capgap import schema
    >>> from capgap.store import RunDirectory
    >>> run = RunDirectory(tempfile.mkdtemp())
    >>> row = {"model": "Qwen/Qwen2.5-1.5B", "battery": "pocket", "task": "capitals", "item": "1", "score": 1.0}
    >>> run.write_outcomes("Qwen/Qwen2.5-1.5B", "pocket", pd.DataFrame([row]))
    >>> run.save(state="evaluated", roles=schema.Roles(("Qwen/Qwen2.5-1.5B",)))
    >>> run.outcomes(run.roles.students)["score"].tolist()
    [1.0]
    """

    def __init__(self, path: Path | str, *, on_event: Listener = ignore) -> None:
        self.path = Path(path)
        self._on_event = on_event
        self._notes: list[str] = []  # passed on already, and part of every later run.json
        self._lock = FileLock(self.path / _TABLES_LOCK_FILE, timeout=_LOCK_SECONDS)
        stored_facts = self._read_note()
        if stored_facts is not None:
            self.facts: dict[str, Any] = stored_facts
            return
        with write_errors_explained(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        initial_facts = {"created": _now(), "id": uuid4().hex, "state": "new"}
        # Another process may have begun the same directory since; then its facts stand.
        self._update_run_json(lambda written: written.update(initial_facts | written))

    @classmethod
    def open_existing(cls, path: Path | str, *, on_event: Listener = ignore) -> "RunDirectory":
        """A run directory that is there already.

        Raises
        ------
        StoreError
            There is none.
        """
        path = Path(path)
        try:
            is_run_directory = (path / _RUN_JSON_FILE).is_file()
        except (OSError, ValueError) as error:
            raise StoreError(f"{str(path)[:200]}: cannot be a run directory: {error}.") from error
        if not is_run_directory:
            raise StoreError(f"{path}: {_describe_non_run_path(path)}")
        return cls(path, on_event=on_event)

    @property
    def ledger_path(self) -> Path:
        """Where the responses of its models are kept."""
        return self.path / "ledger.sqlite"

    @property
    def id(self) -> str:
        """Names this run; answers of models whose weights are not seen are never shared beyond it."""
        return str(self.facts.get("id") or self.facts.get("created", ""))

    @property
    def roles(self) -> schema.Roles | None:
        """Who is who in the comparison that was last written; None where there is none yet, as after an import."""
        return _parse_roles(self.facts)

    def read(self, table: schema.Table) -> pd.DataFrame:
        """One of its tables, sorted by its key; without rows where it was not yet written.

        Raises
        ------
        TableError
            A file is damaged.
        """
        if table is schema.OUTCOMES:
            return read_outcomes(self.path, on_event=self._relay_note_once)
        path = self._file(table)
        return schema.read_df(path, table) if path.is_file() else schema.empty(table)

    def outcomes(self, models: Collection[str]) -> pd.DataFrame:
        """The outcomes of some models, without rows of those that have none; nothing of other models is read."""
        return read_outcomes(self.path, models, on_event=self._relay_note_once)

    def _relay_note_once(self, event: Event) -> None:
        """Pass a note on once, and keep it in `facts` and for the next `save`."""
        if isinstance(event, Note):
            if event.text in self._notes:
                return
            self._notes.append(event.text)
            self._add_notes_to_facts(self.facts)
        self._on_event(event)

    def _add_notes_to_facts(self, facts: dict[str, Any]) -> None:
        if self._notes:
            facts["notes"] = list(dict.fromkeys([*facts.get("notes", ()), *self._notes]))

    def write_outcomes(self, model: str, battery: str, rows: pd.DataFrame) -> None:
        """Write all outcomes of a model on a battery, in the place of those that were there; costs nobody else's rows.

        Raises
        ------
        TableError
            A row is of another model or battery, or the rows are no outcomes.
        StoreError
            The disk is full or cannot be written.
        """
        for note_text in write_part(self.path, model, battery, rows):
            self._relay_note_once(Note(note_text, level="warning"))
        _logger.debug("%s: %d outcomes of %s on %s", self.path, len(rows), model, battery)

    def merge(self, table: schema.Table, rows: pd.DataFrame) -> pd.DataFrame:
        """Add rows to `items`, `models` or `labels`; a row with the key of a new one makes room for it.

        Returns
        -------
        pandas.DataFrame
            The whole table. It is written only where something is new.

        Raises
        ------
        TableError
            The rows are no such table.
        StoreError
            The disk is full or cannot be written.
        """
        key = list(table.key)
        rows = schema.validate(rows, table)
        with self.hold_tables_lock():
            stored_rows = self.read(table)  # anew, under the lock: another process may have added rows
            is_row_replaced = pd.MultiIndex.from_frame(stored_rows[key]).isin(pd.MultiIndex.from_frame(rows[key]))
            frames = [frame for frame in (stored_rows[~is_row_replaced], rows) if len(frame)] or [stored_rows]
            # Sorted, so that the order in which models were evaluated changes nothing.
            merged = pd.concat(frames).sort_values(key, kind="stable", ignore_index=True)
            if not merged.equals(stored_rows) or not self._file(table).is_file():
                schema.write_df(merged, self._file(table), table)
        return merged

    def save(self, **facts: Any) -> None:
        """Change facts of ``run.json``, whole or not at all; what other processes have written since stays.

        Parameters
        ----------
        **facts
            Name → what JSON can hold, or `Roles`.
        """
        roles = facts.get("roles")
        changed_facts = {**facts, "roles": asdict(roles)} if isinstance(roles, schema.Roles) else facts
        self._update_run_json(lambda written: written.update(changed_facts))

    def save_comparison(self, roles: schema.Roles, batteries: Collection[str], **facts: Any) -> None:
        """Enter what the tables now answer, and a report repeats: who is who, on which batteries, and other facts."""

        def set_comparison_facts(written: dict[str, Any]) -> None:
            written.update({"roles": asdict(roles), **facts})
            for name in written["batteries"].keys() & set(batteries):
                written["batteries"][name].pop("pending", None)

        self._update_run_json(set_comparison_facts)

    def add_battery(self, name: str, digest: str, facts: Mapping[str, Any] | None = None) -> None:
        """Enter a battery into ``run.json``; without facts a new one is ``pending``: no comparison is about it yet.

        Raises
        ------
        StoreError
            A battery of this name with other contents was run here.
        """

        def set_battery_entry(written: dict[str, Any]) -> None:
            recorded_battery = written["batteries"].get(name, {"hash": digest})
            if recorded_battery["hash"] != digest:
                raise StoreError(
                    f"{self.path}: holds another battery called {name!r} (hash {recorded_battery['hash'][:12]}, now "
                    f"{digest[:12]}). Give the changed battery another name or version of its name, or choose another "
                    f"--out."
                )
            new_entry = {"hash": digest, **({"pending": True} if facts is None else facts)}
            written["batteries"][name] = written["batteries"].get(name, new_entry) if facts is None else new_entry

        self._update_run_json(set_battery_entry)

    def add_model(self, name: str, fingerprint: str, facts: Mapping[str, Any]) -> None:
        """Enter a model into ``run.json``.

        Raises
        ------
        StoreError
            A model of this name that differs in weights, dtype or prompting was run here.
        """

        def set_model_entry(written: dict[str, Any]) -> None:
            recorded_model = written["models"].get(name, {"fingerprint": fingerprint})
            if recorded_model["fingerprint"] != fingerprint:
                stored_model_identity, now = recorded_model.get("identity", {}), facts.get("identity", {})
                mismatch = ", ".join(key for key in now if stored_model_identity.get(key) != now.get(key)) or "kind"
                raise StoreError(
                    f"{self.path}: holds another model called {name!r} (they differ in {mismatch}). Give one of them a "
                    f"name of its own: NAME={facts.get('word', 'CKPT')}, or choose another --out."
                )
            written["models"][name] = {"fingerprint": fingerprint, **facts}

        self._update_run_json(set_model_entry)

    def _update_run_json(self, apply_change: Callable[[dict[str, Any]], object]) -> None:
        """Read ``run.json`` anew, let `apply_change` change it or refuse, and write it, while no other process can."""
        with self.hold_tables_lock():
            facts = self._read_note() or {"layout": _LAYOUT_VERSION, "models": {}, "batteries": {}}
            apply_change(facts)
            self._add_notes_to_facts(facts)
            facts |= {"layout": _LAYOUT_VERSION, "updated": _now()}
            schema.write_object(facts, self.path / _RUN_JSON_FILE)
        self.facts = facts

    def _read_note(self) -> dict[str, Any] | None:
        """What ``run.json`` holds; None where the directory is new or empty."""
        try:
            path_exists = self.path.exists()
        except (OSError, ValueError) as error:  # too long a name, a null byte, no access
            raise StoreError(f"{str(self.path)[:200]}: cannot be a directory: {error}.") from error
        if not path_exists:
            return None
        if not self.path.is_dir():
            raise StoreError(f"{self.path}: is a file. --out names a directory.")
        run_json_path = self.path / _RUN_JSON_FILE
        if not run_json_path.is_file():
            contents = [entry.name for entry in self.path.iterdir() if not entry.name.endswith((".partial", ".lock"))]
            if contents and not run_json_path.is_file():  # still: another process may have begun the directory just now
                raise StoreError(
                    f"{self.path}: is no run directory: it holds {', '.join(sorted(contents)[:5])} and no run.json. "
                    f"Choose another --out; nothing was changed."
                )
            return None
        try:
            facts = dict(json.loads(run_json_path.read_text(encoding="utf-8")))
            layout = int(facts["layout"])
            for kind in ("models", "batteries"):
                facts[kind] = {name: dict(entry) for name, entry in dict(facts[kind]).items()}
            _parse_roles(facts)
            list(facts.get("notes", ())), list(facts.get("declined_roles", ()))
            float(facts.get("margin", 0)), float(facts.get("conf_level", 0))
        except (OSError, ValueError, TypeError, KeyError, OverflowError) as error:
            raise StoreError(
                f"{run_json_path}: is no note of a run: {error!r}. Choose another --out; nothing was changed."
            ) from error
        if layout > _LAYOUT_VERSION:
            raise StoreError(f"{run_json_path}: was written by a newer capgap (layout {layout}). Update capgap.")
        return facts

    def discard(self) -> None:
        """Remove a directory that holds nothing but its note and lock: a job was refused before it wrote anything."""
        entries = list(self.path.iterdir())
        if {entry.name for entry in entries} <= {_RUN_JSON_FILE, _TABLES_LOCK_FILE}:
            with suppress(OSError):
                for entry in entries:
                    entry.unlink(missing_ok=True)
                self.path.rmdir()

    @contextmanager
    def hold_tables_lock(self) -> Iterator[None]:
        """Held while what several writers share is read, merged and written; a second entry of one thread passes.

        Raises
        ------
        StoreError
            Another process holds it for two minutes, or the disk knows no locks.
        """
        try:
            self._lock.acquire()
        except (TimeoutError, OSError) as error:
            raise StoreError(f"{self.path}: its tables cannot be locked: {error}.") from error
        try:
            yield
        finally:
            self._lock.release()

    def _file(self, table: schema.Table) -> Path:
        return self.path / f"{table.name}.parquet"


def _parse_roles(facts: Mapping[str, Any]) -> schema.Roles | None:
    """The roles of ``run.json``; whatever else stands in their place raises TypeError, ValueError or KeyError."""
    roles = facts.get("roles")
    if not roles:
        return None
    pairs = {role: dict(roles.get(role) or {}) for role in ("base", "control")} if isinstance(roles, dict) else {}
    return schema.Roles(**{**roles, **pairs, "students": tuple(roles["students"])})


def _describe_non_run_path(path: Path) -> str:
    """What is there instead of a run directory, and what to do."""
    if not path.is_dir():
        return f"{'is a file' if path.exists() else 'does not exist'}. Expected the --out of an evaluation or import."
    tables = sorted(f.name for f in path.iterdir() if f.suffix in (".parquet", ".csv", ".jsonl", ".json"))
    if (path / "estimates.parquet").is_file() and not has_outcomes(path):
        advice = (
            "It holds an analysis of tables that lie elsewhere: run that capgap analyze again, or bring them into a "
            "directory first (capgap import table FILE --out DIR), which can be reported again."
        )
    elif next(path.rglob("samples_*.jsonl"), None) is not None:
        advice = f"For the files of lm-evaluation-harness in it: capgap import lm-eval {path} --out DIR"
    elif tables:
        advice = f"For a table in it, name the table: capgap analyze {path / tables[0]}"
    else:
        advice = "Expected the --out of an evaluation or import."
    return f"is no run directory (it has no run.json). {advice}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
