"""The gap by level: figures of capability, domain and slice, each with the table behind it."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from capgap.report import text
from capgap.report.display_labels import declaration, heading
from capgap.report.figures import ForestRow, compute_axis_limits, draw_forest_plot, draw_slices, slices_of
from capgap.report.tables import (
    CAPABILITY_ORDER,
    POPULATION_ORDER,
    EstimateIndex,
    EstimateView,
    ShownTable,
    capability_colour,
    estimate_table,
    numbered_models,
    order_capabilities,
)
from capgap.schema import Roles

_TEACHER_QUANTITIES = ("gap_closure", "retention", "gap")
"""Quantities that are drawn where there is a teacher; of several students by domain the last alone."""
_PROFILE_QUANTITIES = ("accuracy",)
_TASK_QUANTITIES = ("gap", "gain", "base_gap", "gap_closure", "retention", "teacher_effect")
_MAX_FOREST_ROWS = 60
_MAX_SLICE_PANELS = 24


@dataclass(frozen=True)
class FigureBlock:
    """One figure of one or several panels, and its table."""

    title: str
    panels: tuple[Markup, ...]
    tables: tuple[ShownTable, ...]
    left_out: int = 0
    """Panels that are in the table only."""


def _drawn_quantities(roles: Roles) -> tuple[str, ...]:
    return _PROFILE_QUANTITIES if roles.teacher is None else _TEACHER_QUANTITIES


def _reference_lines(quantity: str) -> tuple[float, ...]:
    """Where upright lines stand, in hundredths: at no difference, or at nothing and all of a share."""
    return (0.0,) if declaration(quantity).unit == "points" else (0.0, 100.0)


def _capability_rows(lookup: EstimateIndex, quantity: str, roles: Roles) -> list[ForestRow]:
    rows: list[ForestRow] = []
    batteries, numbered_names = lookup.groups("battery"), numbered_models(roles.students)
    level_groups = [("capability", group, group) for group in order_capabilities(lookup.groups("capability"))]
    level_groups += [("battery", group, "all tasks" if len(batteries) == 1 else group) for group in batteries]
    for level, group, label in level_groups:
        colour = capability_colour(group)
        estimates = {name: lookup.find(quantity, level, group, name) for name in roles.students}
        estimated = {name: estimate for name, estimate in estimates.items() if estimate is not None}
        if numbered_names and estimated:
            rows.append(ForestRow(label, colour, None))
        rows += [ForestRow(numbered_names.get(name, label), colour, estimate) for name, estimate in estimated.items()]
    return rows


def draw_capabilities(lookup: EstimateIndex, roles: Roles) -> FigureBlock:
    """Closure, retention and gap of every student by capability and over the whole battery."""
    panels, table_rows = [], []
    for quantity in _drawn_quantities(roles):
        rows = _capability_rows(lookup, quantity, roles)[:_MAX_FOREST_ROWS]
        table_rows += _student_rows(lookup, quantity, ("capability", "battery"), roles)
        forest_plot = draw_forest_plot(
            rows,
            prefix=f"capability-{quantity}",
            title=heading(declaration(quantity).title),
            unit=declaration(quantity).axis,
            reference=_reference_lines(quantity),
        )
        if forest_plot is not None:
            panels.append(forest_plot)
    table = estimate_table(table_rows, caption="Capability and battery", models=roles.students)
    return FigureBlock("By capability", tuple(panels), (table,) if table_rows else ())


def _student_rows(lookup: EstimateIndex, quantity: str, levels: Sequence[str], roles: Roles) -> list[EstimateView]:
    """The students' rows; where there is no teacher to compare with, the accuracies of everybody."""
    include_all_models = roles.teacher is None and quantity == "accuracy"
    rows = (row for level in levels for row in lookup.select(quantity, level))
    return [row for row in rows if include_all_models or row.model in roles.students]


