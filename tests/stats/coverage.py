"""Coverage of the intervals on simulated outcomes: ``python -m tests.stats.coverage [REPLICATES]`` prints the table."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.special import expit

from capgap.stats import (
    Design,
    Estimate,
    accuracy,
    holm,
    paired_difference,
    ratio_difference,
    ratio_of_means,
    stratified_mean,
)
from tests.stats.references import bootstrap_ratio_difference

NOMINAL, FLOOR = 0.95, 0.94
"""A cell fails when its coverage lies significantly below the floor (one-sided, Holm over the cells)."""


@dataclass(frozen=True)
class World:
    """Right and wrong answers of several models to items in clusters and tasks, on the logit scale.

    An item's logit is that of its task plus normal terms of the item and of its cluster, which all models share, and of
    cluster x model, which makes paired differences depend on the cluster.
    """

    logits: tuple[tuple[float, ...], ...]
    """Per model: its level in each task."""
    n_clusters: int | None = None
    """Clusters of unequal size over all tasks; None: every item its own."""
    n_items: int = 300
    """Items over all tasks, about, where there are clusters."""
    item_sd: float = 1.2
    cluster_sd: float = 0.6
    own_sd: float = 0.5
    """Of cluster x model."""

    @property
    def n_tasks(self) -> int:
        return len(self.logits[0])

    def draw(self, rng: np.random.Generator, n: int | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Scores (n, models), task and cluster of each item; a task has at least two clusters."""
        if self.n_clusters is None or n is not None:
            n = n or self.n_items
            cluster, task = np.arange(n), np.arange(n) % self.n_tasks
            n_clusters = n
        else:
            n_clusters = self.n_clusters
            mean = self.n_items / n_clusters
            sizes = np.maximum(2, rng.lognormal(np.log(mean) - 0.3, 0.77, n_clusters).astype(int))
            cluster = np.repeat(np.arange(n_clusters), sizes)
            task = cluster % self.n_tasks if n_clusters >= 2 * self.n_tasks else np.zeros(len(cluster), dtype=int)
        clustered = self.n_clusters is not None
        shared = rng.normal(0, self.item_sd, len(task))
        shared += rng.normal(0, self.cluster_sd * clustered, n_clusters)[cluster]
        scores = []
        for levels in self.logits:
            own = rng.normal(0, self.own_sd * clustered, n_clusters)[cluster]
            scores.append(rng.random(len(task)) < expit(np.asarray(levels)[task] + shared + own))
        return np.column_stack(scores).astype(float), task, cluster

    def truth(self) -> np.ndarray:
        """Expected score of each model, tasks weighing equally: Gauss-Hermite over the sum of the normal terms."""
        clustered = self.n_clusters is not None
        sd = np.sqrt(self.item_sd**2 + clustered * (self.cluster_sd**2 + self.own_sd**2))
        node, weight = np.polynomial.hermite_e.hermegauss(60)
        levels = np.asarray(self.logits)[:, :, None]
        return (expit(levels + sd * node) @ weight / weight.sum()).mean(axis=1)


Draw = Callable[[np.random.Generator], Estimate]


@dataclass(frozen=True)
class Cell:
    """One line of the table."""

    name: str
    truth: float
    draw: Draw


@dataclass(frozen=True)
class Result:
    """What the replicates of a cell gave."""

    name: str
    n: int
    covered: int
    told: int
    width: float
    seconds: float

    @property
    def coverage(self) -> float:
        return self.covered / self.told

    @property
    def error(self) -> float:
        """Monte-Carlo standard error of the coverage."""
        return float(np.sqrt(self.coverage * (1 - self.coverage) / self.told))

    @property
    def p_value(self) -> float:
        """That the true coverage is `FLOOR` or more."""
        return float(stats.binomtest(self.covered, self.told, FLOOR, alternative="less").pvalue)


def _gap(world: World) -> Cell | tuple[float, Draw]:
    def draw(rng: np.random.Generator) -> Estimate:
        y, task, cluster = world.draw(rng)
        return paired_difference(y[:, 0] - y[:, 1], Design.of(task, cluster))

    truth = world.truth()
    return float(truth[0] - truth[1]), draw


def _rarely_differs(gained: float | tuple[float, ...], lost: float | tuple[float, ...], sizes: tuple[int, ...]):
    """A student that answers almost as its teacher does, alike in all tasks or not; tasks have equal weight."""
    task = np.repeat(np.arange(len(sizes)), sizes)
    design = Design.of(task, np.arange(len(task)))
    ahead, behind = (np.broadcast_to(share, len(sizes)) for share in (gained, lost))

    def draw(rng: np.random.Generator) -> Estimate:
        u, more, less = rng.random(len(task)), ahead[task], behind[task]
        return paired_difference(np.where(u < more, 1.0, np.where(u < more + less, -1.0, 0.0)), design)

    return float((ahead - behind).mean()), draw


