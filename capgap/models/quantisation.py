"""Quantised checkpoints: the method in config.json, and its packages and device, checked before weights are read."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capgap.errors import ModelError
from capgap.models.installed_packages import is_installed


@dataclass(frozen=True)
class _LoadingNeeds:
    """Packages and device that transformers needs to load a kind of quantised weights."""

    packages: Mapping[str, str]
    """Module → what to ask pip for."""
    device: str = ""
    """``cuda`` where nothing else will do."""


_BITSANDBYTES = {"bitsandbytes": "bitsandbytes"}
_METHOD_NEEDS: dict[str, _LoadingNeeds] = {
    **dict.fromkeys(("bitnet", "fp8", "metal", "mxfp4", "mxfp8"), _LoadingNeeds({})),
    "aqlm": _LoadingNeeds({"aqlm": "'aqlm[gpu,cpu]'"}),
    "auto-round": _LoadingNeeds({"auto_round": "auto-round"}),
    "awq": _LoadingNeeds({"gptqmodel": "gptqmodel"}),
    "bitsandbytes": _LoadingNeeds(_BITSANDBYTES),
    "compressed-tensors": _LoadingNeeds({"compressed_tensors": "compressed-tensors"}),
    "eetq": _LoadingNeeds({"kernels": "kernels"}, "cuda"),
    "fbgemm_fp8": _LoadingNeeds({"fbgemm_gpu": "fbgemm-gpu"}, "cuda"),
    "fouroversix": _LoadingNeeds({"fouroversix": "fouroversix"}, "cuda"),
    "fp_quant": _LoadingNeeds({"fp_quant": "fp_quant"}, "cuda"),
    "gptq": _LoadingNeeds({"optimum": "optimum", "gptqmodel": "gptqmodel"}),
    "higgs": _LoadingNeeds({"flute": "flute-kernel", "fast_hadamard_transform": "fast_hadamard_transform"}, "cuda"),
    "hqq": _LoadingNeeds({"hqq": "hqq"}, "cuda"),
    "quanto": _LoadingNeeds({"optimum.quanto": "optimum-quanto"}),
    "quark": _LoadingNeeds({"quark": "amd-quark"}),
    "sinq": _LoadingNeeds({"sinq": "sinq"}),
    "spqr": _LoadingNeeds({"spqr_quant": "'spqr_quant[gpu]'"}, "cuda"),
    "torchao": _LoadingNeeds({"torchao": "torchao"}),
    "vptq": _LoadingNeeds({"vptq": "vptq"}, "cuda"),
}
"""The methods whose requirements are known here; of others transformers itself is asked."""

# Files of older tools, from before config.json said how the weights are packed: without it they load as noise.
_LEGACY_CONFIG_FILES = ("quantize_config.json", "quant_config.json", "hf_quant_config.json")


@dataclass(frozen=True)
class WeightQuantisation:
    """Quantisation of a checkpoint's weights: method and settings."""

    method: str
    """transformers' name for it: ``gptq``, ``awq``, ``bitsandbytes`` …"""
    settings: Mapping[str, Any]
    """``quantization_config`` as it stands in config.json; empty where capgap packs while it loads."""

    def as_text(self) -> str:
        """Method and bits, for messages."""
        bit_width = self.settings.get("bits", self.settings.get("w_bit"))
        return f"{self.method} ({bit_width} bit)" if bit_width else self.method


def quantisation_of(folder: Path, config: Mapping[str, Any], name: str) -> WeightQuantisation | None:
    """The quantisation of the weights in a folder, from its config.json; None where they are plain.

    Raises
    ------
    ModelError
        They are packed, and config.json does not say how.
    """
    nested = config.get("text_config")
    settings = config.get("quantization_config") or (
        nested.get("quantization_config") if isinstance(nested, Mapping) else None
    )
    if not settings:
        old_file = next((file for file in _LEGACY_CONFIG_FILES if (folder / file).is_file()), None)
        if old_file is not None or config.get("quantization"):
            reason = f"it has {old_file}" if old_file is not None else "its config.json has a `quantization` (MLX?)"
            raise ModelError(
                f"model {name}: {folder} looks quantised ({reason}), but config.json has no quantization_config, which "
                f"transformers needs to unpack the weights. Convert the checkpoint again with a current tool."
            )
        return None
    if not isinstance(settings, Mapping):
        raise ModelError(
            f"model {name}: {folder / 'config.json'}: quantization_config: expected an object, "
            f"found {type(settings).__name__}."
        )
    method = str(settings.get("quant_method") or "")
    if settings.get("load_in_4bit") or settings.get("load_in_8bit"):
        method = "bitsandbytes"
    if not method:
        raise ModelError(
            f"model {name}: {folder / 'config.json'}: quantization_config names no quant_method (it has "
            f"{', '.join(map(str, settings))}). transformers cannot unpack such weights (MLX's, for one); convert them."
        )
    return WeightQuantisation(method, dict(settings))


def check_packages(quantisation: WeightQuantisation | None, target_bits: str | None, name: str) -> None:
    """Check that the packages are installed that unpack the weights, or pack them while loading.

    Parameters
    ----------
    quantisation
        Of the checkpoint.
    target_bits
        ``quantization=`` of the model spec.
    name
        The model's, for the message.

    Raises
    ------
    ModelError
        One is missing, or the checkpoint is quantised and shall be again.
    """
    if quantisation is not None and target_bits:
        raise ModelError(
            f"model {name}: quantization={target_bits}, but the checkpoint is quantised already: "
            f"{quantisation.as_text()}. Leave quantization= out."
        )
    if quantisation is None and not target_bits:
        return
    reason = f"its weights are {quantisation.as_text()}" if quantisation is not None else f"quantization={target_bits}"
    requirements = _METHOD_NEEDS.get(quantisation.method) if quantisation is not None else _LoadingNeeds(_BITSANDBYTES)
    packages = requirements.packages if requirements is not None else {}
    missing = [pip for module, pip in packages.items() if not is_installed(module)]
    if missing:
        raise ModelError(
            f"model {name}: {reason}, and what unpacks them is not installed. pip install {' '.join(missing)}"
        )


def check_device(quantisation: WeightQuantisation | None, device: str, name: str) -> None:
    """Check that the weights can be unpacked on a device, as far as it can be told.

    Raises
    ------
    ModelError
        They need another one, or transformers does not know them at all.
    """
    if quantisation is None:
        return
    requirements = _METHOD_NEEDS.get(quantisation.method)
    if requirements is None:
        from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING as supported

        if quantisation.method not in supported:
            raise ModelError(
                f"model {name}: its weights are {quantisation.as_text()}, which this transformers cannot unpack. "
                f"It knows {', '.join(sorted(supported))}. Update it, serve the model with vLLM, or convert the "
                f"checkpoint."
            )
    elif requirements.device and not device.startswith(requirements.device):
        raise ModelError(
            f"model {name}: its weights are {quantisation.as_text()}, which are unpacked on a "
            f"{requirements.device.upper()} device only, and this is {device}. "
            f"Use --device {requirements.device} on a machine that has one."
        )
