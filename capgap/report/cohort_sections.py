"""Sections about several students, and about failures: tables, and the curves of data efficiency."""

from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from capgap.report import svg, text
from capgap.report.tables import EstimateIndex, EstimateView, ShownTable, capability_colour, estimate_table
from capgap.schema import Roles

_MAX_CURVE_PANELS = 12
_RECIPE_QUANTITIES = ("gap_closure", "retention", "gap", "gain", "lost", "gained", "items_lost", "items_gained")

_AMONG_RIGHT_ANSWERS = "right_answers_with_trace"
"""The factor ``among`` of error types that are shares of right answers; all others are shares of wrong ones."""


@dataclass(frozen=True)
class CohortReportSections:
    """The sections about several students and about failures; what is empty is not shown."""

    effects: tuple[ShownTable, ...]
    """Effects of how students were made, in points, then the same by alternative estimators."""
    model: tuple[ShownTable, ...]
    """Coefficients and standard deviations of the mixed model."""
    curves: tuple[Markup, ...]
    """One panel a recipe and capability."""
    costs: tuple[ShownTable, ...]
    """Data cost, relative cost, the next batch."""
    recipes: tuple[ShownTable, ...]
    """Contrasts of recipes, their own numbers over their seeds, what finer levels add."""
    students: tuple[ShownTable, ...]
    """Pairs of students that no recipe holds."""
    flips: tuple[ShownTable, ...]
    """Lost and gained of each student, and equivalence."""
    failures: tuple[ShownTable, ...]
    """Types of wrong answers, and odds of failure."""
    patterns: tuple[ShownTable, ...]
    """Items on which students fail alike."""


def gather_cohort_sections(lookup: EstimateIndex, roles: Roles) -> CohortReportSections:
    """Gather the sections from the estimates, rows told apart by quantity, estimator and subject."""
    effects, alternate_effects = _split_by_estimator(lookup.of("effect", "effect_difference"))
    costs, alternate_costs = _split_by_estimator(lookup.of("data_cost"))
    batches, other_batches = _split_by_estimator(lookup.of("next_batch_gain", "doubling_rise"))
    scores, other_scores = _split_by_estimator(lookup.of("next_size_score", "new_student_score"))
    recipes, finer_recipes = _split_by_level(r for r in lookup.of(*_RECIPE_QUANTITIES) if r.subject == "recipe")
    contrasts, finer_contrasts = _split_by_level(lookup.of("recipe_contrast"))
    right_answer_rows = [row for row in lookup.of("error_type") if row.factors.get("among") == _AMONG_RIGHT_ANSWERS]
    wrong_answer_rows = [row for row in lookup.of("error_type") if row.factors.get("among") != _AMONG_RIGHT_ANSWERS]
    flips, equivalence_rows = (
        [row for row in rows if row.model in roles.students and row.level in ("battery", "capability")]
        for rows in (lookup.of("lost", "gained"), lookup.of("equivalence"))
    )
    return CohortReportSections(
        effects=_make_estimate_tables(
            (effects, "What made students better, in score points"), (alternate_effects, "The same by other estimators")
        ),
        model=_make_estimate_tables(
            (lookup.of("coefficient"), "Coefficients, on the logit scale"),
            (lookup.of("spread"), "Standard deviations of the random terms, on the logit scale"),
        ),
        curves=tuple(_draw_curve_panels(lookup, costs, roles.teacher)),
        costs=_make_estimate_tables(
            (costs, "Unique examples that a share of the teacher costs"),
            (lookup.of("relative_data_cost"), "What reasoning costs for what knowledge costs"),
            (batches, "What twice the examples brought so far, and would bring"),
            (scores, "The score at twice the examples: of the recipe, and of one new student"),
            ([*alternate_costs, *other_batches, *other_scores], "The same on other scales"),
        ),
        recipes=_make_estimate_tables(
            (contrasts, "Recipes against each other"),
            (recipes, "What holds for a recipe, whichever seed"),
            (lookup.of("seed_signal"), "Which tasks can tell these recipes apart"),
            (finer_contrasts, "The best recipe against the others, by domain and task: exploratory"),
            (finer_recipes, "Recipes by domain, task and slice"),
        ),
        students=_make_estimate_tables((lookup.of("student_contrast"), "Single students against each other")),
        flips=_make_estimate_tables(
            (flips, "Lost and gained against the base"),
            (equivalence_rows, "Equivalence: as good as the teacher"),
            models=roles.students,
            omitted=("null", "clusters"),
        ),
        failures=_make_estimate_tables(
            (wrong_answer_rows, "Types of wrong answers"),
            (right_answer_rows, "Right answers by wrong steps, among those with a trace"),
            (lookup.of("failure_odds"), "What goes with failure: odds ratios"),
            models=roles.students,
        ),
        patterns=_make_estimate_tables(
            (lookup.of("n_patterns", "pattern", "pattern_excess"), "Items on which students fail alike"),
            omitted=("null", "clusters", "items", "group", "method", "population"),
        ),
    )


