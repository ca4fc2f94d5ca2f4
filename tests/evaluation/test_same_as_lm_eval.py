"""The harness's own numbers: capgap drives lm-eval's tasks, so every item must score as `simple_evaluate` scores it."""

from pathlib import Path
from typing import Any

import lm_eval
import pytest
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from capgap import schema
from capgap.battery import load_battery, prepare_battery
from capgap.evaluation import EvaluationPlan, cast_roles, evaluate
from tests.conftest import make_battery, make_checkpoint

ATOL = 1e-3  # log-likelihoods move with the padding of a batch; fp32 keeps them well within this


def _reference(checkpoint: Path, battery: Path, **options: Any) -> dict[tuple[str, int], dict[str, Any]]:
    """Samples of `simple_evaluate` over the same tasks, by task and document."""
    tasks = [prepared.lm_task for prepared in prepare_battery(load_battery(battery))]
    lm = HFLM(pretrained=str(checkpoint), device="cpu", dtype="float32", batch_size=3)
    nothing = TaskManager(include_defaults=False)  # listing lm-eval's 14,000 own tasks takes longer than all else here
    results = lm_eval.simple_evaluate(
        model=lm,
        tasks=tasks,
        task_manager=nothing,
        bootstrap_iters=0,
        log_samples=True,
        fewshot_random_seed=3,
        **options,
    )
    return {(task, s["doc_id"]): s for task, samples in results["samples"].items() for s in samples}


@pytest.mark.parametrize("shots", [0, 2])
@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.filterwarnings("ignore")
def test_every_item_scores_as_simple_evaluate_scores_it(tmp_path: Path, shots: int, chat: bool) -> None:
    checkpoint = make_checkpoint(tmp_path / "model", seed=5, chat=chat)
    battery = make_battery(tmp_path / "battery", shots=shots)
    students, *_ = cast_roles([f"model={checkpoint}"])
    run = evaluate(EvaluationPlan(students=students, batteries=(str(battery),), device="cpu"), tmp_path / "run")
    ours = run.read(schema.OUTCOMES)
    theirs = _reference(checkpoint, battery, apply_chat_template=chat, fewshot_as_multiturn=chat)
    items = {
        (prepared.name, item.item): n
        for prepared in prepare_battery(load_battery(battery))
        for n, item in enumerate(prepared.items)
    }
    assert len(ours[ours["primary"]]) == len(theirs) == 48
    seen = set()
    for row in ours.itertuples():
        sample = theirs[(row.task, items[(row.task, row.item)])]
        assert row.value == pytest.approx(float(sample[row.metric])), (row.task, row.item, row.metric)
        if row.format == "choose":
            logprobs = sorted((float(r[0][0]) for r in sample["resps"]), reverse=True)
            if row.metric == "acc":
                assert row.margin == pytest.approx(logprobs[0] - logprobs[1], abs=ATOL)
        else:
            assert row.response == sample["resps"][0][0]
        seen.add((row.format, row.score))
    assert len(seen) == 4, "the items must be right and wrong in both formats, or the comparison shows nothing"
