"""From a distillation file to a checkpoint: everything in its order, each part once."""

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from capgap.distill.config import Config
from capgap.distill.data import Chosen, Example, choose, data_hash
from capgap.distill.identity import FINISHED, begin, finished, identity, recipe
from capgap.distill.pool import Pool, gather
from capgap.distill.targets import gold_answer, gold_trace
from capgap.distill.teacher import Said, ask
from capgap.distill.tokens import Encoded, Encoder
from capgap.errors import DistillError, StoreError

__all__ = ["distill"]

STORY = "distill.json"
"""What was asked and how it went: identity, counts, the teacher's accuracy, the loss on the way."""


@dataclass(frozen=True)
class _Lesson:
    """What is trained on."""

    examples: tuple[Example, ...]
    encoded: tuple[Encoded, ...]
    n_too_long: int
    n_cut: int
    data_hash: str


def distill(
    config: Config,
    out: Path | str,
    *,
    folder: Path | str = ".",
    device: str | None = None,
    ledger: Path | str | None = None,
    progress: bool = True,
) -> Path:
    """Make the student that a distillation file describes.

    Parameters
    ----------
    config
        The file, see `load_config`.
    out
        Directory of the checkpoint. One that holds this student finished is returned at once; a part of it is gone on
        with; anything else in it is refused.
    folder
        Relative files of the distillation file count from here: where it lies.
    device
        ``cpu``, ``cuda`` …; default: the best there is.
    ledger
        SQLite file of the teacher's responses, which several students may share; default ``out/ledger.sqlite``.
    progress
        Whether lines and bars go to stderr.

    Returns
    -------
    Path
        `out`: weights (or adapter), tokenizer, ``distill.json``, and, written last, ``capgap.json``: the student's row
        of the models table.

    Raises
    ------
    DistillError, BatteryError, ModelError, StoreError
        See their messages; what was done is kept, and the same command goes on.
    """
    out, folder = Path(out), Path(folder)
    told = _Told(progress)
    with _disk(out):
        wanted = identity(config, out, folder=folder)
        if finished(out, wanted):
            told(f"{config.name}: is finished in {out}")
            return out
        begin(out, wanted)
        pool = gather(config, folder=folder)
        chosen = choose(pool.examples, config, held_out=pool.held_out)
        told(_choice_line(config, chosen, pool))
        said = _heard(config, chosen, ledger=Path(ledger or out / "ledger.sqlite"), device=device, told=told)
        pairs = list(said.pairs) if said else _gold(config, chosen)
        _train(config, out, chosen=chosen, pairs=pairs, said=said, wanted=wanted, device=device, told=told)
    return out


def _heard(config: Config, chosen: Chosen, *, ledger: Path, device: str | None, told: "_Told") -> Said | None:
    """What the teacher says to the chosen prompts; None for a control, which has no teacher."""
    if config.is_control:
        return None
    import torch

    assert config.teacher is not None
    torch.manual_seed(config.seed)  # a temperature above 0 samples
    with told.bar("teacher", len(chosen.examples)) as step:
        said = ask(
            config.teacher,
            chosen.examples,
            config.supervision,
            config.generation,
            ledger=ledger,
            device=device,
            progress=step,
        )
    right = "unknown" if said.accuracy is None else f"{said.accuracy:.1%}"
    dropped = f"{said.n_unparsed} unreadable, {said.n_cut} cut, {said.n_wrong_dropped} wrong"
    told(f"{config.name}: the teacher is right on {right} of {said.n_asked:,} prompts; dropped: {dropped}")
    return said


def _gold(config: Config, chosen: Chosen) -> list[tuple[Example, str]]:
    """The gold completions of the chosen examples."""
    text: Callable[[Example], str] = gold_trace if config.supervision == "gold_traces" else gold_answer
    if config.supervision == "gold_traces" and any(example.messages is not None for example in chosen.examples):
        raise DistillError(
            f"{config.name}: messages have no rationale; use gold_answers, or prompt, completion, rationale."
        )
    return [(example, "" if example.messages is not None else text(example)) for example in chosen.examples]


