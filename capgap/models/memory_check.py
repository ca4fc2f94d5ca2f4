"""Whether a model fits one GPU, as far as its files tell."""

from pathlib import Path

from capgap.models.checkpoint import locate
from capgap.models.model_spec import BACKENDS, ModelSpec

__all__ = ["needs_several_gpus"]

_ROOM = 0.8
"""Share of a GPU's memory that weights may take; activations and other processes need the rest."""
_SHARE = {"4bit": 0.3, "8bit": 0.55}
"""Bytes of packed weights for each byte of 16-bit ones."""
_WIDTHS = {"float32": 2.0, "float64": 4.0}
"""Bytes for each byte of 16-bit weights, where a dtype is asked for."""


def needs_several_gpus(spec: ModelSpec) -> bool:
    """Whether a model is too large for one of the visible GPUs, and there are several.

    Told by the size of its weight files, which hold 16-bit weights as a rule; quantisation and a wider dtype count.
    """
    import torch

    if spec.kind in BACKENDS or torch.cuda.device_count() < 2:
        return False
    checkpoint = locate(spec)
    packed, wide = _SHARE.get(str(spec.get("quantization"))), _WIDTHS.get(str(spec.get("dtype")), 1.0)
    size = _bytes((checkpoint.adapter_of or checkpoint).path) * (packed or wide)
    room = max(torch.cuda.get_device_properties(n).total_memory for n in range(torch.cuda.device_count()))
    return size > _ROOM * room


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))
