"""A directory of imports: merged, never doubled, contradictions refused, nothing lost."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from capgap import schema
from capgap.errors import StoreError, TableError
from capgap.importers import ImportResult, ImportSettings, import_lm_eval, import_result_tables, merge_batch
from capgap.store import RunDirectory
from tests.importers.written import choose_sample, lm_eval_folder, write_jsonl

ROW = {"model": "m", "task": "t", "item": "1", "score": 1}


def table(path: Path, *rows: dict[str, Any]) -> ImportResult:
    return import_result_tables([write_jsonl(path, [ROW | row for row in rows])], {})


def test_the_same_answers_again_are_no_answers_more(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for name in ("a.jsonl", "b.jsonl", "a.jsonl"):
        stored = merge_batch(table(tmp_path / name, {"item": "1"}, {"item": "2"}), out)
    assert len(stored.outcomes) == 2
    assert (stored.n_new_rows, stored.n_replaced) == (0, 0)


def test_a_different_answer_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    merge_batch(table(tmp_path / "a.jsonl", {"item": "1"}, {"item": "2"}), out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(
        TableError, match=r"model m, task t, item 2: what is there already and .*b\.jsonl say"
    ) as caught:
        merge_batch(table(tmp_path / "b.jsonl", {"item": "2", "score": 0}, {"item": "3"}), out)
    assert "--replace" in str(caught.value)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_replace_lets_the_later_answer_stand_with_all_its_metrics(tmp_path: Path) -> None:
    out = tmp_path / "out"
    both = [{"metric": "acc"}, {"metric": "f1", "primary": False, "score": 0.5}]
    merge_batch(table(tmp_path / "a.jsonl", *both, {"item": "2"}), out)
    stored = merge_batch(
        table(tmp_path / "b.jsonl", {"metric": "acc"}, {"metric": "f1", "primary": False}), out, replace=True
    )
    told = stored.outcomes.set_index(["item", "metric"])["score"].to_dict()
    assert told == {("1", "acc"): 1.0, ("1", "f1"): 1.0, ("2", "score"): 1.0}
    assert stored.n_replaced == 1


def test_two_files_of_one_call_that_contradict_each_other_are_named(tmp_path: Path) -> None:
    paths = [write_jsonl(tmp_path / f"{name}.jsonl", [ROW | {"score": s}]) for name, s in (("a", 1), ("b", 0))]
    with pytest.raises(TableError, match=r"a\.jsonl and .*b\.jsonl say different things"):
        merge_batch(import_result_tables(paths, {}), tmp_path / "out")
    stored = merge_batch(import_result_tables(paths, {}), tmp_path / "out", replace=True)
    assert stored.outcomes["score"].tolist() == [0.0]


def test_of_two_runs_in_one_folder_the_later_replaces_the_earlier(tmp_path: Path) -> None:
    early, late = ("2026-01-01T00-00-00.1", "2026-02-01T00-00-00.1")
    folder = lm_eval_folder(tmp_path, records=[choose_sample(0, taken=2)], date=late, tasks={})
    lm_eval_folder(tmp_path, records=[choose_sample(0, taken=1)], date=early, tasks={})
    stored = merge_batch(import_lm_eval([folder]), tmp_path / "out", replace=True)
    assert set(stored.outcomes["prediction"]) == {"green"}


def test_shards_of_one_model_are_joined(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for n in range(3):
        merge_batch(table(tmp_path / f"{n}.jsonl", {"item": str(n)}), out)
    assert RunDirectory.open_existing(out).read(schema.OUTCOMES)["item"].tolist() == ["0", "1", "2"]


def test_models_that_answered_other_items_are_noted_with_what_is_common(tmp_path: Path) -> None:
    lm_eval_folder(tmp_path, "org/a", [choose_sample(n) for n in range(6)], tasks={})
    lm_eval_folder(tmp_path, "org/b", [choose_sample(n) for n in range(4, 8)], tasks={})
    batch = import_lm_eval([tmp_path])
    merge_batch(batch, tmp_path / "out")
    assert "colours: the models answered different items (org/a 6, org/b 4); 2 in common" in batch.notes


def test_models_that_were_asked_otherwise_are_noted(tmp_path: Path) -> None:
    out = tmp_path / "out"
    shots = {"n-shot": {"colours": 5}, "chat_template": "{{ x }}"}
    records = [choose_sample(n) for n in range(3)]
    longer = json.loads(json.dumps(records).replace("Q: number", "Q: other?\\nA: red\\n\\nQ: number"))
    merge_batch(import_lm_eval([lm_eval_folder(tmp_path / "1", "org/a", records, tasks={})]), out)
    batch = import_lm_eval([lm_eval_folder(tmp_path / "2", "org/b", longer, tasks={}, **shots)])
    merge_batch(batch, out)
    told = " | ".join(batch.notes)
    assert "not the same solved examples for every model (org/a 0, org/b 5)" in told
    assert "3 items were put to org/b in other words" in told
    models = schema.read_df(out / "models.parquet", schema.MODELS)
    assert models["prompting"].tolist() == ['{"chat_template": false}', '{"chat_template": true}']


def test_one_metric_counts_for_every_model_of_a_task(tmp_path: Path) -> None:
    out = tmp_path / "out"
    records = [choose_sample(n) for n in range(3)]
    merge_batch(import_lm_eval([lm_eval_folder(tmp_path / "1", "org/a", records, tasks={})]), out)
    other = lm_eval_folder(tmp_path / "2", "org/b", records, tasks={}, configs={})
    words = r"task colours: two metrics count, acc,none for org/a and acc_norm,none for org/b.*--primary"
    with pytest.raises(TableError, match=words):
        merge_batch(import_lm_eval([other], ImportSettings(primary=["acc_norm"])), out)
    assert set(merge_batch(import_lm_eval([other]), out).outcomes.query("primary")["metric"]) == {"acc"}


def test_the_note_of_an_import_says_what_came_from_where_and_what_did_not(tmp_path: Path) -> None:
    folder = lm_eval_folder(tmp_path, tasks={"colours": {"acc,none": 0.5}, "other": {"acc,none": 0.1}})
    merge_batch(import_lm_eval([folder]), tmp_path / "out", command=["capgap", "import"])
    (note,) = json.loads((tmp_path / "out" / "import.json").read_text())["imports"]
    assert note["kind"] == "lm-eval"
    assert note["command"] == ["capgap", "import"]
    assert note["imported"][0] | {"rows": 8} == note["imported"][0]
    assert note["not_imported"][0]["first"] == "other"
    assert not any(str(tmp_path) in text for text in (json.dumps(note), (tmp_path / "out" / "run.json").read_text()))


def test_other_directories_are_refused_and_left_alone(tmp_path: Path) -> None:
    batch = table(tmp_path / "a.jsonl", {})
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "thesis.tex").write_text("x")
    with pytest.raises(StoreError, match=r"no run directory.*thesis\.tex"):
        merge_batch(batch, thesis)
    run = tmp_path / "run"
    run.mkdir()
    facts = {"layout": 1, "models": {"m": {"fingerprint": "x"}}, "batteries": {}}
    (run / "run.json").write_text(json.dumps(facts))
    with pytest.raises(StoreError, match="the directory of an evaluation"):
        merge_batch(batch, run)
    with pytest.raises(StoreError, match="is a file"):
        merge_batch(batch, tmp_path / "a.jsonl")
    broken = tmp_path / "broken"
    merge_batch(table(tmp_path / "a.jsonl", {}), broken)
    for text in ("[", "[]", '{"imports": [], "asked": {"t": 1}}'):
        (broken / "import.json").write_text(text)
        with pytest.raises(StoreError, match="is no note of imports"):
            merge_batch(table(tmp_path / "a.jsonl", {}), broken)


def test_a_refused_import_leaves_no_directory(tmp_path: Path) -> None:
    paths = [write_jsonl(tmp_path / f"{name}.jsonl", [ROW | {"score": s}]) for name, s in (("a", 1), ("b", 0))]
    with pytest.raises(TableError):
        merge_batch(import_result_tables(paths, {}), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_covariate_has_one_type_whatever_the_files_hold(tmp_path: Path) -> None:
    out = tmp_path / "out"
    merge_batch(table(tmp_path / "a.jsonl", {"x_depth": 3, "x_kind": "a", "x_huge": 10**400}), out)
    batch = table(tmp_path / "b.jsonl", {"item": "2", "model": "other", "x_depth": "deep", "x_kind": None})
    stored = merge_batch(batch, out)
    assert stored.outcomes["x_depth"].tolist() == ["3", "deep"]
    assert any(note.startswith("covariate x_depth is text in battery and a number in battery") for note in batch.notes)
    pd.testing.assert_frame_equal(RunDirectory.open_existing(out).read(schema.OUTCOMES), stored.outcomes)


def test_constants_hold_in_outcomes_and_items(tmp_path: Path) -> None:
    settings = ImportSettings.parsed(["battery=mine", "model=me", "variant=cot", "capability=knowledge"])
    out = tmp_path / "out"
    outcomes = merge_batch(import_lm_eval([lm_eval_folder(tmp_path)], settings), out).outcomes
    items = schema.read_df(out / "items.parquet", schema.ITEMS)
    assert set(map(tuple, outcomes[["battery", "model", "variant", "capability"]].to_numpy())) == {
        ("mine", "me", "cot", "knowledge")
    }
    assert set(map(tuple, items[["battery", "variant"]].to_numpy())) == {("mine", "cot")}
    assert schema.read_df(out / "models.parquet", schema.MODELS)["model"].tolist() == ["me"]