def draw_domains(lookup: EstimateIndex, roles: Roles, domain_capability: dict[str, str]) -> list[FigureBlock]:
    """Every quantity of a single student by domain; of several students the gap, the rest stands in the table."""
    domain_names = lookup.groups("domain")
    if not domain_names:
        return []
    quantities, one_student = _drawn_quantities(roles), len(roles.students) == 1
    panels = []
    # Each student has a panel of its own, so that only a common axis lets them be compared.
    all_rows = [row for name in roles.students for row in _domain_rows(lookup, quantities[-1], name, domain_capability)]
    for number, student in enumerate(roles.students, 1):
        for quantity in quantities if one_student else quantities[-1:]:
            reference = _reference_lines(quantity)
            forest_plot = draw_forest_plot(
                _domain_rows(lookup, quantity, student, domain_capability)[:_MAX_FOREST_ROWS],
                prefix=f"domain-{number}-{quantity}",
                title=heading(declaration(quantity).title) if one_student else text.shorten(f"{number} {student}", 40),
                unit=declaration(quantity).axis,
                reference=reference,
                limits=None if one_student else compute_axis_limits(all_rows, reference),
            )
            if forest_plot is not None:
                panels.append(forest_plot)
    table_rows = [row for quantity in quantities for row in _student_rows(lookup, quantity, ("domain",), roles)]
    tables = (estimate_table(table_rows, caption="Domains", models=roles.students),) if table_rows else ()
    return [FigureBlock("By domain", tuple(panels), tables)] if panels or tables else []


def _domain_rows(
    lookup: EstimateIndex, quantity: str, student: str, domain_capability: dict[str, str]
) -> list[ForestRow]:
    rows = []
    for capability in CAPABILITY_ORDER:
        for name in lookup.groups("domain"):
            if domain_capability.get(name, "unlabelled") == capability:
                estimate = lookup.find(quantity, "domain", name, student)
                rows += [] if estimate is None else [ForestRow(name, capability, estimate)]
    return rows


def draw_slice_block(lookup: EstimateIndex, roles: Roles, capabilities: dict[str, str]) -> FigureBlock | None:
    """Accuracy along every covariate: teacher, bases and students, one small panel per task and covariate."""
    rows = list(lookup.select("accuracy", "slice"))
    bases = list(dict.fromkeys(roles.base[s] for s in roles.students if s in roles.base))
    models = [*([roles.teacher] if roles.teacher else []), *bases, *roles.students]
    slices = slices_of(rows, models, capabilities)
    if not slices:
        return None
    panels = tuple(
        draw_slices(covariate_slices, prefix=f"slice-{i}", teacher=roles.teacher, bases=bases, students=roles.students)
        for i, covariate_slices in enumerate(slices[:_MAX_SLICE_PANELS], 1)
    )
    tables = [estimate_table([row for row in rows if row.model in models], caption="Accuracy by slice")]
    gaps = [row for row in lookup.select("gap", "slice") if row.model in roles.students]
    if gaps:
        tables.append(estimate_table(gaps, caption="Gap by slice", models=roles.students))
    return FigureBlock("By slice", panels, tuple(tables), len(slices) - len(panels))


def contrast_table(lookup: EstimateIndex, roles: Roles) -> ShownTable:
    """Knowledge against reasoning under every weighting and population, contrasts in table order."""
    rows = [row for row in lookup.of("capability_contrast") if row.model in roles.students]
    # Contrasts are words: rows are ordered by where a contrast first stands, never by how it is spelt.
    contrast_order = {contrast: n for n, contrast in enumerate(dict.fromkeys(row.contrast for row in rows))}
    rows.sort(
        key=lambda row: (
            roles.students.index(row.model),
            contrast_order[row.contrast],
            row.weighting == "items",
            POPULATION_ORDER.get(row.population_tasks, 0),
        )
    )
    return estimate_table(rows, caption=heading(declaration("capability_contrast").title), models=roles.students)


def make_task_tables(lookup: EstimateIndex, roles: Roles, student: str) -> tuple[ShownTable, ...]:
    """The tables behind one student's dumbbell chart."""
    cast = dict.fromkeys((roles.teacher, roles.base.get(student), student, roles.control.get(student)))
    accuracies = [row for name in cast if name for row in lookup.select("accuracy", "task", model=name)]
    differences = [row for quantity in _TASK_QUANTITIES for row in lookup.select(quantity, "task", model=student)]
    titles = text.join(dict.fromkeys(row.declaration.title for row in differences))
    tables = ((accuracies, "Accuracy by task"), (differences, f"{heading(titles)} by task"))
    return tuple(estimate_table(rows, caption=caption) for rows, caption in tables if rows)
