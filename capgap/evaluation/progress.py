"""The progress of an evaluation as events: requests answered now, and those that the ledger had."""

from types import TracebackType
from typing import Self

from capgap.events import Advanced, Begun, Finished, Listener

__all__ = ["RequestProgress"]

_STAGE = "evaluating"


class RequestProgress:
    """Answered requests of all models, told to a listener; use it in a ``with`` statement.

    Parameters
    ----------
    n_requests
        Requests to all models together.
    on_event
        Hears of the stage ``evaluating``, never of more requests than there are.
    """

    def __init__(self, n_requests: int, on_event: Listener) -> None:
        self.n_requests = n_requests
        self.n_reported = 0
        """Requests that the listener has heard of: never more than `n_requests`."""
        self.n_computed = 0
        """Requests that a model has answered now."""
        self.n_from_ledger = 0
        """Requests whose answers the ledger had."""
        self._on_event = on_event

    def __enter__(self) -> Self:
        """Begin the stage."""
        self._on_event(Begun(_STAGE, self.n_requests, "request"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the stage, whole or not."""
        self._on_event(Finished(_STAGE))

    def show(self, status: str) -> None:
        """Say what is being worked on."""
        self._on_event(Advanced(_STAGE, 0, status))

    def count(self, computed: int, from_ledger: int) -> None:
        """Count answers, and report them."""
        self.n_computed += computed
        self.n_from_ledger += from_ledger
        self.report(computed + from_ledger)

    def report(self, n: int) -> None:
        """Report requests that are answered, as far as they are not reported already.

        What workers have answered is reported while they run, and their answers are then read from the ledger once
        more; equal requests are asked once, and counted as often as they stand in the tasks.
        """
        n = min(n, self.n_requests - self.n_reported)
        if n > 0:
            self.n_reported += n
            self._on_event(Advanced(_STAGE, n))
