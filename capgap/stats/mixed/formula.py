"""Parser of model formulas that runs nothing in them.

Formulas may come from files. formulaic's parser expands the operators; the words are checked before, and what is inside
``log(...)`` is matched by an expression of our own, so that no part of a formula is ever evaluated.
"""

import re
from dataclasses import dataclass

from capgap.errors import EstimationError

__all__ = ["FormulaFactor", "Formula", "parse_formula"]

MAX_FORMULA_CHARS = 500
MAX_COVARIATES = 8
MAX_FORMULA_POWER = 3

_FORMULA_TOKEN = re.compile(r"\s*(log(?=\s*\()|[A-Za-z_]\w*|\d+(?:\.\d+)?|\*\*|[~+\-*:/^()])")
_LOG = re.compile(r"log\(\s*(?:(\d+(?:\.\d+)?)\s*\+\s*)?([A-Za-z_]\w*)(?:\s*\+\s*(\d+(?:\.\d+)?))?\s*\)")
_HINT = (
    "expected names, log(name), log(1 + name), 1 and the operators ~ + - * : / ** ( ), "
    "such as 'score ~ capability * log(n_examples) + format'."
)


@dataclass(frozen=True, order=True)
class FormulaFactor:
    """One name of the formula, as it stands or as a logarithm."""

    column: str
    """The column that it reads."""
    log: bool = False
    """Whether its natural logarithm is meant."""
    shift: float = 0.0
    """What is added before the logarithm is taken."""

    def __str__(self) -> str:
        log_argument = f"{self.shift:g} + {self.column}" if self.shift else self.column
        return f"log({log_argument})" if self.log else self.column


FormulaTerm = tuple[FormulaFactor, ...]


@dataclass(frozen=True)
class Formula:
    """A response and the terms on the right, lower orders first; the intercept is always there."""

    text: str
    response: str
    terms: tuple[FormulaTerm, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """Covariates, each once, in the order of their first appearance."""
        return tuple(dict.fromkeys(predictor.column for term in self.terms for predictor in term))

    def list_crossed_terms(self, column: str) -> tuple[FormulaTerm, ...]:
        """What is crossed with `column`: the rest of every term that it stands in, lower orders first."""
        crossed = (tuple(f for f in t if f.column != column) for t in self.terms if any(f.column == column for f in t))
        return tuple(dict.fromkeys(term for term in crossed if term))


def parse_formula(text: str) -> Formula:
    """Read a formula.

    Parameters
    ----------
    text
        Such as ``score ~ capability * (log(n_examples) + adaptation) + format``.

    Raises
    ------
    EstimationError
        It holds anything else than names, ``log``, numbers and the operators of formulas; an interaction stands without
        its parts; the intercept is removed; or it is too long to be meant.
    """
    # Here, since it takes as long to load as all other estimators together.
    from formulaic.errors import FormulaicError
    from formulaic.parser import DefaultFormulaParser

    _check_words(text)  # before formulaic sees it: nothing but names, numbers and operators gets through
    try:
        parsed_formula = DefaultFormulaParser().get_terms(text)
        lhs, rhs = list(parsed_formula.lhs), list(parsed_formula.rhs)
    except (FormulaicError, AttributeError, RecursionError, SyntaxError, ValueError) as error:
        error_line = str(error).splitlines()[0] if str(error) else "it cannot be read"
        raise EstimationError(f"formula {text!r}: {error_line} {_HINT}") from None
    if len(lhs) != 1 or not re.fullmatch(r"[A-Za-z_]\w*", str(lhs[0])):
        raise EstimationError(f"formula {text!r}: expected one name on the left of ~, found {len(lhs)} terms; {_HINT}")
    term_expressions = [[parsed_factor.expr for parsed_factor in term.factors] for term in rhs]
    if ["1"] not in term_expressions:
        raise EstimationError(f"formula {text!r} removes the intercept; the random terms are deviations from it.")
    factors = [[_parse_factor(e, text) for e in term] for term in term_expressions if term != ["1"]]
    terms = dict.fromkeys(tuple(sorted(set(term), key=lambda f: (_find_in_formula(f, text), f))) for term in factors)
    response = str(lhs[0])
    formula = Formula(text, response, tuple(sorted(terms, key=len)))
    if response in formula.columns:
        raise EstimationError(f"formula {text!r}: {response!r} stands on both sides.")
    # Marginality: every interaction with all of its parts, else coefficients would hang on the coding.
    for term in formula.terms:
        for k in range(len(term)):
            lower_order_term = term[:k] + term[k + 1 :]
            if lower_order_term and lower_order_term not in terms:
                interaction, missing = (":".join(map(str, t)) for t in (term, lower_order_term))
                raise EstimationError(
                    f"formula {text!r}: {interaction} stands without {missing}; write a * b for a + b + a:b."
                )
    return formula


def _check_words(text: str) -> None:
    """Refuse anything that is not a word of a formula, before the parser sees it."""
    if not isinstance(text, str) or len(text) > MAX_FORMULA_CHARS:
        raise EstimationError(f"a formula is a text of at most {MAX_FORMULA_CHARS} characters; {_HINT}")
    position, words = 0, []
    while position < len(text.rstrip()):
        match = _FORMULA_TOKEN.match(text, position)
        if not match:
            raise EstimationError(f"formula {text!r}: cannot use {text[position:].strip()[:20]!r}; {_HINT}")
        words.append(match[1])
        position = match.end()
    if words.count("~") != 1:
        raise EstimationError(f"formula {text!r}: expected one ~, found {words.count('~')}; {_HINT}")
    names = {w for w in words if w[0].isalpha() or w[0] == "_"} - {"log"}
    if len(names) > MAX_COVARIATES + 1:
        raise EstimationError(f"formula {text!r}: at most {MAX_COVARIATES} covariates, found {len(names) - 1}.")
    for word, next_word in zip(words, [*words[1:], ""], strict=True):
        if word not in {"log", "**", "^"} and next_word == "(" and (word[0].isalpha() or word[0] == "_"):
            raise EstimationError(f"formula {text!r}: {word}(...) is not known, only log(...) is; {_HINT}")
        if word in {"**", "^"} and not (next_word.isdigit() and 1 <= int(next_word) <= MAX_FORMULA_POWER):
            raise EstimationError(f"formula {text!r}: a power is a whole number up to {MAX_FORMULA_POWER}.")


def _parse_factor(expression: str, text: str) -> FormulaFactor:
    logarithm = _LOG.fullmatch(expression)
    if logarithm and not (logarithm[1] and logarithm[3]):
        return FormulaFactor(logarithm[2], log=True, shift=float(logarithm[1] or logarithm[3] or 0))
    if re.fullmatch(r"[A-Za-z_]\w*", expression):
        return FormulaFactor(expression)
    raise EstimationError(f"formula {text!r}: cannot use {expression!r}; {_HINT}")


def _find_in_formula(predictor: FormulaFactor, text: str) -> int:
    """Where a factor's column first stands in the formula."""
    match = re.search(rf"\b{predictor.column}\b", text)
    return match.start() if match else len(text)
