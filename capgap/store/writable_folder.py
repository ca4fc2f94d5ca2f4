"""What a disk says against writing, as one message."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from capgap.errors import StoreError


@contextmanager
def write_errors_explained(out_path: Path) -> Iterator[Path]:
    """The place, and what a disk says against writing there as a `StoreError`."""
    try:
        yield out_path
    except OSError as error:
        raise StoreError(f"{out_path}: cannot be written: {error.strerror or error}. Choose another --out.") from error
