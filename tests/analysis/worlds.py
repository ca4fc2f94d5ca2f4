"""Outcome tables with a known truth."""

from functools import cache

import numpy as np
import pandas as pd

from capgap import schema
from capgap.analysis import estimate_table

ACCURACY = {  # model → capability → probability of a right answer
    "teacher": {"knowledge": 0.9, "reasoning": 0.85},
    "base": {"knowledge": 0.4, "reasoning": 0.3},
    "student": {"knowledge": 0.85, "reasoning": 0.5},
    "other": {"knowledge": 0.7, "reasoning": 0.6},
    "control": {"knowledge": 0.8, "reasoning": 0.4},
}
ROLES = schema.Roles(("student",), "teacher", {"student": "base"}, {"student": "control"})
TWO_STUDENTS = schema.Roles(("student", "other"), "teacher", {"student": "base", "other": "base"})


def outcomes(n_tasks=3, n_items=40, models=tuple(ACCURACY), seed=0, lengths=False, **columns):
    """`n_tasks` tasks a capability, the sizes unequal; wrong answers are one of three wrong choices."""
    rng = np.random.default_rng(seed)
    parts = []
    for capability in ("knowledge", "reasoning"):
        for k in range(n_tasks):
            n = n_items + 7 * k
            luck = rng.random(n)
            depth, length = rng.integers(1, 4, n), np.round(rng.normal(60, 15, n), 1)
            for model in models:
                # Half of an item's luck is shared by all models: answers to one item are correlated.
                mine = np.where(rng.random(n) < 0.5, luck, rng.random(n))
                right = mine < ACCURACY[model][capability]
                parts.append(
                    pd.DataFrame(
                        {
                            "model": model,
                            "battery": "world",
                            "task": f"{capability}{k}",
                            "capability": capability,
                            "domain": f"domain{k % 2}",
                            "item": [str(i) for i in range(n)],
                            "format": "choose" if k % 2 == 0 else "generate",
                            "score": right.astype(float),
                            "chance": 0.25,
                            "prediction": np.where(right, 0, rng.integers(1, 4, n)).astype(str),
                            "x_depth": depth,
                        }
                        | ({"x_length": length} if lengths else {})
                        | columns
                    )
                )
    return pd.concat(parts, ignore_index=True)


def one(estimates, **where):
    """The single row that these columns pick, by default the task-weighted one of these tasks where there is one."""
    for name, value in where.items():
        estimates = estimates[estimates[name] == value]
    for name, value in {"estimator": "paired", "population_tasks": "these_tasks", "weighting": "tasks"}.items():
        if len(estimates) > 1 and name not in where:
            estimates = estimates[estimates[name] == value]
    assert len(estimates) == 1, estimates[["quantity", "level", "group", "model", "contrast", "weighting"]]
    return estimates.iloc[0]


@cache
def plain():
    """Estimates of the default world, computed once: tests only read them."""
    return estimate_table(outcomes(), ROLES)


@cache
def of_two_students():
    """Likewise with two students of one base."""
    return estimate_table(outcomes(), TWO_STUDENTS)
