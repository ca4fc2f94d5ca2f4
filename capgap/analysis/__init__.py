"""Outcomes, models and labels to estimates, and the sentence that they come to."""

from capgap.analysis.flips import EQUIVALENCE_MARGIN
from capgap.analysis.headline import next_step, sentence
from capgap.analysis.pipeline import analyze

__all__ = ["EQUIVALENCE_MARGIN", "analyze", "next_step", "sentence"]
