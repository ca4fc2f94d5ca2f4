"""The glossary of quantities and codes in Markdown: ``python -m capgap.report.glossary > docs/glossary.md``."""

import re
from collections.abc import Iterable, Iterator

from capgap.report.display_labels import formula, heading, spelled
from capgap.schema.columns import ESTIMATORS, POPULATION_ITEMS, POPULATION_STUDENTS, POPULATION_TASKS, SUBJECTS
from capgap.schema.quantities import QUANTITIES, Quantity
from capgap.schema.remarks import INFORMATION, Reason

_ABOUT = (
    "What the numbers of `estimates` are, and what its codes mean. Written by `python -m capgap.report.glossary` from\n"
    "the declarations in `capgap/schema/quantities.py` and `capgap/schema/remarks.py`; a change belongs there."
)
_FAMILIES = {
    "students": "adjusted over the students or recipes that are asked the same, and down the tree of levels",
    "none": "not adjusted",
}
_CODES = {
    "subject": ("whom a number is about", SUBJECTS),
    "estimator": ("how it was made; `method` says the rest", ESTIMATORS),
    "population_items": ("which items the interval speaks of", POPULATION_ITEMS),
    "population_tasks": ("which tasks", POPULATION_TASKS),
    "population_students": ("which students", POPULATION_STUDENTS),
}
"""Column → what its codes say, and the codes."""


def glossary() -> str:
    """Every quantity with its declaration, then the codes of the estimates table, as one Markdown document."""
    lines = ["# Glossary", "", _ABOUT, "", "## Quantities", ""]
    for quantity in QUANTITIES.values():
        lines += _entry(quantity)
    lines += ["## Codes", "", *(f"* `{name}`, {what}: {_codes(codes)}." for name, (what, codes) in _CODES.items()), ""]
    qualifying = [code for code in Reason if code not in INFORMATION]
    lines += ["## Reasons", "", "Why a number is refused or open, or what qualifies it (column `reason`).", ""]
    lines += [*map(_remark, qualifying), "", "Remarks that only inform; they stand in the column `note` alone.", ""]
    return "\n".join([*lines, *map(_remark, sorted(INFORMATION))]) + "\n"


def _remark(code: Reason) -> str:
    """A code with its sentence, in which figures stand as ``{name}``."""
    sentence = re.sub(r"\{(\w+)[^}]*\}", r"{\1}", code.sentence)
    return f"* `{code}`: {sentence or spelled(code)}"


def _entry(quantity: Quantity) -> list[str]:
    sentences = (quantity.question, f"{heading(formula(quantity))}.", quantity.reading)
    return [
        f"### {heading(quantity.title)} (`{quantity.name}`)",
        "",
        " ".join(filter(None, sentences)),
        "",
        *(f"* {name}: {value}." for name, value in _facts(quantity) if value),
        "",
    ]


def _facts(quantity: Quantity) -> Iterator[tuple[str, str]]:
    """What the declaration fixes, by name; an empty value is not written."""
    yield "Unit", quantity.unit
    yield "Roles", ", ".join(quantity.roles)
    yield "Levels", ", ".join(quantity.levels)
    yield "Contrasts", ", ".join(f"`{code}` ({label})" for code, label in quantity.contrasts.items())
    yield "Null value", quantity.null_name
    yield "Answered by", spelled(quantity.estimator)
    yield "p-values", _FAMILIES[quantity.family]
    yield "Refused for", _codes(quantity.refused_when)
    yield "Needs", quantity.needs
    yield "In claims", quantity.claim and f"`{quantity.claim}`"


def _codes(codes: Iterable[str]) -> str:
    return ", ".join(f"`{code}`" for code in codes)


if __name__ == "__main__":
    print(glossary(), end="")
