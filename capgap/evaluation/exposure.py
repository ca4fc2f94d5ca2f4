"""Exposure: how many training examples of a student touch an evaluation item, ``x_exposure`` of the outcomes.

`capgap distill` leaves a digest of every prompt beside the weights. Prompts are compared without case, runs of
whitespace and forms of a character; the texts themselves are not kept, so that a checkpoint can be given away.
"""

import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping

from capgap.errors import ModelError
from capgap.models import ModelSpec
from capgap.models.checkpoint import locate

EXPOSURE_FILE_NAME = "exposure.json"
"""In a checkpoint: digest of a prompt → how many training examples touch it."""


def normalised(prompt: str) -> str:
    """A prompt without what does not tell prompts apart: case, runs of whitespace, forms of one character."""
    return re.sub(r"\s+", " ", unicodedata.normalize("NFKC", prompt)).strip().casefold()


def prompt_digest(prompt: str) -> str:
    """Sixteen hex digits that stand for a prompt, `normalised` or not."""
    return hashlib.sha256(normalised(prompt).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def exposure_of(spec: ModelSpec) -> Mapping[str, int] | None:
    """How many training examples of a model touch a prompt, by its digest; None where nobody wrote it down.

    Raises
    ------
    ModelError
        The checkpoint's file of them is damaged.
    """
    if spec.kind != "checkpoint":
        return None
    folder = locate(spec).path
    # The intermediate checkpoints of a student share the file of the folder above.
    folders = [folder, folder.parent] if re.fullmatch(r"checkpoint-\d+", folder.name) else [folder]
    file = next((parent / EXPOSURE_FILE_NAME for parent in folders if (parent / EXPOSURE_FILE_NAME).is_file()), None)
    if file is None:
        return None
    try:
        n_examples = json.loads(file.read_text(encoding="utf-8"))["touches"]
        return {str(digest): int(n) for digest, n in n_examples.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{file}: cannot be read: {error!r}. Remove it, and the model's exposure counts as unknown."
        ) from error
