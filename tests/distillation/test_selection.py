import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from capgap.distillation import DistillConfig
from capgap.distillation.config_keys import DataKeys
from capgap.distillation.data.jsonl import read_examples
from capgap.distillation.data.selection import (
    TaskFormat,
    TrainingExample,
    count_by_capability,
    data_hash,
    select_examples,
)
from capgap.errors import DistillError
from capgap.evaluation.exposure import normalised
from tests.distillation.conftest import write_jsonl


def config(**changes: Any) -> DistillConfig:
    told = {"name": "pupil", "student": "s", "data": {"file": "x.jsonl"}, "supervision": "gold_answers"}
    return DistillConfig.model_validate(told | changes)


def pool(n: int = 200) -> list[TrainingExample]:
    return [
        TrainingExample(
            item=str(i),
            prompt=f"Q {i} ?",
            target=f" {i}",
            task=("facts", "chains")[i % 2],
            capability=("knowledge", "reasoning")[i % 2],
        )
        for i in range(n)
    ]


def items(examples: Any) -> list[str]:
    return [example.item for example in examples]


@pytest.mark.parametrize(("small", "large"), [(10, 20), (20, 150), (150, 200)])
def test_the_smaller_choice_is_part_of_the_greater(small: int, large: int) -> None:
    few, many = (select_examples(pool(), config(n_examples=n)).examples for n in (small, large))
    assert items(few) == items(many)[:small]


def test_the_choice_depends_on_its_seed_and_not_on_the_order_of_the_data() -> None:
    shuffled = pool()
    random.Random(3).shuffle(shuffled)
    first = items(select_examples(pool(), config(n_examples=50, data_seed=1)).examples)
    assert items(select_examples(shuffled, config(n_examples=50, data_seed=1)).examples) == first
    assert items(select_examples(pool(), config(n_examples=50, data_seed=2)).examples) != first
    assert first != sorted(first, key=int)


def test_the_seed_chooses_the_data_unless_data_seed_does() -> None:
    assert config(seed=7).effective_data_seed == 7
    assert config(seed=7, data_seed=2).effective_data_seed == 2


def test_evaluation_prompts_stay_out_and_are_counted() -> None:
    held_out = {normalised("q  3 ?\n"), normalised("Ｑ 5 ?"), normalised("Q 999 ?")}
    chosen = select_examples(pool(), config(), held_out=held_out)
    assert chosen.n_held_out == 2
    assert chosen.n_available == len(chosen.examples) == 198
    assert not {"3", "5"} & set(items(chosen.examples))


def test_too_few_examples_are_told_with_the_number_there_is() -> None:
    with pytest.raises(DistillError, match=r"asks for 201 .* have 199 \(1 more are evaluation items\)"):
        select_examples(pool(), config(n_examples=201), held_out={normalised("Q 3 ?")})


@pytest.mark.parametrize(
    ("diversity", "word", "n"), [("single", "facts", 100), ("multi", "reasoning", 100), ("universal", None, 200)]
)
def test_diversity_admits_a_task_a_capability_or_all(diversity: str, word: str | None, n: int) -> None:
    chosen = select_examples(pool(), config(diversity=diversity, train_tasks=word))
    assert len(chosen.examples) == n
    assert sum(count_by_capability(chosen.examples).values()) == n


def test_an_unknown_task_or_capability_is_told_with_the_nearest() -> None:
    with pytest.raises(DistillError, match="Did you mean 'chains'"):
        select_examples(pool(), config(diversity="single", train_tasks="chain"))
    with pytest.raises(DistillError, match="Did you mean 'knowledge'"):
        select_examples(pool(), config(diversity="multi", train_tasks="knowlege"))


def test_one_question_in_two_formats_is_one_example_and_the_generated_form_stands() -> None:
    generated = TrainingExample("1", "Q 1 ?", "A 7", task="generate", task_format=TaskFormat(delimiter=" "))
    chosen_from = TrainingExample(
        "1", "Q 1 ? A", "7", task="choose", choices=("7", "8"), task_format=TaskFormat(delimiter=" ")
    )
    for order in ([generated, chosen_from], [chosen_from, generated]):
        chosen = select_examples(order, config())
        assert (chosen.examples, chosen.n_repeated) == ((generated,), 1)


