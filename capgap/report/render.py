"""The HTML page: the content set through one Jinja template, written whole or not at all."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from capgap.report import text
from capgap.report.cohort_sections import gather_cohort_sections
from capgap.report.content import SECTION_QUANTITIES, ReportContent, gather_report_content
from capgap.report.display_labels import formula, heading
from capgap.report.levels import contrast_table, draw_capabilities, draw_domains, draw_slice_block, make_task_tables
from capgap.report.unknown_answers import unknown_answer_tables
from capgap.schema import Roles, atomic_write
from capgap.schema.quantities import QUANTITIES

_HERE = Path(__file__).parent


def write_report(
    path: Path | str,
    *,
    outcomes: pd.DataFrame,
    estimates: pd.DataFrame,
    roles: Roles,
    run: Mapping[str, Any],
    items: pd.DataFrame | None = None,
    models: pd.DataFrame | None = None,
    labels: pd.DataFrame | None = None,
    show_items: bool = True,
) -> Path:
    """Write the report, one HTML file that needs nothing else, and return its path.

    Parameters
    ----------
    path
        Of the file; its directory exists.
    outcomes, estimates
        The tables of `capgap.schema`.
    roles
        Who is who.
    run
        What run.json holds. ``sentence`` (a list of lines) is the answer at the top, ``next`` what to do after it,
        ``caveats`` (a list of lines) stands with the page's own, ``seed`` draws the examples, ``classifier`` belongs
        to the labels; everything else is shown as provenance.
    items, models, labels
        The other tables, where they are known.
    show_items
        Whether prompts, targets and answers may be shown; otherwise examples hold ids, scores and hashes only.

    Returns
    -------
    Path
        Of the file. The same input gives the same bytes.

    Raises
    ------
    TableError
        A table does not hold what it should.
    UsageError
        A role names a model that the outcomes do not have.
    StoreError
        The disk is full or cannot be written.
    """
    path = Path(path)
    content = gather_report_content(
        outcomes, estimates, roles, run, items=items, models=models, labels=labels, show_items=show_items
    )
    page_html = html_report(content)
    with atomic_write(path) as temporary_file:
        temporary_file.write_text(page_html, encoding="utf-8", newline="\n")
    return path


def _sanitise_value(value: Any) -> Any:
    """What every expression of the template passes through before it is escaped."""
    if value is None:
        return text.UNKNOWN_VALUE_MARK
    return text.sanitise_text(value) if isinstance(value, str) and not isinstance(value, Markup) else value


@cache
def _load_template() -> jinja2.Template:
    """The template, compiled once."""
    environment = jinja2.Environment(
        autoescape=True,
        loader=jinja2.FileSystemLoader(_HERE),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_sanitise_value,
    )
    environment.filters |= {
        "shorten": text.shorten,
        "join_words": text.join,
        "percent": text.percent,
        "heading": heading,
        "formula": formula,
    }
    return environment.get_template("report.html.j2")


def html_report(content: ReportContent) -> str:
    """The page as a string."""
    lookup, roles = content.lookup, content.roles
    return _load_template().render(
        content=content,
        declared=QUANTITIES,
        read_in_sections=SECTION_QUANTITIES,
        css=Markup((_HERE / "report.css").read_text(encoding="utf-8")),
        capability=draw_capabilities(lookup, roles),
        domains=draw_domains(lookup, roles, content.domains),
        slices=draw_slice_block(lookup, roles, content.capabilities),
        together=gather_cohort_sections(lookup, roles),
        unknown_answers=unknown_answer_tables(lookup, roles),
        contrast_table=contrast_table(lookup, roles),
        task_tables=[make_task_tables(lookup, roles, student) for student in roles.students],
    )
