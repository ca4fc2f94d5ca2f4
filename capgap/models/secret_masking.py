"""Keys of other people's servers: kept out of model words, and so out of run.json, the ledger, reports and messages."""

import os
import re

from capgap.errors import ModelError

__all__ = ["masked", "refuse_secrets"]

_NAMES = (
    r"[\w-]*(?:api|access|secret|private|subscription)[_-]?key|(?:auth|hf|access)[_-]?token|token|bearer|"
    r"[\w-]*secret|password|passwd|authorization|headers?|credentials?"
)
# An argument, or a part of an address' query; in the prose of a system prompt the same words stand behind a space.
_ARGUMENT = re.compile(rf"(?i)(?P<lead>^|[,:?&])(?P<name>{_NAMES}|(?<=[?&])(?:key|sig))=(?P<value>[^,&]*)")
_USER = re.compile(r"(?P<lead>://)(?P<value>[^/@,\s]+)@")
_VARIABLES = {
    "anthropic": "ANTHROPIC_API_KEY",
    "azure": "AZURE_OPENAI_API_KEY",
    "textsynth": "TEXTSYNTH_API_SECRET_KEY",
}


def refuse_secrets(word: str) -> None:
    """Refuse a model word that holds a key: it would stand in the shell's history and in the record of the run.

    Raises
    ------
    ModelError
        It holds one; the message doesn't.
    """
    found = _ARGUMENT.search(word)
    user = _USER.search(word)
    if found is None and user is None:
        return
    head = re.split(r"[:,]", word, maxsplit=1)[0].strip()[:40]
    what = f"{found['name']}=" if found is not None else "the user before the @ of its address"
    variable = next((name for key, name in _VARIABLES.items() if key in head), "OPENAI_API_KEY")
    raise ModelError(
        f"model {head}: {what} looks like a secret, and model words are kept in the record of a run. Leave it out and "
        f"put it into the environment: {variable} for the server, HF_TOKEN for the hub."
    )


def masked(text: str) -> str:
    """A text without what looks like a secret, and without the keys that this process' environment holds."""
    for name, value in os.environ.items():
        if len(value) >= 8 and re.search(r"(?i)(key|token|secret|password)$", name):
            text = text.replace(value, "…")
    text = _USER.sub(r"\g<lead>", text)
    return _ARGUMENT.sub(r"\g<lead>\g<name>=…", text)
