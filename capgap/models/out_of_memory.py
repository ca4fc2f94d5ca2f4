"""Out-of-memory handling: recognise the error, free cached memory, and go on with half the batch."""

import gc

from capgap.errors import ModelError
from capgap.models.loaded_model import LoadedModel


def is_out_of_memory(error: Exception) -> bool:
    """Whether an exception is an out-of-memory error of torch's, on a GPU or a CPU."""
    import torch

    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and ("allocate" in text or "out of memory" in text)
    )


def halve_batch_size(model: LoadedModel, size: int, error: Exception, unit: str, *, min_size: int) -> int:
    """Half of `size`, and a note to the user; memory that is only cached is given back.

    Raises
    ------
    ModelError
        Half would be below `min_size`.
    """
    import torch

    if size // 2 < min_size:
        raise ModelError(
            f"model {model.name}: the memory does not hold a forward pass of {size} {unit}. "
            f"Use a smaller dtype, another device, or free some memory; the same command goes on where it stopped."
        ) from error
    model.notes.append(f"{model.name}: out of memory; going on with {size // 2} {unit} at a time.")
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return size // 2
