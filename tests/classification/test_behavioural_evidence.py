import json
import math

import numpy as np
import pandas as pd
import pytest

from capgap.classification import behaviour_evidence
from capgap.classification.behavioural_evidence import TaskBehaviour, measure_by_task
from capgap.classification.pooling import pool
from capgap.schema.remarks import Reason
from tests.classification.worlds import models, outcomes

STEPS_HELP = {("m", "direct"): 0.4, ("m", "cot"): 0.9}
NOTHING_HELPS = {("m", "direct"): 0.6, ("m", "cot"): 0.6}


def of(frame: pd.DataFrame, sizes: pd.DataFrame | None = None) -> dict[str, TaskBehaviour]:
    return {b.name: b for b in measure_by_task(frame, sizes)["t"]}


def p(frame: pd.DataFrame) -> float:
    return pool(behaviour_evidence(frame)["t"], [[]]).task.p


def test_the_share_of_errors_that_thoughts_mend_by_hand() -> None:
    frame = outcomes(STEPS_HELP, n=400)
    without, thinking = (frame[frame["variant"] == v]["score"].mean() for v in ("direct", "cot"))
    found = of(frame)["steps"]
    assert found.estimate.estimate == pytest.approx((thinking - without) / (1 - without))
    assert found.estimate.conf_low < found.estimate.estimate < found.estimate.conf_high
    assert [m.name for m in found.models] == ["m"]


def test_what_thoughts_mend_is_reasoning_and_what_they_do_not_is_knowledge() -> None:
    assert p(outcomes(STEPS_HELP, decided={"direct": 0.1})) > 2 / 3
    assert p(outcomes(NOTHING_HELPS, decided={"direct": 5.0})) < 1 / 3


def test_a_model_that_guesses_says_nothing() -> None:
    frame = outcomes({("m", "direct"): 0.25, ("m", "cot"): 0.25})
    assert behaviour_evidence(frame)["t"] == ()
    both = pd.concat([frame.assign(model="guesser"), outcomes(STEPS_HELP)], ignore_index=True)
    assert of(both)["steps"].estimate.estimate == of(outcomes(STEPS_HELP))["steps"].estimate.estimate


def test_a_model_without_errors_leaves_no_room_to_gain() -> None:
    found = of(outcomes({("m", "direct"): 1.0, ("m", "cot"): 1.0}, decided={"direct": 8.0}))
    assert found["steps"].estimate.status == "refused"
    assert found["steps"].evidence is None
    assert found["entropy"].evidence is not None
    assert found["entropy"].evidence.logit < -1


def test_what_only_the_fact_brings_is_knowledge_and_what_thoughts_bring_as_well_is_reasoning() -> None:
    base = {("m", "direct"): 0.4, ("m", "fact"): 0.95}
    told = of(outcomes({**base, ("m", "cot"): 0.4}))["fact"]
    worked_out = of(outcomes({**base, ("m", "cot"): 0.95}))["fact"]
    assert told.estimate.estimate == pytest.approx(0, abs=0.05)
    assert worked_out.estimate.estimate == pytest.approx(1, abs=0.05)
    assert told.evidence is not None
    assert worked_out.evidence is not None
    assert told.evidence.logit < 0 < worked_out.evidence.logit


def test_a_fact_that_changes_nothing_says_nothing() -> None:
    found = of(outcomes({**NOTHING_HELPS, ("m", "fact"): 0.6}))["fact"]
    assert found.estimate.status == "refused"
    assert found.estimate.reason is Reason.DENOMINATOR_NEAR_ZERO


@pytest.mark.parametrize(("logprob", "entropy"), [(0.0, 1.0), (60.0, 0.0)])
def test_entropy_is_one_where_nothing_is_preferred_and_zero_where_one_answer_is(logprob: float, entropy: float) -> None:
    found = of(outcomes(STEPS_HELP, decided={"direct": logprob}))["entropy"]
    assert found.estimate.estimate == pytest.approx(entropy, abs=1e-9)
    assert found.estimate.conf_low < found.estimate.conf_high


def test_other_numbers_move_a_computed_answer_and_not_a_quoted_one() -> None:
    asked = {**STEPS_HELP, ("m", "numbers"): 0.9}
    same = outcomes(asked, decided={"cot": 9.0, "numbers": 9.0})
    moved = same.copy()
    rows = moved["variant"] == "numbers"
    moved.loc[rows, "response"] = moved.loc[rows, "response"].map(lambda r: json.dumps(json.loads(r)[::-1]))
    assert of(same)["numbers"].estimate.estimate == pytest.approx(0, abs=1e-6)
    assert of(moved)["numbers"].estimate.estimate > 0.9


