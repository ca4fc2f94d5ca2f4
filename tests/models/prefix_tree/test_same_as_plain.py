"""A token tree gives lm-eval's own numbers, on every architecture that it is used for."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from capgap.models import Ledger, LoadedModel, load_model, parse_model, respond
from capgap.models.prefix_tree import TreeScorer
from tests.conftest import WORDS
from tests.models.prefix_tree.models import PLAIN, TREE, WINDOW, make_model

ATOL = 1e-3


def requests(n_shots: int, seed: int = 0) -> list[Any]:
    """Multiple choice with a block before it, long answers, and rolling texts."""
    draw = random.Random(seed)

    def words(n: int) -> str:
        return " ".join(draw.choice(WORDS[3:]) for _ in range(n))

    block = "".join(f"Q : {words(6)} A : {words(2)} " for _ in range(n_shots))
    scored = []
    for _ in range(12):
        question = f"{block}Q : {words(draw.randrange(3, 9))} A :"
        scored += [Instance("loglikelihood", {}, (question, f" {words(k)}"), 0, ("t", 0, 1)) for k in (1, 1, 2, 5)]
    scored.append(Instance("loglikelihood", {}, (words(5 * WINDOW), f" {words(3)}"), 0, ("t", 0, 1)))
    scored.append(Instance("loglikelihood", {}, ("", words(4)), 0, ("t", 0, 1)))
    return scored + [Instance("loglikelihood_rolling", {}, (words(k),), 0, ("t", 0, 1)) for k in (3, 40, 130)]


def tree_of(model: LoadedModel) -> TreeScorer:
    assert model.tree is not None, model.notes
    return model.tree


def plain_answers(checkpoint: Path, asked: list[Any], **options: Any) -> list[Any]:
    lm = HFLM(pretrained=str(checkpoint), device="cpu", dtype="float32", batch_size=4, **options)
    answers: list[Any] = []
    for kind in ("loglikelihood", "loglikelihood_rolling"):
        part = [instance for instance in asked if instance.request_type == kind]
        answers += getattr(lm, kind)(part, disable_tqdm=True)
    return answers


def assert_same(model: LoadedModel, asked: list[Any], expected: list[Any], tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.sqlite") as ledger:
        got = [own[0].value for own in respond(model, asked, ledger)]
    assert len(got) == len(expected)
    for one, other in zip(got, expected, strict=True):
        if isinstance(one, tuple):
            assert one[0] == pytest.approx(other[0], abs=ATOL)
            assert one[1] == other[1]
        else:
            assert one == pytest.approx(other, abs=ATOL)


@pytest.mark.parametrize("kind", TREE)
@pytest.mark.parametrize("shots", [0, 5])
@pytest.mark.filterwarnings("ignore")
def test_every_log_likelihood_is_lm_evals(kind: str, shots: int, tmp_path: Path) -> None:
    checkpoint = make_model(tmp_path / "model", kind)
    asked = requests(shots)
    model = load_model(parse_model(f"m={checkpoint}"), device="cpu")
    tree_of(model).row_tokens = 48  # small rows: cached prefixes and long texts in pieces
    assert_same(model, asked, plain_answers(checkpoint, asked), tmp_path)
    assert model.tree is not None, model.notes
    assert model.tree.proven.n_requests >= 3
    assert model.tree.proven.max_request_tokens > WINDOW
    assert model.tree.proven.max_prefixed_tokens > 0
    assert model.tree.proven.shared_row


@pytest.mark.parametrize("row_tokens", [32, 100, 4096])
@pytest.mark.parametrize("kind", ["llama", "gemma3_text"])
@pytest.mark.filterwarnings("ignore")
def test_the_size_of_rows_changes_no_number(kind: str, row_tokens: int, tmp_path: Path) -> None:
    checkpoint = make_model(tmp_path / "model", kind)
    asked = requests(2)
    model = load_model(parse_model(f"m={checkpoint}"), device="cpu")
    tree_of(model).row_tokens = row_tokens
    assert_same(model, asked, plain_answers(checkpoint, asked), tmp_path)


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.filterwarnings("ignore")
def test_models_that_no_tree_fits_take_lm_evals_path_and_say_so(kind: str, tmp_path: Path) -> None:
    checkpoint = make_model(tmp_path / "model", kind)
    asked = requests(1)
    model = load_model(parse_model(f"m={checkpoint}"), device="cpu")
    assert model.tree is None
    (note,) = model.notes
    assert note.startswith("m is asked on lm-eval's own, slower path: ")
    assert PLAIN[kind] in note
    assert_same(model, asked, plain_answers(checkpoint, asked), tmp_path)


@pytest.mark.parametrize("rope", ["dynamic", "longrope"])
@pytest.mark.filterwarnings("ignore")
def test_positions_that_depend_on_the_longest_item_take_lm_evals_path(rope: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"rope_type": rope, "rope_theta": 10000.0, "factor": 2.0}
    if rope == "longrope":
        settings |= {
            "short_factor": [1.0] * 4,
            "long_factor": [2.0] * 4,
            "original_max_position_embeddings": 64,
        }
    checkpoint = make_model(tmp_path / "model", "llama", rope_parameters=settings)
    model = load_model(parse_model(f"m={checkpoint}"), device="cpu")
    assert model.tree is None
    assert f"{rope} RoPE" in model.notes[0]


@pytest.mark.parametrize("wrong", ["window", "mask", "dictionary", "positions"])
@pytest.mark.filterwarnings("ignore")
def test_what_a_proof_finds_wrong_takes_lm_evals_path_with_lm_evals_numbers(
    wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from capgap.models.prefix_tree import AttentionLayout, tree_forward

    checkpoint = make_model(tmp_path / "model", "mistral")
    asked = requests(2)
    model = load_model(parse_model(f"m={checkpoint}"), device="cpu")
    tree = tree_of(model)
    tree.row_tokens = 64
    if wrong == "window":
        tree.attention = AttentionLayout({"every layer": None}, masks_by_layer_type=False)
    elif wrong == "dictionary":
        tree.attention = AttentionLayout({"full_attention": None}, masks_by_layer_type=True)
    elif wrong == "mask":
        monkeypatch.setattr(
            tree_forward, "_to_additive_mask", lambda seen, dtype, device: torch.zeros(1, 1, *seen.shape, dtype=dtype)
        )
    else:
        monkeypatch.setattr(type(model.lm.model), "forward", _without_positions(type(model.lm.model).forward))
    assert_same(model, asked, plain_answers(checkpoint, asked), tmp_path)
    assert model.tree is None
    assert "slower path" in model.notes[0]


def _without_positions(forward: Any) -> Any:
    import functools

    @functools.wraps(forward)
    def changed(self: Any, *args: Any, position_ids: Any = None, **kwargs: Any) -> Any:
        return forward(self, *args, **kwargs)

    return changed


@pytest.mark.filterwarnings("ignore")
def test_memory_that_ends_halves_the_rows_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = make_model(tmp_path / "model", "llama")
    asked = requests(2)
    expected = plain_answers(checkpoint, asked)
    model = load_model(parse_model(f"m={checkpoint}"), device="cpu")
    tree_of(model).row_tokens = 256
    real = type(model.lm.model).forward

    def small(self: Any, input_ids: Any = None, **kwargs: Any) -> Any:
        if input_ids.shape[1] > 70 and input_ids.shape[0] == 1 and kwargs.get("logits_to_keep") is not None:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(self, input_ids=input_ids, **kwargs)

    monkeypatch.setattr(type(model.lm.model), "forward", small)
    assert_same(model, asked, expected, tmp_path)
    assert tree_of(model).row_tokens == 64
    assert model.notes == [f"m: out of memory; going on with {n} tokens at a time." for n in (128, 64)]


@pytest.mark.filterwarnings("ignore")
def test_a_context_beyond_the_models_length_loses_its_beginning_as_in_lm_eval(tmp_path: Path) -> None:
    checkpoint = make_model(tmp_path / "model", "llama", max_position_embeddings=64)
    draw = random.Random(1)
    texts = [" ".join(draw.choice(WORDS[3:]) for _ in range(n)) for n in (60, 63, 64, 65, 200)]
    asked = [Instance("loglikelihood", {}, (text, " red one"), 0, ("t", 0, 1)) for text in texts]
    asked += [Instance("loglikelihood_rolling", {}, (text,), 0, ("t", 0, 1)) for text in texts]
    model = load_model(parse_model(f"m={checkpoint}"), device="cpu")
    tree_of(model).row_tokens = 48
    assert_same(model, asked, plain_answers(checkpoint, asked), tmp_path)
    assert model.tree is not None, model.notes
