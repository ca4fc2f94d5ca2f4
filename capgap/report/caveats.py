"""What a reader must know before believing the numbers, and what is missing from them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from capgap.errors import TableError
from capgap.report import text
from capgap.report.provenance import plain_prompting
from capgap.report.tables import EstimateIndex, EstimateView, task_names
from capgap.schema import MAX_UNREADABLE_SHARE, Roles, pair

__all__ = ["Caveat", "OmittedData", "caveats", "excluded_tasks", "first_clause", "omitted_data"]

_FEW_CLUSTERS = 6
_FEW_ITEMS = 100
_ASKS_FOR = {
    "effect": "what made students better (six students or more, and a models table that says how each was made)",
    "data_cost": "data cost and the gain of the next batch (a teacher, and students of one recipe at two sizes or more "
    "beside the base, with n_examples in the models table)",
    "n_patterns": "items on which students fail alike (24 students or more that a models table tells apart)",
    "recipe": "what holds for a recipe (three students or more that differ in a known seed alone)",
    "error_type": "types of wrong answers (the texts of answers, and the capability of items)",
    "failure_odds": "what goes with failure (a property x_… of the items, scores of 0 and 1)",
}
"""What gives no row at all where the data are too few for the question, and what it asks for."""
_GUARDED = "left out for over"
"""How the analysis begins the reason of a number that the guard left without a task."""


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


def _troubled(book: EstimateIndex, model: str) -> dict[str, float]:
    """Share of a model's items that were unparsed or truncated, by task."""
    share: dict[str, float] = {}
    for quantity in ("unparsed", "truncated"):
        for row in book.select(quantity, "task", model=model):
            share[row.group] = share.get(row.group, 0.0) + (row.estimate or 0.0)
    return share


def excluded_tasks(book: EstimateIndex, roles: Roles) -> set[str]:
    """Tasks where teacher or a student left over `MAX_UNREADABLE_SHARE` of the items unparsed or truncated."""
    compared = [*([roles.teacher] if roles.teacher else []), *roles.students]
    return {
        task for model in compared for task, share in _troubled(book, model).items() if share > MAX_UNREADABLE_SHARE
    }


def caveats(
    book: EstimateIndex, roles: Roles, *, outcomes: pd.DataFrame, models: pd.DataFrame | None, excluded: set[str]
) -> list[Caveat]:
    """Everything that stands between the headline and belief, the gravest first."""
    return [
        *_missing_roles(roles),
        *_prompting(roles, models),
        *_guard(excluded),
        *_aliased(outcomes[~task_names(outcomes).isin(excluded)]),
        *_headline_refused(book, roles),
        *_small(book, roles),
    ]


def _missing_roles(roles: Roles) -> Iterator[Caveat]:
    alone = text.join(student for student in roles.students)
    if roles.teacher is None:
        yield Caveat(
            f"No teacher was given: this is a profile of {alone}, without a gap.",
            "A teacher's answers to the same items would show what the student lacks of what was there to learn.",
        )
        return
    without = [student for student in roles.students if student not in roles.base]
    if without:
        yield Caveat(
            f"No base was given for {text.join(without)}.",
            "Gap closure needs the model before distillation; without it, what it could already do counts as learnt.",
        )
    without = [student for student in roles.students if student not in roles.control]
    if without:
        yield Caveat(
            f"No control was given for {text.join(without) if len(without) < len(roles.students) else 'any student'}.",
            "What came from the teacher cannot be told from what the same prompts with gold targets would have taught.",
        )


def _prompting(roles: Roles, models: pd.DataFrame | None) -> Iterator[Caveat]:
    if models is None or "prompting" not in models:
        return
    known = models.dropna(subset=["prompting"]).drop_duplicates("model").set_index("model")["prompting"]
    ways = {name: str(known[name]) for name in roles.names if name in known.index}
    if len(set(ways.values())) > 1:
        said = "; ".join(f"{name}: {text.shorten(plain_prompting(way), 80)}" for name, way in ways.items())
        yield Caveat(
            f"The roles were prompted differently ({text.clean(said)}).",
            "Part of every difference below may be the prompt's.",
        )


def _guard(excluded: set[str]) -> Iterator[Caveat]:
    tasks = sorted(excluded)
    if tasks:
        yield Caveat(
            f"{len(tasks)} {'task is' if len(tasks) == 1 else 'tasks are'} kept out of the numbers for battery, "
            f"capability and domain: {text.join(tasks)}.",
            f"More than {100 * MAX_UNREADABLE_SHARE:g}\u202f% of the answers there could not be parsed or were cut; "
            "raise max_tokens, or mend the stop words or the extraction, and evaluate again.",
        )


def _aliased(outcomes: pd.DataFrame) -> Iterator[Caveat]:
    labelled = outcomes.dropna(subset=["capability", "format"])
    formats = labelled.groupby("capability")["format"].unique()
    if not {"knowledge", "reasoning"} <= set(formats.index):
        return
    knowledge, reasoning = (set(formats[name]) for name in ("knowledge", "reasoning"))
    if knowledge.isdisjoint(reasoning):
        yield Caveat(
            f"Format and capability are aliased: knowledge is asked as {text.join(sorted(knowledge))}, "
            f"reasoning as {text.join(sorted(reasoning))}.",
            "A difference between the two may be one between choosing and writing. Ask each in both formats.",
        )


def _headline_refused(book: EstimateIndex, roles: Roles) -> Iterator[Caveat]:
    for quantity in ("gap_closure", "retention"):
        refused: dict[str, list[str]] = {}
        for row in book.select(quantity, "capability"):
            wider = row.weighting == "items" or "tasks like these" in row.population  # said under "left out"
            if row.status == "refused" and row.model in roles.students and not wider:
                whose = f"{row.group} ({row.model})" if len(roles.students) > 1 else row.group
                refused.setdefault(first_clause(row.note), []).append(whose)
        for why, who in refused.items():
            yield Caveat(f"No {quantity.replace('_', ' ')} for {text.join(dict.fromkeys(who))}.", _sentence(why))


