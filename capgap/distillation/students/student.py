"""The student before it learns: its weights, tokenizer and prompting, its adapter, and how both are saved."""

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capgap.distillation.config import DistillConfig
from capgap.distillation.config_keys import LoraKeys
from capgap.distillation.students.construction import base_seed, construct_student
from capgap.distillation.students.loading import fingerprint, loaded
from capgap.errors import DistillError
from capgap.models import parse_model, resolve_prompting
from capgap.models.checkpoint import locate
from capgap.models.prompting import PromptSettings


@dataclass(frozen=True)
class LoadedStudent:
    """A student in memory."""

    model: Any
    """A causal language model of transformers, in float32."""
    tokenizer: Any
    """Its tokenizer."""
    base: str
    """The model word of what it was before."""
    weights_hash: str
    """Hash of the weights that it starts from."""
    prompting: PromptSettings
    """How it is addressed."""
    base_seed: int | None = None
    """Seed of a base that was built here."""

    @property
    def max_length(self) -> int:
        """Tokens that it can hold; 2,048 where it can hold more."""
        config = getattr(self.model.config, "text_config", None) or self.model.config
        return min(int(getattr(config, "max_position_embeddings", None) or 2048), 2048)

    @property
    def pad(self) -> int:
        """The id that fills up batches."""
        tokenizer = self.tokenizer
        return int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id)


def load_student(config: DistillConfig, out: Path, *, calibration: Sequence[str] = ()) -> LoadedStudent:
    """Load the student that a file names; one that is to be made is made beside `out`, once.

    Parameters
    ----------
    config, out
        The file, and the directory of the student.
    calibration
        Texts on which the layers of a student to be pruned are measured.

    Raises
    ------
    ModelError
        It is nowhere, or cannot be loaded.
    DistillError
        It cannot be trained: quantised, or an adapter that an adapter should be put on.
    """
    spec = parse_model(construct_student(config, out, calibration=calibration))
    for key in ("quantization", "device_map"):
        if spec.get(key):
            raise DistillError(f"{config.name}: a student with {key} cannot be trained in this version. Leave it out.")
    checkpoint = locate(spec)
    if checkpoint.is_adapter and config.adaptation != "full":
        raise DistillError(
            f"{config.name}: {checkpoint.path} is an adapter, and an adapter of an adapter cannot be loaded. "
            "Merge it into its base first, or use adaptation: full."
        )
    model, tokenizer = loaded(spec, checkpoint)
    return LoadedStudent(
        model=model,
        tokenizer=tokenizer,
        base=spec.spec_text,
        weights_hash=fingerprint(spec, checkpoint),
        prompting=resolve_prompting(spec, checkpoint),
        base_seed=base_seed(config.student),
    )


def apply_adaptation(model: Any, config: DistillConfig, tokenizer: Any) -> Any:
    """`model` as the adaptation says: itself, or with new weights in or before it, the only ones that train.

    Raises
    ------
    DistillError
        `lora.targets` names no layer of the model, or the soft prompt leaves no room.
    """
    if config.adaptation == "full":
        return model
    with warnings.catch_warnings():
        # peft asks transformers by a name that is going out of use; nothing that the user could change
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        if config.adaptation == "lora":
            return _with_lora(model, config.lora, name=config.name)
        return _with_soft_prompt(model, config, tokenizer)


def _with_lora(model: Any, lora: LoraKeys, *, name: str) -> Any:
    """The model in peft's wrapper, with an adapter of the file's shape."""
    import peft

    targets = lora.targets if isinstance(lora.targets, str) else list(lora.targets)
    settings = peft.LoraConfig(
        r=lora.rank,
        lora_alpha=2 * lora.rank if lora.alpha is None else lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )
    try:
        return peft.get_peft_model(model, settings)
    except ValueError as error:
        import torch

        modules = model.named_modules()
        linear = sorted({name.rsplit(".", 1)[-1] for name, module in modules if isinstance(module, torch.nn.Linear)})
        raise DistillError(
            f"{name}: lora.targets {targets!r} fits no layer: {str(error)[:200]} Linear layers: {', '.join(linear)}."
        ) from error


def _with_soft_prompt(model: Any, config: DistillConfig, tokenizer: Any) -> Any:
    """The model in peft's wrapper, with virtual tokens."""
    import peft
    import torch

    settings = peft.PromptTuningConfig(num_virtual_tokens=config.soft_prompt.tokens, task_type="CAUSAL_LM")
    wrapped = peft.get_peft_model(model, settings)
    # Virtual tokens begin as embeddings of real ones, shape (virtual tokens, width).
    table = model.get_input_embeddings()
    if config.soft_prompt.text is not None:
        ids = tokenizer.encode(config.soft_prompt.text, add_special_tokens=False) or [tokenizer.eos_token_id]
        ids = (ids * config.soft_prompt.tokens)[: config.soft_prompt.tokens]
    else:
        generator = torch.Generator().manual_seed(config.seed)
        ids = torch.randint(len(tokenizer), (config.soft_prompt.tokens,), generator=generator).tolist()
    with torch.no_grad():
        embeddings = table(torch.tensor(ids, device=table.weight.device)).float()
        wrapped.prompt_encoder["default"].embedding.weight.copy_(embeddings)
    return wrapped


def save_student(model: Any, tokenizer: Any, base: str, folder: Path) -> None:
    """Write a checkpoint that transformers or peft load by themselves, and the tokenizer beside it.

    A relative path of the base counts from the folder of the adapter, so that both can move together.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if hasattr(model, "peft_config"):
        model.peft_config["default"].base_model_name_or_path = relativise_base_path(base, folder)
        model.save_pretrained(folder, save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)  # peft's empty card
    else:
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def relativise_base_path(base: str, folder: Path) -> str:
    """The word of a base, its path (where it is one) relative to a folder."""
    path, comma, options = base.partition(",")
    return f"{os.path.relpath(path, folder)}{comma}{options}" if Path(path).exists() else base
