"""Failure patterns of a grid of students and items, with held-out evidence for each; or why there are none."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from capgap.errors import EstimationError
from capgap.schema.remarks import Reason, Remark, remark
from capgap.stats.estimate import Estimate, EstimateSet, EstimateStatus
from capgap.stats.multiplicity import holm
from capgap.stats.patterns.evidence import PatternCountTest, PatternReplication, choose_n_patterns, replicate_halves
from capgap.stats.patterns.mixture import AnswerGrid, fit_mixture

__all__ = ["MIN_PATTERN_ITEMS", "MIN_PATTERN_STUDENTS", "FailurePatterns", "find_patterns"]

Floats = NDArray[np.float64]

MIN_PATTERN_STUDENTS = 24
"""With fewer students patterns were not recovered in simulations (adjusted Rand index .3 at 24)."""
MIN_PATTERN_ITEMS = 50
"""With fewer items there is nothing to group."""
MIN_ANSWERED_SHARE = 0.5
"""An item that fewer of the students answered is left out."""
MAX_SELECTION_ITEMS = 3000
"""K is chosen, and the halves are compared, on so many items at most, drawn at random."""
PATTERN_METHOD_NAME = "mixture of logistic response surfaces (EM), K by held-out students"


@dataclass(frozen=True)
class FailurePatterns(EstimateSet):
    """Groups of items that students answer alike across the grid, easy and hard items in each."""

    memberships: Floats
    """Probability that an item belongs to each pattern, shape (I, K); NaN for items that were left out."""
    surface_logits: Floats
    """Logits per pattern: at the mean student, then per standard deviation of each covariate, shape (K, p + 1)."""
    covariates: tuple[str, ...]
    """Names of the p covariates that vary."""
    shares: Floats
    """Share of the items in each pattern, shape (K,), descending."""
    evidence: tuple[PatternCountTest, ...] = ()
    """What held-out students said to each further pattern; the last line is the one that was not taken."""
    half_tests: tuple[PatternReplication, ...] = ()
    """Per pattern: does what one half of the students shows predict the other half? Empty where K = 1."""
    half_test_p_values: Floats = field(default_factory=lambda: np.empty(0))
    """The halves' p-values after Holm, shape (K,)."""
    n_students: int = 0
    """Students that answered."""
    n_items: int = 0
    """Items that were grouped."""
    method: str = PATTERN_METHOD_NAME
    """How."""
    status: EstimateStatus = "ok"
    """``ok`` or ``refused``."""

    @property
    def n_patterns(self) -> int:
        """K; 1 says that students differ in level alone, 0 that it was refused."""
        return len(self.shares)

    @property
    def heading(self) -> str:
        """How many, from what, and how held-out students chose the number."""
        if self.status == "refused":
            return "Failure patterns: refused"
        lines = [f"Failure patterns: {self.n_patterns} ({self.n_students} students, {self.n_items} items)"]
        for step in self.evidence:
            lines.append(
                f"  {step.n_patterns} against {step.n_patterns - 1}: {1000 * step.gain:+.2f} millinats per held-out "
                f"answer (s.e. {1000 * step.std_error:.2f}), one-sided p = {step.p_value:.3g}"
            )
        return "\n".join([*lines, "Share of the items, p in the other half of the students (Holm):"])

    def estimates(self) -> Iterator[tuple[dict[str, Any], Estimate]]:
        """The share of each pattern with its adjusted p-value; its surface and what the halves showed are labels."""
        for k, share in enumerate(self.shares):
            labels: dict[str, Any] = {"pattern": k, "level": float(self.surface_logits[k, 0])}
            labels |= {f"slope_{x}": float(b) for x, b in zip(self.covariates, self.surface_logits[k, 1:], strict=True)}
            labels["n_students"] = self.n_students
            number = Estimate(float(share), n_items=self.n_items, method=self.method)
            if self.half_tests:
                labels |= {"gain_other_half": self.half_tests[k].gain, "overlap_of_halves": self.half_tests[k].overlap}
                number = replace(number, p_value=float(self.half_test_p_values[k]))
            yield labels, number


