"""Caveats before the numbers, and the data that the numbers leave out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from capgap.errors import TableError
from capgap.report import text
from capgap.report.display_labels import declaration, describe_code, heading
from capgap.report.provenance import describe_prompting
from capgap.report.tables import EstimateIndex, EstimateView, task_names
from capgap.schema import MAX_UNREADABLE_SHARE, Roles, pair
from capgap.schema.quantities import QUANTITIES
from capgap.schema.remarks import Reason

_FEW_CLUSTERS = 6
_FEW_ITEMS = 100
_UNREADABLE_LIMIT_TEXT = f"{100 * MAX_UNREADABLE_SHARE:g}\u202f%"


_QUALIFYING_REASONS = {
    Reason.SIGN_RESTS_ON_ANSWERS,
    Reason.NUMBER_RESTS_ON_ANSWERS,
    Reason.FORMAT_LEARNT,
    Reason.TEACHER_BELOW_BASE,
    Reason.TEACHER_BELOW_BASE_ALONE,
    Reason.NEARLY_MATCHING_ITEMS,
    Reason.NAMES_LOOK_ALIKE,
    Reason.ANSWERS_EQUAL_TEACHER,
    Reason.WRONG_ANSWERS_DROPPED,
}


@dataclass(frozen=True)
class Caveat:
    """One reservation."""

    what: str
    """The fact."""
    so: str
    """What it means, or what to do."""


@dataclass(frozen=True)
class OmittedData:
    """Something that is not in the numbers."""

    what: str
    why: str
    where: tuple[str, ...] = ()
    """The groups it concerns."""


_UNREADABLE_ADVICE = {"cut_off": "raise its max_tokens or give it a stop", "unparsed": "change its prompt or extract"}
"""Quantity of unreadable answers → what to change."""


def _unreadable_rows(lookup: EstimateIndex, roles: Roles) -> Iterator[EstimateView]:
    """The teacher's shares of unreadable answers in tasks that are set aside for them."""
    if roles.teacher is not None:
        for quantity in _UNREADABLE_ADVICE:
            for row in lookup.select(quantity, "task", model=roles.teacher):
                if row.reason == Reason.UNREADABLE_ANSWERS:
                    yield row


def excluded_tasks(lookup: EstimateIndex, roles: Roles) -> set[str]:
    """Tasks that are set aside from numbers of the teacher, whose answers could not be read there."""
    return {row.group for row in _unreadable_rows(lookup, roles)}


def collect_caveats(
    lookup: EstimateIndex, roles: Roles, *, outcomes: pd.DataFrame, models: pd.DataFrame | None, excluded: set[str]
) -> list[Caveat]:
    """Everything that stands between the headline and belief, the gravest first."""
    return [
        *_missing_roles(roles),
        *_prompting(roles, models),
        *_unreadable_answers(lookup, roles),
        # Formats of tasks that are set aside alias nothing.
        *_yield_format_caveats(outcomes[~task_names(outcomes).isin(excluded)]),
        *_yield_refusal_caveats(lookup, roles),
        *_qualified_headline(lookup, roles),
        *_yield_size_caveats(lookup, roles),
    ]


def _missing_roles(roles: Roles) -> Iterator[Caveat]:
    if roles.teacher is None:
        yield Caveat(
            f"No teacher was given: this is a profile of {text.join(roles.students)}, without a gap.",
            "A teacher's answers to the same items would show what the student lacks of what was there to learn.",
        )
        return
    without_base = [student for student in roles.students if student not in roles.base]
    if without_base:
        yield Caveat(
            f"No base was given for {text.join(without_base)}.",
            "Gap closure needs the model before distillation; without it, what it could already do counts as learnt.",
        )
    students_without_control = [student for student in roles.students if student not in roles.control]
    if students_without_control:
        all_lack_control = len(students_without_control) == len(roles.students)
        yield Caveat(
            f"No control was given for {'any student' if all_lack_control else text.join(students_without_control)}.",
            "What came from the teacher cannot be told from what the same prompts with gold targets would have taught.",
        )


def _prompting(roles: Roles, models: pd.DataFrame | None) -> Iterator[Caveat]:
    if models is None or "prompting" not in models:
        return
    prompting_by_model = models.dropna(subset=["prompting"]).drop_duplicates("model").set_index("model")["prompting"]
    prompting = {name: str(prompting_by_model[name]) for name in roles.names if name in prompting_by_model.index}
    if len(set(prompting.values())) > 1:
        summary = "; ".join(f"{name}: {text.shorten(describe_prompting(spec), 80)}" for name, spec in prompting.items())
        yield Caveat(
            f"The roles were prompted differently ({text.sanitise_text(summary)}).",
            "Part of every difference below may be the prompt's.",
        )


