"""The same numbers as lm-eval's `hf` on two real models over real items: long answers, letters, rolling, generation."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

MODELS = os.environ.get("CAPGAP_REAL_MODELS", "")
DATA = os.environ.get("CAPGAP_SHARED_DATA", "")
ATOL = 1e-3
CHOOSE = ("arc_easy", "arc_challenge", "piqa", "openbook_qa", "commonsense_qa", "logi_qa", "lsat_ar")
TASKS = (*CHOOSE, "rolling", "gsm8k", "svamp", "jeopardy")

pytestmark = [
    pytest.mark.real,
    pytest.mark.timeout(3000),
    pytest.mark.skipif(not (MODELS and DATA), reason="CAPGAP_REAL_MODELS and CAPGAP_SHARED_DATA name no folders"),
]


@pytest.mark.parametrize("shots", [0, 5])
@pytest.mark.parametrize(("name", "window"), [("SmolLM2-135M-Instruct", None), ("gemma-3-270m", 512)])
@pytest.mark.filterwarnings("ignore")
def test_log_likelihoods_choices_and_texts_are_lm_evals(
    name: str, window: int | None, shots: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from lm_eval.models.huggingface import HFLM

    from capgap.models import Ledger, load_model, parse_model, respond
    from tests.benchmarks.tasks import requests

    checkpoint = Path(MODELS) / name
    lm = HFLM(pretrained=str(checkpoint), device="cpu", dtype="float32", batch_size=1)
    model = load_model(parse_model(f"{checkpoint},chat_template=off"), device="cpu", dtype="float32")
    ties: list[str] = []
    longest = 0
    for task in TASKS if shots == 0 else [task for task in TASKS if task != "rolling"]:
        asked = requests(task, Path(DATA), tmp_path, items=8 if shots == 0 else 5, shots=shots)
        expected = getattr(lm, asked[0].request_type)(asked, disable_tqdm=True)
        with Ledger(tmp_path / "ledger.sqlite") as ledger:
            got = [own[0].value for own in respond(model, asked, ledger)]
        longest = max(longest, *(len(lm.tok_encode(str(instance.args[0]))) for instance in asked))
        _assert_same(task, asked, got, expected, ties)
    assert model.tree is not None, model.notes
    assert model.tree.proven.n_requests > 3
    if window is not None and shots:
        assert longest > window, "prompts must be longer than the attention window, or this shows nothing"
    with capsys.disabled():
        proven = model.tree.proven
        print(
            f"\n{name}, {shots} shots: {len(TASKS)} tasks, longest prompt {longest}, largest difference in the proof "
            f"{proven.largest_difference:.1g} nats, ties within {ATOL}: {ties or 'none'}"
        )


def _assert_same(task: str, asked: Any, got: list[Any], expected: list[Any], ties: list[str]) -> None:
    by_item: dict[int, list[int]] = {}
    for n, instance in enumerate(asked):
        by_item.setdefault(int(instance.doc_id), []).append(n)
    for one, other in zip(got, expected, strict=True):
        if isinstance(one, str):
            assert one == other, json.dumps([task, one, other])
        elif isinstance(one, tuple):
            assert one[0] == pytest.approx(other[0], abs=ATOL), task
            assert one[1] == other[1], task
        else:
            assert one == pytest.approx(other, abs=ATOL), task
    if task in CHOOSE:
        for item, members in by_item.items():
            ours, theirs = ([values[n][0] for n in members] for values in (got, expected))
            if ours.index(max(ours)) != theirs.index(max(theirs)):
                first, second = sorted(theirs, reverse=True)[:2]
                assert first - second <= ATOL, (task, item)
                ties.append(f"{task} item {item}")
