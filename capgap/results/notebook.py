"""HTML of results in a notebook: the sentence, the next step and a small table of headline estimates, all escaped."""

from collections.abc import Iterable
from html import escape

import pandas as pd

from capgap.report import text
from capgap.report.tables import EstimateIndex
from capgap.schema import Roles
from capgap.schema.quantities import QUANTITIES

_SHOWN_QUANTITIES = ("gap_closure", "retention", "gap", "gain", "accuracy")
_MAX_TABLE_ROWS = 24
_MAX_SHOWN_LINES = 12


def results_html(estimates: pd.DataFrame, roles: Roles, sentence: str, remarks: Iterable[str] = ()) -> str:
    """The headline of an `estimates` table as an HTML fragment without script.

    Parameters
    ----------
    estimates, roles
        What was computed, and who is who.
    sentence
        See `Results`; at most 12 of its lines are shown.
    remarks
        What stands below it: the next step, notes; empty ones do not.
    """
    lines = [escape(text.sanitise_text(line)) for line in sentence.splitlines()]
    overflow_lines = [f"… and {len(lines) - _MAX_SHOWN_LINES} more lines"] if len(lines) > _MAX_SHOWN_LINES else []
    headline_html = "<br>".join([*lines[:_MAX_SHOWN_LINES], *overflow_lines])
    paragraphs = "".join(f"<p>{escape(text.sanitise_text(remark))}</p>" for remark in remarks if remark)
    return f"<div><p><b>{headline_html}</b></p>{paragraphs}{_headline_table(estimates, roles)}</div>"


def _headline_table(estimates: pd.DataFrame, roles: Roles) -> str:
    """A row for each student and capability or battery, a column for each quantity that has any row."""
    index = EstimateIndex(estimates)
    level_groups = [(level, group) for level in ("capability", "battery") for group in index.groups(level)]
    rows = []
    for student in roles.students:
        for level, group in level_groups:
            cells = {name: index.find(name, level, group, student) for name in _SHOWN_QUANTITIES}
            cell_texts = {
                QUANTITIES[name].title: f"{view.shown} {view.interval}".strip() for name, view in cells.items() if view
            }
            if cell_texts:
                rows.append({"student": text.shorten(student, 60), "of": text.shorten(group, 60), **cell_texts})
    overflow_html = f"<p>and {len(rows) - _MAX_TABLE_ROWS} more rows</p>" if len(rows) > _MAX_TABLE_ROWS else ""
    table = pd.DataFrame(rows[:_MAX_TABLE_ROWS]).fillna("")
    return table.to_html(index=False, escape=True, border=0, justify="left") + overflow_html if rows else ""