def _unreadable_answers(lookup: EstimateIndex, roles: Roles) -> Iterator[Caveat]:
    rows = list(_unreadable_rows(lookup, roles))
    tasks = sorted({row.group for row in rows})
    if tasks:
        advice = " or ".join(dict.fromkeys(_UNREADABLE_ADVICE[row.quantity] for row in rows))
        yield Caveat(
            f"{len(tasks)} {'task is' if len(tasks) == 1 else 'tasks are'} set aside from comparisons with the teacher "
            f"for battery, capability and domain: {text.join(tasks)}.",
            f"Surely more than {_UNREADABLE_LIMIT_TEXT} of the answers of {text.sanitise_text(str(roles.teacher))} "
            f"cannot be read there: {advice}, and evaluate again. The tables also have each number with these tasks.",
        )


def _yield_format_caveats(outcomes: pd.DataFrame) -> Iterator[Caveat]:
    labelled = outcomes.dropna(subset=["capability", "format"])
    formats_by_capability = labelled.groupby("capability")["format"].unique()
    if not {"knowledge", "reasoning"} <= set(formats_by_capability.index):
        return
    knowledge, reasoning = (set(formats_by_capability[name]) for name in ("knowledge", "reasoning"))
    if knowledge.isdisjoint(reasoning):
        yield Caveat(
            f"Format and capability are aliased: knowledge is asked as {text.join(sorted(knowledge))}, "
            f"reasoning as {text.join(sorted(reasoning))}.",
            "A difference between the two may be one between choosing and writing. Ask each in both formats.",
        )


def _group_by_reason(rows: Sequence[EstimateView]) -> list[list[EstimateView]]:
    """The rows that share a reason code, code by code."""
    rows_by_reason: dict[str, list[EstimateView]] = {}
    for row in rows:
        rows_by_reason.setdefault(row.reason, []).append(row)
    return list(rows_by_reason.values())


def _example_note(rows: Sequence[EstimateView]) -> str:
    """The note of the first row as a sentence, marked as an example where others differ; else its code in words."""
    notes = list(dict.fromkeys(row.note for row in rows if row.note))
    sentence = heading(notes[0] if notes else describe_code(rows[0].reason) or "no reason was recorded")
    return ("For example: " if len(notes) > 1 else "") + sentence + ("" if sentence.endswith((".", "!", "?")) else ".")


def _yield_refusal_caveats(lookup: EstimateIndex, roles: Roles) -> Iterator[Caveat]:
    """Headline ratios without a number; their variants stand in `collect_omitted_data`."""
    for quantity in ("gap_closure", "retention"):
        rows = [row for row in lookup.select(quantity, "capability") if row.status == "refused" and row.is_headline]
        for reason_rows in _group_by_reason([row for row in rows if row.model in roles.students]):
            labels = [f"{row.group} ({row.model})" if len(roles.students) > 1 else row.group for row in reason_rows]
            yield Caveat(
                f"No {declaration(quantity).title} for {text.join(dict.fromkeys(labels))}.", _example_note(reason_rows)
            )


def _qualified_headline(lookup: EstimateIndex, roles: Roles) -> Iterator[Caveat]:
    """Headline numbers that rest on answers nobody knows, or on models and items that look wrong; by reason."""
    rows = [
        row
        for quantity in ("accuracy", "gap", "gain", "gap_closure", "retention")
        for level in ("capability", "battery")
        for row in lookup.select(quantity, level)
        if row.is_headline and row.reason in _QUALIFYING_REASONS and row.model in roles.names
    ]
    for reason_rows in _group_by_reason(rows):
        titles = text.join(dict.fromkeys(row.declaration.title for row in reason_rows))
        groups = text.join(dict.fromkeys(row.group for row in reason_rows))
        yield Caveat(
            f"{heading(titles)} of {groups}: {describe_code(reason_rows[0].reason)}.", _example_note(reason_rows)
        )


