"""A rebuild in miniature follows the recipe that it is given."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from capgap.cli.microworld import microworld
from capgap.distillation.students import microworld_models
from capgap.distillation.students.microworld_models import NO_LOSS, ModelRecipe, build_base, build_checkpoint
from capgap.errors import ModelError, UsageError
from capgap.microworld import evaluation, make_world

TINY = {
    "base": ModelRecipe("base", 1, 16, 2, steps=30, lr=1e-2, batch=16),
    "taught": ModelRecipe("taught", 1, 16, 2, steps=30, lr=1e-2, batch=16, families=("facts", "chains")),
}


@pytest.mark.parametrize("kind", TINY)
def test_a_tiny_rebuild_learns_records_its_origin_and_repeats_itself(kind: str, tmp_path: Path) -> None:
    losses: list[float] = []
    folder = build_checkpoint(
        "tiny", tmp_path / "a", recipe=TINY[kind], seed=3, on_step=lambda step, loss: losses.append(loss)
    )
    assert len(losses) == 30
    assert np.mean(losses[-5:]) < losses[0] - 1
    config = json.loads((folder / "config.json").read_text())
    assert config["capgap"] == {"recipe": json.loads(json.dumps(asdict(TINY[kind]))), "seed": 3, "world_seed": 0}
    assert (config["num_hidden_layers"], config["hidden_size"], config["tie_word_embeddings"]) == (1, 16, True)
    again = build_checkpoint("tiny", tmp_path / "b", recipe=TINY[kind], seed=3)
    other = build_checkpoint("tiny", tmp_path / "c", recipe=TINY[kind], seed=4)
    first, second, third = (load_file(f / "model.safetensors") for f in (folder, again, other))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], third[name]) for name in first)
    assert {tensor.dtype for tensor in first.values()} == {torch.float32}


def test_a_finished_model_is_left_as_it_is_and_another_is_never_taken_for_it(tmp_path: Path) -> None:
    folder = build_checkpoint("tiny", tmp_path, recipe=TINY["base"])
    written = (folder / "model.safetensors").stat().st_mtime_ns
    assert build_checkpoint("tiny", tmp_path, recipe=TINY["base"]) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == written
    with pytest.raises(ModelError, match="another recipe or seed"):
        build_checkpoint("tiny", tmp_path, recipe=TINY["base"], seed=1)


def test_an_interrupted_build_leaves_nothing_that_looks_whole(tmp_path: Path) -> None:
    def stop(step: int, loss: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_checkpoint("tiny", tmp_path, recipe=TINY["base"], on_step=stop)
    assert not (tmp_path / "tiny").exists()


def test_a_build_leaves_the_global_random_state_alone(tmp_path: Path) -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    build_checkpoint("tiny", tmp_path, recipe=ModelRecipe("base", 1, 16, 2, steps=1, lr=1e-3, batch=2))
    assert torch.equal(torch.rand(3), expected)


def test_what_a_taught_model_reads_holds_no_question_of_the_evaluation() -> None:
    world = make_world()
    closed = {question.text for questions in evaluation(world).values() for question in questions}
    batches = microworld_models._generate_batches(
        ModelRecipe("taught", 1, 16, 2, steps=1, lr=1e-3), world, np.random.default_rng(0)
    )
    words = np.array(world.vocabulary)
    for _ in range(20):
        ids, labels = next(batches)
        assert ids.shape == labels.shape
        assert bool(((labels == NO_LOSS) | (labels == ids)).all())
        for row in ids:
            text = " ".join(words[row.numpy()])
            read = {f"Q {part.partition(' ? ')[0]} ?" for part in text.split("Q ")[1:]}
            assert not read & closed


def test_a_base_of_another_shape_is_built_when_asked(tmp_path: Path) -> None:
    folder = build_base(layers=1, width=32, seed=2, out=tmp_path, steps=2)
    assert folder.name == "base-1x32-seed2"
    assert json.loads((folder / "config.json").read_text())["num_attention_heads"] == 2
    with pytest.raises(ModelError, match="multiple of 6"):
        build_base(layers=1, width=40, heads=3, out=tmp_path)


def test_an_unknown_model_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="Did you mean 'teacher'"):
        build_checkpoint("techer", tmp_path)
    result = CliRunner().invoke(microworld, ["build", "--only", "medum", "--out", str(tmp_path / "x")])
    assert isinstance(result.exception, UsageError)
    assert "Did you mean 'medium'" in str(result.exception)
    assert not (tmp_path / "x").exists()


def test_the_command_builds_data_and_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        microworld_models.MODEL_RECIPES, "small", ModelRecipe("base", 1, 16, 2, steps=2, lr=1e-3, batch=2)
    )
    arguments = ["build", "--only", "data", "--only", "small", "--out", str(tmp_path)]
    result = CliRunner().invoke(microworld, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert (tmp_path / "data" / "facts.jsonl").is_file()
    assert (tmp_path / "checkpoints" / "small" / "model.safetensors").is_file()
    assert result.stdout.splitlines() == [str(tmp_path / "data"), str(tmp_path / "checkpoints" / "small")]
