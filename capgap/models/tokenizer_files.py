"""Location of a checkpoint's tokenizer, by file names, checked for what reads it."""

from pathlib import Path

from capgap.errors import ModelError
from capgap.models.checkpoint import Checkpoint
from capgap.models.installed_packages import is_installed
from capgap.models.model_spec import ModelSpec

TOKENIZER_FILES = (
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "*.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "*.jinja",
)
"""What can change how a text becomes tokens, and a chat becomes a text."""
_VOCABULARY_PATTERNS = ("tokenizer.json", "vocab.json", "vocab.txt", "*.model", "tekken.json", "*.tiktoken")


def tokenizer_location(spec: ModelSpec, checkpoint: Checkpoint) -> Path | str | None:
    """Folder or hub name that the tokenizer is loaded from; None: where the weights are.

    The spec's own, else the adapter's where it brings one, else that of the weights.

    Raises
    ------
    ModelError
        There is none, or none that what is installed can read.
    """
    requested_tokenizer: str | None = spec.get("tokenizer")
    if requested_tokenizer:
        path = Path(requested_tokenizer).expanduser()
        if path.is_dir():
            _check_readable(path, spec)
            return path
        return requested_tokenizer
    weights = checkpoint.adapter_of or checkpoint
    if checkpoint.is_adapter and _has_vocabulary(checkpoint.path):
        _check_readable(checkpoint.path, spec)
        return checkpoint.path
    if weights.gguf is not None:
        return None
    if not _has_vocabulary(weights.path):
        raise ModelError(
            f"model {spec.name}: {weights.path} has no tokenizer (looked for {', '.join(_VOCABULARY_PATTERNS)}). "
            f"Save one with it, or say {spec.checkpoint},tokenizer=CKPT."
        )
    _check_readable(weights.path, spec)
    return None


def _has_vocabulary(folder: Path) -> bool:
    return any(file for pattern in _VOCABULARY_PATTERNS for file in folder.glob(pattern))


def _check_readable(folder: Path, spec: ModelSpec) -> None:
    """Check that a tokenizer can be read: sentencepiece alone is converted by packages that need not be there."""
    if any(file for pattern in _VOCABULARY_PATTERNS if pattern != "*.model" for file in folder.glob(pattern)):
        return
    models = sorted(file.name for file in folder.glob("*.model"))
    missing = [
        pip
        for module, pip in (("sentencepiece", "sentencepiece"), ("google.protobuf", "protobuf"))
        if not is_installed(module)
    ]
    if models and missing:
        raise ModelError(
            f"model {spec.name}: {folder} has its tokenizer as {models[0]} only, and what reads it is not installed. "
            f"pip install {' '.join(missing)}"
        )
