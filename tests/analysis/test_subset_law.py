"""What is said of a student never depends on which other students are analysed with it."""

import itertools
from functools import cache

import numpy as np
import pandas as pd
import pytest

from capgap import schema
from capgap.analysis import estimate_table
from capgap.analysis.preparation import bin_covariates
from tests.analysis.worlds import outcomes

TEACHER, STUDENTS = "teacher", ("plain", "mute", "wide", "sparse")
NUMBERS = [
    *("estimate", "std_error", "df", "conf_low", "conf_high", "null_value", "p_value"),
    *("n_items", "n_clusters", "n_tasks"),
]
CODES = ["status", "reason", "method", "alternative", "scale", "factors"]
KEY = [
    *("quantity", "level", "group", "model", "contrast", "roles", "weighting", "estimator"),
    *("population_items", "population_tasks", "population_students"),
]


def _answers(rng, model, task, capability, items, share, **columns):
    n = len(items)
    score = (rng.random(n) < share).astype(float)
    return pd.DataFrame(
        {
            **{"model": model, "battery": "b", "task": task, "capability": capability, "item": items, "score": score},
            "format": "generate" if task.endswith("1") else "choose",
            "chance": 0.0 if task.endswith("1") else 0.25,
            "status": "scored",
            "stop_reason": "end",
            "prediction": np.where(score == 1, "gold", rng.choice(["a", "b", "c"], n)),
            "domain": task[-1],
            "x_length": [float(int(item) % 37) for item in items],
            "x_exposure": rng.integers(0, 30, n).astype(float),
            **columns,
        }
    )


def unlike_students():
    """Students that were asked unlike items, one of whom cannot be read; each brings what could leak to the others."""
    rng = np.random.default_rng(5)
    tasks = [(f"k{i}", "knowledge") for i in range(6)] + [(f"r{i}", "reasoning") for i in range(6)]
    items = [str(i) for i in range(12)]
    parts = []
    for model, share in {TEACHER: 0.85, "base": 0.3, "plain": 0.6, "mute": 0.55, "wide": 0.7, "sparse": 0.5}.items():
        for task, capability in tasks if model != "plain" else tasks[:-1]:
            asked = items[:10] if model == "sparse" else items
            parts.append(_answers(rng, model, task, capability, asked, share))
    # `wide` was asked more: items whose covariates would move bin edges, a task more, another capability's strays.
    parts.append(_answers(rng, "wide", "k0", "knowledge", [str(i) for i in range(100, 160)], 0.5))
    parts.append(_answers(rng, "wide", "extra", "reasoning", items, 0.5, domain="2", x_other=1.0))
    parts.append(_answers(rng, "wide", "k2", "reasoning", [str(i) for i in range(200, 203)], 0.5))
    world = pd.concat(parts, ignore_index=True)
    # Half of what `mute` wrote was cut off or could not be read, in half of the tasks.
    is_unread = (world["model"] == "mute") & world["task"].str[1].isin(list("135")) & (rng.random(len(world)) < 0.5)
    world.loc[is_unread, ["score", "stop_reason"]] = [0.0, "limit"]
    is_unparsed = is_unread & (rng.random(len(world)) < 0.5)
    world.loc[is_unparsed, "status"] = "unparsed"
    # `sparse` calls the facts of items otherwise, and has no texts of answers.
    is_sparse = world["model"] == "sparse"
    world.loc[is_sparse, "prediction"] = None
    world.loc[is_sparse & (world["task"] == "r5"), "domain"] = "elsewhere"
    world.loc[is_sparse & (world["task"] == "k5"), "capability"] = None
    return world


def roles_of(students):
    return schema.Roles(tuple(students), TEACHER, {name: "base" for name in students})


def said_of(estimates, student):
    """The rows about one student by key, without what is adjusted for all students asked."""
    rows = estimates[(estimates["model"] == student) & (estimates["subject"] == "model")].copy()
    assert not rows.duplicated(KEY).any()
    return rows.set_index(pd.MultiIndex.from_frame(rows[KEY].astype(object).fillna(""))).sort_index()


