"""Run directories made from frames."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from capgap import schema
from capgap.store import RunDirectory


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Makes a run directory from a frame, with the roles that it remembers."""

    def make(frame: pd.DataFrame, name: str = "run", **roles: Any) -> Path:
        run = RunDirectory(tmp_path / name)
        rows = schema.validate(frame, schema.OUTCOMES)
        for (model, battery), part in rows.groupby(["model", "battery"]):
            run.write_outcomes(str(model), str(battery), part)
        if roles:
            run.save(roles=schema.Roles(**roles))
        return run.path

    return make


@pytest.fixture
def brief_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a page of one line, where a law is about the files around it."""

    def write(path: Path, *, outcomes: pd.DataFrame, roles: schema.Roles, **_: Any) -> Path:
        path.write_text(f"{roles}, {sorted(set(outcomes['battery']))}, {len(outcomes)} outcomes")
        return path

    monkeypatch.setattr("capgap.results.results.write_report", write)
