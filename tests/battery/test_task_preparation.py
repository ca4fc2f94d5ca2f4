from pathlib import Path
from typing import Any

import pytest

from capgap.battery import PreparedTask, load_battery, prepare_battery
from capgap.battery.battery_check import check_battery
from capgap.errors import BatteryError, UsageError

from .conftest import Write


def _prompts(prepared: PreparedTask, **options: Any) -> dict[int, str]:
    prepared.lm_task.build_all_requests(**options)
    return {instance.doc_id: instance.args[0] for instance in prepared.lm_task.instances}


def test_items_stand_in_the_order_of_the_documents(write: Write) -> None:
    for prepared in prepare_battery(load_battery(write()), limit=7):
        prompts = _prompts(prepared)
        assert [prompts[n] for n in range(7)] == [item.prompt for item in prepared.items]
        assert [doc["item"] for doc in prepared.lm_task.eval_docs] == [item.item for item in prepared.items]


@pytest.mark.parametrize(
    ("data", "prompt"),
    [("42", "{{q}}"), ("{{ 7 * 7 }}", "{{q}}"), ("prompt", "{{q}}"), ("[1, 2]", "{{q}}"), ("{% raw %}", "Q {{q}}")],
)
def test_lm_eval_sees_the_rendered_text_and_renders_nothing(write: Write, data: str, prompt: str) -> None:
    import json

    rows = "".join(
        json.dumps({"q": f"{data}", "options": [f"{data}", "1"], "answer": 0, "n": n}) + "\n" for n in range(3)
    )
    path = write(("Q: {{q}}\\nA:", prompt), ("{num_fewshot: 0", "{num_fewshot: 0"), files={})
    (path.parent / "data" / "capitals.jsonl").write_text(rows)
    prepared = prepare_battery(load_battery(path))[0]
    prepared.lm_task.build_all_requests()
    expected = prompt.replace("{{q}}", data)
    assert [i.args for i in prepared.lm_task.instances[:2]] == [(expected, f" {data}"), (expected, " 1")]


@pytest.mark.parametrize("fewshot", ["fixed", "per_item", "lm_eval"])
def test_the_second_model_reads_what_the_first_one_read(write: Write, fewshot: str) -> None:
    battery = load_battery(write(("{num_fewshot: 0", f"{{num_fewshot: 2, limit: 8, fewshot: {fewshot}")))
    for prepared in prepare_battery(battery):
        first = _prompts(prepared)
        assert first == _prompts(prepared)
        assert all(first[n].endswith(item.prompt) for n, item in enumerate(prepared.items))
        assert all(first[n].count(item.prompt) == 1 for n, item in enumerate(prepared.items))


def _blocks(prepared: PreparedTask) -> dict[str, str]:
    return {item.item: _prompts(prepared)[n].removesuffix(item.prompt) for n, item in enumerate(prepared.items)}


def test_a_larger_limit_changes_no_prompt(write: Write) -> None:
    battery = load_battery(write(("{num_fewshot: 0", "{num_fewshot: 2")))
    for few, many in zip(prepare_battery(battery, limit=5), prepare_battery(battery), strict=True):
        blocks = _blocks(many)
        assert {item: blocks[item] for item in _blocks(few)} == _blocks(few)


def test_a_fixed_block_is_one_block_from_outside_the_sample(write: Write) -> None:
    battery = load_battery(write(("{num_fewshot: 0", "{num_fewshot: 3, limit: 10")))
    choose, generate = prepare_battery(battery)
    assert len(set(_blocks(choose).values())) == 1
    asked = {item.prompt for item in choose.items}
    assert not any(prompt in block for prompt in asked for block in _blocks(choose).values())
    (block,) = set(_blocks(generate).values())
    assert block.count("Q: 1") == 3  # the training part: sums of 100 to 119
    assert block.count("A: 1") == 3


def test_without_anything_else_the_block_leaves_out_the_item_itself(write: Write) -> None:
    battery = load_battery(write(("{num_fewshot: 0", "{num_fewshot: 3")))
    prepared = prepare_battery(battery)[0]
    blocks = _blocks(prepared)
    assert 2 <= len(set(blocks.values())) <= 4  # the items of the block see its reserve
    assert all(item.prompt not in blocks[item.item] for item in prepared.items)
    assert all(block.count("Q: ") == 3 for block in blocks.values())


def test_a_block_per_item_does_not_depend_on_the_other_items(write: Write) -> None:
    path = write(("{num_fewshot: 0", "{num_fewshot: 2, fewshot: per_item"))
    few, many = (_blocks(prepare_battery(load_battery(path), limit=limit)[1]) for limit in (5, 15))
    assert len(set(many.values())) > 5
    assert {item: many[item] for item in few} == few


def test_a_training_item_that_is_asked_is_no_example(write: Write) -> None:
    path = write(("{num_fewshot: 0", "{num_fewshot: 2"))
    rows = "text,answer,n_steps\n" + "".join(f"{n} + 1 =,{n + 1},1\n" for n in (*range(20), 50, 51, 52))
    (path.parent / "data" / "more.csv").write_text(rows)
    blocks = set(_blocks(prepare_battery(load_battery(path))[1]).values())
    assert len(blocks) == 1
    assert all(f"Q: {n} + 1" not in block for n in range(20) for block in blocks)


