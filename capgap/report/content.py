"""The content of the report, gathered once from its tables; the page and the Markdown only set it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from capgap.errors import UsageError, suggestion
from capgap.report import text
from capgap.report.caveats import Caveat, OmittedData, collect_caveats, collect_omitted_data, excluded_tasks
from capgap.report.display_labels import declaration, heading
from capgap.report.dumbbell import DumbbellPanel, make_dumbbell_panels, single_capability, task_capabilities
from capgap.report.item_examples import TaskExamples, examples
from capgap.report.label_section import LabelReportSection, gather_label_section
from capgap.report.provenance import ModelSummary, ProvenanceEntry, model_summaries, provenance_entries, seed_of
from capgap.report.tables import (
    EstimateIndex,
    EstimateView,
    ShownTable,
    capability_colour,
    estimate_table,
    order_capabilities,
)
from capgap.schema import ESTIMATES, ITEMS, LABELS, MODELS, OUTCOMES, Roles, join_labels, undeclared_items, validate
from capgap.schema.quantities import QUANTITIES, Quantity
from capgap.schema.remarks import Reason

__all__ = ["SECTION_QUANTITIES", "ReportContent", "StudentSummaryRow", "gather_report_content"]


@dataclass(frozen=True)
class StudentSummaryRow:
    """One capability (or the whole battery) of one student."""

    student: str
    number: int
    group: str
    capability: str
    """Its colour's name; empty for a battery."""
    estimates: tuple[EstimateView | None, ...]
    """In the order of the columns of its table."""


@dataclass(frozen=True)
class StudentSummaryTable:
    """Some quantities of every student, by capability and over each battery."""

    columns: tuple[Quantity, ...]
    rows: tuple[StudentSummaryRow, ...]


@dataclass(frozen=True)
class ContrastVerdict:
    """Knowledge against reasoning, in one measure."""

    estimate: EstimateView
    verdict: str
    """Whether the interval excludes no difference, after the number."""
    remark: str
    """The note, where its reason is none that the caveats give already."""


@dataclass(frozen=True)
class ReportContent:
    """Everything between the title and the last line."""

    headline: str
    sentences: tuple[str, ...]
    """After the headline."""
    next_steps: tuple[str, ...]
    roles: Roles
    models: tuple[ModelSummary, ...]
    counts: tuple[tuple[str, int], ...]
    batteries: tuple[str, ...]
    summary: StudentSummaryTable
    caveats: tuple[Caveat, ...]
    panels: tuple[DumbbellPanel, ...]
    capabilities: dict[str, str]
    domains: dict[str, str]
    contrasts: tuple[ContrastVerdict, ...]
    """Every task equally, these tasks; the others stand in the table."""
    fidelity: StudentSummaryTable
    """Agreement, fidelity and error inheritance."""
    fidelity_tables: tuple[ShownTable, ...]
    parsing: ShownTable | None
    n_tasks_parsed: int
    """Tasks where every answer of every model was parsed."""
    examples: tuple[TaskExamples, ...]
    show_items: bool
    seed: int
    omitted_data: tuple[OmittedData, ...]
    label_section: LabelReportSection | None
    terms: tuple[Quantity, ...]
    """Quantities of the page that are explained at its end."""
    provenance_entries: tuple[ProvenanceEntry, ...]
    lookup: EstimateIndex

    @property
    def contrast_columns(self) -> dict[str, str]:
        """Contrast → its label, each once."""
        return {contrast.estimate.contrast: contrast.estimate.contrast_label for contrast in self.contrasts}

    @property
    def contrast_rows(self) -> tuple[tuple[str, tuple[ContrastVerdict | None, ...]], ...]:
        """Student by student, in the order of `contrast_columns`."""
        cells = {(contrast.estimate.model, contrast.estimate.contrast): contrast for contrast in self.contrasts}
        return tuple((s, tuple(cells.get((s, name)) for name in self.contrast_columns)) for s in self.roles.students)


