"""The headline sentence and the next step."""

import json
import random

import numpy as np
import pytest

from capgap import schema
from capgap.analysis import estimate_table, next_step, sentence
from capgap.schema.quantities import QUANTITIES
from tests.analysis.cohorts import analysed, cohort
from tests.analysis.worlds import TWO_STUDENTS, of_two_students, one, outcomes, plain

ROLES = schema.Roles(("student",), "teacher", {"student": "base"})
BEHIND = schema.Roles(("student",), "teacher")
LONE = schema.Roles(("student",))


@pytest.fixture(scope="module")
def world():
    return outcomes(n_items=150)


@pytest.fixture(scope="module")
def estimates(world):
    return estimate_table(world, ROLES)


@pytest.fixture(scope="module")
def without_base(world):
    return estimate_table(world, BEHIND)


@pytest.fixture(scope="module")
def lone(world):
    return estimate_table(world, LONE)


def test_the_sentence_says_the_numbers_of_the_table(estimates):
    parts = []
    for capability in ("knowledge", "reasoning"):
        row = one(estimates, quantity="gap_closure", level="capability", group=capability)
        value, low, high = (round(100 * row[name]) for name in ("estimate", "conf_low", "conf_high"))
        parts.append(f"{value} % [{low}, {high}] of the {capability} gap")
    expected = f"Closed {parts[0]} and {parts[1]} (6 tasks, 942 items, these checkpoints)."
    assert sentence(estimates, ROLES) == expected


def test_several_students_have_a_line_each_with_their_names():
    lines = sentence(of_two_students(), TWO_STUDENTS).splitlines()
    assert [line.split()[0] for line in lines] == ["student", "other"]
    assert all(" closed " in line for line in lines)


def test_without_a_base_it_speaks_of_retention_and_asks_for_the_base(without_base):
    assert sentence(without_base, BEHIND).startswith("Kept ")
    assert "--base" in next_step(without_base, BEHIND)


def test_without_base_and_chance_it_speaks_of_points(world):
    text = sentence(estimate_table(world.drop(columns="chance"), BEHIND), BEHIND)
    assert "points [" in text
    assert "in reasoning" in text


def test_a_lone_student_gets_its_profile_and_what_a_teacher_would_add(lone):
    assert "of the knowledge items and" in sentence(lone, LONE)
    assert "With a teacher" in sentence(lone, LONE)
    assert "--teacher" in next_step(lone, LONE)


def test_a_refused_side_keeps_the_other(world):
    flat = world.copy()
    rows = (flat["model"] == "teacher") & (flat["capability"] == "knowledge")
    flat.loc[rows, "score"] = flat.loc[(flat["model"] == "base") & (flat["capability"] == "knowledge"), "score"].values
    text = sentence(estimate_table(flat, ROLES), ROLES)
    assert "of the reasoning gap (3 tasks" in text
    assert "no share of the knowledge gap (teacher − base is" in text
    assert "ahead of the teacher" in text


def test_one_capability_or_none_is_said_alone(world):
    of_reasoning = estimate_table(world[world["capability"] == "reasoning"], ROLES)
    assert "knowledge" not in sentence(of_reasoning, ROLES)
    bare = sentence(estimate_table(world.drop(columns="capability"), ROLES), ROLES)
    assert "of the gap (6 tasks" in bare


def test_an_open_interval_is_called_open():
    world = outcomes()
    clustered = estimate_table(world.assign(cluster="c" + world["task"]), LONE)
    assert "[open, open]" in sentence(clustered, LONE)


def test_the_next_step_halves_the_widest_interval(estimates):
    rows = [one(estimates, quantity="gap_closure", level="capability", group=g) for g in ("knowledge", "reasoning")]
    half = max((row["conf_high"] - row["conf_low"]) / 2 for row in rows)
    run = {"limit": 150, "batteries": {"world": {"tasks": {"knowledge0": {"n_items": 150}}}}}
    text = next_step(estimates, ROLES, run)
    assert text.startswith("Next: capgap evaluate … --battery world --limit 600     (narrows ")
    assert float(text.split("to about ± ")[1].split(",")[0]) == pytest.approx(50 * half, abs=0.5)


@pytest.mark.parametrize(
    "run",
    [
        None,
        {},
        {"limit": None},
        {"limit": 500, "batteries": {"world": {"tasks": {"knowledge0": {"n_items": 150}}}}},
        {"batteries": None, "limit": "many"},
        {"batteries": {"world": "?"}},
    ],
)
def test_where_the_limit_does_not_bind_it_asks_for_more_items(estimates, run):
    assert "--limit" not in next_step(estimates, ROLES, run)


