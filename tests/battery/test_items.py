from typing import Any

import pytest

from capgap.battery import load_battery, prepare_battery, training_items
from capgap.battery.battery_spec import CustomTask
from capgap.battery.data_source import SourceRow
from capgap.battery.items import make_items, sample_positions
from capgap.errors import BatteryError

from .conftest import Write


def _items(rows: list[dict[str, Any]], **task: Any) -> dict[str, list[Any]]:
    whole = {"name": "t", "data": {"file": "x"}, "format": "choose", "prompt": "{{q}}", "target": "{{a}}"} | task
    if whole["format"] == "choose":
        whole.setdefault("choices", "{{c}}")
    made = [SourceRow(row, f"line {n}") for n, row in enumerate(rows, start=1)]
    return make_items(CustomTask.model_validate(whole), made, "here")


@pytest.mark.parametrize(
    ("answer", "gold"),
    [(1, (1,)), ("B", (0,)), ("x", (2,)), ("C", (2,)), ("(c)", (2,)), ([0, "x"], (0, 2)), ("A", (1,)), (" A", (1,))],
)
def test_an_integer_is_an_index_and_text_a_choice_before_a_letter(answer: Any, gold: tuple[int, ...]) -> None:
    item = _items([{"q": "?", "c": ["B", "A", "x"], "a": answer}])["default"][0]
    assert item.gold == gold
    assert item.targets == tuple(("B", "A", "x")[n] for n in gold)
    assert item.chance == pytest.approx(len(gold) / 3)


def test_numbers_are_fine_choices_and_truth_is_no_index() -> None:
    assert _items([{"q": "?", "c": [10, 20], "a": "20"}])["default"][0].gold == (1,)
    assert _items([{"q": "?", "c": ["False", "True"], "a": True}])["default"][0].gold == (1,)


def test_equal_choices_are_all_right() -> None:
    assert _items([{"q": "?", "c": ["x", "y", "x"], "a": 2}])["default"][0].gold == (0, 2)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"q": "?", "c": ["x"], "a": 0}, "at least two choices"),
        ({"q": "?", "c": ["x", ""], "a": 0}, "choice 1 is empty"),
        ({"q": "?", "c": ["x", None], "a": 0}, "expected text or a number, found nothing"),
        ({"q": "?", "c": ["x", "y"], "a": "7"}, "integer"),
        ({"q": "?", "c": ["x", "y"], "a": None}, "found nothing"),
        ({"q": "?", "c": ["x", "y"], "a": []}, "empty list"),
        ({"q": "?", "c": ["x", "y"], "a": [0, 1]}, "every choice counts as right"),
        ({"q": "?", "c": ["x", "y"], "a": -1}, "index -1 of 2"),
    ],
)
def test_an_item_that_cannot_be_scored_is_refused(row: dict[str, Any], message: str) -> None:
    with pytest.raises(BatteryError, match=f"line 1: .*{message}"):
        _items([row])


def test_any_target_of_a_list_counts_and_chance_is_declared() -> None:
    rows = [{"q": "?", "a": ["x", " y", "x"]}]
    item = _items(rows, format="generate", guess={"value": "{{ 1 / 4 }}", "because": "one of four"})["default"][0]
    assert (item.targets, item.gold, item.choices, item.chance) == (("x", "y"), (), None, 0.25)
    assert _items([{"q": "?", "a": 7}], format="generate", target=["{{a}}", "seven"])["default"][0].targets == (
        "7",
        "seven",
    )


def test_ids_follow_the_content_and_count_its_repetitions() -> None:
    rows = [{"q": str(n % 3), "c": ["x", "y"], "a": 0} for n in range(7)]
    ids = [item.item for item in _items(rows)["default"]]
    assert len(set(ids)) == 7
    assert ids[3] == f"{ids[0]}-2"
    assert ids[6] == f"{ids[0]}-3"
    assert {item.item for item in _items(rows[::-1])["default"]} == set(ids)
    other = [item.item for item in _items([{**row, "a": 1} for row in rows])["default"]]
    assert not set(other) & set(ids)


def test_declared_ids_clusters_and_variants_stay_together() -> None:
    rows = [{"q": str(n), "c": ["x", "y"], "a": 0, "key": f"k{n}", "g": n % 2} for n in range(4)]
    made = _items(
        rows,
        id="{{key}}",
        cluster="{{g}}",
        covariates={"g": "{{g}}", "fixed": 2},
        variants={"loud": {"prompt": "{{q | upper}}!"}},
    )
    assert [item.item for item in made["loud"]] == [item.item for item in made["default"]] == ["k0", "k1", "k2", "k3"]
    assert [item.cluster for item in made["loud"]] == ["0", "1", "0", "1"]
    assert made["loud"][1].covariates == {"g": 1, "fixed": 2}
    assert made["loud"][1].prompt == "1!"
    assert _items(rows)["default"][0].cluster == _items(rows)["default"][0].item


def test_a_variant_of_another_format_leaves_choices_behind() -> None:
    made = _items(
        [{"q": "?", "c": ["x", "y"], "a": 1}], score="choice", variants={"say": {"format": "generate", "target": "y"}}
    )
    assert made["say"][0].choices is None
    assert made["say"][0].targets == ("y",)


def test_a_sample_is_seeded_sorted_nested_and_not_the_first() -> None:
    small, large = sample_positions(1000, 50, 0, "task"), sample_positions(1000, 200, 0, "task")
    assert small == sorted(small) == sample_positions(1000, 50, 0, "task")
    assert len(set(small)) == 50
    assert set(small) < set(large)
    assert small != list(range(50))
    assert small != sample_positions(1000, 50, 1, "task")
    assert small != sample_positions(1000, 50, 0, "other")
    assert sample_positions(10, 50, 0, "task") == list(range(10)) == sample_positions(10, None, 0, "task")


def test_every_position_is_equally_likely_to_be_drawn() -> None:
    counts = [sum(position in sample_positions(20, 5, seed, "task") for seed in range(500)) for position in range(20)]
    # 500 draws at 1/4: standard deviation 9.7; five of them on either side
    assert all(76 < count < 174 for count in counts)


def test_the_limit_asked_for_goes_before_the_battery(write: Write) -> None:
    battery = load_battery(write(("{num_fewshot: 0, seed: 0}", "{limit: 9}")))
    assert [len(task.items) for task in prepare_battery(battery)] == [9, 9]
    assert [len(task.items) for task in prepare_battery(battery, limit=4)] == [4, 4]
    assert [task.n_available for task in prepare_battery(battery, limit=4)] == [30, 20]


def test_training_items_come_from_the_training_part(write: Write) -> None:
    battery = load_battery(write())
    items = training_items(battery)
    assert len(items) == 20
    assert items[0].prompt == "Q: 100 + 1 =\nA:"
    assert items[0].rationale == "100 + 1 = so the answer is 101"
    assert training_items(battery, task="sums") == items
    with pytest.raises(BatteryError, match="task 'capitals' has no training part"):
        training_items(battery, task="capitals")
    with pytest.raises(BatteryError, match=r"no task 'sum'.*Did you mean 'sums'"):
        training_items(battery, task="sum")
