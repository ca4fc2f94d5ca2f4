"""From a distillation file to a checkpoint: everything in its order, each part once."""

import errno
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from capgap.distillation.config import DistillConfig
from capgap.distillation.data.pool import ExamplePool, gather_examples
from capgap.distillation.data.selection import SelectedExamples, TrainingExample, exposure, select_examples
from capgap.distillation.data.targets import gold_answer, gold_trace
from capgap.distillation.data.tokenised import tokenise
from capgap.distillation.identity import FINISHED, begin, finished, identity
from capgap.distillation.record import model_row, story, written
from capgap.distillation.teacher.generations import TeacherGenerations, generate_texts
from capgap.distillation.teacher.prompt_context import PromptContext, teacher_spec
from capgap.distillation.teacher.team import select_texts
from capgap.errors import DistillError, StoreError
from capgap.evaluation.exposure import EXPOSURE
from capgap.schema import write_object

__all__ = ["distill"]

_FULL = (errno.ENOSPC, errno.EDQUOT)

STORY = "distill.json"
"""What was asked and how it went: identity, counts, the teacher's accuracy, the loss on the way."""


def distill(
    config: DistillConfig,
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
    told = _ProgressLines(progress)
    with _disk(out):
        wanted = identity(config, out, folder=folder)
        if finished(out, wanted):
            told(f"{config.name}: is finished in {out}")
            return out
        begin(out, wanted)
        pool = gather_examples(config, folder=folder)
        chosen = select_examples(pool.examples, config, held_out=pool.held_out)
        told(_choice_line(config, chosen, pool))
        context = PromptContext(config, pool.examples)
        said = _heard(config, chosen, context, ledger=Path(ledger or out / "ledger.sqlite"), device=device, told=told)
        pairs = list(said.pairs) if said else _gold(config, chosen)
        _train(
            config, out, folder=folder, examples=pool.examples, context=context, chosen=chosen, pairs=pairs, said=said,
            wanted=wanted, device=device, told=told,
        )  # fmt: skip
    return out


def _heard(
    config: DistillConfig,
    chosen: SelectedExamples,
    context: PromptContext,
    *,
    ledger: Path,
    device: str | None,
    told: "_ProgressLines",
) -> TeacherGenerations | None:
    """What the teacher says to the chosen prompts; None for a control, which has no teacher."""
    if config.told.startswith("gold_"):
        return None
    import torch

    torch.manual_seed(config.seed)  # a temperature above 0 samples
    every = []
    for word in config.teacher:
        with told.bar("teacher", len(chosen.examples)) as step:
            one = generate_texts(
                teacher_spec(config, word),
                chosen.examples,
                config.told,
                config.generation,
                ledger=ledger,
                device=device,
                address=context.prompt,
                sure=len(config.teacher) > 1 and config.team.choose == "confidence",
                progress=step,
            )
        every.append(one)
    said = select_texts(every, config.team.choose, name=config.name)
    if said.shares:
        whose = ", ".join(f"{share:.0%} {word}" for share, word in zip(said.shares, config.teacher, strict=True))
        told(f"{config.name}: texts of {whose} (by {config.team.choose})")
    right = "unknown" if said.accuracy is None else f"{said.accuracy:.1%}"
    dropped = f"{said.n_unparsed} unreadable, {said.n_cut} cut, {said.n_wrong_dropped} wrong"
    told(f"{config.name}: the teacher is right on {right} of {said.n_asked:,} prompts; dropped: {dropped}")
    return said


def _gold(config: DistillConfig, chosen: SelectedExamples) -> list[tuple[TrainingExample, str]]:
    """The gold completions of the chosen examples."""
    text: Callable[[TrainingExample], str] = gold_trace if config.told == "gold_traces" else gold_answer
    if config.told == "gold_traces" and any(example.messages is not None for example in chosen.examples):
        raise DistillError(
            f"{config.name}: messages have no rationale; use gold_answers, or prompt, completion, rationale."
        )
    return [(example, "" if example.messages is not None else text(example)) for example in chosen.examples]


def _train(
    config: DistillConfig,
    out: Path,
    *,
    folder: Path,
    examples: Sequence[TrainingExample],
    context: PromptContext,
    chosen: SelectedExamples,
    pairs: Sequence[tuple[TrainingExample, str]],
    said: TeacherGenerations | None,
    wanted: dict[str, Any],
    device: str | None,
    told: "_ProgressLines",
) -> None:
    """Train the student, and leave its checkpoint behind; ``capgap.json`` comes last."""
    from transformers import set_seed

    from capgap.distillation.students.construction import calibration_texts
    from capgap.distillation.students.student import adapt, base_from, load_student, save_student
    from capgap.distillation.teacher.signals import online_teacher
    from capgap.distillation.training.batch_source import StoredBatches
    from capgap.distillation.training.loss_engine import LossEngine, objective_of
    from capgap.distillation.training.on_policy import OnPolicyBatches
    from capgap.distillation.training.trainer import drop_checkpoints, train

    student = load_student(config, out, calibration=calibration_texts(examples))
    lesson = tokenise(config, student, pairs)
    told(lesson.line(config.name))
    set_seed(config.seed)
    model = adapt(student.model, config, student.tokenizer)
    row = model_row(config, student, model, chosen=chosen, lesson=lesson, said=said, out=out)
    heard = _judged(config, student, lesson, context, out=out, folder=folder, device=device, told=told)
    engine = LossEngine(model, objective_of(config), heard.shares if heard else ())
    _prove(config, engine, lesson, told)

    def save(place: Path, step: int) -> None:
        save_student(model, student.tokenizer, student.base, place)
        write_object({**row, "base": base_from(student.base, place), "step": step, "steps": step}, place / FINISHED)

    write_object({"touches": exposure(lesson.examples, chosen.touched)}, out / EXPOSURE)
    drop_checkpoints(out, whole=False)
    if config.training.gradient_checkpointing:
        student.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    material: StoredBatches | OnPolicyBatches
    if config.supervision == "on_policy":
        material = online_teacher(config, student, model, lesson, device=device, tell=told)
    else:
        material = StoredBatches(lesson.encoded, tuple(lesson.items), heard.signals if heard else None)
    trained = train(engine, material, config, lesson.plan, out=out, save=save, device=device, show=told.on)
    save_student(model, student.tokenizer, student.base, out)
    write_object(story(chosen, lesson, said, trained, wanted, heard.story() if heard else None), out / STORY)
    write_object({**row, **written(out, trained)}, out / FINISHED)
    if not config.training.keep_checkpoints:
        drop_checkpoints(out, whole=True)
    first, last = trained.losses[0][1], trained.losses[-1][1]
    told(f"{config.name}: {out} is finished; loss {first:.4f} → {last:.4f} nats a token")


def _judged(
    config: DistillConfig,
    student: Any,
    lesson: Any,
    context: PromptContext,
    *,
    out: Path,
    folder: Path,
    device: str | None,
    told: "_ProgressLines",
) -> Any:
    """The teacher's distributions, where they are learnt and kept; else None."""
    if config.supervision not in ("logits", "context"):
        return None
    from capgap.distillation.teacher.signals import teacher_signals

    with told.bar("teacher", len(lesson.examples)) as step:
        heard = teacher_signals(
            config, student, lesson, context,
            out=out, folder=folder, device=device, tell=told, progress=lambda n: step(n, 0),
        )  # fmt: skip
    told(f"{config.name}: the teacher was asked {sum(heard.story()['computed']):,} of {len(lesson.examples):,} texts")
    return heard


def _prove(config: DistillConfig, engine: Any, lesson: Any, told: "_ProgressLines") -> None:
    """Compare packed passes with single ones on some of the examples."""
    engine.packed.prove([one.input_ids for one in lesson.encoded])
    if engine.packed.why_not is not None:
        told(f"{config.name}: examples are padded, not packed: {engine.packed.why_not}")


def _choice_line(config: DistillConfig, chosen: SelectedExamples, pool: ExamplePool) -> str:
    parts = ", ".join(f"{count:,} {capability}" for capability, count in chosen.by_capability.items())
    line = f"{config.name}: {len(chosen.examples):,} of {chosen.n_available:,} examples ({parts})"
    fate = "stay out" if config.data.overlap == "exclude" else "stay in, counted by x_exposure"
    if chosen.n_held_out:
        line += f"; {chosen.n_held_out:,} are evaluation items and {fate}"
    if chosen.n_near:
        line += f"; {chosen.n_near:,} are evaluation items in almost the same words and {fate}"
    if chosen.n_without_trace:
        line += f"; {chosen.n_without_trace:,} choice examples have no steps and stay out"
    if pool.unchecked:
        line += f"; the items of {len(pool.unchecked)} tasks are not on this machine and were not compared"
    return line


class _ProgressLines:
    """Lines and bars on stderr, or silence."""

    def __init__(self, on: bool) -> None:
        self.on = on

    def __call__(self, line: str) -> None:
        if self.on:
            from tqdm import tqdm

            tqdm.write(line, file=sys.stderr)  # above a bar that is being drawn

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
        where, reason, full = error.filename or out, error.strerror or str(error), error.errno in _FULL
    except Exception as error:
        # safetensors and torch tell of the disk in classes of their own
        if not any(words in str(error) for words in ("I/O error", "PytorchStreamWriter", "inline_container")):
            raise
        where, reason, full = out, str(error).splitlines()[0], True
    else:
        return
    do = (
        "Free some space; the same command goes on where it stopped."
        if full
        else "Choose another place (--out, cache.folder)."
    )
    raise StoreError(f"{where}: cannot be written: {reason}. {do}")
