"""Data efficiency of recipes: curves of accuracy over examples, data costs, and the gain of the next batch."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from capgap import schema
from capgap.analysis.analysis_sets import SubsetCache
from capgap.analysis.cohort import Cohort, Recipe
from capgap.analysis.estimate_rows import THESE_TASKS, THIS_RECIPE_POPULATION, EstimateRow, KeyValuePairs
from capgap.analysis.groups import CAPABILITY_DUO, find_group
from capgap.analysis.score_matrix import Floats, Ints, ScoreMatrix
from capgap.schema.remarks import Reason, Remark, remark
from capgap.stats import Estimate, refused
from capgap.stats.curves import (
    CurveFit,
    CurveTarget,
    DataCost,
    curve_data,
    doubling_rise,
    estimate_data_cost,
    expected_score,
    fit_curves,
    new_student_score,
    next_batch,
    relative_data_cost,
)

__all__ = ["MIN_CURVE_SIZES", "data_efficiency_rows"]


MIN_CURVE_SIZES = 3
"""With fewer sizes, the base's zero among them, nobody asks for a curve."""
CURVE_TARGETS = (CurveTarget(0.5), CurveTarget(0.9), CurveTarget(0.9, "closure"))
"""What examples are priced for."""
_STEP_COVARIATES = ("x_steps", "x_depth")
"""Covariates that count the steps of an item, the first that is there."""
_SCALE_BY_ESTIMATOR = {
    "learning_curve": "score",
    "learning_curve_per_step": "score per step",
    "learning_curve_log_probability": "nats",
}
"""Estimator → the scale of its scores and of their gains."""
_COHORT_REMARKED = ("data_cost", "next_batch_gain", "doubling_rise", "next_size_score", "new_student_score")
"""Quantities that say which students were left out."""
_N_CURVE_POINTS = 25
LARGEST_ROUNDING = 1e-5
"""Of a log-probability."""


@dataclass(frozen=True)
class _RecipeCurveFits:
    """One recipe's students in one capability."""

    capability: str
    recipe: Recipe
    models: tuple[str, ...]
    """Bases and students, the rows of the outcomes behind the fits."""
    tasks: frozenset[int]
    """Tasks, which count equally."""
    fits: dict[str, CurveFit]
    """Estimator → fit; first the one on the scale of scores, without which there is none."""
    refusal: tuple[Remark, ...] = ()
    """Why there is no fit."""


def data_efficiency_rows(
    grid: ScoreMatrix, cohort: Cohort, roles: schema.Roles, excluded: frozenset[str], *, conf_level: float
) -> Iterator[EstimateRow]:
    """Data costs, their ratio, gains, scores at the next size, and the figure's rows, of every recipe.

    Parameters
    ----------
    grid
        Everybody's outcomes.
    cohort
        The students. A recipe with fewer than `MIN_CURVE_SIZES` sizes, its base's zero among them, gives no row.
    roles
        Names the teacher, without whom nothing has a price, and the bases.
    excluded
        Tasks left out for unreadable answers.
    conf_level
        Of every interval.
    """
    if roles.teacher is None:
        return
    subsets = SubsetCache(grid)
    for recipe in cohort.recipes():
        curves = []
        for capability in CAPABILITY_DUO:
            rows = find_group(grid, "capability", capability, excluded).rows
            if curve := _fit_recipe_curve(subsets, cohort, roles, recipe, capability, rows, conf_level):
                curves.append(curve)
        for curve in curves:
            for row in _curve_rows(curve):
                is_remarked = row.quantity in _COHORT_REMARKED
                yield replace(row, estimate=row.estimate.noting(*cohort.remarks)) if is_remarked else row
        if len(curves) == 2:
            yield from _relative_cost_rows(curves[0], curves[1])


