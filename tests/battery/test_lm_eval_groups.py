"""lm-eval's own tasks. Their data are on the hub; documents of the same shape, made up here, stand in for them."""

import re
from typing import Any

import datasets
import pytest

from capgap.battery import Battery, load_battery, prepare_battery, training_items
from capgap.battery.battery_check import check_battery
from capgap.battery.battery_spec import LmEvalTask
from capgap.battery.catalogue import known_label, load_family_labels
from capgap.battery.lm_eval_config import config_problem, lm_eval_task_config
from capgap.battery.lm_eval_groups import compiled_task_config, leaf_task_names, runs_model_code
from capgap.battery.task_index import task_index
from capgap.errors import BatteryError
from capgap.schema import CAPABILITIES
from tests.conftest import ROOT

ARC = """\
name: public
defaults: {num_fewshot: 2, limit: 6, seed: 0}
tasks:
  - lm_eval: arc_easy
    domain: science
    covariates: {n_choices: "{{choices.text | length}}"}
"""


def _arc(n: int, start: int = 0) -> datasets.Dataset:
    return datasets.Dataset.from_list(
        [
            {
                "id": f"q{k}",
                "question": f"Which is number {k}?",
                "choices": {"text": [f"w{k}", f"x{k}", f"y{k}", "z"], "label": ["A", "B", "C", "D"]},
                "answerKey": "ABCD"[k % 4],
            }
            for k in range(start, start + n)
        ]
    )


