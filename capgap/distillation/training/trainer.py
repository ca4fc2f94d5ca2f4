"""The training loop: transformers' Trainer over a step plan, with the loss of a step divided once by its tokens.

One batch of Trainer's is a whole optimizer step: `_Trainer.training_step` runs its forward passes one after the other,
so that their number may differ from step to step.
"""

import json
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from capgap.distillation.config_keys import TrainingKeys
from capgap.distillation.job import DistillJob
from capgap.distillation.training.batch_source import BatchSource
from capgap.distillation.training.divergences import Objective
from capgap.distillation.training.loss_engine import LossEngine
from capgap.distillation.training.micro_batches import MicroBatch
from capgap.distillation.training.step_plan import StepPlan
from capgap.errors import DistillError
from capgap.events import stage
from capgap.models import choose_device

__all__ = ["StepLoss", "TrainingResult", "drop_checkpoints", "last_checkpoint", "train"]

logger = logging.getLogger(__name__)

Save = Callable[[Path, int], None]
"""Writes the weights into a directory, at a step."""
Advance = Callable[[int, str], None]
"""Tells of steps done, and how it goes."""

_LR_SCHEDULER_TYPES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}
_TRAINER_STATE_FILE = "trainer_state.json"
_LOSS_TERMS = ("loss", "divergence", "cross_entropy", "gated")
_MAX_LOSS_GROWTH = 1e4  # times the first step's loss, or so many nats a token
_CURVE_POINTS = 200  # of the learning curve, at most about


@dataclass(frozen=True)
class TrainingResult:
    """Token counts and learning curve of a training run."""

    steps: int
    """Optimizer steps."""
    tokens: int | None
    """Tokens that were learnt from, padding not counted; None where texts were written on the way and the run was
    taken up again, so that nobody knows all of them."""
    n_loss_tokens: int | None
    """Those of them that carried loss."""
    terms: tuple[dict[str, float], ...]
    """The learning curve: of each of some steps, the means up to it of the loss and its parts; see `StepLoss`."""
    seconds: float
    """Time of this call; a part only where the run was taken up again."""

    @property
    def losses(self) -> tuple[tuple[int, float], ...]:
        """Step and loss, nats per token, of each point of the curve."""
        return tuple((int(point["step"]), point["loss"]) for point in self.terms)


@dataclass(frozen=True)
class StepLoss:
    """The loss of an optimizer step and its parts, nats per token that carries loss."""

    loss: float
    """What was minimised."""
    divergence: float
    """The divergence's weighted part of it, without the factor of the temperature."""
    cross_entropy: float
    """The cross-entropy's."""
    gated: float
    """Share of the tokens at which the teacher was too unsure."""
    tokens: int
    """Tokens that ran."""
    n_loss_tokens: int
    """Those of them that carried loss."""

    def words(self, objective: Objective) -> str:
        """The loss and its parts in a few words, for the status of a progress event."""
        if objective.divergence is None:
            return f"loss {self.loss:.4f}"
        loss_term_texts = [f"loss {self.loss:.4f}", f"{objective.divergence} {self.divergence:.4f}"]
        if objective.cross_entropy:
            loss_term_texts.append(f"cross_entropy {self.cross_entropy:.4f}")
        if objective.max_entropy is not None:
            loss_term_texts.append(f"gated {self.gated:.0%}")
        return ", ".join(loss_term_texts)


