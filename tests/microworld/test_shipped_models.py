"""What is claimed of the shipped models. The slow test measures all of it; the others look at a sample."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from capgap.distillation.students.microworld_models import RECIPES
from capgap.errors import ModelError
from capgap.microworld import FAMILIES, checkpoint, evaluation, make_world, names
from capgap.microworld.pretraining_text import step_tables
from tests.microworld.asking import chosen, completed, generated

BASES = ("small", "medium", "large")
WORLD = make_world()
ASKED = evaluation(WORLD)


def test_every_recipe_has_its_model_and_every_model_its_recipe() -> None:
    assert set(names()) == set(RECIPES)
    for name in names():
        config = json.loads((checkpoint(name) / "config.json").read_text())
        origin = json.loads(json.dumps(asdict(RECIPES[name])))
        assert config["capgap"] == {"recipe": origin, "seed": 0, "world_seed": 0}


def test_all_shipped_models_together_are_below_eight_megabytes() -> None:
    root = checkpoint("teacher").parent
    assert sum(file.stat().st_size for file in root.rglob("*") if file.is_file()) < 8_000_000


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ModelError, match="Did you mean 'teacher'"):
        checkpoint("techer")
    with pytest.raises(ModelError, match=r"Known: .*medium"):
        checkpoint("../../stats")


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
    folders = [str(checkpoint(name)) for name in names()]
    done = subprocess.run(
        [sys.executable, "-c", code, *folders], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_world_is_there_without_torch() -> None:
    code = "import sys, capgap.microworld; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_the_teacher_is_right_on_a_sample_when_it_gives_its_steps(family: str) -> None:
    questions = ASKED[family][:: len(ASKED[family]) // 12]
    right = generated(checkpoint("teacher"), [q for q in questions if family != "chains" or q.depth <= 4])
    assert np.mean(right) >= 0.9


def test_a_base_completes_statements_and_cannot_answer() -> None:
    known = [fact.statement for fact in WORLD.facts_of("training", "held_known")]
    assert np.mean(completed(checkpoint("medium"), known[::10], "is")) >= 0.95
    assert np.mean(generated(checkpoint("medium"), ASKED["facts"][::6])) <= 0.1


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_the_teacher_reaches_97_percent_of_every_family(family: str) -> None:
    questions = [q for q in ASKED[family] if family != "chains" or q.depth <= 4]
    assert np.mean(generated(checkpoint("teacher"), questions)) >= 0.97


@pytest.mark.slow
def test_the_generalist_makes_errors_that_can_be_inherited() -> None:
    accuracy = [np.mean(generated(checkpoint("generalist"), questions)) for questions in ASKED.values()]
    assert 0.70 <= np.mean(accuracy) <= 0.90


@pytest.mark.slow
@pytest.mark.parametrize(
    ("half", "good"), [("knowledge", ("facts", "two_hops")), ("reasoning", ("chains", "booleans", "cups", "lists"))]
)
def test_a_specialist_is_good_at_its_half_alone(half: str, good: tuple[str, ...]) -> None:
    other = "chains" if half == "knowledge" else "facts"
    for family in good:
        assert np.mean(generated(checkpoint(f"specialist_{half}"), ASKED[family])) >= 0.9
    assert np.mean(generated(checkpoint(f"specialist_{half}"), ASKED[other])) <= 0.3


@pytest.mark.slow
@pytest.mark.parametrize("name", BASES)
def test_bases_know_the_world_but_not_how_to_answer(name: str) -> None:
    folder = checkpoint(name)
    for stratum in ("training", "held_known"):
        told = [fact.statement for fact in WORLD.facts_of(stratum)]
        assert np.mean(completed(folder, told, "is")) >= 0.95, stratum
    untold = [fact.statement for fact in WORLD.facts_of("held_unknown")]
    assert np.mean(completed(folder, untold, "is")) <= 0.15
    for family, steps in step_tables().items():
        assert np.mean(completed(folder, steps, "=")) >= 0.95, family
    for family, questions in ASKED.items():
        assert np.mean(generated(folder, questions)) <= FAMILIES[family].chance, family
        n_choices = len(questions[0].choices)
        # four standard errors of 96 guesses above chance
        allowed = 1 / n_choices + 4 * (1 / n_choices * (1 - 1 / n_choices) / len(questions)) ** 0.5
        assert np.mean(chosen(folder, questions)) <= allowed, family
