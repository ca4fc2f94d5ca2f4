"""A model as it was addressed, without its weights: enough to build its requests again and look the answers up."""

from dataclasses import dataclass
from typing import Any

from capgap.models.checkpoint import Checkpoint, locate
from capgap.models.model_loading import load_model
from capgap.models.model_spec import BACKENDS, ModelSpec
from capgap.models.prompting import Prompting, prompting_of
from capgap.models.tokenizer_files import tokenizer_location

__all__ = ["RenderedPrompt", "offline_prompt_renderer"]


@dataclass(frozen=True)
class RenderedPrompt:
    """What building a model's requests needs."""

    name: str
    """Its name in tables."""
    prompting: Prompting
    """How it is addressed."""
    lm: Any
    """Has ``apply_chat_template`` and ``tokenizer_name`` where it is addressed through a chat template."""


def offline_prompt_renderer(spec: ModelSpec) -> RenderedPrompt:
    """A model that is only looked up.

    Raises
    ------
    ModelError
        Its checkpoint is gone, or has no tokenizer.
    """
    if spec.kind in BACKENDS:
        return _backend(spec)
    checkpoint = locate(spec)
    prompting = prompting_of(spec, checkpoint)
    return RenderedPrompt(
        spec.name, prompting, _ChatTemplate(spec, checkpoint, prompting) if prompting.chat_template else None
    )


def _backend(spec: ModelSpec) -> RenderedPrompt:
    """A backend, started: a client of a server holds no weights, and only it knows how it is addressed."""
    model = load_model(spec)
    return RenderedPrompt(spec.name, model.prompting, model.lm)


class _ChatTemplate:
    """lm-eval's way of applying a chat template, over a tokenizer alone."""

    def __init__(self, spec: ModelSpec, checkpoint: Checkpoint, prompting: Prompting) -> None:
        from transformers import AutoTokenizer

        weights = checkpoint.adapter_of or checkpoint
        place = tokenizer_location(spec, checkpoint)
        packed = {"gguf_file": weights.gguf} if place is None and weights.gguf is not None else {}
        folder = str(weights.path if place is None else place)
        self.tokenizer = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=spec.get("allow_code") == "on", **packed
        )
        self.tokenizer_name = folder.replace("/", "__")
        thinking = prompting.enable_thinking
        self.chat_template_args = {} if thinking is None else {"enable_thinking": thinking}

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """A conversation as the model reads it."""
        from lm_eval.models.huggingface import HFLM

        return str(HFLM.apply_chat_template(self, chat_history, add_generation_prompt))
