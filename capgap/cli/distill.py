"""`capgap distill`: one student from one file."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from capgap.cli.permissions import allow_options
from capgap.events import Event, Note, ignore

if TYPE_CHECKING:
    from capgap.distillation import DistillConfig

__all__ = ["distill"]


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Directory of the checkpoint; default capgap-out/NAME.")
@click.option("--device", metavar="D", help="cpu, cuda, cuda:1, mps; default: the best there is.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads; default: 1 where others share the machine.")
@click.option(
    "--ledger",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The teacher's responses, which several students may share; default in --out.",
)
@allow_options
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
def distill(
    file: Path,
    out: Path | None,
    device: str | None,
    threads: int | None,
    ledger: Path | None,
    allow: tuple[str, ...],
    quiet: bool,
) -> None:
    """Train one student as FILE.yaml describes, and print the directory of its checkpoint.

    \b
      name: pilot
      teacher: microworld:teacher
      student: microworld:medium
      data: {battery: microworld}      # or {file: x.jsonl}: prompt and completion, or messages
      n_examples: 1000
      supervision: traces              # gold_answers, gold_traces, answers, traces, logits, context, on_policy
      adaptation: lora                 # full, lora, soft_prompt
      training: {max_steps: 400, batch_size: 64, lr: 6.0e-3}

    The same command goes on where a killed one stopped, and returns at once what is finished.
    """
    from capgap.cli.evaluate import set_threads
    from capgap.distillation import distill as make
    from capgap.distillation import load_config

    config = load_config(file).permitting(allow)
    set_threads(threads)
    target = out or Path("capgap-out") / config.name
    listener = ignore if quiet else _print_note
    made = make(config, target, folder=file.parent, device=device, ledger=ledger, on_event=listener)
    click.echo(made)
    if config.evaluate is not None:
        _evaluate(config, made, folder=file.parent, device=device, allow=allow)


def _print_note(event: Event) -> None:
    if isinstance(event, Note):
        click.echo(event.text, err=True)


def _evaluate(config: "DistillConfig", made: Path, *, folder: Path, device: str | None, allow: tuple[str, ...]) -> None:
    """What the file says to measure: the student with its base and, where it had one, its teacher."""
    from capgap import evaluation as engine
    from capgap.cli.conclude import conclude, say

    assert config.evaluate is not None
    named = config.evaluate.battery
    batteries = [named] if isinstance(named, str) else list(named)
    compared, lead, bases, controls, notes = engine.cast_roles(
        (f"{config.name}={made}",), teacher=config.lead, allow=allow
    )
    plan = engine.EvaluationPlan(
        students=compared,
        teacher=lead,
        bases=bases,
        controls=controls,
        batteries=tuple(str(folder / name) if (folder / name).is_file() else name for name in batteries),
        limit=config.evaluate.limit,
        device=device,
        notes=tuple(notes),
    )
    run = engine.evaluate(plan, made.with_name(f"{made.name}-evaluation"), command=["capgap", *sys.argv[1:]], say=say)
    conclude(run.path, run.outcomes(plan.roles), plan.roles, run.facts, show_items=True)
    run.save(state="done")
