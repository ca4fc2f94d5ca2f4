"""How far more examples carry: data-efficiency curves, data cost, and what the next batch would bring."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from capgap import schema
from capgap.analysis.analysis_sets import AnalysisSets
from capgap.analysis.cohort import Cohort, Recipe
from capgap.analysis.estimate_rows import THESE_TASKS, THIS_RECIPE, EstimateRow
from capgap.analysis.groups import without_strays
from capgap.analysis.score_matrix import ScoreMatrix
from capgap.stats import Estimate, refused
from capgap.stats.curves import (
    CurveData,
    CurveFit,
    CurveTarget,
    DataCost,
    curve_data,
    data_cost,
    fit_curves,
    next_batch,
    relative_data_cost,
)
from capgap.stats.estimate import free_text

__all__ = ["MIN_SIZES", "data_efficiency_rows"]

Floats = NDArray[np.float64]

MIN_SIZES = 3
"""With fewer sizes, the base's zero among them, nobody asks for a curve."""
TARGETS = (CurveTarget(0.5), CurveTarget(0.9), CurveTarget(0.9, "closure"))
"""What examples are priced for."""
_CAPABILITIES = ("knowledge", "reasoning")
_STEPS = ("x_steps", "x_depth")
"""Covariates that count the steps of an item, the first that is there."""
_SCALES = {
    "learning_curve": "score",
    "learning_curve_per_step": "score per step",
    "learning_curve_log_probability": "nats",
}
_POINTS = 25
LARGEST_ROUNDING = 1e-5
"""Of a log-probability."""


@dataclass(frozen=True)
class _RecipeCurve:
    """One recipe's students in one capability."""

    capability: str
    recipe: Recipe
    names: tuple[str, ...]
    """Bases and students, the rows of the outcomes behind the fit."""
    tasks: frozenset[int]
    """Tasks, which count equally."""
    fit: CurveFit | str
    """The fit on the scale of scores, or the reason why there is none."""
    others: tuple[tuple[str, CurveFit], ...]
    """The same curve on other scales: what they are called, and the fit."""


def data_efficiency_rows(
    grid: ScoreMatrix, cohort: Cohort, roles: schema.Roles, excluded: frozenset[str], *, conf_level: float
) -> Iterator[EstimateRow]:
    """`data_cost`, `relative_data_cost`, `next_batch_gain`, `curve` and `curve_point` of every recipe.

    Parameters
    ----------
    grid
        Everybody's outcomes.
    cohort
        The students. A recipe with fewer than `MIN_SIZES` sizes, its base's zero among them, gives no row.
    roles
        Names the teacher, without whom nothing has a price, and the bases.
    excluded
        Tasks that the guard keeps out.
    conf_level
        Of every interval.
    """
    if roles.teacher is None:
        return
    cuts = AnalysisSets(grid)
    for recipe in cohort.recipes():
        curves = [
            curve
            for capability in _CAPABILITIES
            if (curve := _curve(cuts, cohort, roles, recipe, capability, excluded, conf_level)) is not None
        ]
        for curve in curves:
            for row in _rows(curve):
                priced = row.quantity in ("data_cost", "next_batch_gain")
                yield replace(row, estimate=row.estimate.noting(cohort.note)) if priced else row
        if len(curves) == 2:
            yield from _relative(curves[0], curves[1])


