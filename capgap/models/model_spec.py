"""Model specs: `[NAME=]CKPT[,key=value…]` parsed to `ModelSpec`, the same for every role."""

import ast
import glob
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from capgap.errors import ModelError, suggestion
from capgap.models.secret_masking import mask_secrets, refuse_secrets
from capgap.printable_text import natural_order

__all__ = ["BACKENDS", "MODEL_KEYS", "ModelSpec", "expand_models", "parse_model", "add_permissions"]

MICROWORLD = "microworld"


def _lm_eval_backends() -> tuple[str, ...]:
    """The names of lm-eval's registry, read from its source: importing it would cost every command seconds."""
    package = find_spec("lm_eval")
    for folder in (package.submodule_search_locations or ()) if package is not None else ():
        source = Path(folder) / "models" / "__init__.py"
        if not source.is_file():
            continue
        for node in ast.parse(source.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
                names = [target.id for target in node.targets if isinstance(target, ast.Name)]
                if "MODEL_MAPPING" in names:
                    return tuple(str(key.value) for key in node.value.keys if isinstance(key, ast.Constant))
    # An lm-eval that keeps its names elsewhere: those that it has had for years.
    return ("hf", "vllm", "sglang", "local-completions", "local-chat-completions", "openai-completions")


BACKENDS = _lm_eval_backends()
"""Every backend of the installed lm-eval. `hf` among them is lm-eval's own way; a checkpoint needs no backend."""

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
    "allow_code": ("on", "off"),
    "allow_pickle": ("on", "off"),
}
"""The keys of a model spec, and the values that each admits; an empty tuple admits any text."""

PROMPTING_KEYS = ("chat_template", "system_prompt", "enable_thinking", "think_end")
"""The keys that capgap reads from a backend's arguments too; the others are the backend's own."""
_LM_EVAL_KEYS = {"think_end_token": "think_end"}
_ON_OFF_VALUES = {"True": "on", "true": "on", "False": "off", "false": "off"}


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
    def arguments(self) -> dict[str, str]:
        """The arguments of a backend, by name."""
        pieces = [argument.partition("=") for argument in _split_at_keys(self.checkpoint) if argument]
        return {key.strip(): value for key, _, value in pieces}

    @property
    def location(self) -> str:
        """Location of the model, for tables and reports: never a path that only means something on this machine."""
        if self.kind == MICROWORLD:
            return f"{self.kind}:{self.checkpoint}"
        if self.kind != "checkpoint":
            arguments = (f"{key}={_portable_path(value)}" for key, value in self.arguments.items())
            return f"{self.kind}:{mask_secrets(','.join(arguments))}"
        return _portable_path(self.checkpoint)

    @property
    def spec_text(self) -> str:
        """The spec as text that `parse_model` reads, without the model's name."""
        checkpoint_text = self.checkpoint if self.kind == "checkpoint" else f"{self.kind}:{self.checkpoint}"
        return ",".join([checkpoint_text, *(f"{key}={value}" for key, value in self.options.items())])


def parse_model(text: str) -> ModelSpec:
    """The model that a spec names; nothing is looked up or loaded.

    Raises
    ------
    ModelError
        The spec is empty, a key is unknown, or a value is not one that its key admits.
    """
    refuse_secrets(text)
    backend = _parse_backend_name(text.strip())
    if backend is not None and backend in BACKENDS:
        return _backend_spec(text.strip(), backend)
    if backend is not None and backend != MICROWORLD:
        raise ModelError(f"model {text!r}: {backend!r} is no backend.{suggestion(backend, (MICROWORLD, *BACKENDS))}")
    name_and_checkpoint, options = _split_spec_options(text.strip())
    name, checkpoint = _split_model_name(name_and_checkpoint)
    if not checkpoint:
        raise ModelError(f"model {text!r}: no checkpoint is named. Expected [NAME=]CKPT[,key=value…].")
    if backend == MICROWORLD:
        _, _, microworld_name = checkpoint.partition(":")
        return ModelSpec(name or microworld_name, microworld_name, MICROWORLD, options)
    return ModelSpec(name or default_name(checkpoint), checkpoint, "checkpoint", options)


def add_permissions(text: str, granted_permissions: Iterable[str]) -> str:
    """A model spec with what the user permits of every model, where the spec itself says nothing of it.

    Parameters
    ----------
    text
        Of a checkpoint; other specs, ``none`` among them, come back as they are.
    granted_permissions
        Some of ``allow_code`` and ``allow_pickle``.
    """
    if text == "none":
        return text
    spec = parse_model(text)
    permissions = "".join(f",{key}=on" for key in granted_permissions if key not in spec.options)
    return f"{text}{permissions}" if spec.kind == "checkpoint" else text


def expand_models(texts: Iterable[str]) -> list[ModelSpec]:
    """All the models that specs and globs name, in order, under distinct names.

    Two checkpoints with one last folder name (``a/checkpoint-100``, ``b/checkpoint-100``) get as much of their path
    as tells them apart.

    Raises
    ------
    ModelError
        A glob matches nothing, or two specs give one name to different models.
    """
    specs: list[ModelSpec] = []
    for text in texts:
        spec = parse_model(text)
        if spec.kind != "checkpoint" or not re.search(r"[*?\[]", spec.checkpoint):
            specs.append(spec)
            continue
        paths = sorted(filter(_may_be_checkpoint, glob.glob(spec.checkpoint)), key=natural_order)
        if not paths:
            raise ModelError(
                f"model {text!r}: no directory matches, nor a .gguf file. "
                f"Quote globs so that the shell leaves them alone."
            )
        specs.extend(replace(spec, checkpoint=path, name=default_name(path)) for path in paths)
    return _make_names_distinct(specs)


