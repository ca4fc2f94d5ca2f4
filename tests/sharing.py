"""What is dear to compute and only read: by one process of a test run, for all of them."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from filelock import FileLock

T = TypeVar("T")


def once_a_run(name: str, make: Callable[[], T]) -> T:
    """What `make` returns, from the first process that asks for it by this name."""
    file = Path(os.environ["XDG_CACHE_HOME"]) / f"tests-{name}.pickle"
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{file}.lock"):
        if not file.exists():
            file.write_bytes(pickle.dumps(make()))
        return pickle.loads(file.read_bytes())  # type: ignore[no-any-return]
