import datetime
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pydantic import ValidationError

from capgap.battery import data_source
from capgap.battery.battery_spec import DataSpec
from capgap.battery.data_source import find_file, hub_rows, read_rows
from capgap.errors import BatteryError

ROWS: list[dict[str, Any]] = [{"q": 'a, "b"\nc', "n": 1}, {"q": "ü", "n": 2}]


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "parquet"])
def test_every_format_gives_the_same_rows(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows.{suffix}"
    frame = pd.DataFrame(ROWS)
    if suffix == "parquet":
        frame.to_parquet(path)
    elif suffix == "csv":
        frame.to_csv(path, index=False)
    elif suffix == "json":
        path.write_text(json.dumps({"canary": "x", "examples": ROWS}))
    else:
        path.write_text("\ufeff" + "\n".join(json.dumps(row) for row in ROWS) + "\n\n")
    found = [row.fields for row in read_rows(path, "here")]
    expected = [{**row, "n": str(row["n"])} for row in ROWS] if suffix == "csv" else ROWS
    assert found == expected


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "x,y\n1\n", r"line 2: expected 2 cells, found 1"),
        ("a.csv", "x,x\n1,2\n", r"line 1: expected a name of its own over each column"),
        ("a.csv", "", r"holds no item"),
        ("a.json", '{"a": [], "b": []}', r"exactly one list; found lists: a, b"),
        ("a.json", "7", r"expected a list of items, found int"),
        ("a.json", "[\n1,\n", r"line 3: no JSON|line 2: no JSON"),
        ("a.parquet", "nonsense", r"no Parquet"),
        ("a.txt", "x", r"expected one of \.jsonl"),
        ("a.jsonl", '{"q": ' + "[" * 600 + "]" * 600 + "}", r"line 1: nests deeper than 50 levels"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(BatteryError, match=message):
        read_rows(tmp_path / name, "here")


def test_what_is_not_plain_becomes_plain(tmp_path: Path) -> None:
    frame = pd.DataFrame({"day": [datetime.date(2026, 1, 2)], "x": [float("nan")], "many": [["a", "b"]]})
    frame.to_parquet(tmp_path / "a.parquet")
    assert read_rows(tmp_path / "a.parquet", "here")[0].fields == {"day": "2026-01-02", "x": None, "many": ["a", "b"]}


def test_a_parquet_file_that_says_one_value_a_billion_times_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_source, "_MAX_PARQUET_ROWS", 1_000)
    pd.DataFrame({"q": ["x"] * 1_001}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(BatteryError, match="1,001 rows; at most 1,000"):
        read_rows(tmp_path / "a.parquet", "here")


@pytest.mark.parametrize("name", ["a\0b", "a\nb", "\x1b[31m", "x" * 256, "x/" * 600])
def test_what_names_no_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BatteryError, match="expected the name of a file"):
        find_file(name, (tmp_path,), "here")


def test_a_folder_that_is_here_is_no_data_set_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "set").mkdir(parents=True)
    with pytest.raises(BatteryError, match=r"'org/set' is a file or folder here"):
        hub_rows("org/set", None, "test", None, "here", "mine")


@pytest.mark.parametrize("name", ["..", "../x", "a/../b", "./x", ".x/y", "-x", "a/b/c", "/etc"])
def test_a_path_is_no_data_set_of_the_hub(name: str) -> None:
    with pytest.raises(ValidationError):
        DataSpec(hub=name)


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../x", "C:/x", "\\\\server\\x", "..\\x", "~root/x"])
def test_a_path_stays_inside(tmp_path: Path, name: str) -> None:
    with pytest.raises(BatteryError, match=r"relative|leaves"):
        find_file(name, (tmp_path,), "here")
