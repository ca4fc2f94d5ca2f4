"""The files of weights in a checkpoint's folder: there, whole, and inside it. Only headers are read."""

import json
import struct
from pathlib import Path, PurePosixPath, PureWindowsPath

from capgap.errors import ModelError

__all__ = ["check_weights"]

_PICKLED = ("*.bin", "*.pt", "*.pth")
_LOADABLE = {"model": "pytorch_model", "adapter_model": "adapter_model"}
"""The pickles that transformers and peft read, by the stem of what replaces them."""
_LARGEST_HEADER = 100_000_000  # bytes; safetensors itself refuses more


def check_weights(folder: Path, stem: str, name: str, *, pickles: bool = False) -> None:
    """Whether the weights are there and whole.

    Parameters
    ----------
    folder
        Of a checkpoint or an adapter.
    stem
        ``model`` or ``adapter_model``.
    name
        The model's, for the message.
    pickles
        Whether weights that are only there as pickles may be loaded; transformers and peft then read tensors and
        nothing else from them (``torch.load(weights_only=True)``).

    Raises
    ------
    ModelError
        They are missing, pickled, cut off, or named outside the folder.
    """
    index = folder / f"{stem}.safetensors.index.json"
    named = _named_by(index, name) if index.is_file() else []
    # Links count: a snapshot of the hub's cache is nothing else.
    absent = [shard for shard in named if not (folder / shard).is_file()]
    if absent:
        broken = " It is a broken link." if (folder / absent[0]).is_symlink() else ""
        raise ModelError(
            f"model {name}: {folder / absent[0]} is missing; {index.name} names it and {len(absent) - 1} more that are "
            f"not there.{broken} Fetch or copy the checkpoint again."
        )
    found = [folder / shard for shard in named] or sorted(folder.glob(f"{stem}*.safetensors"))
    found = found or sorted(folder.glob("*.safetensors"))
    if not found:
        if pickles and any(folder.glob(f"{_LOADABLE[stem]}*.bin")):
            return
        raise ModelError(f"model {name}: {folder}: {_instead(folder, stem)}")
    if not named and not (folder / f"{stem}.safetensors").is_file():
        raise ModelError(
            f"model {name}: {folder} has {found[0].name}, but neither {stem}.safetensors nor {index.name}, which "
            f"says where each weight is."
        )
    for file in found:
        _check_whole(file, name)


def _named_by(index: Path, name: str) -> list[str]:
    """The files that an index names, each inside its folder."""
    try:
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = sorted({str(file) for file in places.values()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"model {name}: {index} cannot be loaded: it is no index of weights: {error!r}.") from error
    for file in files:
        if PurePosixPath(file).name != file or PureWindowsPath(file).name != file:
            raise ModelError(
                f"model {name}: {index} is refused: it names {file!r}. "
                f"Expected file names inside the checkpoint's folder."
            )
        if not file.endswith(".safetensors"):
            raise ModelError(f"model {name}: {index} is refused: it names {file!r}. Expected *.safetensors.")
    return files


def _instead(folder: Path, stem: str) -> str:
    pickled = sorted(path.name for kind in _PICKLED for path in folder.glob(kind))
    if pickled:
        return (
            f"its weights are pickled ({pickled[0]}), and a pickle can run code when it is loaded. "
            f"Convert them to safetensors, or, if you trust where they come from, allow them: --allow-pickle, or "
            f"allow_pickle=on after this model's name."
        )
    return f"it has no weights ({stem}*.safetensors)."


def _check_whole(file: Path, name: str) -> None:
    """The header of a safetensors file says how long the file must be."""
    size = file.stat().st_size
    if size == 0:
        raise ModelError(f"model {name}: {file} is empty; the checkpoint was not written to its end.")
    try:
        with file.open("rb") as handle:
            (length,) = struct.unpack("<Q", handle.read(8))
            if length > min(size - 8, _LARGEST_HEADER):
                raise ValueError(f"its header claims {length:,} bytes, the file has {size:,}")
            header = json.loads(handle.read(length))
        ends = [int(entry["data_offsets"][1]) for key, entry in header.items() if key != "__metadata__"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, struct.error) as error:
        raise ModelError(
            f"model {name}: {file} cannot be loaded: it is no safetensors file, or damaged ({error})."
        ) from error
    expected = 8 + length + max(ends, default=0)
    if expected != size:
        what = "truncated" if size < expected else "longer than its header says"
        raise ModelError(
            f"model {name}: {file} cannot be loaded: it is {what}: {size:,} bytes, expected {expected:,}. "
            f"Fetch or copy it again."
        )