def _curve(
    cuts: AnalysisSets,
    cohort: Cohort,
    roles: schema.Roles,
    recipe: Recipe,
    capability: str,
    excluded: frozenset[str],
    conf_level: float,
) -> _RecipeCurve | None:
    """The curve of a recipe in a capability; None where nobody asks for one."""
    names = [name for name in recipe.students if np.isfinite(cohort.size(name, capability))]
    bases = list(dict.fromkeys(roles.base[name] for name in names if name in roles.base))
    sizes = [0.0] * len(bases) + [cohort.size(name, capability) for name in names]
    if len(set(sizes)) < MIN_SIZES or max(sizes) == 0:
        return None
    grid = cuts.grid
    task = np.array(grid.tasks, dtype=object)[grid.task]
    rows = without_strays(
        grid, np.flatnonzero((grid.facts["capability"] == capability) & ~np.isin(task, list(excluded)))
    )
    columns = [grid.column(name) for name in (*bases, *names)]
    seeds = [f"base {n}" for n in range(len(bases))] + [str(_seed(cohort, name)) for name in names]
    answered = cuts.select(rows, [*bases, *names, str(roles.teacher)])
    rows, who = answered.rows, "all of these students and the teacher"
    if too_few := answered.too_few(who):
        return _RecipeCurve(capability, recipe, (), frozenset(), too_few, ())
    redrawn = len({seed for seed in seeds if not seed.startswith("base")}) > 1

    def fitted(values: Floats, at: NDArray[np.int64], **options: object) -> CurveFit:
        data: CurveData = curve_data(
            values[at][:, columns].T,
            values[at, grid.column(str(roles.teacher))],
            sizes,
            seeds=seeds,
            tasks=grid.task[at],
            clusters=grid.cluster[at],
            redrawn=redrawn,
            **options,  # type: ignore[arg-type]
        )
        fit = fit_curves(data, conf_level=conf_level)
        return replace(fit, notes=(*filter(None, [answered.told(who)]), *fit.notes))

    fit = fitted(grid.scores, rows, chance=grid.chance[rows])
    others = []
    steps = _steps(grid, rows)
    binary = np.isin(grid.scores[rows][:, columns], (0.0, 1.0)).all()
    if steps is not None and binary and np.unique(steps).size > 1:
        others.append(
            (
                "learning_curve_per_step",
                fitted(grid.scores, rows, chance=grid.chance[rows], scale="per_step", steps=steps),
            )
        )
    told = rows[np.isfinite(grid.logprobs[rows][:, [*columns, grid.column(str(roles.teacher))]]).all(axis=1)]
    if len(told):
        # A certain answer may stand a rounding above zero.
        logprobs = np.where(grid.logprobs > LARGEST_ROUNDING, grid.logprobs, np.minimum(grid.logprobs, 0.0))
        others.append(("learning_curve_log_probability", fitted(logprobs, told, scale="log_probability")))
    tasks = frozenset(grid.task[rows].tolist())
    return _RecipeCurve(capability, recipe, (*bases, *names), tasks, fit, tuple(others))


def _seed(cohort: Cohort, student: str) -> object:
    facts = cohort.facts[student]
    return facts.get("data_seed", facts.get("seed", 0))


def _steps(grid: ScoreMatrix, rows: NDArray[np.int64]) -> Floats | None:
    """The number of steps of each item, where a covariate counts them for all."""
    for name in _STEPS:
        if name not in grid.covariates:
            continue
        words = grid.covariates[name][rows]
        first = [next((str(word) for word in row if word is not None), "") for row in words]
        try:
            found = np.array([float(word) for word in first])
        except ValueError:
            continue  # binned, or no number
        if (found >= 1).all() and (found == found.round()).all():
            return found
    return None


def _blank(curve: _RecipeCurve) -> EstimateRow:
    return EstimateRow(
        quantity="data_cost",
        level="capability",
        group=curve.capability,
        model=None,
        estimate=refused(""),
        n_tasks=len(curve.tasks),
        factors=curve.recipe.factors,
        scale="examples",
        weighting="tasks",
        subject="recipe",
        estimator="learning_curve",
        population=THIS_RECIPE,
        n_students=len(curve.recipe.students),
    )


def _rows(curve: _RecipeCurve) -> Iterator[EstimateRow]:
    blank = _blank(curve)
    if isinstance(curve.fit, str):
        yield replace(blank, estimate=refused(curve.fit))
        return
    scored = [("learning_curve", curve.fit), *curve.others]
    for name, fit in scored:
        for target in TARGETS if name != "learning_curve_log_probability" else TARGETS[2:]:
            cost = data_cost(fit, target)
            yield replace(
                blank,
                contrast=_words(target),
                factors=(*blank.factors, *_codes(target)),
                estimator=name,
                estimate=_priced(cost, fit),
                alternative="less",
            )
        batch = next_batch(fit)
        estimate = Estimate(
            batch.estimate,
            conf_low=batch.conf_low,
            conf_high=batch.conf_high,
            n_items=batch.n_items,
            n_clusters=batch.n_clusters,
            method="GLS profile, union of forms",
            status=batch.status,
            remarks=free_text(batch.note),
        )
        told = f"{batch.size_from:,.0f} → {batch.size_to:,.0f} examples"
        sizes = (("n_examples_from", batch.size_from), ("n_examples_to", batch.size_to))
        yield replace(
            blank,
            quantity="next_batch_gain",
            contrast=told,
            factors=(*blank.factors, *sizes),
            estimator=name,
            estimate=estimate,
            scale=_SCALES[name],
        )
    yield from _drawn(curve.fit, blank, curve.names)


