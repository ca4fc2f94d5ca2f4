import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from capgap.errors import StoreError
from capgap.models import Ledger, request_key


def test_what_was_put_is_found_and_nothing_else(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.sqlite") as ledger:
        key = request_key("model", "loglikelihood", ("a", " b"))
        ledger.put("model", "loglikelihood", [(key, 0, [-1.5, True])])
        assert ledger.get([key, "0" * 64]) == {key: [-1.5, True]}
        assert len(ledger) == 1


def test_text_of_any_kind_comes_back_as_it_was(tmp_path: Path) -> None:
    texts = ["", "\x00", "naïve 東京 🙂", "lone \ud800 surrogate", "'; DROP TABLE responses; --", "x" * 100_000]
    with Ledger(tmp_path / "l.sqlite") as ledger:
        rows = [(request_key("m", "generate_until", (text, {})), 0, {"text": text}) for text in texts]
        ledger.put("m", "generate_until", rows)
        found = ledger.get(key for key, _, _ in rows)
    assert [found[key]["text"] for key, _, _ in rows] == texts


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("m", "loglikelihood", ("a", "b"), 0), ("n", "loglikelihood", ("a", "b"), 0)),
        (("m", "loglikelihood", ("a", "b"), 0), ("m", "loglikelihood", ("ab", ""), 0)),
        (("m", "generate_until", ("a", {"until": ["\n"]}), 0), ("m", "generate_until", ("a", {"until": ["x"]}), 0)),
        (("m", "generate_until", ("a", {}), 0), ("m", "generate_until", ("a", {}), 1)),
    ],
)
def test_whatever_differs_gives_another_key(first: tuple, second: tuple) -> None:  # type: ignore[type-arg]
    assert request_key(*first) != request_key(*second)


def test_the_order_of_generation_settings_is_no_difference() -> None:
    a = request_key("m", "generate_until", ("a", {"x": 1, "y": 2}))
    assert a == request_key("m", "generate_until", ("a", {"y": 2, "x": 1}))


def test_a_damaged_row_counts_as_absent(tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    key = request_key("m", "loglikelihood", ("a", "b"))
    with Ledger(path) as ledger:
        ledger.put("m", "loglikelihood", [(key, 0, [-1.0, False])])
    with sqlite3.connect(path) as db:
        db.execute("UPDATE responses SET response = '[-2.0, true]'")
    with Ledger(path) as ledger:
        assert ledger.get([key]) == {}


def test_a_batch_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.sqlite") as ledger:
        with pytest.raises(TypeError):
            ledger.put("m", "k", [("a", 0, 1), ("b", 0, object())])
        assert len(ledger) == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not a database, but long enough to be read as one" * 40, "file is not a database"),
        (None, "an SQLite file of something else"),
    ],
)
def test_a_file_of_something_else_is_told_and_set_aside_whole(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "l.sqlite"
    if content is None:
        with sqlite3.connect(path) as db:
            db.execute("CREATE TABLE other (a)")
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    with Ledger(path) as ledger:
        (note,) = ledger.notes
        ledger.put("m", "k", [("a", 0, 1)])
        assert ledger.get(["a"]) == {"a": 1}
    assert message in note
    assert "l.sqlite.set-aside-1" in note
    assert (tmp_path / "l.sqlite.set-aside-1").read_bytes() == before


@pytest.mark.parametrize("where", [0.3, 0.6, 0.95])
def test_what_a_damaged_ledger_still_holds_is_taken_over(tmp_path: Path, where: float) -> None:
    path = tmp_path / "l.sqlite"
    keys = [request_key("m", "generate_until", (str(n), {})) for n in range(3000)]
    with Ledger(path) as ledger:
        ledger.put("m", "generate_until", [(key, 0, {"text": f"answer {n}" * 9}) for n, key in enumerate(keys)])
    with path.open("r+b") as file:
        size = path.stat().st_size
        file.seek(int(size * where) // 4096 * 4096)
        file.write(b"\xff" * 8192)
    with Ledger(path) as ledger:
        (note,) = ledger.notes
        found = ledger.get(keys)
        assert "set-aside-1" in note
        assert len(ledger) == len(found) > 2500, "two pages of some hundred are gone, not more"
        assert all(found[key] == {"text": f"answer {n}" * 9} for n, key in enumerate(keys) if key in found)
        ledger.put("m", "generate_until", [(key, 0, "again") for key in keys if key not in found])
        assert len(ledger) == len(keys)
    with Ledger(path) as ledger:
        assert ledger.notes == []


def test_shards_write_apart_and_read_together(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger(path, shard="1-of-2") as one, Ledger(path, shard="2-of-2") as two:
        one.put("m", "k", [("a", 0, 1)])
        two.put("m", "k", [("b", 0, 2)])
    assert sorted(p.name for p in tmp_path.glob("*.sqlite")) == ["ledger.1-of-2.sqlite", "ledger.2-of-2.sqlite"]
    with Ledger(path) as whole:
        assert whole.get("ab") == {"a": 1, "b": 2}
        assert len(whole) == 2
        whole.put("m", "k", [("c", 0, 3)])
    with Ledger(path, shard="1-of-2") as one:
        assert one.get("abc") == {"a": 1, "b": 2, "c": 3}


def test_a_shard_that_cannot_be_read_is_told_and_left_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    (tmp_path / "ledger.2-of-2.sqlite").write_bytes(b"no database" * 500)
    with Ledger(path) as ledger:
        assert len(ledger) == 0
        assert "ledger.2-of-2.sqlite cannot be read" in ledger.notes[0]
    assert (tmp_path / "ledger.2-of-2.sqlite").exists()


def test_a_newer_layout_asks_for_an_update(tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    Ledger(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="newer capgap"):
        Ledger(path)


def test_a_full_disk_is_told_and_what_was_written_stays(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.sqlite") as ledger:
        ledger.put("m", "k", [("a", 0, "kept")])
        ledger._db.execute("PRAGMA max_page_count = 8")  # SQLite's own way to a disk that is full
        with pytest.raises(StoreError, match=r"full.*Free some space and run the same command again"):
            ledger.put("m", "k", [("b", 0, "x" * 200_000)])
        assert ledger.get(["a", "b"]) == {"a": "kept"}


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="Choose another --out"):
        Ledger(tmp_path / "file" / "l.sqlite")


def test_several_processes_may_write_one_ledger(tmp_path: Path) -> None:
    code = (
        "import sys; from capgap.models.ledger import Ledger\n"
        "with Ledger(sys.argv[1]) as l:\n"
        "    for n in range(50): l.put('m', 'k', [(f'{sys.argv[2]}-{n}', 0, n)])"
    )
    path = str(tmp_path / "l.sqlite")
    jobs = [subprocess.Popen([sys.executable, "-c", code, path, str(n)]) for n in range(3)]
    assert [job.wait(120) for job in jobs] == [0, 0, 0]
    with Ledger(path) as ledger:
        assert len(ledger) == 150
