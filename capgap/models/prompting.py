"""Prompting of a model, chat template and thinking: from its spec, else its training record, else its tokenizer."""

import json
from dataclasses import dataclass
from pathlib import Path

from capgap.models.checkpoint import Checkpoint
from capgap.models.gguf import chat_template
from capgap.models.model_spec import ModelSpec


@dataclass(frozen=True)
class PromptSettings:
    """Prompting of a model: chat template, system prompt, thinking; it belongs to the model, not to the battery."""

    chat_template: bool = False
    """Whether prompts go through the tokenizer's chat template, examples as turns of their own."""
    system_prompt: str | None = None
    """What stands before the first prompt."""
    enable_thinking: bool | None = None
    """Passed to the chat template; None leaves it to the template."""
    think_end: str | None = None
    """Text that ends a reasoning model's thoughts; only what follows is scored."""

    def as_text(self) -> str:
        """JSON, for the models table."""
        return json.dumps({k: v for k, v in self.__dict__.items() if v is not None}, sort_keys=True)


def resolve_prompting(spec: ModelSpec, checkpoint: Checkpoint) -> PromptSettings:
    """The prompting of a checkpoint: from its spec, else as it was trained, else as its tokenizer suggests."""
    recorded_prompting = checkpoint.training_record.get("prompting")
    trained_with = json.loads(recorded_prompting) if isinstance(recorded_prompting, str) else recorded_prompting or {}
    chat_if_auto = bool(trained_with["chat_template"]) if "chat_template" in trained_with else _has_template(checkpoint)
    return prompting_from_spec(spec, chat_if_auto=chat_if_auto)


def prompting_from_spec(spec: ModelSpec, *, chat_if_auto: bool) -> PromptSettings:
    """The prompting of a model spec; `chat_if_auto` is what ``chat_template=auto`` means for this model."""
    template = spec.get("chat_template", "auto")
    thinking_option = spec.get("enable_thinking")
    return PromptSettings(
        chat_template=chat_if_auto if template == "auto" else template == "on",
        system_prompt=spec.get("system_prompt"),
        enable_thinking=None if thinking_option is None else thinking_option == "on",
        think_end=spec.get("think_end"),
    )


def _has_template(checkpoint: Checkpoint) -> bool:
    if checkpoint.gguf is not None:
        return chat_template(checkpoint.path / checkpoint.gguf) is not None
    base = checkpoint.adapter_of
    return _template_in(checkpoint.path) or (base is not None and _has_template(base))


def _template_in(folder: Path) -> bool:
    if (folder / "chat_template.jinja").is_file() or (folder / "chat_template.json").is_file():
        return True
    config = folder / "tokenizer_config.json"
    return config.is_file() and '"chat_template"' in config.read_text(encoding="utf-8", errors="replace")
