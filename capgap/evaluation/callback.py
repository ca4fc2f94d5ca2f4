"""In-training evaluation: a callback of transformers' Trainer, and of what is built on it (TRL, axolotl).

    trainer.add_callback(BatteryCallback("core", out="capgap-out/pilot", limit=100))

Each checkpoint that the trainer saves is evaluated as `capgap evaluate` would, into one run directory, so that
``capgap analyze`` and the report have the whole curve.
"""

import random
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from capgap.errors import CapgapError
from capgap.evaluation.plan import EvaluationPlan
from capgap.evaluation.run import evaluate
from capgap.models import parse_model


class BatteryCallback(TrainerCallback):  # type: ignore[misc]
    """Evaluates every checkpoint when it is saved.

    Parameters
    ----------
    batteries
        Names or files.
    out
        Run directory, shared by all checkpoints; its ledger asks nothing twice.
    limit
        Items a task at most.
    device
        Where the checkpoint is run; default: the best there is. It is loaded beside the model that trains.
    options
        Keys of a model spec, such as ``chat_template=on``.

    Notes
    -----
    Mean scores by capability stand in ``state.log_history`` as ``capgap/CAPABILITY``, and reach the trainer's loggers
    with its next log. What goes wrong is a warning: a training is worth more than a look at it.
    """

    def __init__(
        self,
        batteries: str | Sequence[str],
        *,
        out: Path | str,
        limit: int | None = None,
        device: str | None = None,
        options: str = "",
    ) -> None:
        self.batteries = (batteries,) if isinstance(batteries, str) else tuple(batteries)
        self.out, self.limit, self.device, self.options = Path(out), limit, device, options
        self._unlogged_means: dict[str, float] = {}

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Evaluate the checkpoint that has just been written."""
        if not state.is_world_process_zero:
            return
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        options = f",{self.options}" if self.options else ""
        try:
            spec = parse_model(f"step-{state.global_step}={folder}{options}")
            plan = EvaluationPlan(students=(spec,), batteries=self.batteries, limit=self.limit, device=self.device)
            with _preserved_random_state():
                run = evaluate(plan, self.out)
            outcomes = run.outcomes(plan.roles.names)
            run.save(state="done")
        except CapgapError as error:
            warnings.warn(f"step {state.global_step} was not evaluated: {error}", stacklevel=2)
            return
        task_means = outcomes[outcomes["primary"]].groupby(["capability", "task"], dropna=False)["score"].mean()
        means = task_means.groupby("capability", dropna=False).mean()
        self._unlogged_means = {f"capgap/{name}": float(value) for name, value in means.items()}
        state.log_history.append({"step": state.global_step, **self._unlogged_means})

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any
    ) -> None:
        """Hand the last means to the loggers, which read the same dictionary after this."""
        if logs is not None:
            logs.update(self._unlogged_means)
            self._unlogged_means = {}


@contextmanager
def _preserved_random_state() -> Iterator[None]:
    """Give the random generators of Python, numpy and torch back as they were: the training draws the same numbers."""
    import numpy as np
    import torch

    saved_states = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(saved_states[0])
            np.random.set_state(saved_states[1])
