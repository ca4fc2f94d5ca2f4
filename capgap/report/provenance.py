"""Provenance: run.json and the models table, shown as they are, whatever they hold."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from capgap.report import text
from capgap.report.tables import json_object
from capgap.schema import Roles

_FIRST_NAMES = (
    *("command", "created", "started", "finished", "seconds", "state", "versions", "batteries", "battery"),
    *("seed", "seeds", "device", "dtype", "limit"),
)
_OMITTED = frozenset({"sentence", "next", "caveats", "classifier"})
_MAX_DEPTH = 5
_MAX_NESTED_ENTRIES = 80
_MAX_VALUE_CHARACTERS = 2_000
_NESTED_TYPES = (Mapping, list, tuple)
_FLAT_DEPTH = 3
"""From this depth on a mapping of plain values is one line."""


@dataclass(frozen=True)
class ProvenanceEntry:
    """A name with its value, or with facts of its own."""

    name: str
    value: str
    inner: tuple["ProvenanceEntry", ...] = ()
    code: bool = False


def provenance_entries(run: Mapping[str, Any]) -> tuple[ProvenanceEntry, ...]:
    """Everything in `run`, the best known first; nested mappings stay nested, to a bounded depth."""
    names = [name for name in _FIRST_NAMES if name in run] + [name for name in run if name not in _FIRST_NAMES]
    return tuple(
        _fact(str(name), run[name], 1) for name in names if name not in _OMITTED and run[name] not in (None, "", [], {})
    )


def _fact(name: str, value: Any, depth: int) -> ProvenanceEntry:
    label = text.shorten(name.replace("_", " "), 60)
    if name == "command" and isinstance(value, (list, tuple)):
        value = " ".join(map(str, value))
    pairs = _list_named_values(value)
    # Deep mappings of plain values are one line, shallow ones a list of their own, the deepest are cut to text.
    if pairs is not None and depth >= _FLAT_DEPTH and not any(isinstance(entry, _NESTED_TYPES) for _, entry in pairs):
        line = " \u00b7 ".join(f"{str(key).replace('_', ' ')} {entry}" for key, entry in pairs[:_MAX_NESTED_ENTRIES])
        return ProvenanceEntry(label, text.sanitise_text(line)[:_MAX_VALUE_CHARACTERS])
    if pairs is not None and depth < _MAX_DEPTH:
        nested_entries = tuple(_fact(str(key), entry, depth + 1) for key, entry in pairs[:_MAX_NESTED_ENTRIES])
        overflow_text = f"and {len(pairs) - _MAX_NESTED_ENTRIES} more" if len(pairs) > _MAX_NESTED_ENTRIES else ""
        return ProvenanceEntry(label, overflow_text, nested_entries)
    if isinstance(value, (list, tuple)):
        value = ", ".join(map(str, value[:_MAX_NESTED_ENTRIES]))
    if name == "seconds" and isinstance(value, (int, float)):
        value = f"{value:,.1f} s"
    return ProvenanceEntry(
        label, text.sanitise_text(value)[:_MAX_VALUE_CHARACTERS], code=name == "command" or name.endswith("hash")
    )


def _list_named_values(value: Any) -> list[tuple[Any, Any]] | None:
    """What a mapping or a list of nested values holds, by name; None for a plain value or a list of such."""
    if isinstance(value, Mapping):
        return [(key, entry) for key, entry in value.items() if entry not in (None, "", [], {})]
    if isinstance(value, (list, tuple)) and any(isinstance(entry, _NESTED_TYPES) for entry in value):
        return [(_name_list_entry(i, entry), entry) for i, entry in enumerate(value, 1)]
    return None


def _name_list_entry(position: int, entry: Any) -> str:
    name = entry.get("name") if isinstance(entry, Mapping) else None
    return str(name or position)


def seed_of(run: Mapping[str, Any]) -> int:
    """The seed of the run, for the choice of examples; 0 where none is recorded."""
    seed = run.get("seed", 0)
    return seed if isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0 else 0


@dataclass(frozen=True)
class ModelSummary:
    """One model of the comparison, in words."""

    role: str
    model: str
    number: int | None
    """Of the student, where there are several."""
    what: str
    """Checkpoint, size and how it was made, as far as known."""
    prompting: str
    weights: str


def describe_prompting(prompting: str) -> str:
    """A JSON object as words; anything else as it is."""
    settings = json_object(prompting)
    if not settings:
        return "plain" if prompting.strip() == "{}" else prompting
    switch = {True: "on", False: "off"}
    return ", ".join(
        f"{name.replace('_', ' ')} {switch[value] if isinstance(value, bool) else value}"
        for name, value in settings.items()
    )


def model_summaries(roles: Roles, models: pd.DataFrame | None) -> tuple[ModelSummary, ...]:
    """Everybody in the comparison: teacher, then each student with its base and control."""
    row_by_model: dict[str, Mapping[Any, Any]] = {}
    if models is not None:
        row_by_model = {str(row["model"]): row for row in models.to_dict("records")}
    cast: list[tuple[str, str, int | None]] = [("teacher", roles.teacher, None)] if roles.teacher else []
    many_students = len(roles.students) > 1
    for number, student in enumerate(roles.students, 1):
        cast.append(("student", student, number if many_students else None))
    for role, model_by_student in (("base", roles.base), ("control", roles.control)):
        for model in dict.fromkeys(model_by_student.get(s) for s in roles.students if s in model_by_student):
            numbers = [str(i) for i, s in enumerate(roles.students, 1) if model_by_student.get(s) == model]
            label = f"{role} of {text.join(numbers)}" if many_students and len(numbers) < len(roles.students) else role
            cast.append((label, str(model), None))
    return tuple(_model_row(role, model, number, row_by_model.get(model, {})) for role, model, number in cast)


def _model_row(role: str, model: str, number: int | None, row: Mapping[Any, Any]) -> ModelSummary:
    def get(name: str) -> Any:
        value = row.get(name)
        return None if value is None or pd.isna(value) else value

    size = get("n_params")
    n_examples = get("n_examples")
    model_details = [
        get("checkpoint"),
        get("architecture"),
        f"{_abbreviate_count(float(size))} parameters" if size else None,
        get("adaptation"),
        get("supervision"),
        f"{int(n_examples):,} examples" if n_examples else None,
    ]
    weights = get("weights_hash")
    return ModelSummary(
        role,
        text.sanitise_text(model),
        number,
        " · ".join(text.shorten(detail, 80) for detail in model_details if detail and str(detail) != model),
        text.shorten(describe_prompting(str(get("prompting") or "")), 200),
        text.shorten(weights, 20) if weights else "",
    )


def _abbreviate_count(value: float) -> str:
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}\u202f{unit}"
    return f"{value:g}"
