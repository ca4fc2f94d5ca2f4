"""Outcomes to estimates: every number of the report with its interval."""

import itertools
from collections.abc import Iterator, Mapping

import pandas as pd

from capgap import schema
from capgap.analyze.cohort import Cohort, cohort_of
from capgap.analyze.contrasts import contrast_rows
from capgap.analyze.cuts import Cuts
from capgap.analyze.doubt import doubt_rows, marked
from capgap.analyze.effects import effect_rows
from capgap.analyze.efficiency import efficiency_rows
from capgap.analyze.failures import error_type_rows, failure_rows
from capgap.analyze.faithfulness import fidelity_rows
from capgap.analyze.flips import MARGIN, equivalence_rows, flip_rows
from capgap.analyze.grid import Grid, make_grid
from capgap.analyze.groups import groups_of
from capgap.analyze.guard import guard
from capgap.analyze.patterns import pattern_rows
from capgap.analyze.prepare import binned, check_roles, filled, qualified
from capgap.analyze.quantities import Comparison, accuracy_rows, difference_rows, ratio_rows
from capgap.analyze.rows import Row, to_table
from capgap.analyze.seeds import recipe_rows
from capgap.analyze.tree import Place, down_the_tree, parents_of
from capgap.errors import EstimationError

__all__ = ["analyze"]


def analyze(
    outcomes: pd.DataFrame,
    roles: schema.Roles,
    *,
    models: pd.DataFrame | None = None,
    labels: pd.DataFrame | None = None,
    items: pd.DataFrame | None = None,
    conf_level: float = 0.95,
    margin: float = MARGIN,
) -> pd.DataFrame:
    """The `estimates` table of a comparison: the quantities that CONTRIBUTING.md lists, at every level.

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
        Validated; numbers that the data cannot support are rows with status ``refused`` and the reason in `note`.

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
        raise EstimationError(f"margin is {margin:g}; expected a share between 0 and 1, such as {MARGIN:g}.")
    table = filled(schema.validate(outcomes, schema.OUTCOMES, source="outcomes"))
    check_roles(table, roles)
    undeclared = schema.undeclared_items(table) if labels is not None else set()
    joined = schema.labelled(table, labels)
    raw = qualified(joined)
    table = binned(raw)
    grid, prompting = make_grid(table, roles.names), _prompting(models)
    cohort = cohort_of(models, roles.students)
    found = guard(table, roles, conf_level=conf_level)
    excluded = frozenset(found.excluded)
    counted = raw[~raw["task"].isin(excluded)]
    parents: dict[Place, Place | None] = {}
    rows = itertools.chain(
        found.rows,
        _by_student(grid, roles, excluded, prompting, conf_level, margin, parents),
        _over_students(grid, roles, cohort, excluded, items, conf_level),
        doubt_rows(grid, undeclared, labels, roles, cohort, excluded, prompting=prompting, conf_level=conf_level),
        error_type_rows(counted, items, roles, conf_level=conf_level),
        failure_rows(counted, roles, conf_level=conf_level),
    )
    return marked(down_the_tree(to_table(rows, conf_level=conf_level), parents), joined, undeclared)


def _by_student(
    grid: Grid,
    roles: schema.Roles,
    excluded: frozenset[str],
    prompting: Mapping[str, str],
    conf_level: float,
    margin: float,
    parents: dict[Place, Place | None],
) -> Iterator[Row]:
    """Each model alone, and each student with its teacher, base and control; `parents` takes up where groups hang."""
    cuts = Cuts(grid)
    for model in roles.names:
        yield from accuracy_rows(cuts, groups_of(grid, model, excluded), model, conf_level=conf_level)
    for student in roles.students:
        comparison = Comparison.of(cuts, student, roles, conf_level=conf_level, prompting=prompting)
        groups = list(groups_of(grid, student, excluded))
        parents |= parents_of(grid, groups, excluded, parents)
        yield from difference_rows(comparison, groups)
        yield from ratio_rows(comparison, groups)
        yield from fidelity_rows(comparison, groups)
        yield from flip_rows(comparison, groups)
        yield from equivalence_rows(comparison, groups, margin=margin)
        yield from contrast_rows(comparison, excluded)


def _over_students(
    grid: Grid,
    roles: schema.Roles,
    cohort: Cohort,
    excluded: frozenset[str],
    items: pd.DataFrame | None,
    conf_level: float,
) -> Iterator[Row]:
    """What several students say together: recipes, effects of how they were made, data cost, patterns of failure."""
    yield from recipe_rows(grid, cohort, roles, excluded, conf_level=conf_level)
    yield from effect_rows(grid, cohort, excluded, conf_level=conf_level)
    yield from efficiency_rows(grid, cohort, roles, excluded, conf_level=conf_level)
    yield from pattern_rows(grid, cohort, roles, excluded, items=items, conf_level=conf_level)


def _prompting(models: pd.DataFrame | None) -> dict[str, str]:
    if models is None or "prompting" not in models.columns:
        return {}
    known = models[models["prompting"].notna()]
    return dict(zip(known["model"].astype(str), known["prompting"].astype(str), strict=True))
