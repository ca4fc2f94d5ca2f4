"""Comparisons set up from tables, files and run directories: tables joined, roles assigned, items labelled."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from numbers import Real
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pandas as pd

from capgap import schema
from capgap.classification import complete_labels
from capgap.errors import StoreError, TableError, UsageError, suggestion
from capgap.events import Listener, Note, ignore
from capgap.printable_text import natural_order
from capgap.results.joined_runs import join_run_facts, join_run_roles
from capgap.results.results import Results
from capgap.store import RunDirectory

__all__ = ["RoleNames", "FrameOrPath", "assign_roles", "compare"]

FrameOrPath = pd.DataFrame | str | PathLike[str]
"""A frame, a file (Parquet, CSV, JSONL, JSON) or, for outcomes, a run directory or a run."""
RoleNames = str | Mapping[str, str]
"""A model that plays a role for all students, ``"none"``, or student → model."""


class LoadedSource(NamedTuple):
    """The tables of one source."""

    outcomes: pd.DataFrame
    frames_by_table: dict[schema.Table, pd.DataFrame]
    """Items, models and labels of a run directory."""
    facts: Mapping[str, Any] = MappingProxyType({})
    """Its run.json."""
    folder: Path | None = None
    """Itself, resolved."""


def compare(
    outcomes: FrameOrPath | Sequence[FrameOrPath],
    *,
    students: str | Sequence[str] | None = None,
    teacher: str | None = None,
    base: RoleNames | None = None,
    control: RoleNames | None = None,
    models: FrameOrPath | None = None,
    labels: FrameOrPath | None = None,
    items: FrameOrPath | None = None,
    margin: float | None = None,
    conf_level: float | None = None,
    roles: schema.Roles | None = None,
    command: Sequence[str] = (),
    on_event: Listener = ignore,
) -> Results:
    """Results of a comparison whose estimates are not computed yet; arguments and errors as of `capgap.analyze`.

    `roles` stand for those that run directories remember, which another process may have changed.
    """
    raw_sources = wrap_in_list(outcomes, "outcomes")
    sources = [_read_outcome_source(source, on_event) for source in _drop_duplicate_sources(raw_sources)]
    runs = [(tables.folder.name, tables.facts) for tables in sources if tables.folder is not None]
    students = wrap_in_list(students or (), "students")
    models_by_role = {"teacher": teacher, "base": base, "control": control}
    facts, notes = join_run_facts(runs)
    if roles is None:
        run_roles, role_notes = join_run_roles(runs)
        notes += [note_text for role, note_text in role_notes if models_by_role[role] is None]
    else:
        run_roles, facts = asdict(roles), facts | {"declined_roles": []}
    if run_roles["students"] and not students:
        for n, tables in enumerate(sources):
            sources[n], pending_battery_notes = _without_pending(tables)
            notes += pending_battery_notes
    all_outcomes = schema.concat([tables.outcomes for tables in sources], schema.OUTCOMES)
    if not len(all_outcomes):
        source_names = ", ".join(str(source) for source in raw_sources if not isinstance(source, pd.DataFrame))
        raise TableError(f"{source_names or 'outcomes'}: no row below the names of the columns; expected outcomes.")
    known_models = set(all_outcomes["model"])
    roles = assign_roles(known_models, run_roles, students, teacher, base, control)
    missing_names = [name for name in roles.names if name not in known_models]
    if missing_names:
        origin = next((tables.folder for tables in sources if tables.folder), "the tables")
        raise StoreError(f"{origin}: has no outcomes of {missing_names[0]!r} yet. Run its evaluation to the end first.")
    described = None if models is None else _read_table(models, schema.MODELS)
    role_outcomes = all_outcomes[all_outcomes["model"].isin(roles.names)].reset_index(drop=True)
    item_table = _merge(schema.ITEMS, None if items is None else _read_table(items, schema.ITEMS), sources)
    model_table = _merge(schema.MODELS, described, sources)
    run_labels = _merge(schema.LABELS, None, sources)
    item_labels, labels_note = complete_labels(role_outcomes, item_table, model_table, run_labels, roles, given=labels)
    models_source_name = "models" if isinstance(models, pd.DataFrame) else str(models)
    notes += [] if described is None else _unknown_students(models_source_name, described, known_models, roles)
    notes += [labels_note] if labels_note else []
    for note_text in notes:
        on_event(Note(note_text))
    asked_settings = {"margin": margin, "conf_level": conf_level, "command": list(command) or None}
    facts |= _make_comparison_facts(facts, roles, asked_settings, models_by_role, set(role_outcomes["battery"]))
    folders = tuple(tables.folder for tables in sources if tables.folder)
    is_of_one_run = len(sources) == len(folders) == 1
    return Results(
        role_outcomes, roles, item_table, model_table, item_labels, facts, tuple(notes), folders, is_of_one_run
    )


def _make_comparison_facts(
    run_facts: Mapping[str, Any],
    roles: schema.Roles,
    settings: Mapping[str, Any],
    named: Mapping[str, RoleNames | None],
    batteries: Collection[str],
) -> dict[str, Any]:
    """The facts that this comparison changes: its roles, batteries and settings; None leaves what is remembered."""
    given_settings = {name: value for name, value in settings.items() if value is not None}
    for name in ("margin", "conf_level"):
        if not isinstance(given_settings.get(name, 0), Real):
            raise UsageError(f"{name} is {given_settings[name]!r}; expected a number.")
    old_declined = run_facts.get("declined_roles", ())
    declined_roles = [role for role, name in named.items() if name == "none" or (name is None and role in old_declined)]
    known = {name: entry for name, entry in run_facts.get("batteries", {}).items() if name in batteries}
    return {"roles": asdict(roles), **given_settings, "declined_roles": declined_roles, "batteries": known}


def _without_pending(part: LoadedSource) -> tuple[LoadedSource, list[str]]:
    """The tables without outcomes of batteries that no evaluation has gone through yet, and notes on them."""
    pending = [name for name, entry in part.facts.get("batteries", {}).items() if entry.get("pending")]
    rows = part.outcomes[~part.outcomes["battery"].isin(pending)]
    if len(rows) == len(part.outcomes):
        return part, []
    return part._replace(outcomes=rows), [
        f"{part.folder}: the evaluation on {', '.join(pending)} has not ended, and its outcomes are left out. The same "
        f"command again goes on with it."
    ]


def _drop_duplicate_sources(sources: Iterable[FrameOrPath]) -> list[pd.DataFrame | Path]:
    """Frames as they are, everything else as a path, each path once."""
    distinct: dict[object, pd.DataFrame | Path] = {}
    for source in sources:
        if isinstance(source, pd.DataFrame):
            distinct[id(source)] = source
        else:
            path = _check_table_path(source)
            distinct.setdefault(path.resolve(), path)
    return list(distinct.values())


def _check_table_path(source: Any) -> Path:
    """The path of a table or a run, which may not exist but could."""
    if not isinstance(source, (str, PathLike)):
        raise UsageError(f"a table is of type {type(source).__name__}; expected a DataFrame, a path or a run.")
    path = Path(source)
    try:
        path.resolve().is_dir()
    except (OSError, ValueError) as error:  # too long a name, a null byte
        raise UsageError(f"{str(path)[:200]!r} cannot be a path: {error}"[:400] + ".") from error
    return path


def wrap_in_list(value: Any, argument: str) -> list[Any]:
    """One value, or several of them, as a list."""
    if isinstance(value, (pd.DataFrame, str, PathLike)):
        return [value]
    if not isinstance(value, Iterable) or isinstance(value, (Mapping, pd.Series)):
        raise UsageError(f"{argument} is of type {type(value).__name__}; expected one of them or a list.")
    return list(value)


def _read_outcome_source(source: pd.DataFrame | Path, on_event: Listener) -> LoadedSource:
    if isinstance(source, pd.DataFrame) or not source.is_dir():
        return LoadedSource(_read_table(source, schema.OUTCOMES), {})
    run = RunDirectory.open_existing(source, on_event=on_event)
    outcomes = run.read(schema.OUTCOMES)
    if not len(outcomes):
        raise StoreError(f"{source}: has no outcomes yet. Run its evaluation first, or let it finish.")
    frames_by_table = {table: run.read(table) for table in (schema.ITEMS, schema.MODELS, schema.LABELS)}
    return LoadedSource(outcomes, frames_by_table, run.facts, source.resolve())


def _read_table(source: FrameOrPath, table: schema.Table) -> pd.DataFrame:
    if isinstance(source, pd.DataFrame):
        return schema.validate(source, table, source=table.name)
    return schema.read_df(_check_table_path(source), table)


def _merge(table: schema.Table, user_rows: pd.DataFrame | None, sources: Sequence[LoadedSource]) -> pd.DataFrame | None:
    """One row for each key: what the user says first, then the runs, which may share items; None without any row.

    Of a model, every column holds the first known value.
    """
    frames = [user_rows, *(tables.frames_by_table.get(table) for tables in sources)]
    nonempty_frames = [frame for frame in frames if frame is not None and len(frame)]
    if not nonempty_frames:
        return None
    joined_rows = pd.concat(nonempty_frames, ignore_index=True)
    if table is schema.MODELS:
        joined_rows = joined_rows.groupby("model", sort=False, as_index=False).first()
    return schema.validate(joined_rows.drop_duplicates(list(table.key), ignore_index=True), table, source=table.name)


def assign_roles(
    known_models: Collection[str],
    run_roles: Mapping[str, Any],
    students: Sequence[str],
    teacher: str | None,
    base: RoleNames | None,
    control: RoleNames | None,
) -> schema.Roles:
    """Who is who: by the arguments; what they leave open, by what run directories remember.

    Parameters
    ----------
    known_models
        The models that have outcomes.
    run_roles
        ``students``, ``teacher``, ``base`` and ``control`` of run.json.
    students
        Empty: the remembered ones, else every model that plays no other role.
    teacher, base, control
        A model (or student → model), None for what is remembered, ``"none"`` for nobody.

    Raises
    ------
    UsageError
        A name is unknown, a model has two roles that exclude each other, or no student is left.
    """
    if isinstance(teacher, Mapping):
        raise UsageError("teacher is one model for all students; expected its name.")
    models_by_role = {"teacher": teacher, "base": base, "control": control}
    named = {"student": list(students), **{role: _list_models(value, role) for role, value in models_by_role.items()}}
    for role, names in named.items():
        for name in names:
            if not isinstance(name, str) or name not in known_models:
                raise UsageError(f"{role} {name!r}: no such model in the tables.{suggestion(name, known_models)}")
    lead = run_roles["teacher"] if teacher is None else None if teacher == "none" else teacher
    nonstudents = {lead, *named["base"], *named["control"], *run_roles["base"].values(), *run_roles["control"].values()}
    in_order = sorted(known_models, key=natural_order)
    candidates = students or run_roles["students"] or [name for name in in_order if name not in nonstudents]
    student_names = tuple(name for name in dict.fromkeys(candidates) if name != lead)
    if not student_names:
        raise UsageError("no student is left: every model in the tables plays another role. Say --student NAME.")
    gold = "the same student trained on gold targets"
    if lead in students:
        raise UsageError(f"student {lead!r} is the teacher too, and would be compared with itself. Leave it out.")
    for role, expected in (("base", "the student before distillation"), ("control", gold)):
        if lead in named[role]:
            raise UsageError(f"{role} {lead!r} is the teacher too. Expected {expected}.")
    for name in named["control"]:
        if name in named["base"]:
            raise UsageError(f"control {name!r} is the base too. Expected {gold}.")
    bases, control_models = (
        _role_models(student_names, model, run_roles[role]) for model, role in ((base, "base"), (control, "control"))
    )
    return schema.Roles(student_names, lead, bases, control_models)


def _list_models(value: Any, role: str) -> list[Any]:
    """The models that an argument names."""
    if value is None or isinstance(value, str):
        return [] if value in (None, "none") else [value]
    if not isinstance(value, Mapping):
        raise UsageError(f"{role} is {value!r}; expected the name of a model.")
    return list(value.values())


def _role_models(students: Sequence[str], argument: RoleNames | None, run_models: Mapping[str, str]) -> dict[str, str]:
    """Student → its base or control."""
    pairs = argument if isinstance(argument, Mapping) else {students[0]: argument} if len(students) == 1 else {}
    if any(student == name for student, name in pairs.items()):
        raise UsageError(f"{argument!r} would be compared with itself: a base or control is another model.")
    if isinstance(argument, str):
        return {} if argument == "none" else {student: argument for student in students if student != argument}
    for student in argument or ():
        if student not in students:
            raise UsageError(f"{student!r} has a base or control but is no student.{suggestion(student, students)}")
    chosen = run_models if argument is None else argument
    return {student: name for student, name in chosen.items() if student in students}


def _unknown_students(
    source: str, models: pd.DataFrame, known_models: Collection[str], roles: schema.Roles
) -> list[str]:
    """A note on students that the user's models table has no row for; a table of other models is refused."""
    described = set(models["model"])
    if described.isdisjoint(known_models):
        unlisted = min(described, default="")
        raise TableError(
            f"{source}: none of its models is in the tables, {unlisted!r} for one.{suggestion(unlisted, known_models)}"
        )
    unknown = [student for student in roles.students if student not in described]
    overflow_text = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
    name_list = f"{', '.join(unknown[:5])}{overflow_text}"
    return [f"{source}: has no row for {name_list}: effects, data cost and patterns may lack them."] if unknown else []
