"""From a distillation file to a checkpoint: everything in its order, each part once."""

import errno
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from capgap.distill.config import Config
from capgap.distill.context import Context, teacher_spec
from capgap.distill.data import Chosen, Example, choose, exposure
from capgap.distill.identity import FINISHED, begin, finished, identity
from capgap.distill.lesson import prepare_lesson
from capgap.distill.pool import Pool, gather
from capgap.distill.record import model_row, story, written
from capgap.distill.targets import gold_answer, gold_trace
from capgap.distill.teacher import Said, ask
from capgap.distill.team import chosen_among
from capgap.errors import DistillError, StoreError
from capgap.evaluate.exposure import EXPOSURE
from capgap.schema import write_object

__all__ = ["distill"]

_FULL = (errno.ENOSPC, errno.EDQUOT)

STORY = "distill.json"
"""What was asked and how it went: identity, counts, the teacher's accuracy, the loss on the way."""


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
        context = Context(config, pool.examples)
        said = _heard(config, chosen, context, ledger=Path(ledger or out / "ledger.sqlite"), device=device, told=told)
        pairs = list(said.pairs) if said else _gold(config, chosen)
        _train(
            config, out, folder=folder, examples=pool.examples, context=context, chosen=chosen, pairs=pairs, said=said,
            wanted=wanted, device=device, told=told,
        )  # fmt: skip
    return out


def _heard(
    config: Config, chosen: Chosen, context: Context, *, ledger: Path, device: str | None, told: "_Told"
) -> Said | None:
    """What the teacher says to the chosen prompts; None for a control, which has no teacher."""
    if config.told.startswith("gold_"):
        return None
    import torch

    torch.manual_seed(config.seed)  # a temperature above 0 samples
    every = []
    for word in config.teacher:
        with told.bar("teacher", len(chosen.examples)) as step:
            one = ask(
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
    said = chosen_among(every, config.team.choose, name=config.name)
    if said.shares:
        whose = ", ".join(f"{share:.0%} {word}" for share, word in zip(said.shares, config.teacher, strict=True))
        told(f"{config.name}: texts of {whose} (by {config.team.choose})")
    right = "unknown" if said.accuracy is None else f"{said.accuracy:.1%}"
    dropped = f"{said.n_unparsed} unreadable, {said.n_cut} cut, {said.n_wrong_dropped} wrong"
    told(f"{config.name}: the teacher is right on {right} of {said.n_asked:,} prompts; dropped: {dropped}")
    return said


def _gold(config: Config, chosen: Chosen) -> list[tuple[Example, str]]:
    """The gold completions of the chosen examples."""
    text: Callable[[Example], str] = gold_trace if config.told == "gold_traces" else gold_answer
    if config.told == "gold_traces" and any(example.messages is not None for example in chosen.examples):
        raise DistillError(
            f"{config.name}: messages have no rationale; use gold_answers, or prompt, completion, rationale."
        )
    return [(example, "" if example.messages is not None else text(example)) for example in chosen.examples]


def _train(
    config: Config,
    out: Path,
    *,
    folder: Path,
    examples: Sequence[Example],
    context: Context,
    chosen: Chosen,
    pairs: Sequence[tuple[Example, str]],
    said: Said | None,
    wanted: dict[str, Any],
    device: str | None,
    told: "_Told",
) -> None:
    """Train the student, and leave its checkpoint behind; ``capgap.json`` comes last."""
    from transformers import set_seed

    from capgap.distill.engine import Engine, objective_of
    from capgap.distill.made import calibration_texts
    from capgap.distill.material import Material
    from capgap.distill.policy import OnPolicy
    from capgap.distill.signals import accompany
    from capgap.distill.students import adapt, base_from, load_student, save_student
    from capgap.distill.train import drop_checkpoints, train

    student = load_student(config, out, calibration=calibration_texts(examples))
    lesson = prepare_lesson(config, student, pairs)
    told(lesson.line(config.name))
    set_seed(config.seed)
    model = adapt(student.model, config, student.tokenizer)
    row = model_row(config, student, model, chosen=chosen, lesson=lesson, said=said, out=out)
    heard = _judged(config, student, lesson, context, out=out, folder=folder, device=device, told=told)
    engine = Engine(model, objective_of(config), heard.shares if heard else ())
    _prove(config, engine, lesson, told)

    def save(place: Path, step: int) -> None:
        save_student(model, student.tokenizer, student.base, place)
        write_object({**row, "base": base_from(student.base, place), "step": step, "steps": step}, place / FINISHED)

    write_object({"touches": exposure(lesson.examples, chosen.touched)}, out / EXPOSURE)
    drop_checkpoints(out, whole=False)
    if config.training.gradient_checkpointing:
        student.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    material: Material | OnPolicy
    if config.supervision == "on_policy":
        material = accompany(config, student, model, lesson, device=device, tell=told)
    else:
        material = Material(lesson.encoded, tuple(lesson.items), heard.signals if heard else None)
    trained = train(engine, material, config, lesson.plan, out=out, save=save, device=device, show=told.on)
    save_student(model, student.tokenizer, student.base, out)
    write_object(story(chosen, lesson, said, trained, wanted, heard.story() if heard else None), out / STORY)
    write_object({**row, **written(out, trained)}, out / FINISHED)
    if not config.training.keep_checkpoints:
        drop_checkpoints(out, whole=True)
    first, last = trained.losses[0][1], trained.losses[-1][1]
    told(f"{config.name}: {out} is finished; loss {first:.4f} → {last:.4f} nats a token")


def _judged(
    config: Config,
    student: Any,
    lesson: Any,
    context: Context,
    *,
    out: Path,
    folder: Path,
    device: str | None,
    told: "_Told",
) -> Any:
    """The teacher's distributions, where they are learnt and kept; else None."""
    if config.supervision not in ("logits", "context"):
        return None
    from capgap.distill.signals import hear

    with told.bar("teacher", len(lesson.examples)) as step:
        heard = hear(
            config, student, lesson, context,
            out=out, folder=folder, device=device, tell=told, progress=lambda n: step(n, 0),
        )  # fmt: skip
    told(f"{config.name}: the teacher was asked {sum(heard.story()['computed']):,} of {len(lesson.examples):,} texts")
    return heard


def _prove(config: Config, engine: Any, lesson: Any, told: "_Told") -> None:
    """Compare packed passes with single ones on some of the examples."""
    engine.packed.prove([one.input_ids for one in lesson.encoded])
    if engine.packed.why_not is not None:
        told(f"{config.name}: examples are padded, not packed: {engine.packed.why_not}")


def _choice_line(config: Config, chosen: Chosen, pool: Pool) -> str:
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


class _Told:
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
