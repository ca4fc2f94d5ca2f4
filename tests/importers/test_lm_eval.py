"""lm-eval's files of every generation, by hand: what is read, what is listed, and that nothing is taken for known."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from capgap.errors import TableError, UsageError
from capgap.importers import ImportResult, ImportSettings, import_lm_eval, merge_batch
from tests.importers.written import (
    COLOURS,
    choose_sample,
    generate_sample,
    lm_eval_folder,
    results,
    write_json,
    write_jsonl,
)


def rows(batch: ImportResult, **wanted: Any) -> list[dict[str, Any]]:
    """Rows of a batch that have these values."""
    every = [row for part in batch.parts for row in part.rows]
    return [row for row in every if all(row[key] == value for key, value in wanted.items())]


def test_todays_files_are_read(tmp_path: Path) -> None:
    batch = import_lm_eval([lm_eval_folder(tmp_path)])
    counted = rows(batch, primary=True)
    assert [row["value"] for row in counted] == [1.0, 0.0, 0.0, 1.0]
    assert counted[0]["margin"] == pytest.approx(3.0)
    assert counted[1]["margin_target"] == pytest.approx(-4.0 + 1.0)
    assert counted[1]["target_logprob"] == -4.0
    assert (counted[1]["target"], counted[1]["prediction"]) == ("blue", "red")
    assert (counted[0]["model"], counted[0]["task"], counted[0]["battery"]) == ("org/model", "colours", "lm-eval")
    assert counted[0]["chance"] == pytest.approx(1 / 3)
    item = batch.parts[0].items[0]
    assert item["prompt"] == "Q: number 0?\nA:"
    assert json.loads(item["choices"]) == list(COLOURS)


def test_results_of_2023_without_items_are_listed_and_nothing_is_made_up(tmp_path: Path) -> None:
    write_json(
        tmp_path / "results.json",
        {
            "results": {"arc_easy": {"acc": 0.6, "acc_stderr": 0.01, "acc_norm": 0.55}, "piqa": {"acc": 0.7}},
            "versions": {"arc_easy": 0, "piqa": 0},
            "config": {"model": "hf-causal", "model_args": "pretrained=EleutherAI/pythia-70m,dtype=float16"},
        },
    )
    batch = import_lm_eval([tmp_path])
    assert not batch.parts
    (listed,) = batch.skipped
    assert listed.count == 2
    assert "only items can be paired" in listed.reason
    assert listed.first == "arc_easy, piqa"
    with pytest.raises(TableError, match=r"nothing was imported.*--log_samples"):
        merge_batch(batch, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def write_out_record(doc_id: int, *, truth: int, logits: tuple[float, ...]) -> dict[str, Any]:
    """A record of lm-eval 0.3's ``--write_out``: prompts with their continuation, metrics as text."""
    taken = logits.index(max(logits))
    prompts = {f"prompt_{n}": f"Q: number {doc_id}?\nA: {word}" for n, word in enumerate(COLOURS)}
    told = {f"logit_{n}": value for n, value in enumerate(logits)}
    return {"doc_id": doc_id, **prompts, **told, "truth": truth, "acc": str(float(taken == truth)), "acc_norm": "0.0"}


def test_items_of_2023_are_read_with_their_margins(tmp_path: Path) -> None:
    write_json(
        tmp_path / "results.json",
        {
            "results": {"colours": {"acc": 0.5, "acc_stderr": 0.1}},
            "versions": {"colours": 0},
            "config": {"model": "gpt2", "model_args": "pretrained=org/old,revision=step3000", "num_fewshot": 5},
        },
    )
    records = [
        write_out_record(0, truth=1, logits=(-3.0, -1.0, -2.5)),
        write_out_record(1, truth=0, logits=(-3.0, -1.0, -2.5)),
    ]
    write_json(tmp_path / "colours_write_out_info.json", records)
    batch = import_lm_eval([tmp_path])
    assert not batch.skipped
    first, second = rows(batch, metric="acc")
    assert (first["model"], first["item"], first["value"]) == ("org/old@step3000", "0", 1.0)
    assert (first["margin"], first["margin_target"]) == (1.5, 1.5)
    assert second["margin_target"] == -2.0
    assert (first["prediction"], second["target"]) == ("blue", "red")
    assert rows(batch, metric="acc_norm")[0]["margin"] != rows(batch, metric="acc")[0]["margin"]  # lengths are not told
    assert batch.parts[0].setup == {"num_fewshot": 5, "version": 0.0}
    assert not batch.parts[0].has_content_ids