def _words(target: CurveTarget) -> str:
    return f"{100 * target.share:g} % {target.kind}"


def _codes(target: CurveTarget) -> tuple[tuple[str, float | str], ...]:
    return ("target", target.share), ("target_scale", target.kind)


def _priced(cost: DataCost, fit: CurveFit) -> Estimate:
    """A data cost as an estimate; an end that is open is unknown, and so is the cost of what is never reached."""
    finite = np.isfinite([cost.estimate, cost.conf_high])
    notes = [cost.note]
    if cost.status != "refused":
        # "p that it is never reached" would be read as a probability, and the wrong way round.
        notes.append(
            f"{cost.leading} form leads; p = {cost.p_never:.2g} that the target is within reach (small: never)"
        )
        if not finite[0]:
            notes.append("by the leading form never reached")
    return Estimate(
        cost.estimate if finite[0] else np.nan,
        conf_low=cost.conf_low,
        conf_high=cost.conf_high if finite[1] else np.nan,
        p_value=cost.p_never,
        n_items=cost.n_items,
        n_clusters=cost.n_clusters,
        method="GLS profile, union of forms",
        status=cost.status,
        remarks=free_text("; ".join(note for note in notes if note) or fit.no_law),
    )


def _drawn(fit: CurveFit, blank: EstimateRow, names: tuple[str, ...]) -> Iterator[EstimateRow]:
    """The points and the leading curve, for a figure."""
    sizes = fit.data.sizes
    spread = np.sqrt(np.diag(fit.data.covariance))
    for n, size in enumerate(sizes):
        yield replace(
            blank,
            quantity="curve_point",
            scale="score",
            model=names[fit.data.students[n]],
            subject="model",
            population=THESE_TASKS,
            factors=(*blank.factors, ("n_examples", f"{size:g}")),
            estimate=Estimate(float(fit.data.means[n]), std_error=float(spread[n]), n_items=fit.data.n_items),
            n_students=1,
        )
    leading = fit.leading
    if leading is None:
        return
    low = sizes[sizes > 0].min() / 4
    for size in (0.0, *np.geomspace(low, 2 * sizes.max(), _POINTS - 1)):
        yield replace(
            blank,
            quantity="curve",
            scale="score",
            contrast=f"{leading.form.name} form",
            factors=(*blank.factors, ("n_examples", f"{size:.6g}")),
            estimate=Estimate(float(leading.predict([size])[0]), n_items=fit.data.n_items),
        )


def _relative(first: _RecipeCurve, second: _RecipeCurve) -> Iterator[EstimateRow]:
    """What reasoning costs for what knowledge costs."""
    if isinstance(first.fit, str) or isinstance(second.fit, str):
        return
    for target in TARGETS[:2]:
        found = relative_data_cost(second.fit, first.fit, target, names=(second.capability, first.capability))
        # A ratio of which one cost is never met, or met without an example, is no number: zero would stand for unknown.
        told = all(0 < cost.estimate < np.inf for cost in found.costs)
        finite = np.isfinite([found.estimate, found.conf_high])
        estimate = Estimate(
            found.estimate if finite[0] and told else np.nan,
            conf_low=found.conf_low,
            conf_high=found.conf_high if finite[1] else np.nan,
            p_value=found.p_value,
            null_value=1.0,
            n_items=sum(cost.n_items for cost in found.costs),
            n_clusters=sum(cost.n_clusters for cost in found.costs),
            method="joint GLS profile, union of forms",
            status=found.status,
            remarks=free_text(found.note),
        )
        yield replace(
            _blank(first),
            quantity="relative_data_cost",
            n_tasks=len(first.tasks | second.tasks),
            level="battery",
            group=f"{second.capability} / {first.capability}",
            contrast=_words(target),
            factors=(*first.recipe.factors, *_codes(target)),
            scale="ratio",
            estimate=estimate,
        )
