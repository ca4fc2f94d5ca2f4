"""`capgap distill`: one student from one file."""

from pathlib import Path
from typing import Any

import click

from capgap.cli.options import add_permission_options, set_threads
from capgap.cli.printing import command_line, print_results
from capgap.cli.progress import quiet_option, render_progress, verbose_option
from capgap.default_folders import student_folder
from capgap.distillation import ADAPTATION_DESCRIPTIONS, SUPERVISIONS


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), help=f"Directory of the checkpoint; default {student_folder('NAME')}."
)
@click.option("--device", metavar="D", help="cpu, cuda, cuda:1, mps; default: the best there is.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads; default: 1 where others share the machine.")
@click.option(
    "--ledger", type=click.Path(path_type=Path, dir_okay=False),
    help="The teacher's responses, which several students may share; default in --out.",
)  # fmt: skip
@add_permission_options
@quiet_option
@verbose_option
def distill(file: Path, threads: int | None, quiet: bool, **options: Any) -> None:
    """Train one student as FILE.yaml describes, and print the directory of its checkpoint.

    \b
      name: pilot
      teacher: microworld:teacher
      student: microworld:medium
      data: {battery: microworld}      # or {file: x.jsonl}: prompt and completion, or messages
      n_examples: 1000
      supervision: traces              # SUPERVISIONS
      adaptation: lora                 # ADAPTATIONS
      training: {max_steps: 400, batch_size: 64, lr: 6.0e-3}

    The same command goes on where a killed one stopped, and returns at once what is finished. Where the file says
    `evaluate`, the report goes to capgap-out/NAME, or beside --out.
    """
    import capgap

    set_threads(threads)
    with render_progress(quiet=quiet) as listener:
        student = capgap.distill(file, **options, command=command_line(), on_event=listener)
    click.echo(student.path)
    if student.run is not None:
        print_results(student.run.results, student.run.path / "report.html", as_json=False)


for _placeholder, _option_values in (("SUPERVISIONS", SUPERVISIONS), ("ADAPTATIONS", ADAPTATION_DESCRIPTIONS)):
    distill.help = str(distill.help).replace(_placeholder, ", ".join(_option_values))
