"""Load a model word as an lm-eval `LM`, with the facts about it and a fingerprint of all that can change an answer."""

import hashlib
import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capgap.errors import ModelError
from capgap.models.checkpoint import Checkpoint, file_hashes, locate
from capgap.models.spec import BACKENDS, ModelSpec

if TYPE_CHECKING:  # at run time it would load torch
    from capgap.models.prefix_tree import TreeScorer

__all__ = ["LoadedModel", "Prompting", "Unproven", "choose_device", "choose_dtype", "load_model", "prompting_of"]

_WEIGHTS = ("*.safetensors", "config.json", "generation_config.json", "adapter_config.json")
_TOKENIZER = (
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "*.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "*.jinja",
)


class Unproven(Exception):
    """A model's log-likelihoods as a tree are not lm-eval's; the message says where they differ."""


@dataclass(frozen=True)
class Prompting:
    """How a model is addressed; belongs to the model, not to the battery."""

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


@dataclass
class LoadedModel:
    """A model that can be asked."""

    name: str
    """Its name in tables and reports."""
    lm: Any
    """An ``lm_eval.api.model.LM``."""
    facts: dict[str, Any]
    """Its row of the models table."""
    identity: dict[str, Any]
    """All that can change an answer, in words."""
    fingerprint: str
    """Hex digest of `identity`."""
    prompting: Prompting = field(default_factory=Prompting)
    """How it is addressed."""
    batch_tokens: int = 2048
    """Tokens in one forward pass, at most."""
    can_score: bool = True
    """Whether it gives log-likelihoods."""
    notes: list[str] = field(default_factory=list)
    """What its user should know, one sentence each; filled while it is asked."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Time spent on it beside asking: ``hashing``, ``loading``, ``proof``."""

    @property
    def tree(self) -> "TreeScorer | None":
        """What scores its log-likelihoods as a token tree; None: lm-eval's own path."""
        scorer: TreeScorer | None = getattr(self.lm, "tree", None)
        return scorer

    def go_plain(self, why: str) -> None:
        """From now on lm-eval's own path, and a note that says why."""
        self.lm.tree = None
        self.notes.append(f"{self.name} is asked on lm-eval's own, slower path: {why}.")


def choose_device(device: str | None) -> str:
    """The device asked for, else CUDA, else Apple's, else the CPU.

    Raises
    ------
    ModelError
        torch does not see the device that was asked for.
    """
    import torch

    if device is None:
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    kind, _, index = device.partition(":")
    visible = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if kind not in visible or (index and not index.isdigit()) or int(index or 0) >= visible[kind]:
        found = ", ".join(f"{name} ({count})" for name, count in visible.items() if count)
        raise ModelError(f"--device {device}: torch sees no such device here. It sees: {found}.")
    return device


def choose_dtype(dtype: str | None, device: str) -> str:
    """The dtype asked for, else float32 on a CPU and the checkpoint's own elsewhere."""
    if dtype in (None, "auto"):
        return "float32" if device == "cpu" else "auto"
    return str(dtype)


