"""What looks wrong in a table of outcomes: names that nearly match, a student that is its teacher, lost answers."""

import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from capgap.schema.pairing import Roles
from capgap.schema.remarks import Reason, Remark, remark

__all__ = ["suspect_remarks"]

MIN_EQUAL_ANSWERS = 20
"""Fewer answers of two models may well be equal by chance."""
_CELL = ["battery", "task", "item", "variant"]
_PAIRED = frozenset({"gap", "base_gap", "gain", "gap_closure", "retention", "agreement"})
_ALL = _PAIRED | {"accuracy"}

Suspicion = tuple[Remark, frozenset[str]]
"""What is suspect, and the quantities that must say so."""


def suspect_remarks(outcomes: pd.DataFrame, roles: Roles) -> dict[str, list[Suspicion]]:
    """Model → what is suspect of it; of a student also what is of those that it is compared with.

    Parameters
    ----------
    outcomes
        Validated. A name is held against those of all its models; else a student is held against its teacher, base and
        control alone, so that nothing said of it hangs on other students.
    roles
        Who is who.
    """
    primary = outcomes[outcomes["primary"].fillna(False).astype(bool)]
    by_model = {str(model): rows for model, rows in primary.groupby("model", sort=False)}
    suspicions: dict[str, list[Suspicion]] = {}
    for model in roles.names:
        suspicions[model] = [(r, _ALL) for r in _similar_names(model, by_model)]
    for student in roles.students:
        references = dict.fromkeys([roles.teacher, roles.base.get(student), roles.control.get(student)])
        compared = [student, *(name for name in references if name is not None)]
        suspicions[student] += [(r, _ALL) for r in _dropped(student, compared, by_model)]
        for reference in compared[1:]:
            suspicions[student] += [(r, _PAIRED) for r in _nearly_matching(student, reference, by_model)]
            suspicions[student] += [(r, _PAIRED) for r in _dropped(reference, compared, by_model)]
        if roles.teacher is not None:
            suspicions[student] += [(r, _PAIRED) for r in _equal_answers(student, roles.teacher, by_model)]
    return suspicions


def _similar_names(model: str, by_model: dict[str, pd.DataFrame]) -> Iterator[Remark]:
    """A remark for each other model of the table whose name differs in blanks, case or the form of its characters."""
    for other in by_model:
        if other != model and _folded_name(other) == _folded_name(model):
            yield remark(Reason.NAMES_LOOK_ALIKE, model=repr(model), other=repr(other))


def _folded_name(name: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", name).split()).casefold()


def _folded_item(item: str) -> str:
    """An item's name without what files and spreadsheets change: blanks, case, leading zeros."""
    return _folded_name(item).lstrip("0") or "0"


def _nearly_matching(student: str, reference: str, by_model: dict[str, pd.DataFrame]) -> Iterator[Remark]:
    """A remark where items of the student that the reference lacks stand there under nearly the same name."""
    indices = [pd.MultiIndex.from_frame(by_model[name][["battery", "task", "item"]]) for name in (student, reference)]
    if indices[0].isin(indices[1]).all():
        return
    mine, other = map(set, indices)
    unmatched = {(*cell[:2], _folded_item(str(cell[2]))): cell for cell in other - mine}
    pairs = [
        (str(cell[2]), str(unmatched[key][2]))
        for cell in sorted(mine - other)
        if (key := (*cell[:2], _folded_item(str(cell[2])))) in unmatched
    ]
    if pairs:
        example = " and ".join(map(repr, pairs[0]))
        yield remark(Reason.NEARLY_MATCHING_ITEMS, n=len(pairs), model=student, other=reference, example=example)


def _equal_answers(student: str, teacher: str, by_model: dict[str, pd.DataFrame]) -> Iterator[Remark]:
    """A remark where student and teacher answered every common item alike, some of them wrongly."""
    columns = ["score", "prediction"]
    key = [*_CELL, "repeat"]
    both = by_model[student][[*key, *columns]].merge(by_model[teacher][[*key, *columns]], on=key)
    scores = both[["score_x", "score_y"]].to_numpy(dtype=float, na_value=np.nan)
    both, scores = both[np.isfinite(scores).all(axis=1)], scores[np.isfinite(scores).all(axis=1)]
    if len(both) < MIN_EQUAL_ANSWERS or (scores[:, 0] != scores[:, 1]).any() or (scores == 1).all():
        return
    known = both["prediction_x"].notna() & both["prediction_y"].notna()
    if (both.loc[known, "prediction_x"].astype(str) == both.loc[known, "prediction_y"].astype(str)).all():
        yield remark(Reason.ANSWERS_EQUAL_TEACHER, n=len(both))


def _dropped(model: str, compared: Sequence[str], by_model: dict[str, pd.DataFrame]) -> Iterator[Remark]:
    """A remark where a model is right wherever it has a score, and lacks items that those compared with it answered."""
    if not _is_always_right(by_model[model]):
        return
    scored = {
        name: set(by_model[name].loc[by_model[name]["score"].notna(), _CELL].itertuples(index=False, name=None))
        for name in compared
    }
    tasks = {cell[:2] for cell in scored[model]}
    missing = {cell for cells in scored.values() for cell in cells if cell[:2] in tasks} - scored[model]
    if missing:
        yield remark(Reason.WRONG_ANSWERS_DROPPED, model=model, n=len(scored[model]), missing=len(missing))


def _is_always_right(rows: pd.DataFrame) -> bool:
    scores = rows["score"].to_numpy(dtype=float, na_value=np.nan)
    scores = scores[np.isfinite(scores)]
    return len(scores) >= MIN_EQUAL_ANSWERS and bool((scores == 1).all())
