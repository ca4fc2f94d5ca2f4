"""`capgap analyze`: statistics and report from tables alone; torch is never loaded."""

import sys
from pathlib import Path
from typing import Any

import click
import pandas as pd

from capgap import schema
from capgap.cli.conclude import conclude, items_option, json_option, margin_option, say
from capgap.cli.labels import labels_option
from capgap.errors import StoreError, TableError, UsageError, suggestion

__all__ = ["analyze"]


@click.command()
@click.argument("tables", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="TABLE|DIR…")
@click.option(
    "--student", "students", multiple=True, metavar="NAME", help="Default: every model that plays no other role."
)
@click.option("--teacher", metavar="NAME|none", help="Name of the teacher in the tables.")
@click.option("--base", metavar="NAME|none", help="Name of the base in the tables.")
@click.option("--control", metavar="NAME|none", help="Name of the control in the tables.")
@click.option(
    "--models", "models_table", type=click.Path(path_type=Path), metavar="TABLE",
    help="How models were made: a row each, with `model` and what is known of n_examples, seed, adaptation, "
    "supervision, base … Effects, data cost, recipes and patterns need it.",
)  # fmt: skip
@labels_option
@margin_option
@items_option
@json_option
@click.option(
    "--out", type=click.Path(path_type=Path), help="Where estimates and report go; default: DIR, or capgap-out/NAME."
)
def analyze(
    tables: tuple[Path, ...],
    students: tuple[str, ...],
    teacher: str | None,
    base: str | None,
    control: str | None,
    models_table: Path | None,
    labels_file: Path | None,
    margin: float | None,
    items: str,
    as_json: bool,
    out: Path | None,
) -> None:
    """Statistics and report from outcome tables (Parquet, CSV, JSONL) or run directories.

    A table needs the columns model, task, item and score (0 to 1). It may have capability (knowledge, reasoning or
    mixed), chance (the score of a guess), domain, cluster (items that stand or fall together), format (choose or
    generate), prediction, response, target, battery, variant, repeat, and x_NAME for properties of the items; all
    columns stand in capgap/schema/columns.py. Roles are names in the column `model`; a run directory remembers its own.
    """
    named: dict[Path, Path] = {}
    for path in tables:
        named.setdefault(path.resolve(), path)
    tables = tuple(named.values())
    found = [_outcomes(path) for path in tables]
    outcomes = schema.concat([frame for frame, _ in found], schema.OUTCOMES)
    if not len(outcomes):
        raise TableError(f"{', '.join(map(str, tables))}: no row below the names of the columns; expected outcomes.")
    run = next((facts for _, facts in found if facts), {})
    roles = _roles(outcomes, _remembered([facts for _, facts in found]), students, teacher, base, control)
    made = _made(models_table, roles, set(outcomes["model"]))
    outcomes = outcomes[outcomes["model"].isin(roles.names)]
    first = tables[0]
    folder = out or (first if first.is_dir() else Path("capgap-out") / first.stem)
    _make(folder, tables)
    _carry(tables, folder, made)
    facts: dict[str, Any] = {**run, "command": ["capgap", *sys.argv[1:]]} if not run or out else run
    conclude(
        folder,
        outcomes,
        roles,
        facts,
        show_items=items == "some",
        as_json=as_json,
        margin=margin,
        labels_file=labels_file,
    )


