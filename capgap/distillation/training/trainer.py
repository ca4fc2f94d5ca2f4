"""The training run: transformers' Trainer over a fixed plan, with the loss of a step divided once by its tokens.

One batch of Trainer's is a whole optimizer step: `_Trainer.training_step` runs its forward passes one after the other,
so that their number may differ from step to step.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from capgap.distillation.config import DistillConfig
from capgap.distillation.training.batch_source import StoredBatches
from capgap.distillation.training.loss_engine import LossEngine
from capgap.distillation.training.micro_batches import MicroBatch, n_inputs
from capgap.distillation.training.objectives import Objective
from capgap.distillation.training.on_policy import OnPolicyBatches
from capgap.distillation.training.step_plan import StepPlan
from capgap.errors import DistillError
from capgap.models import choose_device

__all__ = ["StepLoss", "TrainingResult", "last_checkpoint", "train"]

Save = Callable[[Path, int], None]

_SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}
_STATE = "trainer_state.json"
_TERMS = ("loss", "divergence", "cross_entropy", "gated")
_EXPLODED = 1e4  # times the first step's loss, or so many nats a token


@dataclass(frozen=True)
class TrainingResult:
    """What a training run came to."""

    steps: int
    """Optimizer steps."""
    tokens: int | None
    """Tokens that were learnt from, padding not counted; None where texts were written on the way and the run was
    taken up again, so that nobody knows all of them."""
    loss_tokens: int | None
    """Those of them that carried loss."""
    losses: tuple[tuple[int, float], ...]
    """Mean loss, nats per token, up to each of some steps."""
    terms: tuple[dict[str, float], ...]
    """The same with what the loss is made of: see `StepLoss`."""
    seconds: float
    """Time of this call; a part only where the run was taken up again."""


@dataclass(frozen=True)
class StepLoss:
    """What a step came to, nats per token that carries loss."""

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
    loss_tokens: int
    """Those of them that carried loss."""

    def words(self, objective: Objective) -> str:
        """For a line of progress."""
        if objective.divergence is None:
            return f"loss {self.loss:.4f}"
        parts = [f"loss {self.loss:.4f}", f"{objective.divergence} {self.divergence:.4f}"]
        if objective.cross_entropy:
            parts.append(f"cross_entropy {self.cross_entropy:.4f}")
        if objective.max_entropy is not None:
            parts.append(f"gated {self.gated:.0%}")
        return ", ".join(parts)


class _PlannedTrainer(Trainer):  # type: ignore[misc]
    """Trainer over whole steps of packed passes, which stops where a number is not finite."""

    def __init__(self, *, engine: LossEngine, plan: StepPlan, items: Sequence[str], save: Save, **options: Any) -> None:
        super().__init__(**options)
        self.engine, self.plan, self.items, self._save_to = engine, plan, items, save
        self.terms: list[StepLoss] = []
        """What each step of this process came to."""
        self._trainable = [p for p in options["model"].parameters() if p.requires_grad]

    def get_train_dataloader(self) -> Any:
        loader: Any = DataLoader(
            self.train_dataset,
            batch_sampler=[list(step) for step in self.plan.steps],
            collate_fn=self.data_collator,
            num_workers=0,
        )
        # accelerate's loader serves several processes; the tiny models feel its weight
        return loader

    def training_step(self, model: Any, inputs: Sequence[MicroBatch], num_items_in_batch: Any = None) -> torch.Tensor:
        """Forward and backward of all passes of a step; what they add up to is the step's own mean."""
        weight = float(sum(one.weights.double().sum() for one in inputs))
        told: list[torch.Tensor] = []
        for one in inputs:
            one = one.to(self.args.device)
            with self.engine.in_use():
                # accelerate puts autocast around the model's own forward, which is not what runs here
                with torch.autocast(self.args.device.type, torch.bfloat16, enabled=self.args.bf16):
                    loss = self.engine.loss(one)
                (loss.total / weight).backward()  # type: ignore[no-untyped-call]
            sums = torch.stack([loss.total.detach(), loss.divergence, loss.cross_entropy, loss.n_gated])
            if not bool(torch.isfinite(sums).all()):
                self._stop(one.examples, f"the loss is {float(sums[0]):g}")
            told.append(sums)
        n_tokens = sum(len(one.labels) for one in inputs)
        total, divergence, crossed, gated = (torch.stack(told).sum(dim=0) / weight).tolist()
        n_run = sum(len(one.ids) - len(one.virtual) for one in inputs)
        self.terms.append(StepLoss(total, divergence, crossed, gated * weight / n_tokens, n_run, n_tokens))
        if total > _EXPLODED * max(self.terms[0].loss, 1.0):
            self._stop(inputs[0].examples, f"the loss has grown from {self.terms[0].loss:.3g} to {total:.3g}")
        return torch.tensor(total)

    def _clip_grad_norm(self, model: Any) -> torch.Tensor:
        return torch.nn.utils.clip_grad_norm_(self._trainable, self.args.max_grad_norm)

    def floating_point_ops(self, inputs: Any) -> int:
        return 0  # counts every parameter in every step, which a tiny model feels

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        if not all_finite(self.model):
            self._stop((), "a weight is not finite")
        self._save_to(Path(output_dir or self.args.output_dir), self.state.global_step)

    def _stop(self, examples: Sequence[int], why: str) -> None:
        named = ", ".join(self.items[index] for index in examples[:8])
        more = f" and {len(examples) - 8} more" if len(examples) > 8 else ""
        good = last_checkpoint(Path(self.args.output_dir))
        raise DistillError(
            f"step {self.state.global_step + 1} of {self.plan.n_steps}: {why}."
            f"{f' Items of the pass: {named}{more}.' if named else ''}"
            f" Last good checkpoint: {good.name if good else 'none'}."
            f" Lower training.lr (it is {self.args.learning_rate:g}) or raise training.warmup."
        )