class _StepPlanTrainer(Trainer):  # type: ignore[misc]
    """Trainer over whole steps of packed passes, which stops where a number is not finite."""

    def __init__(
        self, job: DistillJob, engine: LossEngine, source: BatchSource, plan: StepPlan, save: Save, on_progress: Advance
    ) -> None:
        super().__init__(
            model=engine.model,
            args=_build_trainer_arguments(job, plan),
            train_dataset=list(range(len(source.items))),
            data_collator=lambda step: source.micro_batches(step, job.config.training.pass_tokens, engine.n_virtual),
        )
        self.remove_callback(PrinterCallback)  # stdout belongs to results
        self.add_callback(_TrainerCallback(self, job.config.training, on_progress))
        self.engine, self.plan, self.items, self._save_to = engine, plan, source.items, save
        self.terms: list[StepLoss] = []
        """The loss of each step of this process; shorter than the plan where the run was resumed."""
        self._trainable = [p for p in engine.model.parameters() if p.requires_grad]

    def get_train_dataloader(self) -> Any:
        # not accelerate's loader, which serves several processes: the tiny models feel its weight
        steps = [list(step) for step in self.plan.steps]
        return DataLoader(self.train_dataset, batch_sampler=steps, collate_fn=self.data_collator, num_workers=0)

    def training_step(self, model: Any, inputs: Sequence[MicroBatch], num_items_in_batch: Any = None) -> torch.Tensor:
        """Forward and backward of all passes of a step; the gradients that add up are those of the step's mean."""
        # Of the whole step, so that how it is cut into passes changes nothing.
        weight = float(sum(batch.weights.double().sum() for batch in inputs))
        pass_loss_sums: list[torch.Tensor] = []
        for batch in inputs:
            batch = batch.to(self.args.device)
            with self.engine.in_use():
                # accelerate puts autocast around the model's own forward, which is not what runs here
                with torch.autocast(self.args.device.type, torch.bfloat16, enabled=self.args.bf16):
                    loss = self.engine.loss(batch)
                (loss.total / weight).backward()  # type: ignore[no-untyped-call]
            sums = torch.stack([loss.total.detach(), loss.divergence, loss.cross_entropy, loss.n_high_entropy])
            if not bool(torch.isfinite(sums).all()):
                self._raise_at_step(batch.indices, f"the loss is {float(sums[0]):g}")
            pass_loss_sums.append(sums)
        n_tokens = sum(len(batch.labels) for batch in inputs)
        total, divergence, cross_entropy, gated = (torch.stack(pass_loss_sums).sum(dim=0) / weight).tolist()
        n_run_tokens = sum(len(batch.ids) - len(batch.virtual) for batch in inputs)
        self.terms.append(StepLoss(total, divergence, cross_entropy, gated * weight / n_tokens, n_run_tokens, n_tokens))
        if total > _MAX_LOSS_GROWTH * max(self.terms[0].loss, 1.0):
            self._raise_at_step(inputs[0].indices, f"the loss has grown from {self.terms[0].loss:.3g} to {total:.3g}")
        return torch.tensor(total)

    def _clip_grad_norm(self, model: Any) -> torch.Tensor:
        return torch.nn.utils.clip_grad_norm_(self._trainable, self.args.max_grad_norm)

    def floating_point_ops(self, inputs: Any) -> int:
        return 0  # counts every parameter in every step, which a tiny model feels

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        if not all_finite(self.model):
            self._raise_at_step((), "a weight is not finite")
        self._save_to(Path(output_dir or self.args.output_dir), self.state.global_step)

    def _raise_at_step(self, indices: Sequence[int], reason: str) -> None:
        """Raise with the step, the items of the pass and the last checkpoint."""
        items = ", ".join(self.items[index] for index in indices[:8])
        omitted_items_note = f" and {len(indices) - 8} more" if len(indices) > 8 else ""
        checkpoint = last_checkpoint(Path(self.args.output_dir))
        raise DistillError(
            f"step {self.state.global_step + 1} of {self.plan.n_steps}: {reason}."
            f"{f' Items of the pass: {items}{omitted_items_note}.' if items else ''}"
            f" Last good checkpoint: {checkpoint.name if checkpoint else 'none'}."
            f" Lower training.lr (it is {self.args.learning_rate:g}) or raise training.warmup."
        )


