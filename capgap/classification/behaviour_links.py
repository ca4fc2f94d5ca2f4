"""Link functions from a behaviour to log-odds of reasoning: five clipped lines, each with its own uncertainty.

A link says what a number *means*: a value in the middle speaks for neither side, each step away from it counts the
same, and beyond `cap` nothing more is said, because no behaviour alone is proof. `link_sd` is how far the link itself
may be off for tasks and models that nobody has tried; it is added to the sampling error and never averaged away by more
items. The constants were set by hand, from what is published and from what the ends mean, and are fitted to nothing.
The microworld's accuracies were known when they were set, so that its families are no test of them; that its labels
stay what they are when slopes are halved or doubled and middles moved is (`tests/classification/test_microworld.py`).

`steps`
    Share of the errors made without thoughts that thoughts mend. On MMLU-Pro (Wang et al. 2024, arXiv 2406.01574,
    accuracies by subject with and without a chain of thought on its data card) GPT-4o and GPT-4-Turbo mend -8 to 10 %
    in history, law, health, psychology and philosophy, 30 to 65 % in mathematics, physics, chemistry, business and
    computer science; biology, economics and engineering lie between (4 to 30 %). The middle is 0.2: none mended is
    odds of 1 to 7, half of them is odds of 20 to 1. Over 20 data sets and 14 models the same holds in points (Sprague
    et al. 2024, arXiv 2409.12183).
`fact`
    Of what having the fact (or the gold steps) in the prompt brings, the share that thoughts bring as well. At 1 the
    answer can be worked out, at 0 it has to be told. Nothing published measures this ratio; odds of 7 to 1 at the ends.
`entropy`
    How undecided the model is without thoughts, from 0 to 1, on items that it answers right with them. A fact that is
    known is there at once; what needs steps is not there before them. Large models are calibrated in this sense
    (Kadavath et al. 2022, arXiv 2207.05221). An easy step is also there at once: odds of 7 to 1 at the ends, no more.
`numbers`
    How far the answers move when the numbers of the question are exchanged. An answer that is computed hangs on them,
    and models often fail when nothing else changes (Mirzadeh et al. 2024, arXiv 2410.05229); but a date that is
    recalled by a year moves as well. Weak.
`size`
    What ten times the parameters add to the accuracy without thoughts. Recall of facts grows steadily with size
    (Roberts et al. 2020, arXiv 2002.08910); what needs steps stays low without them (Wei et al. 2022, arXiv
    2201.11903). Models of different size differ in much else. Weak.
"""

import math
from dataclasses import dataclass

from capgap.classification.evidence import AskedModel, Evidence, EvidenceReason
from capgap.stats import Estimate

_Z_975 = 1.959963984540054
_ABILITY_FLOOR = 0.01  # of an ability


@dataclass(frozen=True)
class ReasoningLogitLink:
    """A straight line from a behaviour to the log-odds of reasoning, cut at both ends."""

    midpoint: float
    """The value that speaks for neither."""
    slope: float
    """Log-odds for each unit."""
    cap: float
    """Log-odds are at most this far from zero."""
    link_sd: float
    """Standard deviation of the link itself, log-odds."""
    words: str
    """The reason; ``{x}``, ``{low}``, ``{high}`` are the estimate and its interval, in per cent or points."""
    max_value: float = math.inf
    """The largest value that is possible."""

    def __call__(self, value: float) -> float:
        """The log-odds for a value."""
        return max(-self.cap, min(self.cap, self.slope * (value - self.midpoint)))


LINKS: dict[str, ReasoningLogitLink] = {
    "steps": ReasoningLogitLink(
        0.2, 10.0, 3.0, 1.0, "thoughts mend {x} % [{low}, {high}] of the errors made without them", 1.0
    ),
    "fact": ReasoningLogitLink(
        0.5, 4.0, 2.0, 1.0, "thoughts bring {x} % [{low}, {high}] of what the fact or the steps in the prompt bring"
    ),
    "entropy": ReasoningLogitLink(
        0.5, 4.0, 2.0, 1.0, "without thoughts {x} % [{low}, {high}] undecided where it is right with them"
    ),
    "numbers": ReasoningLogitLink(
        0.5, 2.0, 1.0, 1.5, "other numbers in the question move {x} % [{low}, {high}] of the answer", 1.0
    ),
    "size": ReasoningLogitLink(
        0.1, -5.0, 1.0, 1.5, "ten times the parameters add {x} points [{low}, {high}] without thoughts"
    ),
}
"""Behaviour → its link."""


def estimate_to_evidence(
    name: str, estimate: Estimate, models: tuple[AskedModel, ...], *, ability: float = 1.0
) -> Evidence | None:
    """The evidence of one behaviour, through its link.

    Parameters
    ----------
    name
        A key of `LINKS`.
    estimate
        Of the behaviour, with its 95 % interval; an end that is unknown counts as anything.
    models
        Whose answers it rests on.
    ability
        How able they are, above 0 (chance) to 1 (always right). The link's doubt is divided by it: what the thoughts
        of a model that can hardly do the task do not bring, says little about the task.

    Returns
    -------
    Evidence or None
        None where the estimate was refused. Its standard deviation is the half width of the interval seen through the
        link (over 1.96), and the link's doubt over `ability`.
    """
    if estimate.status == "refused" or math.isnan(estimate.estimate):
        return None
    link = LINKS[name]
    end_logits = [link(x) if math.isfinite(x) else capped_logit for x, capped_logit in _ci_ends_and_cap(link, estimate)]
    sampling = abs(end_logits[1] - end_logits[0]) / (2 * _Z_975)
    logit = link(estimate.estimate)
    point_and_ci = {"x": estimate.estimate, "low": estimate.conf_low, "high": estimate.conf_high}
    words = link.words.format(**{key: f"{100 * min(value, link.max_value):.0f}" for key, value in point_and_ci.items()})
    names = ", ".join(asked_model.name for asked_model in models[:4]) + (" …" if len(models) > 4 else "")
    sd = math.hypot(sampling, link.link_sd / max(ability, _ABILITY_FLOOR))
    return Evidence("behaviour", logit, sd, (EvidenceReason(f"{words} ({names})", logit),), shared=0.5, models=models)


def _ci_ends_and_cap(link: ReasoningLogitLink, estimate: Estimate) -> tuple[tuple[float, float], tuple[float, float]]:
    """The ends of the interval, each with the log-odds that stand for an end that is unknown."""
    sign = math.copysign(link.cap, link.slope)
    return (estimate.conf_low, -sign), (estimate.conf_high, sign)
