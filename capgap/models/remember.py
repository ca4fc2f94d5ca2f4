"""A model as it was addressed, without its weights: enough to build its requests again and look the answers up."""

from dataclasses import dataclass
from typing import Any

from capgap.models.checkpoint import locate
from capgap.models.load import Prompting, load_model, prompting_of
from capgap.models.spec import BACKENDS, ModelSpec

__all__ = ["Addressed", "remember"]


@dataclass(frozen=True)
class Addressed:
    """What building a model's requests needs."""

    name: str
    """Its name in tables."""
    prompting: Prompting
    """How it is addressed."""
    lm: Any
    """Has ``apply_chat_template`` and ``tokenizer_name`` where it is addressed through a chat template."""


def remember(spec: ModelSpec) -> Addressed:
    """A model that is only looked up.

    Raises
    ------
    ModelError
        Its checkpoint is gone, or has no tokenizer.
    """
    if spec.kind in BACKENDS:
        model = load_model(spec)  # a client of a server; it holds no weights
        return Addressed(spec.name, model.prompting, model.lm)
    checkpoint = locate(spec)
    prompting = prompting_of(spec, checkpoint)
    if not prompting.chat_template:
        return Addressed(spec.name, prompting, None)
    weights = checkpoint.adapter_of or checkpoint
    folder = spec.get("tokenizer") or (weights.path if any(weights.path.glob("tokenizer*")) else checkpoint.path)
    return Addressed(spec.name, prompting, _Template(str(folder), prompting))


class _Template:
    """lm-eval's way of applying a chat template, over a tokenizer alone."""

    def __init__(self, folder: str, prompting: Prompting) -> None:
        from transformers import AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        self.tokenizer_name = folder.replace("/", "__")
        thinking = prompting.enable_thinking
        self.chat_template_args = {} if thinking is None else {"enable_thinking": thinking}

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """A conversation as the model reads it."""
        from lm_eval.models.huggingface import HFLM

        return str(HFLM.apply_chat_template(self, chat_history, add_generation_prompt))
