"""Forest plots of intervals by group, and line plots of accuracy along a covariate."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from capgap.report import svg, text
from capgap.report.tables import EstimateView

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ROW_HEIGHT = 21.0
_FOREST_WIDTH = 330.0


@dataclass(frozen=True)
class ForestRow:
    """One line of an interval figure."""

    label: str
    capability: str
    estimate: EstimateView | None
    """None makes the row a heading."""


def compute_axis_limits(rows: Sequence[ForestRow], reference: Sequence[float]) -> tuple[float, float]:
    """Room for every estimate and the references; intervals that reach far beyond are cut, with an arrow."""
    unrefused_estimates = [row.estimate for row in rows if row.estimate is not None and not row.estimate.refused]
    point_values = [100 * e.estimate for e in unrefused_estimates if e.estimate is not None] + list(reference)
    interval_ends = [100 * end for e in unrefused_estimates for end in (e.low, e.high) if end is not None]
    # Centres decide: an interval may reach six tenths of their range beyond, lest one wide interval flatten the rest.
    low, high = min(point_values), max(point_values)
    value_range = max(high - low, 20.0)
    low = min([low, *(max(end, low - 0.6 * value_range) for end in interval_ends)])
    high = max([high, *(min(end, high + 0.6 * value_range) for end in interval_ends)])
    margin = 0.06 * ((high - low) or 20.0)  # one point without an interval has no width of its own
    return low - margin, high + margin


def draw_forest_plot(
    rows: Sequence[ForestRow],
    *,
    prefix: str,
    title: str,
    unit: str,
    reference: Sequence[float] = (0.0,),
    limits: tuple[float, float] | None = None,
) -> Markup | None:
    """Estimates with their intervals, one line each; a refused one says so in its place.

    Parameters
    ----------
    rows
        From top to bottom.
    prefix
        Begins the ids of the drawing.
    title
        What is shown.
    unit
        Under the axis, ``%`` or ``points``.
    reference
        Upright lines, in hundredths.
    limits
        Of the axis, in hundredths, where several figures share it; else `compute_axis_limits` these rows.

    Returns
    -------
    Markup or None
        None where no row has a number.
    """
    valid = [(index, row) for index, row in enumerate(rows) if row.estimate is not None and not row.estimate.refused]
    if not valid:
        return None
    with svg.plot_style():
        height = 58 + _ROW_HEIGHT * len(rows)
        figure, axes = svg.make_figure(_FOREST_WIDTH, height, title=title, left=110, right=10, top=24, bottom=34)
        low, high = limits or compute_axis_limits(rows, reference)
        axes.set(xlim=(low, high), ylim=(len(rows) - 0.5, -0.5), yticks=[], xlabel=unit, ylabel="")
        for value in reference:
            axes.axvline(value, color=svg.MUTED_INK, linewidth=1.0, zorder=0.9)
        for index, row in enumerate(rows):
            _forest_row(axes, index, row, (low, high))
        points = [
            (100 * row.estimate.estimate, index, svg.COLOURS[row.capability])
            for index, row in valid
            if row.estimate is not None and row.estimate.estimate is not None
        ]
        if points:
            x, y, point_colours = zip(*points, strict=True)
            svg.points(axes, x, y, colour=point_colours, size=72, zorder=4)
        alt_text = "; ".join(f"{row.label} {row.estimate.shown_with_interval}" for row in rows if row.estimate)
        return svg.inline_svg(figure, prefix=prefix, label=f"{title}: {alt_text}")


def _forest_row(axes: "Axes", index: int, row: ForestRow, limits: tuple[float, float]) -> None:
    low, high = limits
    transform = axes.get_yaxis_transform()
    heading = row.estimate is None
    axes.text(
        -108 / 210,  # 108 pixels left of axes that are 210 wide, see `draw_forest_plot`
        index,
        text.shorten(row.label, 18),
        transform=transform,
        va="center",
        fontsize=11.5,
        fontweight="bold" if heading else "normal",
        color=svg.COLOURS[row.capability] if heading else svg.INK,
    )
    if row.estimate is None:
        return
    if row.estimate.refused:
        axes.text(
            0.02, index, "refused", transform=transform, va="center", fontsize=10.5, color=svg.MUTED_INK, style="italic"
        )
        return
    if row.estimate.low is None and row.estimate.high is None:
        return
    interval_low = -math.inf if row.estimate.low is None else 100 * row.estimate.low
    interval_high = math.inf if row.estimate.high is None else 100 * row.estimate.high
    colour = svg.COLOURS[row.capability]
    axes.hlines(index, max(interval_low, low), min(interval_high, high), color=colour, linewidth=2.6, zorder=3)
    for is_beyond_axis, end, arrow_marker in ((interval_low < low, low, "<"), (interval_high > high, high, ">")):
        if is_beyond_axis:
            axes.plot([end], [index], marker=arrow_marker, color=colour, markersize=5.5, clip_on=False, zorder=3)


@dataclass(frozen=True)
class CovariateSlices:
    """Accuracy of several models along one covariate of one task."""

    task: str
    covariate: str
    capability: str
    bins: tuple[str, ...]
    """In the order of their numbers where they are numbers."""
    accuracy: dict[str, tuple[EstimateView | None, ...]]
    """Model → one estimate per bin."""


_SLICE_PATTERN = re.compile(r"(?P<task>.*): (?P<covariate>[^=]+)=(?P<bin>.*)", re.DOTALL)
"""A group of the level ``slice``, as the key of an estimate names it."""
_NUMBER = re.compile("[-\u2212]?\\d+(?:\\.\\d+)?")


def _bin_sort_key(label: str) -> tuple[bool, float, str]:
    """Bins by the first number in their labels, those without one last."""
    number = _NUMBER.search(label)
    return number is None, float(number.group().replace("\u2212", "-")) if number else 0.0, label


def slices_of(
    rows: Sequence[EstimateView], models: Sequence[str], capabilities: dict[str, str]
) -> list[CovariateSlices]:
    """The slices of every task and covariate with at least two bins, in table order.

    Parameters
    ----------
    rows
        Accuracies at the level ``slice``; the group reads ``task: covariate=bin``.
    models
        The models to show, in order.
    capabilities
        Task → capability.
    """
    bins_by_covariate: dict[tuple[str, str], dict[str, dict[str, EstimateView]]] = {}  # bin → model → accuracy
    for row in rows:
        slice_name_match = _SLICE_PATTERN.fullmatch(row.group)
        if slice_name_match and row.model in models:
            bins = bins_by_covariate.setdefault((slice_name_match["task"], slice_name_match["covariate"]), {})
            bins.setdefault(slice_name_match["bin"], {})[row.model] = row
    slices = []
    for (task, covariate), bins in bins_by_covariate.items():
        if len(bins) < 2:
            continue
        order = tuple(sorted(bins, key=_bin_sort_key))
        lines = {model: tuple(bins[label].get(model) for label in order) for model in models}
        slices.append(
            CovariateSlices(
                task=task,
                covariate=covariate.removeprefix("x_").replace("_", " "),
                capability=task if task in svg.COLOURS else capabilities.get(task, "unlabelled"),
                bins=order,
                accuracy={model: line for model, line in lines.items() if any(line)},
            )
        )
    return slices


def draw_slices(
    slices: CovariateSlices, *, prefix: str, teacher: str | None, bases: Sequence[str], students: Sequence[str]
) -> Markup:
    """One small panel: teacher in ink, bases dashed, students in the capability's colour; a lone one has its band."""
    with svg.plot_style():
        title = text.shorten(slices.task, 34)
        figure, axes = svg.make_figure(246, 190, title=title, left=34, right=18, top=30, bottom=38)
        colour = svg.COLOURS[slices.capability]
        chance = next((e.null_value for line in slices.accuracy.values() for e in line if e and e.null_value), None)
        if chance is not None:
            axes.axhline(100 * chance, color=svg.MUTED_INK, linewidth=1.0, linestyle=(0, (1, 3)), zorder=1)
        line_ends = []
        for model, line in slices.accuracy.items():
            unrefused_points = [(x, e) for x, e in enumerate(line) if e and e.estimate is not None and not e.refused]
            if not unrefused_points:
                continue
            x, y = [x for x, _ in unrefused_points], [100 * (e.estimate or 0.0) for _, e in unrefused_points]
            line_colour = svg.INK if model == teacher else colour if model in students else svg.MUTED_INK
            dash_pattern = (4, 2) if model in bases and model not in students else (None, None)
            axes.plot(x, y, color=line_colour, linewidth=1.8, dashes=dash_pattern, zorder=3)
            if model not in students:
                continue
            axes.scatter(x, y, color=colour, s=30, linewidth=0, zorder=4)
            if len(students) == 1:
                _confidence_band(axes, unrefused_points, colour)
            else:
                line_ends.append((y[-1], x[-1], str(list(students).index(model) + 1)))
        _format_slice_axes(axes, slices)
        _label_line_ends(axes, line_ends)
        return svg.inline_svg(figure, prefix=prefix, label=f"accuracy on {slices.task} by {slices.covariate}")