def _train(
    config: Config,
    out: Path,
    *,
    chosen: Chosen,
    pairs: Sequence[tuple[Example, str]],
    said: Said | None,
    wanted: dict[str, Any],
    device: str | None,
    told: "_Told",
) -> None:
    import numpy as np
    from transformers import set_seed

    from capgap.distill.plan import lay_out
    from capgap.distill.students import adapt, load_student, save_student
    from capgap.distill.train import drop_checkpoints, train

    student = load_student(config, out)
    encoder = Encoder(
        student.tokenizer,
        max_length=config.training.max_length or student.max_length,
        chat=student.chat,
        system_prompt=student.system_prompt,
        template_options={} if student.enable_thinking is None else {"enable_thinking": student.enable_thinking},
    )
    lesson = _encode(config, encoder, pairs, n_embeddings=student.model.get_input_embeddings().weight.shape[0])
    training = config.training
    plan = lay_out(
        [len(encoded.input_ids) for encoded in lesson.encoded],
        batch_size=training.batch_size,
        accumulation=training.gradient_accumulation,
        epochs=training.epochs or (None if training.max_steps else 3.0),
        max_steps=training.max_steps,
        rng=np.random.default_rng([config.seed, 1]),
    )
    told(_lesson_line(config, lesson, plan.n_steps))
    set_seed(config.seed)
    model = adapt(student.model, config.lora, name=config.name) if config.adaptation == "lora" else student.model
    row = {
        **_row(config, student, model, chosen, lesson, out),
        "teachers": None if said is None else _teacher_word(config, out),
        "prompting": _prompting(student),
    }

    def save(place: Path, step: int) -> None:
        save_student(model, student.tokenizer, student.base, place)
        partial = {**row, "base": _word_from(student.base, place), "step": step, "steps": step}
        _write_json(place / FINISHED, partial)

    drop_checkpoints(out, whole=False)
    trained = train(
        model,
        lesson.encoded,
        config,
        plan,
        out=out,
        items=[f"{example.task}/{example.item}" for example in lesson.examples],
        save=save,
        pad=student.pad,
        device=device,
        show=told.on,
    )
    save_student(model, student.tokenizer, student.base, out)
    counts = {
        "steps": trained.steps,
        "tokens": trained.tokens,
        "loss_tokens": trained.loss_tokens,
        "epochs": plan.epochs,
    }
    story = _story(chosen, lesson, said, trained, wanted)
    _write_json(out / STORY, story)
    _write_json(out / FINISHED, {**row, **counts, **_written(out)})
    if not training.keep_checkpoints:
        drop_checkpoints(out, whole=True)
    told(
        f"{config.name}: {out} is finished; loss {trained.losses[0][1]:.4f} → {trained.losses[-1][1]:.4f} nats a token"
    )


def _encode(config: Config, encoder: Encoder, pairs: Sequence[tuple[Example, str]], *, n_embeddings: int) -> _Lesson:
    """The examples in tokens; those that are too long are left out and counted."""
    kept: list[tuple[Example, Encoded]] = []
    texts: list[tuple[str, str]] = []
    for example, completion in pairs:
        if example.messages is not None:
            encoded = encoder.messages(example.messages)
            text = ("", json.dumps(example.messages, ensure_ascii=False))
        else:
            encoded = encoder.pair(example.prompt, completion)
            text = (example.prompt, completion)
        if encoded is not None:
            kept.append((example, encoded))
            texts.append(text)
    if not kept:
        raise DistillError(
            f"{config.name}: no completion fits into {encoder.max_length} tokens. Raise training.max_length."
        )
    highest = max(max(encoded.input_ids) for _, encoded in kept)
    if highest >= n_embeddings:
        raise DistillError(
            f"{config.name}: the tokenizer gives id {highest}, and the student has {n_embeddings} embeddings: "
            "the tokenizer is another model's."
        )
    return _Lesson(
        examples=tuple(example for example, _ in kept),
        encoded=tuple(encoded for _, encoded in kept),
        n_too_long=len(pairs) - len(kept),
        n_cut=sum(encoded.cut > 0 for _, encoded in kept),
        data_hash=data_hash(texts),
    )


def _row(config: Config, student: Any, model: Any, chosen: Chosen, lesson: _Lesson, out: Path) -> dict[str, Any]:
    """The student's row of the models table, as far as it is known before training."""
    by_capability = Chosen(lesson.examples, 0, 0, 0).by_capability
    architecture = getattr(student.model.config, "text_config", None) or student.model.config
    parameters = list(model.parameters())
    n_trainable = sum(p.numel() for p in parameters if p.requires_grad)
    n_all = sum(p.numel() for p in parameters)
    return {
        "model": config.name,
        "recipe": recipe(config),
        "base": _word_from(student.base, out),
        "seed": config.seed,
        "data_seed": config.effective_data_seed,
        "base_seed": student.base_seed,
        "n_examples": config.n_examples or len(chosen.examples),
        "n_examples_by_capability": by_capability,
        "n_unique": len(lesson.examples),
        "diversity": config.diversity,
        "train_tasks": config.train_tasks,
        "architecture": (student.model.config.architectures or [type(student.model).__name__])[0],
        "n_params": n_all - (n_trainable if config.adaptation == "lora" else 0),
        "n_trainable": n_trainable,
        "n_layers": getattr(architecture, "num_hidden_layers", None),
        "width": getattr(architecture, "hidden_size", None),
        "adaptation": config.adaptation,
        "supervision": config.supervision,
        "objective": "cross_entropy",
        "lr": config.lr,
        "data_hash": lesson.data_hash,
    }


