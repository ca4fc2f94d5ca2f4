"""Merging of an import into a run directory: joined with earlier imports, never doubled, contradictions refused.

The same row again is no row more. A different answer of the same model to the same item is a contradiction: it is
refused, and with `replace` the later one stands. Nothing is written before all of it has been checked.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd

from capgap import schema
from capgap.errors import CapgapError, StoreError, TableError
from capgap.importers.import_batch import ImportResult, TaskResults
from capgap.importers.values import short_text
from capgap.store import RunDirectory, numeric_or_text, unified_covariates

_LOG = "import.json"
_MODEL_CELL_KEY = ["model", *schema.CELL_KEY]
_DEFAULT_BATTERY = next(column.default for column in schema.OUTCOMES.columns if column.name == "battery")
_MAX_LISTED_SKIPS = 1_000
_SETUP_DISPLAY_NAMES = {"num_fewshot": "solved examples", "version": "version"}


@dataclass(frozen=True)
class MergedImport:
    """What a directory holds after an import."""

    path: Path
    """The directory."""
    outcomes: pd.DataFrame
    """Its whole table of outcomes."""
    n_new_rows: int
    """Rows that were not there before."""
    n_replaced: int
    """Answers that gave way to later ones."""


def merge_batch(batch: ImportResult, out: Path, *, replace: bool = False, command: Sequence[str] = ()) -> MergedImport:
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
        hint = f"The first of {len(batch.skipped):,} reasons: {batch.skipped[0]}." if batch.skipped else "No file fits."
        raise TableError(f"nothing was imported. {hint}")
    is_new = not out.exists()
    run = RunDirectory(out)
    try:
        with run.hold_tables_lock():
            return _merge_into_run(batch, run, replace, command)
    except CapgapError:
        if is_new and not (out / _LOG).exists():  # nor has another import begun it meanwhile
            run.discard()
        raise


def _merge_into_run(batch: ImportResult, run: RunDirectory, replace: bool, command: Sequence[str]) -> MergedImport:
    """Check everything, then write everything; the caller holds the directory's lock."""
    log = _read_log(run)
    old_outcomes, old_items = run.read(schema.OUTCOMES), run.read(schema.ITEMS)
    results = _skip_id_conflicts(batch, old_items)
    if not results:
        raise TableError(f"nothing was imported. {batch.skipped[-1]}.")
    outcomes, n_replaced = _joined_outcomes(old_outcomes, results, replace, batch)
    _refuse_unlike_metrics(outcomes)
    first_item_by_key = {_item_key(item): item for result in reversed(results) for item in reversed(result.items)}
    known_keys = set(map(_item_key, schema.json_records(old_items)))
    new_items = [item for key, item in first_item_by_key.items() if key not in known_keys]
    models = _known_models(run.read(schema.MODELS), results, batch)
    _update_setups(log["asked"], results, batch)
    _note_common_items(outcomes, batch)
    log["imports"].append(_import_log_entry(batch, results, command))
    # From here on only the disk can refuse. Each file is whole or unchanged, and the same import again completes them.
    changed_pairs = {(row["model"], row.get("battery", _DEFAULT_BATTERY)) for result in results for row in result.rows}
    for (model, battery), rows in outcomes.groupby(["model", "battery"], sort=False):
        if (model, battery) in changed_pairs:
            run.write_outcomes(str(model), str(battery), rows)
    if new_items:
        run.merge(schema.ITEMS, schema.df_from_rows(new_items, schema.ITEMS, source="items"))
    run.merge(schema.MODELS, models)
    schema.write_object(log, run.path / _LOG)
    # Who is who among models of which some are new is to be said again.
    roles_reset = {"roles": None} if set(outcomes["model"]) - set(old_outcomes["model"]) else {}
    run.save(state="imported", command=list(command), imported=_log_summary(log), **roles_reset)
    return MergedImport(run.path, outcomes, max(0, len(outcomes) - len(old_outcomes)), n_replaced)


