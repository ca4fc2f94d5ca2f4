"""Outcomes, models and labels to estimates, and the sentence that they come to."""

from capgap.analyze.analysis import analyze

__all__ = ["analyze"]
