"""Columns of each table: type, whether a foreign table must bring it, default, allowed words, key."""

from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from capgap.schema.readability import STOP_REASONS
from capgap.schema.remarks import Reason

ColumnKind = Literal["string", "float", "integer", "boolean"]

DTYPES: dict[str, str] = {"string": "str", "float": "float64", "integer": "Int64", "boolean": "boolean"}


@dataclass(frozen=True)
class ColumnSpec:
    """One column of a table."""

    name: str
    """Its name."""
    kind: ColumnKind
    """What it holds; a list or mapping travels as a JSON string."""
    required: bool = False
    """Whether a foreign table must bring it."""
    default: Any = None
    """What stands where a foreign table has no such column; None is null."""
    allowed: tuple[str, ...] = ()
    """The words it may hold, where they are fixed."""


@dataclass(frozen=True)
class Table:
    """A named, ordered set of columns."""

    name: str
    """Name of the table and of its file, ``NAME.parquet``."""
    columns: tuple[ColumnSpec, ...]
    """The columns in the order in which they are written."""
    key: tuple[str, ...]
    """The columns that together name one row."""
    extra_column_prefix: str = ""
    """Columns that start so may follow (``x_`` for covariates); empty: none may."""

    @property
    def names(self) -> tuple[str, ...]:
        """The column names in order."""
        return tuple(column.name for column in self.columns)


def _columns(kind: ColumnKind, names: str, **options: Any) -> tuple[ColumnSpec, ...]:
    return tuple(ColumnSpec(name, kind, **options) for name in names.split())


_OUTCOME_STATUSES = ("scored", "unparsed", "error")
CAPABILITIES = ("knowledge", "reasoning", "mixed")
ANSWER_FORMATS = ("choose", "generate")
LABEL_CAPABILITIES = (*CAPABILITIES, "other")
MAX_UNREADABLE_SHARE = 0.05
"""A task where surely more of the teacher's answers than this are unreadable is set aside from comparisons with it."""

ITEMS = Table(
    "items",
    (
        *_columns("string", "battery task item", required=True),
        ColumnSpec("variant", "string", default="default"),
        *_columns("string", "prompt choices target rationale"),
    ),
    key=("battery", "task", "item", "variant"),
)

OUTCOMES = Table(
    "outcomes",
    (
        ColumnSpec("model", "string", required=True),
        ColumnSpec("battery", "string", default="battery"),
        ColumnSpec("task", "string", required=True),
        ColumnSpec("capability", "string", allowed=CAPABILITIES),
        ColumnSpec("domain", "string"),
        ColumnSpec("item", "string", required=True),
        ColumnSpec("variant", "string", default="default"),
        ColumnSpec("repeat", "integer", default=0),
        ColumnSpec("cluster", "string"),  # where nothing is said, an item is its own cluster: see validate
        ColumnSpec("format", "string", allowed=ANSWER_FORMATS),
        ColumnSpec("metric", "string", default="score"),
        ColumnSpec("filter", "string", default="none"),
        ColumnSpec("primary", "boolean", default=True),
        ColumnSpec("value", "float"),
        ColumnSpec("score", "float", required=True),
        ColumnSpec("status", "string", default="scored", allowed=_OUTCOME_STATUSES),
        *_columns("float", "chance margin margin_target target_logprob"),
        *_columns("string", "prediction target response"),
        ColumnSpec("n_tokens", "integer"),
        ColumnSpec("stop_reason", "string", allowed=STOP_REASONS),
        ColumnSpec("n_prompt_cut", "integer"),
    ),
    key=("model", "battery", "task", "item", "variant", "repeat", "metric", "filter"),
    extra_column_prefix="x_",
)

MODELS = Table(
    "models",
    (
        ColumnSpec("model", "string", required=True),
        *_columns("string", "recipe base teachers checkpoint"),
        *_columns("integer", "step seed data_seed base_seed n_examples"),
        ColumnSpec("n_examples_by_capability", "string"),
        ColumnSpec("n_unique", "integer"),
        *_columns("string", "diversity train_tasks architecture"),
        *_columns("integer", "n_params n_trainable n_layers width"),
        *_columns("string", "adaptation supervision objective"),
        *_columns("float", "lr epochs"),
        *_columns("integer", "steps tokens loss_tokens"),
        ColumnSpec("flops", "float"),
        *_columns("string", "prompting weights_hash data_hash created"),
    ),
    key=("model",),
)

