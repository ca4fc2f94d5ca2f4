import ast
from pathlib import Path
from string import Formatter

import pytest

import capgap
from capgap.schema.remarks import INFORMATIONAL_REASONS, Reason, Remark, first_limiting_reason, remark, render

PACKAGE = Path(capgap.__file__).parent
FEW = remark(Reason.FEW_CLUSTERS, n=3, least=6)


def _calls():
    """Code and keywords of every call ``remark(Reason.CODE, …)`` in the package whose keywords are written out."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "remark":
                code = node.args[0]
                if isinstance(code, ast.Attribute) and all(keyword.arg for keyword in node.keywords):
                    yield f"{path.name}:{node.lineno}", code.attr, {keyword.arg for keyword in node.keywords}


def test_every_remark_brings_the_figures_of_its_sentence():
    calls = list(_calls())
    assert len(calls) > 60
    for where, code, figures in calls:
        fields = {name for _, name, _, _ in Formatter().parse(Reason[code].sentence) if name}
        assert fields == figures, where


def test_codes_are_words_and_sentences_have_no_full_stop():
    for code in Reason:
        assert code == code.name.lower()
        assert not code.sentence.endswith(".")
    assert set(Reason) > INFORMATIONAL_REASONS


def test_the_reason_is_the_first_code_that_does_not_only_inform():
    informs = remark(Reason.SEEDS_POPULATION, n=3)
    assert first_limiting_reason((informs, FEW, remark(Reason.AT_BOUNDARY))) == Reason.FEW_CLUSTERS == "few_clusters"
    assert first_limiting_reason((informs,)) is None


def test_a_remark_about_a_part_keeps_its_code_and_one_inside_another_stands_for_its_sentence():
    of_part = FEW.of("reasoning")
    assert (of_part.code, of_part.part_name) == (FEW.code, "reasoning")
    assert of_part.text == f"reasoning: {FEW.text}"
    assert of_part.of("first").text == f"first: reasoning: {FEW.text}"
    wrapped = remark(Reason.DRAWS_REFUSED, n=7, of=10, why=of_part)
    assert wrapped.text.endswith(f"the first because {of_part.text}")
    assert render((FEW, of_part, FEW)) == f"{FEW.text}; {of_part.text}"


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (remark(Reason.FORMS_REJECTED, forms=("power", "logistic")), "rejected as not fitting: power, logistic"),
        (
            remark(Reason.SPARSE_STUDENTS, students=list("abcdefg")),
            "fewer than half of the usual number of outcomes: a, b, c, d, e and others",
        ),
        (
            remark(Reason.UNEQUAL_CERTAINTY, sure=["mixed_model", "two_stage"], unsure=["task_jackknife"]),
            "mixed model, two stage clear of zero, task jackknife not",
        ),
        (
            remark(Reason.BRACKETED, low=0.0, high=20249.0),
            "if accuracy rises with data, the target lies between 0 and 20,200 examples",
        ),
        (remark(Reason.NO_FORM_FITS, p_values={"power": 0.0123}), "no law fits (power p = 0.012)"),
    ],
)
def test_figures_are_written_by_their_specification(said, text):
    assert said.text == text


def test_remarks_are_equal_by_their_figures_and_can_be_counted():
    assert Remark(Reason.FEW_CLUSTERS, {"n": 3, "least": 6}) == FEW
    assert len({FEW, remark(Reason.FEW_CLUSTERS, n=3, least=6), remark(Reason.FEW_CLUSTERS, n=4, least=6)}) == 2
