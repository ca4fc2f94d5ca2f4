"""Model words: `[NAME=]CKPT[,key=value…]`, the same for every role."""

import glob
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from capgap.errors import ModelError, suggestion

__all__ = ["MODEL_KEYS", "ModelSpec", "expand_models", "parse_model"]

MICROWORLD = "microworld"

# Backends of lm-eval that are neither plain checkpoints nor directories; `hf` is capgap's own way and needs no word.
BACKENDS = (
    "vllm",
    "sglang",
    "hf",
    "local-completions",
    "local-chat-completions",
    "openai-completions",
    "openai-chat-completions",
    "anthropic-chat",
    "gguf",
    "nemo_lm",
    "openvino",
)

MODEL_KEYS: dict[str, tuple[str, ...]] = {
    "revision": (),
    "dtype": ("auto", "float32", "float16", "bfloat16"),
    "quantization": ("4bit", "8bit"),
    "device_map": (),
    "tokenizer": (),
    "adapter_base": (),
    "chat_template": ("auto", "on", "off"),
    "system_prompt": (),
    "enable_thinking": ("on", "off"),
    "think_end": (),
}
"""The keys of a model word, and the values that each admits; an empty tuple admits any text."""


@dataclass(frozen=True)
class ModelSpec:
    """One model as the user named it."""

    name: str
    """How tables and reports call it."""
    checkpoint: str
    """Local directory, hub name, the part after ``microworld:``, or the arguments of a backend."""
    kind: str = "checkpoint"
    """``checkpoint``, ``microworld``, or the name of an lm-eval backend."""
    options: dict[str, str] = field(default_factory=dict)
    """The keys of `MODEL_KEYS` that were given."""

    def get(self, key: str, default: Any = None) -> Any:
        """The value of one of `MODEL_KEYS`, or `default`."""
        return self.options.get(key, default)

    @property
    def place(self) -> str:
        """Where it is from, for tables and reports: never a path that only means something on this machine."""
        if self.kind != "checkpoint":
            return f"{self.kind}:{self.checkpoint}"
        path = Path(self.checkpoint)
        if not path.is_absolute():
            return self.checkpoint
        return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else path.name

    @property
    def word(self) -> str:
        """A model word that means this model, without its name."""
        head = self.checkpoint if self.kind == "checkpoint" else f"{self.kind}:{self.checkpoint}"
        return ",".join([head, *(f"{key}={value}" for key, value in self.options.items())])


def parse_model(word: str) -> ModelSpec:
    """The model that a word names; nothing is looked up or loaded.

    Raises
    ------
    ModelError
        The word is empty, a key is unknown, or a value is not one that its key admits.
    """
    head, options = _split_options(word.strip())
    name, checkpoint = _split_name(head)
    if not checkpoint:
        raise ModelError(f"model {word!r}: no checkpoint is named. Expected [NAME=]CKPT[,key=value…].")
    backend, colon, arguments = checkpoint.partition(":")
    if colon and backend == MICROWORLD:
        return ModelSpec(name or arguments, arguments, MICROWORLD, options)
    if colon and backend in BACKENDS:
        # A backend's own arguments contain commas and equals signs, so nothing was cut from them.
        arguments = word.strip().split(f"{backend}:", 1)[1]
        return ModelSpec(name or _backend_name(backend, arguments), arguments, backend, {})
    if colon and not Path(checkpoint).exists() and "/" not in backend and "\\" not in backend and len(backend) > 1:
        known = (MICROWORLD, *BACKENDS)
        raise ModelError(f"model {word!r}: {backend!r} is no backend.{suggestion(backend, known)}")
    return ModelSpec(name or default_name(checkpoint), checkpoint, "checkpoint", options)


def expand_models(words: Iterable[str]) -> list[ModelSpec]:
    """All the models that words and globs name, in order, under distinct names.

    Two checkpoints with one last folder name (``a/checkpoint-100``, ``b/checkpoint-100``) get as much of their path
    as tells them apart.

    Raises
    ------
    ModelError
        A glob matches nothing, or two words give one name to different models.
    """
    specs: list[ModelSpec] = []
    for word in words:
        spec = parse_model(word)
        if spec.kind != "checkpoint" or not re.search(r"[*?\[]", spec.checkpoint):
            specs.append(spec)
            continue
        found = sorted((p for p in glob.glob(spec.checkpoint) if Path(p).is_dir()), key=_natural)
        if not found:
            raise ModelError(f"model {word!r}: no directory matches. Quote globs so that the shell leaves them alone.")
        specs.extend(replace(spec, checkpoint=path, name=default_name(path)) for path in found)
    return _distinct(specs)


def default_name(checkpoint: str) -> str:
    """The last part of a path or hub name; a Trainer's ``checkpoint-N`` keeps its parent's name too."""
    parts = [part for part in re.split(r"[/\\]", checkpoint.rstrip("/\\")) if part not in {"", ".", ".."}]
    if not parts:
        return Path(checkpoint).resolve().name or "model"
    if len(parts) > 1 and re.fullmatch(r"checkpoint-\d+", parts[-1]):
        return "/".join(parts[-2:])
    return parts[-1]


def _split_options(word: str) -> tuple[str, dict[str, str]]:
    """The head of a word and its keys; a comma that starts no ``key=`` belongs to what stands before it."""
    pieces = re.split(r",(?=[A-Za-z_]+=)", word)
    options: dict[str, str] = {}
    if re.match(rf"(?:[^=:,]+=)?(?:{'|'.join(BACKENDS)}):", word):
        return word, {}
    for piece in pieces[1:]:
        key, _, value = piece.partition("=")
        if key not in MODEL_KEYS:
            raise ModelError(f"model {word!r}: unknown key {key!r}.{suggestion(key, MODEL_KEYS)}")
        allowed = MODEL_KEYS[key]
        if allowed and value not in allowed:
            raise ModelError(f"model {word!r}: {key}={value!r} is not possible.{suggestion(value, allowed)}")
        options[key] = value
    return pieces[0], options


def _split_name(head: str) -> tuple[str, str]:
    name, equals, rest = head.partition("=")
    if equals and re.fullmatch(r"[\w .+@-]{1,80}", name) and not Path(head).exists():
        return name.strip(), rest.strip()
    return "", head


def _backend_name(backend: str, arguments: str) -> str:
    model = re.search(r"(?:^|,)(?:model|pretrained)=([^,]+)", arguments)
    return default_name(model.group(1)) if model else backend


def _natural(path: str) -> list[Any]:
    """Sort key that puts checkpoint-200 before checkpoint-1000."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", path)]


def _distinct(specs: list[ModelSpec]) -> list[ModelSpec]:
    seen: dict[str, ModelSpec] = {}
    result: list[ModelSpec] = []
    for spec in specs:
        depth = 2
        while spec.name in seen and seen[spec.name].word != spec.word and spec.kind == "checkpoint":
            parts = Path(spec.checkpoint).parts
            if depth > len(parts):
                break
            spec, depth = replace(spec, name="/".join(parts[-depth:])), depth + 1
        if spec.name in seen:
            if seen[spec.name].word == spec.word:
                continue
            raise ModelError(
                f"two models are called {spec.name!r}: {seen[spec.name].word} and {spec.word}. "
                f"Name one of them: NAME={spec.word}"
            )
        seen[spec.name] = spec
        result.append(spec)
    return result
