import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from capgap import schema
from capgap.errors import StoreError, TableError


def outcomes(**columns: Any) -> pd.DataFrame:
    base: dict[str, Any] = {"model": ["t", "s"], "task": ["a", "a"], "item": ["1", "1"], "score": [1.0, 0.0]}
    return pd.DataFrame(base | columns)


def test_a_foreign_table_needs_four_columns_and_gets_the_documented_defaults() -> None:
    table = schema.validate(outcomes(), schema.OUTCOMES)
    assert list(table.columns) == list(schema.OUTCOMES.names)
    row = table.iloc[0]
    assert (row["battery"], row["variant"], row["repeat"], row["status"]) == ("battery", "default", 0, "scored")
    assert row["cluster"] == "1", "an item is its own cluster where nothing is said"
    assert np.isnan(row["chance"]), "what is unknown is null, never zero"


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (outcomes().drop(columns="score"), "required column 'score' is missing.*Needed: model, task, item, score"),
        (
            outcomes().rename(columns={"score": " Scores"}),
            "Call ' Scores' 'score'.*capgap import table.*--map score=",
        ),
        (pd.DataFrame({"model;task;item;score": ["a;b;c;1"]}), "Its columns lie between ';': separate them by commas"),
        (outcomes(score=[1.0, 1.5]), r"row 1: 1.5 lies outside \[0, 1\]. Divide by the best.*percents by 100"),
        (outcomes(score=["yes", "no"]), "'score' should hold float.*Write 1 for right and 0 for wrong"),
        (outcomes(chance=[0.25, 25]), "column 'chance', row 1: 25 lies outside"),
        (outcomes(n_examples=[1, 2]), "unknown column 'n_examples'. It says how a model was made.*--models"),
        (outcomes(colour=["r", "g"]), "unknown column 'colour'.*Drop it, or call it x_colour"),
        (outcomes(item=["1", None]), "column 'item', row 1: a value is required"),
        (outcomes(status=["scored", "skored"]), "'skored' is not one of its words. Did you mean 'scored'"),
        (outcomes(model=["t", "t"]), "2 rows share their key, the first is model=t, battery=battery, task=a, item=1"),
        (outcomes(margn=[1, 2]), "unknown column 'margn'. Did you mean 'margin'"),
    ],
)
def test_a_wrong_table_is_named_with_its_place(frame: pd.DataFrame, message: str) -> None:
    with pytest.raises(TableError, match=message):
        schema.validate(frame, schema.OUTCOMES, source="x.csv")


def test_validation_leaves_the_callers_frame_alone() -> None:
    frame = outcomes(x_depth=[1, 2])
    before = frame.copy()
    schema.validate(frame, schema.OUTCOMES)
    pd.testing.assert_frame_equal(frame, before)


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.jsonl", "t.json"])
def test_what_is_written_is_read_back(tmp_path: Path, name: str) -> None:
    table = schema.validate(outcomes(x_depth=[1, 2], response=["a\nb", '"<x>"']), schema.OUTCOMES)
    path = tmp_path / name
    if name.endswith("parquet"):
        schema.write_df(table, path, schema.OUTCOMES)
    elif name.endswith("csv"):
        table.to_csv(path, index=False)
    else:
        table.to_json(path, orient="records", lines=name.endswith("jsonl"))
    pd.testing.assert_frame_equal(schema.read_df(path, schema.OUTCOMES), table, check_dtype=False)


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.json"])
def test_a_name_that_looks_like_a_number_or_like_nothing_stays_that_name(tmp_path: Path, name: str) -> None:
    names = ["007", "7", "NA", "null", "1e3", "2024-01-01"]
    path = tmp_path / name
    table = pd.DataFrame({"model": names, "task": "t", "item": names, "score": [1, 0, 1, None, 0.5, 1], "x_depth": 1})
    if name.endswith("csv"):
        table.to_csv(path, index=False)
    else:
        table.to_json(path, orient="records", lines=name.endswith("jsonl"))
    read = schema.read_df(path, schema.OUTCOMES)
    assert read["model"].tolist() == read["item"].tolist() == names
    assert read["score"].isna().tolist() == [False, False, False, True, False, False]
    assert read["x_depth"].tolist() == [1] * 6