def _gsm(n: int, start: int = 0) -> datasets.Dataset:
    return datasets.Dataset.from_list(
        [{"question": f"What is {k} + 1?", "answer": f"One more.\n#### {k + 1}"} for k in range(start, start + n)]
    )


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data sets of the shape that the hub has."""
    sets: dict[str, Any] = {
        "allenai/ai2_arc": {"train": _arc(9, 100), "validation": _arc(5, 200), "test": _arc(30)},
        "openai/gsm8k": {"train": _gsm(9, 100), "test": _gsm(30)},
    }
    monkeypatch.setattr(datasets, "load_dataset", lambda path, *_, **__: datasets.DatasetDict(sets[path]))


def _battery(tmp_path: Any, text: str = ARC) -> Battery:
    (tmp_path / "public.yaml").write_text(text)
    return load_battery(tmp_path / "public.yaml")


@pytest.mark.usefixtures("hub")
def test_a_task_of_lm_eval_is_sampled_and_keeps_its_documents_in_order(tmp_path: Any) -> None:
    (prepared,) = prepare_battery(_battery(tmp_path))
    assert (prepared.name, prepared.format, prepared.primary, prepared.n_available) == (
        "arc_easy",
        "choose",
        "acc,none",
        30,
    )
    assert (prepared.capability, prepared.domain, prepared.num_fewshot) == ("knowledge", "science", 2)
    task = prepared.lm_task
    task.build_all_requests()
    questions = [doc["question"] for doc in task.eval_docs]
    assert questions != [f"Which is number {k}?" for k in range(6)]
    assert [item.prompt for item in prepared.items] == [f"Question: {question}\nAnswer:" for question in questions]
    assert {i.doc_id: i.args[0].rsplit("\n\n", 1)[1] for i in task.instances} == {
        n: item.prompt for n, item in enumerate(prepared.items)
    }
    assert (
        len({i.args[0].rsplit("\n\n", 1)[0] for i in task.instances}) == 1
    )  # one block for all, from the training part
    assert "number 10" in task.instances[0].args[0]
    item = prepared.items[0]
    assert item.choices is not None
    assert item.choices[item.gold[0]] == item.targets[0]
    assert (item.chance, item.covariates) == (0.25, {"n_choices": 4})


@pytest.mark.usefixtures("hub")
def test_right_answers_prove_lm_evals_scorers_too(tmp_path: Any) -> None:
    text = ARC + "  - {lm_eval: gsm8k, capability: reasoning, primary: 'exact_match,flexible-extract'}\n"
    checks = list(check_battery(_battery(tmp_path, text)))
    assert [(check.gold, check.empty) for check in checks] == [(1.0, 0.0)] * 2
    gsm = checks[1].prepared
    assert gsm is not None
    assert (gsm.format, gsm.num_fewshot, gsm.primary) == ("generate", 5, "exact_match,flexible-extract")


@pytest.mark.usefixtures("hub")
def test_training_items_are_lm_evals_training_documents(tmp_path: Any) -> None:
    items = training_items(_battery(tmp_path))
    assert len(items) == 9
    assert items[0].targets == ("w100",)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("arc_eazy", r"line 4.*lm-eval knows no task, group or tag 'arc_eazy'\. Did you mean 'arc_easy'"),
        ("../../etc/x.yaml", r"lm-eval knows no task"),
        ("arc_easy", r"not in the cache.*capgap battery fetch public.*--battery pocket"),
    ],
)
def test_a_task_that_cannot_be_had_says_what_to_do(tmp_path: Any, task: str, message: str) -> None:
    battery = _battery(tmp_path, ARC.replace("lm_eval: arc_easy", f"lm_eval: {task}"))
    with pytest.raises(BatteryError, match=message):
        prepare_battery(battery)


@pytest.mark.usefixtures("hub")
def test_a_primary_that_is_not_computed_names_the_nearest(tmp_path: Any) -> None:
    with pytest.raises(BatteryError, match=r"'acc_nrm' is not computed\. Did you mean 'acc_norm,none'"):
        prepare_battery(_battery(tmp_path, ARC + "    primary: acc_nrm\n"))


@pytest.mark.usefixtures("hub")
def test_a_task_that_comes_twice_is_refused(tmp_path: Any) -> None:
    names = leaf_task_names("ai2_arc")
    assert names == ["arc_challenge", "arc_easy"]
    with pytest.raises(BatteryError, match="'arc_easy' is named twice"):
        prepare_battery(_battery(tmp_path, ARC + "  - lm_eval: ai2_arc\n"))


def test_core_is_what_lm_eval_knows_and_the_catalogue_says() -> None:
    battery = load_battery("core")
    labels = []
    for task in battery.tasks:
        assert isinstance(task, LmEvalTask)
        assert leaf_task_names(task.lm_eval) == [task.lm_eval]
        assert compiled_task_config(task.lm_eval).output_type in ("multiple_choice", "generate_until")
        label = known_label(task.lm_eval)
        assert label is not None
        assert label.capability == task.capability
        assert task.domain
        assert task.description
        labels.append(task.capability)
        assert task.source
        assert task.n_items
        assert task.length
    counts = {word: labels.count(word) for word in set(labels)}
    assert counts["knowledge"] >= 10
    assert counts["reasoning"] >= 14
    assert counts["mixed"] >= 10


def test_core_asks_every_capability_in_both_formats() -> None:
    asked = {(task.capability, lm_eval_task_config(task.name).format) for task in load_battery("core").tasks}
    assert asked == {(word, form) for word in CAPABILITIES for form in ("choose", "generate")}


def test_core_needs_no_code_of_others() -> None:
    for task in load_battery("core").tasks:
        assert isinstance(task, LmEvalTask)
        leaf = lm_eval_task_config(task.lm_eval)
        assert config_problem(leaf, task) is None
        assert not runs_model_code(task.lm_eval)
        assert leaf.primaries
        assert "trust_remote_code" not in (compiled_task_config(task.lm_eval).dataset_kwargs or {})


def test_core_is_checked_without_its_data() -> None:
    checks = list(check_battery(load_battery("core")))
    assert len(checks) == 34
    assert all(check.ok and check.missing_data for check in checks)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("lm_eval: arc_easy\n    primary: acc_nrm", r"'acc_nrm' is not computed\. Did you mean 'acc_norm,none'"),
        ("lm_eval: gsm8k\n    primary: exact_match,strict", r"Did you mean 'exact_match,strict-match'"),
        ("lm_eval: wikitext", "measures perplexity"),
        ("lm_eval: humaneval", "needs --allow-code"),
    ],
)
def test_what_can_be_known_without_data_is_checked_without_data(tmp_path: Any, entry: str, message: str) -> None:
    (check,) = check_battery(_battery(tmp_path, ARC.replace("lm_eval: arc_easy\n    domain: science", entry)))
    assert not check.ok
    assert re.search(message, check.problems[0])
    assert "line 4" in check.problems[0]


def test_every_pattern_of_the_catalogue_matches_and_no_name_stands_twice() -> None:
    from fnmatch import filter as matching

    names = list(task_index())
    patterns = [pattern for label in load_family_labels() for pattern in label.tasks]
    assert [pattern for pattern in patterns if not matching(names, pattern)] == []
    assert len(patterns) == len(set(patterns))


def test_most_of_lm_evals_tasks_have_a_label_with_domain_and_reason(record_property: Any) -> None:
    labels = {name: known_label(name) for name in task_index()}
    labelled = {name: label for name, label in labels.items() if label is not None}
    counts = {word: sum(label.capability == word for label in labelled.values()) for word in CAPABILITIES}
    record_property("labelled", f"{len(labelled)} of {len(labels)}: {counts}")
    print(f"{len(labelled)} of {len(labels)} names are labelled: {counts}")
    assert len(labelled) > 11_000
    assert f"{round(len(labelled), -2):,} of them have a label" in (ROOT / "README.md").read_text()
    assert all(label.domain and len(label.reason) > 20 for label in labelled.values())
    assert all(counts.values())


@pytest.mark.parametrize(
    ("name", "capability", "domain"),
    [
        ("mmlu_formal_logic", "reasoning", "logic"),
        ("global_mmlu_full_de_college_physics", "mixed", "science"),
        ("mmlu_world_religions_generative", "knowledge", "humanities"),
        ("mmlu_high_school_world_history", "mixed", "history"),
        ("bbh_zeroshot_navigate", "reasoning", "logic"),
        ("bbh_fewshot_sports_understanding", "mixed", "culture"),
        ("arc_de", "mixed", "science"),
        ("blimp_adjunct_island", "knowledge", "grammar"),
        ("xcopa_it", "mixed", "commonsense"),
        ("agieval_lsat_ar", "reasoning", "logic"),
        ("gpqa_main_n_shot", "mixed", "science"),
    ],
)
def test_a_task_has_the_label_of_its_own_family(name: str, capability: str, domain: str) -> None:
    label = known_label(name)
    assert label is not None
    assert (label.capability, label.domain) == (capability, domain)


@pytest.mark.parametrize(
    "name",
    [
        "no_such_task",
        "wikitext",
        "pile_arxiv",
        "crows_pairs_english",
        "flores_ca",
        "ifeval",
        "niah_single_1",
        "mmmu_val",
    ],
)
def test_what_nobody_can_label_stays_unlabelled(name: str) -> None:
    assert known_label(name) is None
