"""Model words, checkpoints, the ledger, and how a model is asked.

Importing this package loads neither torch nor lm-eval; `load_model` and `respond` do.
"""

from capgap.models.checkpoint import Checkpoint, FoundBase, find_base, locate
from capgap.models.ledger import Ledger, request_key
from capgap.models.load import (
    LoadedModel,
    Prompting,
    check_model,
    choose_device,
    choose_dtype,
    load_model,
    prompting_of,
)
from capgap.models.remember import Addressed, remember
from capgap.models.respond import Progress, Response, fill, recall, respond
from capgap.models.spec import MODEL_KEYS, ModelSpec, expand_models, parse_model, permitted

__all__ = [
    "MODEL_KEYS",
    "Addressed",
    "Checkpoint",
    "FoundBase",
    "Ledger",
    "LoadedModel",
    "ModelSpec",
    "Progress",
    "Prompting",
    "Response",
    "check_model",
    "choose_device",
    "choose_dtype",
    "expand_models",
    "fill",
    "find_base",
    "load_model",
    "locate",
    "parse_model",
    "permitted",
    "prompting_of",
    "recall",
    "remember",
    "request_key",
    "respond",
]
