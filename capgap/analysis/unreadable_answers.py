"""Tasks whose answers could not be read leave the headline, and a row says so."""

import math
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from capgap import schema
from capgap.analysis.estimate_rows import EstimateRow
from capgap.schema.remarks import Reason, Remark
from capgap.stats import Design, Estimate, accuracy

__all__ = ["UnreadableAnswers", "screen_unreadable"]

_ADVICE = {
    "unparsed": "the answers hold nothing that the score can read: change `extract`, the prompt or the chat template",
    "truncated": "the answers were cut off: raise `max_tokens` or add a `stop`",
}


@dataclass(frozen=True)
class UnreadableAnswers:
    """What the guard found."""

    rows: list[EstimateRow]
    """`unparsed` and `truncated` for every model and task."""
    excluded: dict[str, str] = field(default_factory=dict)
    """Task → which models failed it, and how often."""


def screen_unreadable(outcomes: pd.DataFrame, roles: schema.Roles, *, conf_level: float) -> UnreadableAnswers:
    """Shares of unreadable answers, and the tasks in which the teacher or a compared student has too many.

    Parameters
    ----------
    outcomes
        Validated, task names unambiguous.
    roles
        Only the teacher and the students can exclude a task; a base that cannot answer yet is what training mends.
    conf_level
        Of the intervals of the shares.
    """
    compared = {roles.teacher, *roles.students}
    primary = outcomes[outcomes["primary"].fillna(False).astype(bool) & outcomes["model"].isin(roles.names)]
    rows: list[EstimateRow] = []
    excluded: dict[str, list[str]] = {}
    coded = {status: (primary["status"] == status).to_numpy(dtype=float) for status in _ADVICE}
    primary = primary[["task", "model", "format"]].assign(cluster=pd.factorize(primary["item"])[0], **coded)
    for (task, model), part in primary.groupby(["task", "model"], sort=True):
        failed = {status: part[status].to_numpy() for status in _ADVICE}
        total = sum(float(values.mean()) for values in failed.values())
        over = total > schema.MAX_UNREADABLE_SHARE and model in compared
        if over:
            shares = " and ".join(f"{100 * v.mean():.0f} % {status}" for status, v in failed.items() if v.any())
            excluded.setdefault(str(task), []).append(f"{model}: {shares}")
        if part["format"].isna().all() and total == 0:
            continue  # a foreign table that says nothing about its answers: unknown, not zero
        design = Design.of(np.zeros(len(part)), part["cluster"].to_numpy())
        for status, values in failed.items():
            share = accuracy(values, design, conf_level=conf_level)
            rows.append(_row(status, str(task), str(model), share, over))
    return UnreadableAnswers(rows, {task: ", ".join(who) for task, who in excluded.items()})


def _row(status: str, task: str, model: str, share: Estimate, over: bool) -> EstimateRow:
    remarks: list[Remark] = []
    if over and share.estimate > 0:
        remarks = [Remark(Reason.UNREADABLE_ANSWERS, {"status": status})]
    elif share.estimate > schema.MAX_UNREADABLE_SHARE:
        remarks = [Remark(Reason.FREE_TEXT, {"text": _ADVICE[status]})]
    clean = Estimate(**{**share.__dict__, "p_value": math.nan, "null_value": math.nan}).noting(*remarks)
    return EstimateRow(quantity=status, level="task", group=task, model=model, estimate=clean, n_tasks=1)