def load_model(
    spec: ModelSpec,
    *,
    device: str | None = None,
    dtype: str | None = None,
    batch_tokens: int | None = None,
    run_id: str = "",
) -> LoadedModel:
    """Load a model.

    Parameters
    ----------
    spec
        The model.
    device, dtype
        See `choose_device` and `choose_dtype`; a key of the model word stands over `dtype`.
    batch_tokens
        Tokens in one forward pass, at most; default: what keeps its logits under 1.5 GB, 4,096 at most.
    run_id
        Names the run, for backends whose weights are not seen: their answers are never shared across runs.

    Raises
    ------
    ModelError
        It cannot be found or loaded; the message names the file.
    """
    if spec.kind in BACKENDS:
        return _load_backend(spec, batch_tokens, run_id)
    from capgap.models.prefix_tree import TreeScorer, fitting_row, unsupported

    started = time.monotonic()
    checkpoint = locate(spec)
    device = choose_device(device)
    dtype = choose_dtype(spec.get("dtype") or dtype, device)
    prompting = prompting_of(spec, checkpoint)
    with _told(spec, checkpoint):
        lm = _harness(spec, checkpoint, device, dtype, prompting)
    if prompting.chat_template and not getattr(lm.tokenizer, "chat_template", None):
        raise ModelError(f"model {spec.name}: chat_template=on, but its tokenizer has no chat template.")
    loaded = time.monotonic()
    identity = _identity(spec, checkpoint, lm, prompting)
    hashed = time.monotonic()
    vocabulary = int(getattr(lm.config, "vocab_size", None) or len(lm.tokenizer))
    batch_tokens = batch_tokens or max(256, min(4096, int(1.5e9 / (8 * vocabulary))))
    model = LoadedModel(
        name=spec.name,
        lm=lm,
        facts=_facts(spec, checkpoint, lm, prompting, identity),
        identity=identity,
        fingerprint=_digest(identity),
        prompting=prompting,
        batch_tokens=batch_tokens,
        seconds={"loading": loaded - started, "hashing": hashed - loaded},
    )
    why_not = unsupported(lm.model, lm.backend)
    if why_not is None:
        lm.tree = TreeScorer(lm.model, fitting_row(lm.model, batch_tokens))
    else:
        model.go_plain(why_not)
    return model


def prompting_of(spec: ModelSpec, checkpoint: Checkpoint) -> Prompting:
    """How a model is addressed: as its word says, else as it was trained, else as its tokenizer suggests."""
    wanted = spec.get("chat_template", "auto")
    if wanted == "auto":
        trained = checkpoint.trained.get("prompting")
        known = json.loads(trained) if isinstance(trained, str) else trained or {}
        chat = bool(known["chat_template"]) if "chat_template" in known else _has_chat_template(checkpoint)
    else:
        chat = wanted == "on"
    thinking = spec.get("enable_thinking")
    return Prompting(
        chat_template=chat,
        system_prompt=spec.get("system_prompt"),
        enable_thinking=None if thinking is None else thinking == "on",
        think_end=spec.get("think_end"),
    )


def _has_chat_template(checkpoint: Checkpoint) -> bool:
    for folder in (checkpoint.path, checkpoint.adapter_of.path if checkpoint.adapter_of else None):
        if folder is None:
            continue
        if (folder / "chat_template.jinja").is_file() or (folder / "chat_template.json").is_file():
            return True
        config = folder / "tokenizer_config.json"
        if config.is_file():
            return '"chat_template"' in config.read_text(encoding="utf-8", errors="replace")
    return False


def _harness(spec: ModelSpec, checkpoint: Checkpoint, device: str, dtype: str, prompting: Prompting) -> Any:
    from transformers.utils import logging as transformers_logging

    from capgap.models.harness import Harness

    transformers_logging.disable_progress_bar()
    weights = checkpoint.adapter_of or checkpoint
    arguments: dict[str, Any] = {
        "pretrained": str(weights.path),
        "backend": "causal",
        "device": device,
        "dtype": dtype,
        "batch_size": 1,
        "trust_remote_code": False,
        "think_end_token": prompting.think_end,
        "enable_thinking": prompting.enable_thinking,
    }
    if checkpoint.is_adapter:
        arguments["peft"] = str(checkpoint.path)
    tokenizer = spec.get("tokenizer")
    if tokenizer:
        arguments["tokenizer"] = tokenizer
    elif not any(weights.path.glob("tokenizer*")):
        arguments["tokenizer"] = str(_tokenizer_folder(spec, checkpoint))
    if spec.get("device_map"):
        arguments |= {"parallelize": True}
    if spec.get("quantization"):
        arguments["quantization_config"] = _quantization(spec)
    return Harness(**arguments)


def _tokenizer_folder(spec: ModelSpec, checkpoint: Checkpoint) -> Path:
    if any(checkpoint.path.glob("tokenizer*")):
        return checkpoint.path
    raise ModelError(
        f"model {spec.name}: {checkpoint.path} has no tokenizer. "
        f"Save one with it, or say {spec.checkpoint},tokenizer=CKPT."
    )


