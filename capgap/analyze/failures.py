"""How a model fails: types of wrong answers by rules, and what goes with failure."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from capgap import schema
from capgap.analyze.rows import Row
from capgap.stats import ERROR_TYPES, Design, accuracy, error_types, failure_regression, refused

__all__ = ["error_type_rows", "failure_rows"]

MOST_ANSWERS = 2_000
"""Wrong answers of a model in a capability that are looked at; more are sampled."""


def error_type_rows(table: pd.DataFrame, roles: schema.Roles, *, conf_level: float) -> Iterator[Row]:
    """`error_type`: the share of each type among a model's wrong answers, in every capability.

    Parameters
    ----------
    table
        Outcomes, filled and with unambiguous task names. Without texts of answers there is no row.
    roles
        Who is who; the teacher's wrong answers are known by its name.
    conf_level
        Of the intervals.
    """
    primary = table[table["primary"].fillna(False).astype(bool) & table["model"].isin(roles.names)]
    if not (primary["prediction"].notna() | primary["response"].notna()).any():
        return
    wrong = primary[(primary["score"] < 0.5) & primary["capability"].notna()]
    teacher = _answers_of(primary, roles.teacher)
    for (model, capability), part in wrong.groupby(["model", "capability"], sort=True):
        n_wrong = len(part)
        if n_wrong > MOST_ANSWERS:
            part = part.iloc[np.sort(np.random.default_rng(0).choice(n_wrong, MOST_ANSWERS, replace=False))]
        own = None if model == roles.teacher else teacher
        kinds = [error_types(**_told(record, own)) for record in part.to_dict("records")]
        cluster = pd.factorize(part["task"].astype(str) + "\0" + part["cluster"].astype(str))[0]
        design = Design.of(np.zeros(len(part), dtype=np.int64), cluster)
        sampled = f"{MOST_ANSWERS:,} of {n_wrong:,} wrong answers, drawn at random" if n_wrong > MOST_ANSWERS else ""
        first = np.array([kind[0] for kind in kinds], dtype=object)
        for name, meaning in ERROR_TYPES.items():
            share = (first == name).astype(float)
            if not share.any():
                continue
            found = accuracy(share, design, conf_level=conf_level)
            yield Row(
                quantity="error_type",
                level="capability",
                group=str(capability),
                model=str(model),
                estimate=replace(found, p_value=np.nan, null_value=np.nan).noting(meaning, sampled),
                n_tasks=int(part["task"].nunique()),
                contrast=name,
                scale="share of wrong answers",
            )


def failure_rows(table: pd.DataFrame, roles: schema.Roles, *, conf_level: float) -> Iterator[Row]:
    """`failure_odds`: odds ratios of each student's failure by covariates, format and capability of the items.

    Parameters
    ----------
    table
        Outcomes with covariates as they came, not binned. Without a covariate there is no row.
    roles
        Names the students.
    conf_level
        Of the intervals.
    """
    names = schema.covariate_names(table)
    primary = table[table["primary"].fillna(False).astype(bool)]
    for student in roles.students:
        own = primary[(primary["model"] == student) & primary["score"].isin([0.0, 1.0])]
        columns = {name: _covariate(own[name]) for name in names if own[name].notna().mean() > 0.5}
        if not columns or not len(own):
            continue
        for name in ("capability", "format"):
            if own[name].nunique() > 1 and own[name].notna().all():
                columns[name] = own[name].astype(str).to_numpy()
        cluster = pd.factorize(own["task"].astype(str) + "\0" + own["cluster"].astype(str))[0]
        found = failure_regression(1 - own["score"].to_numpy(), columns, cluster, conf_level=conf_level)
        blank = Row(
            quantity="failure_odds",
            level="battery",
            group=" + ".join(sorted(set(own["battery"]))),
            model=student,
            estimate=refused(found.note, n_items=found.n),
            n_tasks=int(own["task"].nunique()),
            scale="odds ratio",
        )
        if found.status == "refused":
            yield blank
        for term in found.terms:
            yield replace(blank, contrast=term.name, estimate=term.odds_ratio.noting(found.note))


def _covariate(column: "pd.Series[Any]") -> np.ndarray:
    """Numbers where all that is known is a number, else words."""
    number = pd.to_numeric(column, errors="coerce")
    if number.notna().sum() == column.notna().sum() and not pd.api.types.is_bool_dtype(column.dtype):
        return number.to_numpy(dtype=float, na_value=np.nan)
    words = column.astype(object).where(column.notna(), None)
    return np.array([None if word is None else str(word) for word in words], dtype=object)


def _answers_of(primary: pd.DataFrame, teacher: str | None) -> dict[tuple[str, str, str], tuple[str, bool]]:
    """What the teacher answered to each item, and whether it was right."""
    rows = primary[(primary["model"] == teacher) & primary["prediction"].notna()].drop_duplicates(
        ["task", "item", "variant"]
    )
    keys = zip(rows["task"].astype(str), rows["item"].astype(str), rows["variant"].astype(str), strict=True)
    told = zip(rows["prediction"].astype(str), rows["score"] >= 0.5, strict=True)
    return dict(zip(keys, ((word, bool(right)) for word, right in told), strict=True))


def _told(record: Mapping[Any, Any], teacher: dict[tuple[str, str, str], tuple[str, bool]] | None) -> dict[str, Any]:
    """One wrong answer as `error_types` wants it."""
    written = record["format"] == "generate"
    answer, right = (teacher or {}).get(
        (str(record["task"]), str(record["item"]), str(record["variant"])), (None, None)
    )
    return {
        "text": _text(record["response"]) if written else None,
        "right": False,
        "prediction": _text(record["prediction"]),
        "gold": _gold(record["target"]),
        "truncated": record["status"] == "truncated",
        "teacher_prediction": answer,
        "teacher_right": right,
    }


def _text(value: Any) -> str | None:
    return None if pd.isna(value) else str(value)


def _gold(value: Any) -> list[str]:
    """The right answers: one text, or a JSON list of them."""
    text = _text(value)
    if text is None:
        return []
    if text.startswith("["):
        try:
            found = json.loads(text)
        except ValueError:
            return [text]
        if isinstance(found, list):
            return [str(one) for one in found]
    return [text]
