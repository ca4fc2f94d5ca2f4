"""What adding the first and the fortieth model to a run directory costs: ``python -m tests.benchmarks.store``.

Each model has 1,000 outcomes on one battery. Adding it means what `capgap evaluate` does beside asking: the battery,
the items, the model and its times go into the directory, then its outcomes and its row of the models table.
"""

import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from capgap import schema
from capgap.store import RunDirectory

N_MODELS, N_ROWS, ROUNDS = 40, 1_000, 7


def begun_run(folder: Path, n_rows: int) -> tuple[RunDirectory, pd.DataFrame, pd.DataFrame]:
    """A new run directory, and the outcomes and items of one model on its battery, without the model's name."""
    rng = np.random.default_rng(0)
    items = pd.DataFrame(
        {
            "battery": "core",
            "task": [f"task-{n % 10}" for n in range(n_rows)],
            "item": [f"{n:016x}" for n in range(n_rows)],
            "prompt": [f"Q: what is {n} plus {n * 7 % 101}, and who asked it first?\nA:" for n in range(n_rows)],
            "target": [str(n + n * 7 % 101) for n in range(n_rows)],
        }
    )
    margins = rng.normal(size=n_rows)
    outcomes = items.drop(columns="prompt").assign(
        capability="reasoning",
        format="choose",
        score=(margins > 0).astype(float),
        margin_target=margins,
        response=[f"[{a:.6f}, {b:.6f}]" for a, b in rng.normal(size=(n_rows, 2))],
        x_steps=rng.integers(1, 6, n_rows),
    )
    return RunDirectory(folder), outcomes, items


def add_model(run: RunDirectory, n: int, outcomes: pd.DataFrame, items: pd.DataFrame) -> None:
    """Add the n-th model as an evaluation of it alone would."""
    name = f"out/student-{n}"
    facts = {"word": name, "identity": {"weights": f"{n:064x}", "dtype": "float32", "prompting": "{}"}}
    run.add_battery("core", "0" * 64, {"version": "1", "limit": None, "seed": 0})
    run.save(state="running", roles=schema.Roles((name,)))
    run.merge(schema.ITEMS, items)
    run.add_model(name, f"{n:064x}", facts)
    run.add_model(name, f"{n:064x}", {**facts, "seconds": {"loading": 1.0, "hashing": 0.1}})
    run.write_outcomes(name, "core", outcomes.assign(model=name))
    run.merge(schema.MODELS, pd.DataFrame({"model": [name], "seed": [n], "weights_hash": [f"{n:064x}"]}))
    run.save(state="evaluated", seconds=1.0)


def main() -> None:
    """Print the median times of several rounds, and their ratio."""
    seconds = np.zeros((ROUNDS, N_MODELS))
    for number in range(ROUNDS):
        folder = Path(tempfile.mkdtemp())
        run, outcomes, items = begun_run(folder / "run", N_ROWS)
        for n in range(N_MODELS):
            start = time.perf_counter()
            add_model(run, n, outcomes, items)
            seconds[number, n] = time.perf_counter() - start
        shutil.rmtree(folder)
    first, second, last = (statistics.median(seconds[:, n]) for n in (0, 1, N_MODELS - 1))
    print(f"{N_ROWS:,} rows a model, medians of {ROUNDS} rounds: first {1000 * first:.1f} ms (writes the items too),")
    print(f"second {1000 * second:.1f} ms, {N_MODELS}th {1000 * last:.1f} ms: {last / first:.2f} times the first")


if __name__ == "__main__":
    main()
