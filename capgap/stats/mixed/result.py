"""`MixedFit`, the result of a crossed mixed-effects logistic regression."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from capgap.errors import EstimationError, suggestion
from capgap.stats.estimate import Estimate, EstimateSet, refused
from capgap.stats.mixed.alternative_estimators import EstimatorAgreement, adapt_population
from capgap.stats.mixed.inference import FixedEffectsInference
from capgap.stats.mixed.margins import MarginalEffect
from capgap.stats.mixed.terms import OmittedTerm, Population


@dataclass(frozen=True)
class MixedFit(EstimateSet):
    """The numbers of `fit_mixed`; `contrast` gives further ones.

    Where the fit is refused, its remark says why, and every coefficient that was asked for is refused with it.
    """

    formula: str
    status: Literal["ok", "refused"]
    coefficients: Mapping[str, Estimate] = field(default_factory=dict)
    """On the logit scale, conditional on the random effects; bias-corrected."""
    standard_deviations: Mapping[str, Estimate] = field(default_factory=dict)
    """Of the random terms, on the logit scale; of a slope, per unit of its covariate."""
    left_out: tuple[OmittedTerm, ...] = ()
    """Random terms that the data cannot carry, with the reason."""
    margins: tuple[MarginalEffect, ...] = ()
    """Average marginal effects in score points (0 to 1)."""
    two_stage_estimates: Mapping[tuple[str, str], Estimate] = field(default_factory=dict)
    """Least squares of each student's logit gap: (effect, capabilities) to its interval; a marginal estimand."""
    agreement: tuple[EstimatorAgreement, ...] = ()
    """Whether several estimators of each difference of capabilities agree."""
    population: Population | None = None
    """Whom the intervals are about; None where the fit is refused."""
    converged: bool = False
    n_students: int = 0
    n_tasks: int = 0
    n_items: int = 0
    n_outcomes: int = 0
    path: Literal["grid", "sparse", ""] = ""
    criterion: float = float("nan")
    """The restricted Laplace log-likelihood at its highest point, up to a constant."""
    covariate_centres: Mapping[str, float] = field(default_factory=dict)
    """Where each number was centred."""
    conf_level: float = 0.95
    _coefficient_names: tuple[str, ...] = ()
    _beta_inference: FixedEffectsInference | None = None

    def contrast(self, weights: Mapping[str, float], *, null: float = 0.0) -> Estimate:
        """A linear combination of coefficients on the logit scale.

        Parameters
        ----------
        weights
            Coefficient names to their weights; the others are zero.
        null
            What it is tested against.

        Raises
        ------
        EstimationError
            A name is not a coefficient.
        """
        for name in weights:
            if name not in self.coefficients:
                raise EstimationError(f"no coefficient {name!r}.{suggestion(name, self.coefficients)}")
        refused_names = [n for n, w in weights.items() if w and self.coefficients[n].status == "refused"]
        if self._beta_inference is None or refused_names:
            return refused(*(self.coefficients[refused_names[0]].remarks if refused_names else self.remarks))
        vector: NDArray[np.float64] = np.zeros(len(self._beta_inference.beta))
        for name, weight in weights.items():
            if weight:
                vector[self._coefficient_names.index(name)] = weight
        return self._beta_inference.estimate(vector, conf_level=self.conf_level, null=null)

    @property
    def heading(self) -> str:
        """The formula, the data, the population, the random terms left out, and what alternative estimators say."""
        size = f"{self.n_outcomes} outcomes, {self.n_students} students, {self.n_items} items, {self.n_tasks} tasks"
        lines = [f"Crossed mixed-effects logistic regression: {self.formula}", size]
        if self.population:
            lines.append(f"Population: {', '.join(self.population)}; {100 * self.conf_level:g} % intervals")
        lines += [f"Random term left out: {term.name} ({term.note})" for term in self.left_out]
        lines += [f"Estimators of {a.effect}, {a.where}: {a.verdict} ({a.note})" for a in self.agreement]
        return "\n".join(lines)

    def estimates(self) -> Iterator[tuple[dict[str, Any], Estimate]]:
        """Coefficients, standard deviations, average marginal effects, and the alternative estimates of these."""

        def labels(kind: str, term: str, scale: str, scope: str = "", estimator: str = "mixed_model") -> dict[str, Any]:
            row_labels = {"part": kind, "term": term, "where": scope, "estimator": estimator, "scale": scale}
            if self.population is None:
                return row_labels
            students, tasks = adapt_population(estimator, self.population)
            return {**row_labels, "population_students": students, "population_tasks": tasks}

        for name, estimate in self.coefficients.items():
            yield labels("coefficient", name, "logit"), estimate
        for name, estimate in self.standard_deviations.items():
            yield labels("standard deviation", name, "logit"), estimate
        for margin in self.margins:
            yield labels("marginal effect", margin.effect, "score", margin.where), margin.estimate
        for (name, scope), estimate in self.two_stage_estimates.items():
            yield labels("student gaps", name, "logit", scope, "two_stage"), estimate
        for agreement in self.agreement:
            for other in agreement.alternatives[1:]:
                row_labels = labels("marginal effect", agreement.effect, "score", agreement.where, other.estimator)
                yield {**row_labels, "verdict": agreement.verdict}, other.estimate
