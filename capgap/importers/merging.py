"""A batch into a directory that `capgap analyze` reads: merged with what was imported there before, never doubled.

The same row again is no row more. A different answer of the same model to the same item is a contradiction: it is
refused, and with `replace` the later one stands. Nothing is written before all of it has been checked.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd
from filelock import FileLock

from capgap import schema
from capgap.errors import CapgapError, StoreError, TableError
from capgap.importers.import_batch import ImportBatch, TaskResults
from capgap.importers.values import shown
from capgap.store.run_directory import RunDirectory

__all__ = ["MergedImport", "merge_batch"]

_NOTE = "import.json"
_LOCK = "import.lock"
_CELL = ["model", *schema.CELL]
_MAX_LISTED = 1_000


@dataclass(frozen=True)
class MergedImport:
    """What a directory holds after an import."""

    path: Path
    """The directory."""
    outcomes: pd.DataFrame
    """Its whole table of outcomes."""
    n_new: int
    """Rows that were not there before."""
    n_replaced: int
    """Answers that gave way to later ones."""


def merge_batch(batch: ImportBatch, out: Path, *, replace: bool = False, command: Sequence[str] = ()) -> MergedImport:
    """Merge a batch into the directory `out`, which is made where there is none.

    Parameters
    ----------
    batch
        From one of the importers; notes on how models and files agree are added to it.
    out
        A directory of earlier imports, or one that is new or empty.
    replace
        Whether a later answer replaces an earlier, different one.
    command
        The command line, for the record.

    Raises
    ------
    TableError
        The batch holds no row, or contradicts itself or what is there.
    StoreError
        The directory is something else, or cannot be written.
    """
    if not batch.n_rows:
        why = f"The first of {len(batch.skipped):,} reasons: {batch.skipped[0]}." if batch.skipped else "No file fits."
        raise TableError(f"nothing was imported. {why}")
    fresh = not out.exists()
    _opened(out)
    run = RunDirectory(out)
    try:
        with _locked(run.path):
            return _stored(batch, run, replace, command)
    except CapgapError:
        if fresh and not (out / _NOTE).exists():  # nothing was imported, by nobody: nothing is left behind
            with suppress(OSError):
                for name in ("run.json", "tables.lock", _LOCK):
                    (out / name).unlink(missing_ok=True)
                out.rmdir()
        raise


def _stored(batch: ImportBatch, run: RunDirectory, replace: bool, command: Sequence[str]) -> MergedImport:
    known = _opened(run.path)  # once more, now that nobody else writes
    before, old_items = run.read(schema.OUTCOMES), run.read(schema.ITEMS)
    parts = _same_questions(batch, old_items)
    if not parts:
        raise TableError(f"nothing was imported. {batch.skipped[-1]}.")
    outcomes, n_replaced = _merged(before, parts, replace)
    _refuse_unlike_metrics(outcomes)
    items = _items(old_items, parts, batch)
    models = _models(run.read(schema.MODELS), parts, batch)
    known["asked"] = _asked(known["asked"], parts, batch)
    _note_common_items(outcomes, batch)
    known["imports"] = [*known["imports"], _record(batch, parts, command)]
    schema.write(outcomes, run.path / "outcomes.parquet", schema.OUTCOMES)
    for frame, table in ((items, schema.ITEMS), (models, schema.MODELS)):
        if len(frame):
            schema.write(frame, run.path / f"{table.name}.parquet", table)
    schema.write_object(known, run.path / _NOTE)
    run.save(state="imported", command=list(command), imported=_summary(known))
    return MergedImport(run.path, outcomes, max(0, len(outcomes) - len(before)), n_replaced)


def _opened(out: Path) -> dict[str, Any]:
    """The note of earlier imports; empty for a directory that is new."""
    path = out / _NOTE
    if not path.is_file():
        run = RunDirectory.existing(out).facts if (out / "run.json").is_file() else {}
        if run.get("models") or run.get("batteries"):
            raise StoreError(
                f"{out}: is the directory of an evaluation. Choose another --out; nothing was changed. "
                f"Both together: capgap analyze {out} OTHER"
            )
        return {"layout": 1, "imports": [], "asked": {}}
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        lists = [one for one in known["imports"] if isinstance(one, dict)]
        asked = {task: {model: dict(facts) for model, facts in told.items()} for task, told in known["asked"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise StoreError(f"{path}: is no note of imports: {shown(repr(error))}. Choose another --out.") from error
    return {"layout": 1, "imports": lists, "asked": asked}


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Two imports into one directory wait for each other; the run directory's own lock is free for `save`."""
    lock = FileLock(path / _LOCK, timeout=120)
    try:
        lock.acquire()
    except (TimeoutError, OSError) as error:
        raise StoreError(f"{path}: its tables cannot be locked: {error}.") from error
    try:
        yield
    finally:
        lock.release()


