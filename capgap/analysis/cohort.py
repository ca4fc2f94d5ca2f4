"""Cohort of a comparison: its students' rows of the models table, recipes, training seeds and varying factors."""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from capgap import schema
from capgap.schema.remarks import Reason, Remark, remark
from capgap.stats import MIN_SEEDS

__all__ = ["CATEGORICAL_FACTORS", "LOG_SCALE_FACTORS", "Cohort", "Recipe", "make_cohort"]

RECIPE_FACTORS = (
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
LOG_SCALE_FACTORS = ("n_examples", "n_params")
"""What effects and patterns are asked about as a logarithm, where it varies."""
CATEGORICAL_FACTORS = ("adaptation", "supervision", "diversity")
"""Likewise as words."""
_NAMED_NUMBERS = {
    "n_examples": "{} examples",
    "n_params": "{} parameters",
    "n_layers": "{} layers",
    "width": "width {}",
    "lr": "learning rate {}",
    "epochs": "{} epochs",
    "step": "step {}",
}
"""How a recipe's name holds what would be a bare number."""
_DIGEST = re.compile(r"[0-9a-f]{8,}")
"""What `capgap distill` writes as a recipe: no name for people."""


@dataclass(frozen=True)
class Recipe:
    """Students that differ in nothing but the number of their examples and their seeds."""

    students: tuple[str, ...]
    """Their names, in the order of the comparison."""
    factors: tuple[tuple[str, str], ...]
    """What tells this recipe from the others of the cohort, as words."""
    name: str = ""
    """What a sentence calls it: the models table's word for it, else its factors; unlike all other recipes' names."""


@dataclass(frozen=True)
class Cohort:
    """The students with their rows of the models table."""

    students: tuple[str, ...]
    """Those that have a row, in the order of the comparison, of each training run the last checkpoint."""
    facts: Mapping[str, Mapping[str, Any]]
    """Student → column → value; what is unknown is absent."""
    earlier_checkpoints: tuple[str, ...] = ()
    """Students left out: checkpoints of a training run of which a later one is here."""

    @property
    def remarks(self) -> tuple[Remark, ...]:
        """How many those are; empty where there are none."""
        n_earlier = len(self.earlier_checkpoints)
        return (remark(Reason.EARLIER_CHECKPOINTS, n=n_earlier),) if n_earlier else ()

    def known(self, column: str) -> dict[str, Any]:
        """The value of a column for every student that has one."""
        return {name: self.facts[name][column] for name in self.students if column in self.facts[name]}

    def varies(self, column: str) -> bool:
        """Whether every student has a value, and not all the same."""
        known_values = self.known(column)
        return len(known_values) == len(self.students) and len(set(map(str, known_values.values()))) > 1

    def drop_nonpositive(self) -> "tuple[Cohort, tuple[Remark, ...]]":
        """The students whose numbers have a logarithm, and which students and factors stay out of a model."""
        zero = [s for s in self.students if any(float(self.facts[s].get(name, 1)) <= 0 for name in LOG_SCALE_FACTORS)]
        positive = tuple(student for student in self.students if student not in zero)
        cohort = Cohort(positive, {student: self.facts[student] for student in positive}, self.earlier_checkpoints)
        remarks = [*self.remarks, *([remark(Reason.NO_LOGARITHM, students=zero)] if zero else [])]
        for name in (*LOG_SCALE_FACTORS, *CATEGORICAL_FACTORS):
            known_values = cohort.known(name)
            unknown = [student for student in positive if student not in known_values]
            if unknown and len(set(map(str, known_values.values()))) > 1:
                remarks.append(remark(Reason.FACTOR_UNKNOWN, factor=name, students=unknown))
        return cohort, tuple(remarks)

    def size(self, student: str, capability: str | None = None) -> float:
        """Unique examples of a capability (of all, where None or where nobody counted) that a student learnt from."""
        facts = self.facts[student]
        counts = _parse_example_counts(facts.get("n_examples_by_capability"))
        if capability is not None and counts is not None:
            return counts.get(capability, 0.0)
        return float(facts.get("n_unique", facts.get("n_examples", math.nan)))

    def recipes(self) -> Iterator[Recipe]:
        """The recipes of every size, in the order of their first students."""
        yield from self._group_by_columns((*RECIPE_FACTORS, *RECIPE_NUMBERS))

    def recipes_with_size(self) -> Iterator[Recipe]:
        """The recipes with the number of examples as a part of them: students that differ in their seeds alone."""
        yield from self._group_by_columns((*RECIPE_FACTORS, *RECIPE_NUMBERS, "n_examples", "step", "recipe"))

    def seeded_recipes(self) -> list[Recipe]:
        """The recipes that numbers can speak of: three students or more, known to differ in their seeds alone."""
        enough = [recipe for recipe in self.recipes_with_size() if len(recipe.students) >= MIN_SEEDS]
        return [recipe for recipe in enough if self.seed_refusal(recipe.students) is None]

    def seed_refusal(self, students: Sequence[str]) -> Remark | None:
        """Why students that differ in nothing known are no training seeds of one recipe; None where they are."""
        seeds = [_format_columns(self.facts[s], SEED_COLUMNS) for s in students]
        if not all(any(seed) for seed in seeds):
            return remark(Reason.SEEDS_UNKNOWN, n=len(students))
        return remark(Reason.SEEDS_SHARED, n=len(students)) if len(set(seeds)) < len(seeds) else None

    def _group_by_columns(self, names: Sequence[str]) -> Iterator[Recipe]:
        columns = [name for name in names if any(name in self.facts[s] for s in self.students)]
        recipes: dict[tuple[str, ...], list[str]] = {}
        for student in self.students:
            key = tuple(str(self.facts[student].get(name, "unknown")) for name in columns)
            recipes.setdefault(key, []).append(student)

        def count_distinct_recipes(indices: Sequence[int]) -> int:
            return len({tuple(key[n] for n in indices) for key in recipes})

        distinguishing_indices: list[int] = []  # indices of columns that tell recipes apart
        for n in range(len(columns)):  # what an earlier column says already is not said again
            if count_distinct_recipes([*distinguishing_indices, n]) > count_distinct_recipes(distinguishing_indices):
                distinguishing_indices.append(n)
        factors = [tuple((columns[n], key[n]) for n in distinguishing_indices) for key in recipes]
        names = _recipe_names([self.facts[students[0]].get("recipe") for students in recipes.values()], factors)
        for students, recipe_factors, name in zip(recipes.values(), factors, names, strict=True):
            yield Recipe(tuple(students), recipe_factors, name)


def make_cohort(models: pd.DataFrame | None, students: Sequence[str]) -> Cohort:
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
    last_checkpoint_facts = _last_checkpoints(facts)
    earlier_checkpoints = tuple(name for name in facts if name not in last_checkpoint_facts)
    return Cohort(tuple(last_checkpoint_facts), last_checkpoint_facts, earlier_checkpoints)


def _recipe_names(declared: Sequence[Any], factors: Sequence[tuple[tuple[str, str], ...]]) -> list[str]:
    """Words for recipes: those of the models table, where they are names and one a recipe, else their factors."""
    names = [str(word) if word is not None else "" for word in declared]
    if all(names) and len(set(names)) == len(names) and not any(map(_DIGEST.fullmatch, names)):
        return names
    return [
        "/".join(_NAMED_NUMBERS.get(name, "{}").format(value) for name, value in recipe) or "one recipe"
        for recipe in factors
    ]


def _last_checkpoints(facts: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The students without the earlier checkpoints of a run, which are no students of their own seed."""
    latest_by_run: dict[tuple[str, ...], str] = {}
    run: dict[str, tuple[str, ...]] = {}
    for name, model_row in facts.items():
        if "step" not in model_row or not any(_format_columns(model_row, SEED_COLUMNS)):
            continue
        run_columns = (*RECIPE_FACTORS, *RECIPE_NUMBERS, "recipe", "n_examples", "n_unique", "data_hash", *SEED_COLUMNS)
        run[name] = _format_columns(model_row, run_columns)
        latest_student = latest_by_run.setdefault(run[name], name)
        if float(model_row["step"]) > float(facts[latest_student]["step"]):
            latest_by_run[run[name]] = name
    return {name: model_row for name, model_row in facts.items() if name not in run or latest_by_run[run[name]] == name}


def _format_columns(facts: Mapping[str, Any], names: Sequence[str]) -> tuple[str, ...]:
    """Some columns as words, empty where unknown."""
    return tuple(str(facts.get(name, "")) for name in names)


def _parse_example_counts(text: Any) -> dict[str, float] | None:
    """The examples of each capability, from the table's JSON; None where it holds anything else."""
    try:
        return {str(name): float(n) for name, n in json.loads(text).items()}
    except (TypeError, ValueError, AttributeError):
        return None
