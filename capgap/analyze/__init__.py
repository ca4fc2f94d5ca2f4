"""Outcomes, models and labels to estimates, and the sentence that they come to."""

from capgap.analyze.analysis import analyze
from capgap.analyze.flips import MARGIN
from capgap.analyze.words import next_step, sentence

__all__ = ["MARGIN", "analyze", "next_step", "sentence"]