def first_clause(note: str) -> str:
    """The reason itself, without the remarks that follow it."""
    return note.partition("; ")[0] or "no reason was recorded"


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:] + ("" if words.endswith((".", "!", "?")) else ".")


def _small(book: EstimateIndex, roles: Roles) -> Iterator[Caveat]:
    rows = [row for row in book.select("accuracy", "capability") if row.model in roles.students]
    few_items = {row.group: row.n_items for row in rows if row.n_items is not None and row.n_items < _FEW_ITEMS}
    if few_items:
        said = text.join(f"{group} ({n} items)" for group, n in few_items.items())
        yield Caveat(f"Few items: {said}.", "The intervals are honest but wide; more items narrow them.")
    few_clusters = {r.group: r.n_clusters for r in rows if r.n_clusters is not None and r.n_clusters < _FEW_CLUSTERS}
    if few_clusters:
        said = text.join(f"{group} ({n})" for group, n in few_clusters.items())
        yield Caveat(
            f"Fewer than {_FEW_CLUSTERS} independent clusters: {said}.",
            "The coverage of the intervals was never tested with so few.",
        )
    wide = {row.group for row in rows if "tasks like these" in row.population}
    narrow = [group for group in dict.fromkeys(row.group for row in rows) if group not in wide]
    if narrow:
        yield Caveat(
            f"The numbers for {text.join(narrow)} speak of these tasks, not of the capability at large.",
            "With six tasks or more per capability the interval can also cover the choice of tasks.",
        )


def omitted_data(book: EstimateIndex, roles: Roles, *, outcomes: pd.DataFrame, excluded: set[str]) -> list[OmittedData]:
    """What the numbers do not hold: guarded tasks, items not shared, errors, refused numbers."""
    return [
        *_guarded_rows(book, roles, excluded),
        *_unshared(outcomes, roles),
        *_errors(outcomes),
        *_refused(book),
        *_beyond(book),
    ]


def _guarded_rows(book: EstimateIndex, roles: Roles, excluded: set[str]) -> Iterator[OmittedData]:
    compared = [*([roles.teacher] if roles.teacher else []), *roles.students]
    share = {model: _troubled(book, model) for model in compared}
    for task in sorted(excluded):
        over = [
            f"{m} {text.percent(share[m][task])}" for m in compared if share[m].get(task, 0.0) > MAX_UNREADABLE_SHARE
        ]
        yield OmittedData(
            f"Task {task}, from every number for battery, capability and domain",
            f"Unparsed or truncated: {text.join(over)}, over the guard of {100 * MAX_UNREADABLE_SHARE:g}\u202f%.",
        )


def _unshared(outcomes: pd.DataFrame, roles: Roles) -> Iterator[OmittedData]:
    present = set(outcomes["model"])
    for student in roles.students:
        others = [roles.teacher, roles.base.get(student), roles.control.get(student)]
        compared = [name for name in dict.fromkeys([student, *others]) if name is not None and name in present]
        if len(compared) < 2 or student not in present:
            continue
        try:
            pairs = pair(outcomes, compared)
        except TableError as error:
            yield OmittedData(f"Comparison of {text.join(compared)}", str(error))
            continue
        lost = pairs.n_any - len(pairs.scores)
        if lost:
            yield OmittedData(
                f"{lost:,} of {pairs.n_any:,} items, from comparisons of {text.join(compared)}",
                f"Not every one of them has a score there; {text.percent(pairs.share)} are shared.",
            )


def _errors(outcomes: pd.DataFrame) -> Iterator[OmittedData]:
    broken = outcomes[(outcomes["status"] == "error").fillna(False).astype(bool)]
    for model, rows in broken.groupby("model"):
        tasks = tuple(f"{task} ({n})" for task, n in rows.groupby("task").size().items())
        yield OmittedData(f"{len(rows):,} answers of {model}", "They ended in an error and have no score.", tasks)


def _refused(book: EstimateIndex) -> Iterator[OmittedData]:
    """Refused numbers by reason; reasons that differ only in their figures, or only in which task failed, are one."""
    found: dict[str, list[EstimateView]] = {}
    for row in book.rows:
        if row.status == "refused":
            reason = first_clause(row.note)
            alike = _GUARDED if reason.startswith(_GUARDED) else re.sub(r"[-\u2212\d.,]+", "#", reason)
            found.setdefault(alike, []).append(row)
    for alike, rows in found.items():
        reasons = list(dict.fromkeys(first_clause(row.note) for row in rows))
        why = _sentence(reasons[0]) if len(reasons) == 1 else f"For example: {_sentence(reasons[0])}"
        if alike == _GUARDED:
            why = "Every task of these groups is over the guard."
        names = text.join(dict.fromkeys(row.name for row in rows))
        groups = tuple(dict.fromkeys(row.group for row in rows))
        yield OmittedData(f"{names[:1].upper()}{names[1:]}: {len(rows)} refused", why, groups)


def _beyond(book: EstimateIndex) -> Iterator[OmittedData]:
    """Questions that nobody could ask of these data."""
    asked = {row.quantity for row in book.rows}
    asked |= {"recipe" for row in book.rows if "this recipe" in row.population}
    missing = tuple(words for quantity, words in _ASKS_FOR.items() if quantity not in asked)
    if missing:
        yield OmittedData("Questions that ask for more than these tables hold", "In brackets what each needs.", missing)
