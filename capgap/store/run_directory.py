"""A run directory: what was asked, the ledger, the tables, and their state.

::

    DIR/run.json            what was asked and how far it went
    DIR/ledger.sqlite       every response as it arrives
    DIR/items.parquet  outcomes.parquet  models.parquet  (labels, estimates: written by those who make them)
    DIR/report.html

The same command on the same directory goes on where it stopped. Another model or battery is added to it; a model or
battery of a known name with other contents is refused, because two things under one name would be one in every table.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pandas as pd
from filelock import FileLock

from capgap import schema
from capgap.errors import StoreError

__all__ = ["RunDirectory"]

_LAYOUT = 1


class RunDirectory:
    """One run directory; made where there is none.

    Parameters
    ----------
    path
        The directory; an existing one must be empty or a run directory.

    Raises
    ------
    StoreError
        It is a file, holds something else, was written by a newer capgap, or cannot be written.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.facts: dict[str, Any] = {"layout": _LAYOUT, "models": {}, "batteries": {}}
        existing = self._existing()
        if existing is not None:
            self.facts = existing
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.save(created=_now(), id=uuid4().hex, state="new")
        except OSError as error:
            raise StoreError(
                f"{self.path}: cannot be written: {error.strerror or error}. Choose another --out."
            ) from error

    @classmethod
    def existing(cls, path: Path | str) -> "RunDirectory":
        """A run directory that is there already.

        Raises
        ------
        StoreError
            There is none.
        """
        path = Path(path)
        if not (path / "run.json").is_file():
            raise StoreError(f"{path}: {_not_a_run(path)}")
        return cls(path)

    def _existing(self) -> dict[str, Any] | None:
        if not self.path.exists():
            return None
        if not self.path.is_dir():
            raise StoreError(f"{self.path}: is a file. --out names a directory.")
        note = self.path / "run.json"
        if not note.is_file():
            others = [entry.name for entry in self.path.iterdir() if not entry.name.endswith((".partial", ".lock"))]
            if others:
                raise StoreError(
                    f"{self.path}: is no run directory: it holds {', '.join(sorted(others)[:5])} and no run.json. "
                    f"Choose another --out; nothing was changed."
                )
            return None
        try:
            facts = json.loads(note.read_text(encoding="utf-8"))
            layout = int(facts["layout"])
            facts["models"], facts["batteries"] = dict(facts["models"]), dict(facts["batteries"])
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise StoreError(
                f"{note}: is no note of a run: {error!r}. Choose another --out; nothing was changed."
            ) from error
        if layout > _LAYOUT:
            raise StoreError(f"{note}: was written by a newer capgap (layout {layout}). Update capgap.")
        return dict(facts)

    def save(self, **changes: Any) -> None:
        """Write run.json with these facts changed, whole or not at all.

        Models and batteries that another process has added since are kept.
        """
        self.facts |= {**changes, "updated": _now()}
        with self._locked():
            written = (self._existing() or {}) if (self.path / "run.json").is_file() else {}
            for group in ("models", "batteries"):
                self.facts[group] = {**written.get(group, {}), **self.facts[group]}
            schema.write_object(self.facts, self.path / "run.json")

    def add_battery(self, name: str, digest: str, facts: Mapping[str, Any]) -> None:
        """Note a battery.

        Raises
        ------
        StoreError
            A battery of this name with other contents was run here.
        """
        known = self.facts["batteries"].get(name)
        if known is not None and known["hash"] != digest:
            raise StoreError(
                f"{self.path}: holds another battery called {name!r} (hash {known['hash'][:12]}, now {digest[:12]}). "
                f"Give the changed battery another name or version of its name, or choose another --out."
            )
        self.facts["batteries"][name] = {"hash": digest, **facts}

    def add_model(self, name: str, fingerprint: str, facts: Mapping[str, Any]) -> None:
        """Note a model.

        Raises
        ------
        StoreError
            A model of this name that differs in weights, dtype or prompting was run here.
        """
        known = self.facts["models"].get(name)
        if known is not None and known["fingerprint"] != fingerprint:
            before, now = known.get("identity", {}), facts.get("identity", {})
            differs = [key for key in now if before.get(key) != now.get(key)]
            raise StoreError(
                f"{self.path}: holds another model called {name!r} (they differ in {', '.join(differs) or 'kind'}). "
                f"Give one of them a name of its own: NAME={facts.get('word', 'CKPT')}, or choose another --out."
            )
        self.facts["models"][name] = {"fingerprint": fingerprint, **facts}

    @property
    def ledger_path(self) -> Path:
        """Where the responses of its models are kept."""
        return self.path / "ledger.sqlite"

    @property
    def id(self) -> str:
        """Names this run; answers of models whose weights are not seen are never shared beyond it."""
        return str(self.facts.get("id") or self.facts.get("created", ""))

    def read(self, table: schema.Table) -> pd.DataFrame:
        """One of its tables; without rows where it was not yet written."""
        path = self.path / f"{table.name}.parquet"
        return schema.read(path, table) if path.is_file() else schema.empty(table)

    def outcomes(self, roles: schema.Roles) -> pd.DataFrame:
        """The outcomes of the models that play a role.

        Raises
        ------
        StoreError
            One of them has none yet.
        """
        whole = self.read(schema.OUTCOMES)
        absent = [name for name in roles.names if name not in set(whole["model"])]
        if absent:
            raise StoreError(f"{self.path}: has no outcomes of {absent[0]!r} yet. Run its evaluation to the end first.")
        return whole[whole["model"].isin(roles.names)].reset_index(drop=True)

    def merge(self, table: schema.Table, rows: pd.DataFrame, replaces: tuple[str, ...]) -> pd.DataFrame:
        """Add rows to a table; rows that agree with a new one in the columns `replaces` make room for it.

        Returns
        -------
        pandas.DataFrame
            The whole table as it was written.
        """
        with self._locked():
            old = self.read(table)
            if len(old) and len(rows):
                columns = list(replaces)
                new_keys = pd.MultiIndex.from_frame(rows[columns].astype("str"))
                old = old[~pd.MultiIndex.from_frame(old[columns].astype("str")).isin(new_keys)]
            whole = schema.concat([old, rows], table)
            # Sorted, so that the order in which models were evaluated changes nothing.
            whole = whole.sort_values(list(table.key), kind="stable", ignore_index=True)
            schema.write(whole, self.path / f"{table.name}.parquet", table)
        return whole

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Two processes that add to one table wait for each other."""
        try:
            with FileLock(self.path / "tables.lock", timeout=120):
                yield
        except (TimeoutError, OSError) as error:
            raise StoreError(f"{self.path}: its tables cannot be locked: {error}.") from error


def _not_a_run(path: Path) -> str:
    """What is there instead of a run directory, and what to do."""
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        return f"{what}. Expected the --out of an evaluation or import."
    what = "is no run directory (it has no run.json)."
    if (path / "estimates.parquet").is_file() and not (path / "outcomes.parquet").is_file():
        return (
            f"{what} It holds an analysis of tables that lie elsewhere: run that capgap analyze again, or bring "
            f"them into a directory first (capgap import table FILE --out DIR), which can be reported again."
        )
    if next(path.rglob("samples_*.jsonl"), None) is not None:
        return f"{what} For the files of lm-evaluation-harness in it: capgap import lm-eval {path} --out DIR"
    tables = sorted(f.name for f in path.iterdir() if f.suffix in (".parquet", ".csv", ".jsonl", ".json"))
    if tables:
        return f"{what} For a table in it, name the table: capgap analyze {path / tables[0]}"
    return f"{what} Expected the --out of an evaluation or import."


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
