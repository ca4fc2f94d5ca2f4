"""Where results are written: folders that hold something else, and pages of other comparisons.

A folder that holds a run of its own is refused. A folder has one current page. Where the next one is about another
comparison (another teacher, base or control, other batteries, fewer items, or without one of the students), the former
page is kept with its numbers and tables in ``DIR/earlier/``, in a folder whose name says whom they compare, so that
going to and fro between two comparisons keeps two pages and no more. (A run directory's own tables only ever grow.)
"""

import hashlib
import json
import re
import shutil
from collections.abc import Collection
from pathlib import Path

import pandas as pd

from capgap.errors import StoreError
from capgap.store.writable_folder import write_errors_explained

PAGE_FILE_NAMES = ("estimates.parquet", "estimates.json", "flipped_items.csv", "report.html")
"""A page and its numbers, in the order in which they take their places; the items stand where a recipe has a list."""
_REFERENCE_ROLES = ("teacher", "base", "control")


def prepare_output_folder(folder: Path | str, sources: Collection[Path]) -> Path:
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
    with write_errors_explained(folder):
        if (folder / "run.json").is_file() and folder.resolve() not in sources:
            raise StoreError(
                f"{folder}: holds a run of its own, whose tables would be mixed up with these. Choose another --out, "
                f"or analyse it too: capgap analyze {folder} …"
            )
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def keep_former_page(folder: Path, estimates: pd.DataFrame, names: Collection[str]) -> Path | None:
    """Copy the page and its files that these estimates would replace without answering the same questions.

    Parameters
    ----------
    folder
        Holds the former page, if any.
    estimates
        What is about to be written there.
    names
        The files that it would replace.

    Returns
    -------
    Path or None
        The former page in its new place; None where there is none, or the new one contains its comparison.
    """
    if not (folder / "report.html").is_file():
        return None
    try:
        models, n_items = _describe_comparison(pd.read_parquet(folder / "estimates.parquet"))
    except Exception:  # missing, damaged or of an older layout: what the page says cannot be told, so it is kept
        # by its own digest, lest two such pages share one place
        with write_errors_explained(folder / "report.html"):
            models, n_items = {"unknown": {}}, {hashlib.sha256((folder / "report.html").read_bytes()).hexdigest(): 0}
    new_models, new_n_items = _describe_comparison(estimates)
    covers_items = n_items.keys() == new_n_items.keys() and all(new_n_items[key] >= n for key, n in n_items.items())
    if covers_items and all(
        name in new_models and roles.items() <= new_models[name].items() for name, roles in models.items()
    ):
        return None
    digest = hashlib.sha256(json.dumps([models, n_items], sort_keys=True).encode()).hexdigest()[:6]
    page_archive = folder / "earlier" / f"{re.sub(r'[^A-Za-z0-9_.]+', '-', '-'.join(models)).strip('-.')[:60]}-{digest}"
    with write_errors_explained(page_archive):
        page_archive.mkdir(parents=True, exist_ok=True)
        for name in names:
            if (folder / name).is_file():
                shutil.copy2(folder / name, page_archive / name)
    return page_archive / "report.html"


def _describe_comparison(estimates: pd.DataFrame) -> tuple[dict[str, dict[str, str]], dict[str, int]]:
    """Every model with its teacher, base and control, and the items of batteries and tasks: what a table is about."""
    models: dict[str, dict[str, str]] = {}
    for name, cell in estimates[["model", "roles"]].drop_duplicates().itertuples(index=False):
        if isinstance(name, str):
            roles = json.loads(cell) if isinstance(cell, str) else {}
            models.setdefault(name, {}).update({role: roles[role] for role in _REFERENCE_ROLES if role in roles})
    level_groups = estimates[estimates["level"].isin(["battery", "task"])].groupby(["level", "group"])["n_items"].max()
    names = [f"{level} {group}" for level, group in level_groups.index]
    return dict(sorted(models.items())), dict(zip(names, map(int, level_groups.fillna(0)), strict=True))