def _quantization(spec: ModelSpec) -> Any:
    from transformers import BitsAndBytesConfig

    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        raise ModelError(f"model {spec.name}: quantization needs bitsandbytes. pip install bitsandbytes") from None
    bits = spec.get("quantization")
    return BitsAndBytesConfig(load_in_4bit=bits == "4bit", load_in_8bit=bits == "8bit")


@contextmanager
def _told(spec: ModelSpec, checkpoint: Checkpoint) -> Iterator[None]:
    """What loading a broken checkpoint raises, as one message that names it."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:  # transformers, safetensors, tokenizers and peft each raise kinds of their own
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"model {spec.name}: {checkpoint.path} cannot be loaded: {type(error).__name__}: {first[:300]}"
        ) from error


def _identity(spec: ModelSpec, checkpoint: Checkpoint, lm: Any, prompting: Prompting) -> dict[str, Any]:
    """All that can change an answer of a checkpoint."""
    weights = checkpoint.adapter_of or checkpoint
    folder = Path(spec.get("tokenizer") or weights.path)
    return {
        "kind": "hf",
        "weights": file_hashes(weights.path, _WEIGHTS),
        "adapter": file_hashes(checkpoint.path, _WEIGHTS) if checkpoint.is_adapter else None,
        "tokenizer": file_hashes(folder, _TOKENIZER) if folder.is_dir() else spec.get("tokenizer"),
        "dtype": str(lm.model.dtype),
        "quantization": spec.get("quantization"),
        "device": lm.device.type,
        "attention": getattr(lm.model.config, "_attn_implementation", None),
        "max_length": lm.max_length,
        "truncation": bool(lm.truncation),
        "add_bos_token": lm.add_bos_token,
        "prefix_token": lm.prefix_token_id,
        "prompting": prompting.as_text(),
    }


def _facts(
    spec: ModelSpec, checkpoint: Checkpoint, lm: Any, prompting: Prompting, identity: Mapping[str, Any]
) -> dict[str, Any]:
    """The row of the models table: what the files say, over it what `capgap distill` wrote."""
    config = lm.config
    text = getattr(config, "text_config", None) or config
    parameters = sum(p.numel() for p in lm.model.parameters())
    facts = {
        "architecture": (getattr(config, "architectures", None) or [type(lm.model).__name__])[0],
        "n_params": parameters,
        "n_layers": getattr(text, "num_hidden_layers", None),
        "width": getattr(text, "hidden_size", None),
        "adaptation": "lora" if checkpoint.is_adapter else None,
    }
    step = re.search(r"checkpoint-(\d+)$", str(checkpoint.path))
    known = {key: value for key, value in checkpoint.trained.items() if value is not None}
    return {
        **facts,
        **({"step": int(step.group(1))} if step else {}),
        **known,
        "model": spec.name,
        "checkpoint": spec.place,
        "prompting": prompting.as_text(),
        "weights_hash": identity["adapter"] or identity["weights"],
    }


def _load_backend(spec: ModelSpec, batch_tokens: int | None, run_id: str) -> LoadedModel:
    """Any other backend of lm-eval, by name; what it runs on is not ours to know."""
    import lm_eval.models  # noqa: F401  (fills lm-eval's registry)
    from lm_eval.api.registry import get_model

    try:
        lm = get_model(spec.kind).create_from_arg_string(spec.checkpoint, {"batch_size": 1})
    except Exception as error:  # every backend has needs and exceptions of its own
        raise ModelError(f"model {spec.name}: lm-eval cannot start {spec.kind}:{spec.checkpoint}: {error}") from error
    identity = {"kind": spec.kind, "arguments": spec.checkpoint, "run": run_id}
    facts = {"model": spec.name, "checkpoint": spec.word, "prompting": Prompting().as_text()}
    return LoadedModel(
        name=spec.name,
        lm=lm,
        facts=facts,
        identity=identity,
        fingerprint=_digest(identity),
        batch_tokens=batch_tokens or 2048,
        can_score="chat" not in spec.kind,
    )


def _digest(identity: Mapping[str, Any]) -> str:
    text = json.dumps(dict(identity), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
