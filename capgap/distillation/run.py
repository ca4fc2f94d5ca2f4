"""`distill`: from a distillation file to a checkpoint, each step of the work once and in its order."""

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from capgap.distillation.config import DistillConfig
from capgap.distillation.data.pool import gather_examples
from capgap.distillation.data.selection import SelectedExamples, TrainingExample, count_exposure, select_examples
from capgap.distillation.data.targets import gold_completions
from capgap.distillation.data.tokenised import tokenise
from capgap.distillation.identity import MODEL_ROW_FILE, begin, identity, is_finished, locked
from capgap.distillation.job import DistillJob
from capgap.distillation.record import model_row, row_after_training, run_record
from capgap.distillation.students.construction import calibration_texts
from capgap.distillation.students.student import apply_adaptation, load_student, relativise_base_path, save_student
from capgap.distillation.teacher.generations import TeacherGenerations, generate_texts
from capgap.distillation.teacher.prompt_context import PromptBuilder
from capgap.distillation.teacher.team import select_texts
from capgap.distillation.training.step_plan import plan_steps
from capgap.errors import StoreError
from capgap.evaluation.exposure import EXPOSURE_FILE_NAME
from capgap.events import Listener, ignore
from capgap.schema import write_object

__all__ = ["distill"]

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)

RUN_RECORD_FILE = "distill.json"
"""Identity, counts, the teacher's accuracy, the learning curve; see `record.run_record`."""