def gather_report_content(
    outcomes: pd.DataFrame,
    estimates: pd.DataFrame,
    roles: Roles,
    run: Mapping[str, Any],
    *,
    items: pd.DataFrame | None = None,
    models: pd.DataFrame | None = None,
    labels: pd.DataFrame | None = None,
    show_items: bool = False,
) -> ReportContent:
    """Check the tables and gather what the report says.

    Raises
    ------
    TableError
        A table does not hold what it should.
    UsageError
        A role names a model that the outcomes do not have.
    """
    outcomes = validate(outcomes, OUTCOMES, source="outcomes")
    lookup = EstimateIndex(validate(estimates, ESTIMATES, source="estimates"))
    items, models, labels = (
        None if frame is None else validate(frame, table, source=table.name)
        for frame, table in ((items, ITEMS), (models, MODELS), (labels, LABELS))
    )
    _check_roles(outcomes, roles)
    undeclared = undeclared_items(outcomes)  # before labels are joined: afterwards everything has a capability
    outcomes = join_labels(outcomes, labels)
    capabilities = task_capabilities(outcomes)
    excluded = excluded_tasks(lookup, roles)
    parsing_table, n_parsed = _parsing_table(lookup)
    # Many tasks have two examples each, so that the page stays small.
    seed, n_shown = seed_of(run), 3 if len(capabilities) <= 15 else 2
    item_examples = examples(outcomes, roles, capabilities, items=items, seed=seed, show=show_items, n_shown=n_shown)
    return ReportContent(
        *_split_run_sentences(run, roles),
        roles=roles,
        models=model_summaries(roles, models),
        counts=_count_report_units(outcomes, roles),
        batteries=tuple(text.sanitise_text(name) for name in dict.fromkeys(outcomes["battery"].dropna())),
        summary=_summary(lookup, roles, _summary_columns(roles)),
        caveats=(
            *collect_caveats(lookup, roles, outcomes=outcomes, models=models, excluded=excluded),
            *(Caveat(line, "") for line in _clean_lines(run.get("caveats"))),
        ),
        panels=make_dumbbell_panels(lookup, roles, capabilities, excluded),
        capabilities=capabilities,
        domains=single_capability(outcomes, "domain"),
        contrasts=tuple(_list_contrast_verdicts(lookup, roles)),
        fidelity=_summary(lookup, roles, _FIDELITY_QUANTITIES),
        fidelity_tables=tuple(_fidelity_tables(lookup, roles)),
        parsing=parsing_table,
        n_tasks_parsed=n_parsed,
        examples=tuple(item_examples),
        show_items=show_items,
        seed=seed,
        omitted_data=tuple(collect_omitted_data(lookup, roles, outcomes=outcomes)),
        label_section=gather_label_section(labels, undeclared, lookup, roles, run),
        terms=_list_explained_terms(lookup),
        provenance_entries=provenance_entries(run),
        lookup=lookup,
    )


def _check_roles(outcomes: pd.DataFrame, roles: Roles) -> None:
    if not roles.students:
        raise UsageError("A report needs one student at least; found none.")
    known_models = set(outcomes["model"])
    for name in roles.names:
        if name not in known_models:
            raise UsageError(f"Model {name!r} has a role but no outcomes.{suggestion(name, known_models)}")


def _split_run_sentences(run: Mapping[str, Any], roles: Roles) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """The headline, the sentences after it, and the next steps."""
    sentences, next_step_lines = _clean_lines(run.get("sentence")), _clean_lines(run.get("next"))
    if not sentences:
        students = text.join(text.shorten(student, 60) for student in roles.students)
        teacher = roles.teacher and text.shorten(roles.teacher, 60)
        sentences = (f"{students} against {teacher}" if teacher else f"What {students} can do",)
    return sentences[0], sentences[1:], next_step_lines


def _clean_lines(value: Any) -> tuple[str, ...]:
    """One text, or a list of them, as clean lines."""
    lines = [value] if isinstance(value, str) else value if isinstance(value, (list, tuple)) else []
    return tuple(dict.fromkeys(text.sanitise_text(line).strip() for line in lines if str(line).strip()))