def test_samples_of_early_0_4_are_a_list_with_real_numbers_and_no_hashes(tmp_path: Path) -> None:
    own = []
    for n in range(3):
        record = choose_sample(n, gold=n, taken=n)
        record["arguments"] = [list(pair.values()) for pair in record["arguments"].values()]
        record["resps"] = [[[float(pair[0][0]), False]] for pair in record["resps"]]
        record["target"] = n
        for key in ("metrics", "filter", "doc_hash", "prompt_hash", "target_hash"):
            del record[key]
        own.append(record)
    (tmp_path / "pretrained__org__old_colours.jsonl").write_text(json.dumps(own, indent=2))
    write_json(
        tmp_path / "results.json",
        {
            "results": {"colours": {"acc,none": 1.0, "acc_stderr,none": 0.0, "alias": "colours"}},
            "configs": {"colours": {"task": "colours"}},
            "versions": {"colours": "Yaml"},
            "n-shot": {"colours": 0},
            "config": {"model": "hf", "model_args": "pretrained=org/old"},
        },
    )
    batch = import_lm_eval([tmp_path])
    assert not batch.skipped
    counted = rows(batch, primary=True)
    assert {row["model"] for row in counted} == {"org/old"}
    assert {row["task"] for row in counted} == {"colours"}
    assert [row["margin_target"] > 0 for row in counted] == [True] * 3
    # The id is the hash that later versions write beside the document.
    text = json.dumps(own[0]["doc"], indent=2, ensure_ascii=False)
    assert counted[0]["item"] == hashlib.sha256(text.encode()).hexdigest()[:16]


def test_a_document_that_comes_twice_is_two_items(tmp_path: Path) -> None:
    same = {"question": "the same?", "choices": list(COLOURS)}
    records = [choose_sample(n, doc=same) for n in range(3)]
    items = [row["item"] for row in rows(import_lm_eval([lm_eval_folder(tmp_path, records=records)]), primary=True)]
    assert items == [items[0], f"{items[0]}-2", f"{items[0]}-3"]


def test_ids_do_not_depend_on_the_order_or_number_of_records(tmp_path: Path) -> None:
    records = [choose_sample(n) for n in range(6)]
    every = rows(import_lm_eval([lm_eval_folder(tmp_path / "a", records=records)]), primary=True)
    some = rows(import_lm_eval([lm_eval_folder(tmp_path / "b", records=records[:3][::-1])]), primary=True)
    assert {row["item"] for row in some} == {row["item"] for row in every[:3]}


@pytest.mark.parametrize(
    ("config", "name", "base"),
    [
        ({"model_args": {"pretrained": "org/model"}}, "org/model", None),
        ({"model_args": "pretrained=org/model,dtype=auto"}, "org/model", None),
        ({"model_args": {"pretrained": "org/base", "peft": "me/adapter"}}, "me/adapter", "org/base"),
        ({"model_args": {"pretrained": "org/model", "revision": "step3000"}}, "org/model@step3000", None),
        ({"model_args": {"pretrained": "org/model"}, "model_revision": "main"}, "org/model", None),
        ({"model_args": {"pretrained": "/home/me/out/student"}}, "student", None),
        ({"model_args": {"pretrained": "/home/me/out/student/checkpoint-100"}}, "student/checkpoint-100", None),
        ({"model_args": {"pretrained": "../../out/student"}}, "student", None),
        ({"model_args": {"pretrained": "C:\\models\\student"}}, "student", None),
        ({"model_args": {"pretrained": "./out/student"}}, "out/student", None),
        ({"model": "gpt2", "model_args": None}, "gpt2", None),
    ],
)
def test_a_model_has_its_own_name_and_no_path_of_a_machine(
    config: dict[str, Any], name: str, base: str | None, tmp_path: Path
) -> None:
    folder = lm_eval_folder(tmp_path)
    (path,) = folder.glob("results_*.json")
    data = results(config=config)
    del data["model_name"]
    write_json(path, data)
    (part,) = import_lm_eval([folder]).parts
    assert (part.model, part.facts["base"]) == (name, base)