def _may_be_checkpoint(path: str) -> bool:
    return Path(path).is_dir() or path.endswith(".gguf")


def _portable_path(text: str) -> str:
    """A path relative to the working directory, or its name alone; what is no absolute path stays."""
    path = Path(text)
    if not path.is_absolute():
        return text
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else path.name


def default_name(checkpoint: str) -> str:
    """The last part of a path or hub name; a Trainer's ``checkpoint-N`` keeps its parent's name too."""
    path_parts = [name for name in re.split(r"[/\\]", checkpoint.rstrip("/\\")) if name not in {"", ".", ".."}]
    if not path_parts:
        return Path(checkpoint).resolve().name or "model"
    if len(path_parts) > 1 and re.fullmatch(r"checkpoint-\d+", path_parts[-1]):
        return "/".join(path_parts[-2:])
    return path_parts[-1]


def _parse_backend_name(text: str) -> str | None:
    """The name before the first colon of a spec, where it is no path of this disk."""
    name_and_checkpoint = _split_at_keys(text)[0]
    _, checkpoint = _split_model_name(name_and_checkpoint)
    backend, colon, _ = checkpoint.partition(":")
    is_local_path = "/" in backend or "\\" in backend or len(backend) < 2 or Path(checkpoint).exists()
    return backend if colon and not is_local_path else None


def _backend_spec(text: str, backend: str) -> ModelSpec:
    """The spec of a backend: its own arguments stay as they are, the keys of prompting are capgap's."""
    name_prefix, _, arguments_text = text.partition(f"{backend}:")
    backend_arguments: list[str] = []
    options: dict[str, str] = {}
    for argument in _split_at_keys(arguments_text):
        key, equals, value = argument.partition("=")
        key = key.strip()
        if argument and not (equals and key):
            raise ModelError(f"model {text!r}: {argument!r} is no argument. Expected {backend}:key=value,key=value…")
        if key in PROMPTING_KEYS or key in _LM_EVAL_KEYS:
            option = _LM_EVAL_KEYS.get(key, key)
            options[option] = _validate(text, option, _ON_OFF_VALUES.get(value, value) if MODEL_KEYS[option] else value)
        elif argument:
            backend_arguments.append(argument)
    arguments = ",".join(backend_arguments)
    name = name_prefix.rstrip().rstrip("=").strip() or _backend_name(backend, arguments)
    return ModelSpec(name, arguments, backend, options)


def _split_at_keys(text: str) -> list[str]:
    """A spec split at the commas that start a ``key=``; a comma that starts none belongs to what stands before it."""
    return re.split(r",(?=\s*[A-Za-z_]\w*=)", text)


def _split_spec_options(text: str) -> tuple[str, dict[str, str]]:
    """The head of a spec, and its options."""
    pieces = _split_at_keys(text)
    options: dict[str, str] = {}
    for option_text in pieces[1:]:
        key, _, value = option_text.strip().partition("=")
        if key not in MODEL_KEYS:
            raise ModelError(f"model {text!r}: unknown key {key!r}.{suggestion(key, MODEL_KEYS)}")
        options[key] = _validate(text, key, value)
    return pieces[0], options


def _validate(text: str, key: str, value: str) -> str:
    valid_values = MODEL_KEYS[key]
    if valid_values and value not in valid_values:
        raise ModelError(f"model {text!r}: {key}={value!r} is not possible.{suggestion(value, valid_values)}")
    return value


def _split_model_name(name_and_checkpoint: str) -> tuple[str, str]:
    name, equals, checkpoint = name_and_checkpoint.partition("=")
    if equals and re.fullmatch(r"[\w .+@-]{1,80}", name) and not Path(name_and_checkpoint).exists():
        return name.strip(), checkpoint.strip()
    return "", name_and_checkpoint


def _backend_name(backend: str, arguments: str) -> str:
    model = re.search(r"(?:^|,)(?:model|pretrained)=([^,]+)", arguments)
    return default_name(model.group(1)) if model else backend


def _make_names_distinct(specs: list[ModelSpec]) -> list[ModelSpec]:
    seen: dict[str, ModelSpec] = {}
    result: list[ModelSpec] = []
    for spec in specs:
        depth = 2
        while spec.name in seen and seen[spec.name].spec_text != spec.spec_text and spec.kind == "checkpoint":
            path_parts = Path(spec.checkpoint).parts
            if depth > len(path_parts):
                break
            spec, depth = replace(spec, name="/".join(path_parts[-depth:])), depth + 1
        if spec.name in seen:
            if seen[spec.name].spec_text == spec.spec_text:
                continue
            raise ModelError(
                f"two models are called {spec.name!r}: {seen[spec.name].spec_text} and {spec.spec_text}. "
                f"Name one of them: NAME={spec.spec_text}"
            )
        seen[spec.name] = spec
        result.append(spec)
    return result