def _fit_recipe_curve(
    subsets: SubsetCache,
    cohort: Cohort,
    roles: schema.Roles,
    recipe: Recipe,
    capability: str,
    rows: Ints,
    conf_level: float,
) -> _RecipeCurveFits | None:
    """The curve of a recipe in a capability, whose cells are `rows`; None where nobody asks for one."""
    grid, teacher = subsets.grid, str(roles.teacher)
    students = [name for name in recipe.students if np.isfinite(cohort.size(name, capability))]
    bases = list(dict.fromkeys(roles.base[name] for name in students if name in roles.base))
    models = (*bases, *students)
    sizes = [0.0] * len(bases) + [cohort.size(name, capability) for name in students]
    if len(set(sizes)) < MIN_CURVE_SIZES or max(sizes) == 0:
        return None
    role_names = ("teacher", "base", "students")
    common_cells = subsets.select(rows, [*models, teacher])
    if refusal := common_cells.refusal(role_names):
        return _RecipeCurveFits(capability, recipe, (), frozenset(), {}, refusal)
    rows, columns = common_cells.rows, [grid.column(name) for name in models]
    facts = [cohort.facts[name] for name in students]
    seeds_of_students = [str(known_entries.get("data_seed", known_entries.get("seed", 0))) for known_entries in facts]
    # Bases share no seed with students, nor with each other.
    seeds = [*(f"base {n}" for n in range(len(bases))), *seeds_of_students]

    def fit(values: Floats, cells: Ints, **options: object) -> CurveFit:
        data = curve_data(
            values[cells][:, columns].T,
            values[cells, grid.column(teacher)],
            sizes,
            seeds=seeds,
            tasks=grid.task[cells],
            clusters=grid.cluster[cells],
            has_redrawn_subsets=len(set(seeds_of_students)) > 1,
            **options,  # type: ignore[arg-type]
        )
        fitted = fit_curves(data, conf_level=conf_level)
        return replace(fitted, remarks=(*common_cells.get_share_remarks(role_names), *fitted.remarks))

    fits = {"learning_curve": fit(grid.scores, rows, chance=grid.chance[rows])}
    steps = _count_steps(grid, rows)
    scores_are_binary = np.isin(grid.scores[rows][:, columns], (0.0, 1.0)).all()
    if steps is not None and scores_are_binary and np.unique(steps).size > 1:
        fits["learning_curve_per_step"] = fit(
            grid.scores, rows, chance=grid.chance[rows], scale="per_step", steps=steps
        )
    known_entries = rows[np.isfinite(grid.logprobs[rows][:, [*columns, grid.column(teacher)]]).all(axis=1)]
    if len(known_entries):
        # A certain answer may stand a rounding above zero.
        logprobs = np.where(grid.logprobs > LARGEST_ROUNDING, grid.logprobs, np.minimum(grid.logprobs, 0.0))
        fits["learning_curve_log_probability"] = fit(logprobs, known_entries, scale="log_probability")
    return _RecipeCurveFits(capability, recipe, models, frozenset(grid.task[rows].tolist()), fits)


def _count_steps(grid: ScoreMatrix, rows: Ints) -> Floats | None:
    """The number of steps of each item, shape (rows,), where a covariate counts them for all."""
    for name in _STEP_COVARIATES:
        if name not in grid.covariates:
            continue
        labels = grid.covariates[name][rows]
        known_labels = [next((str(label) for label in cell_labels if label is not None), "") for cell_labels in labels]
        try:
            steps = np.array([float(label) for label in known_labels])
        except ValueError:
            continue  # binned, or no number
        if (steps >= 1).all() and (steps == steps.round()).all():
            return steps
    return None


def _blank_row(curve: _RecipeCurveFits) -> EstimateRow:
    return EstimateRow(
        quantity="data_cost",
        level="capability",
        group=curve.capability,
        model=None,
        estimate=refused(*curve.refusal),
        n_tasks=len(curve.tasks),
        factors=curve.recipe.factors,
        scale="examples",
        weighting="tasks",
        subject="recipe",
        estimator="learning_curve",
        population=THIS_RECIPE_POPULATION,
        n_students=len(curve.recipe.students),
    )


def _curve_rows(curve: _RecipeCurveFits) -> Iterator[EstimateRow]:
    """Costs, gains and scores on every scale, then the points and the average curve for a figure."""
    blank = _blank_row(curve)
    if curve.refusal:
        yield blank
        return
    for estimator, fit in curve.fits.items():
        for target in CURVE_TARGETS if estimator != "learning_curve_log_probability" else CURVE_TARGETS[2:]:
            yield replace(
                blank,
                contrast=_label_target(target),
                factors=(*blank.factors, *_make_target_factors(target), *_laws(fit)),
                estimator=estimator,
                estimate=_cost_estimate(estimate_data_cost(fit, target)),
                alternative="less",
            )
        yield from _gain_rows(fit, replace(blank, estimator=estimator, scale=_SCALE_BY_ESTIMATOR[estimator]))
    yield from _figure_rows(curve.fits["learning_curve"], blank, curve.models)


def _gain_rows(fit: CurveFit, blank: EstimateRow) -> Iterator[EstimateRow]:
    """What twice the examples brought and would bring, and the score there: of the curve, and of one new student."""
    for quantity, gain in (("next_batch_gain", next_batch(fit)), ("doubling_rise", doubling_rise(fit))):
        sizes = ("n_examples_from", gain.size_from), ("n_examples_to", gain.size_to)
        yield replace(
            blank,
            quantity=quantity,
            contrast=f"{gain.size_from:,.0f} → {gain.size_to:,.0f} examples",
            factors=(*blank.factors, *sizes, *_laws(fit)),
            estimate=gain,
        )
    double = 2 * float(fit.data.sizes.max())
    scores = expected_score(fit, double), new_student_score(fit, double)
    for quantity, score in zip(("next_size_score", "new_student_score"), scores, strict=True):
        yield replace(
            blank,
            quantity=quantity,
            contrast=f"{double:,.0f} examples",
            factors=(*blank.factors, ("n_examples_to", double), *_laws(fit)),
            estimate=score,
        )


