"""``capgap microworld``: rebuild the embedded world's data and models."""

from pathlib import Path

import click

from capgap.cli.progress import render_progress
from capgap.default_folders import MICROWORLD_FOLDER
from capgap.errors import UsageError, suggestion
from capgap.events import stage

__all__ = ["microworld"]


@click.group()
def microworld() -> None:
    """The embedded world: a small language in which it is known what every item asks for."""


@microworld.command()
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), default=MICROWORLD_FOLDER,
    show_default=True, help="Data go to OUT/data, models to OUT/checkpoints.",
)  # fmt: skip
@click.option(
    "--only", multiple=True, metavar="NAME", help="A model, or 'data'; may be given again. Default: everything."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the models.")
def build(out: Path, only: tuple[str, ...], seed: int) -> None:
    """Write the world's questions and train its models, each from a seed.

    What is finished is left as it is, so a build that was stopped goes on with the next model. The world itself, and
    with it the questions, is always the one that the shipped battery asks about.
    """
    from capgap.distillation.students import microworld_models
    from capgap.microworld import make_world, write_data

    component_names = ("data", *microworld_models.MODEL_RECIPES)
    requested_names = only or component_names
    for name in requested_names:
        if name not in component_names:
            raise UsageError(f"--only: no model is called {name!r}.{suggestion(name, component_names)}")
    for name in requested_names:
        if name == "data":
            write_data(make_world(), out / "data")
            click.echo(out / "data")
        else:
            click.echo(_train_model(name, out / "checkpoints", seed))


def _train_model(name: str, folder: Path, seed: int) -> Path:
    """Train one model on one thread, which is how the shipped ones were, and show how far it is."""
    import torch

    from capgap.distillation.students import microworld_models

    torch.set_num_threads(1)
    steps = microworld_models.MODEL_RECIPES[name].steps
    with render_progress() as listener, stage(listener, name, steps, "step") as advance:
        return microworld_models.build_checkpoint(
            name, folder, seed=seed, on_step=lambda _, loss: advance(1, f"loss {loss:.3f}")
        )