def test_choices_stay_out_of_traces_and_are_refused_where_they_were_named() -> None:
    choice = TrainingExample("1", "Q 1 ? A", "7", task="pick", choices=("7", "8"))
    steps = TrainingExample("2", "Q 2 ?", "A 7", rationale="5 + 2 = 7 ;", task="write")
    traces = {"supervision": "gold_traces"}
    chosen = select_examples([choice, steps], config(**traces))
    assert (chosen.examples, chosen.n_dropped_for_no_steps) == ((steps,), 1)
    with pytest.raises(DistillError, match=r"format generate under data\.tasks"):
        select_examples([choice, steps], config(data={"battery": "b", "tasks": ["pick", "write"]}, **traces))


def test_the_hash_of_the_data_sees_texts_and_not_their_order() -> None:
    pairs = [("a", "b"), ("c", "d")]
    assert data_hash(pairs) == data_hash(pairs[::-1])
    assert data_hash(pairs) != data_hash([("a", "b"), ("c", "e")])
    assert data_hash([("a", "b")]) != data_hash([("ab", "")])


def test_a_file_brings_prompts_and_completions_or_messages(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Q 1 ?"}, {"role": "assistant", "content": "A 1"}]
    records = [
        {"prompt": "Q 1 ?", "completion": " A 1", "rationale": "1 ;", "capability": "knowledge", "source": "mine"},
        {"messages": turns, "item": "m", "task": "talk"},
    ]
    path = write_jsonl(tmp_path / "x.jsonl", records)
    first, second = read_examples(DataKeys(file=path.name, extract=r"A (\S+)"), folder=tmp_path)
    assert (first.item, first.prompt, first.target, first.targets) == ("1", "Q 1 ?", " A 1", ("1",))
    assert (first.rationale, first.capability, first.task) == ("1 ;", "knowledge", "file")
    assert second.messages == tuple(turns)
    assert (second.item, second.task) == ("m", "talk")


def test_a_table_of_another_kind_brings_the_same_examples(tmp_path: Path) -> None:
    write_jsonl(
        tmp_path / "x.jsonl", [{"prompt": "Q 1 ?", "completion": " 7"}, {"prompt": "Q, 2 ?", "completion": "8"}]
    )
    (tmp_path / "x.csv").write_text('prompt,completion\nQ 1 ?, 7\n"Q, 2 ?",8\n', encoding="utf-8")
    of_lines, of_cells = (read_examples(DataKeys(file=f"x.{kind}"), folder=tmp_path) for kind in ("jsonl", "csv"))
    assert [(e.prompt, e.target) for e in of_lines] == [(e.prompt, e.target) for e in of_cells]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"x.jsonl, line 2: no JSON"),
        ("[1]", "expected an object"),
        ('{"promt": "a", "completion": "b"}', "no 'prompt'. Did you mean 'promt'"),
        ('{"prompt": "a", "completion": 3}', "'completion' should be a text, found 3"),
        ('{"prompt": "a", "completion": " "}', "should be a text"),
        ('{"prompt": "a", "completion": "b", "capability": "reasonin"}', "Did you mean 'reasoning'"),
        ('{"prompt": "a", "completion": "b", "targets": "b"}', "list of texts"),
        ('{"messages": []}', "list of turns"),
        ('{"messages": [{"role": "user", "content": "a"}]}', "last turn should be the assistant's"),
        ('{"messages": [{"role": "robot", "content": "a"}]}', "turn 1 should have a role"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "x.jsonl").write_text(f'{{"prompt": "a", "completion": "b"}}\n{line}\n', encoding="utf-8")
    with pytest.raises(DistillError, match=message):
        read_examples(DataKeys(file="x.jsonl"), folder=tmp_path)


def test_a_missing_an_empty_and_a_binary_file_are_told(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n", encoding="utf-8")
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\x00")
    for name, message in [("none.jsonl", "no such file"), ("empty.jsonl", "no item"), ("binary.jsonl", "not UTF-8")]:
        with pytest.raises(DistillError, match=message):
            read_examples(DataKeys(file=name), folder=tmp_path)


def test_examples_of_other_tasks_do_not_hide_each_other() -> None:
    same = replace(pool(2)[0], task="other")
    chosen = select_examples([*pool(2), same], config(diversity="single", train_tasks="other"))
    assert chosen.examples == (same,)