LABELS = Table(
    "labels",
    (
        *_columns("string", "task item", required=True),
        ColumnSpec("capability", "string", required=True, allowed=LABEL_CAPABILITIES),
        *_columns("float", "p_reasoning conf_low conf_high"),
        *_columns("float", "demand_knowledge demand_knowledge_low demand_knowledge_high"),
        *_columns("float", "demand_steps demand_steps_low demand_steps_high"),
        ColumnSpec("p_other", "float"),
        *_columns("string", "source evidence"),
    ),
    key=("task", "item"),
)

SUBJECT_KINDS = ("model", "recipe", "model_contrast", "recipe_contrast", "cohort")
"""Whom a number is about: one checkpoint, a recipe whichever seed, a difference of either, or all students together."""
ESTIMATORS = (
    "paired",
    "bounds",
    "without_inverted_tasks",
    "mixed_model",
    "two_stage",
    "student_jackknife",
    "task_jackknife",
    "link_with_chance",
    "multiple_imputation",
    "learning_curve",
    "learning_curve_per_step",
    "learning_curve_log_probability",
    "response_surfaces",
    "logistic_regression",
)
"""Families of estimators; ``method`` says the rest. ``multiple_imputation`` is over draws of doubtful labels,
``bounds`` over every way in which unreadable and missing answers may have been right or wrong."""
VARIANT_ESTIMATORS = ("multiple_imputation", "bounds", "without_inverted_tasks")
"""Estimators whose rows stand beside a plain row of the same number: they ask no question of their own."""
POPULATION_ITEMS = ("these_items", "items_like_these")
POPULATION_TASKS = ("these_tasks", "tasks_like_these", "with_unreadable_tasks")
POPULATION_STUDENTS = ("these_checkpoints", "this_recipe", "these_recipes", "these_recipes_bases_like_these")
"""What intervals allow for: other items, tasks, training seeds (of one recipe, of the cohort's), other bases.

``with_unreadable_tasks``: these tasks, with those that are set aside elsewhere since the teacher could not be read.
"""

# `roles` and `factors` are JSON objects. `family` is codes: ``holm|quantity|level|group|…|members``, of one question
# asked of several students or recipes, or ``tree|quantity|students|groups``, down the tree of groups.
ESTIMATES = Table(
    "estimates",
    (
        *_columns("string", "quantity level group", required=True),
        *_columns("string", "model contrast roles factors scale weighting"),
        ColumnSpec("subject", "string", default="model", allowed=SUBJECT_KINDS),
        ColumnSpec("estimator", "string", allowed=ESTIMATORS),
        ColumnSpec("population_items", "string", allowed=POPULATION_ITEMS),
        ColumnSpec("population_tasks", "string", allowed=POPULATION_TASKS),
        ColumnSpec("population_students", "string", allowed=POPULATION_STUDENTS),
        *_columns("float", "estimate std_error df conf_low conf_high"),
        ColumnSpec("conf_level", "float", default=0.95),
        ColumnSpec("null_value", "float"),
        ColumnSpec("alternative", "string"),
        *_columns("float", "p_value p_adjusted"),
        ColumnSpec("family", "string"),
        *_columns("integer", "n_items n_clusters n_tasks n_students n_seeds"),
        ColumnSpec("method", "string"),
        ColumnSpec("status", "string", default="ok", allowed=("ok", "open", "refused")),
        ColumnSpec("reason", "string", allowed=tuple(Reason)),
        ColumnSpec("note", "string"),
    ),
    key=(
        *("quantity", "level", "group", "model", "contrast", "roles", "factors", "scale", "weighting"),
        *("subject", "estimator", "population_items", "population_tasks", "population_students"),
    ),
)

OUTCOME_KEY = OUTCOMES.key
CELL_KEY = ("battery", "task", "item", "variant", "repeat")
"""What two models must share for their scores to be compared."""


def empty(table: Table) -> pd.DataFrame:
    """A frame with the table's columns and no row."""
    return pd.DataFrame({column.name: pd.Series(dtype=DTYPES[column.kind]) for column in table.columns})


def covariate_names(outcomes: pd.DataFrame) -> list[str]:
    """The columns of `outcomes` that are covariates of the items (``x_…``), in order."""
    return [name for name in outcomes.columns if name.startswith(OUTCOMES.extra_column_prefix)]
