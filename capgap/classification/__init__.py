"""Knowledge or reasoning: what an item asks of a model, with a probability and reasons.

Importing it loads neither torch nor lm-eval nor scikit-learn.
"""

from capgap.classification.behavioural_evidence import behaviour_evidence
from capgap.classification.classify_source import classify
from capgap.classification.evidence import Evidence, EvidenceModel, EvidenceReason, ItemText
from capgap.classification.files import (
    Answers,
    label_lines,
    read_answers,
    read_items,
    read_labels,
    refuse_out,
    write_labels,
)
from capgap.classification.label_completion import classifier_facts, complete_labels
from capgap.classification.label_independence import refuse_compared
from capgap.classification.labelling import LabelledItems, UnlabelledItem, classify_items, unlabelled_items
from capgap.classification.pooling import MIDDLE

__all__ = [
    "MIDDLE",
    "Answers",
    "UnlabelledItem",
    "Evidence",
    "LabelledItems",
    "ItemText",
    "EvidenceReason",
    "EvidenceModel",
    "unlabelled_items",
    "behaviour_evidence",
    "classifier_facts",
    "classify",
    "classify_items",
    "complete_labels",
    "label_lines",
    "read_answers",
    "read_items",
    "read_labels",
    "refuse_compared",
    "refuse_out",
    "write_labels",
]
