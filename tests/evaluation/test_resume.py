"""Killed in the middle and started again: nothing is asked twice, and the tables are those of an undisturbed run."""

import json
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from capgap import schema
from capgap.evaluation import EvaluationPlan, cast_roles, evaluate
from capgap.store import RunDirectory
from tests.conftest import ROOT, make_battery
from tests.processes import warm_context


def _plan(checkpoints: dict[str, Path], battery: Path) -> EvaluationPlan:
    students, teacher, *_ = cast_roles([str(checkpoints["student"])], teacher=str(checkpoints["teacher"]), base="none")
    return EvaluationPlan(students=students, teacher=teacher, batteries=(str(battery),), device="cpu", batch_tokens=64)


def _answered(ledger: Path) -> int:
    try:
        with sqlite3.connect(f"file:{ledger}?mode=ro", uri=True) as db:
            return int(db.execute("SELECT count(*) FROM responses").fetchone()[0])
    except sqlite3.Error:
        return 0


def _run(command: list[str]) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def _assert_same_tables(calm: Path, killed: Path, *tables: schema.Table) -> None:
    for table in tables:
        one, other = (RunDirectory.open_existing(folder).read(table) for folder in (calm, killed))
        pd.testing.assert_frame_equal(one, other, atol=1e-4, rtol=0, check_exact=False)


def test_a_killed_evaluation_goes_on_and_ends_with_the_same_tables(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    battery = make_battery(tmp_path / "battery", n=60)
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    evaluate(_plan(checkpoints, battery), calm)
    total = _answered(calm / "ledger.sqlite")

    process = warm_context().Process(target=evaluate, args=(_plan(checkpoints, battery), killed))
    process.start()
    while _answered(killed / "ledger.sqlite") < total // 3 and process.is_alive():
        time.sleep(0.002)
    process.kill()
    process.join()
    survived = _answered(killed / "ledger.sqlite")
    assert 0 < survived < total, "the kill must fall into the middle, or this shows nothing"

    evaluate(_plan(checkpoints, battery), killed)
    counts = json.loads((killed / "run.json").read_text())["requests"]
    assert counts == {"computed": total - survived, "from_ledger": survived}
    _assert_same_tables(calm, killed, schema.ITEMS, schema.OUTCOMES, schema.MODELS)


def test_the_same_command_again_computes_nothing(
    checkpoints: dict[str, Path], tiny_battery: Path, tmp_path: Path
) -> None:
    plan = _plan(checkpoints, tiny_battery)
    first = evaluate(plan, tmp_path / "run").read(schema.OUTCOMES)
    again = evaluate(plan, tmp_path / "run")
    assert again.facts["requests"]["computed"] == 0
    pd.testing.assert_frame_equal(again.read(schema.OUTCOMES), first)


def test_a_model_and_a_battery_are_added_never_mixed_up(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    one = make_battery(tmp_path / "one")
    other = make_battery(tmp_path / "other", n=12)
    other.write_text(other.read_text().replace("name: tiny", "name: small"))
    students, *_ = cast_roles([str(checkpoints["student"])])
    teachers, *_ = cast_roles([str(checkpoints["teacher"])])
    out = tmp_path / "run"
    evaluate(EvaluationPlan(students=students, batteries=(str(one),), device="cpu"), out)
    before = evaluate(EvaluationPlan(students=teachers, batteries=(str(one),), device="cpu"), out).read(schema.OUTCOMES)
    after = evaluate(EvaluationPlan(students=students, batteries=(str(other),), device="cpu"), out).read(
        schema.OUTCOMES
    )
    counts = after[after["primary"]].groupby(["model", "battery"]).size().to_dict()
    assert counts == {("student", "tiny"): 48, ("teacher", "tiny"): 48, ("student", "small"): 24}
    kept = after[after["battery"] == "tiny"].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, before)
    assert not np.isnan(after["score"]).any()


def test_a_row_is_kept_before_the_next_is_begun(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from capgap.models.prefix_tree import tree_decoder as decode
    from capgap.models.prefix_tree import tree_forward as forward
    from capgap.models.prefix_tree import tree_scorer as scorer

    battery = make_battery(tmp_path / "battery", n=40)
    students, *_ = cast_roles([str(checkpoints["student"])])
    plan = EvaluationPlan(students=students, batteries=(str(battery),), device="cpu", batch_tokens=64)
    calls = {"n": 0, "stop": -1}
    real = forward.row_logits

    def counted(*args: object, **kwargs: object) -> object:
        calls["n"] += 1
        if calls["n"] == calls["stop"]:
            raise KeyboardInterrupt
        return real(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(scorer, "row_logits", counted)
    monkeypatch.setattr(decode, "row_logits", counted)
    evaluate(plan, tmp_path / "calm")
    undisturbed = calls["n"]
    for stop in range(1, undisturbed, 5):
        calls |= {"n": 0, "stop": stop}
        with pytest.raises(KeyboardInterrupt):
            evaluate(plan, tmp_path / f"stopped-{stop}")
        before = calls["n"]
        calls |= {"n": 0, "stop": -1}
        evaluate(plan, tmp_path / f"stopped-{stop}")
        # the row that was interrupted, and what prompts of an interrupted batch share
        assert before + calls["n"] <= undisturbed + 2, stop


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_twenty_kills_at_random_moments_end_with_the_same_tables(tmp_path: Path) -> None:
    import random

    calm, killed = tmp_path / "calm", tmp_path / "killed"
    words = ("--student", "microworld:small", "--teacher", "microworld:teacher", "--base", "none", "--device", "cpu")
    command = [sys.executable, "-m", "capgap", "evaluate", *words, "--battery", "microworld", "--batch-tokens", "256"]
    _run([*command, "--out", str(calm)])
    total = _answered(calm / "ledger.sqlite")
    draw = random.Random(0)
    survived = [0]
    for _ in range(20):
        process = subprocess.Popen([*command, "--out", str(killed)], cwd=ROOT, stderr=subprocess.DEVNULL)
        target = survived[-1] + draw.randrange(total // 14)
        while _answered(killed / "ledger.sqlite") <= target and process.poll() is None:
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.05))
        process.kill()
        process.wait()
        survived.append(_answered(killed / "ledger.sqlite"))
    assert survived == sorted(survived), "nothing that was kept is lost"
    assert len(set(survived)) > 10, "the kills must fall into the middle, or this shows nothing"
    _run([*command, "--out", str(killed)])
    counts = json.loads((killed / "run.json").read_text())["requests"]
    assert counts == {"computed": total - survived[-1], "from_ledger": survived[-1]}
    _assert_same_tables(calm, killed, schema.ITEMS, schema.OUTCOMES, schema.MODELS, schema.ESTIMATES)
    assert (killed / "report.html").is_file()