def _few_clusters_differ(gained: float, lost: float, n_clusters: int, size: int, together: float):
    """A near copy whose discordant items come in clusters: an item goes with its cluster with this probability."""
    cluster = np.repeat(np.arange(n_clusters), size)
    design = Design.of(np.zeros(len(cluster)), cluster)

    def draw(rng: np.random.Generator) -> Estimate:
        own, common = rng.random(len(cluster)), rng.random(n_clusters)[cluster]
        u = np.where(rng.random(len(cluster)) < together, common, own)
        return paired_difference(np.where(u < gained, 1.0, np.where(u < gained + lost, -1.0, 0.0)), design)

    return gained - lost, draw


def _near_copy(lost: float, n: int):
    """The closure of a student that lost a share of what its teacher has right, and gained nothing."""
    design = Design.of(np.zeros(n), np.arange(n))

    def draw(rng: np.random.Generator) -> Estimate:
        teacher = rng.random(n) < 0.9
        student, base = teacher & (rng.random(n) >= lost), teacher & (rng.random(n) < 1 / 3)
        return ratio_of_means(design.fit(_columns(np.column_stack([teacher, student, base]).astype(float))))

    return (0.9 * (1 - lost) - 0.3) / 0.6, draw


def _accuracy(world: World):
    def draw(rng: np.random.Generator) -> Estimate:
        y, task, cluster = world.draw(rng)
        return accuracy(y[:, 0], Design.of(task, cluster))

    return float(world.truth()[0]), draw


def _closure(world: World):
    """Models: teacher, student, base."""

    def draw(rng: np.random.Generator) -> Estimate:
        y, task, cluster = world.draw(rng)
        return ratio_of_means(stratified_mean(_columns(y), task, cluster))

    teacher, student, base = world.truth()
    return float((student - base) / (teacher - base)), draw


def _difference(first: World, second: World, *, shared: bool):
    """Closure of the first minus that of the second; `shared` clusters stand in both worlds."""

    def draw(rng: np.random.Generator) -> Estimate:
        if shared:
            y, task, cluster = first.draw(rng)
            half = rng.random(len(task)) < 0.5
            parts = [(y[half], task[half], cluster[half]), (y[~half], task[~half], cluster[~half])]
        else:
            one, two = first.draw(rng), second.draw(rng)
            parts = [one, (two[0], two[1], two[2] + 10_000)]
        return ratio_difference(*(stratified_mean(_columns(y), task, cluster) for y, task, cluster in parts))

    values = []
    for world in (first, first if shared else second):
        teacher, student, base = world.truth()
        values.append((student - base) / (teacher - base))
    return float(values[0] - values[1]), draw


def _bootstrap(first: World, second: World):
    """The same by resampling clusters, for comparison."""
    truth, _ = _difference(first, second, shared=False)

    def draw(rng: np.random.Generator) -> Estimate:
        one, two = first.draw(rng), second.draw(rng)
        low, high = bootstrap_ratio_difference(
            (_columns(one[0]), one[1]),
            (_columns(two[0]), two[1]),
            (one[2], two[2] + 10_000),
            rng=rng,
            n_resamples=400,
        )
        return Estimate(estimate=0.0, conf_low=low, conf_high=high)

    return truth, draw


def _columns(y: np.ndarray) -> np.ndarray:
    return np.column_stack([y[:, 1] - y[:, 2], y[:, 0] - y[:, 2]])


_PAIR = ((1.4,), (0.9,))
_TASKS = ((2.2, 1.4, 0.6), (1.6, 0.5, 0.0))
_TRIO = ((1.9, 1.4), (1.2, 0.6), (-0.6, -1.0))
_WEAK = ((1.9, 1.4), (0.2, -0.3), (-0.6, -1.0))


