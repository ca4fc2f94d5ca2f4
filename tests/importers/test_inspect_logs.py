"""inspect's logs: real ones (see data/inspect/make.py), and hand-written ones that differ in one thing."""

import json
import math
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from capgap.errors import UsageError
from capgap.importers import ImportResult, ImportSettings, import_inspect, merge_batch
from capgap.importers.archive import Archive
from tests.importers.written import eval_archive, inspect_log, inspect_sample, write_json

REAL = Path(__file__).with_name("data") / "inspect"


def rows(batch: ImportResult, **wanted: Any) -> list[dict[str, Any]]:
    """Rows of a batch that have these values."""
    every = [row for part in batch.parts for row in part.rows]
    return [row for row in every if all(row[key] == value for key, value in wanted.items())]


def one_row(tmp_path: Path, **sample: Any) -> dict[str, Any]:
    """The row that counts of a log with one sample."""
    path = write_json(tmp_path / "log.json", inspect_log([inspect_sample(1, **sample)]))
    (row,) = rows(import_inspect([path]), primary=True)
    return row


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    batch = import_inspect([REAL])
    assert not batch.skipped
    return merge_batch(batch, tmp_path_factory.mktemp("real")).outcomes


def test_real_logs_are_read_to_the_last_sample(real: pd.DataFrame) -> None:
    counted = real[real["primary"]].set_index(["task", "model", "item", "repeat"]).sort_index()
    assert len(counted) == 2 * 4 + 2 * 8
    colours = counted.loc["colours"]
    assert colours.loc["mockllm/teacher", "score"].tolist() == [1, 1, 1, 1]
    assert colours.loc["mockllm/student", "score"].tolist() == [1, 0, 0, 1]
    assert colours.loc["mockllm/student", "status"].tolist() == ["scored", "scored", "unparsed", "scored"]
    assert set(colours["chance"]) == {1 / 3}
    assert colours.loc[("mockllm/teacher", "2", 0)][["prediction", "target", "response"]].tolist() == [
        *("B", "B", "ANSWER: B")
    ]
    sums = counted.loc["sums"].loc["mockllm/student"]
    assert sums["status"].tolist() == [
        *("scored", "scored"),
        *("scored", "scored"),
        *("error",) * 2,
        *("scored",) * 2,
    ]
    assert sums["score"].isna().tolist() == [False, False, False, False, True, True, False, False]
    assert sums.loc[("2", 0), "stop_reason"] == "limit"
    assert sums["n_tokens"].dropna().tolist() == [1] * 6
    assert counted.loc["sums"]["chance"].isna().all()


def test_parts_of_a_score_stay_beside_the_one_that_counts(real: pd.DataFrame) -> None:
    parts = real[(real["task"] == "sums") & ~real["primary"]]
    assert set(parts["metric"]) == {"graded.tone", "graded.length"}
    tone, length = (parts[parts["metric"] == f"graded.{name}"] for name in ("tone", "length"))
    assert set(tone["score"]) == {0.25}
    assert set(length["value"]) == {7.0}
    assert length["score"].isna().all()  # seven is no score


def test_a_long_text_that_inspect_keeps_by_its_hash_is_put_back() -> None:
    prompts = {item["item"]: item["prompt"] for item in import_inspect([REAL / "sums-teacher.eval"]).parts[0].items}
    assert prompts["2"].endswith("x" * 150)


def test_an_archive_and_a_json_log_say_the_same(tmp_path: Path) -> None:
    for path in REAL.glob("*.eval"):
        with closing(Archive(path)) as archive:
            names = [name for name in archive.names if name.startswith("samples/")]
            log = {**archive.json("header.json"), "samples": [archive.json(name) for name in names]}
        write_json(tmp_path / f"{path.stem}.json", log)
    as_json = import_inspect([tmp_path])
    as_archive = import_inspect([REAL])
    assert {part.model + part.task: part.rows for part in as_json.parts} == {
        part.model + part.task: part.rows for part in as_archive.parts
    }
    stored = merge_batch(as_archive, tmp_path / "out")
    assert merge_batch(as_json, tmp_path / "out").n_new_rows == 0
    assert len(stored.outcomes) == 48


@pytest.mark.parametrize(
    ("value", "score"),
    [
        *(("C", 1.0), ("I", 0.0), ("P", 0.5), ("N", 0.0), (1, 1.0), (0.25, 0.25), (True, 1.0), (False, 0.0)),
        *(("yes", 1.0), ("No", 0.0), ("TRUE", 1.0), ("0.75", 0.75), (float("nan"), None), (None, None), (7, None)),
    ],
)
def test_every_kind_of_value_is_a_score_or_none(value: Any, score: float | None, tmp_path: Path) -> None:
    row = one_row(tmp_path, value=value)
    assert row["score"] == score
    unknown = value is None or (isinstance(value, float) and math.isnan(value))
    assert row["status"] == ("error" if unknown else "unparsed" if value == "N" else "scored")


@pytest.mark.parametrize("value", ["excellent", {"a": "x"}, [["nested"]], "C" * 100])
def test_a_value_that_is_no_score_is_listed_and_no_zero(value: Any, tmp_path: Path) -> None:
    path = write_json(tmp_path / "log.json", inspect_log([inspect_sample(1, value=value)]))
    batch = import_inspect([path])
    (row,) = rows(batch, primary=True)
    assert (row["score"], row["status"]) == (None, "error")
    assert any("neither number nor word" in one.reason for one in batch.skipped)


