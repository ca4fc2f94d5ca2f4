"""Construction of an lm-eval `LM` from a checkpoint's files: weights, adapter, quantisation, tokenizer, devices."""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM

from capgap.battery.lm_eval_output import without_progress_bar
from capgap.errors import ModelError
from capgap.models.checkpoint import Checkpoint
from capgap.models.gguf import read_header
from capgap.models.memory_check import needs_several_gpus
from capgap.models.model_spec import ModelSpec
from capgap.models.prompting import PromptSettings
from capgap.models.quantisation import check_device
from capgap.models.secret_masking import error_line
from capgap.models.tokenizer_files import tokenizer_location
from capgap.models.tree_hflm import TreeHFLM


class _CompleteHFLM(TreeHFLM):
    """`TreeHFLM` that refuses incomplete weights, quantises while loading where asked, and knows encoder-decoders."""

    AUTO_MODEL_CLASS: Any

    def __init__(self, *args: Any, quantization: Any = None, **kwargs: Any) -> None:
        self._quantization = quantization
        """A transformers quantisation config; lm-eval passes on only what config.json has."""
        super().__init__(*args, **kwargs)

    def _create_model(self, *args: Any, **kwargs: Any) -> None:
        if self._quantization is not None:
            kwargs["quantization_config"] = self._quantization
        model_class = self.AUTO_MODEL_CLASS
        self.AUTO_MODEL_CLASS = _CompleteWeights(model_class)
        try:
            with warnings.catch_warnings():
                # lm-eval tells transformers what stands in config.json, and transformers complains that it knows
                warnings.filterwarnings("ignore", message="You passed `quantization_config`")
                super()._create_model(*args, **kwargs)
        finally:
            self.AUTO_MODEL_CLASS = model_class  # lm-eval compares it

    def _model_generate(
        self, context: torch.Tensor, max_length: int, stop: list[str], **generation_kwargs: Any
    ) -> torch.Tensor:
        """As in `TreeHFLM`; a decoder of its own starts with one token and does not repeat the prompt."""
        if self.backend == "causal":
            return super()._model_generate(context, max_length, stop, **generation_kwargs)
        # lm-eval adds the length of the prompt to the limit, as if the prompt stood before the answer
        limit = max_length - context.shape[1]
        output: torch.Tensor = HFLM._model_generate(self, context, limit + 1, stop, **generation_kwargs)
        for row in output[:, 1:].tolist():
            self.endings.append(self.find_ending(row, limit, stop))
        return output


class _CompleteWeights:
    """Loader that refuses incomplete weights: transformers fills missing ones with noise, which must not be scored."""

    def __init__(self, model_class: Any) -> None:
        self._model_class = model_class

    def from_pretrained(self, *args: Any, **kwargs: Any) -> Any:
        """The model, all of its weights from files."""
        model, loading_info = self._model_class.from_pretrained(*args, output_loading_info=True, **kwargs)
        missing = sorted(loading_info["missing_keys"])
        if missing:
            raise ModelError(
                f"its files lack {len(missing)} of the weights that its config asks for ({missing[0]} …); "
                f"transformers would fill them with noise"
            )
        unused = sorted(loading_info["unexpected_keys"])
        if unused and kwargs.get("quantization_config") is not None:
            # Scales that nobody reads: the integers beside them would pass for weights.
            raise ModelError(
                f"its weights are packed, and transformers does not read {len(unused)} of their parts ({unused[0]} …)"
            )
        return model