def _same_questions(batch: ImportBatch, old: pd.DataFrame) -> list[TaskResults]:
    """The parts whose item numbers mean the questions that they mean elsewhere; the others are listed."""
    names = ["battery", "task", "item", "variant"]
    asked = {tuple(row[:4]): row[4] for row in old[[*names, "prompt"]].itertuples(index=False) if pd.notna(row[4])}
    kept = []
    for part in batch.parts:
        own = {
            (item["battery"], item["task"], item["item"], item.get("variant", "default")): item["prompt"]
            for item in part.items
            if item.get("prompt") is not None
        }
        other = (
            [] if part.items_by_content else [key for key, prompt in own.items() if asked.get(key, prompt) != prompt]
        )
        if other:
            batch.skip(
                part.source,
                "its item numbers mean other questions (or other solved examples) than in what was imported before",
                len(other),
                first=f"task {other[0][1]}, item {other[0][2]}",
            )
            continue
        asked |= {key: prompt for key, prompt in own.items() if key not in asked}
        kept.append(part)
    return kept


def _merged(before: pd.DataFrame, parts: Sequence[TaskResults], replace: bool) -> tuple[pd.DataFrame, int]:
    """All outcomes, one answer a cell, and how many answers gave way."""
    frames = [before.assign(_part=-1)] if len(before) else []
    frames += [
        schema.from_rows(part.rows, schema.OUTCOMES, source=part.source).assign(_part=n) for n, part in enumerate(parts)
    ]
    whole = _plain_covariates(pd.concat(frames, ignore_index=True))
    whole = whole.drop_duplicates([n for n in whole.columns if n != "_part"], keep="last", ignore_index=True)
    contradicted = _contradicted(whole)
    n_replaced = 0
    if contradicted.any() and replace:
        cells = pd.MultiIndex.from_frame(whole[_CELL])
        involved = cells.isin(cells[contradicted])
        latest = whole["_part"].groupby([whole[name] for name in _CELL], dropna=False).transform("max")
        n_replaced = int(cells[involved].nunique())
        whole = whole[~involved | (whole["_part"] == latest)].reset_index(drop=True)
        contradicted = _contradicted(whole)
    if contradicted.any():
        _refuse(whole[contradicted], parts)
    whole = whole.drop(columns="_part").sort_values(list(schema.OUTCOME_KEY), kind="stable", ignore_index=True)
    return schema.validate(whole, schema.OUTCOMES, source="outcomes"), n_replaced


def _contradicted(outcomes: pd.DataFrame) -> np.ndarray:
    """Rows that are one of two answers to one question: of one metric, or of two metrics that both count."""
    twice = outcomes.duplicated(list(schema.OUTCOME_KEY), keep=False).to_numpy()
    counts = outcomes["primary"].fillna(False).to_numpy(dtype=bool)
    both = np.zeros(len(outcomes), dtype=bool)
    both[counts] = outcomes[counts].duplicated(_CELL, keep=False)
    return np.asarray(twice | both)


def _refuse(rows: pd.DataFrame, parts: Sequence[TaskResults]) -> NoReturn:
    first = rows.iloc[0]
    same = rows[(rows[_CELL].astype(str) == first[_CELL].astype(str)).all(axis=1)]
    named = list(dict.fromkeys("what is there already" if n < 0 else parts[n].source for n in same["_part"]))
    where = f"model {shown(first['model'])}, task {shown(first['task'])}, item {shown(first['item'])}"
    if len(named) == 1:
        metrics = ", ".join(dict.fromkeys(shown(name) for name in same["metric"]))
        raise TableError(
            f"{named[0]}: {where}: holds two answers (metric {metrics}). One row for each model, item, repeat and "
            f"metric, and one metric that counts: name them with repeat, variant or primary."
        )
    raise TableError(
        f"{where}: {named[0]} and {named[1]} say different things ({len(rows):,} rows in all). Import one of them, "
        f"name one of the models with --set model=NAME, or let the later one stand with --replace."
    )


def _refuse_unlike_metrics(outcomes: pd.DataFrame) -> None:
    """Of one item the same metric counts for every model: a difference between two metrics is none between models."""
    counted = outcomes[outcomes["primary"].fillna(False).astype(bool) & outcomes["score"].notna()]
    cell = list(schema.CELL)
    metrics = counted.drop_duplicates([*cell, "metric", "filter"])
    twice = metrics[metrics.duplicated(cell, keep=False)].sort_values(cell, kind="stable")
    if len(twice):
        pair = [row for _, row in twice.iloc[:2].iterrows()]
        said = " and ".join(f"{shown(r['metric'])},{shown(r['filter'])} for {shown(r['model'])}" for r in pair)
        raise TableError(
            f"task {shown(pair[0]['task'])}: two metrics count, {said}. Say one for all: --primary METRIC[,FILTER] "
            f"(and --replace, where one was imported before), or --map primary=COLUMN."
        )


def _plain_covariates(frame: pd.DataFrame) -> pd.DataFrame:
    """Covariates as numbers where all their values are numbers, else as text: a column has one type."""
    return frame.assign(**{name: _one_type(frame[name]) for name in schema.covariate_names(frame)})


