"""Comparisons set up from tables, files and run directories: tables joined, roles assigned, unlabelled items labelled."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from capgap import schema
from capgap.errors import StoreError, TableError, UsageError, suggestion
from capgap.results.item_labels import complete_labels
from capgap.results.results import Results
from capgap.store.run_directory import RunDirectory

__all__ = ["NameOrMapping", "OutcomeSource", "assign_roles", "compare", "gather_tables"]


class HasPath(Protocol):
    """A run that was loaded or evaluated; its directory is read again."""

    @property
    def path(self) -> Path:
        """The run directory."""


OutcomeSource = pd.DataFrame | Path | str | HasPath
"""Outcomes as a frame, a file (Parquet, CSV, JSONL, JSON), a run directory or a run."""
TableSource = pd.DataFrame | Path | str
NameOrMapping = str | Mapping[str, str]
"""A model for all students, ``"none"``, or student → model."""


@dataclass(frozen=True)
class SourceTables:
    """The tables of one source, or of several joined."""

    outcomes: pd.DataFrame
    tables: dict[str, pd.DataFrame | None]
    """``items``, ``models`` and ``labels``; None where no source has any."""
    facts: tuple[dict[str, Any], ...] = ()
    """run.json of every run directory among the sources, in order."""
    folders: tuple[Path, ...] = ()
    """The run directories, resolved."""


_CARRIED = (schema.ITEMS, schema.MODELS, schema.LABELS)


def compare(
    outcomes: OutcomeSource | Sequence[OutcomeSource],
    *,
    students: str | Sequence[str] | None = None,
    teacher: str | None = None,
    base: NameOrMapping | None = None,
    control: NameOrMapping | None = None,
    models: TableSource | None = None,
    labels: TableSource | None = None,
    items: TableSource | None = None,
    margin: float | None = None,
    conf_level: float = 0.95,
    command: Sequence[str] = (),
) -> Results:
    """Results of a comparison whose estimates are not computed yet; arguments and errors as of `capgap.analyze`."""
    joined = gather_tables(outcomes, models=models, items=items)
    if isinstance(students, str):
        students = (students,)
    roles = assign_roles(
        set(joined.outcomes["model"]), _remembered_roles(joined.facts), students or (), teacher, base, control
    )
    compared = joined.outcomes[joined.outcomes["model"].isin(roles.names)].reset_index(drop=True)
    absent = [name for name in roles.names if name not in set(compared["model"])]
    if absent:
        where = joined.folders[0] if joined.folders else "the tables"
        raise StoreError(f"{where}: has no outcomes of {absent[0]!r} yet. Run its evaluation to the end first.")
    notes = [] if models is None else _unknown_students(models, joined.tables["models"], joined.outcomes, roles)
    tables, label_note = complete_labels(
        compared, joined.tables["items"], joined.tables["models"], joined.tables["labels"], roles, given=labels
    )
    facts = dict(joined.facts[0]) if joined.facts else {}
    if command:
        facts["command"] = list(command)
    if margin is not None:
        facts["margin"] = margin
    return Results(
        outcomes=compared,
        roles=roles,
        items=joined.tables["items"],
        models=joined.tables["models"],
        labels=tables,
        facts=facts,
        notes=tuple(filter(None, [*notes, label_note])),
        folders=joined.folders,
        conf_level=conf_level,
    )


def gather_tables(
    outcomes: OutcomeSource | Sequence[OutcomeSource],
    *,
    models: TableSource | None = None,
    items: TableSource | None = None,
) -> SourceTables:
    """The tables of all sources as one; what the caller brings of items and models goes before what runs hold.

    Raises
    ------
    TableError, StoreError
        A source is missing, holds no such table, or no outcomes.
    """
    several = [outcomes] if isinstance(outcomes, (pd.DataFrame, Path, str)) or hasattr(outcomes, "path") else outcomes
    parts = [_read_source(source) for source in _distinct(several)]  # type: ignore[arg-type]
    whole = schema.concat([part.outcomes for part in parts], schema.OUTCOMES)
    if not len(whole):
        names = ", ".join(str(source) for source in several if isinstance(source, (Path, str))) or "outcomes"
        raise TableError(f"{names}: no row below the names of the columns; expected outcomes.")
    brought = {"items": items, "models": models}
    tables = {}
    for table in _CARRIED:
        source = brought.get(table.name)
        own = [] if source is None else [_table(source, table)]
        tables[table.name] = _join([*own, *(p.tables[table.name] for p in parts)], table)
    return SourceTables(
        whole,
        tables,
        tuple(facts for part in parts for facts in part.facts),
        tuple(folder for part in parts for folder in part.folders),
    )


def _distinct(sources: Iterable[OutcomeSource]) -> list[pd.DataFrame | Path]:
    """Frames as they are, everything else as a path, each path once."""
    distinct: dict[object, pd.DataFrame | Path] = {}
    for source in sources:
        if isinstance(source, pd.DataFrame):
            distinct[id(source)] = source
        else:
            path = Path(source if isinstance(source, (Path, str)) else source.path)
            distinct.setdefault(path.resolve(), path)
    return list(distinct.values())


def _read_source(source: pd.DataFrame | Path) -> SourceTables:
    if isinstance(source, pd.DataFrame) or not source.is_dir():
        return SourceTables(_table(source, schema.OUTCOMES), {table.name: None for table in _CARRIED})
    run = RunDirectory.existing(source)
    outcomes = run.read(schema.OUTCOMES)
    if not len(outcomes):
        raise StoreError(f"{source}: has no outcomes yet. Run its evaluation first, or let it finish.")
    return SourceTables(outcomes, {t.name: run.read(t) for t in _CARRIED}, (run.facts,), (source.resolve(),))


def _table(source: TableSource, table: schema.Table) -> pd.DataFrame:
    if isinstance(source, pd.DataFrame):
        return schema.validate(source, table, source=table.name)
    return schema.read(source, table)


def _join(frames: Iterable[pd.DataFrame | None], table: schema.Table) -> pd.DataFrame | None:
    """One row for each key: two runs of one battery hold the same items; of a model, what any source knows."""
    filled = [frame for frame in frames if frame is not None and len(frame)]
    if not filled:
        return None
    whole = pd.concat(filled, ignore_index=True)
    if table is schema.MODELS:
        whole = whole.groupby("model", sort=False, as_index=False).first()
    return schema.validate(whole.drop_duplicates(list(table.key), ignore_index=True), table, source=table.name)


def _remembered_roles(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The roles of all runs together: every student once, the first teacher, bases and controls of each student."""
    roles = [facts.get("roles") or {} for facts in runs]
    return {
        "students": tuple(dict.fromkeys(name for each in roles for name in each.get("students", ()))),
        "teacher": next((each["teacher"] for each in roles if each.get("teacher")), None),
        "base": {student: name for each in roles for student, name in each.get("base", {}).items()},
        "control": {student: name for each in roles for student, name in each.get("control", {}).items()},
    }


