"""Check of a checkpoint's weight files: there, whole, and inside its folder. Only headers are read."""

import json
import struct
from pathlib import Path, PurePosixPath, PureWindowsPath

from capgap.errors import ModelError

_PICKLE_PATTERNS = ("*.bin", "*.pt", "*.pth")
_PICKLE_NAME_BY_STEM = {"model": "pytorch_model", "adapter_model": "adapter_model"}
"""The pickles that transformers and peft read, by the stem of what replaces them."""
_LARGEST_HEADER = 100_000_000  # bytes; safetensors itself refuses more


def check_weights(folder: Path, stem: str, name: str, *, allow_pickles: bool = False) -> None:
    """Check that the weights are there and whole.

    Parameters
    ----------
    folder
        Of a checkpoint or an adapter.
    stem
        ``model`` or ``adapter_model``.
    name
        The model's, for the message.
    allow_pickles
        Whether weights that are only there as pickles may be loaded; transformers and peft then read tensors and
        nothing else from them (``torch.load(weights_only=True)``).

    Raises
    ------
    ModelError
        They are missing, pickled, cut off, or named outside the folder.
    """
    index = folder / f"{stem}.safetensors.index.json"
    shard_names = _indexed_files(index, name) if index.is_file() else []
    # Links count: a snapshot of the hub's cache is nothing else.
    absent = [shard for shard in shard_names if not (folder / shard).is_file()]
    if absent:
        link_note = " It is a broken link." if (folder / absent[0]).is_symlink() else ""
        raise ModelError(
            f"model {name}: {folder / absent[0]} is missing; {index.name} names it and {len(absent) - 1} more that are "
            f"not there.{link_note} Fetch or copy the checkpoint again."
        )
    files = [folder / shard for shard in shard_names] or sorted(folder.glob(f"{stem}*.safetensors"))
    files = files or sorted(folder.glob("*.safetensors"))
    if not files:
        if allow_pickles and any(folder.glob(f"{_PICKLE_NAME_BY_STEM[stem]}*.bin")):
            return
        raise ModelError(f"model {name}: {folder}: {_no_weights(folder, stem)}")
    if not shard_names and not (folder / f"{stem}.safetensors").is_file():
        raise ModelError(
            f"model {name}: {folder} has {files[0].name}, but neither {stem}.safetensors nor {index.name}, which "
            f"says where each weight is."
        )
    for file in files:
        _check_file_complete(file, name)


def _indexed_files(index: Path, name: str) -> list[str]:
    """The files that an index names, each inside its folder."""
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = sorted({str(file) for file in weight_map.values()})
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


def _no_weights(folder: Path, stem: str) -> str:
    pickle_names = sorted(path.name for kind in _PICKLE_PATTERNS for path in folder.glob(kind))
    if pickle_names:
        return (
            f"its weights are pickled ({pickle_names[0]}), and a pickle can run code when it is loaded. "
            f"Convert them to safetensors, or, if you trust where they come from, allow them: --allow-pickle, or "
            f"allow_pickle=on after this model's name."
        )
    return f"it has no weights ({stem}*.safetensors)."


def _check_file_complete(file: Path, name: str) -> None:
    """Check a safetensors file's length against its header, which says where its last tensor ends."""
    size = file.stat().st_size
    if size == 0:
        raise ModelError(f"model {name}: {file} is empty; the checkpoint was not written to its end.")
    try:
        with file.open("rb") as handle:
            (length,) = struct.unpack("<Q", handle.read(8))
            if length > min(size - 8, _LARGEST_HEADER):
                raise ValueError(f"its header claims {length:,} bytes, the file has {size:,}")
            header = json.loads(handle.read(length))
        tensor_ends = [int(entry["data_offsets"][1]) for key, entry in header.items() if key != "__metadata__"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, struct.error) as error:
        raise ModelError(
            f"model {name}: {file} cannot be loaded: it is no safetensors file, or damaged ({error})."
        ) from error
    expected = 8 + length + max(tensor_ends, default=0)
    if expected != size:
        size_problem = "truncated" if size < expected else "longer than its header says"
        raise ModelError(
            f"model {name}: {file} cannot be loaded: it is {size_problem}: {size:,} bytes, expected {expected:,}. "
            f"Fetch or copy it again."
        )
