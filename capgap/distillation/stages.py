"""Progress events of one stage of a distillation."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from capgap.events import Advanced, Begun, Finished, Listener

__all__ = ["stage"]


@contextmanager
def stage(on_event: Listener, name: str, total: int | None, unit: str) -> Iterator[Callable[..., None]]:
    """Emit `Begun` before and `Finished` after a block, however it ends; yields a function that emits `Advanced`.

    Parameters
    ----------
    on_event
        Who hears of it.
    name, total, unit
        Of `Begun`. The yielded function takes ``n`` and ``status`` of `Advanced`.
    """
    on_event(Begun(name, total, unit))

    def advance(n: int = 1, status: str = "") -> None:
        on_event(Advanced(name, n, status))

    try:
        yield advance
    finally:
        on_event(Finished(name))
