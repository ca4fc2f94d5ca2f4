"""Coverage of data costs, gains and ratios on simulation: ``python -m tests.stats.curves.coverage [N] [CELL] [SEED]``.

CELL picks the cells whose name contains it; rows are printed as they come. Widths are in powers of ten, those of gains
in points of accuracy. A single form is judged in every cell, also where another form is true: it covers then only where
its misfit is small.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from scipy import stats

from capgap.stats.curves import CurveTarget, curve_data, estimate_data_cost, fit_curves, next_batch, relative_data_cost
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
    """One line of the table: what is true, and the intervals of one draw as (name, low, high, rejected)."""

    name: str
    truth: float
    draw: Callable
    width: Callable = lambda low, high: np.log10(high / low) if low > 0 else np.inf
    """Of an interval: in powers of ten, for costs and ratios."""


def cost_cell(name, world, n_items, **assumed):
    """Data cost of one curve: the union, the bracket without a law, each form."""

    def draw(rng):
        scores, teacher, sizes, seeds = world.draw(rng, n_items)
        yield None
        data = curve_data(scores, teacher, sizes, seeds=seeds, chance=world.chance, **assumed)
        cost = estimate_data_cost(fit_curves(data), CurveTarget(world.share))
        yield [
            ("union", cost.conf_low, cost.conf_high, cost.status == "refused"),
            ("bracket", *cost.size_bracket, False),
            *((f.form, f.conf_low, f.conf_high, f.is_rejected) for f in cost.form_estimates),
        ]

    return Cell(name, world.truth(), draw)


def gain_cell(name, world, n_items):
    """Gain in going from the largest size to twice as many."""
    largest = max(world.sizes)

    def draw(rng):
        scores, teacher, sizes, seeds = world.draw(rng, n_items)
        yield None
        gain = next_batch(fit_curves(curve_data(scores, teacher, sizes, seeds=seeds, chance=0.0)))
        yield [
            ("union", gain.conf_low, gain.conf_high, gain.status == "refused"),
            *((form, part.conf_low, part.conf_high, False) for form, part in gain.form_estimates),
        ]

    ends = world.curve(np.array([2 * largest, largest]))
    return Cell(name, float(ends[0] - ends[1]), draw, width=lambda low, high: high - low)


def ratio_cell(name, worlds, n_items, *, shared):
    """Relative data cost of two capabilities of the same students, whose seeds' effects correlate by `shared`."""

    def draw(rng):
        first, own = (world.effects(rng) for world in worlds)
        draws = [worlds[0].draw(rng, n_items, first)]
        draws.append(worlds[1].draw(rng, n_items, shared * first + np.sqrt(1 - shared**2) * own))
        yield None
        fits = []
        for k, (scores, teacher, sizes, seeds) in enumerate(draws):
            codes = k * n_items + np.arange(n_items)
            fits.append(fit_curves(curve_data(scores, teacher, sizes, seeds=seeds, chance=0.0, clusters=codes)))
        ratio = relative_data_cost(*fits, CurveTarget(worlds[0].share))
        yield [("union", ratio.conf_low, ratio.conf_high, ratio.status == "refused")]

    return Cell(name, worlds[0].truth() / worlds[1].truth(), draw)


def cells():
    """All cells: costs, then what the nesting costs where it is not what is assumed, then gains and ratios."""
    found = [
        cost_cell(f"{name}, {n} items", CurveWorld(curve=curve), n)
        for n in (2000, 300)
        for name, curve in curves().items()
    ]
    nested = CurveWorld(nested=1.0)
    found += [
        cost_cell("nested true, half assumed, 2000 items", nested, 2000),
        cost_cell("nested true, none assumed, 2000 items", nested, 2000, nested=0.0),
        cost_cell("nested true, full assumed, 2000 items", nested, 2000, nested=1.0),
        cost_cell("not nested, full assumed, 2000 items", CurveWorld(), 2000, nested=1.0),
        cost_cell("no seed variance, 2000 items", CurveWorld(seed_sd=0.0), 2000),
        cost_cell("seed SD 0.25, 2000 items", CurveWorld(seed_sd=0.25), 2000),
        cost_cell("chance 0.25, x = 0.8, 2000 items", CurveWorld(chance=0.25, share=0.8), 2000),
        cost_cell("one seed, 2000 items", CurveWorld(n_seeds=1), 2000),
        cost_cell("100 items", CurveWorld(), 100),
    ]
    true = {"power": power(exponent=0.5), "exponential": exponential(scale=30000.0), "logistic": logistic()}
    true["slow logarithm"] = slow_logarithm
    found += [gain_cell(f"gain, {name}, 2000 items", CurveWorld(curve=c), 2000) for name, c in true.items()]
    first = CurveWorld(curve=power(c=0.79), share=0.85)
    for name, curve in (("power", power(c=0.79, scale=500.0)), ("logistic", logistic(c=0.79, scale=800.0))):
        second = CurveWorld(curve=curve, share=0.85)
        found += [
            ratio_cell(f"ratio, power / {name}, seeds {r:g}, 2000 items", (first, second), 2000, shared=r)
            for r in (0.0, 0.8)
        ]
    return found


@dataclass
class Tally:
    """What one kind of interval gave over the replicates."""

    n: int = 0
    refused: int = 0
    covered: int = 0
    open: int = 0
    is_rejected: int = 0
    widths: list = field(default_factory=list)

    def add(self, low, high, cell, *, rejected=False):
        self.n += 1
        self.is_rejected += rejected
        if np.isnan(low):
            self.refused += 1
            return
        self.covered += low <= cell.truth * (1 + 1e-9) and cell.truth <= high * (1 + 1e-9)
        self.open += np.isinf(high) or low == 0
        self.widths.append(cell.width(low, high))

    def row(self, cell, name, seconds):
        told = self.n - self.refused
        if not told:
            return f"| {cell} | {name} | {self.n} | – | – | – | – | 100% | {self.is_rejected / self.n:.0%} | – | – |"
        share = self.covered / told
        error = np.sqrt(share * (1 - share) / told)
        p = stats.binomtest(self.covered, told, FLOOR, alternative="less").pvalue
        return (
            f"| {cell} | {name} | {self.n} | {share:.1%} | {error:.1%} | {self.open / told:.0%} | "
            f"{np.median(self.widths):.2f} | {self.refused / self.n:.0%} | {self.is_rejected / self.n:.0%} | {p:.2g} | "
            f"{seconds:.2f} |"
        )


HEADER = (
    "| cell | interval | replicates | coverage | s.e. | open | median width | refused | rejected | p (≥ 94 %) "
    "| s |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|"
)


def simulate(cell, n, seed):
    """Tallies by interval and processor seconds a replicate."""
    tallies, seconds = {}, 0.0
    for replicate in range(n):
        steps = cell.draw(np.random.default_rng([seed, replicate]))
        next(steps)  # the world is drawn; what follows is the estimator's own time
        start = time.process_time()
        intervals = next(steps)
        seconds += time.process_time() - start
        for name, low, high, rejected in intervals:
            tallies.setdefault(name, Tally()).add(low, high, cell, rejected=rejected)
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