def assert_same(alone, together):
    assert list(alone.index) == list(together.index)
    for name in CODES:
        assert alone[name].fillna("").tolist() == together[name].fillna("").tolist(), name
    for name in NUMBERS:
        left, right = (rows[name].astype(float).to_numpy() for rows in (alone, together))
        np.testing.assert_allclose(left, right, rtol=0, atol=1e-12, equal_nan=True, err_msg=name)


def _labels(world):
    items = world[world["task"].isin(["k5", "r5"])].drop_duplicates(["task", "item"])
    return pd.DataFrame(
        {"task": items["task"], "item": items["item"], "capability": "knowledge", "p_reasoning": 0.3}
    ).reset_index(drop=True)


@cache
def together(labelled):
    world = unlike_students()
    return world, estimate_table(world, roles_of(STUDENTS), labels=_labels(world) if labelled else None)


def _check_subset(students, labelled, *, of_table):
    world, among_all = together(labelled)
    kept = world[world["model"].isin([TEACHER, "base", *students])] if of_table else world
    kept = kept.dropna(axis="columns", how="all")
    part = estimate_table(kept, roles_of(students), labels=_labels(world) if labelled else None)
    for name in (*students, TEACHER, "base"):
        assert_same(said_of(part, name), said_of(among_all, name))


@pytest.mark.parametrize("student", ["plain", "sparse"])
def test_a_student_alone_is_analysed_as_among_all(student):
    _check_subset((student,), True, of_table=True)


@pytest.mark.slow
@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("of_table", [False, True], ids=["subsets of roles", "subsets of the table"])
def test_what_is_said_of_a_student_is_the_same_in_every_subset_of_students(of_table, labelled):
    assert set(together(labelled)[1]["quantity"]) >= {"gap", "gap_closure", "fidelity", "lost", "failure_odds"}
    subsets = itertools.chain.from_iterable(itertools.combinations(STUDENTS, n) for n in (1, 2, 3))
    for students in [*subsets, STUDENTS[::-1]]:
        _check_subset(students, labelled, of_table=of_table)


@pytest.mark.slow
def test_a_student_of_a_large_cohort_is_analysed_as_alone():
    world = outcomes(seed=3, lengths=True)
    others = [
        world[world["model"] == "student"].assign(
            model=f"s{n}", score=lambda w: w["score"].sample(frac=1, random_state=1).to_numpy()
        )
        for n in range(15)
    ]
    students = ["student", *(f"s{n}" for n in range(15))]
    cohort = pd.concat([world, *(rows.sample(frac=0.8, random_state=n) for n, rows in enumerate(others))])
    among_all = estimate_table(cohort, roles_of(students))
    for student in students[:4]:
        assert_same(said_of(estimate_table(cohort, roles_of([student])), student), said_of(among_all, student))


@pytest.mark.parametrize("others", [[3.5, 4.5], ["none", "some"]])
def test_slices_of_booleans_are_words_whoever_else_has_numbers_there(others):
    flags = [True, False]
    table = pd.DataFrame({"model": ["a", "a", "b", "b"], "task": "t", "item": ["0", "1"] * 2, "x_flag": flags + others})
    assert bin_covariates(table)["x_flag"].tolist()[:2] == ["True", "False"]


def test_bins_are_those_of_a_models_own_items():
    items = [str(n) for n in range(40)]
    alone = pd.DataFrame({"model": "a", "task": "t", "item": items, "x_length": np.arange(40.0)})
    other = alone.assign(model="b", x_length=1000 - alone["x_length"])
    labels = bin_covariates(pd.concat([other, alone], ignore_index=True))["x_length"]
    assert labels[40:].tolist() == bin_covariates(alone)["x_length"].tolist()
    assert bin_covariates(alone)["x_length"].value_counts().tolist() == [10] * 4