def _read_log(run: RunDirectory) -> dict[str, Any]:
    """The log of earlier imports; empty for a directory that is new."""
    path = run.path / _LOG
    if not path.is_file():
        if run.facts["models"] or run.facts["batteries"]:
            raise StoreError(
                f"{run.path}: is the directory of an evaluation. Choose another --out; nothing was changed. "
                f"Both together: capgap analyze {run.path} OTHER"
            )
        return {"layout": 1, "imports": [], "asked": {}}
    try:
        log = json.loads(path.read_text(encoding="utf-8"))
        entries = [entry for entry in log["imports"] if isinstance(entry, dict)]
        setups = {task: {name: dict(setup) for name, setup in models.items()} for task, models in log["asked"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise StoreError(f"{path}: is no note of imports: {short_text(repr(error))}. Choose another --out.") from error
    return {"layout": 1, "imports": entries, "asked": setups}


def _item_key(item: Any) -> tuple[str, ...]:
    return tuple(str(item.get(name, "default")) for name in schema.ITEMS.key)


def _skip_id_conflicts(batch: ImportResult, old_items: pd.DataFrame) -> list[TaskResults]:
    """The parts whose item ids mean the questions that they mean elsewhere; the others are listed.

    An id that is only a number may mean another question in another file, which is refused. One that stands for the
    question itself may have been asked in other words, which is noted.
    """
    prompts = {_item_key(item): item["prompt"] for item in schema.json_records(old_items) if item["prompt"]}
    results = []
    for result in batch.parts:
        prompt_by_item = {_item_key(item): item["prompt"] for item in result.items if item.get("prompt")}
        conflicting_keys = [key for key, prompt in prompt_by_item.items() if prompts.get(key, prompt) != prompt]
        if conflicting_keys and not result.has_content_ids:
            batch.skip(
                result.source,
                "its item numbers mean other questions (or other solved examples) than in what was imported before",
                len(conflicting_keys),
                first_example=f"task {conflicting_keys[0][1]}, item {conflicting_keys[0][2]}",
            )
            continue
        if conflicting_keys:
            n = len(conflicting_keys)
            batch.note(f"{result.task}: {n:,} items were put to {result.model} in other words than to the first model")
        prompts = prompt_by_item | prompts
        results.append(result)
    return results


def _joined_outcomes(
    old_outcomes: pd.DataFrame, results: Sequence[TaskResults], replace: bool, batch: ImportResult
) -> tuple[pd.DataFrame, int]:
    """All outcomes, one answer a cell, and how many answers gave way.

    The column ``_part`` says where a row comes from: -1 for what was there, else the index of its part.
    """
    frames = [old_outcomes.assign(_part=-1)] if len(old_outcomes) else []
    frames += [
        schema.df_from_rows(result.rows, schema.OUTCOMES, source=result.source).assign(_part=n)
        for n, result in enumerate(results)
    ]
    outcomes, notes = unified_covariates(pd.concat(frames, ignore_index=True))
    for note_text in notes:
        batch.note(note_text)
    outcomes = outcomes.assign(**{name: numeric_or_text(outcomes[name]) for name in schema.covariate_names(outcomes)})
    # Equal rows are one row, which belongs to the latest part that says so.
    outcomes = outcomes.drop_duplicates(outcomes.columns.drop("_part"), keep="last", ignore_index=True)
    is_contradicted = _mark_contradictions(outcomes)
    n_replaced = 0
    if is_contradicted.any() and replace:
        # All rows of a cell give way together, whatever their metric: a later answer may be scored by fewer metrics.
        cells = pd.MultiIndex.from_frame(outcomes[_MODEL_CELL_KEY])
        in_contradicted_cell = cells.isin(cells[is_contradicted])
        latest = outcomes["_part"].groupby([outcomes[name] for name in _MODEL_CELL_KEY], dropna=False).transform("max")
        n_replaced = int(cells[in_contradicted_cell].nunique())
        outcomes = outcomes[~in_contradicted_cell | (outcomes["_part"] == latest)].reset_index(drop=True)
        is_contradicted = _mark_contradictions(outcomes)
    if is_contradicted.any():
        _refuse_contradiction(outcomes[is_contradicted], results)
    outcomes = outcomes.drop(columns="_part").sort_values(list(schema.OUTCOME_KEY), kind="stable", ignore_index=True)
    return schema.validate(outcomes, schema.OUTCOMES, source="outcomes"), n_replaced


def _mark_contradictions(outcomes: pd.DataFrame) -> np.ndarray:
    """Mask of rows that are one of two answers to one question: of one metric, or of two metrics that both count."""
    is_contradicted = outcomes.duplicated(list(schema.OUTCOME_KEY), keep=False).to_numpy(copy=True)
    counts = outcomes["primary"].fillna(False).to_numpy(dtype=bool)
    is_contradicted[counts] |= outcomes[counts].duplicated(_MODEL_CELL_KEY, keep=False).to_numpy()
    return is_contradicted


def _refuse_contradiction(rows: pd.DataFrame, results: Sequence[TaskResults]) -> NoReturn:
    first_row = rows.iloc[0]
    cell_rows = rows[(rows[_MODEL_CELL_KEY].astype(str) == first_row[_MODEL_CELL_KEY].astype(str)).all(axis=1)]
    sources = list(dict.fromkeys("what is there already" if n < 0 else results[n].source for n in cell_rows["_part"]))
    cell = ", ".join(f"{name} {short_text(first_row[name])}" for name in ("model", "task", "item"))
    if len(sources) == 1:
        metrics = ", ".join(dict.fromkeys(short_text(name) for name in cell_rows["metric"]))
        raise TableError(
            f"{sources[0]}: {cell}: holds two answers (metric {metrics}). One row for each model, item, repeat and "
            f"metric, and one metric that counts: name them with repeat, variant or primary."
        )
    raise TableError(
        f"{cell}: {sources[0]} and {sources[1]} say different things ({len(rows):,} rows in all). Import one of them, "
        f"name one of the models with --set model=NAME, or let the later one stand with --replace."
    )


def _refuse_unlike_metrics(outcomes: pd.DataFrame) -> None:
    """Of one item the same metric counts for every model: a difference between two metrics is none between models."""
    primary_rows = outcomes[outcomes["primary"].fillna(False).astype(bool) & outcomes["score"].notna()]
    cell = list(schema.CELL_KEY)
    metrics = primary_rows.drop_duplicates([*cell, "metric", "filter"])
    duplicate_rows = metrics[metrics.duplicated(cell, keep=False)].sort_values(cell, kind="stable")
    if len(duplicate_rows):
        pair = duplicate_rows.iloc[:2].map(short_text).to_dict("records")
        both_metrics = " and ".join(f"{row['metric']},{row['filter']} for {row['model']}" for row in pair)
        raise TableError(
            f"task {pair[0]['task']}: two metrics count, {both_metrics}. Say one for all: --primary METRIC[,FILTER] "
            f"(and --replace, where one was imported before), or --map primary=COLUMN."
        )


def _known_models(old_models: pd.DataFrame, results: Iterable[TaskResults], batch: ImportResult) -> pd.DataFrame:
    """The models with what is known of each; the later file is right where two disagree, and a note says so."""
    by_name = {row["model"]: {k: v for k, v in row.items() if v is not None} for row in schema.json_records(old_models)}
    for result in results:
        row = by_name.setdefault(result.model, {"model": result.model})
        for column, value in result.facts.items():
            if value is not None and str(row.get(column, value)) != str(value):
                batch.note(f"{result.model}: {result.source} says {column} {value}, an earlier file {row[column]}")
            if value is not None:
                row[column] = value
    return schema.df_from_rows([by_name[name] for name in sorted(by_name)], schema.MODELS, source="models")


def _update_setups(setups: dict[str, Any], results: Iterable[TaskResults], batch: ImportResult) -> None:
    """Enter how each task was put to each model (task → model → facts); a difference between models is noted."""
    for result in results:
        if result.setup:
            battery = result.rows[0].get("battery", _DEFAULT_BATTERY)
            setups.setdefault(f"{battery}/{result.task}", {})[result.model] = dict(result.setup)
    for task, models in setups.items():
        for fact, word in _SETUP_DISPLAY_NAMES.items():
            values = {model: setup[fact] for model, setup in models.items() if setup.get(fact) is not None}
            if len(set(values.values())) > 1:
                value_list = ", ".join(f"{model} {value:g}" for model, value in list(values.items())[:6])
                remark = f"not the same {word} for every model ({value_list}); their difference is not the models'"
                batch.note(f"{task}: {remark}")


def _note_common_items(outcomes: pd.DataFrame, batch: ImportResult) -> None:
    """Note where models of one task did not answer the same items: only the common ones can be compared."""
    for (_, task), rows in outcomes.groupby(["battery", "task"], sort=True):
        items_by_model = {str(model): set(model_rows["item"]) for model, model_rows in rows.groupby("model")}
        common_items = set.intersection(*items_by_model.values())
        if any(len(items) > len(common_items) for items in items_by_model.values()):
            sizes = ", ".join(f"{model} {len(items):,}" for model, items in list(items_by_model.items())[:6])
            batch.note(f"{task}: the models answered different items ({sizes}); {len(common_items):,} in common")


def _import_log_entry(batch: ImportResult, results: Sequence[TaskResults], command: Sequence[str]) -> dict[str, Any]:
    listed_skipped_files = batch.skipped[:_MAX_LISTED_SKIPS]
    return {
        "kind": batch.kind,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": list(command),
        "imported": [
            {"source": result.source, "model": result.model, "task": result.task, "rows": len(result.rows)}
            for result in results
        ],
        "not_imported": [
            {"where": s.where, "reason": s.reason, "count": s.count, **({"first": s.first} if s.first else {})}
            for s in listed_skipped_files
        ],
        "not_listed": len(batch.skipped) - len(listed_skipped_files),
        "notes": batch.notes,
    }


def _log_summary(log: dict[str, Any]) -> dict[str, Any]:
    """What run.json, and with it the report, says about where the numbers come from."""
    entries = log["imports"]
    return {
        "kinds": sorted({str(entry.get("kind")) for entry in entries}),
        "files": sum(len(entry.get("imported", [])) for entry in entries),
        "notes": list(dict.fromkeys(note_text for entry in entries for note_text in entry.get("notes", [])))[:40],
    }
