"""The demo shows the truth of its world, whatever the seed. Minutes a seed: `make test-slow`."""

from pathlib import Path

import pandas as pd
import pytest

from capgap import schema
from capgap.analysis import estimate_table
from capgap.cli import _status
from capgap.store import RunDirectory


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_answers_close_the_knowledge_gap_and_traces_the_one_step_chains(
    seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _status(["demo", "--seed", str(seed), "--out", str(tmp_path / "demo")]) == 0
    assert "of the knowledge gap" in capsys.readouterr().out
    run = RunDirectory.open_existing(tmp_path / "demo")
    estimates = pd.read_parquet(tmp_path / "demo" / "estimates.parquet")
    contrast = estimates.query(
        "quantity == 'capability_contrast' and contrast == 'gap_closure' and model == 'answers-full'"
    ).iloc[0]
    assert contrast["status"] == "ok"
    assert contrast["conf_low"] > 0, "answers close the knowledge gap more than the reasoning gap"
    outcomes = run.read(schema.OUTCOMES)
    duel = estimate_table(outcomes, schema.Roles(("answers-full",), teacher="traces-full"))
    steps = duel.query("quantity == 'gap' and level == 'slice' and group == 'chains_generate: x_depth=1'").iloc[0]
    assert steps["conf_low"] > 0, "traces beat answers on chains of one step"
