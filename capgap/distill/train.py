"""The training run: transformers' Trainer over a fixed plan, with the loss of a step divided once by its tokens."""

import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from capgap.distill.config import Config
from capgap.distill.plan import Plan
from capgap.distill.tokens import IGNORE, Collator, Encoded
from capgap.errors import DistillError
from capgap.models import choose_device

__all__ = ["Trained", "completion_loss", "last_checkpoint", "train"]

_SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}
_STATE = "trainer_state.json"


@dataclass(frozen=True)
class Trained:
    """What a training run came to."""

    steps: int
    """Optimizer steps."""
    tokens: int
    """Tokens that went through the model, padding not counted."""
    loss_tokens: int
    """Those of them that carried loss."""
    losses: tuple[tuple[int, float], ...]
    """Mean loss, nats per token, up to each of some steps."""
    seconds: float
    """Time of this call; a part only where the run was taken up again."""


def completion_loss(logits: torch.Tensor, labels: torch.Tensor, n_tokens: torch.Tensor | int) -> torch.Tensor:
    """Cross-entropy of the labelled tokens, nats: summed, then divided by the tokens of the whole optimizer step.

    Parameters
    ----------
    logits
        Shape (examples, positions, vocabulary); the prediction of the token that `labels` holds at that place.
    labels
        Shape (examples, positions); `IGNORE` where there is no loss.
    n_tokens
        Labelled tokens in all forward passes of the step.
    """
    labelled = labels != IGNORE
    summed = torch.nn.functional.cross_entropy(logits[labelled].float(), labels[labelled], reduction="sum")
    return summed / n_tokens


class _Trainer(Trainer):  # type: ignore[misc]
    """Trainer with a fixed plan of batches, a loss on completions only, and a stop where a number is not finite."""

    loss_is_scaled_for_ga = True

    def __init__(self, *, plan: Plan, items: Sequence[str], save: Callable[[Path, int], None], **options: Any) -> None:
        super().__init__(**options)
        self.plan, self.items, self._save_to = plan, items, save
        self.model_accepts_loss_kwargs = True  # makes Trainer count the labels of a whole step
        self.step_losses: list[float] = []
        self._n_passes: int | None = None
        self._keeps = "logits_to_keep" in _forward_names(options["model"])
        self._trainable = [p for p in options["model"].parameters() if p.requires_grad]

    def get_train_dataloader(self) -> Any:
        loader: Any = DataLoader(
            self.train_dataset,
            batch_sampler=[list(batch) for batch in self.plan.batches],
            collate_fn=self.data_collator,
            num_workers=0,
        )
        # accelerate's loader serves several processes; the tiny models feel its weight
        return loader

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        labels = inputs["labels"][:, 1:]
        # Padding stands on the right, where a causal model never looks from a token that has a label. Without a mask
        # torch takes its faster attention.
        asked = {"input_ids": inputs["input_ids"], "use_cache": False}
        if self._keeps:
            # the head is the dearest layer of a small model; project only where some row has a label
            positions = (labels != IGNORE).any(dim=0).nonzero().squeeze(1)
            outputs = model(**asked, logits_to_keep=positions)
            loss = completion_loss(outputs.logits, labels[:, positions], num_items_in_batch)
        else:
            outputs = model(**asked)
            loss = completion_loss(outputs.logits[:, :-1], labels, num_items_in_batch)
        return (loss, outputs) if return_outputs else loss

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        if self._n_passes is None:
            self._n_passes = self.state.global_step * self.plan.accumulation
        # What Trainer does here beside this serves other optimizers and several processes; a tiny model feels it.
        with self.compute_loss_context_manager():
            loss: torch.Tensor = self.compute_loss(model, self._prepare_inputs(inputs), False, num_items_in_batch)
        loss.backward()  # type: ignore[no-untyped-call]
        loss = loss.detach()
        value = loss.item()
        if not math.isfinite(value):
            self._stop(self.plan.batches[self._n_passes], f"the loss is {value}")
        if self._n_passes % self.plan.accumulation == 0:
            self.step_losses.append(0.0)
        self.step_losses[-1] += value
        self._n_passes += 1
        return loss

    def _clip_grad_norm(self, model: Any) -> torch.Tensor:
        return torch.nn.utils.clip_grad_norm_(self._trainable, self.args.max_grad_norm)

    def floating_point_ops(self, inputs: Any) -> int:
        return 0  # counts every parameter in every step, which a tiny model feels

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        if not all_finite(self.model):
            self._stop((), "a weight is not finite")
        self._save_to(Path(output_dir or self.args.output_dir), self.state.global_step)

    def _stop(self, batch: Sequence[int], why: str) -> None:
        named = ", ".join(self.items[index] for index in batch[:8])
        more = f" and {len(batch) - 8} more" if len(batch) > 8 else ""
        good = last_checkpoint(Path(self.args.output_dir))
        raise DistillError(
            f"step {self.state.global_step + 1} of {self.plan.n_steps}: {why}."
            f"{f' Items of the batch: {named}{more}.' if named else ''}"
            f" Last good checkpoint: {good.name if good else 'none'}."
            f" Lower training.lr (it is {self.args.learning_rate:g}) or raise training.warmup."
        )


