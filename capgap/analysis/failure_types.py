"""Types of wrong answers by rules, and odds ratios of failure by properties of the items."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from capgap import schema
from capgap.analysis.estimate_rows import EstimateRow
from capgap.analysis.preparation import holds_booleans
from capgap.schema.remarks import Reason, Remark, remark
from capgap.stats import (
    ERROR_TYPES,
    Design,
    accuracy,
    error_types,
    failure_regression,
    has_reasoning_steps,
    refused,
    step_results,
)

__all__ = ["error_type_rows", "failure_odds_rows"]

MAX_ANSWERS = 2_000
"""Answers of a model in a capability that are looked at; more are sampled."""
_SHARE_SCALE_BY_SCOPE = {
    "wrong_answers": "share of wrong answers",
    "right_answers_with_trace": "share of right answers with a trace",
}
"""Code of the answers among which types are counted → the scale of their share."""

_Answers = dict[tuple[str, str, str], tuple[str, bool]]
"""Task, item and variant → an answer and whether it was right."""
_GoldSteps = dict[tuple[str, str], tuple[str, ...]]
"""Task and item → results of the gold steps."""


def error_type_rows(
    table: pd.DataFrame, items: pd.DataFrame | None, roles: schema.Roles, *, conf_level: float
) -> Iterator[EstimateRow]:
    """`error_type`: the share of each type among a model's wrong answers, in every capability.

    Where items have gold steps and answers are traces, the share of right answers without those steps too.

    Parameters
    ----------
    table
        Outcomes, filled and with unambiguous task names. A model without any text of an answer has no row.
    items
        An `items` table; its `rationale` holds the gold steps.
    roles
        Who is who; the teacher's wrong answers are known by its name.
    conf_level
        Of the intervals.
    """
    primary = table[table["primary"].fillna(False).astype(bool) & table["model"].isin(roles.names)]
    has_text = primary["prediction"].notna() | primary["response"].notna()
    primary = primary[has_text.groupby(primary["model"]).transform("any").to_numpy(dtype=bool)]
    scored_answers = primary[primary["capability"].notna() & primary["score"].notna()]
    teacher_answers, steps = _index_teacher_answers(primary, roles.teacher), _index_gold_steps(items)
    for (model, capability), answer_rows in scored_answers.groupby(["model", "capability"], sort=True):
        blank = EstimateRow("error_type", "capability", str(capability), str(model), refused(), 0)
        is_right = answer_rows["score"] >= 0.5
        answers = {} if model == roles.teacher else teacher_answers
        wrong_answers = answer_rows[~is_right]
        yield from _rows_by_error_type(wrong_answers, answers, steps, blank, "wrong_answers", conf_level)
        traced_answers = answer_rows[is_right & _has_gold_steps(answer_rows, steps)]
        yield from _rows_by_error_type(traced_answers, {}, steps, blank, "right_answers_with_trace", conf_level)


def _rows_by_error_type(
    answer_rows: pd.DataFrame, answers: _Answers, steps: _GoldSteps, blank: EstimateRow, scope: str, conf_level: float
) -> Iterator[EstimateRow]:
    """The types of some answers of one model in one capability; `answers` are the teacher's, `scope` a code."""
    n_answers = len(answer_rows)
    sampled: tuple[Remark, ...] = ()
    if n_answers > MAX_ANSWERS:
        answer_rows = answer_rows.iloc[np.sort(np.random.default_rng(0).choice(n_answers, MAX_ANSWERS, replace=False))]
        sampled = (remark(Reason.SAMPLED_ANSWERS, n=MAX_ANSWERS, of=n_answers, among=scope),)
    responses = [_error_type_arguments(record, answers, steps) for record in answer_rows.to_dict("records")]
    if scope == "right_answers_with_trace":  # a right answer without steps is no bad trace
        trace_flags = [has_reasoning_steps(response["text"] or "", response["gold_steps"]) for response in responses]
        answer_rows = answer_rows[np.array(trace_flags, dtype=bool)]
        responses = [response for response, has_trace in zip(responses, trace_flags, strict=True) if has_trace]
    if not responses:
        return
    # An answer may fit several types; the first in the order of `ERROR_TYPES` counts.
    first_error_types = np.array([(error_types(**response) or ("",))[0] for response in responses], dtype=object)
    design = Design.of(np.zeros(len(answer_rows), dtype=np.int64), _encode_clusters(answer_rows))
    for name, error_type_meaning in ERROR_TYPES.items():
        has_error_type = (first_error_types == name).astype(float)
        if has_error_type.any():
            share = replace(accuracy(has_error_type, design, conf_level=conf_level), p_value=np.nan, null_value=np.nan)
            yield replace(
                blank,
                estimate=share.noting(remark(Reason.ERROR_MEANING, meaning=error_type_meaning), *sampled),
                n_tasks=int(answer_rows["task"].nunique()),
                contrast=name,
                factors=(("error_type", name), ("among", scope)),
                scale=_SHARE_SCALE_BY_SCOPE[scope],
            )


