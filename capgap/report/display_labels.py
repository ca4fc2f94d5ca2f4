"""Codes of the estimates in words: quantities by their declarations, estimators, populations and reasons."""

from capgap.schema.quantities import QUANTITIES, Quantity

_CODE_PHRASES = {
    "two_stage": "two-stage",
    "these_recipes_this_base": "these recipes, this base",
    "these_recipes_bases_like_these": "these recipes, bases like these",
    "learning_curve_per_step": "learning curve per step",
    "learning_curve_log_probability": "learning curve of log-probabilities",
}
"""Codes that read badly with spaces alone in place of underscores."""


def declaration(quantity: str) -> Quantity:
    """The declaration of a quantity; of one that nobody declared, its code in words, read as a share."""
    return QUANTITIES.get(quantity) or Quantity(quantity, describe_code(quantity), "", "", "percent")


def describe_code(code: str) -> str:
    """A code (of an estimator, a reason, an axis of a population) in words."""
    return _CODE_PHRASES.get(code, code.replace("_", " "))


def heading(words: str) -> str:
    """The words with a capital letter first, the others as they are."""
    return words[:1].upper() + words[1:]


def formula(quantity: Quantity) -> str:
    """The definition with minus signs where it subtracts."""
    return quantity.definition.replace(" - ", " \u2212 ")


def population_label(*population_axis_codes: str) -> str:
    """Codes of the axes of a population (students, tasks, items) in words, unknown ones left out."""
    return ", ".join(describe_code(code) for code in population_axis_codes if code)
