"""Small tables for the tests of the store."""

import pandas as pd

__all__ = ["item_rows", "outcome_rows"]


def outcome_rows(model: str, battery: str, n: int = 3, score: float = 1.0) -> pd.DataFrame:
    """Outcomes of one model on one task of a battery."""
    return pd.DataFrame(
        {"model": model, "battery": battery, "task": "t", "item": [str(i) for i in range(n)], "score": score}
    )


def item_rows(battery: str, n: int = 3) -> pd.DataFrame:
    """Items of one task of a battery."""
    return pd.DataFrame({"battery": battery, "task": "t", "item": [str(i) for i in range(n)], "prompt": "Q:"})
