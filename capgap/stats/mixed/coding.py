"""Design coding: covariates of the formula as centred or contrast-coded columns, fixed and random."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from capgap.errors import EstimationError, suggestion
from capgap.stats.mixed.formula import Formula, FormulaFactor, FormulaTerm

__all__ = ["DesignCoding", "CodedCovariate", "code_covariates", "design_matrix", "slope_columns"]

Floats = NDArray[np.float64]
MAX_LEVELS = 20


@dataclass(frozen=True)
class CodedCovariate:
    """How one factor of the formula became numbers.

    Numbers are centred, so that a main effect is that at the average student. The coefficient of level j of a
    categorical factor is the difference to the first level: columns ``1{level j} - 1/L``, which for two levels is -1/2
    and +1/2, so that the other coefficients hold half-way between the levels.
    """

    factor: FormulaFactor
    values: Floats
    """Centred numbers, or codes of the levels; shape (rows,)."""
    centre: float = 0.0
    levels: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """As in the formula."""
        return str(self.factor)

    @property
    def constant(self) -> bool:
        """Whether it takes one value only."""
        return len(self.levels) == 1 if self.levels else bool(np.ptp(self.values) == 0)

    def columns(self) -> tuple[Floats, tuple[str, ...]]:
        """Fixed-effect columns (rows, L - 1) or (rows, 1) and their names."""
        if not self.levels:
            return self.values[:, None], (self.name,)
        reference_level, n = self.levels[0], len(self.levels)
        contrast_columns = (self.values[:, None] == np.arange(1, n)) - 1 / n
        return contrast_columns, tuple(f"{self.name}[{level} - {reference_level}]" for level in self.levels[1:])

    def random_columns(self) -> Floats:
        """Columns for a random slope with one variance: that of the difference of two levels, whichever they are."""
        if len(self.levels) <= 2:
            return self.columns()[0]
        # Scaled so that the variance of the difference of any two levels is one.
        n = len(self.levels)
        return np.asarray(((self.values[:, None] == np.arange(n)) - 1 / n) / np.sqrt(2))


@dataclass(frozen=True)
class DesignCoding:
    """The covariates of a formula on design rows."""

    formula: Formula
    covariates: Mapping[FormulaFactor, CodedCovariate]
    capability: str
    """Name of the column that says which capability a row measures."""
    rows: int

    @property
    def compares_capability(self) -> bool:
        """Whether the formula asks for capabilities and the data have more than one."""
        covariate = self.covariates.get(FormulaFactor(self.capability))
        return covariate is not None and not covariate.constant

    @property
    def capability_covariate(self) -> CodedCovariate:
        """The covariate of the capability."""
        return self.covariates[FormulaFactor(self.capability)]


def code_covariates(
    formula: Formula,
    columns: Mapping[str, NDArray[np.generic]],
    weight: Floats,
    student: NDArray[np.intp],
    capability: str,
) -> DesignCoding:
    """Turn the columns that the formula names into numbers.

    Parameters
    ----------
    formula
        The formula.
    columns
        Each of shape (rows,).
    weight
        Trials of each row; rows without trials count for nothing.
    student
        Code of the student of each row; numbers are centred at the mean of the students' means.
    capability
        The column that is always categorical.

    Raises
    ------
    EstimationError
        A column is missing, holds too many levels, or a logarithm is asked of a number that is not above zero.
    """
    factors = dict.fromkeys(f for term in formula.terms for f in term)
    covariates = {}
    for factor in factors:
        if factor.column not in columns:
            hint = suggestion(factor.column, columns)
            raise EstimationError(f"formula {formula.text!r}: no column {factor.column!r} in the data.{hint}")
        covariates[factor] = _code_factor(factor, columns[factor.column], weight, student, factor.column == capability)
    return DesignCoding(formula, covariates, capability, len(weight))


def _code_factor(
    factor: FormulaFactor, raw: NDArray[np.generic], weight: Floats, student: NDArray[np.intp], is_categorical: bool
) -> CodedCovariate:
    nonempty = weight > 0
    if is_categorical or raw.dtype.kind not in "iuf":
        if factor.log:
            raise EstimationError(f"{factor}: a logarithm needs numbers, column {factor.column!r} holds words.")
        texts = raw.astype(str)
        levels = np.unique(texts[nonempty])
        if len(levels) > MAX_LEVELS:
            raise EstimationError(
                f"{factor}: {len(levels)} levels are too many for fixed effects (at most {MAX_LEVELS}); is it a number?"
            )
        level_codes = np.searchsorted(levels, texts).clip(0, len(levels) - 1)
        return CodedCovariate(factor, level_codes.astype(float), levels=tuple(map(str, levels)))
    values = raw.astype(float)
    if factor.log:
        values = values + factor.shift
        if (values[nonempty] <= 0).any():
            raise EstimationError(
                f"{factor}: the logarithm needs numbers above zero, found {values[nonempty].min():g}; "
                f"write log(1 + {factor.column}) where zero is meant."
            )
        values = np.log(np.where(nonempty, values, 1.0))
    low, high = values[nonempty].min(), values[nonempty].max()
    # A mean of equal numbers may differ from them in the last digit; a constant is exactly zero here.
    centre = float(low) if low == high else _mean_of_students(values[nonempty], weight[nonempty], student[nonempty])
    return CodedCovariate(factor, np.where(nonempty, values - centre, 0.0), centre=centre)


def _mean_of_students(values: Floats, weight: Floats, student: NDArray[np.intp]) -> float:
    trials = np.bincount(student, weight)
    seen = trials > 0
    return float((np.bincount(student, weight * values)[seen] / trials[seen]).mean())


def design_matrix(predictors: DesignCoding) -> tuple[Floats, tuple[str, ...], tuple[FormulaTerm, ...]]:
    """The fixed design, intercept first, with the name and the term of each column; shape (rows, p)."""
    rows = predictors.rows
    blocks, names = [np.ones((rows, 1))], ["(Intercept)"]
    terms: list[FormulaTerm] = [()]
    for term in predictors.formula.terms:
        block = np.ones((rows, 1))
        labels: tuple[str, ...] = ("",)
        for predictor in term:
            columns, column_labels = predictors.covariates[predictor].columns()
            # The products of all columns so far with all of this factor: (rows, a, b) in the order of the labels.
            block = (block[:, :, None] * columns[:, None, :]).reshape(rows, -1)
            labels = tuple(f"{a}:{b}" if a else b for a in labels for b in column_labels)
        blocks.append(block)
        names.extend(labels)
        terms.extend([term] * len(labels))
    return np.hstack(blocks), tuple(names), tuple(terms)


def slope_columns(predictors: DesignCoding, term: FormulaTerm) -> Floats:
    """Columns of a random slope along `term`, shape (rows, m); they share one variance."""
    columns = [predictors.covariates[predictor].random_columns() for predictor in term]
    return reduce(lambda a, b: (a[:, :, None] * b[:, None, :]).reshape(predictors.rows, -1), columns)
