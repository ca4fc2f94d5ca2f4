"""Backends of lm-eval by name (vLLM, SGLang, a server, a cloud): checked, started, and wrapped in clear errors."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

from capgap.errors import ModelError, suggestion
from capgap.models.checkpoint import file_hashes
from capgap.models.devices import choose_device
from capgap.models.loaded_model import LoadedModel, identity_digest
from capgap.models.model_spec import BACKENDS, ModelSpec
from capgap.models.prompting import PromptSettings, prompting_from_spec
from capgap.models.secret_masking import error_line, mask_secrets
from capgap.models.tokenizer_files import TOKENIZER_FILES

_CHAT_BACKENDS = ("litellm", *(name for name in BACKENDS if "chat" in name))
"""Backends that take messages; none of them gives log-likelihoods."""
_GENERATE_ONLY = ("anthropic-completions", "hf-audiolm-qwen", "hf-multimodal", "vllm-vlm", "hf-mistral3")
_OPENAI_BACKENDS = ("local-completions", "local-chat-completions", "openai-completions", "openai-chat-completions")
_OPENAI_SCORED_MODELS = ("babbage-002", "davinci-002")  # OpenAI echoes log-probabilities for no other model

_REQUIRED_PACKAGES = {
    **dict.fromkeys(("vllm", "vllm-vlm"), ("vllm", "'capgap[vllm]'")),
    **dict.fromkeys(("litellm", "litellm-chat", "litellm-chat-completions"), ("litellm", "'lm-eval[litellm]'")),
    **dict.fromkeys(("onnxruntime-genai", "winml"), ("onnxruntime_genai", "'lm-eval[onnxruntime-genai]'")),
    "sglang": ("sglang", "sglang"),
    "anthropic-completions": ("anthropic", "anthropic"),
    "openvino": ("optimum", "'lm-eval[optimum]'"),
    "ipex": ("optimum", "'lm-eval[ipex]'"),
    "habana": ("optimum", "'lm-eval[habana]'"),
    "neuronx": ("optimum", "'optimum[neuronx]'"),
    "onnxruntime": ("onnxruntime", "'lm-eval[onnxruntime]'"),
    "mamba_ssm": ("mamba_ssm", "mamba-ssm"),
    "nemo_lm": ("nemo", "'nemo_toolkit[nlp]'"),
    "trtllm": ("tensorrt_llm", "tensorrt_llm"),
    "watsonx_llm": ("ibm_watsonx_ai", "'lm-eval[ibm-watsonx-ai]'"),
    "steered": ("sae_lens", "sae_lens"),
    "openai-completions": ("tiktoken", "tiktoken"),
}
"""Backend → the module without which it does not start, and what to ask pip for."""
_ENGINE_BATCH = {"vllm": 1024, "vllm-vlm": 1024, "sglang": 1024}
"""Engines that form their own batches are handed many requests."""
_IDENTITY_ARGUMENTS = {"base_url", "model", "pretrained", "tokenizer"}
"""Arguments that have a place of their own in a model's identity."""
_UNLIMITED = 1 << 40


def check_backend(spec: ModelSpec, *, scores: bool = False) -> None:
    """Check a backend before anything is started.

    Parameters
    ----------
    spec
        The model.
    scores
        Whether log-likelihoods will be asked for.

    Raises
    ------
    ModelError
        A package or an argument is missing or wrong, or the backend gives no log-likelihoods.
    """
    module, pip = _REQUIRED_PACKAGES.get(spec.kind, ("lm_eval", ""))
    if find_spec(module) is None:
        raise ModelError(
            f"model {spec.name}: the backend {spec.kind} needs {module}, which is missing. pip install {pip}"
        )
    if spec.kind in _OPENAI_BACKENDS:
        _check_server_arguments(spec)
    if spec.kind in _CHAT_BACKENDS and spec.get("chat_template") == "off":
        raise ModelError(
            f"model {spec.name}: {spec.kind} takes messages only, so chat_template=off is not possible. "
            f"Use local-completions, where the server has it."
        )
    reason = _no_scores_reason(spec)
    if scores and reason is not None:
        raise ModelError(
            f"model {spec.name}: {reason}, and the battery chooses by log-likelihoods. "
            f"Use a battery of generate tasks, or another backend."
        )


def _check_server_arguments(spec: ModelSpec) -> None:
    arguments = spec.arguments
    if not arguments.get("model") and not arguments.get("pretrained"):
        raise ModelError(f"model {spec.name}: {spec.kind} needs the model's name on the server: model=NAME")
    base_url = arguments.get("base_url")
    path = "chat/completions" if spec.kind in _CHAT_BACKENDS else "completions"
    if base_url is None and spec.kind.startswith("local"):
        raise ModelError(f"model {spec.name}: {spec.kind} needs an address: base_url=http://HOST:PORT/v1/{path}")
    if base_url is not None and (urlsplit(base_url).scheme not in ("http", "https") or not urlsplit(base_url).netloc):
        raise ModelError(
            f"model {spec.name}: base_url={base_url!r} is no address. Expected base_url=http://HOST:PORT/v1/{path}"
        )
    is_chat = spec.kind in _CHAT_BACKENDS
    chat_address = base_url is not None and urlsplit(base_url).path.rstrip("/").endswith("/chat/completions")
    if base_url is not None and chat_address != is_chat and base_url.rstrip("/").endswith("/completions"):
        other = spec.kind.replace("-completions", "-chat-completions") if chat_address else "local-completions"
        raise ModelError(f"model {spec.name}: {base_url} is the address for {other}, and the backend is {spec.kind}.")


