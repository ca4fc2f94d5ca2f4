"""Coverage beyond the main table: ``python -m tests.stats.mixed.further_coverage [N] [CELL]``.

Students that share bases, numbers about *these tasks*, intervals of the standard deviations, how often the estimators
of one number are said to disagree where nothing is wrong, and what guessing does to the plain logit and to the link
that knows of it. CELL picks the cells whose name contains it; a cell's table is printed when it is done.
"""

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats

from capgap.stats import holm
from capgap.stats.mixed import fit_mixed
from capgap.stats.mixed.alternative_estimators import adapt_population
from tests.stats.mixed.coverage import FLOOR, VARIANCES, WATCHED
from tests.stats.mixed.margins_coverage import BOTH, EXAMPLES, true_effects
from tests.stats.mixed.world import ADAPTATION, CAPABILITY, FORMULA, TRUTH, Study

Told = dict[str, float]
"""What one replicate gave: names to 1 or 0, NaN where it was refused."""


@dataclass(frozen=True)
class Cell:
    """A world and what is asked of each of its draws."""

    study: Study
    hits: Callable[[Study, int], Told]


def _hit(estimate, truth: float) -> float:
    if estimate is None or estimate.status != "ok":
        return np.nan
    return float(estimate.conf_low <= truth <= estimate.conf_high)


def coefficients(study: Study, seed: int) -> Told:
    """The four of the main table, of tasks like these."""
    fit = fit_mixed(FORMULA, study.draw(seed), alternatives=False)
    return {name: _hit(fit.coefficients.get(c), TRUTH[c]) for name, c in WATCHED.items()}


def these_tasks(study: Study, seed: int) -> Told:
    """The same of the tasks that were drawn, as the fit itself decides for so few."""
    grid, tasks = study.draw_with_tasks(seed)
    truth, fit = tasks.coefficients(), fit_mixed(FORMULA, grid, alternatives=False)
    assert fit.population.tasks == "these_tasks"
    return {name: _hit(fit.coefficients.get(c), truth[c]) for name, c in WATCHED.items()}


def deviations(study: Study, seed: int) -> Told:
    """Standard deviations; a true zero is held where the interval begins at zero."""
    fit = fit_mixed(FORMULA, study.draw(seed), alternatives=False)
    truth = {
        "item": study.item,
        "task": study.task,
        "student": study.student,
        "student x capability": study.student_capability,
        "student x task": study.student_task,
        "task x log(n_examples)": study.task_slope,
    }
    return {name: _hit(fit.standard_deviations.get(name), value) for name, value in truth.items()}


def alternatives(study: Study, seed: int) -> Told:
    """Each estimator's interval for two differences of capabilities in score points, and the verdict on them."""
    grid, tasks = study.draw_with_tasks(seed)
    fit, told = fit_mixed(FORMULA, grid), {}
    truths = {"tasks_like_these": true_effects(study), "these_tasks": true_effects(study, tasks)}
    for effect, short in ((EXAMPLES, "n_examples"), (ADAPTATION, "adaptation")):
        found = next(a for a in fit.agreement if (a.effect, a.where) == (effect, BOTH))
        for one in found.alternatives:
            of_tasks = adapt_population(one.estimator, fit.population).tasks
            told[f"{short}, {one.estimator}, {of_tasks}"] = _hit(one.estimate, truths[of_tasks][effect, BOTH])
        told |= {f"{short}: {v}": float(found.verdict == v) for v in ("agree", "differ_in_certainty", "disagree")}
    return told


def guessed(study: Study, seed: int) -> Told:
    """Coefficients under a link with chance, and effects in score points under it and under the plain logit."""
    grid, truth, told = study.draw(seed), true_effects(study), {}
    for link in ("chance", "logit"):
        fit = fit_mixed(FORMULA, grid, link=link, margins=True, alternatives=False)
        told |= {f"link {link}, {n}, logits": _hit(fit.coefficients.get(c), TRUTH[c]) for n, c in WATCHED.items()}
        found = {(m.effect, m.where): m.estimate for m in fit.margins}
        short = {(EXAMPLES, BOTH): "n_examples", (ADAPTATION, BOTH): "adaptation", (CAPABILITY, "all"): "capability"}
        told |= {f"link {link}, {n}, score": _hit(found.get(key), truth[key]) for key, n in short.items()}
    return told


CELLS = {
    "bases, 24 students of 3": Cell(Study(24, base=0.3), coefficients),
    "bases, 60 students of 6": Cell(Study(60, base=0.3), coefficients),
    "these 6 tasks, 12 students": Cell(Study(12, n_tasks=6), these_tasks),
    "these 6 tasks, 24 students": Cell(Study(24, n_tasks=6), these_tasks),
    "these 6 tasks, 24 students, 30 % missing": Cell(Study(24, n_tasks=6, missing=0.3), these_tasks),
    "deviations, 24 students, all": Cell(Study(24), deviations),
    "deviations, 24 students, none": Cell(Study(24, **VARIANCES["none"]), deviations),
    "alternatives, 24 students, all": Cell(Study(24), alternatives),
    "alternatives, 24 students, none": Cell(Study(24, **VARIANCES["none"]), alternatives),
    "reasoning guessed at 0.25, 24 students": Cell(Study(24, chance=0.25), guessed),
}


def main() -> None:
    """Print each cell's shares; p is that of coverage under 94 %, Holm over the cell, and means nothing of verdicts."""
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    wanted = sys.argv[2] if len(sys.argv) > 2 else ""
    print("| cell | what | replicates | share | s.e. | refused | Holm p (≥ 94 %) |")
    print("|" + "---|" * 7, flush=True)
    for index, (name, cell) in enumerate(CELLS.items()):
        if wanted not in name:
            continue
        held: Counter[str] = Counter()
        known: Counter[str] = Counter()
        for r in range(n):
            for what, hit in cell.hits(cell.study, 70_000_000 + 1_000_000 * index + r).items():
                known[what] += bool(np.isfinite(hit))
                held[what] += bool(hit == 1)
        covered = [w for w in known if ":" not in w and known[w]]
        least = dict(zip(covered, holm([stats.binom.cdf(held[w], known[w], FLOOR) for w in covered]), strict=True))
        for what, count in known.items():
            share = held[what] / count if count else np.nan
            error = np.sqrt(share * (1 - share) / count) if count else np.nan
            p = f"{least[what]:.2g}" if what in least else "–"
            print(f"| {name} | {what} | {n} | {share:.3f} | {error:.3f} | {n - count} | {p} |", flush=True)


if __name__ == "__main__":
    main()