class _TrainerCallback(TrainerCallback):  # type: ignore[misc]
    """A bar on stderr with loss and speed, points of the learning curve, and a checkpoint every some minutes."""

    def __init__(self, *, minutes: float | None, show: bool) -> None:
        self._minutes, self._show = minutes, show
        self._bar: Any = None
        self.trainer: _PlannedTrainer | None = None

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._saved = self._started = time.monotonic()
        self._every = max(1, state.max_steps // 200)
        every_seconds = 0.5 if sys.stderr.isatty() else 15.0
        self._bar = tqdm(
            total=state.max_steps,
            initial=state.global_step,
            desc="distil",
            unit="step",
            file=sys.stderr,
            mininterval=every_seconds,
            disable=not self._show,
        )
        self._shown, self._done, self._every_seconds = 0.0, 0, every_seconds

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        assert self.trainer is not None
        now, step = time.monotonic(), state.global_step
        self._done += self.trainer.terms[-1].loss_tokens
        if step % self._every == 0 or step == state.max_steps:
            self._log(step, self.trainer.terms[-self._every :])
        if self._show and now - self._shown > self._every_seconds:
            speed = self._done / max(now - self._started, 1e-9)
            words = self.trainer.terms[-1].words(self.trainer.engine.objective)
            self._bar.set_postfix_str(f"{words}, {speed:,.0f} loss tokens/s", refresh=False)
            self._shown = now
        self._bar.update()
        if self._minutes is not None and now - self._saved > 60 * self._minutes and step < state.max_steps:
            control.should_save, self._saved = True, now

    def _log(self, step: int, recent: Sequence[StepLoss]) -> None:
        """A point of the curve: means since the last one, for the record and for the loggers."""
        assert self.trainer is not None
        point = {name: sum(getattr(t, name) for t in recent) / len(recent) for name in _TERMS}
        self.trainer.state.log_history.append({"step": step, **point})
        if self.trainer.args.report_to:
            self.trainer.control = self.trainer.callback_handler.on_log(
                self.trainer.args, self.trainer.state, self.trainer.control, dict(point)
            )

    def on_train_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._bar.close()


def train(
    engine: LossEngine,
    material: StoredBatches | OnPolicyBatches,
    config: DistillConfig,
    plan: StepPlan,
    *,
    out: Path,
    save: Save,
    device: str | None = None,
    show: bool = True,
) -> TrainingResult:
    """Train a student; its weights change in place.

    Parameters
    ----------
    engine
        The student and its objective.
    material
        The examples, encoded, with what teachers say to them.
    config, plan
        How, and in which order.
    out
        Directory for checkpoints; the newest whole one in it is where the run goes on.
    save
        Writes the weights into a directory; gets the step.
    device
        ``cpu``, ``cuda`` …; default: what Trainer finds.
    show
        Whether a bar goes to stderr.

    Raises
    ------
    DistillError
        A loss or a weight is not finite, or the device has too little memory.
    """
    model = engine.model
    minutes = None if config.training.save_steps else config.training.save_minutes
    progress = _TrainerCallback(minutes=minutes, show=show)
    trainer = _PlannedTrainer(
        engine=engine,
        plan=plan,
        items=material.items,
        save=save,
        model=model,
        args=_arguments(config, plan, out, device),
        train_dataset=list(range(len(material.examples))),
        data_collator=lambda step: material.passes(step, config.training.pass_tokens, engine.n_virtual),
        callbacks=[progress],
    )
    progress.trainer = trainer
    _only_ours(trainer)
    resume = last_checkpoint(out)
    model.train()
    started = time.monotonic()
    try:
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    except torch.OutOfMemoryError as error:
        raise DistillError(
            f"{config.name}: the device ran out of memory. Halve training.pass_tokens (it is "
            f"{config.training.pass_tokens}): the result is the same."
        ) from error
    if not all_finite(model):
        raise DistillError(f"{config.name}: a weight is not finite after the last step. Lower training.lr.")
    return _came_to(trainer, material, time.monotonic() - started)


def _came_to(trainer: _PlannedTrainer, material: StoredBatches | OnPolicyBatches, seconds: float) -> TrainingResult:
    points = [entry for entry in trainer.state.log_history if "loss" in entry]
    plan = trainer.plan
    tokens: int | None
    loss_tokens: int | None
    if isinstance(material, StoredBatches):
        tokens = sum(plan.per_step([n_inputs(example) + 1 for example in material.examples]))
        loss_tokens = sum(plan.per_step([example.n_loss for example in material.examples]))
    elif len(trainer.terms) == plan.n_steps:
        loss_tokens = sum(step.loss_tokens for step in trainer.terms)
        tokens = sum(step.tokens for step in trainer.terms) + sum(map(len, plan.steps))  # the last of each is learnt
    else:
        tokens = loss_tokens = None
    return TrainingResult(
        steps=plan.n_steps,
        tokens=tokens,
        loss_tokens=loss_tokens,
        losses=tuple((point["step"], point["loss"]) for point in points),
        terms=tuple({name: point[name] for name in ("step", *_TERMS)} for point in points),
        seconds=seconds,
    )


def last_checkpoint(out: Path) -> Path | None:
    """The newest whole ``checkpoint-N`` in a directory; Trainer writes its state last, so one without is partial."""
    found = []
    for folder in out.glob("checkpoint-*"):
        number = folder.name.removeprefix("checkpoint-")
        try:
            json.loads((folder / _STATE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if number.isdigit():
            found.append((int(number), folder))
    return max(found)[1] if found else None


def drop_checkpoints(out: Path, *, whole: bool) -> None:
    """Remove partial checkpoints, and whole ones too where asked."""
    for folder in out.glob("checkpoint-*"):
        try:
            json.loads((folder / _STATE).read_text(encoding="utf-8"))
            complete = True
        except (OSError, ValueError):
            complete = False
        if whole or not complete:
            shutil.rmtree(folder, ignore_errors=True)


def all_finite(model: Any) -> bool:
    """Whether every weight that trains is a number."""
    return all(bool(torch.isfinite(p).all()) for p in model.parameters() if p.requires_grad)


def _arguments(config: DistillConfig, plan: StepPlan, out: Path, device: str | None) -> TrainingArguments:
    training = config.training
    where = choose_device(device)
    if where.startswith("cuda:") and where != "cuda:0":
        raise DistillError(
            f"{config.name}: to train on {where}, set CUDA_VISIBLE_DEVICES={where[5:]} and leave --device out."
        )
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise DistillError(f"{config.name}: training in several processes is not in this version. Start one.")
    for logger in training.log_to:
        if find_spec(logger) is None:
            raise DistillError(f"{config.name}: training.log_to: {logger} is not installed. pip install {logger}")
    arguments = TrainingArguments(
        output_dir=str(out),
        max_steps=plan.n_steps,
        per_device_train_batch_size=1,  # a whole step, see `_PlannedTrainer`
        learning_rate=config.lr,
        lr_scheduler_type=_SCHEDULES[training.schedule],
        warmup_steps=round(training.warmup * plan.n_steps),
        weight_decay=training.weight_decay,
        adam_beta2=training.beta2,
        max_grad_norm=training.max_grad_norm,
        bf16=training.dtype == "bfloat16",
        use_cpu=where == "cpu",
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


def _only_ours(trainer: Trainer) -> None:
    """Take out Trainer's printer: stdout belongs to results."""
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)
