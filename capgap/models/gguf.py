"""GGUF files: their header, read and checked before anything is loaded from them.

A GGUF file holds everything in one place: the shape of the model, its tokenizer, its chat template, and tensors in
blocks of a few bits. transformers unpacks the blocks into plain weights, so what is scored is the quantised model in
plain arithmetic.
"""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

from capgap.errors import ModelError

_MAGIC = b"GGUF"
# Value types of the format: number → how struct reads it; 8 is a string, 9 an array.
_STRUCT_CODE_BY_TYPE = dict(enumerate("BbHhIif?")) | {10: "Q", 11: "q", 12: "d"}
_STRING_TYPE, _ARRAY_TYPE = 8, 9


@dataclass(frozen=True)
class GgufHeader:
    """Header of a GGUF file: metadata, and the list of its tensors."""

    metadata: Mapping[str, Any]
    """Scalars and strings by key; of an array its length."""
    tensors: tuple[tuple[str, int, int, int], ...]
    """Of each tensor: name, elements, type number, offset from `tensor_data_start`."""
    tensor_data_start: int
    """Bytes before the first tensor."""


class _ByteCursor:
    """Reads little-endian values one after the other."""

    def __init__(self, data: mmap) -> None:
        self.data = data
        self.at = 0

    def number(self, code: str) -> Any:
        (value,) = struct.unpack_from(f"<{code}", self.data, self.at)
        self.at += struct.calcsize(f"<{code}")
        return value

    def text(self) -> str:
        length = self.number("Q")
        start, self.at = self.at, self.at + length
        if self.at > len(self.data):
            raise ValueError("it ends within its header")
        return self.data[start : self.at].decode("utf-8", errors="replace")

    def value(self, kind: int) -> Any:
        if kind == _STRING_TYPE:
            return self.text()
        if kind != _ARRAY_TYPE:
            return self.number(_STRUCT_CODE_BY_TYPE[kind])
        element_type, length = self.number("I"), self.number("Q")
        # Arrays (the vocabulary, its scores) are skipped: only their length is kept.
        if element_type in _STRUCT_CODE_BY_TYPE:
            self.at += length * struct.calcsize(f"<{_STRUCT_CODE_BY_TYPE[element_type]}")
        else:
            for _ in range(length):
                self.value(element_type)
        return length


def read_header(path: Path) -> GgufHeader:
    """The header of a GGUF file.

    Raises
    ------
    ModelError
        It is no GGUF file, of a version that is not known, or cut off.
    """
    file_stat = path.stat()
    return _read_header(path, file_stat.st_mtime_ns, file_stat.st_size)


@lru_cache(maxsize=8)
def _read_header(path: Path, modified_ns: int, size: int) -> GgufHeader:
    try:
        with path.open("rb") as handle:
            if handle.read(4) != _MAGIC:
                raise ModelError(f"{path} cannot be loaded: it does not begin as a GGUF file does.")
            with mmap(handle.fileno(), 0, access=ACCESS_READ) as data:
                return _parse_header(_ByteCursor(data))
    except (OSError, ValueError, KeyError, struct.error, OverflowError, RecursionError) as error:
        raise ModelError(
            f"{path} cannot be loaded: its GGUF header cannot be read ({error}); is the file whole?"
        ) from error


def _parse_header(header_cursor: _ByteCursor) -> GgufHeader:
    header_cursor.at = 4
    version = header_cursor.number("I")
    if version not in (2, 3):
        raise ValueError(f"version {version}, expected 2 or 3")
    n_tensors, n_keys = header_cursor.number("Q"), header_cursor.number("Q")
    metadata: dict[str, Any] = {}
    for _ in range(n_keys):
        key = header_cursor.text()
        metadata[key] = header_cursor.value(header_cursor.number("I"))
    tensors = []
    for _ in range(n_tensors):
        name = header_cursor.text()
        shape = [header_cursor.number("Q") for _ in range(header_cursor.number("I"))]
        tensors.append((name, math.prod(shape), header_cursor.number("I"), header_cursor.number("Q")))
    byte_alignment = int(metadata.get("general.alignment", 32))
    return GgufHeader(metadata, tuple(tensors), -(-header_cursor.at // byte_alignment) * byte_alignment)


def chat_template(path: Path) -> str | None:
    """The chat template in a GGUF file; None where it has none."""
    template = read_header(path).metadata.get("tokenizer.chat_template")
    return template if isinstance(template, str) and template else None


def choose_gguf(folder: Path, name: str) -> str | None:
    """The one GGUF file of a folder that holds no other checkpoint; None where it has none.

    Raises
    ------
    ModelError
        It has several.
    """
    files = sorted(path.name for path in folder.glob("*.gguf"))
    if len(files) > 1:
        raise ModelError(
            f"model {name}: {folder} holds {len(files)} GGUF files. Say which: {folder / files[0]} "
            f"(also there: {', '.join(files[1:6])})."
        )
    return files[0] if files else None


def check_gguf(path: Path, name: str) -> None:
    """Check that a GGUF file is whole and that the package that reads it is installed.

    Raises
    ------
    ModelError
        What is missing.
    """
    if find_spec("gguf") is None:
        raise ModelError(
            f"model {name}: {path} is a GGUF file, and the package gguf, which reads it, is missing. "
            f"pip install 'capgap[gguf]'"
        )
    header = read_header(path)
    n_parts = int(header.metadata.get("split.count", 1))
    if n_parts > 1:
        raise ModelError(
            f"model {name}: {path} is one of {n_parts} parts, which transformers does not put together. "
            f"Merge them first: llama-gguf-split --merge"
        )
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    size = path.stat().st_size
    for tensor, n_tensor_elements, tensor_type, offset in header.tensors:
        try:
            elements_per_block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(tensor_type)]
        except (ValueError, KeyError):
            continue  # a kind that this gguf does not know: transformers says so
        if header.tensor_data_start + offset + n_tensor_elements // elements_per_block * block_bytes > size:
            raise ModelError(
                f"model {name}: {path} cannot be loaded: it is truncated: its tensor {tensor} ends behind the file's "
                f"{size:,} bytes. Fetch it again."
            )
