"""Checkpoints on this disk: found from a model spec, checked before loading, hashed, and traced to their base."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from capgap.battery.data_source import sha256
from capgap.errors import ModelError, suggestion
from capgap.microworld import checkpoint_folder
from capgap.models.gguf import check_gguf, choose_gguf
from capgap.models.model_spec import MICROWORLD, ModelSpec, parse_model
from capgap.models.quantisation import WeightQuantisation, check_packages, quantisation_of
from capgap.models.weight_files import check_weights
from capgap.user_cache import user_cache, write_cache_file

__all__ = ["Checkpoint", "FoundBase", "file_hashes", "find_base", "code_and_pickle_patterns", "locate", "read_json"]

ADAPTER_CONFIG = "adapter_config.json"
TRAINING_RECORD_FILE = "capgap.json"
"""The file that `capgap distill` writes into each checkpoint: its row of the models table."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on this disk."""

    path: Path
    """Directory with config.json and safetensors, with adapter_config.json, or with a GGUF file."""
    adapter_of: "Checkpoint | None"
    """For an adapter: the checkpoint that it adapts."""
    config: Mapping[str, Any]
    """config.json, or adapter_config.json."""
    training_record: Mapping[str, Any]
    """What `capgap distill` wrote about it; empty for other people's checkpoints."""
    gguf: str | None = None
    """Name of the GGUF file that holds everything."""
    quantisation: WeightQuantisation | None = None
    """How config.json says that the weights are packed; None where they are plain, and for GGUF."""

    @property
    def is_adapter(self) -> bool:
        """Whether the directory holds an adapter only."""
        return self.adapter_of is not None


@dataclass(frozen=True)
class FoundBase:
    """The base of a student, and the file that names it."""

    spec_text: str
    """A model spec, as `parse_model` reads it."""
    source: str
    """The file that names it."""


def locate(spec: ModelSpec) -> Checkpoint:
    """The checkpoint of a model spec: on this disk, in the hub's cache, or from the hub; what must fail is refused.

    Raises
    ------
    ModelError
        It is nowhere or no model; its weights are missing, cut off or pickled; it would run code of its own; or what
        unpacks its quantised weights is not installed. The message says what was looked for.
    """
    if spec.kind == MICROWORLD:
        return _open_checkpoint(checkpoint_folder(spec.checkpoint), spec)
    path = Path(spec.checkpoint).expanduser()
    if path.is_dir():
        return _open_checkpoint(path, spec)
    if path.is_file() and path.suffix == ".gguf":
        return _open_gguf(path.parent, path.name, spec)
    if path.exists():
        raise ModelError(
            f"model {spec.name}: {path} is a file. Expected a checkpoint directory, a .gguf file or a hub name."
        )
    if path.suffix == ".gguf" and spec.checkpoint.count("/") == 2 and not path.parent.exists():
        file = _file_from_hub(spec)
        return _open_gguf(file.parent, file.name, spec)
    if spec.checkpoint.startswith(("/", ".", "~")) or spec.checkpoint.count("/") != 1:
        raise ModelError(f"model {spec.name}: {path} does not exist.{_nearest_path(path)}")
    return _open_checkpoint(_from_hub(spec), spec)


def _open_checkpoint(path: Path, spec: ModelSpec) -> Checkpoint:
    training_record = read_json(path / TRAINING_RECORD_FILE) if (path / TRAINING_RECORD_FILE).is_file() else {}
    if (path / ADAPTER_CONFIG).is_file():
        config = read_json(path / ADAPTER_CONFIG)
        check_weights(path, "adapter_model", spec.name, allow_pickles=spec.get("allow_pickle") == "on")
        return Checkpoint(path, _locate_adapter_base(path, config, spec), config, training_record)
    if not (path / "config.json").is_file():
        gguf = choose_gguf(path, spec.name)
        if gguf is not None:
            return _open_gguf(path, gguf, spec)
        file_names = sorted(entry.name for entry in path.iterdir())[:8]
        folder_contents = f"holds {', '.join(file_names)}" if file_names else "is empty"
        raise ModelError(
            f"model {spec.name}: {path} is no checkpoint: it {folder_contents}. Expected config.json and *.safetensors,"
            f" {ADAPTER_CONFIG}, or one .gguf file.{_checkpoints_below(path)}"
        )
    config = read_json(path / "config.json")
    _refuse_code(path, config, spec)
    check_weights(path, "model", spec.name, allow_pickles=spec.get("allow_pickle") == "on")
    quantisation = quantisation_of(path, config, spec.name)
    check_packages(quantisation, spec.get("quantization"), spec.name)
    return Checkpoint(path, None, config, training_record, quantisation=quantisation)


