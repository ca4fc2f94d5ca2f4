import json
from collections import Counter
from pathlib import Path

import pytest
import yaml

from capgap.microworld import Q_FAMILIES, World, WorldQuestion, evaluation, make_world, training, write_data
from tests.microworld.interpreter import answer, memory

BATTERY = Path(__file__).parents[2] / "batteries" / "microworld.yaml"


@pytest.fixture(scope="module")
def world() -> World:
    return make_world()


@pytest.fixture(scope="module")
def asked(world: World) -> dict[str, tuple[WorldQuestion, ...]]:
    return evaluation(world)


@pytest.fixture(scope="module")
def pool(world: World) -> dict[str, tuple[WorldQuestion, ...]]:
    return training(world)


@pytest.fixture(scope="module")
def shipped() -> dict[str, list[dict[str, object]]]:
    files = sorted((BATTERY.parent / "microworld").glob("*.jsonl"))
    return {file.stem: [json.loads(line) for line in file.read_text().splitlines()] for file in files}


def test_no_evaluation_prompt_is_in_the_training_data(shipped: dict[str, list[dict[str, object]]]) -> None:
    trained = {row["question"] for name, rows in shipped.items() if name.endswith("-train") for row in rows}
    evaluated = {row["question"] for name, rows in shipped.items() if not name.endswith("-train") for row in rows}
    assert len(trained) > 5000
    assert len(evaluated) == 96 * len(Q_FAMILIES)
    assert not trained & evaluated


def test_all_questions_of_a_set_differ(shipped: dict[str, list[dict[str, object]]]) -> None:
    for name, rows in shipped.items():
        assert len({row["question"] for row in rows}) == len({row["id"] for row in rows}) == len(rows), name


def test_training_asks_no_fact_that_is_held_out(
    asked: dict[str, tuple[WorldQuestion, ...]], pool: dict[str, tuple[WorldQuestion, ...]]
) -> None:
    for family in ("facts", "two_hops"):
        assert {question.fact.stratum for question in pool[family] if question.fact} == {"training"}
        strata = Counter(question.fact.stratum for question in asked[family] if question.fact)
        assert strata == {"training": 40, "held_known": 40, "held_unknown": 16}
    trained = {question.fact for question in pool["facts"]}
    for question in asked["facts"]:
        assert question.fact is not None
        assert (question.fact in trained) == (question.fact.stratum == "training")


def test_no_person_is_asked_about_twice_in_one_task(asked: dict[str, tuple[WorldQuestion, ...]]) -> None:
    for family in ("facts", "two_hops"):
        assert len({question.fact.entity for question in asked[family] if question.fact}) == 96


def test_depths_five_and_six_are_never_trained(pool: dict[str, tuple[WorldQuestion, ...]]) -> None:
    assert max(question.depth for questions in pool.values() for question in questions) == 4
    assert max(question.depth for question in pool["cups"]) < max(Q_FAMILIES["cups"].depths)


def test_answers_are_balanced_where_a_family_has_a_fixed_set(asked: dict[str, tuple[WorldQuestion, ...]]) -> None:
    assert Counter(question.answer for question in asked["booleans"]) == {"true": 48, "false": 48}
    assert max(Counter(question.answer for question in asked["chains"]).values()) <= 12
    assert max(Counter(question.answer for question in asked["cups"]).values()) <= 20


def test_the_shipped_files_are_what_the_seed_gives(world: World, tmp_path: Path) -> None:
    write_data(world, tmp_path)
    for file in tmp_path.iterdir():
        assert file.read_bytes() == (BATTERY.parent / "microworld" / file.name).read_bytes(), file.name


def test_shipped_answers_survive_a_second_reading(world: World, shipped: dict[str, list[dict[str, object]]]) -> None:
    told = memory([s for fact in world.facts for s in (fact.statement, world.link_statement(fact))])
    for rows in shipped.values():
        for row in rows:
            assert answer(str(row["question"]), told) == row["answer"]


def test_the_battery_asks_every_family_in_both_formats_and_a_written_answer_is_not_guessed() -> None:
    tasks = {task["name"]: task for task in yaml.safe_load(BATTERY.read_text())["tasks"]}
    assert set(tasks) == {f"{family}_{form}" for family in Q_FAMILIES for form in ("choose", "generate")}
    for family, facts in Q_FAMILIES.items():
        assert not {"chance", "guess"} & tasks[f"{family}_generate"].keys()
        for form in ("choose", "generate"):
            task = tasks[f"{family}_{form}"]
            assert (task["format"], task["capability"], task["domain"]) == (form, facts.capability, facts.domain)
            assert task["data"] == {"file": f"microworld/{family}.jsonl", "train": f"microworld/{family}-train.jsonl"}
    assert tasks["facts_choose"]["cluster"] == tasks["facts_generate"]["cluster"]


def test_the_data_stay_small() -> None:
    assert sum(file.stat().st_size for file in (BATTERY.parent / "microworld").iterdir()) < 3_000_000
