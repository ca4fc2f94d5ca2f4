"""Shares of unparsed and truncated answers, and the tasks that leave the headline for them."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd

from capgap.analysis.estimate_rows import EstimateRow
from capgap.schema.columns import MAX_UNREADABLE_SHARE
from capgap.schema.pairing import Roles
from capgap.schema.remarks import Reason, remark
from capgap.stats import Design, accuracy

_FREQUENT_REASONS = {"unparsed": Reason.UNPARSED_OFTEN, "truncated": Reason.TRUNCATED_OFTEN}
"""Quantity, a status of outcomes → what to say where it is frequent."""


def screen_unreadable(
    outcomes: pd.DataFrame, roles: Roles, *, conf_level: float
) -> tuple[list[EstimateRow], frozenset[str]]:
    """Rows of `unparsed` and `truncated` for every model and task, and the tasks that leave the headline.

    Parameters
    ----------
    outcomes
        Validated, task names unambiguous.
    roles
        Only the teacher and the students can exclude a task; a base that cannot answer yet is what training mends.
    conf_level
        Of the intervals of the shares.
    """
    compared_models = {roles.teacher, *roles.students}
    primary = outcomes[outcomes["primary"].fillna(False).astype(bool) & outcomes["model"].isin(roles.names)]
    rows: list[EstimateRow] = []
    excluded = set()
    masks = {status: (primary["status"] == status).to_numpy(dtype=float) for status in _FREQUENT_REASONS}
    primary = primary[["task", "model", "format"]].assign(cluster=pd.factorize(primary["item"])[0], **masks)
    for (task, model), answer_rows in primary.groupby(["task", "model"], sort=True):
        total = sum(float(answer_rows[status].mean()) for status in _FREQUENT_REASONS)
        unreadable = total > MAX_UNREADABLE_SHARE and model in compared_models
        if unreadable:
            excluded.add(str(task))
        if answer_rows["format"].isna().all() and total == 0:
            continue  # a foreign table that says nothing about its answers: unknown, not zero
        design = Design.of(np.zeros(len(answer_rows)), answer_rows["cluster"].to_numpy())
        unreadable_remark = remark(Reason.UNREADABLE_ANSWERS, most=100 * MAX_UNREADABLE_SHARE, tasks=(str(task),))
        for status, frequent_reason in _FREQUENT_REASONS.items():
            share = accuracy(answer_rows[status].to_numpy(), design, conf_level=conf_level)
            share = replace(share, p_value=math.nan, null_value=math.nan)
            if unreadable and share.estimate > 0:
                share = share.noting(unreadable_remark, remark(frequent_reason))
            elif share.estimate > MAX_UNREADABLE_SHARE:
                share = share.noting(remark(frequent_reason))
            rows.append(EstimateRow(status, "task", str(task), str(model), share, 1))
    return rows, frozenset(excluded)
