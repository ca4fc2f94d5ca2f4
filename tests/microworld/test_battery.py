import pytest

from capgap.battery import load_battery, prepare_battery, score_generation, training_items
from capgap.microworld import Q_FAMILIES


@pytest.fixture(scope="module")
def battery():
    return load_battery("microworld")


def test_twins_in_both_formats_share_cluster_and_covariates(battery) -> None:
    tasks = {task.name: task for task in prepare_battery(battery)}
    for family in Q_FAMILIES:
        chosen, generated = tasks[f"{family}_choose"].items, tasks[f"{family}_generate"].items
        assert len(chosen) == len(generated) == 96
        for one, other in zip(chosen, generated, strict=True):
            assert (one.item, one.cluster, one.covariates) == (other.item, other.cluster, other.covariates)
            assert one.prompt == f"{other.prompt} A"
            assert f"A {one.targets[0]}" == other.targets[0]


def test_every_choice_of_a_digit_is_read_as_text(battery) -> None:
    tasks = {task.name: task for task in prepare_battery(battery)}
    for item in tasks["chains_choose"].items:
        assert item.choices is not None
        assert [item.choices[i] for i in item.gold] == list(item.targets)


def test_an_answer_scores_alike_with_and_without_its_steps(battery) -> None:
    for item in training_items(battery, task="chains_generate")[:50]:
        for response in (item.targets[0], f"{item.rationale} {item.targets[0]}"):
            assert score_generation("exact", response, item.targets, extract=r"(A \S+)")[0] == 1.0
        assert score_generation("exact", item.rationale, item.targets, extract=r"(A \S+)")[1] is None


def test_every_prompt_fits_beside_the_longest_answer_and_every_gold_rationale_fits_the_limit() -> None:
    from transformers import AutoTokenizer

    from capgap.microworld import checkpoint_folder
    from capgap.microworld.world_tokenizer import MAX_SEQUENCE_TOKENS

    tokenizer = AutoTokenizer.from_pretrained(checkpoint_folder("teacher"))
    for task in prepare_battery(load_battery("microworld")):
        if task.format != "generate":
            continue
        assert task.max_tokens is not None
        for item in task.items:
            assert len(tokenizer(item.prompt)["input_ids"]) <= MAX_SEQUENCE_TOKENS - task.max_tokens, (
                task.name,
                item.item,
            )
            gold = f"{item.rationale or ''} {item.targets[0]}"
            assert len(tokenizer(gold)["input_ids"]) < task.max_tokens, (task.name, item.item)
