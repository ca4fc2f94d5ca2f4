"""Worker processes that fill one ledger: one for each GPU, or several for small models on a CPU.

The tables are made afterwards, by the main process and from the ledger alone. So the outcomes cannot depend on the
number of workers, and a worker that dies has lost nothing that it had answered.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from capgap.errors import StoreError
from capgap.evaluation.model_runner import run_model_shard
from capgap.evaluation.plan import EvaluationPlan, ShardSpec
from capgap.evaluation.prepared_batteries import PreparedBatteries, prepare_batteries
from capgap.evaluation.requests import quiet
from capgap.evaluation.run_summary import ModelRunSummary
from capgap.models import Ledger
from capgap.models.memory_check import needs_several_gpus

__all__ = ["fill_ledger", "plan_worker_jobs"]

_logger = logging.getLogger(__name__)

ShardJob = tuple[int, ShardSpec]
"""Index of the model in the plan, and the part of its requests."""
OnProgress = Callable[[int], None]
"""Called with how many responses the ledger has gained since the last call."""


def plan_worker_jobs(plan: EvaluationPlan) -> list[tuple[int, list[ShardJob]]]:
    """Jobs for the workers, in rounds that follow each other: the number of workers, and what they share.

    A model for each worker where there are many models; else every worker takes a part of each. A shard takes its own
    part of that. Models that need several GPUs come last, one at a time, when nobody else is on any of them.
    """
    multi_gpu_indices = [index for index, spec in enumerate(plan.models) if needs_several_gpus(spec)]
    single_gpu_indices = [index for index in range(len(plan.models)) if index not in multi_gpu_indices]
    worker_rounds = ((plan.n_workers, single_gpu_indices), (1, multi_gpu_indices))
    return [(n_workers, _split_into_jobs(plan, indices, n_workers)) for n_workers, indices in worker_rounds if indices]


def _split_into_jobs(plan: EvaluationPlan, indices: Sequence[int], n_workers: int) -> list[ShardJob]:
    shard_index, n_shards = plan.shard or (0, 1)
    n_parts = n_workers if len(indices) < 2 * n_workers else 1
    # This machine's shard is cut into parts again: part k of shard s is part s * n_parts + k of all machines' parts.
    return [(index, (shard_index * n_parts + k, n_shards * n_parts)) for index in indices for k in range(n_parts)]


def fill_ledger(
    plan: EvaluationPlan, ledger: Ledger, run_id: str, *, on_progress: OnProgress
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
    on_progress
        Called in this process.

    Returns
    -------
    dict
        Model → the summaries of its workers.

    Raises
    ------
    CapgapError
        What a worker met; the others finish what they are at.
    """
    summaries: dict[str, list[ModelRunSummary]] = {}
    with _one_thread_each():
        # Rounds follow each other: a model that needs every GPU waits until no other worker holds one.
        for n_workers, jobs in plan_worker_jobs(plan):
            _logger.info("%d jobs for %d workers", len(jobs), n_workers)
            for summary in _run_jobs(plan, n_workers, jobs, ledger, run_id, on_progress):
                summaries.setdefault(summary.name, []).append(summary)
    return summaries


def _run_jobs(
    plan: EvaluationPlan, n_workers: int, jobs: Sequence[ShardJob], ledger: Ledger, run_id: str, on_progress: OnProgress
) -> list[ModelRunSummary]:
    """The summaries of some jobs, shared among processes that each take a device for good."""
    context = get_context("spawn")
    # A queue hands each worker its device: an executor's initializer gets the same arguments in every process.
    devices = context.Queue()
    for n in range(n_workers):
        devices.put(plan.devices[n % len(plan.devices)] if plan.devices else plan.device)
    try:
        with ProcessPoolExecutor(
            max_workers=n_workers, mp_context=context, initializer=_take_worker_device, initargs=(devices,)
        ) as pool:
            futures = [
                pool.submit(_run_job, plan, index, shard, ledger.main, plan.shard_name, run_id) for index, shard in jobs
            ]
            _report_progress(futures, ledger, on_progress)
    except BrokenProcessPool as error:
        raise StoreError(
            f"{ledger.path}: a worker died (out of memory?). The same command goes on where it stopped."
        ) from error
    return [future.result() for future in futures]


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """One OpenMP thread a worker: they inherit the variable before they load torch."""
    threads = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        os.environ.pop("OMP_NUM_THREADS")
        if threads is not None:
            os.environ["OMP_NUM_THREADS"] = threads


# State of one worker process: set once by its initializer and its first job.
_worker_device: str | None = None
_worker_batteries: PreparedBatteries | None = None


def _take_worker_device(devices: Any) -> None:
    global _worker_device
    _worker_device = devices.get()


def _run_job(
    plan: EvaluationPlan, index: int, shard: ShardSpec, ledger: Path, shard_name: str | None, run_id: str
) -> ModelRunSummary:
    """A part of one model's requests, in a worker process."""
    import torch

    global _worker_batteries
    torch.set_num_threads(1)
    with quiet(), Ledger(ledger, shard=shard_name) as worker_ledger:
        _worker_batteries = _worker_batteries or prepare_batteries(plan)
        plan = replace(plan, device=_worker_device)
        return run_model_shard(plan, plan.models[index], _worker_batteries, worker_ledger, run_id, shard)


def _report_progress(futures: list[Future[ModelRunSummary]], ledger: Ledger, on_progress: OnProgress) -> None:
    """Report, twice a second, what the ledger has gained, until all jobs are done; raise what one of them raised."""
    n_known = len(ledger)
    while not all(future.done() for future in futures):
        time.sleep(0.5)
        n_responses_now = len(ledger)
        on_progress(n_responses_now - n_known)
        n_known = n_responses_now
    for future in futures:
        future.result()