def test_half_a_surrogate_pair_is_replaced_not_refused(tmp_path: Path) -> None:
    cells = [{"model": m, "task": "a", "item": "1", "score": 1.0} for m in "ts"]
    texts = ["lone \ud800 half", "naïve 東京 🙂"]
    rows = [{**cell, "response": text} for cell, text in zip(cells, texts, strict=True)]
    table = schema.df_from_rows(rows, schema.OUTCOMES)
    schema.write_df(table, tmp_path / "t.parquet", schema.OUTCOMES)
    assert schema.read_df(tmp_path / "t.parquet", schema.OUTCOMES)["response"].tolist() == [
        "lone ? half",
        "naïve 東京 🙂",
    ]


@pytest.mark.parametrize("content", [b"", b"\x00\x01", b"{"])
def test_a_broken_file_is_a_table_error(tmp_path: Path, content: bytes) -> None:
    for suffix in ("parquet", "csv", "jsonl", "json"):
        path = tmp_path / f"t.{suffix}"
        path.write_bytes(content)
        with pytest.raises(TableError, match=f"t.{suffix}"):
            schema.read_df(path, schema.OUTCOMES)
    with pytest.raises(TableError, match="no such file"):
        schema.read_df(tmp_path / "none.csv", schema.OUTCOMES)


def test_a_failed_write_leaves_the_old_table(tmp_path: Path) -> None:
    path = tmp_path / "outcomes.parquet"
    schema.write_df(schema.validate(outcomes(), schema.OUTCOMES), path, schema.OUTCOMES)
    before = path.read_bytes()
    with pytest.raises(TableError):
        schema.write_df(outcomes(score=[2.0, 0.0]), path, schema.OUTCOMES)
    with pytest.raises(StoreError, match="cannot be written"):
        schema.write_df(outcomes(), tmp_path / "no" / "such" / "folder.parquet", schema.OUTCOMES)
    assert path.read_bytes() == before


def test_pairs_keep_what_all_models_answered_and_say_the_share() -> None:
    frame = pd.DataFrame(
        {
            "model": ["t", "t", "t", "s", "s", "s"],
            "task": "a",
            "item": ["1", "2", "3", "1", "2", "4"],
            "score": [1.0, 0.0, 1.0, 0.0, np.nan, 1.0],
        }
    )
    pairs = schema.pair(schema.validate(frame, schema.OUTCOMES), ["t", "s"])
    assert pairs.cells["item"].tolist() == ["1"]
    assert pairs.scores.tolist() == [[1.0, 0.0]]
    assert (pairs.share, pairs.n_answered_cells) == (0.25, 4)


def test_pairing_an_unknown_model_names_the_nearest() -> None:
    with pytest.raises(TableError, match="'teachr' has no outcomes"):
        schema.pair(schema.validate(outcomes(), schema.OUTCOMES), ["teachr"])


def test_a_key_may_occur_once_in_all_frames_together() -> None:
    with pytest.raises(TableError, match="share their key"):
        schema.concat([outcomes(), outcomes()], schema.OUTCOMES)
    assert len(schema.concat([], schema.OUTCOMES)) == 0


def test_estimates_as_json_have_nulls_and_objects(tmp_path: Path) -> None:
    row = {"quantity": "gap", "level": "task", "group": "a", "roles": '{"teacher": "t"}', "df": np.inf, "n_items": 2}
    table = schema.validate(pd.DataFrame([row, row | {"group": "b", "roles": None}]), schema.ESTIMATES)
    schema.write_json(table, tmp_path / "e.json")
    first, second = json.loads((tmp_path / "e.json").read_text())
    assert first["roles"] == {"teacher": "t"}
    assert (second["roles"], second["std_error"], second["df"]) == (None, None, None)
    assert list(first) == list(schema.ESTIMATES.names)
    assert (first["n_items"], first["n_tasks"]) == (2, None)


def test_estimates_as_json_keep_every_digit_and_are_a_line_each(tmp_path: Path) -> None:
    rows = [{"quantity": "gap", "level": "task", "group": g, "estimate": e, "p_value": p} for g, e, p in
            (("a", 1 / 3, 1e-30), ("b", 0.1 + 0.2, 0.0))]  # fmt: skip
    table = schema.validate(pd.DataFrame(rows), schema.ESTIMATES)
    schema.write_json(table, tmp_path / "e.json")
    text = (tmp_path / "e.json").read_text()
    assert [(r["estimate"], r["p_value"]) for r in json.loads(text)] == [(1 / 3, 1e-30), (0.1 + 0.2, 0.0)]
    assert len(text.splitlines()) == 4, "brackets and one line a row"
