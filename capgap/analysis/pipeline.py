"""From outcomes to the `estimates` table: every number of the report with its interval."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from capgap import schema
from capgap.analysis.analysis_sets import AnalysisSets, SubsetCache
from capgap.analysis.capability_contrast import capability_contrast_rows
from capgap.analysis.cohort import make_cohort
from capgap.analysis.data_efficiency import data_efficiency_rows
from capgap.analysis.effects import effect_rows
from capgap.analysis.estimate_rows import EstimateRow, adjust_over_students, as_frame, as_table
from capgap.analysis.failure_types import error_type_rows, failure_odds_rows
from capgap.analysis.fidelity import fidelity_rows
from capgap.analysis.flips import EQUIVALENCE_MARGIN, equivalence_rows, flip_rows
from capgap.analysis.groups import ItemGroup, groups_of
from capgap.analysis.label_uncertainty import (
    cohort_label_rows,
    count_labels,
    flag_undeclared_labels,
    student_label_rows,
)
from capgap.analysis.patterns import pattern_rows
from capgap.analysis.preparation import bin_covariates, check_roles, fill_defaults, qualify_task_names
from capgap.analysis.qualifications import qualification_rows, qualify_plain_rows
from capgap.analysis.recipe_seeds import recipe_rows
from capgap.analysis.score_matrix import make_score_matrix
from capgap.analysis.selective_testing import StudentTrees, adjust_p_down_tree
from capgap.analysis.student_estimates import RoleComparison, accuracy_rows, difference_rows, ratio_rows
from capgap.analysis.unreadable_answers import unreadable_share_rows, unreadable_tasks
from capgap.errors import EstimationError


def estimate_table(
    outcomes: pd.DataFrame,
    roles: schema.Roles,
    *,
    models: pd.DataFrame | None = None,
    labels: pd.DataFrame | None = None,
    items: pd.DataFrame | None = None,
    conf_level: float = 0.95,
    margin: float = EQUIVALENCE_MARGIN,
) -> pd.DataFrame:
    """The `estimates` table of a comparison: all of `schema.quantities.QUANTITIES` that the data hold, at every level.

    Parameters
    ----------
    outcomes
        An `outcomes` table, or a frame with `model, task, item, score`; it is not changed.
    roles
        Who is who. Roles may be missing: what needs them is left out.
    models
        A `models` table; its `prompting` flags models that were asked differently, and how students were made is what
        effects, data cost and patterns are about.
    labels
        A `labels` table; it gives a capability to items that have none.
    items
        An `items` table; its prompts give words to patterns of failure, its rationales are the gold steps of traces.
    conf_level
        Of every interval, between 0 and 1.
    margin
        How far a student may fall short of its teacher and count as its equal, in score.

    Returns
    -------
    pandas.DataFrame
        Validated; numbers that the data cannot support are rows with status ``refused`` and the code of the reason.

    Raises
    ------
    TableError
        The table is no outcomes table, a role names a model without outcomes, or teacher and student have no common
        item.
    EstimationError
        `conf_level` or `margin` lies outside (0, 1).

    Notes
    -----
    Paired numbers rest on the cells that all models involved answered (repeats averaged first); `note` says their
    share where it is below 100 %. An item that declares no cluster is its own; declared clusters may span the tasks of
    a battery.
    """
    if not 0 < conf_level < 1:
        raise EstimationError(f"conf_level is {conf_level:g}; expected a number between 0 and 1, such as 0.95.")
    if not 0 < margin < 1:
        raise EstimationError(
            f"margin is {margin:g}; expected a share between 0 and 1, such as {EQUIVALENCE_MARGIN:g}."
        )
    table = fill_defaults(schema.validate(outcomes, schema.OUTCOMES, source="outcomes"))
    check_roles(table, roles)
    labelled = schema.join_labels(table, labels)
    qualified_outcomes = qualify_task_names(labelled)
    binned_outcomes = bin_covariates(qualified_outcomes)
    excluded = unreadable_tasks(qualified_outcomes, roles.teacher)

    def undeclared(names: Sequence[str]) -> set[tuple[str, str]]:
        """What declares no capability in the rows of these models, where labels gave it one."""
        return set() if labels is None else schema.undeclared_items(table[table["model"].isin(names)])

    rows, trees = _model_rows(
        binned_outcomes,
        roles,
        _ComparisonSettings(excluded, _prompting(models), conf_level, margin, labels, undeclared),
    )
    grid, cohort = make_score_matrix(binned_outcomes, roles.names), make_cohort(models, roles.students)
    all_rows = itertools.chain(
        unreadable_share_rows(qualified_outcomes, roles, excluded, conf_level=conf_level),
        rows,
        recipe_rows(grid, cohort, roles, excluded, conf_level=conf_level),
        effect_rows(grid, cohort, conf_level=conf_level),
        data_efficiency_rows(grid, cohort, roles, excluded, conf_level=conf_level),
        pattern_rows(grid, cohort, roles, items=items, conf_level=conf_level),
        cohort_label_rows(grid, undeclared(roles.names), labels, cohort, conf_level=conf_level),
        error_type_rows(qualified_outcomes, items, roles, conf_level=conf_level),
        failure_odds_rows(qualified_outcomes, roles, conf_level=conf_level),
    )
    frame = as_frame(all_rows, conf_level=conf_level)
    if len(frame):
        frame = qualify_plain_rows(frame, qualified_outcomes, roles)
        frame = adjust_p_down_tree(adjust_over_students(frame), trees)
    if len(frame) and labels is not None:
        names_by_model: dict[str | None, tuple[str, ...]] = {
            name: _compared_models(roles, name) for name in roles.names
        }
        names_by_model[None] = roles.names
        frame = flag_undeclared_labels(
            frame,
            {
                model: count_labels(labelled[labelled["model"].isin(names)], undeclared(names))
                for model, names in names_by_model.items()
            },
        )
    return as_table(frame)


@dataclass(frozen=True)
class _ComparisonSettings:
    """What the comparisons of all students share: nothing of it comes from a student."""

    excluded: frozenset[str]
    """Tasks that are set aside from numbers of the teacher."""
    prompting: Mapping[str, str]
    """Model → how it was prompted."""
    conf_level: float
    margin: float
    labels: pd.DataFrame | None
    undeclared: Callable[[Sequence[str]], set[tuple[str, str]]]
    """Models → task and item of what declares no capability in their rows."""


def _compared_models(roles: schema.Roles, model: str) -> tuple[str, ...]:
    """The models whose answers may enter a number of a model: its roles' where it is a student, else its own."""
    return roles.of(model).names if model in roles.students else (model,)


