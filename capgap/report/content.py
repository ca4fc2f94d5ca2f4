"""What the report says, gathered once; the page and the Markdown only set it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from capgap.errors import UsageError, suggestion
from capgap.report import text
from capgap.report.caveats import Caveat, OmittedData, caveats, excluded_tasks, first_clause, omitted_data
from capgap.report.dumbbell import DumbbellPanel, dumbbells, task_capabilities
from capgap.report.item_examples import TaskExamples, examples
from capgap.report.label_section import LabelSection, label_section
from capgap.report.provenance import ModelSummary, ProvenanceEntry, model_summaries, provenance_entries, seed_of
from capgap.report.tables import CAPABILITY_ORDER, EstimateIndex, EstimateView, ShownTable, estimate_table
from capgap.schema import ESTIMATES, ITEMS, LABELS, MODELS, OUTCOMES, Roles, join_labels, undeclared_items, validate

__all__ = ["ReportContent", "SummaryRow", "gather_content"]


@dataclass(frozen=True)
class SummaryRow:
    """One capability (or the whole battery) of one student."""

    student: str
    number: int
    group: str
    capability: str
    """Its colour's name; empty for a battery."""
    estimates: tuple[EstimateView | None, ...]
    """In the order of `Content.summary_columns`."""


@dataclass(frozen=True)
class ContrastVerdict:
    """Knowledge against reasoning, in one measure."""

    estimate: EstimateView
    words: str
    """What is subtracted from what."""
    verdict: str
    """Whether the interval excludes no difference, after the number."""
    remark: str
    """Why it is refused, or what else is particular to it; what the caveats say already is left out."""


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
    summary: tuple[SummaryRow, ...]
    summary_columns: tuple[str, ...]
    caveats: tuple[Caveat, ...]
    panels: tuple[DumbbellPanel, ...]
    capabilities: dict[str, str]
    domains: dict[str, str]
    contrasts: tuple[ContrastVerdict, ...]
    """Every task equally, these tasks; the others stand in the table."""
    fidelity: tuple[SummaryRow, ...]
    """Agreement, fidelity and error inheritance."""
    inheritance: tuple[ShownTable, ...]
    parsing: ShownTable | None
    n_tasks_parsed: int
    """Tasks where every answer of every model was parsed."""
    examples: tuple[TaskExamples, ...]
    show_items: bool
    seed: int
    omitted_data: tuple[OmittedData, ...]
    label_section: LabelSection | None
    provenance_entries: tuple[ProvenanceEntry, ...]
    book: EstimateIndex

    @property
    def contrast_columns(self) -> tuple[str, ...]:
        """What is contrasted, each once."""
        return tuple(dict.fromkeys(contrast.words for contrast in self.contrasts))

    @property
    def contrast_rows(self) -> tuple[tuple[str, tuple[ContrastVerdict | None, ...]], ...]:
        """Student by student, in the order of `contrast_columns`."""
        found = {(contrast.estimate.model, contrast.words): contrast for contrast in self.contrasts}
        return tuple((s, tuple(found.get((s, words)) for words in self.contrast_columns)) for s in self.roles.students)


