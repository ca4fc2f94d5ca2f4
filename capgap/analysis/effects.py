"""What made students better, and whether reasoning follows the laws of knowledge: the mixed model over a cohort."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from capgap.analysis.cohort import CATEGORICAL_FACTORS, LOG_FACTORS, Cohort
from capgap.analysis.estimate_rows import EstimateRow, Population
from capgap.analysis.groups import without_strays
from capgap.analysis.score_matrix import ScoreMatrix
from capgap.errors import EstimationError
from capgap.stats import refused
from capgap.stats.mixed import MixedFit, OutcomeGrid, fit_mixed
from capgap.stats.mixed.alternative_estimators import population_of

__all__ = ["MIN_STUDENTS", "effect_rows"]

MIN_STUDENTS = 6
"""With fewer students no model of how they were made is tried."""
_CAPABILITIES = ("knowledge", "reasoning")


@dataclass(frozen=True)
class _MixedModelInput:
    """A formula and the outcomes that it is asked of."""

    formula: str
    outcomes: OutcomeGrid
    notes: tuple[str, ...]


def effect_rows(
    grid: ScoreMatrix, cohort: Cohort, excluded: frozenset[str], *, conf_level: float, roads: bool = True
) -> Iterator[EstimateRow]:
    """`effect`, `effect_difference`, `coefficient` and `spread` of every factor that varies among the students.

    Parameters
    ----------
    grid
        Everybody's outcomes.
    cohort
        The students. Fewer than `MIN_STUDENTS`, or students that differ in nothing known, give no row.
    excluded
        Tasks that the guard keeps out.
    conf_level
        Of every interval.
    roads
        Whether other roads to the same numbers stand beside them.
    """
    cohort, kept_out = cohort.above_zero()
    names = [name for name in (*LOG_FACTORS, *CATEGORICAL_FACTORS) if cohort.varies(name)]
    if len(cohort.students) < MIN_STUDENTS or not names:
        return
    blank = EstimateRow(
        "effect",
        "battery",
        "all",
        None,
        refused(""),
        0,
        weighting="tasks",
        subject="cohort",
        estimator="mixed_model",
        n_students=len(cohort.students),
    )
    asked = _question(grid, cohort, excluded, names)
    if isinstance(asked, str):
        yield replace(blank, estimate=refused(asked))
        return
    try:
        found = fit_mixed(asked.formula, asked.outcomes, conf_level=conf_level, margins=True, roads=roads)
    except EstimationError as error:  # the other numbers of the analysis do not hang on this one
        yield replace(blank, estimate=refused(str(error)))
        return
    note = "; ".join([asked.formula, *kept_out, *asked.notes, *([found.note] if found.note else [])])
    yield from _rows(
        found,
        replace(blank, n_tasks=found.n_tasks, population=_codes_of(found.population)),
        note,
        _effect_codes(asked.outcomes),
    )


def _rows(
    found: MixedFit, blank: EstimateRow, note: str, codes: dict[str, tuple[tuple[str, str], ...]]
) -> Iterator[EstimateRow]:
    if found.status == "refused":
        yield replace(blank, estimate=refused(found.note, n_items=found.n_items))
        return
    verdicts = {(judged.effect, judged.where): judged for judged in found.agreement}
    first = found.margins[0] if found.margins else None
    for margin in found.margins:
        judged = verdicts.get((margin.effect, margin.where))
        roads = f"several roads: {judged.verdict} ({judged.reason})" if judged else ""
        behind = found.coefficients.get(margin.effect)
        alias = behind.note if behind is not None and behind.note.startswith("stands for") else ""
        level = "capability" if margin.where in _CAPABILITIES else "battery"
        yield replace(
            blank,
            quantity="effect_difference" if margin.contrast else "effect",
            level=level,
            group=margin.where,
            contrast=margin.effect,
            factors=codes[margin.effect],
            estimate=replace(margin.estimate, n_items=found.n_items).noting(
                roads, alias, note if margin is first else ""
            ),
        )
        for road in judged.roads[1:] if judged else ():
            yield replace(
                blank,
                quantity="effect_difference",
                group=margin.where,
                contrast=margin.effect,
                factors=codes[margin.effect],
                estimator=road.road.replace(" ", "_").replace("-", "_"),
                population=_codes_of(population_of(road.road, found.population)),
                estimate=replace(road.estimate, n_items=found.n_items),
            )
    for name, estimate in found.coefficients.items():
        yield replace(
            blank,
            quantity="coefficient",
            contrast=name,
            factors=(("term", name),),
            scale="logit",
            estimate=replace(estimate, n_items=found.n_items),
        )
    for name, estimate in found.standard_deviations.items():
        yield replace(
            blank,
            quantity="spread",
            contrast=name,
            factors=(("term", name),),
            scale="logit",
            estimate=replace(estimate, n_items=found.n_items),
        )


def _codes_of(population: str) -> Population:
    """Transitional: the codes of the mixed model's words."""
    who, _, tasks = population.rpartition(", ")
    students = "these_checkpoints"
    if "recipes" in who:
        students = "these_recipes_bases_like_these" if "bases like" in who else "these_recipes"
        students = "these_recipes_this_base" if "this base" in who else students
    return Population(tasks=tasks.replace(" ", "_"), students=students)


