"""Kinds of tasks that capgap's own batteries do not have, run by lm-eval itself: what is read off them must hold."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from capgap.importers import ImportResult, ImportSettings, import_lm_eval, merge_batch
from tests.conftest import make_checkpoint, tiny_rows
from tests.importers.conftest import run_lm_eval

COMMON = """
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}, cache_dir: CACHE}
test_split: test
output_type: KIND
metadata: {version: 2.0}
"""
TASKS = {
    # The target is the text of a choice; the metrics are three, one of them per byte.
    "by_text": """
doc_to_text: "Q : {{q}} ? A :"
doc_to_choice: "{{options}}"
doc_to_target: "{{answer}}"
metric_list: [{metric: acc_norm}, {metric: acc}, {metric: acc_bytes}]
""",
    # Every choice is asked once more without the question.
    "mutual": """
doc_to_text: "Q : {{q}} ? A :"
doc_to_choice: "{{options}}"
doc_to_target: place
metric_list: [{metric: acc}, {metric: acc_mutual_info}]
""",
    # Two contexts with one continuation, as Winogrande has them.
    "contexts": """
doc_to_text: side
doc_to_choice: "{{[q ~ ' red', q ~ ' blue']}}"
doc_to_target: "{{answer}}"
metric_list: [{metric: acc}, {metric: acc_norm}]
""",
    # A metric of the whole task beside one of the items.
    "whole_task": """
doc_to_text: "Q : {{q}} ? A :"
doc_to_choice: [red, blue]
doc_to_target: side
metric_list: [{metric: mcc}, {metric: acc}]
""",
    "one_continuation": """
doc_to_text: "Q : {{q}} ? A :"
doc_to_target: " {{answer}}"
metric_list: [{metric: perplexity}, {metric: acc}]
""",
    "two_filters": """
doc_to_text: "Q : {{q}} ? A :"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["Q"], max_gen_toks: 8}
metric_list: [{metric: exact_match}]
filter_list:
  - {name: strict, filter: [{function: regex, regex_pattern: "^(red|blue|green)$"}, {function: take_first}]}
  - {name: loose, filter: [{function: regex, regex_pattern: "(red|blue|green)"}, {function: take_first}]}
""",
}
KINDS = {"one_continuation": "loglikelihood", "two_filters": "generate_until"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tiny models over every task above."""
    from lm_eval.tasks import TaskManager

    root = tmp_path_factory.mktemp("tasks")
    data = root / "items.jsonl"
    rows = [{**row, "place": row["options"].index(row["answer"]), "side": n % 2} for n, row in enumerate(tiny_rows(24))]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, text in TASKS.items():
        common = COMMON.replace("DATA", str(data)).replace("CACHE", str(root / "cache"))
        (root / f"{name}.yaml").write_text(
            f"task: {name}\n" + common.replace("KIND", KINDS.get(name, "multiple_choice")) + text
        )
    for n, model in enumerate(("teacher", "student")):
        checkpoint = make_checkpoint(root / model, seed=5 + n)
        manager = TaskManager(include_defaults=False, include_path=str(root))
        run_lm_eval(root / "out", checkpoint, list(TASKS), manager)
    return root / "out"


@pytest.fixture(scope="module")
def batch(folder: Path) -> ImportResult:
    return import_lm_eval([folder])


