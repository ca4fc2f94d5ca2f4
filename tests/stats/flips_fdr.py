"""False entries in lists of lost items, size of the excess test: ``python -m tests.stats.flips_fdr [RUNS]``."""

import sys

import numpy as np

from capgap.stats import Design, flip_list, flips_beyond_seeds

RATES = {
    "beta(0.5, 2)": lambda rng, n: rng.beta(0.5, 2, n),
    "beta(2, 2)": lambda rng, n: rng.beta(2, 2, n),
    "uniform": lambda rng, n: rng.random(n),
    "0.05 or 0.9 (10 %)": lambda rng, n: np.where(rng.random(n) < 0.1, 0.9, 0.05),
    "0.2 or 0.6 (20 %)": lambda rng, n: np.where(rng.random(n) < 0.2, 0.6, 0.2),
    "0.4 to 0.6": lambda rng, n: rng.uniform(0.4, 0.6, n),
    "0.45 or 0.95 (5 %)": lambda rng, n: np.where(rng.random(n) < 0.05, 0.95, 0.45),
}
"""How often a student of the recipe fails items that the base gets right."""


def false_share(rate: str, n_items: int, n_seeds: int, n_runs: int, seed: int) -> tuple[float, float, float, float]:
    """Mean share of false entries (0 for an empty list), its s.e., mean length, share of all true entries listed."""
    rng = np.random.default_rng(seed)
    false, length, found = [], [], []
    for _ in range(n_runs):
        q = RATES[rate](rng, n_items)
        students = (rng.random((n_seeds, n_items)) >= q).astype(float)
        items = flip_list(np.ones(n_items), students).items
        wrong = q[items] <= 0.5
        false.append(wrong.mean() if len(items) else 0.0)
        length.append(len(items))
        found.append((~wrong).sum() / max(1, (q > 0.5).sum()))
    return float(np.mean(false)), float(np.std(false) / np.sqrt(n_runs)), float(np.mean(length)), float(np.mean(found))


def size_of_excess(n_seeds: int, n_runs: int, seed: int, *, seed_sd: float = 0.0) -> float:
    """How often lost items seem more than the seeds' own where the base is one more seed."""
    rng = np.random.default_rng(seed)
    design = Design.of(np.zeros(300), np.arange(300))
    rejected = 0
    for _ in range(n_runs):
        logit = rng.normal(0.5, 1.5, 300) + rng.normal(0, seed_sd, (n_seeds + 1, 1))
        y = (rng.random(logit.shape) < 1 / (1 + np.exp(-logit))).astype(float)
        rejected += flips_beyond_seeds(y[0], y[1:], design).lost_share.p_value < 0.05
    return rejected / n_runs


def main() -> None:
    """Print both tables."""
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    print("| failure rates of items | items | seeds | false entries | s.e. | entries | of the true ones listed |")
    print("|---|---|---|---|---|---|---|")
    for seed, (rate, n_items, n_seeds) in enumerate(
        [(r, i, s) for r in RATES for i, s in ((200, 5), (2000, 5), (1000, 10))]
    ):
        share, error, length, found = false_share(rate, n_items, n_seeds, n, seed)
        row = f"{100 * share:.1f} % | {100 * error:.1f} | {length:.0f} | {100 * found:.0f} %"
        print(f"| {rate} | {n_items} | {n_seeds} | {row} |", flush=True)
    print("\n| seeds | SD of seeds' levels | size of the 5 % test of excess loss |\n|---|---|---|")
    for n_seeds in (3, 5, 10):
        for sd in (0.0, 0.1, 0.3):
            print(f"| {n_seeds} | {sd:g} | {100 * size_of_excess(n_seeds, n, n_seeds, seed_sd=sd):.1f} % |", flush=True)


if __name__ == "__main__":
    main()