def _written(out: Path) -> dict[str, Any]:
    from capgap.models.checkpoint import file_hashes

    patterns = ("*.safetensors", "config.json", "generation_config.json", "adapter_config.json")
    return {"weights_hash": file_hashes(out, patterns), "created": datetime.now(UTC).isoformat(timespec="seconds")}


def _story(chosen: Chosen, lesson: _Lesson, said: Said | None, trained: Any, wanted: dict[str, Any]) -> dict[str, Any]:
    teacher = None
    if said is not None:
        teacher = {key: value for key, value in asdict(said).items() if key not in {"pairs", "facts"}}
        teacher["accuracy"] = said.accuracy
        teacher["weights_hash"] = said.facts.get("weights_hash")
    return {
        "identity": wanted,
        "n_available": chosen.n_available,
        "n_held_out": chosen.n_held_out,
        "n_repeated": chosen.n_repeated,
        "n_without_trace": chosen.n_without_trace,
        "n_trained_on": len(lesson.examples),
        "n_too_long": lesson.n_too_long,
        "n_prompts_cut": lesson.n_cut,
        "teacher": teacher,
        "losses": trained.losses,
        "seconds": round(trained.seconds, 1),
    }


def _prompting(student: Any) -> str:
    known = {"chat_template": student.chat, "system_prompt": student.system_prompt}
    known["enable_thinking"] = student.enable_thinking
    return json.dumps({key: value for key, value in known.items() if value is not None}, sort_keys=True)


def _teacher_word(config: Config, out: Path) -> str:
    from capgap.models import parse_model

    return _word_from(parse_model(config.teacher or "").word, out)


def _word_from(word: str, folder: Path) -> str:
    from capgap.distill.students import base_from

    return base_from(word, folder)


def _choice_line(config: Config, chosen: Chosen, pool: Pool) -> str:
    parts = ", ".join(f"{count:,} {capability}" for capability, count in chosen.by_capability.items())
    line = f"{config.name}: {len(chosen.examples):,} of {chosen.n_available:,} examples ({parts})"
    if chosen.n_held_out:
        line += f"; {chosen.n_held_out:,} are evaluation items and stay out"
    if chosen.n_without_trace:
        line += f"; {chosen.n_without_trace:,} choice examples have no steps and stay out"
    if pool.unchecked:
        line += f"; the items of {len(pool.unchecked)} tasks are not on this machine and were not compared"
    return line


def _lesson_line(config: Config, lesson: _Lesson, n_steps: int) -> str:
    n_tokens = sum(len(encoded.input_ids) for encoded in lesson.encoded)
    share = sum(encoded.n_loss for encoded in lesson.encoded) / n_tokens
    line = f"{config.name}: {n_tokens:,} tokens, {share:.0%} of them carry loss; {n_steps:,} steps"
    if lesson.n_too_long:
        line += f"; {lesson.n_too_long:,} completions are longer than training.max_length and were left out"
    if lesson.n_cut:
        line += f"; {lesson.n_cut:,} prompts were cut at their front"
    return line


class _Told:
    """Lines and bars on stderr, or silence."""

    def __init__(self, on: bool) -> None:
        self.on = on

    def __call__(self, line: str) -> None:
        if self.on:
            print(line, file=sys.stderr, flush=True)

    @contextmanager
    def bar(self, what: str, total: int) -> Iterator[Callable[[int, int], None]]:
        """A bar that is told of responses computed and found."""
        from tqdm import tqdm

        with tqdm(total=total, desc=what, unit="text", file=sys.stderr, disable=not self.on, mininterval=1.0) as bar:
            yield lambda computed, found: (bar.update(computed + found), None)[1]


@contextmanager
def _disk(out: Path) -> Iterator[None]:
    """What a disk says, as what the user can do about it."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise StoreError(
            f"{error.filename or out}: {reason}. Free some space or choose another --out; the same command goes on."
        ) from error


def _write_json(path: Path, content: dict[str, Any]) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(partial, path)
