"""`capgap analyze` on a million outcomes: ``python -m tests.benchmarks.analysis [--students 100] [--items 10000]``.

One process, one thread. Students of a grid (sizes x adaptations x seeds), their base and their teacher, twelve tasks;
label draws are timed apart. Prints seconds of wall clock and of processor time, and the peak of memory.
"""

import argparse
import cProfile
import pstats
import resource
import time
from typing import Any

import numpy as np
import pandas as pd

from tests.analysis.cohorts import cohort


def main() -> None:
    """Make a cohort, analyse it, print what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--students", type=int, default=100)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    asked = parser.parse_args()
    from capgap.analysis import estimate_table

    n_seeds = max(1, asked.students // 20)
    outcomes, models, roles = cohort(
        sizes=(125, 250, 500, 1000, 2000, 4000, 8000, 16000, 32000, 64000), seeds=n_seeds, n_tasks=6,
        n_items=asked.items // 12, depth=False,
    )  # fmt: skip
    print(f"{len(outcomes):,} outcomes of {len(roles.names)} models")
    _timed("analyze", lambda: estimate_table(outcomes, roles, models=models), profile=asked.profile)
    items = outcomes[["task", "item"]].drop_duplicates()
    reasons = items["task"].str.startswith("reasoning")
    labels = items.assign(
        capability=np.where(reasons, "reasoning", "knowledge"), p_reasoning=np.where(reasons, 0.9, 0.1), source="text"
    )
    few = type(roles)(roles.students[:1], roles.teacher, {roles.students[0]: "base"})
    unlabelled = outcomes[outcomes["model"].isin(few.names)].drop(columns="capability")
    _timed("label draws, one student", lambda: estimate_table(unlabelled, few, labels=labels), profile=asked.profile)


def _timed(name: str, work: Any, *, profile: bool) -> None:
    watch = cProfile.Profile()
    wall, used = time.perf_counter(), time.process_time()
    if profile:
        watch.enable()
    found: pd.DataFrame = work()
    watch.disable()
    wall, used = time.perf_counter() - wall, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{name}: {wall:.1f} s ({used:.1f} s of processor time), peak {peak:,.0f} MB, {len(found):,} numbers")
    if profile:
        pstats.Stats(watch).sort_stats("cumtime").print_stats(40)


if __name__ == "__main__":
    main()
