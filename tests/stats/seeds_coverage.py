"""Several training seeds: coverage; equivalence: size. ``python -m tests.stats.seeds_coverage [REPLICATES]``."""

import sys

import numpy as np
from scipy.special import expit

from capgap.stats import Design, Estimate, run_equivalence_test, seed_difference
from tests.stats.coverage import Cell, simulate, table

NODE, WEIGHT = np.polynomial.hermite_e.hermegauss(80)


def level(logit: float, sd: float) -> float:
    """Mean of expit(logit + normal of that spread)."""
    return float(expit(logit + sd * NODE) @ WEIGHT / WEIGHT.sum())


def seed_cell(n_seeds: int, seed_sd: float, *, n_clusters: int | None = None, n_items: int = 300) -> Cell:
    """Teacher minus student for a recipe whose seeds differ in level, and item by item."""
    item_sd, own_sd, cluster_sd = 1.2, 0.5, 0.5 if n_clusters else 0.0
    teacher, student = 1.2, 0.8
    rest = np.sqrt(item_sd**2 + own_sd**2 + cluster_sd**2 + seed_sd**2)
    truth = level(teacher, np.sqrt(item_sd**2 + cluster_sd**2)) - level(student, rest)

    def draw(rng: np.random.Generator) -> Estimate:
        cluster = np.arange(n_items) if n_clusters is None else np.sort(rng.integers(0, n_clusters, n_items))
        ease = rng.normal(0, item_sd, n_items) + rng.normal(0, cluster_sd, n_items + 1)[cluster]
        right = (rng.random(n_items) < expit(teacher + ease)).astype(float)
        logit = student + ease + rng.normal(0, own_sd, (n_seeds, n_items)) + rng.normal(0, seed_sd, (n_seeds, 1))
        return seed_difference(right - (rng.random(logit.shape) < expit(logit)), Design.of(np.zeros(n_items), cluster))

    where = f"{n_clusters} clusters" if n_clusters else f"{n_items} items alone"
    return Cell(f"recipe: {n_seeds} seeds, level SD {seed_sd:g}, {where}", truth, draw)


CELLS = [seed_cell(r, sd) for r in (3, 5, 10) for sd in (0.0, 0.1, 0.3)] + [seed_cell(5, 0.3, n_clusters=20)]


def false_equivalence(n_items: int, share: float, n: int, seed: int, *, n_clusters: int | None = None) -> float:
    """How often two models that differ by exactly the margin are called equivalent at 5 %."""
    rng = np.random.default_rng(seed)
    margin = share / 2
    called = 0
    for _ in range(n):
        if n_clusters is None:
            cluster = np.arange(n_items)
            d = rng.choice([1.0, -1.0, 0.0], n_items, p=[(share + margin) / 2, (share - margin) / 2, 1 - share])
        else:
            cluster = np.arange(n_items) % n_clusters
            shift = rng.uniform(-margin, margin, n_clusters)[cluster]
            up, draw = (share + margin + shift) / 2, rng.random(n_items)
            d = np.where(draw < up, 1.0, np.where(draw < share, -1.0, 0.0))
        called += run_equivalence_test(d, Design.of(np.zeros(n_items), cluster), margin).is_equivalent
    return called / n


def main() -> None:
    """Print both tables."""
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    print(table([simulate(cell, n, seed) for seed, cell in enumerate(CELLS)]))
    print("\n| items | discordant | clusters | called equivalent at the margin (5 %) |\n|---|---|---|---|")
    for seed, (items, share, clusters) in enumerate(
        [(25, 0.4, None), (200, 0.03, None), (200, 0.3, None), (1000, 0.1, None), (200, 0.3, 12), (400, 0.3, 40)]
    ):
        size = false_equivalence(items, share, n, seed, n_clusters=clusters)
        print(f"| {items} | {100 * share:g} % | {clusters or 'alone'} | {100 * size:.1f} % |")


if __name__ == "__main__":
    main()