def _confidence_band(axes: "Axes", unrefused_points: list[tuple[int, EstimateView]], colour: str) -> None:
    interval_points = [(x, e.low, e.high) for x, e in unrefused_points if e.low is not None and e.high is not None]
    if interval_points:
        x = [bin_index for bin_index, _, _ in interval_points]
        low = [max(0.0, 100 * low) for _, low, _ in interval_points]
        high = [min(100.0, 100 * high) for _, _, high in interval_points]
        axes.fill_between(x, low, high, color=colour, alpha=0.16, linewidth=0, zorder=1.5)


def _label_line_ends(axes: "Axes", line_ends: list[tuple[float, int, str]]) -> None:
    """The students' numbers beside the ends of their lines, moved apart where they would overlap."""
    step, height = 9.0, -math.inf  # in per cent: the height of a number, and where the last one stands
    lowest_limit = 100.0 - step * (len(line_ends) - 1)
    for i, (y, x, number) in enumerate(sorted(line_ends)):
        height = max(height + step, min(y, lowest_limit + step * i))
        axes.annotate(number, (x, height), (7, 0), textcoords="offset points", fontsize=10, color=svg.INK, va="center")


def _format_slice_axes(axes: "Axes", slices: CovariateSlices) -> None:
    n_bins = len(slices.bins)
    tick_step = max(1, math.ceil(n_bins / 8))
    limit = max(3, 34 // min(n_bins, 8))
    axes.set(xlim=(-0.25, n_bins - 0.75), ylim=(-3, 103), yticks=[0, 50, 100])
    axes.set_xticks(range(0, n_bins, tick_step), [text.shorten(name, limit) for name in slices.bins[::tick_step]])
    axes.set(xlabel=text.shorten(slices.covariate, 30), ylabel="")
    axes.grid(visible=False, axis="x")
    axes.grid(visible=True, axis="y")