def _open_gguf(folder: Path, file: str, spec: ModelSpec) -> Checkpoint:
    check_gguf(folder / file, spec.name)
    if spec.get("quantization"):
        raise ModelError(f"model {spec.name}: {file} is quantised already. Leave quantization= out.")
    return Checkpoint(folder, None, {}, {}, gguf=file)


def _refuse_code(path: Path, config: Mapping[str, Any], spec: ModelSpec) -> None:
    """Refuse a folder that brings Python of its own, unless the user says that it may run or be passed over."""
    if spec.get("allow_code"):
        return
    tokenizer = path / "tokenizer_config.json"
    files = {"config.json": config, "tokenizer_config.json": read_json(tokenizer) if tokenizer.is_file() else {}}
    for file, content in files.items():
        if content.get("auto_map"):
            raise ModelError(
                f"model {spec.name}: {path / file} has an auto_map: the folder brings Python code of its own, which "
                f"may do anything on this machine. Read it, then say {spec.spec_text},allow_code=on to run it, or "
                f"allow_code=off to load the weights with transformers' own code."
            )


def _locate_adapter_base(path: Path, config: Mapping[str, Any], spec: ModelSpec) -> Checkpoint:
    """The checkpoint that an adapter adapts; relative paths count from the adapter as well as from here."""
    base_text = spec.get("adapter_base") or config.get("base_model_name_or_path")
    if not base_text:
        raise ModelError(
            f"model {spec.name}: {path / ADAPTER_CONFIG} names no base model. "
            f"Say it: {spec.checkpoint},adapter_base=CKPT"
        )
    base = parse_model(str(base_text))
    if base.kind == "checkpoint":
        # The adapter's options of loading hold for its base too.
        base_keys = {key: value for key in ("allow_code", "allow_pickle", "quantization") if (value := spec.get(key))}
        base = replace(base, options=base_keys | base.options)
    if base.kind == "checkpoint" and not Path(base.checkpoint).exists() and (path / base.checkpoint).exists():
        base = replace(base, checkpoint=str(path / base.checkpoint))
    try:
        adapter_base = locate(replace(base, name=f"{spec.name} (base of the adapter)"))
    except ModelError as error:
        raise ModelError(f"{error} If it lies elsewhere: {spec.checkpoint},adapter_base=CKPT") from None
    if adapter_base.is_adapter:
        raise ModelError(f"model {spec.name}: its base {adapter_base.path} is an adapter itself. Merge one of the two.")
    return adapter_base


def _from_hub(spec: ModelSpec) -> Path:
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "README.md"]
    if spec.get("allow_code") == "on":
        patterns.append("*.py")
    if spec.get("allow_pickle") == "on":
        patterns.append("*.bin")
    with _hub_errors(spec, "no directory"):
        return Path(snapshot_download(spec.checkpoint, revision=spec.get("revision"), allow_patterns=patterns))


def _file_from_hub(spec: ModelSpec) -> Path:
    """``org/name/file.gguf``: one file of a repository that holds many quantisations of one model."""
    from huggingface_hub import hf_hub_download

    repository, _, file = spec.checkpoint.rpartition("/")
    with _hub_errors(spec, "no file"):
        return Path(hf_hub_download(repository, file, revision=spec.get("revision")))


