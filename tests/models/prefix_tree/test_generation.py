"""What is written on shared beginnings is what lm-eval's `hf` writes, one prompt at a time."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from capgap.models import Ledger, load_model, parse_model, respond
from tests.conftest import WORDS
from tests.models.prefix_tree.models import PLAIN, TREE, make_model


def prompts(n: int, *, shots: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)

    def words(k: int) -> str:
        return " ".join(draw.choice(WORDS[3:]) for _ in range(k))

    block = "".join(f"Q : {words(6)} A : {words(2)} " for _ in range(shots))
    return [f"{block}Q : {words(draw.randrange(2, 30))} A :" for _ in range(n)]


def generate(prompt: str, until: tuple[str, ...] = ("Q",), limit: int = 40, repeats: int = 1, **settings: Any) -> Any:
    known = {"until": list(until), "max_gen_toks": limit, "do_sample": False, **settings}
    return Instance("generate_until", {}, (prompt, known), 0, ("t", 0, repeats))


def plain_texts(checkpoint: Path, asked: list[Any], **options: Any) -> list[str]:
    lm = HFLM(pretrained=str(checkpoint), device="cpu", dtype="float32", batch_size=1, **options)
    return list(lm.generate_until(asked, disable_tqdm=True))


@pytest.mark.parametrize("kind", TREE)
@pytest.mark.parametrize("shots", [0, 5])
@pytest.mark.filterwarnings("ignore")
def test_every_text_is_lm_evals(kind: str, shots: int, tmp_path: Path) -> None:
    checkpoint = make_model(tmp_path / "model", kind, seed=3)
    texts = prompts(12, shots=shots)
    free = plain_texts(checkpoint, [generate(text, (), limit=12) for text in texts])
    stops = [tuple(dict.fromkeys(text.split()[2:4:2])) for text in free]  # words that come, one prompt in two
    asked = [generate(text, stop if n % 2 else ()) for n, (text, stop) in enumerate(zip(texts, stops, strict=True))]
    model = load_model(parse_model(f"m={checkpoint}"), device="cpu")
    with Ledger(tmp_path / "l.sqlite") as ledger:
        got = [own[0] for own in respond(model, asked, ledger)]
    assert model.tree is not None, model.notes
    assert model.tree.proven.longest_prompt > 0
    assert [response.value for response in got] == plain_texts(checkpoint, asked)
    assert len({response.stop_reason for response in got}) > 1, "or the endings show nothing"
    assert len({response.value for response in got}) > 2


@pytest.mark.filterwarnings("ignore")
def test_prompts_in_batches_of_any_size_write_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from capgap.models import tree_generation as module

    checkpoint = make_model(tmp_path / "model", "gemma3_text", seed=3)
    asked = [generate(text) for text in prompts(11, shots=3)]
    written = []
    for lines in (1, 4, 32):
        monkeypatch.setattr(module, "_MAX_LINES", lines)
        model = load_model(parse_model(f"m={checkpoint}"), device="cpu")
        with Ledger(tmp_path / f"{lines}.sqlite") as ledger:
            written.append([own[0] for own in respond(model, asked, ledger)])
    assert written[0] == written[1] == written[2]


@pytest.mark.filterwarnings("ignore")
def test_a_prompt_that_is_too_long_loses_its_beginning_as_in_lm_eval_and_it_is_told(tmp_path: Path) -> None:
    checkpoint = make_model(tmp_path / "model", "llama", max_position_embeddings=64)
    asked = [generate(text, limit=20) for text in prompts(6, shots=4)]
    model = load_model(parse_model(f"m={checkpoint}"), device="cpu")
    with Ledger(tmp_path / "l.sqlite") as ledger:
        got = [own[0].value for own in respond(model, asked, ledger)]
    assert got == plain_texts(checkpoint, asked)
    assert model.notes == [
        "m: 6 prompts are longer than its 64 tokens leave room for (max_tokens 20); they lost their beginning."
    ]


@pytest.mark.filterwarnings("ignore")
def test_repeats_are_drawn_apart_and_each_is_the_same_whatever_stands_beside_it(tmp_path: Path) -> None:
    checkpoint = make_model(tmp_path / "model", "llama", seed=3)
    texts = prompts(5, shots=1)
    hot = {"do_sample": True, "temperature": 1.5, "top_k": 9}
    model = load_model(parse_model(f"m={checkpoint}"), device="cpu")
    with Ledger(tmp_path / "a.sqlite") as ledger:
        together = respond(model, [generate(text, repeats=4, **hot) for text in texts], ledger)
        assert len(ledger) == 20
    with Ledger(tmp_path / "b.sqlite") as ledger:
        alone = [respond(model, [generate(text, repeats=4, **hot)], ledger)[0] for text in texts]
    assert together == alone
    assert all(len({response.value for response in own}) > 1 for own in together)


@pytest.mark.filterwarnings("ignore")
def test_tokens_are_drawn_with_the_models_chances(tmp_path: Path) -> None:
    checkpoint = make_model(tmp_path / "model", "llama", seed=3)
    (text,) = prompts(1, shots=0)
    n = 600
    model = load_model(parse_model(f"m={checkpoint}"), device="cpu")
    asked = generate(text, until=(), limit=1, repeats=n, do_sample=True, temperature=2.0)
    with Ledger(tmp_path / "l.sqlite") as ledger:
        (drawn,) = respond(model, [asked], ledger)
    ids = torch.tensor([model.lm.tok_encode(text)])
    with torch.no_grad():
        chances = torch.softmax(model.lm.model(ids).logits[0, -1] / 2.0, -1)
    likely = int(chances.argmax())
    share = sum(response.value == WORDS[likely] for response in drawn) / n
    spread = float((chances[likely] * (1 - chances[likely]) / n) ** 0.5)
    assert abs(share - float(chances[likely])) < 4 * spread


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.filterwarnings("ignore")
def test_models_that_no_tree_fits_write_on_lm_evals_path(kind: str, tmp_path: Path) -> None:
    checkpoint = make_model(tmp_path / "model", kind, seed=3)
    asked = [generate(text) for text in prompts(3, shots=1)]
    model = load_model(parse_model(f"m={checkpoint}"), device="cpu", batch_tokens=1)
    with Ledger(tmp_path / "l.sqlite") as ledger:
        got = [own[0].value for own in respond(model, asked, ledger)]
    assert got == plain_texts(checkpoint, asked)


@pytest.mark.filterwarnings("ignore")
def test_repeats_on_lm_evals_path_each_have_the_ending_of_their_own_text(tmp_path: Path) -> None:
    checkpoint = make_model(tmp_path / "model", "bloom", seed=3)
    model = load_model(parse_model(f"m={checkpoint}"), device="cpu")
    asked = [generate(text, until=("Q",), repeats=6, do_sample=True, temperature=1.5) for text in prompts(3, shots=0)]
    with Ledger(tmp_path / "l.sqlite") as ledger:
        drawn = [response for own in respond(model, asked, ledger) for response in own]
    assert len({response.n_tokens for response in drawn}) > 2, "or the endings show nothing"
    for response in drawn:
        ended = response.stop_reason != "limit"  # the token that ended it is counted and not in the text
        assert response.n_tokens is not None
        assert len(str(response.value).split()) <= response.n_tokens - ended


@pytest.mark.filterwarnings("ignore")
def test_a_configured_repetition_penalty_takes_lm_evals_path(tmp_path: Path) -> None:
    checkpoint = make_model(tmp_path / "model", "llama", seed=3)
    (checkpoint / "generation_config.json").write_text('{"repetition_penalty": 1.7, "eos_token_id": 1}')
    asked = [generate(text, until=()) for text in prompts(4, shots=1)]
    model = load_model(parse_model(f"m={checkpoint}"), device="cpu", batch_tokens=1)
    with Ledger(tmp_path / "l.sqlite") as ledger:
        got = [own[0].value for own in respond(model, asked, ledger)]
    assert got == plain_texts(checkpoint, asked)
    assert got != [r[0].value for r in _without_penalty(checkpoint, asked, tmp_path)]


def _without_penalty(checkpoint: Path, asked: list[Any], tmp_path: Path) -> list[Any]:
    (checkpoint / "generation_config.json").unlink()
    model = load_model(parse_model(f"m={checkpoint}"), device="cpu")
    with Ledger(tmp_path / "l.sqlite") as ledger:
        return list(respond(model, asked, ledger))


@pytest.mark.filterwarnings("ignore")
def test_a_decoder_that_is_wrong_is_found_by_its_proof(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    checkpoint = make_model(tmp_path / "model", "llama", seed=3)
    asked = [generate(text, until=()) for text in prompts(6, shots=2, seed=1)]
    from capgap.models.prefix_tree import tree_decoder

    real = tree_decoder._LineCache.step

    def misplaced(self: Any, model: Any, attention: Any, tokens: Any) -> Any:
        self._lengths = self._lengths + 1
        return real(self, model, attention, tokens)

    monkeypatch.setattr(tree_decoder._LineCache, "step", misplaced)
    model = load_model(parse_model(f"m={checkpoint}"), device="cpu", batch_tokens=1)
    with Ledger(tmp_path / "l.sqlite") as ledger:
        got = [own[0].value for own in respond(model, asked, ledger)]
    assert model.tree is None
    assert "in writing" in model.notes[0]
    assert got == plain_texts(checkpoint, asked)


@pytest.mark.filterwarnings("ignore")
def test_thoughts_are_neither_stopped_nor_scored(tmp_path: Path) -> None:
    checkpoint = make_model(tmp_path / "model", "llama", seed=3)
    texts = prompts(12, shots=1, seed=1)
    free = plain_texts(checkpoint, [generate(text, until=(), limit=30) for text in texts])
    found = [(n, *case) for n, text in enumerate(free) for case in _thoughts_in(text.split())]
    n, end, stop, expected = found[0]
    model = load_model(parse_model(f"m={checkpoint},think_end={end}"), device="cpu")
    with Ledger(tmp_path / "l.sqlite") as ledger:
        ((got,),) = respond(model, [generate(texts[n], until=(stop,), limit=30)], ledger)
    assert got.value.split() == expected
    assert got.stop_reason == "stop_string"


def _thoughts_in(words: list[str]) -> list[tuple[str, str, list[str]]]:
    """A word that could end the thoughts, a stop that comes before it and again after it, and what stands between."""
    return [
        (end, stop, words[i + 1 : j])
        for i, end in enumerate(words[:20])
        for stop in words[:i]
        for j in range(i + 2, len(words))
        if words[j] == stop and stop not in words[i + 1 : j] and words.count(end) == 1
    ]