def _no_scores_reason(spec: ModelSpec) -> str | None:
    """Why a backend gives no log-likelihoods, from its name alone; None where it may give them."""
    if spec.kind in _CHAT_BACKENDS:
        return f"{spec.kind} gives no log-likelihoods: a chat does not tell the probability of what is said to it"
    if spec.kind in _GENERATE_ONLY:
        return f"{spec.kind} gives no log-likelihoods"
    if spec.kind == "openai-completions" and spec.arguments.get("model") not in _OPENAI_SCORED_MODELS:
        return f"OpenAI gives log-likelihoods for {' and '.join(_OPENAI_SCORED_MODELS)} only"
    return None


def load_backend(
    spec: ModelSpec, *, device: str | None = None, batch_tokens: int | None = None, run_id: str = ""
) -> LoadedModel:
    """Start a backend, or find its server.

    Parameters
    ----------
    spec
        The model.
    device
        For backends that take one.
    batch_tokens
        Tokens handed over at a time, at most.
    run_id
        Names the run. The weights behind a backend are not seen, so its answers count in one run only; without a name
        they count nowhere else at all.

    Raises
    ------
    ModelError
        It cannot be started or reached.
    """
    check_backend(spec)
    with _start_errors(spec):
        lm_class = _lm_class(spec)
        settings = _lm_settings(spec, lm_class, device)
        lm = lm_class.create_from_arg_string(spec.checkpoint, settings)
        prompting = _prompting(spec, lm)
        identity = _model_identity(spec, lm, prompting, run_id)
    batch_requests = _batch_requests(spec, lm)
    return LoadedModel(
        name=spec.name,
        lm=lm,
        facts={"model": spec.name, "checkpoint": spec.location, "prompting": prompting.as_text()},
        identity=identity,
        fingerprint=identity_digest(identity),
        prompting=prompting,
        # A server answers one by one, and each answer is kept at once.
        batch_tokens=batch_tokens or (1 if batch_requests == 1 else _UNLIMITED if spec.kind in _ENGINE_BATCH else 2048),
        probe_no_scores_reason=partial(_probed_no_scores_reason, spec, lm),
        max_batch_requests=batch_requests,
        notes=getattr(lm, "notes", []),
    )


def _probed_no_scores_reason(spec: ModelSpec, lm: Any) -> str | None:
    """Why a started backend gives no log-likelihoods; only its replies tell it of a server."""
    reason = _no_scores_reason(spec)
    if reason is None and spec.kind == "local-completions":
        reason = lm.no_scores_reason()
    return reason


def _batch_requests(spec: ModelSpec, lm: Any) -> int:
    if hasattr(lm, "_concurrent"):  # a server
        return max(1, int(lm._concurrent)) * max(1, int(lm._batch_size))
    return _ENGINE_BATCH.get(spec.kind, 64)


def _lm_class(spec: ModelSpec) -> Any:
    """lm-eval's class for the backend, with capgap's mixins before it."""
    import lm_eval.models  # noqa: F401  (fills lm-eval's registry)
    from lm_eval.api.registry import get_model

    lm_class = get_model(spec.kind)
    bases = (*_choose_mixins(lm_class, spec), lm_class)
    return type(lm_class.__name__, bases, {"model_name": spec.name, "chat": spec.kind in _CHAT_BACKENDS})


def _choose_mixins(lm_class: type[Any], spec: ModelSpec) -> tuple[type[Any], ...]:
    """Mixins before lm-eval's class: for all, translation of errors; for servers, checks of their replies."""
    from lm_eval.models.api_models import TemplateAPI

    from capgap.models.backend_errors import BackendErrorMixin

    if spec.kind == "vllm":
        from capgap.models.vllm_engine import VllmEngine

        return (BackendErrorMixin, VllmEngine)
    if not issubclass(lm_class, TemplateAPI):
        return (BackendErrorMixin,)
    from capgap.models.openai_server import OpenAIServer
    from capgap.models.server_backend import ServerBackend

    return (BackendErrorMixin, OpenAIServer if spec.kind in _OPENAI_BACKENDS else ServerBackend)


