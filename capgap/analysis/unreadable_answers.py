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

_OFTEN = {"unparsed": Reason.UNPARSED_OFTEN, "truncated": Reason.TRUNCATED_OFTEN}
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
    compared = {roles.teacher, *roles.students}
    primary = outcomes[outcomes["primary"].fillna(False).astype(bool) & outcomes["model"].isin(roles.names)]
    rows: list[EstimateRow] = []
    excluded = set()
    masks = {status: (primary["status"] == status).to_numpy(dtype=float) for status in _OFTEN}
    primary = primary[["task", "model", "format"]].assign(cluster=pd.factorize(primary["item"])[0], **masks)
    for (task, model), part in primary.groupby(["task", "model"], sort=True):
        total = sum(float(part[status].mean()) for status in _OFTEN)
        unreadable = total > MAX_UNREADABLE_SHARE and model in compared
        if unreadable:
            excluded.add(str(task))
        if part["format"].isna().all() and total == 0:
            continue  # a foreign table that says nothing about its answers: unknown, not zero
        design = Design.of(np.zeros(len(part)), part["cluster"].to_numpy())
        left_out = remark(Reason.UNREADABLE_ANSWERS, most=100 * MAX_UNREADABLE_SHARE, tasks=(str(task),))
        for status, often in _OFTEN.items():
            share = accuracy(part[status].to_numpy(), design, conf_level=conf_level)
            share = replace(share, p_value=math.nan, null_value=math.nan)
            if unreadable and share.estimate > 0:
                share = share.noting(left_out, remark(often))
            elif share.estimate > MAX_UNREADABLE_SHARE:
                share = share.noting(remark(often))
            rows.append(EstimateRow(status, "task", str(task), str(model), share, 1))
    return rows, frozenset(excluded)