@pytest.mark.parametrize(
    ("prompt", "choices", "delimiter", "sent"),
    [
        ("{{q}}", "[x, y]", "", ("?", " x")),
        ("{{q}}\\n", "[x, y]", "", ("?\n", "x")),
        ("{{q}}", "[' x', ' y']", "", ("?", " x")),
        ("{{q}}", "[x, y]", "\\t", ("?", "\tx")),
    ],
)
def test_one_space_stands_before_an_answer_unless_there_is_one(
    tmp_path: Path, prompt: str, choices: str, delimiter: str, sent: tuple[str, str]
) -> None:
    (tmp_path / "a.jsonl").write_text('{"q": "?"}\n')
    extra = f'    delimiter: "{delimiter}"\n' if delimiter else ""
    (tmp_path / "b.yaml").write_text(
        "name: b\ntasks:\n  - name: t\n    data: {file: a.jsonl}\n    format: choose\n"
        f'    prompt: "{prompt}"\n    choices: {choices}\n    target: 0\n{extra}'
    )
    prepared = prepare_battery(load_battery(tmp_path / "b.yaml"))[0]
    prepared.lm_task.build_all_requests()
    assert prepared.lm_task.instances[0].args == sent


GENERATE = {
    "exact": "score: exact",
    "numeric": "score: numeric",
    "contains": "score: contains",
    "lm_eval": "score: exact_match",
    "extract": "score: numeric\n    extract: 'answer is (.*)'",
    "extract for lm_eval": "score: exact_match\n    extract: 'answer is (.*)'",
    "extract in brackets": "score: exact\n    extract: '\\[(\\d+)\\]'",
    "shot": "score: numeric\n    extract: '#### (\\d+)$'\n    shot: '{{text}} #### {{answer}}'",
    "several": "score: numeric",
}
CHOOSE = {name: f"score: {name}" for name in ("choice", "choice_norm", "acc", "acc_bytes", "acc_mutual_info")}


@pytest.mark.parametrize("shots", [0, 2])
@pytest.mark.parametrize("case", [*GENERATE, *CHOOSE])
def test_right_answers_score_one_and_empty_ones_zero(write: Write, case: str, shots: int) -> None:
    change = ("score: numeric", GENERATE[case]) if case in GENERATE else ("domain: geography", CHOOSE[case])
    changes = [("{num_fewshot: 0", f"{{num_fewshot: {shots}, limit: 10"), change]
    if case == "several":  # only some documents have several targets, and not the first
        changes.append(
            (
                'target: "{{answer}}"\n    score',
                "target: \"{{ [answer, text] if n_steps == '2' else answer }}\"\n    score",
            )
        )
    checks = list(check_battery(load_battery(write(*changes))))
    assert [(check.gold, check.empty, check.problems) for check in checks] == [(1.0, 0.0, ())] * 2
    assert all(len(check.samples) == 2 for check in checks)


def test_items_with_several_right_choices_score_where_any_is_preferred(write: Write) -> None:
    path = write(
        (
            '    target: "{{answer}}"\n    capability: knowledge',
            '    target: "{{ [0, 1] if options | length > 2 else 0 }}"',
        )
    )
    prepared = prepare_battery(load_battery(path))[0]
    task = prepared.lm_task
    for best, score in ((0, 1.0), (1, 1.0), (2, 0.0)):
        responses = [(float(n == best), False) for n in range(3)]
        assert task.process_results(task.eval_docs[0], responses)["acc"] == score


def test_an_extract_that_nothing_matches_is_found_out(write: Write) -> None:
    change = ("score: numeric", "score: numeric\n    extract: '(?=never)x(\\d+)'")
    assert (
        "no right answer matches extract"
        in next(c for c in check_battery(load_battery(write(change))) if not c.ok).problems[0]
    )


def test_a_score_from_elsewhere_has_no_scorer_to_prove(write: Write) -> None:
    check = list(check_battery(load_battery(write(("score: numeric", "score: external")))))[1]
    assert check.ok
    assert (check.gold, check.empty) == (None, None)
    assert "scored elsewhere: there is no scorer to prove" in check.notes


def test_lm_eval_may_not_show_an_item_its_own_answer(write: Write) -> None:
    with pytest.raises(BatteryError, match="fewshot: lm_eval would show an item its own answer"):
        prepare_battery(load_battery(write(("{num_fewshot: 0", "{num_fewshot: 2, fewshot: lm_eval"))))


def test_a_limit_below_one_makes_no_sense(write: Write) -> None:
    with pytest.raises(UsageError, match="--limit 0: expected 1 or more"):
        prepare_battery(load_battery(write()), limit=0)


def test_chat_templates_reach_the_prompt(write: Write) -> None:
    prepared = prepare_battery(load_battery(write()))[1]
    chat = {"apply_chat_template": True, "chat_template": lambda m, **_: f"<{m[-1]['content']}>"}
    assert _prompts(prepared, **chat)[0] == f"<{prepared.items[0].prompt}>"
