"""Simultaneous coverage of recipe contrasts: ``python -m tests.stats.recipe_contrasts_coverage [FAMILIES [FILE]]``.

With FILE (CSV) cells that it holds with so many families are not run again: a night may be interrupted.
"""

import csv
import sys
from dataclasses import asdict, dataclass, fields
from itertools import combinations, product
from pathlib import Path

import numpy as np
from scipy import stats
from scipy.special import expit

from capgap.analysis.recipe_headline import HeadlineContrast, printed_contrast
from capgap.stats import Design, recipe_contrasts
from tests.stats.seeds_coverage import level

ITEM_SD, OWN_SD, STEP = 1.2, 0.5, 0.15
"""Logits: spread of items, of recipe x item, and what each next recipe is better by where recipes differ."""


@dataclass(frozen=True)
class RecipeCell:
    """Recipes of some seeds, each answering the same items."""

    n_recipes: int
    n_seeds: int
    n_items: int
    seed_sd: float
    equal: bool = True
    """Whether no recipe is better than another."""
    unequal_noise: bool = False
    """Whether the seeds of the first recipe alone differ."""

    @property
    def logits(self) -> np.ndarray:
        return np.zeros(self.n_recipes) if self.equal else STEP * np.arange(self.n_recipes)

    @property
    def seed_sds(self) -> np.ndarray:
        sds = np.full(self.n_recipes, self.seed_sd)
        return np.where(np.arange(self.n_recipes) > 0, 0.0, sds) if self.unequal_noise else sds

    def truth(self) -> np.ndarray:
        """Expected score of each recipe over items and seeds."""
        spreads = np.sqrt(ITEM_SD**2 + OWN_SD**2 + self.seed_sds**2)
        return np.array([level(logit, sd) for logit, sd in zip(self.logits, spreads, strict=True)])

    def draw(self, rng: np.random.Generator) -> list[np.ndarray]:
        """Right and wrong, one array (seeds, items) a recipe."""
        shape = (self.n_recipes, self.n_seeds)
        ease = rng.normal(0, ITEM_SD, self.n_items) + rng.normal(0, OWN_SD, (self.n_recipes, 1, self.n_items))
        seeds = rng.normal(0, 1, shape) * self.seed_sds[:, None]
        logit = self.logits[:, None, None] + ease + seeds[..., None]
        return list((rng.random((*shape, self.n_items)) < expit(logit)).astype(float))


@dataclass(frozen=True)
class RecipeResult:
    """What the families of a cell gave, shares."""

    families: int
    simultaneous: float
    """All intervals of the family cover."""
    false_better: float
    """Any pair is told apart in a direction that is not true."""
    printed: float
    """The interval that the first sentence prints covers."""
    width: float
    """Median width over that of Bonferroni's z with the true variance of each difference."""


def run_cell(cell: RecipeCell, n_families: int, seed: int) -> RecipeResult:
    """Simulate the families of a cell."""
    rng, truth = np.random.default_rng(seed), cell.truth()
    design, pairs = (
        Design.of(np.zeros(cell.n_items), np.arange(cell.n_items)),
        list(combinations(range(cell.n_recipes), 2)),
    )
    true_difference = np.array([truth[i] - truth[j] for i, j in pairs])
    all_cover, false_better, printed_covers, estimates, widths = 0, 0, 0, [], []
    for _ in range(n_families):
        found = [contrast.estimate for contrast in recipe_contrasts(cell.draw(rng), design, pairs)]
        low, high = np.array([e.conf_low for e in found]), np.array([e.conf_high for e in found])
        all_cover += bool(((low <= true_difference) & (true_difference <= high)).all())
        false_better += bool((((low > 0) & (true_difference <= 0)) | ((high < 0) & (true_difference >= 0))).any())
        ends = zip(pairs, found, strict=True)
        printed = printed_contrast(
            [HeadlineContrast(str(i), str(j), e.estimate, e.conf_low, e.conf_high) for (i, j), e in ends]
        )
        printed_covers += printed.low <= truth[int(printed.first)] - truth[int(printed.second)] <= printed.high
        estimates.append([e.estimate for e in found])
        widths.append(high - low)
    z = stats.norm.ppf(1 - 0.025 / len(pairs))
    known = 2 * z * np.sqrt(np.mean((np.array(estimates) - true_difference) ** 2))
    shares = (count / n_families for count in (all_cover, false_better, printed_covers))
    return RecipeResult(n_families, *shares, float(np.median(widths) / known))


CELLS = [
    *(
        RecipeCell(*sizes, equal)
        for *sizes, equal in product((2, 4, 6), (3, 5, 10), (200, 2000), (0.0, 0.1, 0.3), (True, False))
    ),
    *(RecipeCell(r, s, 1000, 0.3, unequal_noise=True) for r, s in ((2, 3), (5, 3), (5, 5), (5, 10))),
]
_COLUMNS = [field.name for kind in (RecipeCell, RecipeResult) for field in fields(kind)]


def main() -> None:
    """Run what FILE lacks, and print the table."""
    n_families = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    file = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    done = {}
    if file and file.exists():
        with file.open() as stream:
            for row in csv.DictReader(stream):
                done[tuple(row[name] for name in _COLUMNS[: len(fields(RecipeCell)) + 1])] = row
    print("| " + " | ".join(_COLUMNS) + " |\n" + "|---" * len(_COLUMNS) + "|")
    for seed, cell in enumerate(CELLS):
        row = done.get(tuple(map(str, (*asdict(cell).values(), n_families))))
        if row is None:
            row = asdict(cell) | asdict(run_cell(cell, n_families, seed))
            if file:
                is_new = not file.exists()
                with file.open("a") as stream:
                    writer = csv.DictWriter(stream, _COLUMNS)
                    if is_new:
                        writer.writeheader()
                    writer.writerow(row)
        print("| " + " | ".join(str(row[name])[:6] for name in _COLUMNS) + " |", flush=True)


if __name__ == "__main__":
    main()