def _encode_clusters(answer_rows: pd.DataFrame) -> np.ndarray:
    """Codes of the clusters, those of different tasks apart, shape (rows,)."""
    return np.asarray(pd.factorize(answer_rows["task"].astype(str) + "\0" + answer_rows["cluster"].astype(str))[0])


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
        rows = primary[(primary["model"] == student) & primary["score"].isin([0.0, 1.0])]
        columns = {name: _convert_covariate(rows[name]) for name in names if rows[name].notna().mean() > 0.5}
        if not columns or not len(rows):
            continue
        for name in ("capability", "format"):
            if rows[name].nunique() > 1 and rows[name].notna().all():
                columns[name] = rows[name].astype(str).to_numpy()
        fit = failure_regression(1 - rows["score"].to_numpy(), columns, _encode_clusters(rows), conf_level=conf_level)
        blank = EstimateRow(
            quantity="failure_odds",
            level="battery",
            group=" + ".join(sorted(set(rows["battery"]))),
            model=student,
            estimate=refused(*fit.remarks, n_items=fit.n),
            n_tasks=int(rows["task"].nunique()),
            scale="odds ratio",
            estimator="logistic_regression",
        )
        if fit.status == "refused":
            yield blank
        for term in fit.terms:
            yield replace(
                blank, contrast=term.name, factors=(("term", term.name),), estimate=term.odds_ratio.noting(*fit.remarks)
            )


def _convert_covariate(column: "pd.Series[Any]") -> np.ndarray:
    """Numbers where all that is known is a number, else words."""
    number = pd.to_numeric(column, errors="coerce")
    if number.notna().sum() == column.notna().sum() and not holds_booleans(column):
        return number.to_numpy(dtype=float, na_value=np.nan)
    words = column.astype(object).where(column.notna(), None)
    return np.array([None if word is None else str(word) for word in words], dtype=object)


def _index_teacher_answers(primary: pd.DataFrame, teacher: str | None) -> _Answers:
    """What the teacher answered to each item, and whether it was right."""
    rows = primary[(primary["model"] == teacher) & primary["prediction"].notna()].drop_duplicates(
        ["task", "item", "variant"]
    )
    keys = zip(rows["task"].astype(str), rows["item"].astype(str), rows["variant"].astype(str), strict=True)
    is_right = (rows["score"] >= 0.5).tolist()
    return dict(zip(keys, zip(rows["prediction"].astype(str), is_right, strict=True), strict=True))


def _index_gold_steps(items: pd.DataFrame | None) -> _GoldSteps:
    """The results of the gold steps of every item that has any."""
    if items is None or "rationale" not in items.columns:
        return {}
    rows = items[items["rationale"].notna()].drop_duplicates(["battery", "task", "item"])
    steps_by_item = {}
    for battery, task, item, text in rows[["battery", "task", "item", "rationale"]].itertuples(index=False):
        if steps := step_results(str(text)):
            # A task's name that stands in two batteries is written with its battery.
            steps_by_item[str(task), str(item)] = steps_by_item[f"{battery}/{task}", str(item)] = steps
    return steps_by_item


def _has_gold_steps(answer_rows: pd.DataFrame, steps: _GoldSteps) -> "pd.Series[bool]":
    keys = zip(answer_rows["task"].astype(str), answer_rows["item"].astype(str), strict=True)
    written = (answer_rows["format"] == "generate") & answer_rows["response"].notna()
    return pd.Series([key in steps for key in keys], index=answer_rows.index, dtype=bool) & written


def _error_type_arguments(record: Mapping[Any, Any], answers: _Answers, steps: _GoldSteps) -> dict[str, Any]:
    """One answer as the arguments of `error_types`."""
    written = record["format"] == "generate"
    task, item = str(record["task"]), str(record["item"])
    answer, teacher_is_right = answers.get((task, item, str(record["variant"])), (None, None))
    return {
        "text": _text(record["response"]) if written else None,
        "correct": bool(record["score"] >= 0.5),
        "prediction": _text(record["prediction"]),
        "gold": _parse_gold_answers(record["target"]),
        "cut_off": record["stop_reason"] == "limit" and record["score"] == 0,
        "teacher_prediction": answer,
        "teacher_right": teacher_is_right,
        "gold_steps": steps.get((task, item), ()),
    }


def _text(value: Any) -> str | None:
    return None if pd.isna(value) else str(value)


def _parse_gold_answers(value: Any) -> list[str]:
    """The right answers: one text, or a JSON list of them."""
    text = _text(value)
    if text is None:
        return []
    if text.startswith("["):
        try:
            gold_answers = json.loads(text)
        except ValueError:
            return [text]
        if isinstance(gold_answers, list):
            return [str(answer) for answer in gold_answers]
    return [text]