_REASONS_IN_CAVEATS = (Reason.UNREADABLE_ANSWERS, Reason.PROMPTED_DIFFERENTLY, Reason.FORMAT_ALIASED)
_FIDELITY_QUANTITIES = ("agreement", "fidelity", "error_inheritance")
SECTION_QUANTITIES = (*_FIDELITY_QUANTITIES, "effect", "data_cost", "n_patterns", "lost")
"""Quantities whose reading stands at the head of a section of their own, and not in the list of terms."""


def _summary_columns(roles: Roles) -> list[str]:
    """Quantities of the first table in their declared order, those that have all their roles taken by some student."""
    role_models = {"teacher": roles.teacher, "base": roles.base, "control": roles.teacher and roles.control}
    assigned_roles = {"student", *(role for role, models in role_models.items() if models)}
    columns = sorted((q for q in QUANTITIES.values() if q.summary_column), key=lambda q: q.summary_column)
    return [quantity.name for quantity in columns if assigned_roles.issuperset(quantity.roles)]


def _list_explained_terms(lookup: EstimateIndex) -> tuple[Quantity, ...]:
    estimated = {row.quantity for row in lookup.rows}
    return tuple(quantity for quantity in QUANTITIES.values() if quantity.guidance and quantity.name in estimated)


def _summary(lookup: EstimateIndex, roles: Roles, quantities: Sequence[str]) -> StudentSummaryTable:
    level_groups = [
        ("capability", name, capability_colour(name)) for name in order_capabilities(lookup.groups("capability"))
    ]
    level_groups += [("battery", name, "") for name in lookup.groups("battery")]
    rows = []
    for number, student in enumerate(roles.students, 1):
        for level, group, colour in level_groups:
            estimates = tuple(lookup.find(quantity, level, group, student) for quantity in quantities)
            if any(estimates):
                rows.append(StudentSummaryRow(student, number, group, colour, estimates))
    return StudentSummaryTable(tuple(map(declaration, quantities)), tuple(rows))


def _list_contrast_verdicts(lookup: EstimateIndex, roles: Roles) -> Iterator[ContrastVerdict]:
    for row in lookup.select("capability_contrast", "battery"):
        if row.model in roles.students and row.is_headline:
            verdict = ""
            if not row.refused and row.low is not None and row.high is not None:
                verdict = ": different." if row.low > 0 or row.high < 0 else ": no difference shown."
            remark = row.note if row.refused or row.reason not in ("", *_REASONS_IN_CAVEATS) else ""
            yield ContrastVerdict(row, verdict, remark)


def _count_report_units(outcomes: pd.DataFrame, roles: Roles) -> tuple[tuple[str, int], ...]:
    rows = outcomes[outcomes["model"].isin(roles.names)]
    return (
        ("tasks", len(rows[["battery", "task"]].drop_duplicates())),
        ("items", len(rows[["battery", "task", "item"]].drop_duplicates())),
        ("models", rows["model"].nunique()),
    )


def _fidelity_tables(lookup: EstimateIndex, roles: Roles) -> Iterator[ShownTable]:
    for quantity in map(declaration, _FIDELITY_QUANTITIES):
        levels = ("capability", "battery", "task")
        rows = [row for level in levels for row in lookup.select(quantity.name, level) if row.model in roles.students]
        if rows:
            caption = f"{heading(quantity.title)}: {quantity.question}"
            yield estimate_table(rows, caption=caption, models=roles.students)


def _parsing_table(lookup: EstimateIndex) -> tuple[ShownTable | None, int]:
    """Shares of unreadable answers above zero, the largest first, and how many tasks have none."""
    rows = [row for quantity in ("unparsed", "cut_off") for row in lookup.select(quantity, "task")]
    unreadable = sorted((row for row in rows if row.refused or row.estimate), key=lambda row: -(row.estimate or 0.0))
    n_clean_tasks = len({row.group for row in rows} - {row.group for row in unreadable})
    caption = "Answers that could not be parsed or were cut off"
    return (estimate_table(unreadable, caption=caption) if unreadable else None), n_clean_tasks