def _effect_codes(outcomes: OutcomeGrid) -> dict[str, tuple[tuple[str, str], ...]]:
    """The mixed model's name of each effect → its factor, and levels or transform, as codes."""
    codes: dict[str, tuple[tuple[str, str], ...]] = {}
    for name, values in {**outcomes.students, **outcomes.tasks}.items():
        if name in LOG_FACTORS:
            codes[f"log({name})"] = (("factor", name), ("transform", "log"))
            continue
        first, *others = sorted(set(map(str, values)))
        for level in others:
            codes[f"{name}[{level} - {first}]"] = (("factor", name), ("level", level), ("reference", first))
    return codes


def _question(grid: ScoreMatrix, cohort: Cohort, excluded: frozenset[str], names: list[str]) -> _MixedModelInput | str:
    """The formula and the outcomes, or the reason why there are none."""
    columns = [grid.column(name) for name in cohort.students]
    scores = grid.scores[:, columns]
    capability, form = grid.facts["capability"], grid.facts["format"]
    names_of_tasks = np.array(grid.tasks, dtype=object)[grid.task]
    wanted = np.isin(capability.astype(str), _CAPABILITIES) & ~np.isin(names_of_tasks, list(excluded))
    for name in _CAPABILITIES:
        own = np.flatnonzero(wanted & (capability == name))
        wanted[np.setdiff1d(own, without_strays(grid, own))] = False
    whole = ((scores == 0) | (scores == 1) | np.isnan(scores)).all(axis=1)
    kept = np.flatnonzero(wanted & whole & np.isfinite(scores).any(axis=1))
    missing = [name for name in _CAPABILITIES if not (capability[kept] == name).any()]
    if missing:
        return f"no {' and no '.join(missing)} item with scores of 0 or 1 that could be compared"
    notes = []
    if (wanted & ~whole).any():
        notes.append(f"{int((wanted & ~whole).sum())} items with scores between 0 and 1 left out")
    # A unit has one capability and one format, which a task with labels or variants of its own need not have.
    unit = np.array([f"{t}\0{c}\0{f}" for t, c, f in zip(names_of_tasks, capability, form, strict=True)])[kept]
    units, code = np.unique(unit, return_inverse=True)
    of_capability = np.array([name.split("\0")[1] for name in units], dtype=object)
    of_format = np.array([name.split("\0")[2] for name in units], dtype=object)
    terms = " + ".join(f"log({name})" if name in LOG_FACTORS else name for name in names)
    aliased = _aliased(of_capability, of_format)
    formula = f"score ~ capability * ({terms})" + ("" if aliased or len(set(of_format)) < 2 else " + format")
    if aliased:
        notes.append("capability and format coincide: a difference of capabilities may be one of formats")
    answered = np.isfinite(scores[kept]).T
    students = {name: _column(cohort, name) for name in names}
    if cohort.varies("base"):
        students["base"] = _column(cohort, "base")
    outcomes = OutcomeGrid(
        np.where(answered, scores[kept].T, 0.0),
        units[code],
        None if answered.all() else answered.astype(float),
        students=students,
        tasks={"capability": of_capability, "format": of_format},
        chance=grid.chance[kept] if np.isfinite(grid.chance[kept]).all() else None,
    )
    return _MixedModelInput(formula, outcomes, tuple(notes))


def _column(cohort: Cohort, name: str) -> NDArray[np.object_]:
    known = cohort.known(name)
    kind = float if name in LOG_FACTORS else object
    return np.array([known[student] for student in cohort.students], dtype=kind)


def _aliased(capability: NDArray[np.object_], form: NDArray[np.object_]) -> bool:
    """Whether the format is told by the capability, so that both cannot be in one formula."""
    pairs = set(zip(capability.tolist(), form.tolist(), strict=True))
    return len(set(form)) > 1 and len(pairs) == len(set(capability))
