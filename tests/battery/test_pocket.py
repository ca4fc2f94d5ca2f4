"""Laws of the pocket battery; every answer is worked out again here, from the text of the question alone."""

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from capgap.battery import load_battery, prepare_battery, score_generation, training_items
from tests.battery.pocket_answers import KNOWLEDGE, PERIODIC, POCKET, Row, facts, listed, numbers, worked_out

ROOT = Path(__file__).parents[2] / "batteries"
PARTS = ("eval", "dev", "train")
REASONING = ("arithmetic", "swaps", "booleans", "word_problems", "ordering", "hops")
MIXED = ("two_hops", "fact_sums")
TASKS = [f"{family}_{form}" for family in (*KNOWLEDGE, *REASONING, *MIXED) for form in ("choose", "generate")]


@cache
def rows(part: str, task: str) -> list[Row]:
    text = (POCKET / part / f"{task}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def every(part: str, *families: str) -> Iterator[tuple[str, Row]]:
    for task in TASKS:
        if not families or task.rsplit("_", 1)[0] in families:
            for row in rows(part, task):
                yield task, row


@pytest.mark.parametrize("task", TASKS)
def test_every_answer_follows_from_its_question(task: str) -> None:
    for part in PARTS:
        for row in rows(part, task):
            assert worked_out(task, row) == row["answer"], row


def chosen(part: str) -> Iterator[tuple[str, Row]]:
    return ((task, row) for task, row in every(part) if task.endswith("_choose"))


@pytest.mark.parametrize("part", PARTS)
def test_exactly_one_choice_is_right(part: str) -> None:
    for task, row in chosen(part):
        choices = row["choices"]
        assert len(choices) == (2 if task.startswith("booleans") else 4)
        assert len({choice.casefold() for choice in choices}) == len(choices), row
        assert choices.count(row["answer"]) == 1, row
        assert all(choice == choice.strip() and choice for choice in choices)


def test_no_wrong_choice_is_arguable() -> None:
    never = {f"{f['relation']}: {f['subject']}": {*listed(f["never"]), *listed(f["aliases"])} for f in facts("science")}
    for part in PARTS:
        for task, row in chosen(part):
            if task.startswith("science"):
                assert not never[row["cluster"]] & set(row["choices"]), row
            if task.startswith("swaps"):
                assert all(choice in row["question"] for choice in row["choices"])


@pytest.mark.parametrize("part", ["eval", "train"])
def test_right_answers_stand_in_every_place_alike(part: str) -> None:
    places: Counter[int] = Counter()
    for task in TASKS:
        if task.endswith("_choose"):
            seen = [row["choices"].index(row["answer"]) for row in rows(part, task)]
            counts = np.bincount(seen, minlength=2 if task.startswith("booleans") else 4)
            # Booleans keep the order True, False: there the answers are balanced instead.
            assert np.ptp(counts) <= 1, (task, counts)
            if not task.startswith("booleans"):
                places.update(seen)
    assert stats.chisquare(list(places.values())).pvalue > 0.5


@pytest.mark.parametrize("pick", [max, min], ids=["longest", "shortest"])
def test_length_of_the_choices_gives_no_answer_away(pick: Callable[..., int]) -> None:
    hits: list[float] = []
    for task, row in chosen("eval"):
        if task.startswith("booleans"):
            continue
        lengths = [len(choice) for choice in row["choices"]]
        best = [c for c in row["choices"] if len(c) == pick(lengths)]
        hits.append((row["answer"] in best) / len(best))
    assert abs(np.mean(hits) - 0.25) < 3 * np.std(hits) / len(hits) ** 0.5


def test_rank_among_numbers_gives_no_answer_away() -> None:
    ranks: Counter[int] = Counter()
    for _, row in chosen("eval"):
        if all(choice.isdigit() for choice in row["choices"]):
            ranks[sorted(map(int, row["choices"])).index(int(row["answer"]))] += 1
    assert sum(ranks.values()) == 96
    assert stats.chisquare([ranks[n] for n in range(4)]).pvalue > 0.5


@pytest.mark.parametrize("family", ["capitals", "elements", "authors"])
def test_answers_are_lent_as_wrong_ones_too(family: str) -> None:
    lent = Counter(c for row in rows("eval", f"{family}_choose") for c in row["choices"] if c != row["answer"])
    right = {row["answer"] for row in rows("eval", f"{family}_choose")}
    assert max(lent.values()) <= 3
    assert sum(word in lent for word in right) >= len(right) * 0.8


@pytest.mark.parametrize(
    ("name", "question", "answer"),
    [
        ("capitals", ("country",), "capital"),
        ("elements", ("element",), "symbol"),
        ("elements", ("number",), "element"),
        ("works", ("title",), "author"),
        ("dates", ("event",), "year"),
        ("science", ("relation", "subject"), "answer"),
        ("places", ("place",), "country"),
        ("stories", ("name",), "text"),
    ],
)
def test_no_question_has_two_answers(name: str, question: tuple[str, ...], answer: str) -> None:
    asked = Counter(tuple(fact[key] for key in question) for fact in facts(name))
    assert max(asked.values()) == 1, asked.most_common(1)
    assert all(fact[answer].strip() for fact in facts(name))


def test_no_capital_belongs_to_two_countries_or_is_given_away_by_its_name() -> None:
    words = Counter(name for f in facts("capitals") for name in (f["capital"], *listed(f["aliases"])))
    assert max(words.values()) == 1
    for fact in facts("capitals"):
        assert fact["capital"][:5].lower() not in fact["country"].lower()


def test_atomic_numbers_and_symbols_agree_with_the_periodic_table() -> None:
    for fact in facts("elements"):
        assert PERIODIC[int(fact["number"]) - 1] == fact["symbol"]
    latin = {"Na", "K", "Fe", "Ag", "Sn", "Sb", "W", "Au", "Hg", "Pb"}
    for fact in facts("elements"):
        assert (fact["symbol"][0] == fact["element"][0]) == (fact["symbol"] not in latin), fact


def test_time_zones_named_after_capitals_lie_in_their_countries() -> None:
    pytz = pytest.importorskip("pytz")
    other = {
        "the United Kingdom": "GB", "the Czech Republic": "CZ", "North Korea": "KP", "Bosnia and Herzegovina": "BA",
        "the Democratic Republic of the Congo": "CD", "the Republic of the Congo": "CG", "Cape Verde": "CV",
    }  # fmt: skip
    codes = {name: code for code, name in pytz.country_names.items()}
    zones: dict[str, set[str]] = {}
    for code, names in pytz.country_timezones.items():
        for zone in names:
            zones.setdefault(zone.rsplit("/", 1)[1].replace("_", " "), set()).add(code)
    seen = 0
    for fact in facts("capitals"):
        country = fact["country"]
        code = other.get(country) or codes.get(country.removeprefix("the "))
        found = set().union(*(zones.get(name, set()) for name in (fact["capital"], *listed(fact["aliases"]))))
        if code and found:
            seen += 1
            assert code in found, fact
    assert seen >= 80


def test_bands_run_from_common_to_rare() -> None:
    for name in ("capitals", "elements", "works", "dates", "science"):
        assert {fact["band"] for fact in facts(name)} == {"1", "2", "3"}


def test_sizes() -> None:
    sizes = {family: sum(1 for _ in every("eval", *family)) for family in (KNOWLEDGE, REASONING, MIXED)}
    assert list(sizes.values()) == [240, 288, 96]
    assert {len(rows("dev", task)) for task in TASKS} == {5}
    assert all(len(rows("train", task)) >= (144 if task.startswith(REASONING) else 30) for task in TASKS)
    assert sorted(p.stem for part in PARTS for p in (POCKET / part).iterdir()) == sorted(TASKS * 3)


def test_no_question_is_asked_twice() -> None:
    asked = Counter(row["question"] for part in PARTS for _, row in every(part))
    assert max(asked.values()) == 1, asked.most_common(2)
    ids = Counter(row["id"] for part in PARTS for _, row in every(part))
    assert max(ids.values()) == 1


def test_no_evaluated_fact_is_needed_in_training_or_in_a_solved_example() -> None:
    needed = {part: {fact for _, row in every(part) for fact in row.get("facts", ())} for part in PARTS}
    assert len(needed["eval"]) > 300
    assert not needed["eval"] & (needed["dev"] | needed["train"])
    for family in KNOWLEDGE:
        here = {part: {fact for _, row in every(part, family) for fact in row["facts"]} for part in PARTS}
        assert not here["dev"] & here["train"]


def test_no_fact_is_evaluated_in_both_formats_of_a_task() -> None:
    for family in KNOWLEDGE:
        both = [
            {f for row in rows("eval", f"{family}_{form}") for f in row["facts"]} for form in ("choose", "generate")
        ]
        assert not both[0] & both[1]


def test_reasoning_in_training_is_not_the_evaluated_one_with_other_names() -> None:
    """Arithmetic, logic and word problems: the numbers alone tell two questions apart."""

    def key(row: Row) -> str:
        words = row["cluster"] if row["cluster"].startswith("story") else ""
        operators = re.sub(r"(?i)start with|then|what number.*|[^\w<>+*-]|[A-Z]\w+", " ", row["question"])
        for word, sign in (("add", "+"), ("subtract", "-"), ("multiply by", "*")):
            operators = operators.replace(word, sign)
        return f"{words} {numbers(row['question']) if words else operators.split()}"

    for family in ("arithmetic", "word_problems"):
        parts = [{key(row) for _, row in every(part, family)} for part in PARTS]
        assert len(parts[0]) == 48
        assert not parts[0] & (parts[1] | parts[2])


def test_difficulty_is_balanced() -> None:
    for task in TASKS:
        if task.startswith(REASONING):
            steps = Counter(row["steps"] for row in rows("eval", task))
            assert sorted(steps.values()) == [6, 6, 6, 6], task
            end = "The answer is" if task.endswith("_choose") else "The answer is {answer}."
            assert all(row["rationale"].endswith(end.format(**row)) for row in rows("train", task))
        elif not task.startswith(MIXED):
            bands = Counter(row["familiarity"] for row in rows("eval", task))
            assert min(bands.values()) >= 6, task


@pytest.mark.parametrize("task", ["booleans_choose", "booleans_generate"])
def test_true_and_false_are_as_frequent_at_every_depth(task: str) -> None:
    seen = Counter((row["steps"], row["answer"]) for row in rows("eval", task))
    assert set(seen.values()) == {3}


def test_items_are_short_clean_text() -> None:
    for part in PARTS:
        for _, row in every(part):
            text = json.dumps(row, ensure_ascii=False)
            assert len(row["question"]) <= 500
            assert len(row["question"]) + sum(map(len, row.get("choices", ()))) <= 800
            assert not re.search(r"[\x00-\x1f\ufffd\u200b]|  |\{|\}| [?.,]", row["question"]), text
            assert row["question"][-1] in "?."
            assert all(ord(c) < 0x250 for c in text)


def test_the_generator_writes_these_very_files(tmp_path: Path) -> None:
    command = [sys.executable, "-B", str(POCKET / "make_pocket.py"), "--out", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    made = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.jsonl"))
    assert len(made) == 3 * len(TASKS)
    for path in made:
        assert (tmp_path / path).read_bytes() == (POCKET / path).read_bytes(), path


@pytest.fixture(scope="module")
def prepared() -> list[Any]:
    return prepare_battery(load_battery(str(ROOT / "pocket.yaml")))


def test_every_capability_comes_in_both_formats(prepared: list[Any]) -> None:
    counts = Counter((task.capability, task.format) for task in prepared)
    assert counts == {
        (c, f): n for c, n in (("knowledge", 5), ("reasoning", 6), ("mixed", 2)) for f in ("choose", "generate")
    }
    assert sum(len(task.items) for task in prepared) == 624


def test_chance_is_what_a_guess_among_choices_scores(prepared: list[Any]) -> None:
    for task in prepared:
        for item in task.items:
            if item.choices is not None:
                assert item.chance == pytest.approx(1 / len(item.choices))
                assert [item.choices[i] for i in item.gold] == list(item.targets)
            else:
                assert item.chance == 0


def test_prompts_end_where_a_base_model_goes_on(prepared: list[Any]) -> None:
    for task in prepared:
        for item in task.items:
            assert re.fullmatch(r"Question: [^\n]+\nAnswer:", item.prompt)


def test_scorers_read_answers_alone_in_a_sentence_and_behind_steps() -> None:
    specification = {task.name: task for task in load_battery(str(ROOT / "pocket.yaml")).tasks}
    for name, row in every("eval"):
        task = specification[name]
        if task.format == "choose":
            continue
        texts = [f" {row['answer']}", f" {row['answer']}.", f"The answer is {row['answer']}.", row.get("rationale")]
        for text in filter(None, texts):
            assert score_generation(task.score_name, text, row["targets"], task.extract)[0] == 1.0, (name, text)
        assert score_generation(task.score_name, "I do not know.", row["targets"], task.extract)[0] == 0.0
        if task.score_name == "contains":
            assert score_generation("contains", row["question"], row["targets"], task.extract)[0] == 0.0, row


def test_distillation_may_ask_the_training_part() -> None:
    items = training_items(load_battery(str(ROOT / "pocket.yaml")))
    assert len(items) == sum(1 for _ in every("train"))
    assert all(item.rationale for item in items if item.capability != "knowledge")