def _outcomes(path: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    if not path.is_dir():
        return schema.read(path, schema.OUTCOMES), {}
    from capgap.store.run_directory import RunDirectory

    run = RunDirectory.existing(path)
    outcomes = run.read(schema.OUTCOMES)
    if not len(outcomes):
        raise StoreError(f"{path}: has no outcomes yet. Run its evaluation first, or let it finish.")
    return outcomes, run.facts


def _remembered(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The roles of all runs together: every student once, the first teacher, bases and controls of each student."""
    roles = [facts.get("roles", {}) for facts in runs]
    return {
        "students": tuple(dict.fromkeys(name for one in roles for name in one.get("students", ()))),
        "teacher": next((one["teacher"] for one in roles if one.get("teacher")), None),
        "base": {student: name for one in roles for student, name in one.get("base", {}).items()},
        "control": {student: name for one in roles for student, name in one.get("control", {}).items()},
    }


def _roles(
    outcomes: pd.DataFrame,
    told: dict[str, Any],
    students: tuple[str, ...],
    teacher: str | None,
    base: str | None,
    control: str | None,
) -> schema.Roles:
    """Roles from the options; what they leave open is what the run directories remember (`told`)."""
    known = sorted(outcomes["model"].unique())
    for option, name in (("--teacher", teacher), ("--base", base), ("--control", control)):
        if name not in (None, "none") and name not in known:
            raise UsageError(f"{option} {name}: no such model in the tables.{suggestion(str(name), known)}")
    for name in students:
        if name not in known:
            raise UsageError(f"--student {name}: no such model in the tables.{suggestion(name, known)}")
    lead = teacher if teacher is not None else told.get("teacher")
    lead = None if lead == "none" else lead
    others = {lead, base, control, *told.get("base", {}).values(), *told.get("control", {}).values()}
    compared = students or tuple(told.get("students", ())) or tuple(name for name in known if name not in others)
    compared = tuple(name for name in dict.fromkeys(compared) if name != lead)
    _check_clash(students if compared else (), lead, base, control)
    if not compared:
        raise UsageError("no student is left: every model in the tables plays another role. Say --student NAME.")
    return schema.Roles(
        students=compared,
        teacher=lead,
        base=_each(compared, base, told.get("base", {})),
        control=_each(compared, control, told.get("control", {})),
    )


def _check_clash(students: tuple[str, ...], lead: str | None, base: str | None, control: str | None) -> None:
    """Refuse a model that the options give two roles which exclude each other."""
    if lead is not None and lead in students:
        raise UsageError(f"--student {lead}: is the teacher too, and would be compared with itself. Leave it out.")
    for option, name, what in (("--base", base, "the student before distillation"),
                               ("--control", control, "the same student trained on gold targets")):  # fmt: skip
        if name not in (None, "none") and name == lead:
            raise UsageError(f"{option} {name}: is the teacher too. Expected {what}.")
    if control not in (None, "none") and control == base:
        raise UsageError(f"--control {control}: is the base too. Expected the same student trained on gold targets.")


def _each(students: tuple[str, ...], given: str | None, told: dict[str, str]) -> dict[str, str]:
    if given == "none":
        return {}
    if given is None:
        return {student: name for student, name in told.items() if student in students}
    return {student: given for student in students if student != given}


def _made(path: Path | None, roles: schema.Roles, known: set[str]) -> pd.DataFrame | None:
    """The models table that the user brings; a line says whom it does not know."""
    if path is None:
        return None
    made = schema.read(path, schema.MODELS)
    told = set(made["model"])
    if not told & known:
        name = min(told, default="")
        raise TableError(f"{path}: none of its models is in the tables, {name!r} for one.{suggestion(name, known)}")
    unknown = [student for student in roles.students if student not in told]
    if unknown:
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        say(f"{path}: has no row for {', '.join(unknown[:5])}{more}: effects, data cost and patterns may lack them.")
    return made


def _make(folder: Path, tables: tuple[Path, ...]) -> None:
    """The folder of the results; one that holds a run which is no part of this analysis is left alone."""
    if (folder / "run.json").is_file() and folder.resolve() not in {path.resolve() for path in tables}:
        raise StoreError(
            f"{folder}: holds a run of its own, whose tables would be mixed up with these. Choose another --out, or "
            f"analyse it too: capgap analyze {folder} …"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{folder}: cannot be written: {error.strerror or error}. Choose another --out.") from error


def _carry(tables: tuple[Path, ...], folder: Path, made: pd.DataFrame | None) -> None:
    """Bring what the report shows beside the numbers (items, models) into the folder of the results.

    A folder that is analysed itself keeps its own rows, and what the user says of a model goes before them. In any
    other folder what this command does not bring is of an earlier analysis and goes.
    """
    every = {path.resolve(): path for path in (folder, *tables) if path.is_dir()}
    own = folder.resolve() in {path.resolve() for path in tables}
    sources = [path for key, path in every.items() if own or key != folder.resolve()]
    brought: dict[schema.Table, pd.DataFrame | None] = {}
    for table in (schema.ITEMS, schema.MODELS, schema.LABELS):
        parts = [path / f"{table.name}.parquet" for path in sources]
        frames = [schema.read(path, table) for path in parts if path.is_file()]
        if table is schema.MODELS and made is not None:
            frames = [made, *frames]
        whole = pd.concat(frames, ignore_index=True) if frames else None
        if whole is not None and table is schema.MODELS:
            whole = whole.groupby("model", sort=False, as_index=False).first()
        # Two runs of one battery hold the same items, and the same label of each: one row a key.
        brought[table] = None if whole is None else whole.drop_duplicates(list(table.key), ignore_index=True)
    for table, rows in brought.items():
        kept = folder / f"{table.name}.parquet"
        if rows is not None:
            schema.write(rows, kept, table)
        elif not own:
            _remove(kept)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"{path}: cannot be removed: {error.strerror or error}. Choose another --out.") from error
