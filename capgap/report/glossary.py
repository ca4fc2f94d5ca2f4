"""The glossary of quantities and codes in Markdown: ``python -m capgap.report.glossary > docs/glossary.md``."""

import re
from collections.abc import Iterable, Iterator

from capgap.report.display_labels import describe_code, formula, heading
from capgap.schema.columns import ESTIMATORS, POPULATION_ITEMS, POPULATION_STUDENTS, POPULATION_TASKS, SUBJECT_KINDS
from capgap.schema.quantities import QUANTITIES, Quantity
from capgap.schema.remarks import INFORMATIONAL_REASONS, Reason

_GLOSSARY_INTRODUCTION = (
    "What the numbers of `estimates` are, and what its codes mean. Written by `python -m capgap.report.glossary` from\n"
    "the declarations in `capgap/schema/quantities.py` and `capgap/schema/remarks.py`; a change belongs there."
)
_ADJUSTMENT_WORDS = {
    "students": "adjusted over the students or recipes that are asked the same, and down the tree of levels",
    "pairs": "Holm over all pairs that are compared, at one level",
    "none": "not adjusted",
}
_LEGEND = {
    "subject": ("whom a number is about", SUBJECT_KINDS),
    "estimator": ("how it was made; `method` says the rest", ESTIMATORS),
    "population_items": ("which items the interval speaks of", POPULATION_ITEMS),
    "population_tasks": ("which tasks", POPULATION_TASKS),
    "population_students": ("which students", POPULATION_STUDENTS),
}
"""Column → what its codes say, and the codes."""


def format_glossary() -> str:
    """Every quantity with its declaration, then the codes of the estimates table, as one Markdown document."""
    lines = ["# Glossary", "", _GLOSSARY_INTRODUCTION, "", "## Quantities", ""]
    for quantity in QUANTITIES.values():
        lines += _quantity_entry(quantity)
    lines += ["## Codes", "", *(f"* `{name}`, {text}: {_codes(codes)}." for name, (text, codes) in _LEGEND.items()), ""]
    qualifiers = [code for code in Reason if code not in INFORMATIONAL_REASONS]
    lines += ["## Reasons", "", "Why a number is refused or open, or what qualifies it (column `reason`).", ""]
    lines += [*map(_code_entry, qualifiers), "", "Remarks that only inform; they stand in the column `note` alone.", ""]
    return "\n".join([*lines, *map(_code_entry, sorted(INFORMATIONAL_REASONS))]) + "\n"


def _code_entry(code: Reason) -> str:
    """A code with its sentence, in which figures stand as ``{name}``."""
    sentence = re.sub(r"\{(\w+)[^}]*\}", r"{\1}", code.sentence)
    return f"* `{code}`: {sentence or describe_code(code)}"


def _quantity_entry(quantity: Quantity) -> list[str]:
    sentences = (quantity.question, f"{heading(formula(quantity))}.", quantity.guidance)
    return [
        f"### {heading(quantity.title)} (`{quantity.name}`)",
        "",
        " ".join(filter(None, sentences)),
        "",
        *(f"* {name}: {value}." for name, value in _list_declared_facts(quantity) if value),
        "",
    ]


def _list_declared_facts(quantity: Quantity) -> Iterator[tuple[str, str]]:
    """What the declaration fixes, by name; an empty value is not written."""
    yield "Unit", quantity.unit
    yield "Roles", ", ".join(quantity.roles)
    yield "Levels", ", ".join(quantity.levels)
    yield "Contrasts", ", ".join(f"`{code}` ({label})" for code, label in quantity.contrasts.items())
    yield "Null value", quantity.null_value_name
    yield "Answered by", describe_code(quantity.estimator)
    yield "p-values", _ADJUSTMENT_WORDS[quantity.family]
    yield "Refused for", _codes(quantity.refusal_reasons)
    yield "Needs", quantity.needs
    yield "In claims", quantity.claim and f"`{quantity.claim}`"


def _codes(schema_codes: Iterable[str]) -> str:
    return ", ".join(f"`{code}`" for code in schema_codes)


if __name__ == "__main__":
    print(format_glossary(), end="")
