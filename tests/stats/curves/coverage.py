"""Coverage of the data cost on simulated curves: ``python -m tests.stats.curves.coverage [REPLICATES] [CELL] [SEED]``.

CELL picks the cells whose name contains it; rows are printed as they come. A single form is judged in every cell, also
where another form is true: it covers then only where its misfit is small.
"""

import sys
import time
from dataclasses import dataclass, field

import numpy as np
from scipy import stats

from capgap.stats.curves import Target, curve_data, data_cost, fit_curves
from tests.stats.curves.world import CurveWorld, exponential, logistic, power

FLOOR = 0.94


def two_stages(d):
    """Half of the way early, half late: none of the forms."""
    return 0.35 + 0.2 / (1 + (400 / np.maximum(d, 1e-9)) ** 2) + 0.23 / (1 + (9000 / np.maximum(d, 1e-9)) ** 2)


def slow_logarithm(d):
    """Rises by as much with every doubling, without any ceiling that the data could show."""
    return np.minimum(0.35 + 0.09 * np.log1p(d / 300), 0.99)


def dip(d):
    """Falls with the first examples, then rises: a student that first unlearns."""
    return power()(d) - 0.12 * np.exp(-((np.log(np.maximum(d, 1e-9) / 700) / 0.8) ** 2))


def curves():
    """The true curves by name: those of each form, inside, outside and never, and three that follow none."""
    return {
        "power inside": power(),
        "exponential inside": exponential(),
        "logistic inside": logistic(),
        "power outside": power(exponent=0.5),
        "exponential outside": exponential(scale=50000.0),
        "logistic outside": logistic(scale=15000.0, exponent=0.9),
        "power never": power(c=0.66),
        "exponential never": exponential(c=0.66),
        "logistic never": logistic(c=0.66),
        "two stages": two_stages,
        "slow logarithm": slow_logarithm,
        "dip": dip,
    }


@dataclass(frozen=True)
class Cell:
    """One world, seen through some items."""

    name: str
    world: CurveWorld
    n_items: int
    assumed: dict = field(default_factory=dict)


def cells():
    """All cells; the last ones ask what the nesting costs where it is not what is assumed, and few items."""
    found = [
        Cell(f"{name}, {n} items", CurveWorld(curve=curve), n) for n in (2000, 300) for name, curve in curves().items()
    ]
    nested = CurveWorld(nested=1.0)
    found += [
        Cell("nested true, half assumed, 2000 items", nested, 2000),
        Cell("nested true, none assumed, 2000 items", nested, 2000, {"nested": 0.0}),
        Cell("nested true, full assumed, 2000 items", nested, 2000, {"nested": 1.0}),
        Cell("not nested, full assumed, 2000 items", CurveWorld(), 2000, {"nested": 1.0}),
        Cell("no seed variance, 2000 items", CurveWorld(seed_sd=0.0), 2000),
        Cell("seed SD 0.25, 2000 items", CurveWorld(seed_sd=0.25), 2000),
        Cell("chance 0.25, x = 0.8, 2000 items", CurveWorld(chance=0.25, share=0.8), 2000),
        Cell("one seed, 2000 items", CurveWorld(n_seeds=1), 2000),
        Cell("100 items", CurveWorld(), 100),
    ]
    return found


@dataclass
class Tally:
    """What one kind of interval gave over the replicates."""

    n: int = 0
    refused: int = 0
    covered: int = 0
    open: int = 0
    rejected: int = 0
    widths: list = field(default_factory=list)

    def add(self, low, high, truth, *, rejected=False):
        self.n += 1
        self.rejected += rejected
        if np.isnan(low):
            self.refused += 1
            return
        self.covered += low <= truth * (1 + 1e-9) and truth <= high * (1 + 1e-9)
        self.open += np.isinf(high) or low == 0
        self.widths.append(np.log10(high / low) if low > 0 else np.inf)

    def row(self, cell, name, seconds):
        told = self.n - self.refused
        if not told:
            return f"| {cell} | {name} | {self.n} | – | – | – | – | 100% | {self.rejected / self.n:.0%} | – | – |"
        share = self.covered / told
        error = np.sqrt(share * (1 - share) / told)
        p = stats.binomtest(self.covered, told, FLOOR, alternative="less").pvalue
        return (
            f"| {cell} | {name} | {self.n} | {share:.1%} | {error:.1%} | {self.open / told:.0%} | "
            f"{np.median(self.widths):.2f} | {self.refused / self.n:.0%} | {self.rejected / self.n:.0%} | {p:.2g} | "
            f"{seconds:.2f} |"
        )


HEADER = (
    "| cell | interval | replicates | coverage | s.e. | open | median log10 width | refused | rejected | p (≥ 94 %) "
    "| s |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|"
)


def simulate(cell, n, seed):
    """Tallies by interval: union, bracket, single forms; seconds a curve."""
    truth, tallies, seconds = cell.world.truth(), {}, 0.0
    for replicate in range(n):
        rng = np.random.default_rng([seed, replicate])
        scores, teacher, sizes, seeds = cell.world.draw(rng, cell.n_items)
        start = time.process_time()
        data = curve_data(scores, teacher, sizes, seeds=seeds, chance=cell.world.chance, **cell.assumed)
        cost = data_cost(fit_curves(data), Target(cell.world.share))
        seconds += time.process_time() - start
        union = tallies.setdefault("union", Tally())
        union.add(cost.conf_low, cost.conf_high, truth, rejected=cost.status == "refused")
        tallies.setdefault("bracket", Tally()).add(*cost.bracket, truth)
        for form in cost.by_form:
            tally = tallies.setdefault(form.form, Tally())
            tally.add(form.conf_low, form.conf_high, truth, rejected=form.rejected)
    return tallies, seconds / n


def main():
    """Print the table, row by row."""
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    wanted = sys.argv[2] if len(sys.argv) > 2 else ""
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    print(HEADER, flush=True)
    for number, cell in enumerate(cells()):
        if wanted in cell.name:
            tallies, seconds = simulate(cell, n, 1000 * seed + number)
            for name, tally in tallies.items():
                print(tally.row(cell.name, name, seconds), flush=True)


if __name__ == "__main__":
    main()
