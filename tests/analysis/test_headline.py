import numpy as np
import pytest

from capgap import schema
from capgap.analysis import estimate_table, next_step, sentence
from tests.analysis.worlds import one, outcomes

BASE = {"student": "base", "other": "base"}
ROLES = schema.Roles(("student",), "teacher", {"student": "base"})


@pytest.fixture(scope="module")
def world():
    return outcomes(n_items=150)


def test_the_sentence_says_the_numbers_of_the_table(world):
    found = estimate_table(world, ROLES)
    said = sentence(found, ROLES)
    parts = []
    for capability in ("knowledge", "reasoning"):
        row = one(found, quantity="gap_closure", level="capability", group=capability)
        value, low, high = (round(100 * row[name]) for name in ("estimate", "conf_low", "conf_high"))
        parts.append(f"{value} % [{low}, {high}] of the {capability} gap")
    assert said == f"Closed {parts[0]} and {parts[1]} (6 tasks, 942 items, these checkpoints)."


def test_several_students_have_a_line_each_with_their_names(world):
    roles = schema.Roles(("student", "other"), "teacher", BASE)
    lines = sentence(estimate_table(world, roles), roles).splitlines()
    assert [line.split()[0] for line in lines] == ["student", "other"]
    assert all(" closed " in line for line in lines)


def test_without_a_base_it_speaks_of_retention_and_asks_for_the_base(world):
    roles = schema.Roles(("student",), "teacher")
    found = estimate_table(world, roles)
    assert sentence(found, roles).startswith("Kept ")
    assert "--base" in next_step(found, roles)


def test_without_base_and_chance_it_speaks_of_points(world):
    roles = schema.Roles(("student",), "teacher")
    said = sentence(estimate_table(world.drop(columns="chance"), roles), roles)
    assert "points [" in said
    assert "in reasoning" in said


def test_a_lone_student_gets_its_profile_and_what_a_teacher_would_add(world):
    roles = schema.Roles(("student",))
    found = estimate_table(world, roles)
    assert "of the knowledge items and" in sentence(found, roles)
    assert "With a teacher" in sentence(found, roles)
    assert "--teacher" in next_step(found, roles)


def test_a_refused_side_keeps_the_other(world):
    flat = world.copy()
    rows = (flat["model"] == "teacher") & (flat["capability"] == "knowledge")
    flat.loc[rows, "score"] = flat.loc[(flat["model"] == "base") & (flat["capability"] == "knowledge"), "score"].values
    said = sentence(estimate_table(flat, ROLES), ROLES)
    assert "of the reasoning gap (3 tasks" in said
    assert "no share of the knowledge gap (teacher − base is" in said
    assert "ahead of the teacher" in said


def test_one_capability_or_none_is_said_alone(world):
    said = sentence(estimate_table(world[world["capability"] == "reasoning"], ROLES), ROLES)
    assert "knowledge" not in said
    bare = sentence(estimate_table(world.drop(columns="capability"), ROLES), ROLES)
    assert "of the gap (6 tasks" in bare


def test_an_open_interval_is_called_open():
    world = outcomes()
    roles = schema.Roles(("student",))
    said = sentence(estimate_table(world.assign(cluster="c" + world["task"]), roles), roles)
    assert "[open, open]" in said


def test_the_next_step_halves_the_widest_interval(world):
    found = estimate_table(world, ROLES)
    rows = [one(found, quantity="gap_closure", level="capability", group=g) for g in ("knowledge", "reasoning")]
    half = max((row["conf_high"] - row["conf_low"]) / 2 for row in rows)
    run = {"limit": 150, "batteries": {"world": {"tasks": {"knowledge0": {"n_items": 150}}}}}
    said = next_step(found, ROLES, run)
    assert said.startswith("Next: capgap evaluate … --battery world --limit 600     (narrows ")
    assert float(said.split("to about ± ")[1].split(",")[0]) == pytest.approx(50 * half, abs=0.5)


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
def test_where_the_limit_does_not_bind_it_asks_for_more_items(world, run):
    assert "--limit" not in next_step(estimate_table(world, ROLES), ROLES, run)


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
    found = estimate_table(renamed, roles)
    said = sentence(found, roles).splitlines()
    assert len(said) == 2
    assert said[0].startswith("a b\ufffd[31m\ufffd closed ")
    assert next_step(found, roles).isprintable()


def test_the_next_step_follows_from_what_is_missing(world):
    number = world["item"].astype(str).str.extract(r"(\d+)$")[0].astype(int)
    few = world[(world["model"] != "student") | (number % 2 == 0)]
    assert "answer the same items" in next_step(estimate_table(few, ROLES), ROLES)
    assert "more clusters" in next_step(estimate_table(world.assign(cluster="c"), ROLES), ROLES)


def test_a_refused_number_has_no_count_of_clusters(world):
    found = estimate_table(world.drop(columns="chance"), ROLES)
    refused = found[(found["quantity"] == "retention") & (found["status"] == "refused")]
    assert len(refused)
    assert refused["n_clusters"].isna().all()