def _split_by_estimator(rows: Sequence[EstimateView]) -> tuple[list[EstimateView], list[EstimateView]]:
    """The rows of the declared estimator, and those of others."""
    declared_rows = [row for row in rows if not row.is_sensitivity_analysis]
    return declared_rows, [row for row in rows if row.is_sensitivity_analysis]


def _split_by_level(rows: Iterable[EstimateView]) -> tuple[list[EstimateView], list[EstimateView]]:
    """The rows of battery and capability, and those of finer levels."""
    all_rows = list(rows)
    coarse_rows = [row for row in all_rows if row.level in ("battery", "capability")]
    return coarse_rows, [row for row in all_rows if row.level not in ("battery", "capability")]


def _make_estimate_tables(
    *titled_rows: tuple[list[EstimateView], str], models: Sequence[str] = (), omitted: Collection[str] = ("null",)
) -> tuple[ShownTable, ...]:
    return tuple(
        estimate_table(rows, caption=caption, models=models, omitted=omitted) for rows, caption in titled_rows if rows
    )


def _draw_curve_panels(lookup: EstimateIndex, costs: Sequence[EstimateView], teacher: str | None) -> Iterator[Markup]:
    """Points of the students, the average curve and the teacher, for each recipe and capability."""
    curves: dict[Hashable, list[EstimateView]] = {}
    for row in lookup.of("curve_point", "curve"):
        curves.setdefault(_make_curve_key(row), []).append(row)
    for number, (key, rows) in enumerate(list(curves.items())[:_MAX_CURVE_PANELS]):
        cost_rows = [row for row in costs if _make_curve_key(row) == key]
        teacher_row = lookup.find("accuracy", "capability", rows[0].group, teacher) if teacher else None
        yield _draw_curve_panel(rows, cost_rows, teacher_row, prefix=f"curve{number}")


def _make_curve_key(row: EstimateView) -> Hashable:
    """Capability and recipe: what a point, the curve through it and its price have in common."""
    return row.group, *_recipe_without_size(row).items()


def _recipe_without_size(row: EstimateView) -> dict[str, str]:
    """The recipe of every size that a point, a curve or a price belongs to."""
    return {name: value for name, value in row.recipe.items() if name != "n_examples"}


def _draw_curve_panel(
    rows: Sequence[EstimateView], cost_rows: Sequence[EstimateView], teacher_row: EstimateView | None, *, prefix: str
) -> Markup:
    """One drawing; `teacher_row` is the teacher's accuracy, `cost_rows` stand in its label for the blind."""
    capability = rows[0].group
    colour = svg.COLOURS[capability_colour(capability)]
    points = _extract_curve_points(rows, "curve_point")
    positive = [size for size, _ in points if size > 0]
    zero = min(positive) / 4  # where no example stands on a logarithmic axis
    # A size that falls on the place of zero is left out there: the base stands on it.
    line = [(size, y) for size, y in sorted(_extract_curve_points(rows, "curve")) if size == 0 or size > 1.01 * zero]
    with svg.plot_style():
        title = text.shorten(", ".join((capability, *_recipe_without_size(rows[0]).values())), 44)
        figure, axes = svg.make_figure(330, 220, title=title, left=38, right=14, top=34, bottom=40)
        axes.set_xscale("log")
        if line:
            axes.plot(
                [max(size, zero) for size, _ in line], [y for _, y in line], color=colour, linewidth=1.8, zorder=3
            )
        mark_positions = [max(size, zero) for size, _ in points], [y for _, y in points]
        svg.points(axes, *mark_positions, colour=colour, size=30, zorder=4)
        heights = [y for _, y in (*points, *line)]
        if teacher_row is not None and teacher_row.estimate is not None:
            heights.append(100 * teacher_row.estimate)
            axes.axhline(100 * teacher_row.estimate, color=svg.INK, linewidth=1.4, zorder=2)
        # Less than twenty points fill the height: noise must not look like a law.
        centre, span = (min(heights) + max(heights)) / 2, max(max(heights) - min(heights), 20.0)
        axes.set_ylim(centre - 0.56 * span, centre + 0.56 * span)
        x_ticks = sorted({zero, min(positive), max(positive)})
        axes.set_xticks(x_ticks, ["0" if x_tick == zero else f"{x_tick:,.0f}" for x_tick in x_ticks])
        axes.minorticks_off()
        axes.set_xlim(zero / 1.3, 2.4 * max(positive))
        axes.set(xlabel="unique examples", ylabel="")
        axes.grid(visible=True, axis="y")
        prices = "; ".join(f"{row.contrast_label}: {row.shown_with_interval}" for row in cost_rows)
        return svg.inline_svg(figure, prefix=prefix, label=f"accuracy by unique examples, {title}. {prices}")


def _extract_curve_points(rows: Sequence[EstimateView], quantity: str) -> list[tuple[float, float]]:
    """Number of examples and accuracy in per cent, by row."""
    quantity_rows = (row for row in rows if row.quantity == quantity)
    return [(float(row.factors.get("n_examples", 0)), 100 * (row.estimate or 0.0)) for row in quantity_rows]