def find_patterns(
    scores: ArrayLike,
    covariates: ArrayLike,
    names: Sequence[str],
    *,
    rng: np.random.Generator,
    chance: ArrayLike = 0.0,
    max_patterns: int = 8,
    level: float = 0.05,
) -> FailurePatterns:
    """The failure patterns of a grid.

    Parameters
    ----------
    scores
        Scores in [0, 1] of S students on I items, shape (S, I); NaN where a student did not answer.
    covariates
        How the students were made (log n_examples, adaptation as 0 and 1, log n_params, ...), shape (S, p). They are
        centred and scaled; those that do not vary are left out and named in a remark.
    names
        Names of the covariates, p.
    rng
        Deals students into folds and halves, draws starts; the same generator gives the same patterns.
    chance
        Probability that a guess is right, one number or one for each item, shape (I,); NaN (unknown) counts as 0.
    max_patterns
        Largest K that is tried.
    level
        Of the test that stops at K, see `choose_n_patterns`.

    Returns
    -------
    FailurePatterns
        Refused below 24 students, where no covariate varies, or where (nearly) nothing is left that varies.

    Raises
    ------
    EstimationError
        Shapes disagree, a score lies outside [0, 1], a chance outside [0, 1), or a covariate is not finite.

    Notes
    -----
    Patterns are told apart by how answers move with the students' covariates, so a difference in difficulty is none
    (see `fit_mixture`). K is raised while held-out students are predicted better. Memberships, surfaces and K use all
    students; the halves' test asks of each pattern whether one half of the students finds it well enough to predict
    the other half. Surfaces are conditional on an item's ease: they are steeper than the curve of a pattern's mean.
    Without their chance, items that can be guessed make a pattern of hard items that is none: hard items then respond
    less to the students' covariates.
    """
    y, x = _validate_arrays(scores, covariates, names)
    guess = _validate_chances(chance, y.shape[1])
    seen = np.isfinite(y)
    students = np.flatnonzero(seen.any(axis=1))
    if len(students) < MIN_PATTERN_STUDENTS:
        return _refuse_patterns(y.shape[1], remark(Reason.FEW_STUDENTS, n=len(students), least=MIN_PATTERN_STUDENTS))
    y, x, seen = y[students], x[students], seen[students]
    centre, spread = x.mean(axis=0), x.std(axis=0)
    has_variation = spread > 1e-9 * (1 + np.abs(centre))
    if not has_variation.any():
        return _refuse_patterns(y.shape[1], remark(Reason.NO_VARYING_COVARIATE))
    items = np.flatnonzero(seen.mean(axis=0) >= MIN_ANSWERED_SHARE)
    if len(items) < MIN_PATTERN_ITEMS:
        return _refuse_patterns(y.shape[1], remark(Reason.FEW_ANSWERED_ITEMS, n=len(items), least=MIN_PATTERN_ITEMS))
    successes = np.where(seen, y, 0.0)[:, items]
    n_varying = int((successes.std(axis=0) > 0).sum())
    if n_varying < MIN_PATTERN_ITEMS:
        return _refuse_patterns(y.shape[1], remark(Reason.FEW_VARYING_ITEMS, n=n_varying, least=MIN_PATTERN_ITEMS))
    varying_covariates = tuple(name for name, is_varying in zip(names, has_variation, strict=True) if is_varying)
    design = np.column_stack([np.ones(len(x)), (x[:, has_variation] - centre[has_variation]) / spread[has_variation]])
    answers = AnswerGrid(successes, seen[:, items].astype(float), design, guess[items])
    remarks = [remark(Reason.CONSTANT_COVARIATE, name=name) for name in names if name not in varying_covariates]
    if len(items) < y.shape[1]:
        remarks.append(remark(Reason.SPARSE_ITEMS, n=y.shape[1] - len(items)))
    # K and the halves rest on a sample of the items, memberships on all of them.
    sampled = np.arange(len(items))
    if len(items) > MAX_SELECTION_ITEMS:
        sampled = np.sort(rng.choice(len(items), MAX_SELECTION_ITEMS, replace=False))
        remarks.append(remark(Reason.CHOSEN_ON_SAMPLE, n=MAX_SELECTION_ITEMS))
    sample = answers.items(sampled)
    k, evidence = choose_n_patterns(sample, rng, max_patterns=max_patterns, level=level)
    if k == max_patterns and k > 1:
        remarks.append(remark(Reason.MORE_PATTERNS_NOT_TRIED, most=max_patterns))
    mixture = fit_mixture(answers, k, rng)
    if not mixture.converged:
        remarks.append(remark(Reason.EM_NOT_CONVERGED))
    half_tests = replicate_halves(sample, mixture.memberships[sampled], rng) if k > 1 else []
    memberships = np.full((y.shape[1], k), np.nan)
    memberships[items] = mixture.memberships
    return FailurePatterns(
        memberships=memberships,
        surface_logits=mixture.surface_logits,
        covariates=varying_covariates,
        shares=mixture.shares,
        evidence=tuple(evidence),
        half_tests=tuple(half_tests),
        half_test_p_values=holm([h.p_value for h in half_tests]),
        n_students=len(answers.design),
        n_items=len(items),
        remarks=tuple(remarks),
    )


def _refuse_patterns(n_items: int, reason: Remark) -> FailurePatterns:
    return FailurePatterns(
        np.full((n_items, 0), np.nan), np.empty((0, 0)), (), np.empty(0), status="refused", remarks=(reason,)
    )


def _validate_chances(chance: ArrayLike, n_items: int) -> Floats:
    chances = np.asarray(chance, dtype=float)
    if chances.shape not in ((), (n_items,)):
        raise EstimationError(f"chance: expected one number or the shape ({n_items},), found {chances.shape}.")
    if ((chances < 0) | (chances >= 1)).any():
        raise EstimationError("a chance must lie in [0, 1); NaN marks an unknown one.")
    return np.broadcast_to(np.nan_to_num(chances), (n_items,)).copy()


def _validate_arrays(scores: ArrayLike, covariates: ArrayLike, names: Sequence[str]) -> tuple[Floats, Floats]:
    y, x = np.asarray(scores, dtype=float), np.asarray(covariates, dtype=float)
    if y.ndim != 2:
        raise EstimationError(f"scores need the shape (students, items), found {y.shape}.")
    if x.ndim != 2 or x.shape != (len(y), len(names)):
        shape = (len(y), len(names))
        raise EstimationError(f"{shape[0]} students with {shape[1]} names need covariates {shape}, found {x.shape}.")
    if not np.isfinite(x).all():
        raise EstimationError("a student's covariate is not finite: leave the student or the covariate out.")
    if (np.isfinite(y) & ((y < 0) | (y > 1))).any() or np.isinf(y).any():
        raise EstimationError("scores must lie in [0, 1]; NaN marks what was not answered.")
    return y, x
