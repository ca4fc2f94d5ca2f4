"""Analysis: outcomes, models and labels to the `estimates` table, and the headline sentence that it comes to."""

from capgap.analysis.flips import EQUIVALENCE_MARGIN
from capgap.analysis.headline import next_step, sentence, student_lines
from capgap.analysis.pipeline import estimate_table
from capgap.analysis.recipe_flips import flipped_items

__all__ = ["EQUIVALENCE_MARGIN", "estimate_table", "flipped_items", "next_step", "sentence", "student_lines"]
