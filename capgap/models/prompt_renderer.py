"""Offline prompt renderer: a model's prompting without its weights, to rebuild requests and look up their responses."""

from dataclasses import dataclass
from typing import Any

from capgap.models.checkpoint import Checkpoint, locate
from capgap.models.model_loading import load_model
from capgap.models.model_spec import BACKENDS, ModelSpec
from capgap.models.prompting import PromptSettings, resolve_prompting
from capgap.models.tokenizer_files import tokenizer_location


@dataclass(frozen=True)
class PromptRenderer:
    """A model as far as building its requests needs it: its name, its prompting and its chat template."""

    name: str
    """Its name in tables."""
    prompting: PromptSettings
    """System prompt, chat template and thinking."""
    lm: Any
    """Has ``apply_chat_template`` and ``tokenizer_name`` where prompts go through a chat template; else None."""


def offline_prompt_renderer(spec: ModelSpec) -> PromptRenderer:
    """The renderer of a model whose responses are only looked up; a backend is started, a checkpoint is not loaded.

    Raises
    ------
    ModelError
        Its checkpoint is gone, or has no tokenizer.
    """
    if spec.kind in BACKENDS:
        # A client of a server holds no weights, and only the backend knows its chat template.
        model = load_model(spec)
        return PromptRenderer(spec.name, model.prompting, model.lm)
    checkpoint = locate(spec)
    prompting = resolve_prompting(spec, checkpoint)
    chat_template = _ChatTemplate(spec, checkpoint, prompting) if prompting.chat_template else None
    return PromptRenderer(spec.name, prompting, chat_template)


class _ChatTemplate:
    """lm-eval's chat-template rendering over a tokenizer alone."""

    def __init__(self, spec: ModelSpec, checkpoint: Checkpoint, prompting: PromptSettings) -> None:
        from transformers import AutoTokenizer

        weights = checkpoint.adapter_of or checkpoint
        location = tokenizer_location(spec, checkpoint)
        options = {"gguf_file": weights.gguf} if location is None and weights.gguf is not None else {}
        folder = str(weights.path if location is None else location)
        self.tokenizer = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=spec.get("allow_code") == "on", **options
        )
        self.tokenizer_name = folder.replace("/", "__")
        enable_thinking = prompting.enable_thinking
        self.chat_template_args = {} if enable_thinking is None else {"enable_thinking": enable_thinking}

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """A conversation as the model reads it."""
        from lm_eval.models.huggingface import HFLM

        return str(HFLM.apply_chat_template(self, chat_history, add_generation_prompt))
