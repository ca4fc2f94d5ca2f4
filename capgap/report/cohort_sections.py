"""What several students say together, and how they fail: tables, and the curves of data efficiency."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from capgap.report import svg, text
from capgap.report.tables import EstimateIndex, EstimateView, ShownTable, estimate_table
from capgap.schema import Roles

__all__ = ["CohortSections", "cohort_sections"]

_MOST_CURVES = 12


@dataclass(frozen=True)
class CohortSections:
    """The sections about several students and about failures; what is empty is not shown."""

    effects: tuple[ShownTable, ...]
    """How they were made, in points, and the roads to each difference."""
    model: tuple[ShownTable, ...]
    """The mixed model behind it."""
    curves: tuple[Markup, ...]
    """One panel a recipe and capability."""
    costs: tuple[ShownTable, ...]
    """Data cost, relative cost, the next batch."""
    recipes: tuple[ShownTable, ...]
    """What seeds of one recipe say."""
    flips: tuple[ShownTable, ...]
    """Lost and gained, and equivalence."""
    failures: tuple[ShownTable, ...]
    """Types of wrong answers and what goes with failure."""
    patterns: tuple[ShownTable, ...]
    """Items on which students fail alike."""


def cohort_sections(book: EstimateIndex, roles: Roles) -> CohortSections:
    """Gather them from the estimates."""
    effects = [*_rows(book, "effect"), *_rows(book, "effect_difference")]
    plain = [row for row in effects if "road" not in row.factors]
    roads = [row for row in effects if "road" in row.factors]
    costs = [row for row in _rows(book, "data_cost") if "by" not in row.factors]
    others = [
        row for quantity in ("data_cost", "next_batch_gain") for row in _rows(book, quantity) if "by" in row.factors
    ]
    of_recipes = [
        row
        for quantity in ("gap", "gain", "lost", "gained", "items_lost", "items_gained")
        for row in _rows(book, quantity)
        if not row.model and "recipe" in row.population
    ]
    own, equal = (
        [
            row
            for quantity in quantities
            for row in _rows(book, quantity)
            if row.model in roles.students and row.level in ("battery", "capability")
        ]
        for quantities in (("lost", "gained"), ("equivalence",))
    )
    patterns = [*_rows(book, "n_patterns"), *_rows(book, "pattern"), *_rows(book, "pattern_excess")]
    many, kinds = roles.students, _rows(book, "error_type")
    batches = [row for row in _rows(book, "next_batch_gain") if "by" not in row.factors]
    return CohortSections(
        effects=_tables((plain, "What made students better, in score points"), (roads, "The same by other roads")),
        model=_tables(
            (_rows(book, "coefficient"), "Coefficients, on the logit scale"),
            (_rows(book, "spread"), "Standard deviations of the random terms, on the logit scale"),
        ),
        curves=tuple(_curves(book, [roles.teacher] if roles.teacher else [])),
        costs=_tables(
            (costs, "Unique examples that a share of the teacher costs"),
            (_rows(book, "relative_data_cost"), "What reasoning costs for what knowledge costs"),
            (batches, "What twice the examples would bring"),
            (others, "The same on other scales"),
        ),
        recipes=_tables((of_recipes, "What holds for a recipe, whichever seed")),
        flips=_tables(
            (own, "Lost and gained against the base"),
            (equal, "Equivalence: as good as the teacher"),
            models=many,
            without=("null", "clusters"),
        ),
        failures=_tables(
            ([row for row in kinds if "right" not in row.scale], "Types of wrong answers"),
            ([row for row in kinds if "right" in row.scale], "Right answers by wrong steps, among those with a trace"),
            (_rows(book, "failure_odds"), "What goes with failure: odds ratios"),
            models=many,
        ),
        patterns=_tables(
            (patterns, "Items on which students fail alike"), without=("null", "clusters", "items", "group", "method")
        ),
    )


def _rows(book: EstimateIndex, quantity: str) -> list[EstimateView]:
    return [row for row in book.rows if row.quantity == quantity]


def _tables(
    *parts: tuple[list[EstimateView], str], models: Sequence[str] = (), without: Sequence[str] = ("null",)
) -> tuple[ShownTable, ...]:
    return tuple(
        estimate_table(rows, caption=caption, models=models, without=without) for rows, caption in parts if rows
    )


def _curves(book: EstimateIndex, teachers: Sequence[str]) -> Iterator[Markup]:
    """Points of the students, the leading curve and the teacher, for each recipe and capability."""
    found: dict[tuple[str, str], list[EstimateView]] = {}
    for quantity in ("curve_point", "curve"):
        for row in _rows(book, quantity):
            told = {name: value for name, value in row.factors.items() if name != "n_examples"}
            recipe = ", ".join(f"{value}" for value in told.values())
            found.setdefault((row.group, recipe), []).append(row)
    costs = [row for row in _rows(book, "data_cost") if "by" not in row.factors]
    for number, ((capability, recipe), rows) in enumerate(list(found.items())[:_MOST_CURVES]):
        priced = [
            row for row in costs if row.group == capability and ", ".join(map(str, row.factors.values())) == recipe
        ]
        mark = next((book.find("accuracy", "capability", capability, name) for name in teachers), None)
        yield _panel(rows, capability, recipe, priced, mark, prefix=f"curve{number}")


def _panel(
    rows: Sequence[EstimateView],
    capability: str,
    recipe: str,
    priced: Sequence[EstimateView],
    mark: EstimateView | None,
    *,
    prefix: str,
) -> Markup:
    import seaborn

    colour = svg.COLOURS.get(capability, svg.COLOURS["unlabelled"])
    points = [(_size(row), 100 * (row.estimate or 0.0)) for row in rows if row.quantity == "curve_point"]
    positive = [size for size, _ in points if size > 0]
    zero = min(positive) / 4  # where no example stands on a logarithmic axis
    line = sorted((_size(row), 100 * (row.estimate or 0.0)) for row in rows if row.quantity == "curve")
    line = [(size, y) for size, y in line if size == 0 or size > 1.01 * zero]
    with svg.style(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*[Gg]lyph.*missing.*", category=UserWarning)
        figure, axes = svg.canvas(330, 220, left=38, right=14, top=34, bottom=40)
        axes.set_xscale("log")
        if line:
            axes.plot(
                [max(size, zero) for size, _ in line], [y for _, y in line], color=colour, linewidth=1.8, zorder=3
            )
        axes.scatter(
            [max(size, zero) for size, _ in points],
            [y for _, y in points],
            s=30,
            color=colour,
            edgecolor=svg.PAPER,
            linewidth=1.0,
            zorder=4,
        )
        heights = [y for _, y in points] + [y for _, y in line]
        if mark is not None and mark.estimate is not None:
            heights.append(100 * mark.estimate)
            axes.axhline(100 * mark.estimate, color=svg.INK, linewidth=1.4, zorder=2)
        # Less than twenty points fill the height: noise must not look like a law.
        middle, span = (min(heights) + max(heights)) / 2, max(max(heights) - min(heights), 20.0)
        axes.set_ylim(middle - 0.56 * span, middle + 0.56 * span)
        ticks = sorted({zero, min(positive), max(positive)})
        axes.set_xticks(ticks, ["0" if tick == zero else f"{tick:,.0f}" for tick in ticks])
        axes.minorticks_off()
        axes.set_xlim(zero / 1.3, 2.4 * max(positive))
        axes.set(xlabel="unique examples", ylabel="")
        axes.grid(visible=True, axis="y")
        title = text.shorten(f"{capability}, {recipe}" if recipe else capability, 44)
        figure.text(0.01, 1 - 14 / 220, title, fontsize=11.5, fontweight="bold", va="center")
        seaborn.despine(ax=axes, left=True)
        told = "; ".join(f"{row.contrast}: {row.shown} {row.interval}".strip() for row in priced)
        return svg.inline(figure, prefix=prefix, label=f"accuracy by unique examples, {title}. {told}")


def _size(row: EstimateView) -> float:
    return float(row.factors.get("n_examples", 0))
