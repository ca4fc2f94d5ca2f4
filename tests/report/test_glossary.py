from pathlib import Path

from capgap.report.glossary import format_glossary
from capgap.schema.quantities import QUANTITIES
from capgap.schema.remarks import Reason

GLOSSARY = Path(__file__).parents[2] / "docs" / "glossary.md"


def test_the_committed_glossary_is_current():
    assert GLOSSARY.read_text(encoding="utf-8") == format_glossary(), (
        "Write it again: python -m capgap.report.glossary > docs/glossary.md"
    )


def test_every_quantity_and_reason_has_an_entry():
    page = format_glossary()
    assert [code for code in (*QUANTITIES, *Reason) if f"`{code}`" not in page] == []


def test_every_claim_word_is_listed():
    words = {quantity.claim for quantity in QUANTITIES.values()} - {""}
    assert len(words) > 10
    assert {word for word in words if f"* In claims: `{word}`." not in format_glossary()} == set()
