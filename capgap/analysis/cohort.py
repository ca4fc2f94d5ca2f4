"""The students of a comparison as a grid of recipes: what they were made of, and what varies among them."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from capgap import schema

__all__ = ["CATEGORICAL_FACTORS", "LOG_FACTORS", "Cohort", "Recipe", "cohort_of"]

RECIPE_WORDS = (
    "adaptation",
    "supervision",
    "objective",
    "diversity",
    "train_tasks",
    "teachers",
    "base",
    "architecture",
)
"""Columns of the models table that tell two recipes apart by a word, the most telling first."""
RECIPE_NUMBERS = ("n_params", "n_layers", "width", "lr", "epochs")
"""Likewise by a number."""
SEED_COLUMNS = ("seed", "data_seed", "base_seed")
"""What makes another student of the same recipe."""
LOG_FACTORS = ("n_examples", "n_params")
"""What effects and patterns are asked about as a logarithm, where it varies."""
CATEGORICAL_FACTORS = ("adaptation", "supervision", "diversity")
"""Likewise as words."""


@dataclass(frozen=True)
class Recipe:
    """Students that differ in nothing but the number of their examples and their seeds."""

    students: tuple[str, ...]
    """Their names, in the order of the comparison."""
    factors: tuple[tuple[str, str], ...]
    """What tells this recipe from the others of the cohort, as words."""


@dataclass(frozen=True)
class Cohort:
    """The students with their rows of the models table."""

    students: tuple[str, ...]
    """Those that have a row, in the order of the comparison, of each training run the last checkpoint."""
    facts: Mapping[str, Mapping[str, Any]]
    """Student → column → value; what is unknown is absent."""
    n_earlier: int = 0
    """Students left out: checkpoints of a training run of which a later one is here."""

    @property
    def note(self) -> str:
        """What to say of those; empty where there are none."""
        if not self.n_earlier:
            return ""
        return f"of each training run the last checkpoint counts, {self.n_earlier} earlier left out"

    def known(self, column: str) -> dict[str, Any]:
        """The value of a column for every student that has one."""
        return {name: self.facts[name][column] for name in self.students if column in self.facts[name]}

    def varies(self, column: str) -> bool:
        """Whether every student has a value, and not all the same."""
        found = self.known(column)
        return len(found) == len(self.students) and len(set(map(str, found.values()))) > 1

    def above_zero(self) -> "tuple[Cohort, tuple[str, ...]]":
        """The students whose numbers have a logarithm, and a note of what stays out of a model for want of a number."""
        zero = [n for n in self.students if any(float(self.facts[n].get(name, 1)) <= 0 for name in LOG_FACTORS)]
        kept = tuple(name for name in self.students if name not in zero)
        left = Cohort(kept, {name: self.facts[name] for name in kept}, self.n_earlier)
        notes = [self.note] if self.note else []
        notes += [f"left out, since zero has no logarithm: {_few(zero)}"] if zero else []
        for name in (*LOG_FACTORS, *CATEGORICAL_FACTORS):
            known = left.known(name)
            if len(known) < len(kept) and len(set(map(str, known.values()))) > 1:
                notes.append(f"{name} is no part of the model: unknown of {_few([n for n in kept if n not in known])}")
        return left, tuple(notes)

    def size(self, student: str, capability: str | None = None) -> float:
        """Unique examples of a capability (of all, where None or where nobody counted) that a student learnt from."""
        facts = self.facts[student]
        counted = _counted(facts.get("n_examples_by_capability"))
        if capability is not None and counted is not None:
            return counted.get(capability, 0.0)
        return float(facts.get("n_unique", facts.get("n_examples", math.nan)))

    def recipes(self) -> Iterator[Recipe]:
        """The recipes of every size, in the order of their first students."""
        yield from self._alike((*RECIPE_WORDS, *RECIPE_NUMBERS))

    def trainings(self) -> Iterator[Recipe]:
        """The recipes with the number of examples as a part of them: students that differ in their seeds alone."""
        yield from self._alike((*RECIPE_WORDS, *RECIPE_NUMBERS, "n_examples", "step", "recipe"))

    def unlike_seeds(self, students: Sequence[str]) -> str:
        """Why students that differ in nothing known are no training seeds of one recipe; empty where they are."""
        seeds = [_columns_of(self.facts[s], SEED_COLUMNS) for s in students]
        if not all(any(seed) for seed in seeds):
            return f"{len(students)} students may be seeds of one recipe: the models table names no seed of each"
        if len(set(seeds)) < len(seeds):
            return f"{len(students)} students may be seeds of one recipe, but two of them have one seed"
        return ""

    def _alike(self, names: Sequence[str]) -> Iterator[Recipe]:
        columns = [name for name in names if any(name in self.facts[s] for s in self.students)]
        found: dict[tuple[str, ...], list[str]] = {}
        for student in self.students:
            key = tuple(str(self.facts[student].get(name, "unknown")) for name in columns)
            found.setdefault(key, []).append(student)
        telling: list[int] = []
        for n in range(len(columns)):  # what an earlier column says already is not said again
            if len({tuple(key[m] for m in (*telling, n)) for key in found}) > len(
                {tuple(key[m] for m in telling) for key in found}
            ):
                telling.append(n)
        for key, students in found.items():
            yield Recipe(tuple(students), tuple((columns[n], key[n]) for n in telling))


def cohort_of(models: pd.DataFrame | None, students: Sequence[str]) -> Cohort:
    """The cohort of a comparison; empty where there is no models table.

    Parameters
    ----------
    models
        A `models` table.
    students
        Names, in the order of the comparison.
    """
    if models is None or "model" not in models.columns:
        return Cohort((), {})
    rows = models.drop_duplicates("model").set_index("model")
    columns = [name for name in rows.columns if name in schema.MODELS.names]
    records = rows[columns].to_dict("index")
    facts = {
        name: {str(column): value for column, value in records[name].items() if not pd.isna(value)}
        for name in students
        if name in records
    }
    last = _last_checkpoints(facts)
    return Cohort(tuple(last), last, len(facts) - len(last))


def _last_checkpoints(facts: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The students without the earlier checkpoints of a run, which are no students of their own seed."""
    latest: dict[tuple[str, ...], str] = {}
    run: dict[str, tuple[str, ...]] = {}
    for name, known in facts.items():
        if "step" not in known or not any(_columns_of(known, SEED_COLUMNS)):
            continue
        names = (*RECIPE_WORDS, *RECIPE_NUMBERS, "recipe", "n_examples", "n_unique", "data_hash", *SEED_COLUMNS)
        run[name] = _columns_of(known, names)
        first = latest.setdefault(run[name], name)
        if float(known["step"]) > float(facts[first]["step"]):
            latest[run[name]] = name
    return {name: known for name, known in facts.items() if name not in run or latest[run[name]] == name}


def _columns_of(facts: Mapping[str, Any], names: Sequence[str]) -> tuple[str, ...]:
    """Some columns as words, empty where unknown."""
    return tuple(str(facts.get(name, "")) for name in names)


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _counted(told: Any) -> dict[str, float] | None:
    """The examples of each capability, from the table's JSON; None where it holds anything else."""
    try:
        return {str(name): float(n) for name, n in json.loads(told).items()}
    except (TypeError, ValueError, AttributeError):
        return None