@contextmanager
def _hub_errors(spec: ModelSpec, absent: str) -> Iterator[None]:
    """Turn what the hub's client raises into a `ModelError` that says what to do."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        yield
    except (OfflineModeIsEnabled, LocalEntryNotFoundError, ConnectionError) as error:
        raise ModelError(
            f"model {spec.name}: {absent} {spec.checkpoint!r} here, not in the hub's cache, and the hub cannot be"
            f" reached ({type(error).__name__}). Give a local directory, or run once with the network."
        ) from error
    except (HfHubHTTPError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"model {spec.name}: {absent} {spec.checkpoint!r} here, and the hub says: {reason}") from error
    except OSError as error:
        raise ModelError(f"model {spec.name}: {spec.checkpoint} cannot be fetched from the hub: {error}") from error


def find_base(spec: ModelSpec) -> FoundBase | None:
    """The student before distillation, where its own files name it; None where they do not.

    Looked up in this order: what `capgap distill` wrote, adapter_config.json, the model card's ``base_model``.
    """
    if spec.kind not in ("checkpoint", MICROWORLD):
        return None
    checkpoint = locate(spec)
    recorded_base = checkpoint.training_record.get("base")
    if recorded_base:
        return FoundBase(_to_absolute(str(recorded_base), checkpoint.path), str(checkpoint.path / TRAINING_RECORD_FILE))
    if checkpoint.is_adapter and checkpoint.adapter_of is not None:
        base = checkpoint.adapter_of
        return FoundBase(str(base.path / base.gguf if base.gguf else base.path), str(checkpoint.path / ADAPTER_CONFIG))
    model_card = checkpoint.path / "README.md"
    base_model = _card_base(model_card) if model_card.is_file() else None
    return FoundBase(base_model, str(model_card)) if base_model else None


def _to_absolute(text: str, folder: Path) -> str:
    """A model spec whose path, if it counts from a folder, is made absolute."""
    spec = parse_model(text)
    if spec.kind == "checkpoint" and not Path(spec.checkpoint).exists() and (folder / spec.checkpoint).exists():
        return str((folder / spec.checkpoint).resolve())
    return text


def _card_base(model_card: Path) -> str | None:
    """``base_model`` in the YAML head of a model card."""
    import yaml

    text = model_card.read_text(encoding="utf-8", errors="replace")[:20_000]
    if not text.startswith("---"):
        return None
    try:
        front_matter = yaml.safe_load(text[3:].split("\n---", 1)[0])
    except yaml.YAMLError:
        return None
    base = front_matter.get("base_model") if isinstance(front_matter, dict) else None
    if isinstance(base, list):
        base = base[0] if len(base) == 1 else None  # a merge of several models has no one base
    return base if isinstance(base, str) and base.strip() else None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of a checkpoint.

    Raises
    ------
    ModelError
        It cannot be read or is no object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path}: expected a JSON object, found {type(value).__name__}.")
    return value


def file_hashes(path: Path, patterns: tuple[str, ...]) -> str:
    """Hex digest of the names and contents of the files that match; large files are hashed once per change.

    The digests are kept in the user's cache folder by path, size and time of change.
    """
    digest = hashlib.sha256()
    for file in sorted({f for pattern in patterns for f in path.glob(pattern) if f.is_file()}):
        digest.update(f"{file.name}\0{_cached_digest(file)}\n".encode())
    return digest.hexdigest()


def code_and_pickle_patterns(spec: ModelSpec) -> tuple[str, ...]:
    """Patterns of the code and pickles that are part of a checkpoint's identity, where the spec allows them."""
    code = ("*.py",) if spec.get("allow_code") == "on" else ()
    return code + (("*.bin",) if spec.get("allow_pickle") == "on" else ())


def _cached_digest(file: Path) -> str:
    file_stat = file.resolve().stat()
    identity = f"{file.resolve()}|{file_stat.st_size}|{file_stat.st_mtime_ns}|{file_stat.st_ino}"
    digest_file = user_cache() / "hashes" / hashlib.sha256(identity.encode()).hexdigest()
    if file_stat.st_size > 1_000_000:  # small files are hashed faster than their note is found
        try:
            return digest_file.read_text()
        except OSError:
            pass
    digest = sha256(file)
    if file_stat.st_size > 1_000_000:
        with suppress(OSError):  # a cache that can't be written costs time, nothing else
            write_cache_file(digest_file, digest.encode())
    return digest


def _nearest_path(path: Path) -> str:
    parent = path.parent
    if not parent.is_dir():
        return f" Nor does {parent}."
    neighbours = (entry.name for entry in parent.iterdir() if entry.is_dir() or entry.suffix == ".gguf")
    return suggestion(path.name, neighbours)


def _checkpoints_below(path: Path) -> str:
    """The last checkpoint inside a folder that is none itself, as a suggestion; empty where there is none."""
    configs = sorted(file for name in ("config.json", ADAPTER_CONFIG) for file in path.glob(f"*/{name}"))
    return f" Did you mean {configs[-1].parent}?" if configs else ""
