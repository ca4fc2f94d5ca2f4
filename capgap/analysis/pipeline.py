"""From outcomes to the `estimates` table: every number of the report with its interval."""

import itertools
from collections.abc import Iterator, Mapping

import pandas as pd

from capgap import schema
from capgap.analysis.analysis_sets import SubsetCache
from capgap.analysis.capability_contrast import capability_contrast_rows
from capgap.analysis.cohort import cohort_of
from capgap.analysis.data_efficiency import data_efficiency_rows
from capgap.analysis.effects import effect_rows
from capgap.analysis.estimate_rows import EstimateRow, adjust_over_students, as_frame, as_table
from capgap.analysis.failure_types import error_type_rows, failure_odds_rows
from capgap.analysis.fidelity import fidelity_rows
from capgap.analysis.flips import EQUIVALENCE_MARGIN, equivalence_rows, flip_rows
from capgap.analysis.groups import groups_of
from capgap.analysis.label_uncertainty import flag_undeclared_labels, label_uncertainty_rows
from capgap.analysis.patterns import pattern_rows
from capgap.analysis.preparation import bin_covariates, check_roles, fill_defaults, qualify_task_names
from capgap.analysis.qualifications import qualification_rows, qualify_plain_rows
from capgap.analysis.recipe_seeds import recipe_rows
from capgap.analysis.score_matrix import ScoreMatrix, make_score_matrix
from capgap.analysis.selective_testing import GroupNode, adjust_down_tree, tree_parents
from capgap.analysis.student_estimates import RoleComparison, accuracy_rows, difference_rows, ratio_rows
from capgap.analysis.unreadable_answers import screen_unreadable
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
    undeclared = schema.undeclared_items(table) if labels is not None else set()
    labelled = schema.join_labels(table, labels)
    qualified_outcomes = qualify_task_names(labelled)
    grid, prompting = make_score_matrix(bin_covariates(qualified_outcomes), roles.names), _prompting(models)
    cohort = cohort_of(models, roles.students)
    unreadable_rows, excluded = screen_unreadable(qualified_outcomes, roles, conf_level=conf_level)
    readable = qualified_outcomes[~qualified_outcomes["task"].isin(excluded)]
    parents: dict[GroupNode, GroupNode | None] = {}
    rows = itertools.chain(
        unreadable_rows,
        _student_rows(grid, roles, excluded, prompting, conf_level, margin, parents),
        recipe_rows(grid, cohort, roles, excluded, conf_level=conf_level),
        effect_rows(grid, cohort, excluded, conf_level=conf_level),
        data_efficiency_rows(grid, cohort, roles, excluded, conf_level=conf_level),
        pattern_rows(grid, cohort, roles, excluded, items=items, conf_level=conf_level),
        label_uncertainty_rows(
            grid, undeclared, labels, roles, cohort, excluded, prompting=prompting, conf_level=conf_level
        ),
        error_type_rows(readable, items, roles, conf_level=conf_level),
        failure_odds_rows(readable, roles, conf_level=conf_level),
    )
    frame = as_frame(rows, conf_level=conf_level)  # consumes the rows: only now are the parents known
    if len(frame):
        frame = qualify_plain_rows(frame, qualified_outcomes, roles)
        frame = adjust_down_tree(adjust_over_students(frame), parents)
        frame = flag_undeclared_labels(frame, labelled, undeclared)
    return as_table(frame)


def _student_rows(
    grid: ScoreMatrix,
    roles: schema.Roles,
    excluded: frozenset[str],
    prompting: Mapping[str, str],
    conf_level: float,
    margin: float,
    parents: dict[GroupNode, GroupNode | None],
) -> Iterator[EstimateRow]:
    """Each model alone, and each student with its teacher, base and control; `parents` takes up where groups hang."""
    subsets = SubsetCache(grid)
    for model in roles.names:
        yield from accuracy_rows(subsets, groups_of(grid, model, excluded), model, conf_level=conf_level)
    for student in roles.students:
        comparison = RoleComparison.of(subsets, student, roles, conf_level=conf_level, prompting=prompting)
        item_groups = list(groups_of(grid, student, excluded))
        parents |= tree_parents(grid, item_groups, excluded, parents)
        yield from difference_rows(comparison, item_groups)
        yield from ratio_rows(comparison, item_groups)
        yield from qualification_rows(comparison, item_groups, excluded)
        yield from fidelity_rows(comparison, item_groups)
        yield from flip_rows(comparison, item_groups)
        yield from equivalence_rows(comparison, item_groups, margin=margin)
        yield from capability_contrast_rows(comparison, excluded)


def _prompting(models: pd.DataFrame | None) -> dict[str, str]:
    if models is None or "prompting" not in models.columns:
        return {}
    prompted_models = models[models["prompting"].notna()]
    return dict(zip(prompted_models["model"].astype(str), prompted_models["prompting"].astype(str), strict=True))
