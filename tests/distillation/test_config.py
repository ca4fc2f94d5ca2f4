import textwrap
from pathlib import Path
from typing import Any

import pytest

from capgap.distillation import ADAPTATION_DESCRIPTIONS, SUPERVISIONS, UNSUPPORTED, DistillConfig, load_config
from capgap.errors import CapgapError, DistillError

GOOD = {
    "name": "pilot",
    "teacher": "microworld:teacher",
    "student": "microworld:small",
    "data": "{battery: microworld}",
    "supervision": "answers",
}


def write(tmp_path: Path, changes: dict[str, str | None], extra: str = "") -> Path:
    told = {key: value for key, value in (GOOD | changes).items() if value is not None}
    path = tmp_path / "pilot.yaml"
    text = "".join(f"{key}: {value}\n" for key, value in told.items()) + textwrap.dedent(extra)
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_says_all_that_it_must_and_the_rest_has_defaults(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, {}))
    assert (config.adaptation, config.diversity, config.seed, config.n_examples) == ("full", "universal", 0, None)
    assert config.lr == 2e-5
    lora = load_config(write(tmp_path, {"adaptation": "lora", "seed": "3", "teacher": "[microworld:teacher]"}))
    assert (lora.lr, lora.lora.rank, lora.lora.targets, lora.effective_data_seed) == (2e-4, 16, "all-linear", 3)
    assert lora.teacher == ("microworld:teacher",)


def test_lists_by_nature_are_no_factors(tmp_path: Path) -> None:
    changes = {"data": "{battery: core, tasks: [a, b]}", "lora": "{targets: [q_proj]}"}
    config = load_config(write(tmp_path, {**changes, "evaluate": "{battery: [core, pocket], limit: 10}"}))
    assert config.data.tasks == ("a", "b")
    assert config.lora.targets == ("q_proj",)
    assert config.evaluate is not None
    assert config.evaluate.battery == ("core", "pocket")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"suprevision": "answers"}, r"pilot.yaml, line 6, key 'suprevision': unknown key. Did you mean 'supervision'"),
        ({"supervision": "answer"}, r"line 5, key 'supervision': .*Did you mean 'answers'"),
        ({"supervision": None}, "required key is missing"),
        (
            {"supervision": "traces", "teacher": None},
            "'teacher'; 'gold_answers' and 'gold_traces' do without",
        ),
        ({"training": "{learning_rate: 1}"}, r"key 'training.learning_rate': unknown key"),
        ({"training": "{lr: fast}"}, r"line 6, key 'training.lr': expected .*number, found 'fast'"),
        ({"training": "{lr: 0}"}, "greater than 0"),
        ({"training": "{warmup: 1.5}"}, "expected less than 1, found 1.5"),
        ({"training": "{epochs: 1, max_steps: 2}"}, "expected one of 'epochs' and 'max_steps'"),
        ({"n_examples": "0"}, "greater than or equal to 1"),
        ({"n_examples": "'10'"}, "expected .*integer, found '10'"),
        ({"data": "{battery: core, file: x.jsonl}"}, "exactly one of 'battery', 'file' and 'hub'"),
        ({"data": "{}"}, "exactly one of 'battery', 'file' and 'hub'"),
        ({"data": "{file: x.jsonl, tasks: [a]}"}, "beside 'file' it says nothing"),
        ({"data": "core"}, "expected keys and values, found 'core'"),
        ({"diversity": "single"}, "needs the key 'train_tasks': the task"),
        ({"train_tasks": "facts"}, "goes with diversity: single"),
        ({"student": "{microworld: {layers: 0}}"}, "greater than or equal to 1"),
        ({"student": "{microworld: {depth: 2}}"}, "unknown key"),
        ({"adaptation": "lore"}, "Did you mean 'lora'"),
        ({"generation": "{keep: right}"}, "expected one of all, correct"),
        ({"name": "''"}, "key 'name'"),
        ({"objective": "{temperature: 2}"}, "'objective' belongs to supervision: logits or context or on_policy"),
        ({"supervision": "context"}, "needs the key 'context': a system prompt, or examples"),
        ({"supervision": "logits", "cache": "{mode: sample}", "objective": "{divergence: jsd}"}, "and not jsd"),
        ({"supervision": "logits", "cache": "{mode: top_k}", "objective": "{temperature: 2}"}, "mode: hidden"),
        ({"supervision": "logits", "objective": "{divergence: kl}"}, "expected one of forward_kl, reverse_kl, jsd"),
        ({"trace_weights": "{answer: 2}"}, "'trace_weights' belongs to supervision: gold_traces or traces"),
        ({"supervision": "logits", "texts": "answers", "trace_weights": "{answer: 2}"}, "these are answers"),
        ({"student": "{prune: x}"}, "required key is missing"),
        ({"student": "{config: x}"}, "required key is missing"),
    ],
)
def test_a_mistake_names_file_line_key_and_the_nearest_word(
    tmp_path: Path, changes: dict[str, str | None], message: str
) -> None:
    with pytest.raises(DistillError, match=message):
        load_config(write(tmp_path, changes))


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"teacher": "[[a, b], [c]]"}, "study"),
        ({"n_examples": "[1000, 10000]"}, "study"),
        ({"supervision": "[answers, traces]"}, "study"),
        ({"seed": "[0, 1]"}, "study"),
        ({"student": "[a, b]"}, "study"),
        ({"training": "{lr: [0.1, 0.2]}"}, "study"),
        ({"hypotheses": "['closure(a=b) > 0']"}, "hypotheses"),
    ],
)
def test_what_the_design_knows_and_this_version_cannot_is_refused_with_its_reason(
    tmp_path: Path, changes: dict[str, str | None], key: str
) -> None:
    with pytest.raises(DistillError) as caught:
        load_config(write(tmp_path, changes))
    assert UNSUPPORTED[key] in str(caught.value)
    assert "not in this version" in str(caught.value) or "capgap study" in str(caught.value)
    assert "pilot.yaml, line" in str(caught.value)


@pytest.mark.parametrize(
    ("extra", "message"), [("name: again\n", "given twice"), ("x: !function y\n", "tag"), ("x: [\n", "no YAML")]
)
def test_what_is_no_plain_yaml_is_refused(tmp_path: Path, extra: str, message: str) -> None:
    with pytest.raises(CapgapError, match=message):
        load_config(write(tmp_path, {}, extra))


def test_no_word_is_both_possible_and_not() -> None:
    assert not {*SUPERVISIONS, *ADAPTATION_DESCRIPTIONS} & set(UNSUPPORTED)


def test_the_hash_sees_what_decides_the_student_and_nothing_else() -> None:
    def made(**changes: Any) -> str:
        told: dict[str, Any] = GOOD | {"data": {"battery": "microworld"}} | changes
        return DistillConfig.model_validate(told).hash

    assert made(name="other") == made(evaluate={"battery": "core"}) == made(training={"save_minutes": 1}) == made()
    assert made(training={"lr": 2e-5}) == made(data_seed=0) == made()
    assert made(lora={"rank": 4}) == made()  # nothing here is an adapter
    assert made(adaptation="lora", lora={"rank": 4}) != made(adaptation="lora")
    assert made(seed=1) != made()
    assert made(teacher="x") != made()
    gold = {"supervision": "gold_answers"}
    assert made(teacher="x", **gold) == made(teacher="y", **gold)
