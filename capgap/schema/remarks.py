"""Reason codes of estimates, and the one place where codes become prose.

Estimators and analysis attach `Remark` values (a code and its figures) to their numbers; the column ``reason`` holds
the first code that refuses or qualifies, ``note`` the rendered text of all. Programs read codes, never notes.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from string import Formatter
from typing import Any

__all__ = ["INFORMATION", "Reason", "Remark", "reason_of", "render"]


class Reason(StrEnum):
    """Why a number is refused or open, what qualifies it, or what else stands beside it."""

    # --- too little data ---
    NO_ITEMS = "no_items"
    FEW_ITEMS = "few_items"
    FEW_CLUSTERS = "few_clusters"
    ONE_CLUSTER = "one_cluster"
    FEW_STUDENTS = "few_students"
    FEW_SEEDS = "few_seeds"
    FEW_SIZES = "few_sizes"
    FEW_TEACHER_ERRORS = "few_teacher_errors"
    UNLIKE_ITEMS = "unlike_items"
    NO_CAPABILITY = "no_capability"
    ANSWERS_NOT_RECORDED = "answers_not_recorded"
    FRACTIONAL_SCORES = "fractional_scores"
    # --- a role or fact that is not known ---
    NO_ABLE_MODEL = "no_able_model"
    FEW_MODEL_SIZES = "few_model_sizes"
    SOLVED_BY_SMALLEST = "solved_by_smallest"
    NO_BASE = "no_base"
    CHANCE_UNKNOWN = "chance_unknown"
    # --- a number that does not exist, or cannot be told ---
    DENOMINATOR_NEAR_ZERO = "denominator_near_zero"
    NOT_IDENTIFIED = "not_identified"
    NO_FORM_FITS = "no_form_fits"
    TARGET_OUT_OF_REACH = "target_out_of_reach"
    CONFIDENCE_TOO_LOW = "confidence_too_low"
    # --- what qualifies a number ---
    UNREADABLE_ANSWERS = "unreadable_answers"
    FREE_TEXT = "free_text"
    """Transitional: prose without a code. No code of capgap may use it once every note has one."""


INFORMATION: frozenset[Reason] = frozenset()
"""Codes that inform and neither refuse nor qualify: they never stand in the column ``reason``."""

_TEXT: dict[Reason, str] = {
    Reason.NO_ABLE_MODEL: "no model that can do the task was asked {ways}",
    Reason.FEW_MODEL_SIZES: "{n} model sizes: {least} that span a factor of {span:g} are needed, one of them able",
    Reason.SOLVED_BY_SMALLEST: "the smallest model solves {share:.0f} % of the items already",
    Reason.FREE_TEXT: "{text}",
    Reason.UNREADABLE_ANSWERS: "task left out of every battery, capability and domain number",
}
"""Code → its sentence, a format string over the remark's figures."""


@dataclass(frozen=True)
class Remark:
    """A code with the figures that its sentence needs."""

    code: Reason
    """What is said."""
    values: dict[str, Any] = field(default_factory=dict)
    """Figures and names, by the fields of the code's sentence."""

    @property
    def text(self) -> str:
        """The sentence, without a full stop."""
        return Formatter().vformat(_TEXT[self.code], (), self.values)


def render(remarks: tuple[Remark, ...]) -> str:
    """The note: all sentences in order, each once, separated by semicolons."""
    return "; ".join(dict.fromkeys(text for remark in remarks if (text := remark.text)))


def reason_of(remarks: tuple[Remark, ...]) -> Reason | None:
    """The first code that refuses or qualifies; None where every remark only informs."""
    return next((remark.code for remark in remarks if remark.code not in INFORMATION), None)
