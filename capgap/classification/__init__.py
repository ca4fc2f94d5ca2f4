"""Knowledge or reasoning: what an item asks of a model, with a probability and reasons.

Importing it loads neither torch nor lm-eval nor scikit-learn.
"""

from capgap.classification.behavioural_evidence import behaviour_evidence
from capgap.classification.classify_source import classify
from capgap.classification.evidence import AskedModel, Evidence, EvidenceReason, ItemText
from capgap.classification.files import (
    check_output_path,
    label_lines,
    read_answers,
    read_items,
    read_labels,
    write_label_file,
)
from capgap.classification.label_completion import classifier_facts, complete_labels
from capgap.classification.label_independence import refuse_circular
from capgap.classification.labelling import LabelledItems, UnlabelledItem, classify_items, unlabelled_items

__all__ = [
    "UnlabelledItem",
    "Evidence",
    "LabelledItems",
    "ItemText",
    "EvidenceReason",
    "AskedModel",
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
    "refuse_circular",
    "check_output_path",
    "write_label_file",
]