def test_without_results_the_folder_names_the_model_and_a_note_says_so(tmp_path: Path) -> None:
    folder = lm_eval_folder(tmp_path, model="org/model")
    next(folder.glob("results_*.json")).unlink()
    batch = import_lm_eval([folder])
    assert batch.parts[0].model == "org/model"
    assert "its folder does: org/model" in batch.notes[0]
    named = import_lm_eval([folder], ImportSettings({"model": "mine"}))
    assert (named.parts[0].model, named.notes) == ("mine", [])


def test_capability_comes_from_the_catalogue_or_stays_unknown(tmp_path: Path) -> None:
    known = write_jsonl(tmp_path / "m" / "samples_arc_easy_2026-01-01T00-00-00.jsonl", [choose_sample(0)])
    other = write_jsonl(tmp_path / "m" / "samples_my_own_2026-01-01T00-00-00.jsonl", [choose_sample(0)])
    batch = import_lm_eval([known, other])
    assert {row["task"]: row["capability"] for row in rows(batch)} == {"arc_easy": "knowledge", "my_own": None}


def test_bad_lines_are_listed_with_their_number_and_the_others_read(tmp_path: Path) -> None:
    folder = lm_eval_folder(tmp_path)
    (path,) = folder.glob("samples_*.jsonl")
    good = path.read_text()
    path.write_bytes(
        good.encode() + b"{not json\n" + b'{"doc_id": 9}\n' + b"\xff\xfe\n" + b'{"doc_id": 1, "doc_id": 2}\n' + b"[1]\n"
    )
    batch = import_lm_eval([folder])
    assert len(rows(batch, primary=True)) == 4
    told = [str(one) for one in batch.skipped]
    for words in (
        "is no JSON",
        "line 6",
        "is not UTF-8",
        "names the key 'doc_id' twice",
        "no sample of lm-eval (2 times",
    ):
        assert any(words in one for one in told), words


def test_the_last_line_of_a_killed_run_is_listed(tmp_path: Path) -> None:
    folder = lm_eval_folder(tmp_path, **{"n-samples": {"colours": {"original": 9, "effective": 4}}})
    (path,) = folder.glob("samples_*.jsonl")
    path.write_text(path.read_text()[:-40])
    batch = import_lm_eval([folder])
    assert len(rows(batch, primary=True)) == 3
    assert any("line 4" in str(one) for one in batch.skipped)
    assert any("of 4 documents, the samples of 3" in note for note in batch.notes)


def test_samples_that_contradict_their_aggregate_are_noted(tmp_path: Path) -> None:
    batch = import_lm_eval([lm_eval_folder(tmp_path, tasks={"colours": {"acc,none": 0.75}})])
    assert batch.notes == ["org/model, colours: mean acc of the samples 0.500000, in the results 0.750000"]


def test_groups_are_no_missing_tasks(tmp_path: Path) -> None:
    tasks = {"all": {"acc,none": 0.5, " ": " "}, "colours": {"acc,none": 0.5}}
    subtasks = {"all": ["colours"], "colours": []}
    batch = import_lm_eval([lm_eval_folder(tmp_path, tasks=tasks, groups={"all": {}}, group_subtasks=subtasks)])
    assert not batch.skipped


def test_records_of_a_document_that_stand_twice_count_once(tmp_path: Path) -> None:
    records = [choose_sample(0), choose_sample(1), choose_sample(0), choose_sample(1, taken=2)]
    batch = import_lm_eval([lm_eval_folder(tmp_path, records=records, tasks={})])
    assert len(rows(batch, primary=True)) == 2
    assert {one.reason for one in batch.skipped} == {
        "a record stands there twice",
        "another record of a document and filter that stand there already",
    }