class _TrainerCallback(TrainerCallback):  # type: ignore[misc]
    """Progress with loss and speed, points of the learning curve, and a checkpoint every some minutes."""

    def __init__(self, trainer: _StepPlanTrainer, training: TrainingKeys, on_progress: Advance) -> None:
        self.trainer, self._advance = trainer, on_progress
        self._seconds_between_saves = math.inf if training.save_steps else 60 * training.save_minutes

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._saved = self._started = time.monotonic()
        self._steps_per_point = max(1, state.max_steps // _CURVE_POINTS)
        self._loss_tokens = 0
        if state.global_step:
            self._advance(state.global_step, "from a checkpoint")

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        now, step, terms = time.monotonic(), state.global_step, self.trainer.terms
        self._loss_tokens += terms[-1].n_loss_tokens
        if step % self._steps_per_point == 0 or step == state.max_steps:
            self._log_curve_point(step, terms[-self._steps_per_point :])
        tokens_per_second = self._loss_tokens / max(now - self._started, 1e-9)
        self._advance(1, f"{terms[-1].words(self.trainer.engine.objective)}, {tokens_per_second:,.0f} loss tokens/s")
        if now - self._saved > self._seconds_between_saves and step < state.max_steps:
            control.should_save, self._saved = True, now

    def _log_curve_point(self, step: int, recent_losses: Sequence[StepLoss]) -> None:
        """A point of the curve: means since the last one, for the record and for the loggers."""
        point = {name: sum(getattr(loss, name) for loss in recent_losses) / len(recent_losses) for name in _LOSS_TERMS}
        self.trainer.state.log_history.append({"step": step, **point})
        if self.trainer.args.report_to:
            self.trainer.control = self.trainer.callback_handler.on_log(
                self.trainer.args, self.trainer.state, self.trainer.control, dict(point)
            )


def train(job: DistillJob, engine: LossEngine, source: BatchSource, plan: StepPlan, save: Save) -> TrainingResult:
    """Train a student; its weights change in place.

    Parameters
    ----------
    job
        How, on which device, and the directory for checkpoints: the newest whole one in it is where the run goes on.
        Its listener hears of the stage "training", step by step.
    engine
        The student and its objective.
    source
        The micro-batches of each step.
    plan
        The examples of each step.
    save
        Writes the weights into a directory; gets the step.

    Raises
    ------
    DistillError
        A loss or a weight is not finite, or the device has too little memory.
    """
    config, model = job.config, engine.model
    resume_checkpoint = last_checkpoint(job.out)
    logger.debug("%s: %d steps, from %s", config.name, plan.n_steps, resume_checkpoint or "the beginning")
    with stage(job.on_event, "training", plan.n_steps, "step") as on_progress:
        trainer = _StepPlanTrainer(job, engine, source, plan, save, on_progress)
        model.train()
        started = time.monotonic()
        try:
            trainer.train(resume_from_checkpoint=str(resume_checkpoint) if resume_checkpoint else None)
        except torch.OutOfMemoryError as error:
            raise DistillError(
                f"{config.name}: the device ran out of memory. Halve training.pass_tokens (it is "
                f"{config.training.pass_tokens}): the result is the same."
            ) from error
    if not all_finite(model):
        raise DistillError(f"{config.name}: a weight is not finite after the last step. Lower training.lr.")
    return _collect_training_result(trainer, source, time.monotonic() - started)


def _collect_training_result(trainer: _StepPlanTrainer, source: BatchSource, seconds: float) -> TrainingResult:
    """Counts and curve of a run that has ended."""
    points = [entry for entry in trainer.state.log_history if "loss" in entry]
    plan = trainer.plan
    counts = source.token_counts(plan)
    if counts is None and len(trainer.terms) == plan.n_steps:  # this process saw every step
        n_tokens = sum(step.tokens for step in trainer.terms) + sum(map(len, plan.steps))  # the last of each is learnt
        counts = n_tokens, sum(step.n_loss_tokens for step in trainer.terms)
    tokens, n_loss_tokens = counts or (None, None)
    return TrainingResult(
        steps=plan.n_steps,
        tokens=tokens,
        n_loss_tokens=n_loss_tokens,
        terms=tuple({name: point[name] for name in ("step", *_LOSS_TERMS)} for point in points),
        seconds=seconds,
    )


def last_checkpoint(out: Path) -> Path | None:
    """The newest whole ``checkpoint-N`` in a directory."""
    step_folders = {folder.name.removeprefix("checkpoint-"): folder for folder in out.glob("checkpoint-*")}
    complete = {int(step): folder for step, folder in step_folders.items() if step.isdigit() and _is_complete(folder)}
    return complete[max(complete)] if complete else None


def drop_checkpoints(out: Path, *, drop_complete: bool) -> None:
    """Remove partial checkpoints, and whole ones too where asked."""
    for folder in out.glob("checkpoint-*"):
        if drop_complete or not _is_complete(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _is_complete(folder: Path) -> bool:
    """Whether a checkpoint was written to its end: Trainer writes its state last."""
    try:
        json.loads((folder / _TRAINER_STATE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


def all_finite(model: Any) -> bool:
    """Whether every weight that trains is a number."""
    return all(bool(torch.isfinite(p).all()) for p in model.parameters() if p.requires_grad)


def _build_trainer_arguments(job: DistillJob, plan: StepPlan) -> TrainingArguments:
    """Trainer's arguments, or an error where it cannot train on this device or log as asked."""
    config, training = job.config, job.config.training
    device = choose_device(job.device)
    if device.startswith("cuda:") and device != "cuda:0":
        advice = f"set CUDA_VISIBLE_DEVICES={device[5:]} and leave --device out."
        raise DistillError(f"{config.name}: to train on {device}, {advice}")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise DistillError(f"{config.name}: training in several processes is not in this version. Start one.")
    for package in training.log_to:
        if find_spec(package) is None:
            raise DistillError(f"{config.name}: training.log_to: {package} is not installed. pip install {package}")
    arguments = TrainingArguments(
        output_dir=str(job.out),
        max_steps=plan.n_steps,
        per_device_train_batch_size=1,  # a whole step, see `_StepPlanTrainer`
        learning_rate=config.lr,
        lr_scheduler_type=_LR_SCHEDULER_TYPES[training.schedule],
        warmup_steps=round(training.warmup * plan.n_steps),
        weight_decay=training.weight_decay,
        adam_beta2=training.beta2,
        max_grad_norm=training.max_grad_norm,
        bf16=training.dtype == "bfloat16",
        use_cpu=device == "cpu",
        seed=config.seed,
        logging_strategy="no",
        logging_nan_inf_filter=False,
        save_strategy="steps" if training.save_steps else "no",
        save_steps=training.save_steps or 500,
        save_total_limit=None if training.keep_checkpoints else 2,
        report_to=list(training.log_to) or "none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # never DataParallel: it would split a batch behind the plan's back
    return arguments
