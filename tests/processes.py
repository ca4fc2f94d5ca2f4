"""Processes for tests that need several: forked from a server that loaded torch once, not importing it anew each."""

from multiprocessing import get_context
from multiprocessing.context import ForkServerContext


def warm_context(_method: str = "spawn") -> ForkServerContext:
    """A context whose processes start in milliseconds. It may stand in for `get_context`, whatever method is named."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["tests.preloaded"])  # read when the first process starts
    return context
