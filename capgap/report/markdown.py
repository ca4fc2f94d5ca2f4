"""The report as Markdown, for a pull request or a terminal: the answer, the numbers, what is left out."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from capgap.report import text
from capgap.report.content import ReportContent, gather_report_content
from capgap.report.tables import EstimateView
from capgap.schema import Roles

_MARKUP_CHARACTERS = re.compile(r"([\\`*_{}\[\]<>()#+!|~@&$])")


def _escape(words: object) -> str:
    """One line in which nothing is markup."""
    return _MARKUP_CHARACTERS.sub(r"\\\1", text.shorten(words, 300))


def _estimate(row: EstimateView | None) -> str:
    return text.UNKNOWN_VALUE_MARK if row is None else _escape(row.shown_with_interval)


def _markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
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
    content = gather_report_content(outcomes, estimates, roles, run, models=models, labels=labels)
    sections = [_answer(content), _tasks(content), _contrasts(content), _omissions(content), _provenance(content)]
    return "\n".join(line for section_lines in sections for line in section_lines).rstrip() + "\n"


def _answer(content: ReportContent) -> list[str]:
    lines = [f"# {_escape(content.headline)}", ""]
    for sentence in (*content.sentences, *content.next_steps):
        lines += [_escape(sentence), ""]
    rows = [[_escape(m.role), _escape(m.model), _escape(m.what), _escape(m.prompting)] for m in content.models]
    lines += _markdown_table(["role", "model", "what", "prompting"], rows)
    rows = [
        [_escape(r.student), _escape(r.group), *(_with_bounds(content, e) for e in r.estimates)]
        for r in content.summary.rows
    ]
    if rows:
        lines += _markdown_table(["student", "of", *(quantity.title for quantity in content.summary.columns)], rows)
    for caveat in content.caveats:
        lines.append(f"- **{_escape(caveat.what)}** {_escape(caveat.so)}")
    return [*lines, ""]


def _with_bounds(content: ReportContent, view: EstimateView | None) -> str:
    """A number, its interval and its bounds."""
    bounds = content.lookup.bounds_of(view)
    return _estimate(view) + (f" bounds {_escape(bounds.interval or 'none')}" if bounds else "")


def _tasks(content: ReportContent) -> list[str]:
    lines = ["## Tasks", ""]
    for panel in content.panels:
        lines += [f"### {_escape(panel.student)}", ""]
        rows = []
        for group in panel.groups:
            for row in group.rows:
                positions = [row.base, row.student, row.teacher, row.control, row.chance]
                shares = [text.percent(None if position is None else position / 100) for position in positions]
                rows.append([_escape(row.task), group.capability, *shares, _estimate(row.gap)])
        lines += _markdown_table(["task", "capability", "base", "student", "teacher", "control", "chance", "gap"], rows)
    return lines


def _contrasts(content: ReportContent) -> list[str]:
    if not content.contrasts:
        return []
    rows = [
        [_escape(c.estimate.model), _escape(c.estimate.contrast_label), _estimate(c.estimate), _escape(c.estimate.note)]
        for c in content.contrasts
    ]
    return ["## Knowledge against reasoning", "", *_markdown_table(["student", "contrast", "difference", "note"], rows)]


def _omissions(content: ReportContent) -> list[str]:
    if not content.omitted_data:
        return []
    lines = ["## What was left out", ""]
    for entry in content.omitted_data:
        group_list = f" ({_escape(text.join(entry.where))})" if entry.where else ""
        lines.append(f"- **{_escape(entry.what)}**{group_list}: {_escape(entry.why)}")
    return [*lines, ""]


def _provenance(content: ReportContent) -> list[str]:
    lines = ["## Provenance", ""]
    for fact in content.provenance_entries:
        lines.append(f"- {_escape(fact.name)}: {_escape(fact.value)}")
        lines += [f"  - {_escape(nested_entry.name)}: {_escape(nested_entry.value)}" for nested_entry in fact.inner]
    return [*lines, ""]
