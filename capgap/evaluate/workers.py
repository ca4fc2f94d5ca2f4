"""Several models at a time: processes that fill one ledger, from which the run then takes every response.

The main process builds the tables afterwards as it always does. So the outcomes cannot depend on the number of
workers, and a worker that dies has lost nothing that it had answered.
"""

import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

from capgap.errors import StoreError
from capgap.evaluate.plan import Plan
from capgap.models import Ledger

__all__ = ["fill_ledger"]


def fill_ledger(plan: Plan, ledger: Path, run_id: str, *, progress: Callable[[int], None]) -> None:
    """Ask every model of the plan everything, `plan.workers` models at a time.

    Parameters
    ----------
    plan
        Models, batteries and settings.
    ledger
        The file that all processes write.
    run_id
        See `load_model`.
    progress
        Told how many responses the ledger has gained since the last call.

    Raises
    ------
    CapgapError
        What a worker met; the others finish what they are at.
    """
    threads = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"  # inherited by the workers, before they load torch
    try:
        with ProcessPoolExecutor(max_workers=plan.workers, mp_context=get_context("spawn")) as pool:
            jobs = [pool.submit(_ask_everything, plan, index, ledger, run_id) for index in range(len(plan.models))]
            _watch(jobs, ledger, progress)
    except BrokenProcessPool as error:
        raise StoreError(
            f"{ledger}: a worker died (out of memory?). The same command goes on where it stopped."
        ) from error
    finally:
        os.environ.pop("OMP_NUM_THREADS")
        if threads is not None:
            os.environ["OMP_NUM_THREADS"] = threads


def _ask_everything(plan: Plan, index: int, ledger: Path, run_id: str) -> None:
    """One model, in a process of its own."""
    import torch

    from capgap.evaluate.run import ask_into, prepared_batteries, quiet

    torch.set_num_threads(1)
    with quiet(), Ledger(ledger) as book:
        ask_into(plan, plan.models[index], prepared_batteries(plan), book, run_id)


def _watch(jobs: list[Future[None]], ledger: Path, progress: Callable[[int], None]) -> None:
    known = _count(ledger)
    while not all(job.done() for job in jobs):
        time.sleep(0.5)
        now = _count(ledger)
        progress(now - known)
        known = now
    for job in jobs:
        job.result()


def _count(ledger: Path) -> int:
    with Ledger(ledger) as book:
        return len(book)