def test_a_target_that_contradicts_the_accuracies_gives_no_margin(tmp_path: Path) -> None:
    records = [choose_sample(n, gold=n % 3, taken=0) for n in range(6)]
    for record in records:
        record["target"] = "2"
    batch = import_lm_eval([lm_eval_folder(tmp_path, records=records, tasks={})])
    counted = rows(batch, primary=True)
    assert all(row["margin_target"] != row["margin_target"] for row in counted)
    assert all(row["target"] is None for row in counted)
    assert all(row["margin"] == pytest.approx(3.0) for row in counted)
    assert "6 items without a margin_target" in batch.notes[0]


def test_several_right_choices_raise_the_chance_of_a_guess(tmp_path: Path) -> None:
    records = [choose_sample(n, gold=0, taken=n % 2) for n in range(4)]
    for record in records:
        record["target"], record["acc"], record["acc_norm"] = "[0, 1]", 1.0, 1.0
    (first, *_) = rows(import_lm_eval([lm_eval_folder(tmp_path, records=records, tasks={})]), primary=True)
    assert first["chance"] == pytest.approx(2 / 3)
    assert json.loads(first["target"]) == ["red", "blue"]
    assert first["margin_target"] == pytest.approx(-1.0 + 5.0)


@pytest.mark.parametrize("word", ["-inf", "nan", "-Infinity"])
def test_a_log_probability_that_is_not_finite_gives_no_margin(word: str, tmp_path: Path) -> None:
    record = choose_sample(0)
    record["resps"][1] = [[word, "False"]]
    (row,) = rows(import_lm_eval([lm_eval_folder(tmp_path, records=[record], tasks={})]), primary=True)
    assert row["value"] == 1.0
    assert row["margin"] != row["margin"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None])
def test_a_metric_without_a_value_is_an_error_and_never_zero(value: Any, tmp_path: Path) -> None:
    records = [choose_sample(0), choose_sample(1) | {"acc": value}]
    _, row = rows(import_lm_eval([lm_eval_folder(tmp_path, records=records, tasks={})]), primary=True)
    assert (row["value"], row["score"], row["status"]) == (None, None, "error")


def test_generated_answers_keep_response_prediction_and_every_filter(tmp_path: Path) -> None:
    records = [
        record
        for n, text in enumerate((" 7 ", "", "8"))
        for record in generate_sample(n, text, filters=("strict", "loose"))
    ]
    batch = import_lm_eval([lm_eval_folder(tmp_path, records=records, tasks={}, configs={})])
    counted = rows(batch, primary=True)
    assert {row["filter"] for row in counted} == {"strict"}
    assert [row["status"] for row in counted] == ["scored", "unparsed", "scored"]
    assert [row["prediction"] for row in counted] == ["7", None, "8"]
    assert [row["response"] for row in counted] == [" 7 ", "", "8"]
    assert {row["chance"] for row in counted if "chance" in row} == set()  # of a generated answer nobody knows it
    assert len(rows(batch, primary=False)) == 3


def test_items_without_the_metric_that_counts_are_noted(tmp_path: Path) -> None:
    records = [choose_sample(n) for n in range(3)]
    records[1]["metrics"] = ["acc_norm"]
    batch = import_lm_eval([lm_eval_folder(tmp_path, records=records, tasks={})])
    assert len(rows(batch, primary=True)) == 2
    assert "org/model, colours: 1 items have no value of acc,none, which counts" in batch.notes


def test_a_primary_that_no_task_has_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--primary acc_nrm.*Did you mean 'acc_norm'"):
        import_lm_eval([lm_eval_folder(tmp_path)], ImportSettings(primary=["acc_nrm"]))


def test_files_of_something_else_are_listed(tmp_path: Path) -> None:
    folder = lm_eval_folder(tmp_path)
    write_json(folder / "notes.json", {"a": 1})
    write_jsonl(folder / "other.jsonl", [{"prompt": "x"}])
    (folder / "empty.jsonl").write_text("")
    batch = import_lm_eval([folder])
    reasons = {Path(one.where).name: one.reason for one in batch.skipped}
    assert set(reasons) == {"notes.json", "other.jsonl", "empty.jsonl"}
    assert reasons["empty.jsonl"] == "is empty"
    assert len(batch.parts) == 1


def test_a_path_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="no such file or folder"):
        import_lm_eval([tmp_path / "nowhere"])
