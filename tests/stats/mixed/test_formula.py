import pytest

from capgap.errors import EstimationError
from capgap.stats.mixed.formula import FormulaFactor, parse_formula


def _terms(text):
    return [":".join(map(str, term)) for term in parse_formula(text).terms]


def test_operators_expand_as_in_every_formula_language():
    found = _terms("score ~ capability * (log(n_examples) + adaptation) + format")
    assert found == [
        "capability", "log(n_examples)", "adaptation", "format",
        "capability:log(n_examples)", "capability:adaptation",
    ]  # fmt: skip
    assert _terms("y ~ (a + b + c)**2 - a:b") == ["a", "b", "c", "a:c", "b:c"]


def test_what_is_crossed_with_capability_is_named_without_it():
    formula = parse_formula("y ~ capability * log(n) * a + b")
    assert formula.list_crossed_terms("capability") == (
        (FormulaFactor("n", log=True),),
        (FormulaFactor("a"),),
        (FormulaFactor("n", log=True), FormulaFactor("a")),
    )
    assert formula.columns == ("capability", "n", "a", "b")


def test_a_logarithm_may_add_a_number_first():
    assert (
        parse_formula("y ~ log(1 + n)").terms
        == parse_formula("y ~ log(n + 1)").terms
        == ((FormulaFactor("n", True, 1.0),),)
    )


@pytest.mark.parametrize(
    "hostile",
    [
        "score ~ __import__('os').system('true')",
        "score ~ log(__import__)(n)",
        "score ~ exp(n)",
        "score ~ log(log(n))",
        "score ~ log(n * m)",
        "score ~ n.real",
        "score ~ `a b`",
        "score ~ {n}",
        "score ~ n[0]",
        "score ~ lambda: n",
        "score ~ a; b",
        "score ~ a\n# b ~ c",
        "score ~ 2 * a",
        "score ~ a ** 99999",
        "score ~ (a + b) ** c",
        "score ~ a +",
        "score ~ ((a)",
        "score ~ a | b",
        "score a",
        "~ a",
        "a + b ~ c",
        "a ~ b ~ c",
        "score ~ score + a",
        "score ~ " + "+".join(f"a{i}" for i in range(12)),
        "score ~ " + "(" * 300 + "a" + ")" * 300,
        "score ~ a" + " " * 600,
        "",
    ],
)
def test_anything_else_is_refused_and_never_run(hostile):
    with pytest.raises(EstimationError):
        parse_formula(hostile)


@pytest.mark.parametrize("text", ["y ~ 0 + a", "y ~ a - 1", "y ~ a - 1 + b"])
def test_the_intercept_cannot_be_removed(text):
    with pytest.raises(EstimationError, match="intercept"):
        parse_formula(text)


def test_an_interaction_needs_its_parts():
    with pytest.raises(EstimationError, match="a:b stands without b"):
        parse_formula("y ~ a + a:b")