def assign_roles(
    known: Collection[str],
    remembered: Mapping[str, Any],
    students: Sequence[str],
    teacher: str | None,
    base: NameOrMapping | None,
    control: NameOrMapping | None,
) -> schema.Roles:
    """Who is who: by the arguments, what they leave open by what run directories remember.

    Parameters
    ----------
    known
        The models that have outcomes.
    remembered
        ``students``, ``teacher``, ``base`` and ``control`` of run.json; empty where there is no run.
    students
        Empty: the remembered ones, else every model that plays no other role.
    teacher, base, control
        A model (or student → model), None for what is remembered, ``"none"`` for nobody.

    Raises
    ------
    UsageError
        A name is unknown, a model has two roles that exclude each other, or no student is left.
    """
    for role, value in (("student", students), ("teacher", teacher), ("base", base), ("control", control)):
        for name in _model_names(value):
            if name not in known:
                raise UsageError(f"{role} {name!r}: no such model in the tables.{suggestion(name, known)}")
    lead = remembered.get("teacher") if teacher is None else None if teacher == "none" else teacher
    bases, controls = remembered.get("base", {}), remembered.get("control", {})
    others = {lead, *_model_names(base), *_model_names(control), *bases.values(), *controls.values()}
    candidates = students or remembered.get("students") or [name for name in sorted(known) if name not in others]
    compared = tuple(name for name in dict.fromkeys(candidates) if name != lead)
    if not compared:
        raise UsageError(
            "no student is left: every model in the tables plays another role. Name one: --student NAME "
            "(students= in Python)."
        )
    _refuse_clashes(students, lead, base, control)
    return schema.Roles(
        students=compared,
        teacher=lead,
        base=_by_student("base", compared, base, bases),
        control=_by_student("control", compared, control, controls),
    )


def _model_names(value: NameOrMapping | Sequence[str] | None) -> list[str]:
    """The models that an argument names."""
    if value is None or value == "none":
        return []
    return [value] if isinstance(value, str) else list(value.values() if isinstance(value, Mapping) else value)


def _refuse_clashes(
    students: Sequence[str], lead: str | None, base: NameOrMapping | None, control: NameOrMapping | None
) -> None:
    """Refuse a model that the arguments give two roles which exclude each other."""
    gold = "the same student trained on gold targets"
    if lead is not None and lead in students:
        raise UsageError(f"student {lead!r} is the teacher too, and would be compared with itself. Leave it out.")
    for role, value, expected in (("base", base, "the student before distillation"), ("control", control, gold)):
        if lead is not None and lead in _model_names(value):
            raise UsageError(f"{role} {lead!r} is the teacher too. Expected {expected}.")
    both = set(_model_names(base)) & set(_model_names(control))
    if both:
        raise UsageError(f"control {min(both)!r} is the base too. Expected {gold}.")


def _by_student(
    role: str, students: Sequence[str], given: NameOrMapping | None, remembered: Mapping[str, str]
) -> dict[str, str]:
    """Student → its base or control."""
    if given == "none":
        return {}
    if isinstance(given, str):
        return {student: given for student in students if student != given}
    for student in given or ():
        if student not in students:
            raise UsageError(f"{role} of {student!r}: no such student.{suggestion(student, students)}")
    pairs = remembered if given is None else given
    return {student: name for student, name in pairs.items() if student in students}


def _unknown_students(
    source: TableSource, models: pd.DataFrame | None, outcomes: pd.DataFrame, roles: schema.Roles
) -> list[str]:
    """A note on the students that a models table of the user has no row for; one of other models is refused."""
    name = "models" if isinstance(source, pd.DataFrame) else str(source)
    described = set(_table(source, schema.MODELS)["model"])
    known = set(outcomes["model"])
    if not described & known:
        stranger = min(described, default="")
        raise TableError(
            f"{name}: none of its models is in the tables, {stranger!r} for one.{suggestion(stranger, known)}"
        )
    unknown = [student for student in roles.students if student not in described]
    if not unknown:
        return []
    more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
    return [f"{name}: has no row for {', '.join(unknown[:5])}{more}: effects, data cost and patterns may lack them."]