def build_lm(spec: ModelSpec, checkpoint: Checkpoint, device: str, dtype: str, prompting: PromptSettings) -> Any:
    """An lm-eval `LM` over the files of a checkpoint.

    Raises
    ------
    ModelError
        They cannot be loaded; the message names them.
    """
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    # It says at every layer that it computes in half precision.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    weights = checkpoint.adapter_of or checkpoint
    check_device(weights.quantisation, device, spec.name)
    if spec.get("quantization") and device == "mps":
        raise ModelError(f"model {spec.name}: quantization= needs a CUDA device or a CPU, and this is {device}.")
    with _loading_errors(spec, checkpoint):
        arguments: dict[str, Any] = {
            "pretrained": str(weights.path),
            "backend": "seq2seq" if _is_encoder_decoder(weights, spec) else "causal",
            "device": device,
            "dtype": dtype,
            "batch_size": 1,
            "trust_remote_code": spec.get("allow_code") == "on",
            "think_end_token": prompting.think_end,
            "enable_thinking": prompting.enable_thinking,
            "quantization": _quantization_config(spec, weights),
        }
        if checkpoint.is_adapter:
            arguments["peft"] = str(checkpoint.path)
        if weights.gguf is not None:
            arguments["gguf_file"] = weights.gguf
        tokenizer = tokenizer_location(spec, checkpoint)
        if tokenizer is not None:
            arguments["tokenizer"] = str(tokenizer)
        if spec.get("device_map") or (device.startswith("cuda") and needs_several_gpus(spec)):
            arguments |= {"parallelize": True}  # layers over all GPUs, as accelerate lays them out
        if weights.gguf is None:
            return _CompleteHFLM(**arguments)
        from transformers import modeling_gguf_pytorch_utils as gguf_reader

        with without_progress_bar(gguf_reader):  # no option turns it off
            return _CompleteHFLM(**arguments)


def _is_encoder_decoder(weights: Checkpoint, spec: ModelSpec) -> bool:
    if weights.gguf is not None:
        return str(read_header(weights.path / weights.gguf).metadata.get("general.architecture")) in ("t5", "umt5")
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(weights.path, trust_remote_code=spec.get("allow_code") == "on")
    return bool(config.is_encoder_decoder)


def _quantization_config(spec: ModelSpec, weights: Checkpoint) -> Any:
    """Transformers' quantisation config beside that of config.json; None where there is none."""
    if weights.gguf is not None:
        import transformers

        # Without it, newer transformers keep the blocks and fetch code for them from the hub where `kernels` is there.
        kind = getattr(transformers, "GgufConfig", None)
        return kind(dequantize=True) if kind is not None else None
    target_bits = spec.get("quantization")
    if target_bits is None:
        return None
    from transformers import BitsAndBytesConfig

    if target_bits == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")


@contextmanager
def _loading_errors(spec: ModelSpec, checkpoint: Checkpoint) -> Iterator[None]:
    """Turn whatever loading raises into one `ModelError` that names the checkpoint."""
    location = checkpoint.path / checkpoint.gguf if checkpoint.gguf is not None else checkpoint.path
    try:
        yield
    except Exception as error:  # transformers, safetensors, tokenizers and peft each raise kinds of their own
        if isinstance(error, ModelError) and str(error).startswith("model "):
            raise
        reason = f"{error}." if isinstance(error, ModelError) else f"{type(error).__name__}: {error_line(error)}"
        raise ModelError(f"model {spec.name}: {location} cannot be loaded: {reason}") from error


def quantisation_settings(lm: Any, weights: Checkpoint) -> dict[str, Any] | None:
    """Quantisation settings of the loaded weights, as transformers has them; None where the weights are plain."""
    if weights.gguf is not None:
        return {"method": "gguf", "unpacked": True}
    settings = getattr(lm.model.config, "quantization_config", None)
    if settings is None:
        # Some are unpacked where the device has no arithmetic for them (fp8 on a CPU); they are rounded all the same.
        return {**weights.quantisation.settings, "unpacked": True} if weights.quantisation is not None else None
    as_json = json.dumps(settings if isinstance(settings, dict) else settings.to_dict(), default=str)
    json_settings: dict[str, Any] = json.loads(as_json)
    return json_settings


def n_parameters(lm: Any, weights: Checkpoint) -> int | None:
    """Number of a model's parameters; quantised ones count as what they stand for, None where that cannot be told."""
    from transformers import AutoConfig, AutoModelForCausalLM

    n_stored = sum(p.numel() for p in lm.model.parameters())
    if getattr(lm.model.config, "quantization_config", None) is None or weights.gguf is not None:
        return int(n_stored)
    try:
        config = AutoConfig.from_pretrained(weights.path)
        if hasattr(config, "quantization_config"):
            del config.quantization_config
        with torch.device("meta"):
            unquantised_model = AutoModelForCausalLM.from_config(config)
    except Exception:  # architectures that only their own code builds
        return None
    prefix = getattr(getattr(lm.model, "base_model", None), "prefix", None)  # of the names of an adapter's weights
    n_adapter = sum(p.numel() for name, p in lm.model.named_parameters() if isinstance(prefix, str) and prefix in name)
    return int(sum(p.numel() for p in unquantised_model.parameters()) + n_adapter)
