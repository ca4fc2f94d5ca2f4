"""What the laws say beyond the data, simulated: ``python -m tests.stats.curves.laws_coverage N FILE [CELL]``.

Truths power, exponential, logistic, logarithm × 1 or 3 seeds × seed SD .05, .1, .2 × 300 or 2,000 items. Of each draw:
whether the intervals hold the gain of the next batch, the expected score at twice the largest size (confidence) and the
score of a new student there on the same items (prediction), and how far the drawn line and each law are from the truth.

FILE gets one line a replicate as it comes and is read first, so that a run that was ended goes on where it stood;
CELL picks cells by name. The table is of all that FILE holds. Bar (STATISTICS §7): no cell significantly below 94 %,
one-sided, Holm over the cells; the line's median error at most twice the best law's.
"""

import csv
import sys
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from scipy import stats

from capgap.stats import holm
from capgap.stats.curves import curve_data, expected_score, fit_curves, new_student_score, next_batch
from tests.stats.curves.world import SIZES, CurveWorld, exponential, logistic, power

FLOOR = 0.94
INTERVALS = ("gain", "curve", "student")
FORMS = ("power", "exponential", "logistic", "logarithmic")
COLUMNS = ("cell", "replicate", *INTERVALS, *(f"{name}_width" for name in INTERVALS), "average", *FORMS)
DRAWN_SIZES = np.geomspace(SIZES[1] / 4, 2 * SIZES[-1], 25)
"""Where the line of the report is drawn."""


def logarithm(d):
    """Rises alike with every doubling, to .62 at twice the largest size."""
    return 0.35 + 0.045 * np.log1p(d / 300)


TRUTHS = {
    "power": power(exponent=0.5),
    "exponential": exponential(scale=15000.0),
    "logistic": logistic(),
    "logarithm": logarithm,
}


@dataclass(frozen=True)
class LawCell:
    """One world: its true curve and its students."""

    truth: str
    n_seeds: int
    seed_sd: float
    n_items: int

    @property
    def name(self):
        return f"{self.truth}, {self.n_seeds} seeds, SD {self.seed_sd:g}, {self.n_items} items"

    def replicate(self, number):
        """One line of FILE without the cell and the number; empty figures where nothing is said."""
        curve, double = TRUTHS[self.truth], 2 * SIZES[-1]
        world = CurveWorld(curve=curve, n_seeds=self.n_seeds, seed_sd=self.seed_sd, sizes=(*SIZES, double))
        rng = np.random.default_rng([sum(self.name.encode()), number])
        scores, teacher, sizes, seeds = world.draw(rng, self.n_items)
        seen = sizes < double  # students of twice the size are new ones: the fit does not see them
        new_score = float(scores[~seen][0].mean())
        seen_seeds = [seed for seed, is_seen in zip(seeds, seen, strict=True) if is_seen]
        fit = fit_curves(curve_data(scores[seen], teacher, sizes[seen], seeds=seen_seeds, chance=0.0))
        estimates = next_batch(fit), expected_score(fit, double), new_student_score(fit, double)
        if estimates[0].status == "refused":
            return [""] * (2 * len(INTERVALS) + 1 + len(FORMS))
        at_double, at_largest = curve(np.array([double, SIZES[-1]]))
        truths = at_double - at_largest, at_double, new_score
        covered = [int(e.conf_low <= t <= e.conf_high) for e, t in zip(estimates, truths, strict=True)]
        widths = [f"{e.conf_high - e.conf_low:.5f}" for e in estimates]
        lines = [fit.predict(DRAWN_SIZES), *(f.predict(DRAWN_SIZES) for f in fit.form_fits)]
        errors = [f"{np.sqrt(np.mean((line - curve(DRAWN_SIZES)) ** 2)):.5f}" for line in lines]
        return [*covered, *widths, *errors]


def cells():
    """All 48, those with few items and one seed first."""
    return [
        LawCell(truth, n_seeds, seed_sd, n_items)
        for n_items, n_seeds, seed_sd, truth in product((300, 2000), (1, 3), (0.05, 0.1, 0.2), TRUTHS)
    ]


def simulate(path, n, wanted=""):
    """Bring every wanted cell of the file to n replicates."""
    done = {(row["cell"], int(row["replicate"])) for row in read(path)}
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if not path.stat().st_size:
            writer.writerow(COLUMNS)
        # Replicates before cells: whenever the run ends, all cells have as many.
        for number, cell in product(range(n), cells()):
            if wanted in cell.name and (cell.name, number) not in done:
                writer.writerow([cell.name, number, *cell.replicate(number)])
                file.flush()


def read(path):
    """Lines of the file as dictionaries; none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["student"] is not None]


def summarise(rows):
    """By cell: replicates, refusals, coverage and median width of each interval, the line's error over the best's."""
    summary = {}
    for name in dict.fromkeys(row["cell"] for row in rows):
        of_cell = [row for row in rows if row["cell"] == name]
        told = [row for row in of_cell if row["gain"]]
        errors = {law: np.median([float(row[law]) for row in told]) for law in ("average", *FORMS)}
        summary[name] = {
            "n": len(of_cell),
            "refused": 1 - len(told) / len(of_cell),
            **{k: (sum(int(row[k]) for row in told), len(told)) for k in INTERVALS},
            **{f"{k}_width": np.median([float(row[f"{k}_width"]) for row in told]) for k in INTERVALS},
            "error_ratio": errors["average"] / min(errors[law] for law in FORMS),
        }
    return summary


def smallest_p(summary):
    """Of "covers at least 94 %", by interval: the smallest p-value over the cells, Holm."""
    return {
        k: min(holm([stats.binomtest(*cell[k], FLOOR, alternative="less").pvalue for cell in summary.values()]))
        for k in INTERVALS
    }


def main():
    """Simulate, then print the table."""
    n, path = int(sys.argv[1]), Path(sys.argv[2])
    simulate(path, n, sys.argv[3] if len(sys.argv) > 3 else "")
    summary = summarise(read(path))
    print("| cell | N | refused | gain | width | curve | width | new student | width | line's error / best law's |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name, cell in summary.items():
        figures = " | ".join(f"{cell[k][0] / cell[k][1]:.1%} | {cell[f'{k}_width']:.3f}" for k in INTERVALS)
        print(f"| {name} | {cell['n']} | {cell['refused']:.0%} | {figures} | {cell['error_ratio']:.2f} |")
    print("smallest p of at least 94 % (Holm):", {k: round(float(p), 3) for k, p in smallest_p(summary).items()})


if __name__ == "__main__":
    main()
