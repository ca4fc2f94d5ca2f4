"""Outcomes with planted behaviour."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from capgap import schema


def outcomes(
    accuracy: Mapping[tuple[str, str], float],
    *,
    n: int = 200,
    task: str = "t",
    decided: Mapping[str, float] | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Answers of models to one task of four choices.

    Parameters
    ----------
    accuracy
        (model, variant) → share of right answers; the same luck in all variants of a model.
    n
        Items.
    task
        Its name.
    decided
        Variant → log-odds of the preferred choice against each other one.
    seed
        Of the luck.
    """
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    luck = {model: rng.random(n) for model in sorted({model for model, _ in accuracy})}
    gold = rng.integers(0, 4, size=n)
    for (model, variant), share in accuracy.items():
        for i in range(n):
            right = luck[model][i] < share
            logprobs = [0.0] * 4
            logprobs[gold[i] if right else (gold[i] + 1) % 4] = (decided or {}).get(variant, 3.0)
            rows.append(
                {
                    "model": model,
                    "task": task,
                    "item": f"i{i}",
                    "variant": variant,
                    "score": float(right),
                    "chance": 0.25,
                    "format": "choose",
                    "response": json.dumps(logprobs),
                }
            )
    return schema.df_from_rows(rows, schema.OUTCOMES)


def models(**sizes: int) -> pd.DataFrame:
    """A models table: name → parameters."""
    rows = [{"model": name, "n_params": n, "weights_hash": f"hash of {name}"} for name, n in sizes.items()]
    return schema.df_from_rows(rows, schema.MODELS)