def _laws(fit: CurveFit) -> KeyValuePairs:
    """The laws that numbers of a fit rest on, by name; none where none fits."""
    return (("laws", list(fit.law_weights)),) if fit.law_weights else ()


def _shared_laws(*fits: CurveFit) -> KeyValuePairs:
    """The laws that a number of several curves rests on, each of them named once."""
    names = list(dict.fromkeys(name for fit in fits for name in fit.law_weights))
    return (("laws", names),) if names else ()


def _label_target(target: CurveTarget) -> str:
    return f"{100 * target.share:g} % {target.kind}"


def _make_target_factors(target: CurveTarget) -> KeyValuePairs:
    return ("target", target.share), ("target_scale", target.kind)


def _cost_estimate(cost: DataCost) -> Estimate:
    """A data cost with what its p-value says, and that of what lies beyond the horizon as unknown."""
    if cost.status == "refused":
        return cost
    return _blank_infinite_ends(
        cost.noting(remark(Reason.WITHIN_TRIED_SIZES, p=cost.p_value, largest=cost.largest_size))
    )


def _blank_infinite_ends(estimate: Estimate) -> Estimate:
    """An infinite cost or upper end is unknown."""
    cost, high = (end if np.isfinite(end) else np.nan for end in (estimate.estimate, estimate.conf_high))
    return replace(estimate, estimate=cost, conf_high=high)


def _figure_rows(fit: CurveFit, blank: EstimateRow, models: tuple[str, ...]) -> Iterator[EstimateRow]:
    """The points and the average curve with its confidence band."""
    sizes = fit.data.sizes
    errors = np.sqrt(np.diag(fit.data.covariance))
    for n, size in enumerate(sizes):
        yield replace(
            blank,
            quantity="curve_point",
            scale="score",
            model=models[fit.data.students[n]],
            subject="model",
            population=THESE_TASKS,
            factors=(*blank.factors, ("n_examples", f"{size:g}")),
            estimate=Estimate(float(fit.data.means[n]), std_error=float(errors[n]), n_items=fit.data.n_items),
            n_students=1,
        )
    if not fit.accepted_fits:
        return
    smallest_plot_size = sizes[sizes > 0].min() / 4  # where a logarithmic axis begins
    for size in (0.0, *np.geomspace(smallest_plot_size, 2 * sizes.max(), _N_CURVE_POINTS - 1)):
        yield replace(
            blank,
            quantity="curve",
            scale="score",
            contrast="average of laws",
            factors=(*blank.factors, ("n_examples", f"{size:.6g}"), *_laws(fit)),
            estimate=_curve_estimate(fit, float(size)),
        )


def _curve_estimate(fit: CurveFit, size: float) -> Estimate:
    """The average curve at a size with its interval alone: what qualifies it stands with its costs and gains."""
    score = expected_score(fit, size)
    return Estimate(
        score.estimate,
        conf_low=score.conf_low,
        conf_high=score.conf_high,
        n_items=score.n_items,
        n_clusters=score.n_clusters,
        method=score.method,
    )


def _relative_cost_rows(knowledge: _RecipeCurveFits, reasoning: _RecipeCurveFits) -> Iterator[EstimateRow]:
    """What reasoning costs for what knowledge costs."""
    if knowledge.refusal or reasoning.refusal:
        return
    reasoning_fit, knowledge_fit = (curve.fits["learning_curve"] for curve in (reasoning, knowledge))
    capabilities = (reasoning.capability, knowledge.capability)
    for target in CURVE_TARGETS[:2]:
        ratio = relative_data_cost(reasoning_fit, knowledge_fit, target, names=capabilities)
        # A ratio of which one cost is never met, or met without an example, is no number: zero would stand for unknown.
        has_finite_costs = all(0 < cost.estimate < np.inf for cost in ratio.costs)
        blank = _blank_row(knowledge)
        yield replace(
            blank,
            quantity="relative_data_cost",
            n_tasks=len(knowledge.tasks | reasoning.tasks),
            level="battery",
            group=" / ".join(capabilities),
            contrast=_label_target(target),
            factors=(*blank.factors, *_make_target_factors(target), *_shared_laws(reasoning_fit, knowledge_fit)),
            scale="ratio",
            estimate=_blank_infinite_ends(ratio if has_finite_costs else replace(ratio, estimate=np.nan)),
        )
