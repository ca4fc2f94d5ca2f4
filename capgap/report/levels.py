"""The gap by level: figures of capability, domain and slice, each with the table behind it."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from capgap.report import text
from capgap.report.figures import ForestRow, forest, limits_of, slice_panel, slices_of
from capgap.report.tables import CAPABILITY_ORDER, EstimateIndex, EstimateView, ShownTable, estimate_table
from capgap.schema import Roles

__all__ = ["FigureBlock", "capability_block", "contrast_table", "domain_blocks", "level_tables", "slice_block"]

_MEASURES = (
    ("gap_closure", "Gap closure", "% of the gap between base and teacher", (0.0, 100.0)),
    ("retention", "Retention", "% of the teacher above chance", (0.0, 100.0)),
    ("gap", "Gap to the teacher", "points; 0 is the teacher", (0.0,)),
)
_LONE = (("accuracy", "Accuracy", "% right", (0.0, 100.0)),)
_MAX_ROWS = 60
_MAX_SLICES = 24


@dataclass(frozen=True)
class FigureBlock:
    """One figure of one or several panels, and its table."""

    title: str
    panels: tuple[Markup, ...]
    tables: tuple[ShownTable, ...]
    left_out: int = 0
    """Panels that are in the table only."""


def _measures(roles: Roles) -> tuple[tuple[str, str, str, tuple[float, ...]], ...]:
    return _LONE if roles.teacher is None else _MEASURES


def _ordered(groups: Sequence[str]) -> list[str]:
    known = [name for name in CAPABILITY_ORDER if name in groups]
    return known + [name for name in groups if name not in known]


def _colour(group: str) -> str:
    return group if group in CAPABILITY_ORDER else "unlabelled"


def _capability_rows(book: EstimateIndex, quantity: str, roles: Roles) -> list[ForestRow]:
    rows: list[ForestRow] = []
    for group in [*_ordered(book.groups("capability")), *book.groups("battery")]:
        level = "capability" if group in book.groups("capability") else "battery"
        found = [(i, book.find(quantity, level, group, name)) for i, name in enumerate(roles.students, 1)]
        known = [(i, row) for i, row in found if row is not None]
        name = group if level == "capability" else "all tasks" if len(book.groups("battery")) == 1 else group
        if len(roles.students) == 1:
            rows += [ForestRow(name, _colour(group), row) for _, row in known]
        elif known:
            rows.append(ForestRow(name, _colour(group), None))
            rows += [ForestRow(f"{i} {roles.students[i - 1]}", _colour(group), row) for i, row in known]
    return rows


def capability_block(book: EstimateIndex, roles: Roles) -> FigureBlock:
    """Closure, retention and gap of every student by capability and over the whole battery."""
    panels, shown = [], []
    for quantity, title, unit, reference in _measures(roles):
        rows = _capability_rows(book, quantity, roles)[:_MAX_ROWS]
        shown += [
            row for level in ("capability", "battery") for row in book.select(quantity, level) if _meant(row, roles)
        ]
        drawn = forest(rows, prefix=f"capability-{quantity}", title=title, unit=unit, reference=reference)
        if drawn is not None:
            panels.append(drawn)
    table = estimate_table(shown, caption="Capability and battery", models=roles.students)
    return FigureBlock("By capability", tuple(panels), (table,) if shown else ())


def _meant(row: EstimateView, roles: Roles) -> bool:
    return row.model in roles.students or (roles.teacher is None and row.quantity == "accuracy")


def domain_blocks(book: EstimateIndex, roles: Roles, domain_capability: dict[str, str]) -> list[FigureBlock]:
    """Every measure of a lone student by domain; of several students the gap, the rest stands in the table."""
    domains = book.groups("domain")
    if not domains:
        return []
    measures = _measures(roles)
    lone = len(roles.students) == 1
    panels, shown = [], []
    gaps = [row for s in roles.students for row in _domain_rows(book, measures[-1][0], s, domain_capability)]
    for number, student in enumerate(roles.students, 1):
        for quantity, title, unit, reference in measures if lone else measures[-1:]:
            rows = _domain_rows(book, quantity, student, domain_capability)
            drawn = forest(
                rows[:_MAX_ROWS],
                prefix=f"domain-{number}-{quantity}",
                title=title if lone else text.shorten(f"{number} {student}", 40),
                unit=unit,
                reference=reference,
                limits=None if lone else limits_of(gaps, reference),
            )
            if drawn is not None:
                panels.append(drawn)
    for measure, _, _, _ in measures:
        shown += [row for row in book.select(measure, "domain") if _meant(row, roles)]
    tables = (estimate_table(shown, caption="Domains", models=roles.students),) if shown else ()
    return [FigureBlock("By domain", tuple(panels), tables)] if panels or tables else []


def _domain_rows(
    book: EstimateIndex, quantity: str, student: str, domain_capability: dict[str, str]
) -> list[ForestRow]:
    rows = []
    for capability in CAPABILITY_ORDER:
        for name in book.groups("domain"):
            if domain_capability.get(name, "unlabelled") == capability:
                found = book.find(quantity, "domain", name, student)
                rows += [] if found is None else [ForestRow(name, capability, found)]
    return rows


def slice_block(book: EstimateIndex, roles: Roles, capabilities: dict[str, str]) -> FigureBlock | None:
    """Accuracy along every covariate: teacher, bases and students, one small panel per task and covariate."""
    rows = list(book.select("accuracy", "slice"))
    bases = list(dict.fromkeys(roles.base[s] for s in roles.students if s in roles.base))
    models = [*([roles.teacher] if roles.teacher else []), *bases, *roles.students]
    found = slices_of(rows, models, capabilities)
    if not found:
        return None
    panels = tuple(
        slice_panel(each, prefix=f"slice-{i}", teacher=roles.teacher, bases=bases, students=roles.students)
        for i, each in enumerate(found[:_MAX_SLICES], 1)
    )
    shown = [row for row in rows if row.model in models]
    tables = [estimate_table(shown, caption="Accuracy by slice")]
    gaps = [row for row in book.select("gap", "slice") if row.model in roles.students]
    if gaps:
        tables.append(estimate_table(gaps, caption="Gap by slice", models=roles.students))
    return FigureBlock("By slice", panels, tuple(tables), max(0, len(found) - _MAX_SLICES))


def contrast_table(book: EstimateIndex, roles: Roles) -> ShownTable:
    """Knowledge against reasoning under every weighting and population."""
    rows = [row for row in book.select("capability_contrast", "battery") if row.model in roles.students]
    rows.sort(key=lambda row: (roles.students.index(row.model), row.contrast, row.weighting == "items", row.population))
    return estimate_table(rows, caption="Knowledge against reasoning", models=roles.students)


def level_tables(book: EstimateIndex, roles: Roles, student: str) -> tuple[ShownTable, ...]:
    """The tables behind one student's dumbbell chart."""
    who = [roles.teacher, roles.base.get(student), student, roles.control.get(student)]
    models = [name for name in dict.fromkeys(who) if name is not None]
    tables = []
    accuracies = [row for name in models for row in book.select("accuracy", "task", model=name)]
    if accuracies:
        tables.append(estimate_table(accuracies, caption="Accuracy by task"))
    differences = [
        row
        for quantity in ("gap", "gain", "base_gap", "gap_closure", "retention", "teacher_effect")
        for row in book.select(quantity, "task", model=student)
    ]
    if differences:
        tables.append(estimate_table(differences, caption="Gap, gain, closure, retention and teacher effect by task"))
    return tuple(tables)