def _lm_settings(spec: ModelSpec, lm_class: Any, device: str | None) -> dict[str, Any]:
    """Constructor arguments that are added to the user's."""
    arguments = spec.arguments
    names, has_kwargs = _find_init_parameters(lm_class)
    is_server = hasattr(lm_class, "create_message")
    unknown = sorted(set(arguments) - names)
    if unknown and (is_server or not has_kwargs):
        raise ModelError(
            f"model {spec.name}: {spec.kind} knows no argument {unknown[0]!r}.{suggestion(unknown[0], names)}"
        )
    defaults: dict[str, Any] = {"batch_size": _ENGINE_BATCH.get(spec.kind, 1)}
    if device is not None or spec.kind.startswith(("hf", "huggingface")):
        defaults["device"] = choose_device(device)
    if spec.kind in _OPENAI_BACKENDS and arguments.get("tokenizer"):
        defaults["tokenizer_backend"] = "huggingface"  # lm-eval's `auto` mixes up a given tokenizer with the server's
    prompting = prompting_from_spec(spec, chat_if_auto=False)
    if prompting.think_end is not None:
        defaults["think_end_token"] = prompting.think_end
    if prompting.enable_thinking is not None:
        defaults["enable_thinking"] = prompting.enable_thinking
    for key in [key for key in defaults if key not in names and not (key == "device" and has_kwargs and not is_server)]:
        value = defaults.pop(key)
        if key in ("think_end_token", "enable_thinking") and spec.kind not in _OPENAI_BACKENDS:
            raise ModelError(f"model {spec.name}: {spec.kind} cannot be told {key}={value}.")
    return {key: value for key, value in defaults.items() if key not in arguments}


def _find_init_parameters(lm_class: Any) -> tuple[set[str], bool]:
    """Names of the constructor arguments of a class and its bases, and whether the last of them takes any."""
    names: set[str] = set()
    has_kwargs = True
    for cls in inspect.getmro(lm_class):
        if "__init__" not in vars(cls) or cls is object:
            continue
        parameters = inspect.signature(vars(cls)["__init__"]).parameters.values()
        names |= {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)} - {"self"}
        has_kwargs = any(p.kind is p.VAR_KEYWORD for p in parameters)
        if not has_kwargs:
            break
    return names, has_kwargs


def _prompting(spec: ModelSpec, lm: Any) -> PromptSettings:
    tokenizer = getattr(lm, "tokenizer", None)
    has_template = bool(getattr(tokenizer, "chat_template", None))
    prompting = prompting_from_spec(spec, chat_if_auto=spec.kind in _CHAT_BACKENDS or has_template)
    if prompting.chat_template and spec.kind not in _CHAT_BACKENDS and not has_template:
        raise ModelError(f"model {spec.name}: chat_template=on, but its tokenizer has no chat template.")
    if spec.kind in _OPENAI_BACKENDS:
        lm.think_end, lm.enable_thinking = prompting.think_end, prompting.enable_thinking
    return prompting


def _model_identity(spec: ModelSpec, lm: Any, prompting: PromptSettings, run_id: str) -> dict[str, Any]:
    """Identity of a model whose weights are not seen: the endpoint, the name asked for, the arguments, the run."""
    arguments = spec.arguments
    weights = arguments.get("pretrained") or arguments.get("model") or ""
    tokenizer = arguments.get("tokenizer") or weights
    return {
        "kind": spec.kind,
        "endpoint": _url_without_secrets(str(getattr(lm, "base_url", None) or arguments.get("base_url") or "")) or None,
        "model": Path(weights).name if Path(weights).is_absolute() else weights,
        "weights": file_hashes(Path(weights), ("*.safetensors", "*.json")) if Path(weights).is_dir() else None,
        "tokenizer": file_hashes(Path(tokenizer), TOKENIZER_FILES) if Path(tokenizer).is_dir() else tokenizer,
        "arguments": {key: mask_secrets(arguments[key]) for key in sorted(set(arguments) - _IDENTITY_ARGUMENTS)},
        "max_length": getattr(lm, "max_length", None),
        "add_bos_token": getattr(lm, "add_bos_token", None),
        "prompting": prompting.as_text(),
        "run": run_id or uuid4().hex,
    }


def _url_without_secrets(url: str) -> str:
    """A server's address without user, password and query."""
    url_parts = urlsplit(url)
    return urlunsplit((url_parts.scheme, url_parts.netloc.rpartition("@")[2], url_parts.path, "", ""))


@contextmanager
def _start_errors(spec: ModelSpec) -> Iterator[None]:
    """Turn whatever starting a backend raises into one `ModelError`: each has needs and exceptions of its own."""
    try:
        yield
    except ModelError:
        raise
    except ImportError as error:
        reason = f"needs {error.name}, which is missing. pip install {error.name}"
        if not error.name:
            reason = f"cannot start: {error}"
        raise ModelError(f"model {spec.name}: the backend {spec.kind} {mask_secrets(reason)}") from error
    except Exception as error:
        if isinstance(error, OSError) and spec.kind in _OPENAI_BACKENDS and "tokenizer" not in spec.arguments:
            raise ModelError(
                f"model {spec.name}: its prompts are counted in tokens, no tokenizer= was given, and its name on the "
                f"server leads to none ({error_line(error)}). Say tokenizer=CKPT, a directory or hub name."
            ) from error
        raise ModelError(
            f"model {spec.name}: lm-eval cannot start {spec.location}: {type(error).__name__}: {error_line(error)}"
        ) from error
