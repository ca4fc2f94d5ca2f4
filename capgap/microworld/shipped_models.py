"""The trained models that travel with the package, resolved to ordinary checkpoint folders.

The package holds the weights and configs of each model in a folder of its own, and the tokenizer files, which all of
them share, once. `checkpoint_folder` puts both together in the user's cache, where transformers and lm-eval load them
with nothing of capgap's. The package itself is only read, so it may lie where nobody can write.
"""

import atexit
import hashlib
import shutil
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from capgap.errors import ModelError, suggestion
from capgap.user_cache import user_cache, write_cache_file

_MODEL_DIR = Path(__file__).parent / "checkpoints"


def model_names() -> tuple[str, ...]:
    """The names behind ``microworld:`` in model specs, in alphabetical order."""
    return tuple(sorted(path.parent.name for path in _MODEL_DIR.glob("*/config.json")))


def checkpoint_folder(name: str) -> Path:
    """Folder of the model that ``microworld:NAME`` means: config, safetensors and tokenizer.

    The folder is named by the content of its files, so another version of capgap has another one. Files that are
    there already are compared, never trusted; each is replaced atomically, so several processes may resolve at once.

    Raises
    ------
    ModelError
        There is no such model.
    """
    names = model_names()
    if name not in names:
        raise ModelError(f"microworld:{name}: the microworld has no model of this name.{suggestion(name, names)}")
    sources = sorted(file for folder in (_MODEL_DIR, _MODEL_DIR / name) for file in folder.iterdir() if file.is_file())
    contents = {file.name: file.read_bytes() for file in sources}
    file_digests = [f"{file} {hashlib.sha256(content).hexdigest()}" for file, content in contents.items()]
    relative_folder = Path("microworld", hashlib.sha256("\n".join(file_digests).encode()).hexdigest()[:16], name)
    try:
        return _write_checkpoint(user_cache() / relative_folder, contents)
    except OSError:  # a home that cannot be written
        return _write_checkpoint(_make_temporary_folder() / relative_folder, contents)


def _write_checkpoint(folder: Path, contents: Mapping[str, bytes]) -> Path:
    """The folder, once all files are in it."""
    for file_name, content in contents.items():
        path = folder / file_name
        if not (path.is_file() and path.read_bytes() == content):
            write_cache_file(path, content)
    return folder


@cache
def _make_temporary_folder() -> Path:
    """A temporary folder that goes with this process."""
    folder = Path(tempfile.mkdtemp(prefix="capgap-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
