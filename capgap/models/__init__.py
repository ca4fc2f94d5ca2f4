"""Model specs, checkpoints, model loading, the ledger and the request loop.

Importing this package loads neither torch nor lm-eval; `load_model` and `respond` do.
"""

from capgap.models.checkpoint import Checkpoint, FoundBase, find_base, locate
from capgap.models.devices import choose_device
from capgap.models.ledger import Ledger, request_key
from capgap.models.loaded_model import LoadedModel
from capgap.models.model_loading import check_model, load_model
from capgap.models.model_spec import ModelSpec, add_permissions, expand_models, parse_model
from capgap.models.prompt_renderer import offline_prompt_renderer
from capgap.models.prompting import PromptSettings, resolve_prompting
from capgap.models.request_loop import ModelResponse, Progress, fill_ledger_shard, ledger_responses, respond

__all__ = [
    "Checkpoint",
    "FoundBase",
    "Ledger",
    "LoadedModel",
    "ModelSpec",
    "Progress",
    "PromptSettings",
    "ModelResponse",
    "check_model",
    "choose_device",
    "expand_models",
    "fill_ledger_shard",
    "find_base",
    "ledger_responses",
    "load_model",
    "locate",
    "offline_prompt_renderer",
    "parse_model",
    "add_permissions",
    "resolve_prompting",
    "request_key",
    "respond",
]
