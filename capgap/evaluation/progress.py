"""Progress of an evaluation as events: requests that are computed now, and those that the ledger answers."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from capgap.events import Listener, stage


@contextmanager
def request_progress(n_requests: int, on_event: Listener) -> Iterator["RequestProgress"]:
    """Begin the stage ``evaluating`` of so many requests to all models, and finish it, whole or not."""
    with stage(on_event, "evaluating", n_requests, "request") as advance:
        yield RequestProgress(n_requests, advance)


@dataclass
class RequestProgress:
    """Counts of answered requests to all models, reported to a listener."""

    n_requests: int
    """Requests to all models together."""
    advance: Callable[..., None]
    """Of the `stage`; never gets more requests reported than there are."""
    n_reported_requests: int = 0
    """Requests in `Advanced` events so far."""
    n_computed: int = 0
    """Requests that a model has answered now."""
    n_ledger_hits: int = 0
    """Requests whose answers the ledger had."""

    def show(self, status: str) -> None:
        """Say what is being worked on."""
        self.advance(0, status)

    def count(self, n_computed: int, from_ledger: int) -> None:
        """Count answers, and report them."""
        self.n_computed += n_computed
        self.n_ledger_hits += from_ledger
        self.report(n_computed + from_ledger)

    def report(self, n: int) -> None:
        """Report requests that are answered, as far as they are not reported already.

        What workers have answered is reported while they run, and their answers are then read from the ledger once
        more; equal requests are asked once, and counted as often as they stand in the tasks.
        """
        n = min(n, self.n_requests - self.n_reported_requests)
        if n > 0:
            self.n_reported_requests += n
            self.advance(n)
