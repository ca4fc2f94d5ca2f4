"""One run directory: what is refused, what is merged, and several processes that write to it at once."""

import json
import multiprocessing
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pandas as pd
import pytest

from capgap import schema
from capgap.errors import StoreError, TableError
from capgap.events import Event
from capgap.store import RunDirectory
from tests.store.rows import item_rows, outcome_rows


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(StoreError, match=r"is no run directory: it holds thesis.tex.*nothing was changed"):
        RunDirectory(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


_FACTS = '"layout": 2, "models": {}, "batteries": {}'


@pytest.mark.parametrize(
    "content",
    [
        "", "{", "[]", "{}", '{"layout": "x", "models": {}, "batteries": {}}',
        '{"layout": Infinity, "models": {}, "batteries": {}}', '{"layout": 2, "models": {"a": 3}, "batteries": {}}',
        f'{{{_FACTS}, "roles": "x"}}', f'{{{_FACTS}, "roles": {{"students": 5}}}}',
        f'{{{_FACTS}, "roles": {{"students": [], "mentor": "x"}}}}', f'{{{_FACTS}, "notes": 5}}',
        f'{{{_FACTS}, "margin": "wide"}}',
    ],
)  # fmt: skip
def test_a_note_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(StoreError, match="is no note of a run"):
        RunDirectory(tmp_path)
    assert (tmp_path / "run.json").read_text() == content


def test_a_newer_layout_and_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"layout": 99, "models": {}, "batteries": {}}))
    with pytest.raises(StoreError, match="newer capgap"):
        RunDirectory(tmp_path)
    with pytest.raises(StoreError, match="is a file"):
        RunDirectory(tmp_path / "run.json")


def test_one_name_for_two_batteries_or_models_is_refused(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    run.add_battery("mine", "a" * 64, {})
    run.add_battery("mine", "a" * 64, {})
    with pytest.raises(StoreError, match=r"another battery called 'mine' \(hash aaaaaaaaaaaa, now bbbbbbbbbbbb\)"):
        run.add_battery("mine", "b" * 64, {})
    run.add_model("m", "x", {"word": "out/m", "identity": {"weights": 1, "dtype": "float32"}})
    with pytest.raises(StoreError, match=r"they differ in dtype.*NAME=out/m"):
        run.add_model("m", "y", {"word": "out/m", "identity": {"weights": 1, "dtype": "bfloat16"}})


def test_a_missing_run_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"does not exist\. Expected the --out"):
        RunDirectory.open_existing(tmp_path / "none")
    with pytest.raises(StoreError, match="is no run directory"):
        RunDirectory.open_existing(tmp_path)
    for make in (RunDirectory, RunDirectory.open_existing):
        with pytest.raises(StoreError):
            make("x" * 5000)


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        RunDirectory(tmp_path / "file" / "run")


