"""Coverage of average marginal effects, in score points: ``python -m tests.stats.mixed.margins_coverage [N]``.

The truth is integrated over the normal random terms of the simulated world by Gauss-Hermite quadrature, from the
world's own coefficients and standard deviations; nothing of the fit goes into it.
"""

import sys
from collections.abc import Callable

import numpy as np
from scipy import stats
from scipy.special import expit

from capgap.stats import holm
from capgap.stats.mixed import fit_mixed
from tests.stats.mixed.coverage import FLOOR, VARIANCES
from tests.stats.mixed.world import ADAPTATION, CAPABILITY, FORMULA, TRUTH, Study, Tasks

CELLS = {
    (n, name): Study(n, **VARIANCES[name])
    for n in (12, 24)
    for name in ("all", "none", "task slopes", "all, 30 % missing")
}
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(61)
EXAMPLES = "log(n_examples)"
BOTH = "reasoning - knowledge"


def true_effects(study: Study, tasks: Tasks | None = None) -> dict[tuple[str, str], float]:
    """(effect, where) → its value in score, for the students of the study and tasks of its kind, or those given."""
    students = study.students()
    x = np.column_stack(
        [np.log(students["n_examples"]), students["adaptation"] == "lora", np.log(students["n_params"])]
    )
    x = x - x.mean(axis=0)
    b = list(TRUTH.values())
    steady = study.item**2 + study.student**2 + study.student_capability**2 / 4 + study.student_task**2
    slopes = (x * study.task_slope * x[:, 0].std() / x.std(axis=0)) ** 2
    sd = np.sqrt(steady + (study.task**2 + slopes.sum(axis=1) if tasks is None else np.zeros(len(x))))

    def eta(capability: float, at: np.ndarray) -> np.ndarray:
        """Of each student (S,), or of each of the given tasks of the capability and student (K, S)."""
        plain = b[0] + capability * b[1] + at @ b[2:5] + capability * (at @ b[5:8])
        if tasks is None:
            return plain
        half = len(tasks.level) // 2
        part = slice(half) if capability < 0 else slice(half, None)
        return plain + tasks.level[part, None] + tasks.slopes[part] @ at.T

    def mean(f: Callable, values: np.ndarray) -> float:
        return float(np.mean(f(values[..., None] + sd[:, None] * NODES) @ (WEIGHTS / WEIGHTS.sum())))

    def above(capability: float) -> float:
        return 1.0 - study.chance * (capability > 0)

    def score(capability: float) -> float:
        return 1.0 - above(capability) + above(capability) * mean(expit, eta(capability, x))

    def lora(capability: float) -> float:
        full, low = x.copy(), x.copy()
        share = (np.asarray(students["adaptation"]) == "lora").mean()
        full[:, 1], low[:, 1] = -share, 1 - share
        return above(capability) * (mean(expit, eta(capability, low)) - mean(expit, eta(capability, full)))

    def examples(capability: float) -> float:
        step = np.array([1e-4, 0.0, 0.0])
        ends = (mean(expit, eta(capability, x + sign * step)) for sign in (1, -1))
        return above(capability) * (next(ends) - next(ends)) / 2e-4

    return {
        (CAPABILITY, "all"): score(0.5) - score(-0.5),
        (EXAMPLES, "knowledge"): examples(-0.5),
        (EXAMPLES, BOTH): examples(0.5) - examples(-0.5),
        (ADAPTATION, "knowledge"): lora(-0.5),
        (ADAPTATION, BOTH): lora(0.5) - lora(-0.5),
    }


def hits(study: Study, seed: int, truth: dict[tuple[str, str], float]) -> list[float]:
    """Whether each interval holds its truth; NaN where it was refused."""
    fit = fit_mixed(FORMULA, study.draw(seed), margins=True, alternatives=False)
    found = {(m.effect, m.where): m.estimate for m in fit.margins}
    told = [found.get(key) for key in truth]
    return [
        float(e.conf_low <= value <= e.conf_high) if e is not None and e.status == "ok" else np.nan
        for e, value in zip(told, truth.values(), strict=True)
    ]


def main() -> None:
    """Print a line of the table as soon as a cell is done; the last column is over the cell's five effects."""
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    heads = ["capability", "n_examples in knowledge", "its difference", "adaptation in knowledge", "its difference"]
    print("| students | extra variances | replicates | " + " | ".join(heads) + " | refused | Holm p (≥ 94 %) |")
    print("|" + "---|" * (5 + len(heads)))
    for index, ((size, name), study) in enumerate(CELLS.items()):
        truth = true_effects(study)
        table = np.array([hits(study, 50_000_000 + 1_000_000 * index + r, truth) for r in range(n)])
        known = np.isfinite(table)
        p = holm(
            [stats.binom.cdf(np.nansum(column), k.sum(), FLOOR) for column, k in zip(table.T, known.T, strict=True)]
        )
        cells = " | ".join(f"{share:.3f}" for share in np.nanmean(table, axis=0))
        print(f"| {size} | {name} | {n} | {cells} | {int((~known).sum())} | {np.min(p):.2g} |", flush=True)


if __name__ == "__main__":
    main()
