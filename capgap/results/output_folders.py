"""Where results are written: default folders, folders that hold something else, and pages of other comparisons.

Default folders do not collide: ``capgap distill`` writes a student to ``capgap-out/students/NAME``, ``capgap evaluate``
an evaluation to ``capgap-out/STUDENT``, ``capgap analyze`` to the run directory that it reads or ``capgap-out/TABLE``.
A folder that holds something else is refused with the reason.

A run directory has one current page. Where the next one is about another comparison (another teacher, base or control,
other batteries, or without one of the students), the former page and its numbers are kept in ``DIR/earlier/``, in a
folder whose name says whom they compare, so that going to and fro between two comparisons keeps two pages and no more.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from capgap.errors import StoreError

DEFAULT_ROOT = Path("capgap-out")
PAGE_FILES = ("estimates.parquet", "estimates.json", "report.html")
_ROLES = ("teacher", "base", "control")


def evaluation_folder(student: str) -> Path:
    """The default run directory of an evaluation, by the name of its first student."""
    return DEFAULT_ROOT / student.replace("/", "-")


def student_folder(name: str) -> Path:
    """The default folder of a distilled student: beside evaluations, never among them."""
    return DEFAULT_ROOT / "students" / name


@contextmanager
def writable(place: Path) -> Iterator[Path]:
    """The place, and what a disk says against writing there as a `StoreError`."""
    try:
        yield place
    except OSError as error:
        raise StoreError(f"{place}: cannot be written: {error.strerror or error}. Choose another --out.") from error


def claim_folder(folder: Path | str, sources: Collection[Path]) -> Path:
    """The folder of results, made where it is missing.

    Parameters
    ----------
    folder
        Where results will be written.
    sources
        Run directories that they come from, resolved.

    Raises
    ------
    StoreError
        It holds a run that is no part of this comparison, or cannot be made.
    """
    folder = Path(folder)
    with writable(folder):
        is_other_run = (folder / "run.json").is_file() and folder.resolve() not in sources
    if is_other_run:
        raise StoreError(
            f"{folder}: holds a run of its own, whose tables would be mixed up with these. Choose another --out, or "
            f"analyse it too: capgap analyze {folder} …"
        )
    with writable(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def keep_former_page(folder: Path, estimates: pd.DataFrame) -> Path | None:
    """Copy the page and numbers that these estimates would replace without answering the same questions.

    Parameters
    ----------
    folder
        Holds the former page, if any.
    estimates
        What is about to be written there.

    Returns
    -------
    Path or None
        The former page in its new place; None where there is none, or the new one contains its comparison.
    """
    if not (folder / "report.html").is_file():
        return None
    try:
        models, tasks = _comparison(pd.read_parquet(folder / "estimates.parquet"))
    except Exception:  # missing, damaged or of an older layout: what the page says cannot be told, so it is kept
        # by its own digest, lest two such pages share one place
        models, tasks = {"unknown": {}}, [[hashlib.sha256((folder / "report.html").read_bytes()).hexdigest()]]
    new_models, new_tasks = _comparison(estimates)
    if tasks == new_tasks and all(
        name in new_models and roles.items() <= new_models[name].items() for name, roles in models.items()
    ):
        return None
    digest = hashlib.sha256(json.dumps([models, tasks], sort_keys=True).encode()).hexdigest()[:6]
    place = folder / "earlier" / f"{re.sub(r'[^A-Za-z0-9_.]+', '-', '-'.join(models)).strip('-.')[:60]}-{digest}"
    with writable(place):
        place.mkdir(parents=True, exist_ok=True)
        for name in PAGE_FILES:
            if (folder / name).is_file():
                shutil.copy2(folder / name, place / name)
    return place / "report.html"


def _comparison(estimates: pd.DataFrame) -> tuple[dict[str, dict[str, str]], list[list[str]]]:
    """Every model with its teacher, base and control, and the batteries and tasks: what a table is about."""
    models: dict[str, dict[str, str]] = {}
    for name, cell in estimates[["model", "roles"]].drop_duplicates().itertuples(index=False):
        if isinstance(name, str):
            roles = json.loads(cell) if isinstance(cell, str) else {}
            models.setdefault(name, {}).update({role: roles[role] for role in _ROLES if role in roles})
    places = estimates.loc[estimates["level"].isin(["battery", "task"]), ["level", "group"]].drop_duplicates()
    return dict(sorted(models.items())), sorted(map(list, places.itertuples(index=False)))
