"""Cohorts of students with a known law: outcome tables and models tables."""

import json
from functools import cache

import numpy as np
import pandas as pd
from scipy.special import expit

from capgap import schema
from capgap.analysis import estimate_table
from tests.sharing import once_a_run

SIZES = (125, 250, 500, 1000, 2000, 4000)


def cohort(*, sizes=SIZES, seeds=3, adaptations=("full", "lora"), n_tasks=6, n_items=40, seed=0, depth=True):
    """Students of every size, adaptation and seed, their base and their teacher.

    On the logit scale knowledge rises by 0.5 a doubling and reasoning by 0.2; LoRA costs reasoning 0.6.
    """
    rng = np.random.default_rng(seed)
    students = [
        {"model": f"{a}-{n}-{s}", "adaptation": a, "n_examples": n, "seed": s}
        for a in adaptations
        for n in sizes
        for s in range(seeds)
    ]
    models = [
        {
            **student,
            "data_seed": student["seed"],
            "supervision": "traces",
            "base": "base",
            "n_examples_by_capability": json.dumps(
                {"knowledge": student["n_examples"] // 2, "reasoning": student["n_examples"] // 2}
            ),
        }
        for student in students
    ]
    parts = []
    for k in range(2 * n_tasks):
        capability = ("knowledge", "reasoning")[k % 2]
        item, task = rng.normal(0, 1.0, n_items), rng.normal(0, 0.3)
        steps = rng.integers(1, 4, n_items)

        def level(student, capability=capability):
            if student["model"] == "teacher":
                return 2.2
            if student["model"] == "base":
                return -1.5
            slope = {"knowledge": 0.5, "reasoning": 0.2}[capability]
            lora = -0.6 * (student["adaptation"] == "lora") * (capability == "reasoning")
            return -1.0 + slope * np.log2(student["n_examples"] / 125) + lora + rng.normal(0, 0.1)

        for student in [*students, {"model": "base"}, {"model": "teacher"}]:
            right = rng.random(n_items) < expit(level(student) + item + task)
            parts.append(
                pd.DataFrame(
                    {
                        "model": student["model"],
                        "battery": "world",
                        "task": f"{capability}{k}",
                        "capability": capability,
                        "format": "choose" if (k // 2) % 2 else "generate",
                        "item": [str(i) for i in range(n_items)],
                        "score": right.astype(float),
                        "chance": 0.0,
                    }
                    | ({"x_depth": steps} if depth else {})
                )
            )
    names = tuple(student["model"] for student in students)
    roles = schema.Roles(names, "teacher", dict.fromkeys(names, "base"))
    return pd.concat(parts, ignore_index=True), pd.DataFrame(models), roles


@cache
def analysed():
    """The default cohort's estimates, computed once: tests only read them."""

    def estimates():
        outcomes, models, roles = cohort()
        return estimate_table(outcomes, roles, models=models)

    return once_a_run("cohort", estimates)


def rows(quantity, estimates=None, **where):
    """Rows of a quantity, of the default cohort where no table is given; None stands for a value that is missing.

    Names that are no columns are keys of `factors`.
    """
    table = analysed() if estimates is None else estimates
    table = table[table["quantity"] == quantity]
    for name, value in where.items():
        column = table[name] if name in table.columns else factors(table).reindex(columns=[name])[name]
        table = table[column.isna() if value is None else column == value]
    return table


def factors(table):
    """The column `factors` of some rows as a frame, a column a name."""
    parsed = [json.loads(text) if isinstance(text, str) else {} for text in table["factors"]]
    return pd.DataFrame(parsed, index=table.index)
