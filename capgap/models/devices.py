"""Choice of the torch device and dtype that a model runs on."""

from capgap.errors import ModelError


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
        available_devices = ", ".join(f"{name} ({count})" for name, count in visible.items() if count)
        raise ModelError(f"--device {device}: torch sees no such device here. It sees: {available_devices}.")
    return device


def choose_dtype(dtype: str | None, device: str) -> str:
    """The dtype asked for, else float32 on a CPU and the checkpoint's own elsewhere."""
    if dtype in (None, "auto"):
        return "float32" if device == "cpu" else "auto"
    return str(dtype)
