"""Memory check: whether a model fits one GPU, from the size of its weight files."""

from capgap.models.checkpoint import locate
from capgap.models.model_spec import BACKENDS, ModelSpec

_MAX_GPU_WEIGHT_SHARE = 0.8
"""Share of a GPU's memory that weights may take; activations and other processes need the rest."""
_QUANTISED_SIZE_RATIO = {"4bit": 0.3, "8bit": 0.55}
"""Bytes of packed weights for each byte of 16-bit ones."""
_DTYPE_SIZE = {"float32": 2.0, "float64": 4.0}
"""Bytes for each byte of 16-bit weights, where a dtype is asked for."""


def needs_several_gpus(spec: ModelSpec) -> bool:
    """Whether a model is too large for one of the visible GPUs, and there are several.

    Told by the size of its weight files, which hold 16-bit weights as a rule; quantisation and a wider dtype count.
    """
    import torch

    if spec.kind in BACKENDS or torch.cuda.device_count() < 2:
        return False
    checkpoint = locate(spec)
    files = (checkpoint.adapter_of or checkpoint).path.glob("*.safetensors")
    size_ratio = _QUANTISED_SIZE_RATIO.get(str(spec.get("quantization")))
    size = sum(file.stat().st_size for file in files) * (size_ratio or _DTYPE_SIZE.get(str(spec.get("dtype")), 1.0))
    largest_gpu = max(torch.cuda.get_device_properties(n).total_memory for n in range(torch.cuda.device_count()))
    return size > _MAX_GPU_WEIGHT_SHARE * largest_gpu