def _one_type(values: "pd.Series[Any]") -> "pd.Series[Any]":
    try:
        return pd.to_numeric(values).astype("float64")
    except (TypeError, ValueError, OverflowError):
        return values.map(str, na_action="ignore").astype("str")


def _items(old: pd.DataFrame, parts: Iterable[TaskResults], batch: ImportBatch) -> pd.DataFrame:
    """The questions, each as it was first seen; how many were asked otherwise is noted."""
    key = list(schema.ITEMS.key)
    first: dict[tuple[str, ...], dict[str, Any]] = {}
    for part in parts:
        for item in part.items:
            first.setdefault(tuple(str(item[name]) for name in key), item)
    if not first:
        return old
    new = schema.from_rows(first.values(), schema.ITEMS, source="items")
    whole = pd.concat([old, new], ignore_index=True).drop_duplicates(key, keep="first", ignore_index=True)
    prompted = whole.dropna(subset=["prompt"])
    prompts = dict(zip(prompted[key].itertuples(index=False, name=None), prompted["prompt"], strict=True))
    for part in parts:
        own = [(tuple(str(item[name]) for name in key), item["prompt"]) for item in part.items if item.get("prompt")]
        other = sum(1 for name, prompt in own if prompts.get(name, prompt) != prompt)
        if other:
            batch.note(f"{part.task}: {other:,} items were put to {part.model} in other words than to the first model")
    return schema.validate(whole.sort_values(key, kind="stable", ignore_index=True), schema.ITEMS, source="items")


def _models(old: pd.DataFrame, parts: Iterable[TaskResults], batch: ImportBatch) -> pd.DataFrame:
    """The models with what is known of each; the later file is right where two disagree, and a note says so."""
    known = {
        str(row["model"]): {str(name): value for name, value in row.items() if pd.notna(value)}
        for row in old.to_dict("records")
    }
    for part in parts:
        row = known.setdefault(part.model, {"model": part.model})
        for column, value in part.facts.items():
            if value is not None and str(row.get(column, value)) != str(value):
                batch.note(f"{part.model}: {part.source} says {column} {value}, an earlier file {row[column]}")
            if value is not None:
                row[column] = value
    return schema.from_rows([known[name] for name in sorted(known)], schema.MODELS, source="models")


def _asked(known: dict[str, Any], parts: Iterable[TaskResults], batch: ImportBatch) -> dict[str, Any]:
    """How each task was asked of each model; a difference between models is noted."""
    asked = {task: dict(models) for task, models in known.items()}
    for part in parts:
        if part.asked:
            asked.setdefault(f"{part.battery}/{part.task}", {})[part.model] = dict(part.asked)
    words = {"num_fewshot": "solved examples", "version": "version"}
    for task, models in asked.items():
        for fact, word in words.items():
            told = {model: facts[fact] for model, facts in models.items() if facts.get(fact) is not None}
            if len(set(told.values())) > 1:
                said = ", ".join(f"{model} {value:g}" for model, value in list(told.items())[:6])
                batch.note(f"{task}: not the same {word} for every model ({said}); their difference is not the models'")
    return asked


def _note_common_items(outcomes: pd.DataFrame, batch: ImportBatch) -> None:
    """Say where models of one task were not asked the same items: only the common ones can be compared."""
    for (_, task), rows in outcomes.groupby(["battery", "task"], sort=True):
        asked = {str(model): set(own["item"]) for model, own in rows.groupby("model")}
        common = set.intersection(*asked.values())
        if any(len(items) > len(common) for items in asked.values()):
            sizes = ", ".join(f"{model} {len(items):,}" for model, items in list(asked.items())[:6])
            batch.note(f"{task}: the models answered different items ({sizes}); {len(common):,} in common")


def _record(batch: ImportBatch, parts: Sequence[TaskResults], command: Sequence[str]) -> dict[str, Any]:
    listed = batch.skipped[:_MAX_LISTED]
    return {
        "kind": batch.kind,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": list(command),
        "imported": [
            {
                "source": part.source,
                "model": part.rows[0]["model"],
                "task": part.rows[0]["task"],
                "rows": len(part.rows),
            }
            for part in parts
        ],
        "not_imported": [
            {"where": s.where, "reason": s.reason, "count": s.count, **({"first": s.first} if s.first else {})}
            for s in listed
        ],
        "not_listed": len(batch.skipped) - len(listed),
        "notes": batch.notes,
    }


def _summary(known: dict[str, Any]) -> dict[str, Any]:
    """What run.json, and with it the report, says about where the numbers come from."""
    return {
        "kinds": sorted({str(one.get("kind")) for one in known["imports"]}),
        "files": sum(len(one.get("imported", [])) for one in known["imports"]),
        "notes": list(dict.fromkeys(note for one in known["imports"] for note in one.get("notes", [])))[:40],
    }
