"""The user's cache folder: what can be computed again is kept there, each file written atomically."""

import os
from pathlib import Path
from threading import get_ident


def user_cache() -> Path:
    """The folder of capgap's caches, ``$XDG_CACHE_HOME/capgap`` or ``~/.cache/capgap``; it need not exist."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(root) if os.path.isabs(root) else Path.home() / ".cache") / "capgap"


def write_cache_file(path: Path, content: bytes) -> None:
    """Write a file of the cache and the folders above it; other processes see it whole or not at all.

    Raises
    ------
    OSError
        The cache cannot be written. Every caller can do without it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial_path = path.with_name(f"{path.name}.{os.getpid()}-{get_ident()}.partial")
    try:
        partial_path.write_bytes(content)
        os.replace(partial_path, path)
    finally:
        partial_path.unlink(missing_ok=True)
