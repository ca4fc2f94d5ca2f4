"""The fit of a crossed mixed-effects logistic regression, as numbers with reasons."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from capgap.errors import EstimationError, suggestion
from capgap.stats.estimate import Estimate, refused
from capgap.stats.mixed.alternative_estimators import EstimatorAgreement, population_of
from capgap.stats.mixed.inference import FixedEffectsInference
from capgap.stats.mixed.margins import MarginalEffect
from capgap.stats.mixed.terms import OmittedTerm

__all__ = ["MixedFit"]


@dataclass(frozen=True)
class MixedFit:
    """What `fit_mixed` found; `tidy` gives rows, `summary` a page of text, `contrast` further numbers.

    Where the fit is refused, `note` says why, and every coefficient that was asked for is refused with it.
    """

    formula: str
    status: Literal["ok", "refused"]
    note: str
    """What a reader must know, or the reason of the refusal."""
    coefficients: Mapping[str, Estimate] = field(default_factory=dict)
    """On the logit scale, conditional on the random effects; bias-corrected."""
    standard_deviations: Mapping[str, Estimate] = field(default_factory=dict)
    """Of the random terms, on the logit scale; of a slope, per unit of its covariate."""
    left_out: tuple[OmittedTerm, ...] = ()
    """Random terms that the data cannot carry, with the reason."""
    margins: tuple[MarginalEffect, ...] = ()
    """Average marginal effects in score points (0 to 1)."""
    two_stage: Mapping[tuple[str, str], Estimate] = field(default_factory=dict)
    """Least squares of each student's logit gap: (effect, capabilities) to its interval; a marginal estimand."""
    agreement: tuple[EstimatorAgreement, ...] = ()
    """Whether several roads to each difference of capabilities arrive at the same place."""
    population: str = ""
    """What the intervals are about."""
    converged: bool = False
    n_students: int = 0
    n_tasks: int = 0
    n_items: int = 0
    n_outcomes: int = 0
    path: Literal["grid", "sparse", ""] = ""
    criterion: float = float("nan")
    """The restricted Laplace log-likelihood at its highest point, up to a constant."""
    centres: Mapping[str, float] = field(default_factory=dict)
    """Where each number was centred."""
    conf_level: float = 0.95
    _names: tuple[str, ...] = ()
    _inference: FixedEffectsInference | None = None

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
        lost = [n for n, w in weights.items() if w and self.coefficients[n].status == "refused"]
        if self._inference is None or lost:
            return refused(self.coefficients[lost[0]].note if lost else self.note)
        vector: NDArray[np.float64] = np.zeros(len(self._inference.beta))
        for name, weight in weights.items():
            if weight:
                vector[self._names.index(name)] = weight
        return self._inference.estimate(vector, conf_level=self.conf_level, null=null)

    def tidy(self) -> list[dict[str, Any]]:
        """One row for every number: ``part, term, where, road, scale, population`` and the fields of `Estimate`."""
        common = {"formula": self.formula}
        rows: list[dict[str, Any]] = []

        def add(
            estimate: Estimate, part: str, term: str, scale: str, where: str = "", road: str = "mixed model"
        ) -> None:
            place = {"part": part, "term": term, "where": where, "road": road, "scale": scale}
            whom = population_of(road, self.population) if self.population else ""
            rows.append({**common, "population": whom, **place, **asdict(estimate)})

        for name, estimate in self.coefficients.items():
            add(estimate, "coefficient", name, "logit")
        for name, estimate in self.standard_deviations.items():
            add(estimate, "standard deviation", name, "logit")
        for margin in self.margins:
            add(margin.estimate, "marginal effect", margin.effect, "score", margin.where)
        for (name, where), estimate in self.two_stage.items():
            add(estimate, "student gaps", name, "logit", where, "two-stage")
        for judged in self.agreement:
            for road in judged.roads[1:]:
                noted = road.estimate.noting(f"roads: {judged.verdict}")
                add(noted, "marginal effect", judged.effect, "score", judged.where, road.road)
        if not rows:
            add(refused(self.note), "fit", self.formula, "logit")
        return rows

    def summary(self) -> str:
        """The fit as plain text."""
        size = f"{self.n_outcomes} outcomes, {self.n_students} students, {self.n_items} items, {self.n_tasks} tasks"
        lines = [f"Crossed mixed-effects logistic regression: {self.formula}", size]
        if self.status == "refused":
            return "\n".join([*lines, f"Refused: {self.note}."])
        if self.population:
            lines.append(f"Population: {self.population}.")
        level = f"{100 * self.conf_level:g} % interval"
        lines += ["", f"Coefficients (logit, given the random effects)   estimate  {level}  df  p"]
        lines += [_line(name, e) for name, e in self.coefficients.items()]
        lines += ["", f"Standard deviations of random terms   estimate  {level}"]
        lines += [_line(name, e) for name, e in self.standard_deviations.items()]
        lines += [f"  left out: {t.name} ({t.reason})" for t in self.left_out]
        if self.margins:
            lines += ["", f"Average marginal effects (score, 0 to 1)   estimate  {level}  df  p"]
            lines += [_line(f"{m.effect}, {m.where}", m.estimate) for m in self.margins]
        for judged in self.agreement:
            lines += ["", f"Roads to {judged.effect}, {judged.where}: {judged.verdict} ({judged.reason})"]
            lines += [_line(road.road, road.estimate) for road in judged.roads]
        lines += ["", f"Note: {self.note}."] if self.note else []
        return "\n".join(lines)


def _line(name: str, e: Estimate) -> str:
    if e.status == "refused":
        return f"  {name:<48} refused: {e.note}"
    shown = f"  {name:<48} {e.estimate:9.4f}  [{e.conf_low:.4f}, {e.conf_high:.4f}]"
    tail = "" if np.isnan(e.p_value) else f"  {e.df:.1f}  {e.p_value:.4f}"
    return shown + tail + (f"  ({e.note})" if e.note else "")
