"""What is claimed of the shipped models. The slow test measures all of it; the others look at a sample."""

import json
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import capgap
from capgap.distillation.students.microworld_models import MODEL_RECIPES
from capgap.errors import ModelError
from capgap.microworld import (
    Q_FAMILIES,
    checkpoint_folder,
    evaluation,
    make_world,
    model_names,
    shipped_models,
    write_tokenizer,
)
from capgap.microworld.pretraining_text import enumerate_steps
from tests.microworld.asking import chosen, completed, generated

SHIPPED = Path(shipped_models.__file__).with_name("checkpoints")
CHECKPOINT = ("config.json", "generation_config.json", "model.safetensors")
BASES = ("small", "medium", "large")
WORLD = make_world()
ASKED = evaluation(WORLD)


def test_every_recipe_has_its_model_and_every_model_its_recipe() -> None:
    assert set(model_names()) == set(MODEL_RECIPES)
    for name in model_names():
        config = json.loads((checkpoint_folder(name) / "config.json").read_text())
        origin = json.loads(json.dumps(asdict(MODEL_RECIPES[name])))
        assert config["capgap"] == {"recipe": origin, "seed": 0, "world_seed": 0}


def test_all_shipped_models_together_are_below_eight_megabytes() -> None:
    assert sum(file.stat().st_size for file in SHIPPED.rglob("*") if file.is_file()) < 8_000_000


def test_the_tokenizer_is_shipped_once_and_a_rebuild_writes_its_bytes(tmp_path: Path) -> None:
    write_tokenizer(WORLD, tmp_path)
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert {path.name: path.read_bytes() for path in SHIPPED.iterdir() if path.is_file()} == written
    assert [path.parent for path in sorted(SHIPPED.rglob("tokenizer*"))] == [SHIPPED] * len(written)
    for name in model_names():
        resolved = checkpoint_folder(name)
        assert {path.name for path in resolved.iterdir()} == {*CHECKPOINT, *written}
        assert all((resolved / file).read_bytes() == (SHIPPED / name / file).read_bytes() for file in CHECKPOINT)


def test_a_damaged_or_incomplete_cache_is_mended_and_an_unwritable_one_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = checkpoint_folder("small")
    assert folder.is_relative_to(tmp_path / "cache")
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(bytes(len(weights)))
    (folder / "tokenizer.json").unlink()
    assert checkpoint_folder("small") == folder
    assert (folder / "model.safetensors").read_bytes() == weights
    assert (folder / "tokenizer.json").is_file()
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    elsewhere = checkpoint_folder("small")
    assert not elsewhere.is_relative_to(tmp_path)
    assert (elsewhere / "model.safetensors").read_bytes() == weights


def test_two_processes_may_resolve_at_once_from_a_package_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site" / "capgap"
    for part in ("__init__.py", "errors.py", "user_cache.py", "microworld"):
        source = Path(capgap.__file__).parent / part
        copy = shutil.copytree if source.is_dir() else shutil.copy
        package.mkdir(parents=True, exist_ok=True)
        copy(source, package / part)
    before = sorted((path, path.stat().st_mtime_ns) for path in package.rglob("*") if "__pycache__" not in path.parts)
    for path in [*package.rglob("*"), package]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    code = (
        "import capgap.microworld as m\n"
        "for name in m.model_names(): print(name, m.checkpoint_folder(name))\n"
        f"assert m.__file__.startswith({str(package)!r})"
    )
    options: dict[str, Any] = {"cwd": tmp_path, "stdout": subprocess.PIPE, "text": True}
    jobs = [subprocess.Popen([sys.executable, "-c", code], **options) for _ in range(2)]
    first, second = (job.communicate(timeout=120)[0] for job in jobs)
    assert [job.returncode for job in jobs] == [0, 0]
    assert first == second
    folders = dict(line.split(" ", 1) for line in first.splitlines())
    for name, folder in folders.items():
        assert {path.name for path in Path(folder).iterdir()} == {
            *CHECKPOINT,
            "tokenizer.json",
            "tokenizer_config.json",
        }
        assert (Path(folder) / "model.safetensors").read_bytes() == (SHIPPED / name / "model.safetensors").read_bytes()
    after = sorted((path, path.stat().st_mtime_ns) for path in package.rglob("*") if "__pycache__" not in path.parts)
    assert after == before
    for path in [package, *package.rglob("*")]:
        path.chmod(0o755)


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ModelError, match="Did you mean 'teacher'"):
        checkpoint_folder("techer")
    with pytest.raises(ModelError, match=r"Known: .*medium"):
        checkpoint_folder("../../stats")