def test_size_needs_three_sizes_of_which_one_is_able() -> None:
    grows = {("a", "direct"): 0.3, ("b", "direct"): 0.6, ("c", "direct"): 0.9}
    sizes = models(a=10**6, b=10**7, c=10**8)
    found = of(outcomes(grows), sizes)["size"]
    assert found.estimate.estimate == pytest.approx(0.3, abs=0.08)
    assert found.evidence is not None
    assert found.evidence.logit < 0
    assert found.evidence.models[0].weights_hash == "hash of a"
    flat = of(outcomes({key: 0.45 for key in grows}), sizes)["size"].evidence
    assert flat is not None
    assert flat.logit > 0
    for less in (models(a=10**6, b=10**7), models(a=10**6, b=2 * 10**6, c=2 * 10**6 + 1)):
        assert of(outcomes(grows), less)["size"].evidence is None
    assert of(outcomes({key: 0.25 for key in grows}), sizes)["size"].evidence is None
    assert of(outcomes({key: 0.99 for key in grows}), sizes)["size"].evidence is None


def test_single_items_and_few_items_are_no_evidence() -> None:
    assert behaviour_evidence(outcomes(STEPS_HELP, n=9))["t"] == ()
    assert behaviour_evidence(outcomes(STEPS_HELP, n=60))["t"]


def test_more_items_make_it_surer_down_to_the_doubt_about_the_link() -> None:
    sds = [
        next(iter(behaviour_evidence(outcomes({("m", "direct"): 0.5, ("m", "cot"): 0.6}, n=n))["t"])).sd
        for n in (40, 400, 4000)
    ]
    assert sds[0] > sds[1] > sds[2] > 1.0


def test_items_that_stand_or_fall_together_count_as_their_clusters() -> None:
    frame = outcomes(STEPS_HELP, n=200)
    clustered = frame.assign(cluster=frame["item"].str[1:].astype(int).floordiv(20).astype(str))
    assert of(clustered)["steps"].estimate.n_clusters == 10
    assert of(frame)["steps"].estimate.n_clusters == 200


def test_a_table_of_one_cluster_or_without_chance_or_responses_is_no_traceback() -> None:
    frame = outcomes(STEPS_HELP)
    for odd in (
        frame.assign(cluster="all"),
        frame.assign(chance=math.nan),
        frame.assign(response=None),
        frame.assign(response="no json"),
        frame.assign(response='{"a": 1}'),
        frame.assign(response="[NaN, 1]"),
        frame.assign(score=math.nan),
        frame.assign(primary=False),
        frame[frame["variant"] == "cot"],
        frame.iloc[:0],
    ):
        for words in behaviour_evidence(odd).values():
            assert all(np.isfinite([e.logit, e.sd]).all() for e in words)


def test_default_is_without_thoughts_where_nothing_is_called_direct() -> None:
    frame = outcomes(STEPS_HELP)
    renamed = frame.assign(variant=frame["variant"].replace("direct", "default"))
    assert of(renamed)["steps"].estimate == of(frame)["steps"].estimate


def test_a_response_that_may_hold_thoughts_is_not_taken_for_one_without() -> None:
    grows = {("a", "default"): 0.3, ("b", "default"): 0.6, ("c", "default"): 0.9}
    sizes, frame = models(a=10**6, b=10**7, c=10**8), outcomes(grows)
    assert of(frame, sizes)["size"].evidence is not None
    assert of(frame.assign(format="generate"), sizes)["size"].evidence is None
    thinking = outcomes({("m", "default"): 0.4, ("m", "cot"): 0.9}).assign(format="generate")
    assert of(thinking)["steps"].evidence is not None


@pytest.mark.parametrize(("column", "word"), [("stop_reason", "limit"), ("status", "unparsed")])
def test_thoughts_that_are_cut_off_are_not_judged(column: str, word: str) -> None:
    frame = outcomes(STEPS_HELP)
    cut = (frame["variant"] == "cot") & (frame["score"] == 0)
    assert of(frame)["steps"].evidence is not None
    assert of(frame.assign(**{column: frame[column].where(~cut, word)}))["steps"].evidence is None