def test_more_items_do_narrow_as_promised():
    few, many = (estimate_table(outcomes(n_items=n, seed=9), ROLES) for n in (200, 800))
    widths = [
        np.ptp(one(e, quantity="gap_closure", level="capability", group="reasoning")[["conf_low", "conf_high"]])
        for e in (few, many)
    ]
    assert widths[0] / widths[1] == pytest.approx(2, rel=0.25)


def test_a_gap_in_points_says_who_is_ahead(world):
    roles = schema.Roles(("student", "other"), "teacher")
    bare = world.drop(columns="chance")
    behind = sentence(estimate_table(bare, roles), roles)
    assert "points [" in behind
    assert "behind the teacher in knowledge and" in behind
    swapped = schema.Roles(("teacher",), "student")
    ahead = sentence(estimate_table(bare, swapped), swapped)
    assert ahead.startswith("The student is ")
    assert "ahead of the teacher in reasoning" in ahead
    assert "differs" not in behind + ahead


def test_a_task_of_two_capabilities_is_one_task(world):
    whole = world.assign(item=world["task"] + world["item"].astype(str), task="all", cluster=None)
    assert "(1 task, 942 items" in sentence(estimate_table(whole, ROLES), ROLES)


def test_a_hostile_name_stays_on_its_line(world):
    roles = schema.Roles(("a\nb\x1b[31m\u202e", "other"), "teacher", {"a\nb\x1b[31m\u202e": "base", "other": "base"})
    renamed = world.assign(model=world["model"].replace({"student": roles.students[0]}))
    table = estimate_table(renamed, roles)
    lines = sentence(table, roles).splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("a b\ufffd[31m\ufffd closed ")
    assert next_step(table, roles).isprintable()


def test_the_next_step_follows_from_what_is_missing(world):
    number = world["item"].astype(str).str.extract(r"(\d+)$")[0].astype(int)
    few = world[(world["model"] != "teacher") | (number % 2 == 0)]
    assert "answer the same items" in next_step(estimate_table(few, ROLES), ROLES)
    assert "more clusters" in next_step(estimate_table(world.assign(cluster="c"), ROLES), ROLES)


def test_a_refused_number_has_no_count_of_clusters(world):
    table = estimate_table(world.drop(columns="chance"), ROLES)
    refused = table[(table["quantity"] == "retention") & (table["status"] == "refused")]
    assert len(refused)
    assert refused["n_clusters"].isna().all()


def _with_random_prose(table):
    """The table with random words for everything that people read and programs must not."""
    rng = random.Random(0)
    words = ["agree", "all of", "one cluster", "task left out", "road", "recipe", "these tasks", "-", "%", "drawn"]

    def prose():
        return " ".join(rng.choices(words, k=3)) + f" {rng.random():.6f}"

    table = table.copy()
    free = table["quantity"].map({name: not quantity.contrasts for name, quantity in QUANTITIES.items()}).astype(bool)
    for column in ("note", "method", "alternative", "contrast"):
        rewritten = table[column].notna() & (free | (column != "contrast"))
        table.loc[rewritten, column] = [prose() for _ in range(int(rewritten.sum()))]
    return table


def _without_quotes(lines, table):
    """The lines without the notes that they quote as reasons."""
    for note in sorted(set(table["note"].dropna()), key=len, reverse=True):
        if note in lines:
            lines = lines.replace(f"({note})", "()").replace(f": {note}", ":")
    return lines


def _unreadable():
    world = outcomes(status="scored")
    world.loc[world["model"] == "student", "status"] = "unparsed"
    return world


def _half_answered():
    world = outcomes()
    return world[(world["model"] != "student") | (world["item"].astype(int) % 2 == 0)]


PROSE = {
    "cohort": lambda: (analysed(), cohort()[2]),
    "plain": lambda: (plain(), ROLES),
    "two students": lambda: (of_two_students(), TWO_STUDENTS),
    "unreadable": lambda: (estimate_table(_unreadable(), ROLES), ROLES),
    "half answered": lambda: (estimate_table(_half_answered(), ROLES), ROLES),
    "one cluster": lambda: (estimate_table(outcomes(cluster="c"), ROLES), ROLES),
    "teacher as base": lambda: (plain(), schema.Roles(("student",), "teacher", {"student": "teacher"})),
}


@pytest.mark.parametrize("case", PROSE)
def test_no_sentence_reads_prose(case):
    table, roles = PROSE[case]()
    rewritten = _with_random_prose(table)
    before, after = (_without_quotes(sentence(some, roles), some) for some in (table, rewritten))
    assert before == after
    for run in ({}, {"limit": 30}):
        assert next_step(table, roles, run) == next_step(rewritten, roles, run)


def test_the_factors_that_a_sentence_needs_are_codes():
    effects = analysed()[analysed()["quantity"] == "effect"]
    assert all({"factor"} <= set(json.loads(text)) for text in effects["factors"])
