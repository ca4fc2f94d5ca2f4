"""What a teacher said about every token, on the disk once: a folder for each teacher, form and vocabulary.

    ROOT/<digest>/config.json             what it holds: the teacher's weights, the form, what rounding costs
    ROOT/<digest>/head.safetensors        the teacher's language-model head, where hidden states are kept
    ROOT/<digest>/shard-0000.safetensors  tensors of many examples, one after the other
    ROOT/<digest>/shard-0000.json         which examples, where each begins, and the shard's checksum; written last

An example is addressed by the token ids that the teacher was given and the positions that were asked for, so prompting
and texts are part of the address. A shard without its note was cut off and is dropped; one whose checksum is wrong is
told, set aside and computed again.
"""

import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from capgap.errors import StoreError
from capgap.models.lm_head import LanguageModelHead
from capgap.schema import write_object

__all__ = ["TeacherCache", "address"]

CONFIG, HEAD = "config.json", "head.safetensors"


def address(ids: Sequence[int], at: Sequence[int]) -> str:
    """The address of one example: what the teacher was given, and where it was asked."""
    return hashlib.sha256(json.dumps([list(ids), list(at)]).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class _CachePosition:
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
    tell
        Told of damage.

    Raises
    ------
    StoreError
        The folder is something else, or cannot be written.
    """

    def __init__(self, root: Path, identity: Mapping[str, Any], *, tell: Callable[[str], None] = print) -> None:
        self.identity = json.loads(json.dumps(dict(identity)))
        digest = hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()[:16]
        self.folder = root / digest
        self._tell = tell
        self._places: dict[str, _CachePosition] = {}
        self._open: dict[str, Any] = {}
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / CONFIG
        if config.is_file():
            self._check(config)
        else:
            write_object({"identity": self.identity}, config)
        self.read()

    def _check(self, config: Path) -> None:
        try:
            found = json.loads(config.read_text(encoding="utf-8"))["identity"]
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{config}: cannot be read: {error}. Remove {self.folder}.") from error
        if found != self.identity:
            raise StoreError(f"{self.folder}: holds another teacher's signals. Remove it, or choose another folder.")

    def lock(self) -> AbstractContextManager[Any]:
        """Held while signals are computed and written, so that no two processes compute the same."""
        return FileLock(self.folder / "lock")

    def read(self) -> None:
        """Find out what is there now; other processes may have added to it."""
        known = {place.shard for place in self._places.values()}
        for note in sorted(self.folder.glob("shard-*.json")):
            if note.stem in known:
                continue
            try:
                told = json.loads(note.read_text(encoding="utf-8"))
                whole = _digest(self._file(note.stem)) == told["sha256"]
                examples = [(key, _CachePosition(note.stem, low, high)) for key, low, high in told["examples"]]
            except (OSError, ValueError, KeyError, TypeError):
                whole, examples = False, []
            if whole:
                self._places.update(examples)
            else:
                self._set_aside(note)

    def _set_aside(self, note: Path) -> None:
        self._tell(f"{note.with_suffix('.safetensors')}: is damaged; set aside, and its signals are computed again")
        for file in (note, self._file(note.stem)):
            if file.exists():
                os.replace(file, file.with_name(f"damaged-{file.name}"))

    def _file(self, shard: str) -> Path:
        return self.folder / f"{shard}.safetensors"

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def append(self, keys: Sequence[str], parts: Sequence[Mapping[str, torch.Tensor]]) -> None:
        """Write a shard.

        Parameters
        ----------
        keys
            Addresses of examples.
        parts
            Their tensors, each with a row for each position; all have the same names.
        """
        numbers = [int(file.stem.split("-")[1]) for file in self.folder.glob("shard-*.safetensors")]
        shard = f"shard-{max(numbers, default=-1) + 1:04d}"
        low = 0
        examples: list[tuple[str, int, int]] = []
        for key, part in zip(keys, parts, strict=True):
            n = len(next(iter(part.values())))
            examples.append((key, low, low + n))
            low += n
        tensors = {name: torch.cat([part[name] for part in parts]).contiguous() for name in parts[0]}
        self._write(tensors, self._file(shard))
        write_object({"examples": examples, "sha256": _digest(self._file(shard))}, self.folder / f"{shard}.json")
        self._places.update({key: _CachePosition(shard, first, last) for key, first, last in examples})

    def get(self, keys: Iterable[str]) -> dict[str, torch.Tensor]:
        """Tensors of some examples, one after the other; read from the disk as they are asked for."""
        parts: dict[str, list[torch.Tensor]] = {}
        for key in keys:
            place = self._places[key]
            opened = self._open.get(place.shard)
            if opened is None:
                opened = self._open[place.shard] = safe_open(self._file(place.shard), framework="pt")
            for name in opened.keys():  # noqa: SIM118 (a safetensors handle is no mapping)
                parts.setdefault(name, []).append(opened.get_slice(name)[place.low : place.high])
        return {name: torch.cat(tensors) for name, tensors in parts.items()}

    def keep_head(self, head: LanguageModelHead) -> None:
        """Write the teacher's head, which hidden states are worthless without."""
        assert head.weight is not None
        tensors = {"weight": head.weight.detach().cpu().contiguous()}
        if head.bias is not None:
            tensors["bias"] = head.bias.detach().cpu().contiguous()
        self._write(tensors, self.folder / HEAD)
        self.tell(head={"scale": head.scale, "cap": head.cap})

    def head(self, device: str | torch.device) -> LanguageModelHead | None:
        """The teacher's head on a device; None where it isn't kept."""
        told = self.told().get("head")
        if told is None:
            return None
        try:
            with safe_open(self.folder / HEAD, framework="pt", device=str(device)) as opened:
                names = set(opened.keys())
                bias = opened.get_tensor("bias") if "bias" in names else None
                return LanguageModelHead(opened.get_tensor("weight"), bias, told["scale"], told["cap"])
        except (OSError, SafetensorError) as error:
            raise StoreError(f"{self.folder / HEAD}: cannot be read: {error}. Remove {self.folder}.") from error

    def told(self) -> dict[str, Any]:
        """What `config.json` says."""
        found: dict[str, Any] = json.loads((self.folder / CONFIG).read_text(encoding="utf-8"))
        return found

    def tell(self, **facts: Any) -> None:
        """Add to `config.json`."""
        write_object({**self.told(), **facts}, self.folder / CONFIG)

    def _write(self, tensors: dict[str, torch.Tensor], file: Path) -> None:
        partial = file.with_name(f"partial-{os.getpid()}-{file.name}")
        try:
            save_file(tensors, partial)
            os.replace(partial, file)
        except SafetensorError as error:  # what a full disk is to safetensors; it names no file
            if "No space left" not in str(error):
                raise
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file)) from error
        finally:
            partial.unlink(missing_ok=True)


def _digest(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
