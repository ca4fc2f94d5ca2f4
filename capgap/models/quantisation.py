"""Quantised checkpoints: what their config.json says they need, checked before any weight is read."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from capgap.errors import ModelError

__all__ = ["Quantisation", "check_device", "check_packages", "quantisation_of"]


@dataclass(frozen=True)
class _QuantisationRequirements:
    """What transformers needs to load a kind of quantised weights."""

    packages: Mapping[str, str]
    """Module → what to ask pip for."""
    device: str = ""
    """``cuda`` where nothing else will do."""


_BITSANDBYTES = {"bitsandbytes": "bitsandbytes"}
_KNOWN: dict[str, _QuantisationRequirements] = {
    "aqlm": _QuantisationRequirements({"aqlm": "'aqlm[gpu,cpu]'"}),
    "auto-round": _QuantisationRequirements({"auto_round": "auto-round"}),
    "awq": _QuantisationRequirements({"gptqmodel": "gptqmodel"}),
    "bitnet": _QuantisationRequirements({}),
    "bitsandbytes": _QuantisationRequirements(_BITSANDBYTES),
    "compressed-tensors": _QuantisationRequirements({"compressed_tensors": "compressed-tensors"}),
    "eetq": _QuantisationRequirements({"kernels": "kernels"}, "cuda"),
    "fbgemm_fp8": _QuantisationRequirements({"fbgemm_gpu": "fbgemm-gpu"}, "cuda"),
    "fouroversix": _QuantisationRequirements({"fouroversix": "fouroversix"}, "cuda"),
    "fp8": _QuantisationRequirements({}),
    "fp_quant": _QuantisationRequirements({"fp_quant": "fp_quant"}, "cuda"),
    "gptq": _QuantisationRequirements({"optimum": "optimum", "gptqmodel": "gptqmodel"}),
    "higgs": _QuantisationRequirements(
        {"flute": "flute-kernel", "fast_hadamard_transform": "fast_hadamard_transform"}, "cuda"
    ),
    "hqq": _QuantisationRequirements({"hqq": "hqq"}, "cuda"),
    "metal": _QuantisationRequirements({}),
    "mxfp4": _QuantisationRequirements({}),
    "mxfp8": _QuantisationRequirements({}),
    "quanto": _QuantisationRequirements({"optimum.quanto": "optimum-quanto"}),
    "quark": _QuantisationRequirements({"quark": "amd-quark"}),
    "sinq": _QuantisationRequirements({"sinq": "sinq"}),
    "spqr": _QuantisationRequirements({"spqr_quant": "'spqr_quant[gpu]'"}, "cuda"),
    "torchao": _QuantisationRequirements({"torchao": "torchao"}),
    "vptq": _QuantisationRequirements({"vptq": "vptq"}, "cuda"),
}
"""The methods whose needs are known here; of others transformers itself is asked."""

# Files of older tools, from before config.json said how the weights are packed: without it they load as noise.
_OLDER = ("quantize_config.json", "quant_config.json", "hf_quant_config.json")


@dataclass(frozen=True)
class Quantisation:
    """How a checkpoint's weights are packed."""

    method: str
    """transformers' name for it: ``gptq``, ``awq``, ``bitsandbytes`` …"""
    settings: Mapping[str, Any]
    """``quantization_config`` as it stands in config.json; empty where capgap packs while it loads."""

    def as_text(self) -> str:
        """Method and bits, for messages."""
        bits = self.settings.get("bits", self.settings.get("w_bit"))
        return f"{self.method} ({bits} bit)" if bits else self.method


def quantisation_of(folder: Path, config: Mapping[str, Any], name: str) -> Quantisation | None:
    """How the weights in a folder are packed, from its config.json; None where they are plain.

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
        older = next((file for file in _OLDER if (folder / file).is_file()), None)
        if older is not None or config.get("quantization"):
            what = f"it has {older}" if older is not None else "its config.json has a `quantization` (MLX?)"
            raise ModelError(
                f"model {name}: {folder} looks quantised ({what}), but config.json has no quantization_config, which "
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
    return Quantisation(method, dict(settings))


def check_packages(found: Quantisation | None, wanted: str | None, name: str) -> None:
    """Whether the packages are there that unpack the weights.

    Parameters
    ----------
    found
        Of the checkpoint.
    wanted
        ``quantization=`` of the model word.
    name
        The model's, for the message.

    Raises
    ------
    ModelError
        One is missing, or the checkpoint is quantised and shall be again.
    """
    if found is not None and wanted:
        raise ModelError(
            f"model {name}: quantization={wanted}, but the checkpoint is quantised already: {found.as_text()}. "
            f"Leave quantization= out."
        )
    if found is None and not wanted:
        return
    what = f"its weights are {found.as_text()}" if found is not None else f"quantization={wanted}"
    needs = _KNOWN.get(found.method) if found is not None else _QuantisationRequirements(_BITSANDBYTES)
    missing = [pip for module, pip in needs.packages.items() if not _installed(module)] if needs is not None else []
    if missing:
        raise ModelError(
            f"model {name}: {what}, and what unpacks them is not installed. pip install {' '.join(missing)}"
        )


def check_device(found: Quantisation | None, device: str, name: str) -> None:
    """Whether the weights can be unpacked on a device, as far as it can be told.

    Raises
    ------
    ModelError
        They need another one, or transformers does not know them at all.
    """
    if found is None:
        return
    needs = _KNOWN.get(found.method)
    if needs is None:
        from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING as known

        if found.method not in known:
            raise ModelError(
                f"model {name}: its weights are {found.as_text()}, which this transformers cannot unpack. "
                f"It knows {', '.join(sorted(known))}. Update it, serve the model with vLLM, or convert the checkpoint."
            )
    elif needs.device and not device.startswith(needs.device):
        raise ModelError(
            f"model {name}: its weights are {found.as_text()}, which are unpacked on a {needs.device.upper()} device "
            f"only, and this is {device}. Use --device {needs.device} on a machine that has one."
        )


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # a package around it is missing
        return False
