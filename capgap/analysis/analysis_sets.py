"""Analysis sets: the complete cells of a group under one weighting and population, ready for an estimator."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from capgap.analysis.estimate_rows import TASKS_LIKE_THESE, THESE_TASKS, TargetPopulation
from capgap.analysis.groups import MIN_TASKS, ItemGroup
from capgap.analysis.score_matrix import Floats, Ints, ScoreMatrix
from capgap.schema.remarks import Reason, Remark, remark
from capgap.stats import Design, Estimate, StratifiedMean, accuracy, paired_difference

MIN_COMMON_SHARE = 0.6
"""Below this share of common cells a number of several models is refused."""


@dataclass(frozen=True)
class CellsScoredByAll:
    """The cells of a group that all of some models answered."""

    rows: Ints
    """Row numbers in the grid."""
    share: float
    """Of the cells that the student was asked, the part that all answered; without a student, of the cells that any of
    the models was asked. NaN where there is none."""
    counted: str = "the items"
    """What the share is one of, for people."""

    def get_share_remarks(self, role_names: Sequence[str]) -> tuple[Remark, ...]:
        """Their share, where it is not all; `role_names` are the roles that answered."""
        figures = {"who": role_names, "share": 100 * self.share, "counted": self.counted}
        return () if self.share == 1 else (remark(Reason.COMMON_SHARE, **figures),)

    def refusal(self, role_names: Sequence[str]) -> tuple[Remark, ...]:
        """Why a number of `role_names` cannot rest on them; empty where they are enough."""
        if not len(self.rows):
            return (remark(Reason.NO_COMMON_ITEMS),)
        if self.share >= MIN_COMMON_SHARE:
            return ()
        figures = {"who": role_names, "share": 100 * self.share, "counted": self.counted}
        return (remark(Reason.UNLIKE_ITEMS, least=100 * MIN_COMMON_SHARE, **figures),)


@dataclass(frozen=True)
class AnalysisSet:
    """Which cells count, and how their tasks weigh."""

    rows: Ints
    """Row numbers in the grid."""
    strata: Ints
    """Task code of each row."""
    clusters: Ints
    """Cluster of each row."""
    weighting: str
    """``tasks`` or ``items``."""
    population: TargetPopulation
    """Whom the interval speaks of."""
    design: Design
    """The design of the items; of the tasks, where they are the units."""
    n_items: int
    """Distinct items; variants of one item count once."""

    @classmethod
    def of(cls, grid: ScoreMatrix, rows: Ints, weighting: str, population: TargetPopulation) -> "AnalysisSet":
        """The analysis set of some rows, at least one."""
        strata, clusters = grid.task[rows], grid.cluster[rows]
        tasks, counts = np.unique(strata, return_counts=True)
        if population == TASKS_LIKE_THESE:
            # Tasks are the units of one stratum, each a cluster of its own.
            design = Design.of(np.zeros(len(tasks), dtype=np.int64), tasks)
        else:
            # No weights: every stratum (task) counts equally.
            shares = counts / counts.sum() if weighting == "items" else None
            design = Design.of(strata, clusters, weights=shares)
        n_items = len(np.unique(grid.item[rows])) if grid.varied else len(rows)
        return cls(rows, strata, clusters, weighting, population, design, n_items)

    def filter_rows(self, grid: ScoreMatrix, mask: NDArray[np.bool_]) -> "AnalysisSet":
        """The same of some of its rows, a mask over them."""
        return self if mask.all() else AnalysisSet.of(grid, self.rows[mask], self.weighting, self.population)

    @property
    def tasks_are_units(self) -> bool:
        """Whether tasks are the units, standing for tasks like them."""
        return self.population == TASKS_LIKE_THESE

    @property
    def n_tasks(self) -> int:
        """Tasks that entered."""
        return self.design.n_items if self.tasks_are_units else len(self.design.counts)

    def accuracy(self, scores: Floats, chance: Floats, *, conf_level: float) -> Estimate:
        """A mean score; `scores` and `chance` have one value a row, the null value is chance where all is known."""
        null = self.units(chance) if np.isfinite(chance).all() else None
        fit = accuracy(self.units(scores), self.design, chance=null, conf_level=conf_level)
        return replace(fit, n_items=self.n_items)

    def difference(self, values: Floats, *, conf_level: float) -> Estimate:
        """A mean paired difference; `values` has one value a row."""
        fit = paired_difference(self.units(values), self.design, conf_level=conf_level)
        return replace(fit, n_items=self.n_items)

    def fit(self, values: Floats) -> StratifiedMean:
        """The joint fit of several columns, shape (rows, p)."""
        return self.design.fit(self.units(values))

    def units(self, values: Floats) -> Floats:
        """The values of the units, shape (rows, …) or (tasks, …): the rows themselves, or the means of the tasks."""
        if not self.tasks_are_units:
            return values
        _, k = np.unique(self.strata, return_inverse=True)
        size = np.bincount(k)
        if values.ndim == 1:
            return np.asarray(np.bincount(k, values) / size)
        return np.column_stack([np.bincount(k, column) / size for column in values.T])


AnalysisSets = dict[tuple[bytes, bool, bool, bytes], tuple[AnalysisSet, ...]]
"""Layout of a grid, whether a group spans tasks and generalizes, rows → analysis sets."""


class SubsetCache:
    """Cache of analysis sets: those of the same rows, which most quantities and students share, are built once.

    Parameters
    ----------
    grid
        Whose cells they are.
    sets
        The sets of other grids so far, which serve where tasks, clusters and items of all cells are the same.
    """

    def __init__(self, grid: ScoreMatrix, sets: AnalysisSets | None = None) -> None:
        self.grid = grid
        self._sets = {} if sets is None else sets
        self._layout = grid.layout
        self._masks: dict[tuple[str, ...], tuple[NDArray[np.bool_], NDArray[np.bool_]]] = {}

    def select(self, rows: Ints, models: Sequence[str], *, student: str | None = None) -> CellsScoredByAll:
        """The cells among `rows` that all the models answered, as `schema.pair` chooses them.

        Their share is counted over what `student` was asked: a base that answered one task more is no reason to refuse
        a number whose items the student shares.
        """
        key = tuple(models)
        if key not in self._masks:
            columns = [self.grid.column(model) for model in models]
            is_scored_by_all = np.asarray(np.isfinite(self.grid.scores[:, columns]).all(axis=1))
            self._masks[key] = is_scored_by_all, np.asarray(self.grid.is_asked[:, columns].any(axis=1))
        is_scored_by_all, is_asked_of_any = self._masks[key]
        common_rows = rows[is_scored_by_all[rows]]
        counted = is_asked_of_any if student is None else self.grid.is_asked[:, self.grid.column(student)]
        n_counted, n_common = (int(np.count_nonzero(counted[cells])) for cells in (rows, common_rows))
        share = n_common / n_counted if n_counted else math.nan
        return CellsScoredByAll(common_rows, share, "the items" if student is None else "the student's items")

    def of(self, group: ItemGroup, rows: Ints) -> tuple[AnalysisSet, ...]:
        """By task, by item, and for tasks like these where there are enough; none without a row.

        Parameters
        ----------
        group
            Whether it spans tasks and may generalize.
        rows
            Its complete cells.
        """
        if not len(rows):
            return ()
        key = (self._layout, group.spans_tasks, group.generalizes, rows.tobytes())
        if key not in self._sets:
            weights_and_populations = [("items", THESE_TASKS)]
            if group.spans_tasks:
                weights_and_populations.insert(0, ("tasks", THESE_TASKS))
                if group.generalizes and len(np.unique(self.grid.task[rows])) >= MIN_TASKS:
                    weights_and_populations.append(("tasks", TASKS_LIKE_THESE))
            self._sets[key] = tuple(AnalysisSet.of(self.grid, rows, *kind) for kind in weights_and_populations)
        return self._sets[key]
