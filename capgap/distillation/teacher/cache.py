"""On-disk cache of a teacher's signals: a folder for each teacher, form and vocabulary, in checksummed shards.

    ROOT/<digest>/config.json             what it holds: the teacher's weights, the form, what rounding costs
    ROOT/<digest>/head.safetensors        the teacher's language-model head, where hidden states are kept
    ROOT/<digest>/shard-0000.safetensors  tensors of many examples, one after the other
    ROOT/<digest>/shard-0000.json         which examples, where each begins, and the shard's checksum; written last

An example is addressed by the token ids that the teacher was given and the positions that were asked for, so prompting
and texts are part of the address. A shard without its JSON was cut off and is dropped; one whose checksum is wrong is
set aside with a warning and computed again.
"""

import errno
import hashlib
import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from capgap.battery.data_source import sha256
from capgap.errors import StoreError
from capgap.events import Listener, Note, ignore
from capgap.models.lm_head import LanguageModelHead
from capgap.schema import atomic_write, write_object

__all__ = ["TeacherCache", "compute_cache_address"]

CACHE_CONFIG_FILE, LM_HEAD_FILE = "config.json", "head.safetensors"

logger = logging.getLogger(__name__)


def compute_cache_address(ids: Sequence[int], positions: Sequence[int]) -> str:
    """The address of one example: the tokens that the teacher was given, and the positions that were asked for."""
    return hashlib.sha256(json.dumps([list(ids), list(positions)]).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class _ShardRowRange:
    """Rows of a shard's tensors that belong to one example."""

    shard: str
    low: int
    high: int


class TeacherCache:
    """One teacher's signals in one form.

    Parameters
    ----------
    root
        Folder of all caches.
    identity
        All that can change a signal: the teacher's weights and dtype, the form, the ids that count.
    on_event
        Hears of damage, as a warning.

    Raises
    ------
    StoreError
        The folder is something else, or cannot be written.
    """

    def __init__(self, root: Path, identity: Mapping[str, Any], *, on_event: Listener = ignore) -> None:
        self.identity = json.loads(json.dumps(dict(identity)))
        digest = hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()[:16]
        self.folder = root / digest
        self._on_event = on_event
        self._slices: dict[str, _ShardRowRange] = {}
        self._open_shards: dict[str, Any] = {}
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / CACHE_CONFIG_FILE
        if not config.is_file():
            write_object({"identity": self.identity}, config)
        try:
            is_same_identity = self.facts()["identity"] == self.identity
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{config}: cannot be read: {error}. Remove {self.folder}.") from error
        if not is_same_identity:
            raise StoreError(f"{self.folder}: holds another teacher's signals. Remove it, or choose another folder.")
        self.read()

    def lock(self) -> AbstractContextManager[Any]:
        """Held while signals are computed and written, so that no two processes compute the same."""
        return FileLock(self.folder / "lock")

    def read(self) -> None:
        """Index the shards that are new on the disk; other processes may have added some."""
        indexed_shard_names = {shard_slice.shard for shard_slice in self._slices.values()}
        for index_file in sorted(self.folder.glob("shard-*.json")):
            shard = index_file.stem
            if shard in indexed_shard_names:
                continue
            try:
                index = json.loads(index_file.read_text(encoding="utf-8"))
                is_shard_intact = sha256(self._file(shard)) == index["sha256"]
                examples = [(key, _ShardRowRange(shard, low, high)) for key, low, high in index["examples"]]
            except (OSError, ValueError, KeyError, TypeError):
                is_shard_intact, examples = False, []
            if is_shard_intact:
                self._slices.update(examples)
            else:
                self._quarantine_shard(index_file)

    def _quarantine_shard(self, index_file: Path) -> None:
        """Rename a damaged shard and its index, so that both can be looked at and neither is read again."""
        tensors = self._file(index_file.stem)
        self._on_event(Note(f"{tensors}: is damaged; set aside, and its signals are computed again", "warning"))
        for file in (index_file, tensors):
            if file.exists():
                os.replace(file, file.with_name(f"damaged-{file.name}"))

    def _file(self, shard: str) -> Path:
        return self.folder / f"{shard}.safetensors"

    def __contains__(self, key: str) -> bool:
        return key in self._slices

    def append(self, examples: Mapping[str, Mapping[str, torch.Tensor]]) -> None:
        """Write a shard.

        Parameters
        ----------
        examples
            Address of an example → its tensors, each with a row for each position; all have the same names.
        """
        numbers = [int(file.stem.split("-")[1]) for file in self.folder.glob("shard-*.safetensors")]
        shard = f"shard-{max(numbers, default=-1) + 1:04d}"
        row_ends = np.cumsum([len(next(iter(tensors.values()))) for tensors in examples.values()]).tolist()
        slices = list(zip(examples, [0, *row_ends[:-1]], row_ends, strict=True))
        tensor_maps = list(examples.values())
        tensors = {name: torch.cat([example[name] for example in tensor_maps]).contiguous() for name in tensor_maps[0]}
        self._write(tensors, self._file(shard))
        # The index comes last: a shard without one was cut off.
        write_object({"examples": slices, "sha256": sha256(self._file(shard))}, self.folder / f"{shard}.json")
        self._slices.update({key: _ShardRowRange(shard, start_row, end_row) for key, start_row, end_row in slices})
        logger.debug("%s: wrote %s, %d examples, %d positions", self.folder, shard, len(slices), row_ends[-1])

    def get(self, keys: Iterable[str]) -> dict[str, torch.Tensor]:
        """Tensors of some examples, one after the other, shape (positions, …); read from the disk on demand."""
        tensors_by_name: dict[str, list[torch.Tensor]] = {}
        for key in keys:
            shard_slice = self._slices[key]
            shard = self._open_shards.get(shard_slice.shard)
            if shard is None:
                shard = self._open_shards[shard_slice.shard] = safe_open(self._file(shard_slice.shard), framework="pt")
            for name in shard.keys():  # noqa: SIM118 (a safetensors handle is no mapping)
                tensors_by_name.setdefault(name, []).append(shard.get_slice(name)[shard_slice.low : shard_slice.high])
        return {name: torch.cat(tensors) for name, tensors in tensors_by_name.items()}

    def save_lm_head(self, lm_head: LanguageModelHead) -> None:
        """Write the teacher's head, which hidden states are worthless without."""
        assert lm_head.weight is not None
        tensors = {"weight": lm_head.weight.detach().cpu().contiguous()}
        if lm_head.bias is not None:
            tensors["bias"] = lm_head.bias.detach().cpu().contiguous()
        self._write(tensors, self.folder / LM_HEAD_FILE)
        self.record(head={"scale": lm_head.scale, "cap": lm_head.cap})

    def head(self, device: str | torch.device) -> LanguageModelHead | None:
        """The teacher's head on a device; None where it isn't kept."""
        settings = self.facts().get("head")
        if settings is None:
            return None
        try:
            with safe_open(self.folder / LM_HEAD_FILE, framework="pt", device=str(device)) as tensors:
                bias = tensors.get_tensor("bias") if "bias" in set(tensors.keys()) else None
                return LanguageModelHead(tensors.get_tensor("weight"), bias, settings["scale"], settings["cap"])
        except (OSError, SafetensorError) as error:
            raise StoreError(f"{self.folder / LM_HEAD_FILE}: cannot be read: {error}. Remove {self.folder}.") from error

    def facts(self) -> dict[str, Any]:
        """The content of `config.json`."""
        facts: dict[str, Any] = json.loads((self.folder / CACHE_CONFIG_FILE).read_text(encoding="utf-8"))
        return facts

    def record(self, **facts: Any) -> None:
        """Add to `config.json`."""
        write_object({**self.facts(), **facts}, self.folder / CACHE_CONFIG_FILE)

    def _write(self, tensors: dict[str, torch.Tensor], file: Path) -> None:
        try:
            with atomic_write(file) as partial_file:
                save_file(tensors, partial_file)
        except SafetensorError as error:  # what a full disk is to safetensors; it names no file
            if "No space left" not in str(error):
                raise
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file)) from error
