"""Loading of checkpoints for training and for teachers: model, tokenizer, config, and the digest of their files."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import Any

from capgap.errors import DistillError, ModelError
from capgap.models import ModelSpec
from capgap.models.checkpoint import Checkpoint, code_and_pickle_patterns, file_hashes


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder to write a checkpoint into, which takes its place when the block ends; it is whole or not there.

    Where another process was first, its folder stays.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()  # progress is told as events
    partial_folder = folder.with_name(f"{folder.name}.partial-{os.getpid()}")
    shutil.rmtree(partial_folder, ignore_errors=True)
    partial_folder.mkdir(parents=True)
    try:
        yield partial_folder
        if not folder.exists():
            os.replace(partial_folder, folder)
    finally:
        shutil.rmtree(partial_folder, ignore_errors=True)


def loaded(spec: ModelSpec, checkpoint: Checkpoint, *, dtype: str = "float32") -> tuple[Any, Any]:
    """Model and tokenizer of a checkpoint; an adapter is merged into its base, a GGUF file is unpacked.

    Raises
    ------
    ModelError
        They cannot be loaded.
    DistillError
        There is no tokenizer.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    weights = checkpoint.adapter_of or checkpoint
    use_safetensors = None if spec.get("allow_pickle") == "on" else True  # None: safetensors where they are
    try:
        options = _build_loader_options(spec, weights) | {"dtype": dtype, "use_safetensors": use_safetensors}
        model = AutoModelForCausalLM.from_pretrained(weights.path, **options)
        if checkpoint.is_adapter:
            import peft

            model = peft.PeftModel.from_pretrained(model, checkpoint.path).merge_and_unload()
        return model, model_tokenizer(spec, checkpoint)
    except DistillError:
        raise
    except Exception as error:  # transformers, safetensors, tokenizers and peft each raise kinds of their own
        message = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{checkpoint.path}: cannot be loaded: {type(error).__name__}: {message[:300]}") from error


def model_tokenizer(spec: ModelSpec, checkpoint: Checkpoint) -> Any:
    """The tokenizer that a word names, else that of its files.

    Raises
    ------
    DistillError
        There is none.
    """
    from transformers import AutoTokenizer

    code = spec.get("allow_code") == "on"
    weights = checkpoint.adapter_of or checkpoint
    if spec.get("tokenizer"):
        return AutoTokenizer.from_pretrained(spec.get("tokenizer"), trust_remote_code=code)
    # an adapter's own tokenizer goes before its base's
    folder = next((source.path for source in (checkpoint, weights) if any(source.path.glob("tokenizer*"))), None)
    if folder is not None:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=code)
    if weights.gguf is not None:
        return AutoTokenizer.from_pretrained(weights.path, gguf_file=weights.gguf)
    raise DistillError(f"{checkpoint.path}: has no tokenizer. Save one with it, or say …,tokenizer=CKPT.")


def model_config(spec: ModelSpec, checkpoint: Checkpoint) -> Any:
    """The shape of the text model of a checkpoint, as transformers has it."""
    from transformers import AutoConfig

    weights = checkpoint.adapter_of or checkpoint
    options = _build_loader_options(spec, weights)
    options.pop("quantization_config", None)
    return AutoConfig.from_pretrained(weights.path, **options).get_text_config(decoder=True)


def fingerprint(spec: ModelSpec, checkpoint: Checkpoint, *further_patterns: str) -> str:
    """Digest of the files that hold a checkpoint's own weights (an adapter's base has a digest of its own).

    Parameters
    ----------
    spec, checkpoint
        The model.
    further_patterns
        Patterns of further files.
    """
    weights = (escape(checkpoint.gguf),) if checkpoint.gguf is not None else ("*.safetensors", "config.json")
    return file_hashes(
        checkpoint.path, (*weights, "adapter_config.json", *code_and_pickle_patterns(spec), *further_patterns)
    )


def _build_loader_options(spec: ModelSpec, weights: Checkpoint) -> dict[str, Any]:
    """Options of transformers' loaders beside the folder."""
    if weights.gguf is None:
        return {"trust_remote_code": spec.get("allow_code") == "on"}
    import transformers

    # Without it, newer transformers keep the blocks packed where a package for them is there.
    kind = getattr(transformers, "GgufConfig", None)
    packed = {"quantization_config": kind(dequantize=True)} if kind is not None else {}
    return {"gguf_file": weights.gguf, **packed}