class _Progress(TrainerCallback):  # type: ignore[misc]
    """A bar on stderr with loss and speed, points of the learning curve, and a checkpoint every some minutes."""

    def __init__(self, tokens: Sequence[int], *, minutes: float | None, show: bool) -> None:
        self._tokens = tokens  # of each optimizer step
        self._minutes, self._show = minutes, show
        self._bar: Any = None
        self.trainer: _Trainer | None = None

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
        self._done += self._tokens[step - 1]
        if step % self._every == 0 or step == state.max_steps:
            recent = self.trainer.step_losses[-self._every :]
            state.log_history.append({"step": step, "loss": sum(recent) / len(recent)})
        if self._show and now - self._shown > self._every_seconds:
            speed = self._done / max(now - self._started, 1e-9)
            self._bar.set_postfix_str(f"loss {self.trainer.step_losses[-1]:.4f}, {speed:,.0f} tokens/s", refresh=False)
            self._shown = now
        self._bar.update()
        if self._minutes is not None and now - self._saved > 60 * self._minutes and step < state.max_steps:
            control.should_save, self._saved = True, now

    def on_train_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._bar.close()


def train(
    model: Any,
    examples: Sequence[Encoded],
    config: Config,
    plan: Plan,
    *,
    out: Path,
    items: Sequence[str],
    save: Callable[[Path, int], None],
    pad: int,
    device: str | None = None,
    show: bool = True,
) -> Trained:
    """Train `model` on `examples` in the order of `plan`; its weights change in place.

    Parameters
    ----------
    model
        A causal language model of transformers, or peft's around one.
    examples, items
        The examples, encoded, and their ids for messages; shape (examples,).
    config, plan
        How, and in which order.
    out
        Directory for checkpoints; the newest whole one in it is where the run goes on.
    save
        Writes the weights into a directory; gets the step.
    pad
        Token id that fills up batches.
    device
        ``cpu``, ``cuda`` …; default: what Trainer finds.
    show
        Whether a bar goes to stderr.

    Raises
    ------
    DistillError
        A loss or a weight is not finite, or the device has too little memory.
    """
    sizes = [len(example.input_ids) for example in examples]
    per_step = _per_step(plan, sizes)
    progress = _Progress(
        per_step, minutes=None if config.training.save_steps else config.training.save_minutes, show=show
    )
    trainer = _Trainer(
        plan=plan,
        items=items,
        save=save,
        model=model,
        args=_arguments(config, plan, out, device),
        train_dataset=list(examples),
        data_collator=Collator(pad),
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
            f"{config.name}: the device ran out of memory. Halve training.batch_size and double "
            "training.gradient_accumulation: the result is the same."
        ) from error
    if not all_finite(model):
        raise DistillError(f"{config.name}: a weight is not finite after the last step. Lower training.lr.")
    return Trained(
        steps=plan.n_steps,
        tokens=sum(per_step),
        loss_tokens=sum(_per_step(plan, [example.n_loss for example in examples])),
        losses=tuple((entry["step"], entry["loss"]) for entry in trainer.state.log_history if "loss" in entry),
        seconds=time.monotonic() - started,
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


def _arguments(config: Config, plan: Plan, out: Path, device: str | None) -> TrainingArguments:
    training = config.training
    where = choose_device(device)
    if where.startswith("cuda:") and where != "cuda:0":
        raise DistillError(
            f"{config.name}: to train on {where}, set CUDA_VISIBLE_DEVICES={where[5:]} and leave --device out."
        )
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise DistillError(f"{config.name}: training in several processes is not in this version. Start one.")
    arguments = TrainingArguments(
        output_dir=str(out),
        max_steps=plan.n_steps,
        per_device_train_batch_size=training.batch_size,
        gradient_accumulation_steps=training.gradient_accumulation,
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
        report_to="none",
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


def _per_step(plan: Plan, sizes: Sequence[int]) -> list[int]:
    """Sums of `sizes` over the examples of each optimizer step."""
    per_pass = [sum(sizes[index] for index in batch) for batch in plan.batches]
    return [sum(per_pass[i : i + plan.accumulation]) for i in range(0, len(per_pass), plan.accumulation)]


def _forward_names(model: Any) -> set[str]:
    import inspect

    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return set(inspect.signature(inner.forward).parameters)
