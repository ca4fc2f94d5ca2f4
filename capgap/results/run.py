"""Runs: a run directory opened for reading, and the results of what it holds."""

from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from capgap import schema
from capgap.errors import StoreError
from capgap.results.comparison import compare
from capgap.results.results import Results
from capgap.store import RunDirectory


class Run:
    """A run directory; its tables are read when they are first asked for, and without rows where there are none.

    A run is a path wherever one is expected: ``capgap.analyze(run, teacher="other")``.

    Parameters
    ----------
    path
        The directory, written by an evaluation or an import.

    Raises
    ------
    StoreError
        There is none.
    """

    def __init__(self, path: Path | str) -> None:
        self._directory = RunDirectory.open_existing(path)
        self.path = self._directory.path

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def facts(self) -> dict[str, Any]:
        """What run.json holds: models, batteries, versions, seeds, command line, state."""
        return self._directory.facts

    @cached_property
    def outcomes(self) -> pd.DataFrame:
        """One row for each model, item, variant, repeat and metric, of all models that were asked."""
        return self._directory.read(schema.OUTCOMES)

    @cached_property
    def items(self) -> pd.DataFrame:
        """What was asked."""
        return self._directory.read(schema.ITEMS)

    @cached_property
    def models(self) -> pd.DataFrame:
        """How the models were made."""
        return self._directory.read(schema.MODELS)

    @cached_property
    def labels(self) -> pd.DataFrame:
        """Knowledge or reasoning, item by item; written by the first analysis."""
        return self._directory.read(schema.LABELS)

    @property
    def roles(self) -> schema.Roles:
        """Who is who in the comparison that was last written, by an evaluation or an analysis of this run alone.

        Raises
        ------
        StoreError
            There is none yet.
        """
        roles = self._directory.roles
        if roles is None:
            raise StoreError(
                f"{self.path}: run.json names no roles: no evaluation has ended here and no analysis was written. Say "
                f"who is who: capgap analyze {self.path} --teacher NAME"
            )
        return roles

    @cached_property
    def results(self) -> Results:
        """The comparison of `roles`; another one is `capgap.analyze` of this run.

        Raises
        ------
        StoreError
            No roles are remembered, or a model has no outcomes yet.
        """
        _ = self.roles  # refuses a directory of imports, whose models all would be students
        return compare(self)

    def __repr__(self) -> str:
        return f"<Run {str(self.path)!r}: {len(self.facts['models'])} models, {', '.join(self.facts['batteries'])}>"


def load(folder: Path | str) -> Run:
    """Open a run directory; only run.json is read now.

    Parameters
    ----------
    folder
        Written by `capgap.evaluate` or ``capgap evaluate``, ``demo`` or ``import``.

    Returns
    -------
    Run
        With ``outcomes``, ``items``, ``models``, ``labels``, ``roles`` and ``results``, each read or computed when it
        is first asked for.

    Raises
    ------
    StoreError
        There is no run directory; the message says what is there.
    """
    return Run(folder)
