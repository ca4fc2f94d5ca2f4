"""However the requests are divided among processes and machines, the tables are the same."""

import json
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from capgap import schema
from capgap.errors import StoreError
from capgap.evaluation import EvaluationPlan, evaluate
from capgap.evaluation import workers as module
from capgap.evaluation.workers import plan_worker_jobs
from capgap.events import Event, Note, StageAdvanced
from capgap.models import Ledger, expand_models
from capgap.store import RunDirectory
from tests.conftest import make_battery
from tests.processes import warm_context


def plan_of(checkpoints: dict[str, Path], battery: Path, **settings: object) -> EvaluationPlan:
    student, teacher = expand_models([str(checkpoints["student"]), str(checkpoints["teacher"])])
    return EvaluationPlan(students=(student,), teacher=teacher, batteries=(str(battery),), device="cpu", **settings)  # type: ignore[arg-type]


def assert_same_tables(one: RunDirectory, other: RunDirectory) -> None:
    for table in (schema.ITEMS, schema.OUTCOMES, schema.MODELS):
        pd.testing.assert_frame_equal(one.read(table), other.read(table), atol=1e-4, rtol=0, check_exact=False)


@pytest.mark.parametrize("context", [warm_context, pytest.param(get_context, marks=pytest.mark.slow)])
def test_two_processes_give_the_tables_of_one(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, context: Callable[[str], Any]
) -> None:
    monkeypatch.setattr(module, "get_context", context)
    battery = make_battery(tmp_path / "battery", shots=2, n=40)
    one = evaluate(plan_of(checkpoints, battery, batch_tokens=64), tmp_path / "one")
    events: list[Event] = []
    two = evaluate(plan_of(checkpoints, battery, batch_tokens=64, workers=2), tmp_path / "two", on_event=events.append)
    assert sum(event.n for event in events if isinstance(event, StageAdvanced)) == 2 * (3 + 1) * 40
    assert_same_tables(one, two)
    assert one.facts["requests"] == two.facts["requests"]
    assert {name: facts["fingerprint"] for name, facts in one.facts["models"].items()} == {
        name: facts["fingerprint"] for name, facts in two.facts["models"].items()
    }


def test_shards_in_one_folder_become_the_tables_of_one_machine(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "get_context", warm_context)
    battery = make_battery(tmp_path / "battery", n=40)
    whole = evaluate(plan_of(checkpoints, battery, batch_tokens=64), tmp_path / "whole")
    folder = tmp_path / "shards"
    for k in range(2):
        evaluate(plan_of(checkpoints, battery, batch_tokens=64, shard=(k, 2)), folder)
        assert not (folder / "outcomes").exists()
        if k == 0:
            with pytest.raises(StoreError, match=r"lacks \d+ of \d+ answers"):
                evaluate(plan_of(checkpoints, battery, batch_tokens=64, rescore=True), folder)
    assert sorted(path.name for path in folder.glob("ledger*.sqlite")) == [
        "ledger.1-of-2.sqlite",
        "ledger.2-of-2.sqlite",
        "ledger.sqlite",
    ]
    together = evaluate(plan_of(checkpoints, battery, batch_tokens=64), folder)
    assert together.facts["requests"]["computed"] == 0, "the shards have asked everything"
    assert_same_tables(whole, together)


