"""What adding a model costs does not depend on how many are there."""

import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.benchmarks.store import add_model, begun_run

N_MODELS, N_ROWS = 40, 1_000


def test_the_fortieth_model_moves_no_more_bytes_than_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved: dict[tuple[str, str], int] = {}
    replace, read_parquet = os.replace, pd.read_parquet

    def counted_replace(source: Path, target: Path) -> None:
        kind = ("written", Path(target).suffix)
        moved[kind] = moved.get(kind, 0) + os.stat(source).st_size
        replace(source, target)

    def counted_read(path: Path, *args: Any, **kwargs: Any) -> Any:
        moved[("read", ".parquet")] = moved.get(("read", ".parquet"), 0) + Path(path).stat().st_size
        return read_parquet(path, *args, **kwargs)

    monkeypatch.setattr(os, "replace", counted_replace)
    monkeypatch.setattr(pd, "read_parquet", counted_read)
    run, outcomes, items = begun_run(tmp_path / "run", N_ROWS)
    by_model = []
    for n in range(N_MODELS):
        moved.clear()
        add_model(run, n, outcomes, items)
        by_model.append(dict(moved))
    first, second, last = by_model[0], by_model[1], by_model[-1]
    assert last["written", ".parquet"] < 1.2 * second["written", ".parquet"], "one part, and a row of models"
    assert last["written", ".parquet"] < first["written", ".parquet"], "the first writes the items too"
    assert last["read", ".parquet"] < 1.2 * second["read", ".parquet"], "items and models, no outcomes"
    size = (run.path / "run.json").stat().st_size
    assert size < 1_000 * N_MODELS, "run.json alone grows, by less than a kilobyte a model"
    assert last["written", ".json"] <= 6 * size
