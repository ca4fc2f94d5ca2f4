"""How a model fails: types of wrong answers by rules, and what goes with failure."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from capgap import schema
from capgap.analysis.estimate_rows import EstimateRow
from capgap.stats import (
    ERROR_TYPES,
    Design,
    accuracy,
    error_types,
    failure_regression,
    is_trace,
    refused,
    step_results,
)

__all__ = ["error_type_rows", "failure_odds_rows"]

MAX_ANSWERS = 2_000
"""Answers of a model in a capability that are looked at; more are sampled."""

_AMONG = {"wrong_answers": "wrong answers", "right_answers_with_trace": "right answers with a trace"}

_Answers = dict[tuple[str, str, str], tuple[str, bool]]
"""Task, item and variant → an answer and whether it was right."""
_Steps = dict[tuple[str, str], tuple[str, ...]]
"""Task and item → results of the gold steps."""


def error_type_rows(
    table: pd.DataFrame, items: pd.DataFrame | None, roles: schema.Roles, *, conf_level: float
) -> Iterator[EstimateRow]:
    """`error_type`: the share of each type among a model's wrong answers, in every capability.

    Where items have gold steps and answers are traces, the share of right answers without those steps too.

    Parameters
    ----------
    table
        Outcomes, filled and with unambiguous task names. Without texts of answers there is no row.
    items
        An `items` table; its `rationale` holds the gold steps.
    roles
        Who is who; the teacher's wrong answers are known by its name.
    conf_level
        Of the intervals.
    """
    primary = table[table["primary"].fillna(False).astype(bool) & table["model"].isin(roles.names)]
    if not (primary["prediction"].notna() | primary["response"].notna()).any():
        return
    known = primary[primary["capability"].notna() & primary["score"].notna()]
    teacher, steps = _answers_of(primary, roles.teacher), _gold_steps(items)
    for (model, capability), part in known.groupby(["model", "capability"], sort=True):
        whose = str(model), str(capability)
        wrong = part[part["score"] < 0.5]
        own = {} if model == roles.teacher else teacher
        yield from _type_rows(wrong, own, steps, whose, "wrong_answers", conf_level)
        traced = part[(part["score"] >= 0.5) & _has_steps(part, steps)]
        yield from _type_rows(traced, {}, steps, whose, "right_answers_with_trace", conf_level)


def _type_rows(
    part: pd.DataFrame, teacher: _Answers, steps: _Steps, whose: tuple[str, str], among: str, conf_level: float
) -> Iterator[EstimateRow]:
    """The types of some answers of one model in one capability."""
    n_all = len(part)
    if n_all > MAX_ANSWERS:
        part = part.iloc[np.sort(np.random.default_rng(0).choice(n_all, MAX_ANSWERS, replace=False))]
    sampled = f"{MAX_ANSWERS:,} of {n_all:,} {_AMONG[among]}, drawn at random" if n_all > MAX_ANSWERS else ""
    told = [_told(record, teacher, steps) for record in part.to_dict("records")]
    if among != "wrong_answers":  # a right answer without steps is no bad trace
        traced = np.array([is_trace(one["text"] or "", one["gold_steps"]) for one in told], dtype=bool)
        part, told = part[traced], [one for one, is_one in zip(told, traced, strict=True) if is_one]
    if not told:
        return
    first = np.array([(error_types(**one) or ("",))[0] for one in told], dtype=object)
    cluster = pd.factorize(part["task"].astype(str) + "\0" + part["cluster"].astype(str))[0]
    design = Design.of(np.zeros(len(part), dtype=np.int64), cluster)
    for name, meaning in ERROR_TYPES.items():
        share = (first == name).astype(float)
        if not share.any():
            continue
        found = accuracy(share, design, conf_level=conf_level)
        yield EstimateRow(
            quantity="error_type",
            level="capability",
            group=whose[1],
            model=whose[0],
            estimate=replace(found, p_value=np.nan, null_value=np.nan).noting(meaning, sampled),
            n_tasks=int(part["task"].nunique()),
            contrast=name,
            factors=(("error_type", name), ("among", among)),
            scale=f"share of {_AMONG[among]}",
        )


def failure_odds_rows(table: pd.DataFrame, roles: schema.Roles, *, conf_level: float) -> Iterator[EstimateRow]:
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
        blank = EstimateRow(
            quantity="failure_odds",
            level="battery",
            group=" + ".join(sorted(set(own["battery"]))),
            model=student,
            estimate=refused(found.note, n_items=found.n),
            n_tasks=int(own["task"].nunique()),
            scale="odds ratio",
            estimator="logistic_regression",
        )
        if found.status == "refused":
            yield blank
        for term in found.terms:
            yield replace(
                blank, contrast=term.name, factors=(("term", term.name),), estimate=term.odds_ratio.noting(found.note)
            )


def _covariate(column: "pd.Series[Any]") -> np.ndarray:
    """Numbers where all that is known is a number, else words."""
    number = pd.to_numeric(column, errors="coerce")
    if number.notna().sum() == column.notna().sum() and not pd.api.types.is_bool_dtype(column.dtype):
        return number.to_numpy(dtype=float, na_value=np.nan)
    words = column.astype(object).where(column.notna(), None)
    return np.array([None if word is None else str(word) for word in words], dtype=object)


def _answers_of(primary: pd.DataFrame, teacher: str | None) -> _Answers:
    """What the teacher answered to each item, and whether it was right."""
    rows = primary[(primary["model"] == teacher) & primary["prediction"].notna()].drop_duplicates(
        ["task", "item", "variant"]
    )
    keys = zip(rows["task"].astype(str), rows["item"].astype(str), rows["variant"].astype(str), strict=True)
    told = zip(rows["prediction"].astype(str), rows["score"] >= 0.5, strict=True)
    return dict(zip(keys, ((word, bool(right)) for word, right in told), strict=True))


def _gold_steps(items: pd.DataFrame | None) -> _Steps:
    """The results of the gold steps of every item that has any."""
    if items is None or "rationale" not in items.columns:
        return {}
    rows = items[items["rationale"].notna()].drop_duplicates(["battery", "task", "item"])
    found = {}
    for battery, task, item, text in rows[["battery", "task", "item", "rationale"]].itertuples(index=False):
        if steps := step_results(str(text)):
            # A task's name that stands in two batteries is written with its battery.
            found[str(task), str(item)] = found[f"{battery}/{task}", str(item)] = steps
    return found


def _has_steps(part: pd.DataFrame, steps: _Steps) -> "pd.Series[bool]":
    keys = zip(part["task"].astype(str), part["item"].astype(str), strict=True)
    written = (part["format"] == "generate") & part["response"].notna()
    return pd.Series([key in steps for key in keys], index=part.index, dtype=bool) & written


def _told(record: Mapping[Any, Any], teacher: _Answers, steps: _Steps) -> dict[str, Any]:
    """One answer as `error_types` wants it."""
    written = record["format"] == "generate"
    task, item = str(record["task"]), str(record["item"])
    answer, right = teacher.get((task, item, str(record["variant"])), (None, None))
    return {
        "text": _text(record["response"]) if written else None,
        "right": bool(record["score"] >= 0.5),
        "prediction": _text(record["prediction"]),
        "gold": _gold(record["target"]),
        "truncated": record["status"] == "truncated",
        "teacher_prediction": answer,
        "teacher_right": right,
        "gold_steps": steps.get((task, item), ()),
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
