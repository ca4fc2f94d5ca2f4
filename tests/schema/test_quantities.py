"""Declarations of quantities hold together."""

from typing import get_args

import pytest

from capgap.schema.quantities import AGGREGATION_LEVELS, QUANTITIES, Quantity, QuantityUnit
from capgap.schema.remarks import INFORMATIONAL_REASONS


@pytest.mark.parametrize("quantity", QUANTITIES.values(), ids=QUANTITIES)
def test_a_declaration_is_whole(quantity: Quantity) -> None:
    assert quantity.question.endswith("?")
    assert quantity.definition
    assert quantity.unit in get_args(QuantityUnit)
    assert set(quantity.levels) <= set(AGGREGATION_LEVELS)
    assert set(quantity.roles) <= {"student", "teacher", "base", "control"}
    assert not set(quantity.refusal_reasons) & INFORMATIONAL_REASONS, "what only informs refuses nothing"


def test_a_word_of_claims_means_one_quantity() -> None:
    words = [quantity.claim for quantity in QUANTITIES.values() if quantity.claim]
    assert len(words) == len(set(words))


def test_contrasts_of_capabilities_are_quantities_of_their_sides() -> None:
    assert set(QUANTITIES["capability_contrast"].contrasts) <= set(QUANTITIES)