def distill(
    config: DistillConfig,
    out: Path | str,
    *,
    folder: Path | str = ".",
    device: str | None = None,
    ledger: Path | str | None = None,
    on_event: Listener = ignore,
) -> Path:
    """Make the student that a distillation file describes.

    Parameters
    ----------
    config
        The file, see `load_config`.
    out
        Directory of the checkpoint. One that holds this student finished is returned at once; a part of it is gone on
        with, once no other process does; anything else in it is refused.
    folder
        Relative files of the distillation file count from here: where it lies.
    device
        ``cpu``, ``cuda`` …; default: the best there is.
    ledger
        SQLite file of the teacher's responses, which several students may share; default ``out/ledger.sqlite``.
    on_event
        Hears of the progress: the stages "teacher's texts", "teacher's distributions" and "training", and notes.

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
    job = DistillJob(config, Path(out), Path(folder), device, on_event)
    with _disk_errors_explained(job.out):
        student_identity = identity(config, folder=job.folder)
        if not is_finished(job.out, student_identity):
            with locked(job.out, on_wait=lambda: job.note(f"another process trains it in {out}; waiting for its end")):
                if not is_finished(job.out, student_identity):  # still: the other process may have ended without it
                    begin(job.out, student_identity)
                    _make_student(job, student_identity, Path(ledger or job.out / "ledger.sqlite"))
                    return job.out
        job.note(f"is finished in {out}")
    return job.out


def _make_student(job: DistillJob, wanted: dict[str, Any], ledger: Path) -> None:
    """Gather examples and texts, and train the student on them."""
    config = job.config
    pool = gather_examples(config, folder=job.folder)
    selection = select_examples(pool.examples, config, held_out=pool.held_out)
    job.note(selection.summary(config.data, n_unchecked=len(pool.unchecked_tasks)))
    context = PromptBuilder(config, pool.examples)
    generations = _generate(job, selection, context, ledger) if config.text_kind.is_from_teacher else None
    pairs = generations.pairs if generations is not None else gold_completions(selection.examples, config)
    _train_student(job, wanted, pool.examples, selection, pairs, generations, context)


def _generate(job: DistillJob, selection: SelectedExamples, context: PromptBuilder, ledger: Path) -> TeacherGenerations:
    """The texts of the teacher, or of a team of them, for the selected prompts."""
    import torch

    config = job.config
    torch.manual_seed(config.seed)  # a temperature above 0 samples
    all_generations = [generate_texts(job, word, selection.examples, context, ledger=ledger) for word in config.teacher]
    generations = select_texts(all_generations, config.team.choose, name=config.name)
    if generations.shares:
        shares = zip(generations.shares, config.teacher, strict=True)
        job.note(f"texts of {', '.join(f'{n:.0%} {word}' for n, word in shares)} (by {config.team.choose})")
    accuracy = "unknown" if generations.accuracy is None else f"{generations.accuracy:.1%}"
    job.note(
        f"the teacher is right on {accuracy} of {generations.n_asked:,} prompts; dropped: {generations.n_unparsed} "
        f"unreadable, {generations.n_cut} cut, {generations.n_wrong_dropped} wrong"
    )
    return generations


def _train_student(
    job: DistillJob,
    student_identity: dict[str, Any],
    pool: Sequence[TrainingExample],
    selection: SelectedExamples,
    pairs: Sequence[tuple[TrainingExample, str]],
    generations: TeacherGenerations | None,
    context: PromptBuilder,
) -> None:
    """Train the student, and leave its checkpoint behind; ``capgap.json`` comes last."""
    import numpy as np
    from transformers import set_seed

    from capgap.distillation.training.loss_engine import LossEngine, build_objective
    from capgap.distillation.training.step_sources import BATCH_SOURCE_FACTORIES
    from capgap.distillation.training.trainer import drop_checkpoints, train

    config, out, training = job.config, job.out, job.config.training
    student = load_student(config, out, calibration=calibration_texts(pool))
    dataset = tokenise(config, student, pairs)
    rng = np.random.default_rng([config.seed, 1])
    plan = plan_steps(
        len(dataset.examples),
        batch_size=training.batch_size,
        epochs=config.epochs,
        max_steps=training.max_steps,
        rng=rng,
    )
    job.note(f"{dataset.summary()}; {plan.n_steps:,} steps")
    set_seed(config.seed)  # an adapter's first weights
    model = apply_adaptation(student.model, config, student.tokenizer)
    row = model_row(job, student, model, selection, dataset, plan)
    source = BATCH_SOURCE_FACTORIES[config.supervision_kind.signal](job, student, model, dataset, context)
    engine = LossEngine(model, build_objective(config))
    engine.packed.prove_packing([encoded.input_ids for encoded in dataset.encoded])
    if engine.packed.why_not is not None:
        job.note(f"examples are padded, not packed: {engine.packed.why_not}")

    def save(checkpoint: Path, step: int) -> None:
        save_student(model, student.tokenizer, student.base, checkpoint)
        base = relativise_base_path(student.base, checkpoint)
        write_object({**row, "base": base, "step": step, "steps": step}, checkpoint / MODEL_ROW_FILE)

    write_object({"touches": count_exposure(dataset.examples, selection.near_digests)}, out / EXPOSURE_FILE_NAME)
    drop_checkpoints(out, drop_complete=False)
    if training.gradient_checkpointing:
        student.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    result = train(job, engine, source, plan, save)
    save_student(model, student.tokenizer, student.base, out)
    record = run_record(student_identity, selection, dataset, generations, source.signals_record(), result)
    write_object(record, out / RUN_RECORD_FILE)
    write_object({**row, **row_after_training(out, result)}, out / MODEL_ROW_FILE)
    if not training.keep_checkpoints:
        drop_checkpoints(out, drop_complete=True)
    first_loss, final_loss = result.losses[0][1], result.losses[-1][1]
    job.note(f"{out} is finished; loss {first_loss:.4f} → {final_loss:.4f} nats a token")


@contextmanager
def _disk_errors_explained(out: Path) -> Iterator[None]:
    """Errors of the disk as `StoreError`, with what the user can do about them."""
    try:
        yield
    except OSError as error:
        failed_path, reason, is_full = error.filename or out, error.strerror or str(error), error.errno in _DISK_FULL
    except Exception as error:
        # safetensors and torch raise what a disk says in classes of their own
        if not any(words in str(error) for words in ("I/O error", "PytorchStreamWriter", "inline_container")):
            raise
        failed_path, reason, is_full = out, str(error).splitlines()[0], True
    else:
        return
    advice = (
        "Free some space; the same command goes on where it stopped."
        if is_full
        else "Choose another place (--out, cache.folder)."
    )
    raise StoreError(f"{failed_path}: cannot be written: {reason}. {advice}")