def test_roles_are_remembered(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    assert run.roles is None
    roles = schema.Roles(("s", "t"), teacher="lead", base={"s": "b"}, control={"t": "c"})
    run.save(roles=roles)
    assert run.roles == roles
    assert RunDirectory.open_existing(tmp_path / "run").roles == roles
    run.save(roles=schema.Roles(("s",)))
    assert run.roles == schema.Roles(("s",))


def test_a_row_of_a_known_key_makes_room_and_nothing_new_writes_nothing(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    run.merge(schema.ITEMS, item_rows("b"))
    path = run.path / "items.parquet"
    written = path.stat().st_mtime_ns
    assert len(run.merge(schema.ITEMS, item_rows("b", n=2))) == 3
    assert path.stat().st_mtime_ns == written
    merged = run.merge(schema.ITEMS, item_rows("b", n=1).assign(prompt="other"))
    assert merged["prompt"].tolist() == ["other", "Q:", "Q:"]
    pd.testing.assert_frame_equal(run.read(schema.ITEMS), merged)
    with pytest.raises(TableError, match="'item' is missing"):
        run.merge(schema.ITEMS, item_rows("b").drop(columns="item"))


def test_what_another_process_has_saved_since_stays(tmp_path: Path) -> None:
    first, second = RunDirectory(tmp_path / "run"), RunDirectory(tmp_path / "run")
    assert first.id == second.id
    first.save(margin=3)
    first.add_model("m", "x", {})
    second.save(state="done")
    second.add_battery("b", "0" * 64, {})
    assert second.facts["margin"] == 3
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (facts["margin"], facts["state"], set(facts["models"]), set(facts["batteries"])) == (3, "done", {"m"}, {"b"})
    with pytest.raises(StoreError, match="another model called 'm'"):
        second.add_model("m", "y", {})


def test_a_run_of_an_older_layout_opens(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    roles = {"students": ["m"], "teacher": None, "base": {}, "control": {}}
    (folder / "run.json").write_text(json.dumps({"layout": 1, "models": {}, "batteries": {}, "roles": roles}))
    schema.write_df(outcome_rows("m", "b"), folder / "outcomes.parquet", schema.OUTCOMES)
    run = RunDirectory.open_existing(folder)
    assert run.roles is not None
    assert len(run.outcomes(run.roles.names)) == 3
    run.save(state="done")
    assert RunDirectory.open_existing(folder).facts["layout"] == 2, "an older capgap would not see the parts"


def test_a_directory_of_which_nothing_came_is_discarded(tmp_path: Path) -> None:
    RunDirectory(tmp_path / "empty").discard()
    assert not (tmp_path / "empty").exists()
    run = RunDirectory(tmp_path / "run")
    run.write_outcomes("m", "b", outcome_rows("m", "b"))
    run.discard()
    assert len(RunDirectory.open_existing(tmp_path / "run").read(schema.OUTCOMES)) == 3


def _add_models(folder: Path, writer: int, n_models: int, start: Barrier) -> None:
    start.wait()
    run = RunDirectory(folder)
    for n in range(n_models):
        name = f"model {writer}-{n}"
        run.add_battery("shared", "0" * 64, {})
        run.add_battery(f"b{writer}-{n}", "1" * 64, {})
        run.add_model(name, name, {"word": name})
        run.merge(schema.ITEMS, item_rows(f"b{writer}-{n}"))
        run.write_outcomes(name, "shared", outcome_rows(name, "shared"))
        run.merge(schema.MODELS, pd.DataFrame({"model": [name], "seed": [writer]}))
        run.save(**{f"fact {writer}-{n}": n})


def test_processes_that_add_models_at_once_lose_nothing(tmp_path: Path) -> None:
    folder, n_writers, n_models = tmp_path / "run", 3, 6
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(n_writers)
    writers = [
        context.Process(target=_add_models, args=(folder, writer, n_models, start)) for writer in range(n_writers)
    ]
    for process in writers:
        process.start()
    for process in writers:
        process.join(timeout=120)
    assert [process.exitcode for process in writers] == [0] * n_writers
    run = RunDirectory.open_existing(folder)
    names = {f"model {writer}-{n}" for writer in range(n_writers) for n in range(n_models)}
    batteries = {name.replace("model ", "b") for name in names}
    assert set(run.facts["models"]) == names
    assert set(run.facts["batteries"]) == {"shared", *batteries}
    assert {name.replace("model", "fact") for name in names} <= set(run.facts)
    assert set(run.read(schema.MODELS)["model"]) == names
    assert set(run.read(schema.OUTCOMES)["model"]) == names
    assert set(run.read(schema.ITEMS)["battery"]) == batteries
    assert not list(folder.rglob("*.partial"))


def test_a_note_on_the_tables_is_told_once_however_often_they_are_read(tmp_path: Path) -> None:
    events: list[Event] = []
    run = RunDirectory(tmp_path, on_event=events.append)
    for battery, values in (("a", [1, 2, 3]), ("b", ["x", "y", "z"])):
        run.write_outcomes("m", battery, outcome_rows("m", battery).assign(x_depth=values))
    for _ in range(3):
        run.read(schema.OUTCOMES)
        run.save(state="read")
    assert len(events) == len(run.facts["notes"]) == 1


def test_a_battery_is_pending_until_a_comparison_is_about_it(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    for name in ("a", "b", "c"):
        run.add_battery(name, name * 64)
    run.add_battery("a", "a" * 64, {"limit": 6})
    run.save_comparison(schema.Roles(("m",)), ["a", "b", "unknown"], margin=3)
    run.add_battery("a", "a" * 64)
    facts = RunDirectory.open_existing(tmp_path).facts
    pending = {name: entry.get("pending", False) for name, entry in facts["batteries"].items()}
    assert pending == {"a": False, "b": False, "c": True}
    assert (facts["margin"], facts["batteries"]["a"]["limit"]) == (3, 6), (
        "another evaluation begins, and nothing is lost"
    )
    with pytest.raises(StoreError, match="another battery called 'c'"):
        run.add_battery("c", "0" * 64)
