"""Any table: what its columns may be called and hold, and that a row that cannot be understood is named."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from capgap import schema
from capgap.errors import TableError, UsageError
from capgap.importers import ImportSettings, import_result_tables, merge_batch
from capgap.importers.table_cells import score
from tests.importers.written import write_json, write_jsonl

THEIRS = [
    {"llm": "big", "bench": "sums", "question_id": 1, "correct": 1, "level": 3},
    {"llm": "big", "bench": "sums", "question_id": 2, "correct": 0, "level": 1},
    {"llm": "small", "bench": "sums", "question_id": 1, "correct": 0, "level": 3},
    {"llm": "small", "bench": "sums", "question_id": 2, "correct": 0, "level": 1},
]
MAP = {"model": "llm", "task": "bench", "item": "question_id", "score": "correct", "x_level": "level"}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """The rows in the kind of file that the name says."""
    frame = pd.DataFrame(rows)
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    elif path.suffix == ".parquet":
        frame.to_parquet(path, index=False)
    elif path.suffix == ".jsonl":
        write_jsonl(path, rows)
    else:
        write_json(path, rows)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl", ".json"])
def test_every_kind_of_file_says_the_same(suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"table{suffix}", THEIRS)
    outcomes = merge_batch(import_result_tables([path], MAP), tmp_path / "out").outcomes
    expected = pd.DataFrame(
        {
            "model": ["big", "big", "small", "small"],
            "task": ["sums"] * 4,
            "item": ["1", "2", "1", "2"],
            "score": [1.0, 0.0, 0.0, 0.0],
            "x_level": [3.0, 1.0, 3.0, 1.0],
        }
    )
    pd.testing.assert_frame_equal(outcomes[list(expected)], expected, check_dtype=False)
    assert set(outcomes["status"]) == {"scored"}
    assert outcomes["primary"].all()


def test_columns_of_our_names_need_no_map_and_unknown_ones_are_listed(tmp_path: Path) -> None:
    rows = [{"model": "m", "task": "t", "item": n, "score": 1, "capability": "Reasoning", "notes": "x"} for n in (1, 2)]
    batch = import_result_tables([write(tmp_path / "t.csv", rows)], {})
    assert [row["capability"] for row in batch.parts[0].rows] == ["reasoning", "reasoning"]
    (listed,) = batch.skipped
    assert "columns without a meaning" in listed.reason
    assert listed.first == "notes"


def test_constants_stand_in_for_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", [{"item": n, "score": 1} for n in (1, 2)])
    settings = ImportSettings.parsed(["model=mine", "task=sums", "chance=0.25", "capability=reasoning"])
    outcomes = merge_batch(import_result_tables([path], {}, settings), tmp_path / "out").outcomes
    assert outcomes[["model", "task", "chance", "capability"]].drop_duplicates().to_numpy().tolist() == [
        ["mine", "sums", 0.25, "reasoning"]
    ]


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        *((1, 1.0), (0, 0.0), (True, 1.0), (False, 0.0), (0.25, 0.25), ("1", 1.0), ("0.5", 0.5), (" 1.0 ", 1.0)),
        *(("true", 1.0), ("False", 0.0), ("CORRECT", 1.0), ("incorrect", 0.0), ("wrong", 0.0), ("Yes", 1.0)),
        *(("pass", 1.0), ("failed", 0.0), ("", None), ("NaN", None), (None, None), (float("nan"), None)),
    ],
)
def test_a_score_is_a_number_or_a_word_for_right_and_wrong(cell: Any, value: float | None) -> None:
    assert score(cell, "here") == value


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        *((85, "Divide percentages by 100"), (-1, "outside 0 to 1"), ("85%", "a word such as true")),
        *(("maybe", "'maybe'"), ([1], "a list"), ({"a": 1}, "an object"), (float("inf"), "a score from 0 to 1")),
        *(("1_0", "expected a score"), ("0x1", "expected a score"), ("1" * 5_000, "expected a score")),
    ],
)
def test_any_other_score_is_an_error(cell: Any, words: str) -> None:
    with pytest.raises(TableError, match=r"line 3, column s: ") as caught:
        score(cell, "line 3, column s")
    assert words in str(caught.value)
    assert len(str(caught.value)) < 400


def test_an_empty_score_is_an_error_of_the_item_and_no_zero(tmp_path: Path) -> None:
    rows = [{"model": "m", "task": "t", "item": n, "score": s} for n, s in ((1, 1.0), (2, None))]
    batch = import_result_tables([write(tmp_path / "t.csv", rows)], {})
    outcomes = merge_batch(batch, tmp_path / "out").outcomes
    assert outcomes["status"].tolist() == ["scored", "error"]
    assert outcomes["score"].isna().tolist() == [False, True]
    assert "1 rows have no score" in batch.notes[0]


def test_score_and_status_agree(tmp_path: Path) -> None:
    told = [("unparsed", None), ("truncated", 0), ("error", 1), ("scored", None), (None, 1)]
    rows = [
        {"model": "m", "task": "t", "item": n, "score": value, "status": status}
        for n, (status, value) in enumerate(told)
    ]
    outcomes = merge_batch(import_result_tables([write(tmp_path / "t.jsonl", rows)], {}), tmp_path / "out").outcomes
    assert outcomes["status"].tolist() == ["unparsed", "unparsed", "error", "error", "scored"]
    assert outcomes["stop_reason"].tolist()[1] == "limit"
    assert outcomes["score"].fillna(-1).tolist() == [0, 0, -1, -1, 1]


@pytest.mark.parametrize(
    ("change", "columns", "words"),
    [
        ({}, {"item": "question"}, ["no column 'question'", "Did you mean 'question_id'"]),
        ({}, {}, ["nothing says the item", "--map item=COLUMN", "Found: llm, bench, question_id"]),
        ({"question_id": ""}, {"item": "question_id"}, ["line 3", "the item is empty"]),
        ({"correct": "maybe"}, {"item": "question_id"}, ["line 3, column correct", "'maybe'"]),
        (
            {"level": "x", "question_id": 1},
            {"item": "question_id"},
            ["line 3", "says again what line 2 says", "repeat"],
        ),
        ({"level": "deep"}, {"item": "question_id", "chance": "level"}, ["line 2, column level", "score of a guess"]),
        ({"llm": "m" * 1_000}, {"item": "question_id"}, ["line 3, column llm", "1,000 characters"]),
    ],
)
def test_a_mistake_names_file_row_column_and_way_out(
    change: dict[str, Any], columns: dict[str, str], words: list[str], tmp_path: Path
) -> None:
    rows = [dict(row) for row in THEIRS]
    rows[1] |= change
    base = {"model": "llm", "task": "bench", "score": "correct"}
    with pytest.raises(TableError, match=r"t\.csv: ") as caught:
        import_result_tables([write(tmp_path / "t.csv", rows)], base | columns)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "settings", "words"),
    [
        ({"itme": "question_id"}, [], "Did you mean 'item'"),
        ({"model": "llm"}, ["model=x"], "either read or constant"),
        ({}, ["scroe=1"], "cannot be one value"),
        ({}, ["chance=2"], "from 0 to 1"),
        ({}, ["capability=maths"], "Known: knowledge, mixed, reasoning"),
        ({}, ["model"], "expected COLUMN=VALUE"),
        ({}, ["model=a", "model=b"], "given twice"),
    ],
)
def test_a_wrong_option_is_refused(columns: dict[str, str], settings: list[str], words: str, tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", THEIRS)
    with pytest.raises(UsageError) as caught:
        import_result_tables([path], columns, ImportSettings.parsed(settings))
    assert words in str(caught.value)


def test_questions_become_items(tmp_path: Path) -> None:
    rows = [
        {"model": m, "task": "t", "item": 1, "score": 1, "prompt": "sum?", "choices": ["a", "b"], "target": "a"}
        for m in ("x", "y")
    ]
    out = tmp_path / "out"
    outcomes = merge_batch(import_result_tables([write(tmp_path / "t.jsonl", rows)], {}), out).outcomes
    items = schema.read_df(out / "items.parquet", schema.ITEMS)
    assert items[["item", "prompt", "choices", "target"]].to_numpy().tolist() == [["1", "sum?", '["a", "b"]', "a"]]
    assert set(outcomes["target"]) == {"a"}


def test_keys_that_only_some_json_rows_have_are_read(tmp_path: Path) -> None:
    rows = [
        {"model": "m", "task": "t", "item": 1, "score": 1},
        {"model": "m", "task": "t", "item": 2, "score": 0, "x_a": 2},
    ]
    outcomes = merge_batch(import_result_tables([write(tmp_path / "t.jsonl", rows)], {}), tmp_path / "out").outcomes
    assert outcomes["x_a"].isna().tolist() == [True, False]


def test_several_metrics_need_one_that_counts(tmp_path: Path) -> None:
    rows = [
        {"model": "m", "task": "t", "item": 1, "score": s, "metric": name, "counts": name == "acc"}
        for name, s in (("acc", 1), ("f1", 0.5))
    ]
    path = write(tmp_path / "t.csv", rows)
    with pytest.raises(TableError, match=r"holds two answers \(metric acc, f1\)"):
        merge_batch(import_result_tables([path], {}), tmp_path / "a")
    outcomes = merge_batch(import_result_tables([path], {"primary": "counts"}), tmp_path / "b").outcomes
    assert outcomes.set_index("metric")["primary"].to_dict() == {"acc": True, "f1": False}


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"model,task,item,score\nm,t,1\n", "line 2: expected 4 cells, found 3"),
        (b"model,model\n1,2\n", "a name of its own"),
        (b"model,task,item,score\nm,t,\xff,1\n", "not UTF-8"),
        (b'model,task\n"open', "is no CSV"),
        (b"", "holds no row"),
        (b"model,task,item,score\n", "holds no row"),
    ],
)
def test_a_csv_that_is_none_is_refused_with_its_line(raw: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(raw)
    with pytest.raises(TableError) as caught:
        import_result_tables([path], {})
    assert words in str(caught.value)


def test_other_broken_files_are_refused(tmp_path: Path) -> None:
    for name, raw, words in (
        ("t.parquet", b"PAR1 nothing", "no Parquet"),
        ("t.jsonl", b'{"model": 1}\n[]\n', "line 2: expected an object"),
        ("t.jsonl", b'{"item": 1, "item": 2}\n', "names the key 'item' twice"),
        ("t.json", b'{"a": 1}', "expected a JSON list"),
        ("t.xlsx", b"PK", "not .xlsx"),
    ):
        path = tmp_path / name
        path.write_bytes(raw)
        with pytest.raises(TableError) as caught:
            import_result_tables([path], {})
        assert words in str(caught.value), name


def test_dates_and_nested_values_of_parquet_become_text(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "model": ["m"],
            "task": ["t"],
            "item": [pd.Timestamp("2026-01-01")],
            "score": [1],
            "response": [{"when": pd.Timestamp("2026-01-01")}],
            "x_tags": [["a", "b"]],
        }
    )
    frame.to_parquet(tmp_path / "t.parquet")
    row = merge_batch(import_result_tables([tmp_path / "t.parquet"], {}), tmp_path / "out").outcomes.iloc[0]
    assert row["item"] == "2026-01-01 00:00:00"
    assert json.loads(row["response"])["when"].startswith("2026-01-01")
    assert row["x_tags"] == '["a", "b"]'
