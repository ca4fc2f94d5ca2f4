"""Are planted patterns found, and none where there is none?

``python -m tests.stats.patterns.recovery [RUNS] [CELL]``: CELL picks the worlds whose name contains it; worlds of four
patterns, which take longer, have a fifth of the runs.
"""

import sys
import time
from dataclasses import replace

import numpy as np
from sklearn.metrics import adjusted_rand_score

from capgap.stats import find_patterns
from tests.stats.patterns.worlds import MIDDLE, NAMES, SMALL, PatternWorld, single

NULLS = (
    single(SMALL, "one pattern, 24 x 600"),
    single(SMALL, "one pattern, 24 x 600, student x task SD 0.4", student_task_sd=0.4),
    single(SMALL, "one pattern, 24 x 600, easy and hard items", two_humps=True),
    single(SMALL, "one pattern, 24 x 600, 30 % missing", missing=0.3),
    single(MIDDLE, "one pattern, 60 x 2,000"),
    single(MIDDLE, "one pattern, 60 x 2,000, student x task SD 0.4", student_task_sd=0.4),
    single(MIDDLE, "one pattern, 60 x 2,000, easy and hard items", two_humps=True),
    single(MIDDLE, "one pattern, 60 x 2,000, guessing at 0.25", chance=0.25),
    single(MIDDLE, "one pattern, 60 x 2,000, guessing at 0.25, not told", chance=0.25, told=False),
)
FOURS = (
    replace(SMALL, name="four patterns, 24 x 600"),
    replace(MIDDLE, name="four patterns, 60 x 2,000"),
    replace(MIDDLE, name="four patterns, 60 x 2,000, student x task SD 0.4", student_task_sd=0.4),
    replace(MIDDLE, name="four patterns, 60 x 2,000, 30 % missing", missing=0.3),
    replace(MIDDLE, name="four patterns, 60 x 2,000, guessing at 0.25", chance=0.25),
)


def run(world: PatternWorld, n: int, seed: int) -> str:
    """One line of the table."""
    rng = np.random.default_rng(seed)
    started = time.perf_counter()
    found_k, ours, best, confirmed, tested = [], [], [], 0, 0
    for _ in range(n):
        y, x, pattern = world.draw(rng)
        found = find_patterns(y, x, NAMES, rng=rng, chance=world.chance if world.told else 0.0)
        found_k.append(found.n_patterns)
        confirmed += int((found.half_test_p_values < 0.05).sum())
        tested += len(found.half_test_p_values)
        if len(world.shares) > 1:
            ours.append(adjusted_rand_score(pattern, found.memberships.argmax(axis=1)))
            best.append(adjusted_rand_score(pattern, world.oracle(y, x)))
    seconds = (time.perf_counter() - started) / n
    right = np.mean(np.array(found_k) == len(world.shares))
    counts = ", ".join(f"{k}: {c}" for k, c in zip(*np.unique(found_k, return_counts=True), strict=True))
    rand = (
        f"{np.mean(ours):.3f} | {np.mean(best):.3f} | {np.min(np.subtract(ours, best)):+.3f}" if ours else "– | – | –"
    )
    half = f"{confirmed} of {tested}" if tested else "–"
    error = 100 * np.sqrt(right * (1 - right) / n)
    return f"| {world.name} | {n} | {100 * right:.0f} % ± {error:.1f} | {counts} | {rand} | {half} | {seconds:.1f} s |"


def main() -> None:
    """Print the table, a line as soon as it is there."""
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    print(
        "| world | runs | true K | K found | ARI | ARI of the oracle | worst difference | confirmed by halves | a run |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    cell = sys.argv[2] if len(sys.argv) > 2 else ""
    for seed, world in enumerate(NULLS + FOURS):
        if cell not in world.name:
            continue
        print(run(world, n if len(world.shares) == 1 else max(1, n // 5), seed), flush=True)


if __name__ == "__main__":
    main()