def _model_rows(
    outcomes: pd.DataFrame, roles: schema.Roles, settings: _ComparisonSettings
) -> tuple[list[EstimateRow], dict[str, StudentTrees]]:
    """Each model alone, each student with its teacher, base and control; and where each student's groups hang.

    Every comparison has a score matrix of its models alone: what is said of a student is the same whoever else is in
    the table.
    """
    accuracies: list[EstimateRow] = []
    comparisons: list[EstimateRow] = []
    trees: dict[str, StudentTrees] = {}
    sets: AnalysisSets = {}
    for model in roles.names:
        subsets = SubsetCache(make_score_matrix(outcomes, _compared_models(roles, model)), sets)
        item_groups = list(groups_of(subsets.grid, model, settings.excluded))
        accuracies += accuracy_rows(subsets, item_groups, model, conf_level=settings.conf_level)
        if model in roles.students:
            trees[model] = StudentTrees.of(subsets.grid, item_groups, settings.excluded)
            comparison = RoleComparison.of(
                subsets, model, roles, conf_level=settings.conf_level, prompting=settings.prompting
            )
            comparisons += _student_rows(comparison, item_groups, settings)
    return [*accuracies, *comparisons], trees


def _student_rows(
    comparison: RoleComparison, item_groups: Sequence[ItemGroup], settings: _ComparisonSettings
) -> Iterator[EstimateRow]:
    """A student with its teacher, base and control."""
    yield from difference_rows(comparison, item_groups)
    yield from ratio_rows(comparison, item_groups)
    yield from qualification_rows(comparison, item_groups, settings.excluded)
    yield from fidelity_rows(comparison, item_groups)
    yield from flip_rows(comparison, item_groups)
    yield from equivalence_rows(comparison, item_groups, margin=settings.margin)
    yield from capability_contrast_rows(comparison, settings.excluded)
    undeclared = settings.undeclared(tuple(comparison.roles.values()))
    yield from student_label_rows(comparison, undeclared, settings.labels, settings.excluded)


def _prompting(models: pd.DataFrame | None) -> dict[str, str]:
    if models is None or "prompting" not in models.columns:
        return {}
    prompted_models = models[models["prompting"].notna()]
    return dict(zip(prompted_models["model"].astype(str), prompted_models["prompting"].astype(str), strict=True))
