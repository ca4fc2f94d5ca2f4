"""From the files of a checkpoint to an lm-eval `LM` that transformers runs."""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM

from capgap.battery.lm_eval_output import without_bar
from capgap.errors import ModelError
from capgap.models.checkpoint import Checkpoint
from capgap.models.memory_check import needs_several_gpus
from capgap.models.model_spec import ModelSpec
from capgap.models.prompting import Prompting
from capgap.models.quantisation import check_device
from capgap.models.tokenizer_files import tokenizer_location
from capgap.models.tree_hflm import TreeHFLM

__all__ = ["build_lm", "n_parameters", "quantisation_settings"]


class _CompleteHFLM(TreeHFLM):
    """`TreeHFLM` that refuses weights which no file holds, packs weights where asked, and knows encoder-decoders."""

    AUTO_MODEL_CLASS: Any

    def __init__(self, *args: Any, packed: Any = None, **kwargs: Any) -> None:
        self._packed = packed
        """A transformers quantisation config; lm-eval passes on only what config.json has."""
        super().__init__(*args, **kwargs)

    def _create_model(self, *args: Any, **kwargs: Any) -> None:
        if self._packed is not None:
            kwargs["quantization_config"] = self._packed
        kind = self.AUTO_MODEL_CLASS
        self.AUTO_MODEL_CLASS = _CompleteWeights(kind)
        try:
            with warnings.catch_warnings():
                # lm-eval tells transformers what stands in config.json, and transformers complains that it knows
                warnings.filterwarnings("ignore", message="You passed `quantization_config`")
                super()._create_model(*args, **kwargs)
        finally:
            self.AUTO_MODEL_CLASS = kind  # lm-eval compares it

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
            self.endings.append(self.ending(row, limit, stop))
        return output


class _CompleteWeights:
    """transformers fills weights that it does not find with noise and warns; noise must not be scored."""

    def __init__(self, kind: Any) -> None:
        self._kind = kind

    def from_pretrained(self, *args: Any, **kwargs: Any) -> Any:
        """The model, all of its weights from files."""
        model, told = self._kind.from_pretrained(*args, output_loading_info=True, **kwargs)
        absent = sorted(told["missing_keys"])
        if absent:
            raise ModelError(
                f"its files lack {len(absent)} of the weights that its config asks for ({absent[0]} …); "
                f"transformers would fill them with noise"
            )
        strange = sorted(told["unexpected_keys"])
        if strange and kwargs.get("quantization_config") is not None:
            # Scales that nobody reads: the integers beside them would pass for weights.
            raise ModelError(
                f"its weights are packed, and transformers does not read {len(strange)} of their parts ({strange[0]} …)"
            )
        return model


def build_lm(spec: ModelSpec, checkpoint: Checkpoint, device: str, dtype: str, prompting: Prompting) -> Any:
    """An lm-eval `LM` over the files of a checkpoint.

    Raises
    ------
    ModelError
        They cannot be loaded; the message names them.
    """
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    logging.getLogger("bitsandbytes").setLevel(
        logging.ERROR
    )  # it says at every layer that it computes in half precision
    weights = checkpoint.adapter_of or checkpoint
    check_device(weights.quantisation, device, spec.name)
    if spec.get("quantization") and device == "mps":
        raise ModelError(f"model {spec.name}: quantization= needs a CUDA device or a CPU, and this is {device}.")
    with _told(spec, checkpoint):
        arguments: dict[str, Any] = {
            "pretrained": str(weights.path),
            "backend": "seq2seq" if _has_encoder(weights, spec) else "causal",
            "device": device,
            "dtype": dtype,
            "batch_size": 1,
            "trust_remote_code": spec.get("allow_code") == "on",
            "think_end_token": prompting.think_end,
            "enable_thinking": prompting.enable_thinking,
            "packed": _packed(spec, weights),
        }
        if checkpoint.is_adapter:
            arguments["peft"] = str(checkpoint.path)
        if weights.gguf is not None:
            arguments["gguf_file"] = weights.gguf
        place = tokenizer_location(spec, checkpoint)
        if place is not None:
            arguments["tokenizer"] = str(place)
        if spec.get("device_map") or (device.startswith("cuda") and needs_several_gpus(spec)):
            arguments |= {"parallelize": True}  # layers over all GPUs, as accelerate lays them out
        with _without_bar(weights):
            return _CompleteHFLM(**arguments)


