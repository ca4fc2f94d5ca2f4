"""Analysis: outcomes, models and labels to the `estimates` table, and the headline sentence that it comes to."""

from capgap.analysis.flips import EQUIVALENCE_MARGIN
from capgap.analysis.headline import next_step, sentence
from capgap.analysis.pipeline import estimate_table

__all__ = ["EQUIVALENCE_MARGIN", "estimate_table", "next_step", "sentence"]
