import json
from collections.abc import Sequence

import pytest

from capgap import schema
from capgap.battery import load_battery, prepare_battery
from capgap.classification import (
    AskedModel,
    Evidence,
    EvidenceReason,
    ItemText,
    UnlabelledItem,
    classify_items,
    unlabelled_items,
)
from tests.classification.standin import text_evidence


def ask(task: str, text: str, **more: object) -> UnlabelledItem:
    return UnlabelledItem(task, text, ItemText(text), **more)  # type: ignore[arg-type]


def test_a_battery_gives_each_item_once_with_what_it_declares() -> None:
    prepared = prepare_battery(load_battery("microworld"), limit=3)
    items = unlabelled_items([*prepared, *prepared])
    assert len(items) == 14 * 3
    assert {item.capability for item in items} == {"knowledge", "reasoning", "mixed"}
    chain = next(item for item in items if item.task == "chains_generate")
    assert chain.rationale is not None
    assert chain.question.target is not None
    assert chain.question.text == next(p for p in prepared if p.name == "chains_generate").items[0].prompt


def test_labels_are_a_valid_table_in_the_order_of_the_items() -> None:
    items = [ask("a", "7 + 8"), ask("b", "who", capability="knowledge"), ask("a", "9 - 2"), ask("c", "x", no_task=True)]
    found = classify_items(items, text=text_evidence)
    schema.validate(found.labels, schema.LABELS)
    assert list(zip(found.labels["task"], found.labels["item"], strict=True)) == [(i.task, i.item) for i in items]
    assert list(found.labels["source"]) == ["text", "declared, text", "text", "text"]
    assert list(found.labels["capability"]) == ["reasoning", "knowledge", "reasoning", "knowledge"]
    assert set(found.tasks) == {"a", "b"}


def test_evidence_says_why_by_whom_and_how_the_task_stands() -> None:
    behaviour = {
        "a": [Evidence("behaviour", 2.0, 1.0, (EvidenceReason("thoughts help", 2.0),), models=(AskedModel("m", "h"),))]
    }
    found = classify_items([ask("a", "7 + 8"), ask("a", "9 - 2")], answer_evidence=behaviour, text=text_evidence)
    for written in found.labels["evidence"]:
        evidence = json.loads(written)
        assert [set(reason) for reason in evidence["reasons"]] == [{"words", "weight"}] * len(evidence["reasons"])
        assert 1 <= len(evidence["reasons"]) <= 3
        weights = [abs(reason["weight"]) for reason in evidence["reasons"]]
        assert weights == sorted(weights, reverse=True)
        assert evidence["models"] == [{"model": "m", "weights_hash": "h"}]
        assert evidence["task"]["low"] < evidence["task"]["p"] < evidence["task"]["high"]


def test_items_without_a_task_say_nothing_about_each_other() -> None:
    one = classify_items([ask("f", "7", no_task=True)], text=text_evidence).labels
    many = classify_items([ask("f", f"{7 + n}", no_task=True) for n in range(30)], text=text_evidence).labels
    assert many["p_reasoning"][0] == one["p_reasoning"][0]
    together = classify_items([ask("f", f"{7 + n}") for n in range(30)], text=text_evidence).labels
    assert together["p_reasoning"][0] > one["p_reasoning"][0]


def test_the_catalogue_speaks_for_a_task_of_lm_eval_and_is_silent_when_asked_to_be() -> None:
    items = [ask("gsm8k", "x")]
    assert classify_items(items, text=text_evidence).labels["capability"][0] == "reasoning"
    silent = classify_items(items, text=text_evidence, declarations=False).labels
    assert silent["p_reasoning"][0] < 0.5
    assert silent["source"][0] == "text"


def test_a_declaration_outweighs_text_and_strong_behaviour_outweighs_a_declaration() -> None:
    items = [ask("t", f"{n} + 1", capability="knowledge") for n in range(20)]
    assert set(classify_items(items, text=text_evidence).labels["capability"]) == {"knowledge"}
    strong = {"t": [Evidence("behaviour", 8.0, 0.3)]}
    assert set(classify_items(items, answer_evidence=strong, text=text_evidence).labels["capability"]) == {"reasoning"}


def test_items_of_one_task_may_be_declared_differently() -> None:
    items = [ask("t", f"k{n}", capability="knowledge" if n % 2 else "reasoning") for n in range(10)]
    labels = classify_items(items, text=lambda q: []).labels
    assert list(labels["capability"]) == [item.capability for item in items]


def test_behaviour_of_another_task_changes_nothing() -> None:
    items = [ask("t", "1"), ask("u", "2")]
    plain = classify_items(items, text=text_evidence).labels
    other = classify_items(items, text=text_evidence, answer_evidence={"u": [Evidence("behaviour", -4.0, 1.0)]}).labels
    assert other["p_reasoning"][0] == plain["p_reasoning"][0]
    assert other["p_reasoning"][1] < plain["p_reasoning"][1]


def test_no_item_gives_an_empty_table() -> None:
    found = classify_items([], text=text_evidence)
    assert len(found.labels) == 0
    schema.validate(found.labels, schema.LABELS)


@pytest.mark.parametrize("words", ["\x1b[31mred\x07", "a\nb", "x" * 5000, "\ud800", '"quoted" {json}'])
def test_a_reason_is_one_bounded_line_whatever_it_quotes(words: str) -> None:
    def text(questions: Sequence[ItemText]) -> list[Evidence]:
        return [Evidence("text", 1.0, 1.0, (EvidenceReason(words, 1.0),)) for _ in questions]

    written = classify_items([ask("t", "?")], text=text).labels["evidence"][0]
    told = json.loads(written)["reasons"][0]["words"]
    assert len(told) <= 240
    assert told.isprintable()


def test_without_any_evidence_everything_is_open() -> None:
    labels = classify_items([ask("t", ""), ask("u", "", no_task=True)], text=lambda q: []).labels
    assert list(labels["p_reasoning"]) == [0.5, 0.5]
    assert (labels["conf_high"] - labels["conf_low"] > 0.99).all()
    assert set(labels["source"]) == {"none"}