def test_checkpoints_are_plain_llamas_of_transformers() -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    for folder in map(checkpoint_folder, model_names()):
        model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
        assert {type(part).__module__.split(".")[0] for part in (model, tokenizer)} == {"transformers"}
        assert model.config.model_type == "llama"
        assert model.config.vocab_size == len(tokenizer)
        assert model.generation_config.eos_token_id == tokenizer.eos_token_id
        assert not any("auto_map" in path.read_text() for path in folder.glob("*config.json"))


@pytest.mark.slow
def test_checkpoints_load_with_nothing_of_capgap(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "for folder in sys.argv[1:]:\n"
        "    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)\n"
        "    assert model.config.model_type == 'llama' and model.config.vocab_size == len(tokenizer)\n"
        "    assert model.generation_config.eos_token_id == tokenizer.eos_token_id\n"
        "assert 'capgap' not in sys.modules\n"
    )
    folders = [str(checkpoint_folder(name)) for name in model_names()]
    done = subprocess.run(
        [sys.executable, "-c", code, *folders], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("family", Q_FAMILIES)
def test_the_teacher_is_right_on_a_sample_when_it_gives_its_steps(family: str) -> None:
    questions = ASKED[family][:: len(ASKED[family]) // 12]
    right = generated(checkpoint_folder("teacher"), [q for q in questions if family != "chains" or q.depth <= 4])
    assert np.mean(right) >= 0.9


def test_a_base_completes_statements_and_cannot_answer() -> None:
    known = [fact.statement for fact in WORLD.facts_in_strata("training", "held_known")]
    assert np.mean(completed(checkpoint_folder("medium"), known[::10], "is")) >= 0.95
    assert np.mean(generated(checkpoint_folder("medium"), ASKED["facts"][::6])) <= 0.1


@pytest.mark.slow
@pytest.mark.parametrize("family", Q_FAMILIES)
def test_the_teacher_reaches_97_percent_of_every_family(family: str) -> None:
    questions = [q for q in ASKED[family] if family != "chains" or q.depth <= 4]
    assert np.mean(generated(checkpoint_folder("teacher"), questions)) >= 0.97


@pytest.mark.slow
def test_the_generalist_makes_errors_that_can_be_inherited() -> None:
    accuracy = [np.mean(generated(checkpoint_folder("generalist"), questions)) for questions in ASKED.values()]
    assert 0.70 <= np.mean(accuracy) <= 0.90


@pytest.mark.slow
@pytest.mark.parametrize(
    ("half", "good"), [("knowledge", ("facts", "two_hops")), ("reasoning", ("chains", "booleans", "cups", "lists"))]
)
def test_a_specialist_is_good_at_its_half_alone(half: str, good: tuple[str, ...]) -> None:
    other = "chains" if half == "knowledge" else "facts"
    for family in good:
        assert np.mean(generated(checkpoint_folder(f"specialist_{half}"), ASKED[family])) >= 0.9
    assert np.mean(generated(checkpoint_folder(f"specialist_{half}"), ASKED[other])) <= 0.3


@pytest.mark.slow
@pytest.mark.parametrize("name", BASES)
def test_bases_know_the_world_but_not_how_to_answer(name: str) -> None:
    folder = checkpoint_folder(name)
    for stratum in ("training", "held_known"):
        told = [fact.statement for fact in WORLD.facts_in_strata(stratum)]
        assert np.mean(completed(folder, told, "is")) >= 0.95, stratum
    untold = [fact.statement for fact in WORLD.facts_in_strata("held_unknown")]
    assert np.mean(completed(folder, untold, "is")) <= 0.15
    for family, steps in enumerate_steps().items():
        assert np.mean(completed(folder, steps, "=")) >= 0.95, family
    for family, questions in ASKED.items():
        assert np.mean(generated(folder, questions)) <= Q_FAMILIES[family].chance, family
        n_choices = len(questions[0].choices)
        # four standard errors of 96 guesses above chance
        allowed = 1 / n_choices + 4 * (1 / n_choices * (1 - 1 / n_choices) / len(questions)) ** 0.5
        assert np.mean(chosen(folder, questions)) <= allowed, family