def _yield_size_caveats(lookup: EstimateIndex, roles: Roles) -> Iterator[Caveat]:
    rows = [row for row in lookup.select("accuracy", "capability") if row.model in roles.students]
    few_items = {row.group: row.n_items for row in rows if row.n_items is not None and row.n_items < _FEW_ITEMS}
    if few_items:
        counts = text.join(f"{group} ({n} items)" for group, n in few_items.items())
        yield Caveat(f"Few items: {counts}.", "The intervals are honest but wide; more items narrow them.")
    few_clusters = {r.group: r.n_clusters for r in rows if r.n_clusters is not None and r.n_clusters < _FEW_CLUSTERS}
    if few_clusters:
        counts = text.join(f"{group} ({n})" for group, n in few_clusters.items())
        yield Caveat(
            f"Fewer than {_FEW_CLUSTERS} independent clusters: {counts}.",
            "The coverage of the intervals was never tested with so few.",
        )
    random_task_groups = {row.group for row in rows if row.population_tasks == "tasks_like_these"}
    fixed_task_groups = [group for group in dict.fromkeys(row.group for row in rows) if group not in random_task_groups]
    if fixed_task_groups:
        yield Caveat(
            f"The numbers for {text.join(fixed_task_groups)} speak of these tasks, not of the capability at large.",
            "With six tasks or more per capability the interval can also cover the choice of tasks.",
        )


def collect_omitted_data(lookup: EstimateIndex, roles: Roles, *, outcomes: pd.DataFrame) -> list[OmittedData]:
    """What the numbers leave out: unreadable tasks, unshared items, errors, refused numbers, questions not asked."""
    return [
        *_excluded_rows(lookup, roles),
        *_unshared_items(outcomes, roles),
        *_failed_answers(outcomes),
        *_list_refused_numbers(lookup),
        *_missing_quantities(lookup),
    ]


def _excluded_rows(lookup: EstimateIndex, roles: Roles) -> Iterator[OmittedData]:
    shares: dict[str, float] = {}
    for row in _unreadable_rows(lookup, roles):
        shares[row.group] = shares.get(row.group, 0.0) + (row.estimate or 0.0)
    for task, share in sorted(shares.items()):
        yield OmittedData(
            f"Task {task}, from comparisons with the teacher for battery, capability and domain",
            f"Unparsed or cut off: {roles.teacher} {text.percent(share)}, surely over {_UNREADABLE_LIMIT_TEXT}.",
        )


def _unshared_items(outcomes: pd.DataFrame, roles: Roles) -> Iterator[OmittedData]:
    all_models = set(outcomes["model"])
    for student in roles.students:
        other_models = [roles.teacher, roles.base.get(student), roles.control.get(student)]
        models = [name for name in dict.fromkeys([student, *other_models]) if name is not None and name in all_models]
        if len(models) < 2 or student not in all_models:
            continue
        try:
            pairs = pair(outcomes, models)
        except TableError as error:
            yield OmittedData(f"Comparison of {text.join(models)}", str(error))
            continue
        n_unshared_items = pairs.n_answered_cells - len(pairs.scores)
        if n_unshared_items:
            yield OmittedData(
                f"{n_unshared_items:,} of {pairs.n_answered_cells:,} items, from comparisons of {text.join(models)}",
                f"Not every one of them has a score there; {text.percent(pairs.share)} are shared.",
            )


def _failed_answers(outcomes: pd.DataFrame) -> Iterator[OmittedData]:
    failed_outcomes = outcomes[(outcomes["status"] == "error").fillna(False).astype(bool)]
    for model, rows in failed_outcomes.groupby("model"):
        tasks = tuple(f"{task} ({n})" for task, n in rows.groupby("task").size().items())
        yield OmittedData(f"{len(rows):,} answers of {model}", "They ended in an error and have no score.", tasks)


def _list_refused_numbers(lookup: EstimateIndex) -> Iterator[OmittedData]:
    """Refused numbers by reason code, each with the note of one."""
    for rows in _group_by_reason([row for row in lookup.rows if row.status == "refused"]):
        titles = heading(text.join(dict.fromkeys(row.declaration.title for row in rows)))
        reason = describe_code(rows[0].reason)
        labels = tuple(dict.fromkeys(row.group for row in rows))
        yield OmittedData(f"{titles}: {len(rows):,} refused{reason and f', {reason}'}", _example_note(rows), labels)


def _missing_quantities(lookup: EstimateIndex) -> Iterator[OmittedData]:
    """Questions that these data do not support at all."""
    estimated = {row.quantity for row in lookup.rows}
    # Where seeds were compared there may still be too few candidates for a list of items: that is no lack of data.
    if any(row.subject == "recipe" for row in lookup.of("gap", "gain")):
        estimated.add("items_lost")
    questions = tuple(f"{q.question} ({q.needs})" for q in QUANTITIES.values() if q.needs and q.name not in estimated)
    if questions:
        yield OmittedData(
            "Questions that ask for more than these tables hold", "In brackets what each needs.", questions
        )