def gather_content(
    *,
    outcomes: pd.DataFrame,
    estimates: pd.DataFrame,
    roles: Roles,
    run: Mapping[str, Any],
    items: pd.DataFrame | None,
    models: pd.DataFrame | None,
    labels: pd.DataFrame | None,
    show_items: bool,
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
    book = EstimateIndex(validate(estimates, ESTIMATES, source="estimates"))
    items = None if items is None else validate(items, ITEMS, source="items")
    models = None if models is None else validate(models, MODELS, source="models")
    labels = None if labels is None else validate(labels, LABELS, source="labels")
    _check_roles(outcomes, roles)
    undeclared = undeclared_items(outcomes)
    outcomes = join_labels(outcomes, labels)
    capabilities = task_capabilities(outcomes)
    excluded = excluded_tasks(book, roles)
    headline, sentences, next_steps = _sentences(run, roles)
    parsing, n_parsed = _parsing(book)
    rows, columns = _summary(book, roles)
    seed = seed_of(run)
    shown = examples(
        outcomes,
        roles,
        capabilities,
        items=items,
        seed=seed,
        show=show_items,
        per_task=3 if len(capabilities) <= 15 else 2,
    )
    return ReportContent(
        headline=headline,
        sentences=sentences,
        next_steps=next_steps,
        roles=roles,
        models=model_summaries(roles, models),
        counts=_counts(outcomes, roles),
        batteries=tuple(text.clean(name) for name in dict.fromkeys(outcomes["battery"].dropna())),
        summary=rows,
        summary_columns=columns,
        caveats=tuple(caveats(book, roles, outcomes=outcomes, models=models, excluded=excluded)),
        panels=dumbbells(book, roles, capabilities, excluded),
        capabilities=capabilities,
        domains=_domains(outcomes),
        contrasts=_contrasts(book, roles),
        fidelity=_summary_rows(book, roles, ("agreement", "fidelity", "error_inheritance")),
        inheritance=_inheritance(book, roles),
        parsing=parsing,
        n_tasks_parsed=n_parsed,
        examples=tuple(shown),
        show_items=show_items,
        seed=seed,
        omitted_data=tuple(omitted_data(book, roles, outcomes=outcomes, excluded=excluded)),
        label_section=label_section(labels, undeclared, book, roles, run),
        provenance_entries=provenance_entries(run),
        book=book,
    )


def _check_roles(outcomes: pd.DataFrame, roles: Roles) -> None:
    if not roles.students:
        raise UsageError("A report needs one student at least; found none.")
    known = set(outcomes["model"])
    for name in roles.names:
        if name not in known:
            raise UsageError(f"Model {name!r} has a role but no outcomes.{suggestion(name, known)}")


def _sentences(run: Mapping[str, Any], roles: Roles) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    given = run.get("sentence") or []
    lines = [given] if isinstance(given, str) else [str(line) for line in given]
    lines = [text.clean(line).strip() for line in lines if str(line).strip()]
    steps = tuple(line for line in lines if line.lower().startswith("next:"))
    said = [line for line in lines if line not in steps]
    if isinstance(run.get("next"), str) and run["next"].strip():
        steps = tuple(dict.fromkeys((*steps, text.clean(run["next"]).strip())))
    if said:
        return said[0], tuple(said[1:]), steps
    who = text.join(text.shorten(student, 60) for student in roles.students)
    if roles.teacher is None:
        return f"What {who} can do", (), steps
    return f"{who} against {text.shorten(roles.teacher, 60)}", (), steps


_COMPARED = ("gap_closure", "retention", "gap", "teacher_effect")


def _summary(book: EstimateIndex, roles: Roles) -> tuple[tuple[SummaryRow, ...], tuple[str, ...]]:
    quantities = [*(_COMPARED if roles.teacher else ()), "accuracy"]
    if not roles.control:
        quantities = [name for name in quantities if name != "teacher_effect"]
    if not roles.base:
        quantities = [name for name in quantities if name != "gap_closure"]
    heads = {"gap_closure": "gap closed", "retention": "retained"}
    return _summary_rows(book, roles, quantities), tuple(heads.get(n, n.replace("_", " ")) for n in quantities)


def _summary_rows(book: EstimateIndex, roles: Roles, quantities: Sequence[str]) -> tuple[SummaryRow, ...]:
    groups = book.groups("capability")
    order = [name for name in CAPABILITY_ORDER if name in groups] + [g for g in groups if g not in CAPABILITY_ORDER]
    places = [("capability", name) for name in order] + [("battery", name) for name in book.groups("battery")]
    rows = []
    for number, student in enumerate(roles.students, 1):
        for level, group in places:
            found = tuple(book.find(quantity, level, group, student) for quantity in quantities)
            if any(found):
                colour = "" if level == "battery" else group if group in CAPABILITY_ORDER else "unlabelled"
                rows.append(SummaryRow(student, number, group, colour, found))
    return tuple(rows)


_MEASURES = {"closure": "Share of the gap closed", "gap": "Gap to the teacher", "retention": "Retention"}


def _contrasts(book: EstimateIndex, roles: Roles) -> tuple[ContrastVerdict, ...]:
    out = []
    for row in book.select("capability_contrast", "battery"):
        if row.model not in roles.students or row.weighting == "items" or "tasks like these" in row.population:
            continue
        measure, _, sides = row.contrast.partition(": ")
        words = f"{_MEASURES.get(measure, measure)}, {sides.replace(' - ', ' minus ')}" if sides else row.contrast
        verdict = ""
        if not row.refused and row.low is not None and row.high is not None:
            verdict = ": different." if row.low > 0 or row.high < 0 else ": no difference shown."
        out.append(ContrastVerdict(row, words, verdict, first_clause(row.note) if row.refused else _remark(row.note)))
    return tuple(out)


def _remark(note: str) -> str:
    said = [
        part for part in note.split("; ") if not part.startswith("left out for") and "prompted differently" not in part
    ]
    return "; ".join(dict.fromkeys(said))


def _counts(outcomes: pd.DataFrame, roles: Roles) -> tuple[tuple[str, int], ...]:
    rows = outcomes[outcomes["model"].isin(roles.names)]
    return (
        ("tasks", len(rows[["battery", "task"]].drop_duplicates())),
        ("items", len(rows[["battery", "task", "item"]].drop_duplicates())),
        ("models", rows["model"].nunique()),
    )


def _domains(outcomes: pd.DataFrame) -> dict[str, str]:
    found = outcomes.dropna(subset=["domain", "capability"]).groupby("domain")["capability"].unique()
    return {str(domain): str(words[0]) if len(words) == 1 else "mixed" for domain, words in found.items()}


def _inheritance(book: EstimateIndex, roles: Roles) -> tuple[ShownTable, ...]:
    tables = []
    for quantity, caption in (
        ("agreement", "Agreement: how often the student gives the teacher's answer"),
        ("fidelity", "Fidelity: agreement beyond what equal accuracies and chance would give"),
        ("error_inheritance", "Error inheritance: the teacher's own wrong answer, where the teacher is wrong"),
    ):
        rows = [
            row
            for level in ("capability", "battery", "task")
            for row in book.select(quantity, level)
            if row.model in roles.students
        ]
        if rows:
            tables.append(estimate_table(rows, caption=caption, models=roles.students))
    return tuple(tables)


def _parsing(book: EstimateIndex) -> tuple[ShownTable | None, int]:
    rows = [row for quantity in ("unparsed", "truncated") for row in book.select(quantity, "task")]
    if not rows:
        return None, 0
    some = [row for row in rows if row.refused or row.estimate]
    clean = {row.group for row in rows} - {row.group for row in some}
    some.sort(key=lambda row: -(row.estimate or 0.0))
    return (estimate_table(some, caption="Answers that could not be parsed or were cut off") if some else None), len(
        clean
    )