@contextmanager
def _without_bar(weights: Checkpoint) -> Iterator[None]:
    """Transformers draws a bar over GGUF tensors, whatever it is told."""
    if weights.gguf is None:
        yield
        return
    from transformers import modeling_gguf_pytorch_utils as reader

    with without_bar(reader):
        yield


def _has_encoder(weights: Checkpoint, spec: ModelSpec) -> bool:
    if weights.gguf is not None:
        from capgap.models.gguf import read_header

        return str(read_header(weights.path / weights.gguf).metadata.get("general.architecture")) in ("t5", "umt5")
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(weights.path, trust_remote_code=spec.get("allow_code") == "on")
    return bool(config.is_encoder_decoder)


def _packed(spec: ModelSpec, weights: Checkpoint) -> Any:
    """What transformers is told about packing beside config.json; None: nothing."""
    if weights.gguf is not None:
        import transformers

        # Without it, newer transformers keep the blocks and fetch code for them from the hub where `kernels` is there.
        kind = getattr(transformers, "GgufConfig", None)
        return kind(dequantize=True) if kind is not None else None
    bits = spec.get("quantization")
    if bits is None:
        return None
    from transformers import BitsAndBytesConfig

    if bits == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")


@contextmanager
def _told(spec: ModelSpec, checkpoint: Checkpoint) -> Iterator[None]:
    """What loading a broken checkpoint raises, as one message that names it."""
    place = checkpoint.path / checkpoint.gguf if checkpoint.gguf is not None else checkpoint.path
    try:
        yield
    except ModelError as error:
        if str(error).startswith("model "):
            raise
        raise ModelError(f"model {spec.name}: {place} cannot be loaded: {error}.") from error
    except Exception as error:  # transformers, safetensors, tokenizers and peft each raise kinds of their own
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"model {spec.name}: {place} cannot be loaded: {type(error).__name__}: {first[:300]}"
        ) from error


def quantisation_settings(lm: Any, weights: Checkpoint) -> dict[str, Any] | None:
    """How the weights that answer are packed, as transformers has it after loading; None where they are plain."""
    if weights.gguf is not None:
        return {"method": "gguf", "unpacked": True}
    settings = getattr(lm.model.config, "quantization_config", None)
    if settings is None:
        # Some are unpacked where the device has no arithmetic for them (fp8 on a CPU); they are rounded all the same.
        return {**weights.quantisation.settings, "unpacked": True} if weights.quantisation is not None else None
    known = settings if isinstance(settings, dict) else settings.to_dict()
    plain: dict[str, Any] = json.loads(json.dumps(known, default=str))
    return plain


def n_parameters(lm: Any, weights: Checkpoint) -> int | None:
    """Parameters of a model; packed ones count as what they stand for, None where that cannot be told."""
    from transformers import AutoConfig, AutoModelForCausalLM

    every = sum(p.numel() for p in lm.model.parameters())
    if getattr(lm.model.config, "quantization_config", None) is None or weights.gguf is not None:
        return int(every)
    try:
        config = AutoConfig.from_pretrained(weights.path)
        if hasattr(config, "quantization_config"):
            del config.quantization_config
        with torch.device("meta"):
            plain = AutoModelForCausalLM.from_config(config)
    except Exception:  # architectures that only their own code builds
        return None
    prefix = getattr(getattr(lm.model, "base_model", None), "prefix", None)  # of an adapter's own weights
    added = sum(p.numel() for name, p in lm.model.named_parameters() if isinstance(prefix, str) and prefix in name)
    return int(sum(p.numel() for p in plain.parameters()) + added)
