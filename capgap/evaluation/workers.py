"""Several processes that fill one ledger: one for each GPU, or several for small models on a CPU.

The tables are made afterwards, by the main process and from the ledger alone. So the outcomes cannot depend on the
number of workers, and a worker that dies has lost nothing that it had answered.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from capgap.errors import StoreError
from capgap.evaluation.plan import EvaluationPlan
from capgap.evaluation.requests import Tasks, quiet
from capgap.evaluation.run_summary import ModelRunSummary
from capgap.models import Ledger
from capgap.models.memory_check import needs_several_gpus

__all__ = ["fill_ledger", "worker_shards"]


Job = tuple[int, tuple[int, int]]
"""Which model, and ``(k, n)``: which part of its requests."""


def worker_shards(plan: EvaluationPlan) -> list[tuple[int, list[Job]]]:
    """Jobs for the workers, in rounds: how many workers, and what they share.

    A model for each worker where there are many models; else every worker takes a part of each. A shard takes its own
    part of that. Models that need several GPUs come last, one at a time, when nobody else is on any of them.
    """
    large = [index for index, spec in enumerate(plan.models) if needs_several_gpus(spec)]
    small = [index for index in range(len(plan.models)) if index not in large]
    rounds = ((plan.n_workers, small), (1, large))
    return [(workers, _jobs(plan, indices, workers)) for workers, indices in rounds if indices]


def _jobs(plan: EvaluationPlan, indices: Sequence[int], workers: int) -> list[Job]:
    shard, shards = plan.shard or (0, 1)
    split = workers if len(indices) < 2 * workers else 1
    return [(index, (shard * split + k, shards * split)) for index in indices for k in range(split)]


def fill_ledger(
    plan: EvaluationPlan, ledger: Ledger, run_id: str, *, progress: Callable[[int], None]
) -> dict[str, list[ModelRunSummary]]:
    """Ask the models of the plan everything, several processes at a time.

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

    Returns
    -------
    dict
        Model → what its workers told.

    Raises
    ------
    CapgapError
        What a worker met; the others finish what they are at.
    """
    told: dict[str, list[ModelRunSummary]] = {}
    with _one_thread_each():
        for workers, jobs in worker_shards(plan):
            for asked in _round(plan, workers, jobs, ledger, run_id, progress):
                told.setdefault(asked.name, []).append(asked)
    return told


def _round(
    plan: EvaluationPlan,
    workers: int,
    jobs: Sequence[Job],
    ledger: Ledger,
    run_id: str,
    progress: Callable[[int], None],
) -> list[ModelRunSummary]:
    """What some workers told of some jobs."""
    context = get_context("spawn")
    devices = context.Queue()
    for n in range(workers):
        devices.put(plan.devices[n % len(plan.devices)] if plan.devices else plan.device)
    try:
        with ProcessPoolExecutor(
            max_workers=workers, mp_context=context, initializer=_settle, initargs=(devices,)
        ) as pool:
            shard = plan.shard_name
            running = [pool.submit(_ask_part, plan, index, part, ledger.main, shard, run_id) for index, part in jobs]
            _watch(running, ledger, progress)
    except BrokenProcessPool as error:
        raise StoreError(
            f"{ledger.path}: a worker died (out of memory?). The same command goes on where it stopped."
        ) from error
    return [job.result() for job in running]


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """What the workers inherit before they load torch."""
    threads = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        os.environ.pop("OMP_NUM_THREADS")
        if threads is not None:
            os.environ["OMP_NUM_THREADS"] = threads


_device: str | None = None
"""The device of this worker."""
_prepared: Tasks | None = None
"""The batteries of this worker, prepared by its first job."""


def _settle(devices: Any) -> None:
    """A worker takes a device for good."""
    global _device
    _device = devices.get()


def _ask_part(
    plan: EvaluationPlan, index: int, part: tuple[int, int], ledger: Path, shard: str | None, run_id: str
) -> ModelRunSummary:
    """A part of one model's requests, in a process of its own."""
    import torch

    global _prepared
    from capgap.evaluation.model_runner import run_shard
    from capgap.evaluation.run import prepared_batteries

    torch.set_num_threads(1)
    with quiet(), Ledger(ledger, shard=shard) as book:
        _prepared = _prepared or prepared_batteries(plan)
        return run_shard(plan, plan.models[index], _prepared, book, run_id, _device, part)


def _watch(jobs: list[Future[ModelRunSummary]], ledger: Ledger, progress: Callable[[int], None]) -> None:
    known = len(ledger)
    while not all(job.done() for job in jobs):
        time.sleep(0.5)
        now = len(ledger)
        progress(now - known)
        known = now
    for job in jobs:
        job.result()
