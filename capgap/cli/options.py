"""Options that several commands share, and CPU threads; nothing heavy is imported before a command runs."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

_Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

DEFAULT_MARGIN = 2
"""`capgap.analysis.EQUIVALENCE_MARGIN` in points, for ``--help``, which imports no statistics."""

items_option: _Decorator = click.option(
    "--items", type=click.Choice(["some", "none"]), default="some", show_default=True,
    help="Whether item and response texts stand in the report.",
)  # fmt: skip
json_option: _Decorator = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
margin_option: _Decorator = click.option(
    "--margin", type=click.FloatRange(0, 100, min_open=True, max_open=True), metavar="POINTS",
    help="A student within so many points of its teacher counts as its equal.  "
    f"[default: what DIR remembers, else {DEFAULT_MARGIN}]",
)  # fmt: skip
labels_option: _Decorator = click.option(
    "--labels", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Labels of capgap classify, for items that declare none.  [default: read from their text]",
)  # fmt: skip
data_root_option: _Decorator = click.option(
    "--data-root", type=click.Path(path_type=Path, file_okay=False), envvar="CAPGAP_DATA",
    help="Where batteries find their data beside their own folder; default CAPGAP_DATA.",
)  # fmt: skip
_allow_code_option = click.option(
    "--allow-code", is_flag=True, help="Run Python code that models bring with them (auto_map). Read it first."
)
_allow_pickle_option = click.option(
    "--allow-pickle", is_flag=True, help="Load weights that are only there as pickles (*.bin)."
)


def add_permission_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--allow-code`` and ``--allow-pickle``, for all models of a command; for one alone: ``CKPT,allow_code=on``."""
    return _allow_code_option(_allow_pickle_option(command))


def set_threads(threads: int | None) -> None:
    """Set torch's CPU threads: as many as asked for, else OMP_NUM_THREADS, else the idle cores.

    Threads that share a busy core wait for each other by spinning and can be ten times slower than one.
    """
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    load_average = round(os.getloadavg()[0]) if hasattr(os, "getloadavg") else 0
    torch.set_num_threads(threads or int(os.environ.get("OMP_NUM_THREADS") or 0) or max(1, cores - load_average))