@pytest.fixture(scope="module")
def outcomes(batch: ImportResult, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return merge_batch(batch, tmp_path_factory.mktemp("stored")).outcomes


def _aggregate(folder: Path, model: str, task: str, key: str) -> float:
    (path,) = folder.glob(f"*{model}/results_*.json")
    return float(json.loads(path.read_text())["results"][task][key])


def test_every_task_and_model_is_there_and_agrees_with_its_aggregates(
    folder: Path, batch: ImportResult, outcomes: pd.DataFrame
) -> None:
    note = "one_continuation: perplexity is no score between 0 and 1; acc counts"
    assert batch.notes == [f"teacher, {note}", f"student, {note}"]
    for (model, task, metric, name), rows in outcomes.groupby(["model", "task", "metric", "filter"]):
        assert len(rows) == 24
        if metric != "perplexity":
            assert rows["value"].mean() == pytest.approx(_aggregate(folder, model, task, f"{metric},{name}")), task
    assert set(outcomes["task"]) == set(TASKS)


@pytest.mark.parametrize("metric", ["acc", "acc_norm", "acc_bytes", "acc_mutual_info"])
def test_a_target_is_ahead_of_every_wrong_choice_exactly_where_the_metric_says_right(
    metric: str, outcomes: pd.DataFrame
) -> None:
    rows = outcomes[(outcomes["metric"] == metric) & (outcomes["format"] == "choose")]
    # The lengths of choices that stand inside contexts are not told, so nothing can be divided by them.
    told = rows[~((rows["task"] == "contexts") & (metric == "acc_norm"))]
    assert len(told) >= 48
    assert told["margin_target"].notna().all()
    assert ((told["margin_target"] > 0) == (told["value"] == 1)).all()
    np.testing.assert_allclose(told["margin_target"].abs()[told["value"] == 1], told["margin"][told["value"] == 1])
    assert ((told["prediction"] == told["target"]) == (told["value"] == 1)).all()
    assert rows.drop(told.index)["margin"].isna().all()


def test_margins_per_character_and_byte_are_those_of_the_definition(folder: Path, outcomes: pd.DataFrame) -> None:
    (path,) = folder.glob("*student/samples_by_text_*.jsonl")
    rows = outcomes[(outcomes["model"] == "student") & (outcomes["task"] == "by_text")]
    rows = rows.set_index(["item", "metric"])
    for record in map(json.loads, path.read_text().splitlines()):
        logprobs = np.array([float(response[0][0]) for response in record["resps"]])
        sizes = np.array([len(choice) for choice in record["doc"]["options"]])
        for metric, ranked in (("acc", logprobs), ("acc_norm", logprobs / sizes), ("acc_bytes", logprobs / sizes)):
            best, second = sorted(ranked)[-1], sorted(ranked)[-2]
            assert rows.loc[(record["doc_hash"][:16], metric), "margin"] == pytest.approx(best - second)


def test_one_metric_and_filter_counts_and_the_others_stay(outcomes: pd.DataFrame) -> None:
    counted = outcomes[outcomes["primary"]]
    assert not counted.duplicated(["model", "task", "item"]).any()
    names = counted.drop_duplicates(["task", "metric", "filter"]).set_index("task")[["metric", "filter"]]
    assert names.loc["by_text"].tolist() == ["acc_norm", "none"]  # the first of its list, not of the alphabet
    assert names.loc["two_filters"].tolist() == ["exact_match", "strict"]
    assert names.loc["whole_task"].tolist() == ["acc", "none"]
    assert names.loc["one_continuation"].tolist() == ["acc", "none"]
    assert set(outcomes.query("task == 'two_filters'")["filter"]) == {"strict", "loose"}


def test_the_user_says_which_metric_counts(folder: Path) -> None:
    wanted = ["acc", "two_filters:exact_match,loose"]
    rows = [row for part in import_lm_eval([folder], ImportSettings(primary=wanted)).parts for row in part.rows]
    counted = {(row["task"], row["metric"], row["filter"]) for row in rows if row["primary"]}
    assert ("by_text", "acc", "none") in counted
    assert ("two_filters", "exact_match", "loose") in counted
    assert len(counted) == len(TASKS)


def test_answers_that_no_filter_reads_are_unparsed_and_score_zero(outcomes: pd.DataFrame) -> None:
    rows = outcomes.query("task == 'two_filters'")
    unread = rows[rows["status"] == "unparsed"]
    assert len(unread)
    assert (unread["score"] == 0).all()
    assert unread["prediction"].isna().all()
    assert rows.drop(unread.index)["prediction"].isin(["red", "blue", "green"]).all()


def test_a_metric_of_the_whole_task_is_listed(batch: ImportResult) -> None:
    listed = [skipped for skipped in batch.skipped if "whole_task" in skipped.where]
    assert [one.reason for one in listed] == ["metrics of the whole task: mcc"] * 2


def test_how_tasks_were_asked_is_kept(batch: ImportResult) -> None:
    setups: list[Any] = [part.setup for part in batch.parts]
    assert setups == [{"num_fewshot": 0, "version": 2.0}] * len(batch.parts)