def test_parts_cover_every_model_once(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    for workers in (1, 2, 3, 8):
        for shards in (1, 3):
            seen: dict[int, list[tuple[int, int]]] = {}
            for k in range(shards):
                plan = plan_of(checkpoints, tmp_path, workers=workers, shard=(k, shards))
                for _, jobs in plan_worker_jobs(plan):
                    for index, part in jobs:
                        seen.setdefault(index, []).append(part)
            assert sorted(seen) == [0, 1]
            for parts in seen.values():
                (n,) = {n for _, n in parts}
                assert sorted(k for k, _ in parts) == list(range(n))


def test_a_model_that_needs_all_gpus_is_asked_by_one_worker_after_the_others(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    battery = make_battery(tmp_path)
    whole = evaluate(plan_of(checkpoints, battery), tmp_path / "whole")
    plan = plan_of(checkpoints, battery, workers=2)
    large = plan.models[0].name
    monkeypatch.setattr(module, "get_context", warm_context)
    monkeypatch.setattr(module, "needs_several_gpus", lambda spec: spec.name == large)
    assert [(n, {index for index, _ in jobs}) for n, jobs in plan_worker_jobs(plan)] == [(2, {1}), (1, {0})]
    split = evaluate(plan, tmp_path / "split")
    keys = ["model", "task", "item", "variant", "metric"]
    one, other = (run.outcomes(plan.roles.names).sort_values(keys).reset_index(drop=True) for run in (whole, split))
    assert one[[*keys, "score", "status"]].equals(other[[*keys, "score", "status"]])


def test_two_runs_at_once_on_one_directory_lose_and_double_nothing(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    battery = make_battery(tmp_path / "battery", n=60)
    calm = evaluate(plan_of(checkpoints, battery, batch_tokens=64), tmp_path / "calm")
    context = warm_context()
    jobs = []
    for name in ("student", "teacher"):
        (model,) = expand_models([str(checkpoints[name])])
        alone = EvaluationPlan(students=(model,), batteries=(str(battery),), device="cpu", batch_tokens=64)
        jobs.append(context.Process(target=evaluate, args=(alone, tmp_path / "both")))
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(timeout=240)
    assert [job.exitcode for job in jobs] == [0, 0]
    both = RunDirectory.open_existing(tmp_path / "both")
    assert set(both.facts["models"]) == {"student", "teacher"}
    one, other = (run.read(schema.OUTCOMES) for run in (calm, both))
    pd.testing.assert_frame_equal(one, other, atol=1e-4, rtol=0, check_exact=False)
    with Ledger(calm.ledger_path) as a, Ledger(both.ledger_path) as b:
        assert len(a) == len(b)


def test_rescoring_loads_no_model_and_changes_nothing(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from capgap.evaluation import model_runner

    battery = make_battery(tmp_path / "battery", n=12)
    before = evaluate(plan_of(checkpoints, battery), tmp_path / "run").read(schema.OUTCOMES)
    monkeypatch.setattr(model_runner, "load_model", lambda *_, **__: pytest.fail("a model was loaded"))
    again = evaluate(plan_of(checkpoints, battery, rescore=True), tmp_path / "run")
    pd.testing.assert_frame_equal(again.read(schema.OUTCOMES), before)
    assert again.facts["requests"]["computed"] == 0


def test_rescoring_refuses_what_was_never_asked(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    battery = make_battery(tmp_path / "battery", n=12)
    evaluate(plan_of(checkpoints, battery, limit=6), tmp_path / "run")
    with pytest.raises(StoreError, match=r"lacks \d+ of \d+ answers of teacher. Run the evaluation to its end first"):
        evaluate(plan_of(checkpoints, battery, rescore=True), tmp_path / "run")
    (stranger,) = expand_models([f"stranger={checkpoints['base']}"])
    plan = EvaluationPlan(students=(stranger,), batteries=(str(battery),), device="cpu", rescore=True)
    with pytest.raises(StoreError, match=r"no model 'stranger' was asked here\. It knows: student, teacher"):
        evaluate(plan, tmp_path / "run")


def test_what_the_proof_compared_is_noted(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    events: list[Event] = []
    battery = make_battery(tmp_path / "battery", n=12)
    evaluate(plan_of(checkpoints, battery), tmp_path / "run", on_event=events.append)
    notes = [event.text for event in events if isinstance(event, Note)]
    assert any(n.startswith("student: ") and "requests compared with lm-eval's own path" in n for n in notes)
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert set(facts["models"]["student"]["seconds"]) == {"loading", "hashing", "proof"}


def test_what_no_backend_can_do_is_refused_before_any_model_is_loaded(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from capgap.errors import ModelError
    from capgap.evaluation import model_runner

    monkeypatch.setattr(model_runner, "load_model", lambda *_, **__: pytest.fail("a model was loaded"))
    chat = "chat=local-chat-completions:model=x,base_url=http://127.0.0.1:9/v1/chat/completions"
    student, teacher = expand_models([chat, str(checkpoints["teacher"])])
    battery = make_battery(tmp_path / "battery")
    plan = EvaluationPlan(students=(student,), teacher=teacher, batteries=(str(battery),), device="cpu")
    with pytest.raises(ModelError, match=r"model chat: local-chat-completions gives no log-likelihoods"):
        evaluate(plan, tmp_path / "run")
    assert not (tmp_path / "run").exists()