def cells(*, bootstrap: bool = True) -> list[Cell]:
    """The scenarios, in the order of the table."""
    made = []
    for g in (6, 12, 30, 100):
        made.append((f"paired gap, {g} unequal clusters", _gap(World(_PAIR, n_clusters=g))))
    made.append(("paired gap, 100 items alone", _gap(World(_PAIR, n_items=100))))
    made.append(("paired gap, 20 items alone (Tango)", _gap(World(_PAIR, n_items=20))))
    made.append(("paired gap, 200 items, hardly any discordant (Tango)", _gap(World(((3.5,), (3.4,)), n_items=200))))
    made.append(("paired gap, 3 tasks of 30 items, equal weights", _gap(World(_TASKS, n_items=90))))
    made.append(("paired gap, 3 tasks over 30 clusters", _gap(World(_TASKS, n_clusters=30))))
    sizes = (60, 100, 140)
    for gained, lost in ((0.01, 0.0), (0.008, 0.002), (0.02, 0.005)):
        name = f"paired gap, 3 tasks of 60, 100, 140; ahead on {100 * gained:g} %, behind on {100 * lost:g} % (Tango)"
        made.append((name, _rarely_differs(gained, lost, sizes)))
    for g in (12, 30):
        made.append((f"accuracy, {g} unequal clusters", _accuracy(World(_PAIR, n_clusters=g))))
    made.append(("accuracy, 3 tasks of 20 items, near 0.97", _accuracy(World(((4.5, 5.0, 4.2),), n_items=60))))
    for g in (6, 12, 30, 100):
        made.append((f"gap closure, 2 tasks over {g} unequal clusters", _closure(World(_TRIO, n_clusters=g))))
    made.append(("gap closure, 2 tasks of 50 items", _closure(World(_TRIO, n_items=100))))
    made.append(("gap closure, 2 tasks of 200 items", _closure(World(_TRIO, n_items=400))))
    for g in (12, 30, 100):
        pair = World(_TRIO, n_clusters=g), World(_WEAK, n_clusters=g)
        made.append((f"closure difference, {g} + {g} clusters", _difference(*pair, shared=False)))
    made.append(
        (
            "closure difference, 100 + 100 items alone",
            _difference(World(_TRIO, n_items=100), World(_WEAK, n_items=100), shared=False),
        )
    )
    for g in (12, 30):
        world = World(_TRIO, n_clusters=g, n_items=400)
        made.append((f"closure difference, {g} clusters span both", _difference(world, world, shared=True)))
    one_of_ten = (0.15, *[0.0025] * 9)
    made.append(
        (
            "paired gap, most differences in the smallest of ten tasks",
            _rarely_differs(one_of_ten, one_of_ten, (10, *[50] * 9)),
        )
    )
    made.append(
        (
            "paired gap, tasks of 20 and 200, 30 and 1 % discordant",
            _rarely_differs((0.15, 0.005), (0.15, 0.005), (20, 200)),
        )
    )
    made.append(("paired gap, a task of 10 beside three of 200", _rarely_differs(0.18, 0.02, (10, 200, 200, 200))))
    made.append(("gap closure, 200 items, a copy of the teacher but for 2 %", _near_copy(0.02, 200)))
    for g, size, gained, lost in ((200, 2, 0.02, 0.0), (100, 3, 0.02, 0.005), (60, 5, 0.03, 0.01)):
        name = f"paired gap, {g} clusters of {size}, ahead on {100 * gained:g} %, behind on {100 * lost:g} %"
        made.append((name, _few_clusters_differ(gained, lost, g, size, 0.8)))
    if bootstrap:
        pair = World(_TRIO, n_clusters=12), World(_WEAK, n_clusters=12)
        made.append(("for comparison: the same by percentile bootstrap, 12 + 12 clusters", _bootstrap(*pair)))
    return [Cell(name, truth, draw) for name, (truth, draw) in made]


def simulate(cell: Cell, n: int, seed: int) -> Result:
    """`n` replicates of one cell."""
    rng = np.random.default_rng(seed)
    started = time.perf_counter()
    covered, widths = 0, []
    for _ in range(n):
        found = cell.draw(rng)
        if found.status != "ok" or not np.isfinite(found.conf_high - found.conf_low):
            continue
        covered += found.conf_low <= cell.truth <= found.conf_high
        widths.append(found.conf_high - found.conf_low)
    width = float(np.median(widths)) if widths else float("nan")
    return Result(cell.name, n, covered, len(widths), width, time.perf_counter() - started)


def table(results: list[Result]) -> str:
    """The results as Markdown."""
    adjusted = holm([result.p_value for result in results])
    lines = [
        "| scenario | coverage | Monte-Carlo s.e. | median width | refused | p (coverage ≥ 94 %), Holm |",
        "|---|---|---|---|---|---|",
    ]
    for result, p in zip(results, adjusted, strict=True):
        lines.append(
            f"| {result.name} | {100 * result.coverage:.1f} % | {100 * result.error:.1f} | {result.width:.3f} | "
            f"{100 * (1 - result.told / result.n):.1f} % | {p:.2g} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    results = []
    for seed, cell in enumerate(cells()):
        results.append(simulate(cell, n if "bootstrap" not in cell.name else min(n, 1000), seed))
        print(f"{results[-1].name}: {results[-1].seconds:.0f} s", file=sys.stderr)
    print(table(results))


if __name__ == "__main__":
    main()