@pytest.mark.parametrize(
    ("more", "status", "score"),
    [
        ({"error": {"message": "no", "traceback": "", "traceback_ansi": ""}, "scores": {}}, "error", None),
        ({"error": {"message": "no"}}, "error", None),
        ({"scores": None}, "error", None),
        ({"value": "I", "limit": {"type": "token", "limit": 10}}, "scored", 0.0),
        ({"value": "C", "limit": {"type": "token", "limit": 10}}, "scored", 1.0),
        ({"scores": {"match": {"value": "I", "reason": "invalid_response_format"}}}, "unparsed", 0.0),
        ({"scores": {"match": {"value": "I", "reason": "grader_failed"}}}, "error", None),
    ],
)
def test_how_a_sample_ended_is_its_status(
    more: dict[str, Any], status: str, score: float | None, tmp_path: Path
) -> None:
    row = one_row(tmp_path, **more)
    assert (row["status"], row["score"]) == (status, score)
    if "limit" in more:
        assert row["stop_reason"] == "limit", "whatever the score"


def test_epochs_are_repeats(tmp_path: Path) -> None:
    samples = [inspect_sample(1, epoch=epoch, value=value) for epoch, value in ((1, "C"), (2, "I"))]
    path = write_json(tmp_path / "log.json", inspect_log(samples))
    assert [(row["repeat"], row["score"]) for row in rows(import_inspect([path]))] == [(0, 1.0), (1, 0.0)]


def test_the_first_declared_scorer_counts_unless_the_user_says_another(tmp_path: Path) -> None:
    scores = {"length": {"value": 40}, "other": {"value": 0.5}, "match": {"value": "C"}}
    path = write_json(tmp_path / "log.json", inspect_log([inspect_sample(1, scores=scores)]))
    assert [row["metric"] for row in rows(import_inspect([path]), primary=True)] == ["match"]
    wanted = import_inspect([path], ImportSettings(primary=["sums:other"]))
    assert [row["metric"] for row in rows(wanted, primary=True)] == ["other"]
    with pytest.raises(UsageError, match="--primary othr"):
        import_inspect([path], ImportSettings(primary=["othr"]))


def test_an_unfinished_log_is_read_and_noted(tmp_path: Path) -> None:
    log = inspect_log(status="cancelled")
    log["eval"]["dataset"]["samples"] = 100
    path = tmp_path / "log.eval"
    path.write_bytes(eval_archive(log))
    batch = import_inspect([path])
    assert len(rows(batch)) == 3
    assert batch.notes == ["mockllm/model, sums: the log's status is cancelled; it holds 3 of 100 samples"]


def test_a_crashed_archive_is_read_from_its_journal(tmp_path: Path) -> None:
    import io
    import zipfile

    whole = zipfile.ZipFile(io.BytesIO(eval_archive(inspect_log())))
    path = tmp_path / "log.eval"
    with zipfile.ZipFile(path, "w") as archive:
        for name in whole.namelist():
            archive.writestr("_journal/start.json" if name == "header.json" else name, whole.read(name))
    assert len(rows(import_inspect([path]))) == 3


def test_summaries_stand_in_where_an_archive_has_no_samples(tmp_path: Path) -> None:
    summaries = [inspect_sample(n) for n in (1, 2)]
    raw = eval_archive(inspect_log([]), extra={"summaries.json": json.dumps(summaries).encode()})
    (tmp_path / "log.eval").write_bytes(raw)
    batch = import_inspect([tmp_path])
    assert len(rows(batch)) == 2
    assert all(item["prompt"] is None for item in batch.parts[0].items)  # a summary shortens its question


def test_a_log_without_samples_is_listed(tmp_path: Path) -> None:
    write_json(tmp_path / "log.json", inspect_log([]))
    batch = import_inspect([tmp_path])
    assert not batch.parts
    assert "only items can be paired" in batch.skipped[0].reason


def test_the_same_ids_of_other_questions_are_not_paired(tmp_path: Path) -> None:
    own = inspect_log(model="mockllm/teacher")
    shuffled = inspect_log([inspect_sample(n, input=f"sum {4 - n}?") for n in (1, 2, 3)], model="mockllm/student")
    batch = import_inspect([write_json(tmp_path / "a.json", own), write_json(tmp_path / "b.json", shuffled)])
    stored = merge_batch(batch, tmp_path / "out")
    assert set(stored.outcomes["model"]) == {"mockllm/teacher"}
    (listed,) = batch.skipped
    assert "mean other questions" in listed.reason
    assert listed.count == 2  # the second question stands at the same place in both


def test_messages_are_a_prompt_that_reads_in_order(tmp_path: Path) -> None:
    said = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": [{"type": "text", "text": "sum?"}, {"type": "image", "image": "data:…"}]},
    ]
    path = write_json(tmp_path / "log.json", inspect_log([inspect_sample(1, input=said)]))
    assert import_inspect([path]).parts[0].items[0]["prompt"] == "system: Be short.\n\nuser: sum?"


def test_files_that_are_no_logs_are_listed(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"results": {}})
    write_json(tmp_path / "b.json", [1, 2])
    (tmp_path / "c.eval").write_bytes(b"PK\x03\x04 nothing")
    write_json(tmp_path / "d.json", inspect_log())
    batch = import_inspect([tmp_path])
    assert len(batch.parts) == 1
    assert sorted(Path(one.where).name for one in batch.skipped) == ["a.json", "b.json", "c.eval"]
