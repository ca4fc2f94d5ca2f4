"""Secrets (API keys, passwords) refused in model specs and masked in messages and records."""

import os
import re

from capgap.errors import ModelError

_SECRET_NAMES = (
    r"[\w-]*(?:api|access|secret|private|subscription)[_-]?key|(?:auth|hf|access)[_-]?token|token|bearer|"
    r"[\w-]*secret|password|passwd|authorization|headers?|credentials?"
)
# An argument, or a part of an address' query; in the prose of a system prompt the same words stand behind a space.
_SECRET_SETTING = re.compile(rf"(?i)(?P<lead>^|[,:?&])(?P<name>{_SECRET_NAMES}|(?<=[?&])(?:key|sig))=(?P<value>[^,&]*)")
_URL_USER = re.compile(r"(?P<lead>://)(?P<value>[^/@,\s]+)@")
_API_KEY_VARIABLES = {
    "anthropic": "ANTHROPIC_API_KEY",
    "azure": "AZURE_OPENAI_API_KEY",
    "textsynth": "TEXTSYNTH_API_SECRET_KEY",
}


def refuse_secrets(text: str) -> None:
    """Refuse a model spec that holds a secret: it would stand in the shell's history and in the record of the run.

    Raises
    ------
    ModelError
        It holds one; the message doesn't.
    """
    argument = _SECRET_SETTING.search(text)
    user = _URL_USER.search(text)
    if argument is None and user is None:
        return
    spec = re.split(r"[:,]", text, maxsplit=1)[0].strip()[:40]
    field = f"{argument['name']}=" if argument is not None else "the user before the @ of its address"
    api_key_variable = next((name for key, name in _API_KEY_VARIABLES.items() if key in spec), "OPENAI_API_KEY")
    raise ModelError(
        f"model {spec}: {field} looks like a secret, and model specs are kept in the record of a run. Leave it out and "
        f"put it into the environment: {api_key_variable} for the server, HF_TOKEN for the hub."
    )


def mask_secrets(text: str) -> str:
    """A text without what looks like a secret, and without the keys that this process' environment holds."""
    for name, value in os.environ.items():
        if len(value) >= 8 and re.search(r"(?i)(key|token|secret|password)$", name):
            text = text.replace(value, "…")
    text = _URL_USER.sub(r"\g<lead>", text)
    return _SECRET_SETTING.sub(r"\g<lead>\g<name>=…", text)


def error_line(error: BaseException) -> str:
    """The first line of an exception's message, 300 characters at most, without secrets."""
    return mask_secrets((str(error).strip().splitlines() or [""])[0][:300])
