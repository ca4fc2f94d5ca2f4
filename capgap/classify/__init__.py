"""Knowledge or reasoning: what an item asks of a model, with a probability and reasons.

Importing it loads neither torch nor lm-eval nor scikit-learn.
"""

from capgap.classify.behaviour import Behaviour, behaviour_evidence, behaviours
from capgap.classify.declared import declared
from capgap.classify.evidence import Evidence, Question, Reason, Witness
from capgap.classify.files import (
    Answers,
    join_answers,
    label_lines,
    read_answers,
    read_items,
    read_labels,
    refuse_out,
    write_labels,
)
from capgap.classify.label import Asked, Labelled, asked_of, classify_items
from capgap.classify.pooling import MIDDLE, Label, TaskLabels, pool, pool_alone
from capgap.classify.witnesses import refuse_compared

__all__ = [
    "MIDDLE",
    "Answers",
    "Asked",
    "Behaviour",
    "Evidence",
    "Label",
    "Labelled",
    "Question",
    "Reason",
    "TaskLabels",
    "Witness",
    "asked_of",
    "behaviour_evidence",
    "behaviours",
    "classify_items",
    "declared",
    "join_answers",
    "label_lines",
    "pool",
    "pool_alone",
    "read_answers",
    "read_items",
    "read_labels",
    "refuse_compared",
    "refuse_out",
    "write_labels",
]
