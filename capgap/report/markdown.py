"""The report as Markdown, for a pull request or a terminal: the answer, the numbers, what is left out."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from capgap.report import text
from capgap.report.content import ReportContent, gather_content
from capgap.report.tables import EstimateView
from capgap.schema import Roles

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>()#+!|~@&$])")


def _plain(words: object) -> str:
    """One line in which nothing is markup."""
    return _SPECIAL.sub(r"\\\1", text.shorten(words, 300))


def _number(row: EstimateView | None) -> str:
    return text.NOTHING if row is None else _plain(row.shown_with_interval)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines] + [""]


def markdown_report(
    *,
    outcomes: pd.DataFrame,
    estimates: pd.DataFrame,
    roles: Roles,
    run: Mapping[str, Any],
    models: pd.DataFrame | None = None,
    labels: pd.DataFrame | None = None,
) -> str:
    """The report in Markdown, without figures and items; see `write_report` for the arguments and errors."""
    content = gather_content(outcomes, estimates, roles, run, models=models, labels=labels)
    parts = [_answer(content), _tasks(content), _contrasts(content), _left_out(content), _provenance(content)]
    return "\n".join(line for part in parts for line in part).rstrip() + "\n"


def _answer(content: ReportContent) -> list[str]:
    lines = [f"# {_plain(content.headline)}", ""]
    for sentence in (*content.sentences, *content.next_steps):
        lines += [_plain(sentence), ""]
    rows = [[_plain(m.role), _plain(m.model), _plain(m.what), _plain(m.prompting)] for m in content.models]
    lines += _table(["role", "model", "what", "prompting"], rows)
    rows = [[_plain(r.student), _plain(r.group), *map(_number, r.estimates)] for r in content.summary.rows]
    if rows:
        lines += _table(["student", "of", *(quantity.title for quantity in content.summary.columns)], rows)
    for caveat in content.caveats:
        lines.append(f"- **{_plain(caveat.what)}** {_plain(caveat.so)}")
    return [*lines, ""]


def _tasks(content: ReportContent) -> list[str]:
    lines = ["## Tasks", ""]
    for panel in content.panels:
        lines += [f"### {_plain(panel.student)}", ""]
        rows = []
        for group in panel.groups:
            for row in group.rows:
                places = [row.base, row.student, row.teacher, row.control, row.chance]
                shares = [text.percent(None if place is None else place / 100) for place in places]
                rows.append([_plain(row.task), group.capability, *shares, _number(row.gap)])
        lines += _table(["task", "capability", "base", "student", "teacher", "control", "chance", "gap"], rows)
    return lines


def _contrasts(content: ReportContent) -> list[str]:
    if not content.contrasts:
        return []
    rows = [
        [_plain(c.estimate.model), _plain(c.estimate.contrast_label), _number(c.estimate), _plain(c.estimate.note)]
        for c in content.contrasts
    ]
    return ["## Knowledge against reasoning", "", *_table(["student", "contrast", "difference", "note"], rows)]


def _left_out(content: ReportContent) -> list[str]:
    if not content.omitted_data:
        return []
    lines = ["## What was left out", ""]
    for entry in content.omitted_data:
        where = f" ({_plain(text.join(entry.where))})" if entry.where else ""
        lines.append(f"- **{_plain(entry.what)}**{where}: {_plain(entry.why)}")
    return [*lines, ""]


def _provenance(content: ReportContent) -> list[str]:
    lines = ["## Provenance", ""]
    for fact in content.provenance_entries:
        lines.append(f"- {_plain(fact.name)}: {_plain(fact.value)}")
        lines += [f"  - {_plain(inner.name)}: {_plain(inner.value)}" for inner in fact.inner]
    return [*lines, ""]
