"""Model loading: a model spec to an lm-eval `LM`, with its facts and a fingerprint of all that can change an answer."""

import re
import time
from collections.abc import Mapping
from glob import escape
from pathlib import Path
from typing import Any

from capgap.errors import ModelError
from capgap.models.checkpoint import Checkpoint, code_and_pickle_patterns, file_hashes, locate
from capgap.models.devices import choose_device, choose_dtype
from capgap.models.lm_eval_backend import check_backend, load_backend
from capgap.models.loaded_model import LoadedModel, identity_digest
from capgap.models.model_spec import BACKENDS, ModelSpec
from capgap.models.prompting import PromptSettings, resolve_prompting
from capgap.models.tokenizer_files import TOKENIZER_FILES, tokenizer_location

_WEIGHT_FILES = (
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "adapter_config.json",
)


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
        See `choose_device` and `choose_dtype`; a key of the model spec stands over `dtype`.
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
        return load_backend(spec, device=device, batch_tokens=batch_tokens, run_id=run_id)
    from capgap.models.hflm_build import build_lm

    started = time.monotonic()
    checkpoint = locate(spec)
    device = choose_device(device)
    dtype = choose_dtype(spec.get("dtype") or dtype, device)
    prompting = resolve_prompting(spec, checkpoint)
    lm = build_lm(spec, checkpoint, device, dtype, prompting)
    if prompting.chat_template and not getattr(lm.tokenizer, "chat_template", None):
        raise ModelError(f"model {spec.name}: chat_template=on, but its tokenizer has no chat template.")
    loaded = time.monotonic()
    identity = _model_identity(spec, checkpoint, lm, prompting)
    hash_end_time = time.monotonic()
    vocabulary = int(getattr(lm.config, "vocab_size", None) or len(lm.tokenizer))
    batch_tokens = batch_tokens or max(256, min(4096, int(1.5e9 / (8 * vocabulary))))
    model = LoadedModel(
        name=spec.name,
        lm=lm,
        facts=_collect_model_facts(spec, checkpoint, lm, prompting, identity),
        identity=identity,
        fingerprint=identity_digest(identity),
        prompting=prompting,
        batch_tokens=batch_tokens,
        seconds={"loading": loaded - started, "hashing": hash_end_time - loaded},
    )
    _note_unpacked_weights(model)
    _attach_tree_scorer(model)
    return model


def _attach_tree_scorer(model: LoadedModel) -> None:
    """Score as a token tree where the model allows it, else note why not."""
    from capgap.models.prefix_tree import TreeScorer, fitting_row_tokens, tree_unsupported_reason

    lm = model.lm
    unsupported_reason = tree_unsupported_reason(lm.model, lm.backend)
    if unsupported_reason is None:
        lm.tree = TreeScorer(lm.model, fitting_row_tokens(lm.model, model.batch_tokens))
    else:
        model.drop_tree_scoring(unsupported_reason)


def _note_unpacked_weights(model: LoadedModel) -> None:
    quantisation = model.identity["quantization"]
    if quantisation is not None and quantisation.get("unpacked"):
        method = quantisation.get("method") or quantisation.get("quant_method")
        dtype = model.identity["dtype"]
        model.notes.append(f"{model.name}: its weights are {method}, unpacked to {dtype} to be computed with.")


def check_model(spec: ModelSpec, *, scores: bool = False) -> None:
    """Check a model without loading or asking it; refuse now what would be refused when its turn comes.

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
        check_backend(spec, scores=scores)
        return
    tokenizer_location(spec, locate(spec))


def _model_identity(spec: ModelSpec, checkpoint: Checkpoint, lm: Any, prompting: PromptSettings) -> dict[str, Any]:
    """Identity of a checkpoint: all that can change an answer; its digest is part of every ledger key."""
    from capgap.models.hflm_build import quantisation_settings

    weights = checkpoint.adapter_of or checkpoint
    extra_files = code_and_pickle_patterns(spec)
    files = (escape(weights.gguf),) if weights.gguf is not None else _WEIGHT_FILES
    tokenizer = tokenizer_location(spec, checkpoint) or (None if weights.gguf is not None else weights.path)
    folder = Path(tokenizer) if tokenizer is not None else None
    return {
        "kind": "hf",
        "weights": file_hashes(weights.path, files + extra_files),
        "adapter": file_hashes(checkpoint.path, _WEIGHT_FILES + extra_files) if checkpoint.is_adapter else None,
        "tokenizer": file_hashes(folder, TOKENIZER_FILES + extra_files) if folder and folder.is_dir() else tokenizer,
        "dtype": str(lm.model.dtype),
        "quantization": quantisation_settings(lm, weights),
        "device": lm.device.type,
        "attention": getattr(lm.model.config, "_attn_implementation", None),
        "max_length": lm.max_length,
        "truncation": bool(lm.truncation),
        "add_bos_token": lm.add_bos_token,
        "prefix_token": lm.prefix_token_id,
        "prompting": prompting.as_text(),
    }


def _collect_model_facts(
    spec: ModelSpec, checkpoint: Checkpoint, lm: Any, prompting: PromptSettings, identity: Mapping[str, Any]
) -> dict[str, Any]:
    """Row of the models table: facts from the files, overridden by those that `capgap distill` recorded."""
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
    recorded_facts = {key: value for key, value in checkpoint.training_record.items() if value is not None}
    return {
        **facts,
        **({"step": int(step.group(1))} if step else {}),
        **recorded_facts,
        "model": spec.name,
        "checkpoint": spec.location,
        "prompting": prompting.as_text(),
        "weights_hash": identity["adapter"] or identity["weights"],
    }
