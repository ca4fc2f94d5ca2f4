"""Roles of a comparison, pairing of outcomes on common cells, and the join of labels."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from capgap.errors import TableError, suggestion
from capgap.schema.columns import CELL_KEY, covariate_names


@dataclass(frozen=True)
class Roles:
    """Who is who in a comparison; roles belong to the comparison, never to a model."""

    students: tuple[str, ...]
    """Names of the compared models, one at least."""
    teacher: str | None = None
    """The model that the students learnt from."""
    base: dict[str, str] = field(default_factory=dict)
    """Student → the same model before distillation; a student without one is absent."""
    control: dict[str, str] = field(default_factory=dict)
    """Student → the same student trained on gold targets; a student without one is absent."""

    @property
    def names(self) -> tuple[str, ...]:
        """Every model that plays a role, once: teacher, bases, controls, students."""
        all_models = [self.teacher, *self.base.values(), *self.control.values(), *self.students]
        return tuple(dict.fromkeys(name for name in all_models if name is not None))

    def of(self, student: str) -> "Roles":
        """The comparison of one of the students, as if there were no other."""
        base, control = ({student: m[student]} if student in m else {} for m in (self.base, self.control))
        return Roles((student,), self.teacher, base, control)


@dataclass(frozen=True)
class PairedScores:
    """The cells that all the compared models answered."""

    cells: pd.DataFrame
    """One row a cell: `CELL_KEY`, then capability, domain, cluster, format, chance and the covariates of the item."""
    scores: np.ndarray
    """Their scores, shape (cells, models), in the order of the models asked for."""
    share: float
    """Cells that all models answered, over cells that any of them answered."""
    n_answered_cells: int
    """Cells that any of them answered."""


def pair(outcomes: pd.DataFrame, models: Sequence[str]) -> PairedScores:
    """Scores of several models on the cells that all of them answered, primary metric only.

    A cell that one model lacks, or where its score is NaN (status ``error``), leaves the comparison; `share` says
    how many stayed.

    Raises
    ------
    TableError
        A model has no row.
    """
    primary = outcomes[outcomes["primary"].fillna(False).astype(bool)]
    primary = primary[primary["model"].isin(list(models))]
    unscored = [m for m in models if m not in set(primary["model"])]
    if unscored:
        raise TableError(f"model {unscored[0]!r} has no outcomes.{suggestion(unscored[0], outcomes['model'].unique())}")
    index = list(CELL_KEY)
    score_matrix = primary.pivot(index=index, columns="model", values="score").reindex(columns=list(models))
    common_scores = score_matrix.dropna()
    facts = ["capability", "domain", "cluster", "format", "chance", *covariate_names(outcomes)]
    cells = primary.drop_duplicates(index).set_index(index)[facts].reindex(common_scores.index).reset_index()
    share = len(common_scores) / len(score_matrix) if len(score_matrix) else 0.0
    return PairedScores(cells, common_scores.to_numpy(dtype=float), share, len(score_matrix))


def undeclared_items(outcomes: pd.DataFrame) -> set[tuple[str, str]]:
    """Task and item of what declares no capability, of an `outcomes` table without labels joined to it."""
    rows = outcomes[outcomes["capability"].isna()].drop_duplicates(["task", "item"])
    return set(zip(rows["task"].astype(str), rows["item"].astype(str), strict=True))


def join_labels(outcomes: pd.DataFrame, labels: pd.DataFrame | None) -> pd.DataFrame:
    """The outcomes, their missing capabilities taken from the labels of the items."""
    if labels is None or labels.empty:
        return outcomes
    capability_by_item = labels.drop_duplicates(["task", "item"]).set_index(["task", "item"])["capability"]
    label_capabilities = capability_by_item.reindex(pd.MultiIndex.from_frame(outcomes[["task", "item"]])).to_numpy()
    return outcomes.assign(capability=outcomes["capability"].where(outcomes["capability"].notna(), label_capabilities))
