"""Simulated outcomes of a distillation study with known truth, for the tests, the coverage table and the benchmark."""

from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.special import expit

from capgap.stats.mixed import OutcomeGrid

FORMULA = "score ~ capability * (log(n_examples) + adaptation + log(n_params))"
CAPABILITY = "capability[reasoning - knowledge]"
ADAPTATION = "adaptation[lora - full]"
TRUTH = {
    "(Intercept)": 0.3,
    CAPABILITY: -0.5,
    "log(n_examples)": 0.25,
    ADAPTATION: -0.2,
    "log(n_params)": 0.3,
    f"{CAPABILITY}:log(n_examples)": 0.15,
    f"{CAPABILITY}:{ADAPTATION}": 0.0,
    f"{CAPABILITY}:log(n_params)": 0.2,
}
"""Adaptation changes nothing about the capabilities: its interaction shows the type-I error."""
SIZES = {
    12: ((1e3, 8e3, 64e3), (1.0, 3.0)),
    24: ((1e3, 4e3, 16e3, 64e3), (1.0, 3.0, 7.0)),
    60: ((1e3, 3e3, 1e4, 3e4, 1e5), (0.5, 1.0, 2.0, 3.0, 5.0, 7.0)),
    100: ((1e3, 3e3, 1e4, 3e4, 1e5), (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 3.0, 4.0, 7.0, 13.0)),
}
"""Students to their numbers of examples and of parameters; each with full and low-rank adaptation."""


@dataclass(frozen=True)
class Tasks:
    """Drawn tasks, those of knowledge first."""

    level: np.ndarray
    """Of each task, shape (K,)."""
    slopes: np.ndarray
    """Over the centred covariates n_examples, adaptation, n_params, shape (K, 3)."""

    def coefficients(self) -> dict[str, float]:
        """TRUTH plus what these tasks add to it, their effects and slopes averaged within each capability."""
        own = np.column_stack([self.level, self.slopes])
        knowledge, reasoning = own[: len(own) // 2].mean(axis=0), own[len(own) // 2 :].mean(axis=0)
        middle, gap = (knowledge + reasoning) / 2, reasoning - knowledge
        added = np.concatenate([[middle[0], gap[0]], middle[1:], gap[1:]])
        return {name: value + float(a) for (name, value), a in zip(TRUTH.items(), added, strict=True)}


@dataclass(frozen=True)
class Study:
    """Students x tasks x items with standard deviations of every random term."""

    n_students: int = 24
    n_tasks: int = 12
    items_per_task: int = 50
    item: float = 1.2
    task: float = 0.5
    student: float = 0.3
    student_capability: float = 0.3
    student_task: float = 0.25
    task_slope: float = 0.1
    """Per unit of log n_examples; the two other slopes have the same spread over their covariates' ranges."""
    missing: float = 0.0
    base: float = 0.0
    """Of bases, and of base x capability; where it is positive, students of one number of parameters share a base."""
    chance: float = 0.0
    """What guessing gives on the items of reasoning; knowledge is generated, as tables mostly have it."""

    def students(self) -> dict[str, np.ndarray]:
        n, p = SIZES[self.n_students]
        rows = list(product(n, ("full", "lora"), p))
        columns = zip(*rows, strict=True)
        return dict(zip(("n_examples", "adaptation", "n_params"), map(np.array, columns), strict=True))

    def draw(self, seed: int) -> OutcomeGrid:
        """One study's outcomes."""
        return self.draw_with_tasks(seed)[0]

    def draw_with_tasks(self, seed: int) -> tuple[OutcomeGrid, Tasks]:
        """One study's outcomes, and what its tasks are."""
        rng = np.random.default_rng(seed)
        s, k, per = self.n_students, self.n_tasks, self.items_per_task
        students = self.students()
        x = np.column_stack(
            [np.log(students["n_examples"]), students["adaptation"] == "lora", np.log(students["n_params"])]
        )
        x = x - x.mean(axis=0)
        capability = np.where(np.arange(k) < k // 2, -0.5, 0.5)
        b = list(TRUTH.values())
        cell = b[0] + capability[:, None] * b[1] + x @ b[2:5] + capability[:, None] * (x @ b[5:8])
        slopes = rng.normal(0, 1, (k, 3)) * self.task_slope * x[:, 0].std() / x.std(axis=0)
        level = rng.normal(0, self.task, (k, 1))
        cell = cell + level + slopes @ x.T + rng.normal(0, self.student, s)
        cell = cell + capability[:, None] * rng.normal(0, self.student_capability, s)
        cell = cell + rng.normal(0, self.student_task, (k, s))
        eta = np.repeat(cell, per, axis=0).T + rng.normal(0, self.item, k * per)
        if self.base:
            shared = rng.normal(0, self.base, (2, s))[:, np.unique(x[:, 2], return_inverse=True)[1]]
            eta = eta + shared[0][:, None] + np.outer(shared[1], np.repeat(capability, per))
        guess = np.repeat(np.where(capability < 0, 0.0, self.chance), per)
        successes = (rng.random(eta.shape) < guess + (1 - guess) * expit(eta)).astype(np.uint8)
        trials = None
        if self.missing:
            trials = (rng.random(eta.shape) >= self.missing).astype(np.uint8)
            successes *= trials
        task = np.repeat([f"task {t:03d}" for t in range(k)], per)
        names = np.where(capability < 0, "knowledge", "reasoning")
        if self.base:
            students = {**students, "base": np.array([f"base {p:g}" for p in students["n_params"]])}
        known = guess if self.chance else None
        return OutcomeGrid(successes, task, trials, students, {"capability": names}, known), Tasks(level[:, 0], slopes)


def columns_of(grid: OutcomeGrid) -> dict[str, np.ndarray]:
    """The long table of a grid."""
    s, i = (a.ravel() for a in np.indices(grid.successes.shape))
    keep = np.ones(len(s), dtype=bool) if grid.trials is None else np.asarray(grid.trials).ravel() > 0
    s, i = s[keep], i[keep]
    task = np.asarray(grid.task)
    code = np.unique(task, return_inverse=True)[1]
    return {
        "score": grid.successes[s, i].astype(float),
        "student": np.array([f"student {j:03d}" for j in range(len(grid.successes))])[s],
        "item": i,
        "task": task[i],
        **({} if grid.chance is None else {"chance": np.asarray(grid.chance)[i]}),
        **{name: np.asarray(values)[s] for name, values in grid.students.items()},
        **{name: np.asarray(values)[code[i]] for name, values in grid.tasks.items()},
    }
