"""Load a model word as an lm-eval `LM`, with the facts about it and a fingerprint of all that can change an answer."""

import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capgap.errors import ModelError
from capgap.models.checkpoint import Checkpoint, file_hashes, identifying, locate
from capgap.models.model_spec import BACKENDS, ModelSpec
from capgap.models.prompting import Prompting, prompting_of
from capgap.models.tokenizer_files import TOKENIZER_FILES, tokenizer_place

if TYPE_CHECKING:  # at run time it would load torch
    from capgap.models.prefix_tree import TreeScorer

__all__ = [
    "LoadedModel",
    "Prompting",
    "TreeDisagreement",
    "check_model",
    "choose_device",
    "choose_dtype",
    "digest",
    "load_model",
    "prompting_of",
]

_WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json", "adapter_config.json")


class TreeDisagreement(Exception):
    """A model's log-likelihoods as a tree are not lm-eval's; the message says where they differ."""


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
    ask_scores: Callable[[], str | None] | None = None
    """Says why it gives no log-likelihoods, where that is not known of it; a server is asked for some."""
    requests_at_once: int = 64
    """Requests that are handed over at a time, at most; what is handed over is answered, or lost, together."""
    notes: list[str] = field(default_factory=list)
    """What its user should know, one sentence each; filled while it is asked."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Time spent on it beside asking: ``hashing``, ``loading``, ``proof``."""

    @cached_property
    def why_no_scores(self) -> str | None:
        """Why it gives no log-likelihoods, as the end of a sentence; None where it gives them."""
        return self.ask_scores() if self.ask_scores is not None else None

    @property
    def can_score(self) -> bool:
        """Whether it gives log-likelihoods."""
        return self.why_no_scores is None

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
        from capgap.models.lm_eval_backend import load_backend

        return load_backend(spec, device=device, batch_tokens=batch_tokens, run_id=run_id)
    from capgap.models.hflm_build import build_lm
    from capgap.models.prefix_tree import TreeScorer, fitting_row, unsupported

    started = time.monotonic()
    checkpoint = locate(spec)
    device = choose_device(device)
    dtype = choose_dtype(spec.get("dtype") or dtype, device)
    prompting = prompting_of(spec, checkpoint)
    lm = build_lm(spec, checkpoint, device, dtype, prompting)
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
        fingerprint=digest(identity),
        prompting=prompting,
        batch_tokens=batch_tokens,
        seconds={"loading": loaded - started, "hashing": hashed - loaded},
    )
    _note_unpacked(model)
    why_not = unsupported(lm.model, lm.backend)
    if why_not is None:
        lm.tree = TreeScorer(lm.model, fitting_row(lm.model, batch_tokens))
    else:
        model.go_plain(why_not)
    return model


def _note_unpacked(model: LoadedModel) -> None:
    packed = model.identity["quantization"]
    if packed is not None and packed.get("unpacked"):
        method = packed.get("method") or packed.get("quant_method")
        dtype = model.identity["dtype"]
        model.notes.append(f"{model.name}: its weights are {method}, unpacked to {dtype} to be computed with.")


def check_model(spec: ModelSpec, *, scores: bool = False) -> None:
    """Refuse now, loading and asking nothing, what would be refused when the model's turn comes.

    Parameters
    ----------
    spec
        The model.
    scores
        Whether it will be asked for log-likelihoods.

    Raises
    ------
    ModelError
        It cannot be found or loaded here, or its backend gives no log-likelihoods.
    """
    if spec.kind in BACKENDS:
        from capgap.models.lm_eval_backend import check_backend

        check_backend(spec, scores=scores)
        return
    tokenizer_place(spec, locate(spec))


def _identity(spec: ModelSpec, checkpoint: Checkpoint, lm: Any, prompting: Prompting) -> dict[str, Any]:
    """All that can change an answer of a checkpoint."""
    from capgap.models.hflm_build import quantised_as

    weights = checkpoint.adapter_of or checkpoint
    allowed = identifying(spec)
    files = (escape(weights.gguf),) if weights.gguf is not None else _WEIGHTS
    place = tokenizer_place(spec, checkpoint) or (None if weights.gguf is not None else weights.path)
    folder = Path(place) if place is not None else None
    return {
        "kind": "hf",
        "weights": file_hashes(weights.path, files + allowed),
        "adapter": file_hashes(checkpoint.path, _WEIGHTS + allowed) if checkpoint.is_adapter else None,
        "tokenizer": file_hashes(folder, TOKENIZER_FILES + allowed) if folder and folder.is_dir() else place,
        "dtype": str(lm.model.dtype),
        "quantization": quantised_as(lm, weights),
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
    from capgap.models.hflm_build import n_parameters

    config = lm.config
    text = getattr(config, "text_config", None) or config
    facts = {
        "architecture": (getattr(config, "architectures", None) or [type(lm.model).__name__])[0],
        "n_params": n_parameters(lm, checkpoint.adapter_of or checkpoint),
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


def digest(identity: Mapping[str, Any]) -> str:
    """Hex digest of an identity."""
    text = json.dumps(dict(identity), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
