"""``capgap distill FILE.yaml``."""

from pathlib import Path

import click

__all__ = ["distill"]


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Directory of the checkpoint. [default: capgap-out/NAME]")
@click.option("--device", help="cpu, cuda, … [default: the best there is]")
@click.option(
    "--ledger",
    type=click.Path(path_type=Path),
    help="The teacher's responses, shared by several students. [default: in --out]",
)
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
def distill(file: Path, out: Path | None, device: str | None, ledger: Path | None, quiet: bool) -> None:
    """Train one student as FILE.yaml describes; print the checkpoint's directory.

    \b
    name: pilot
    teacher: out/teacher
    student: HuggingFaceTB/SmolLM2-135M
    data: {battery: microworld}        # or {file: x.jsonl}: prompt and completion, or messages
    n_examples: 1000
    supervision: traces                # gold_answers | gold_traces | answers | traces
    adaptation: lora                   # full | lora

    The same command goes on where a killed one stopped.
    """
    from capgap.distill import distill as make
    from capgap.distill import load_config

    config = load_config(file)
    target = out or Path("capgap-out") / config.name
    made = make(config, target, folder=file.parent, device=device, ledger=ledger, progress=not quiet)
    click.echo(made)
