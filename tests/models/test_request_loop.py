"""Responses through the ledger, with real tiny checkpoints."""

from pathlib import Path
from typing import Any

import pytest
from lm_eval.api.instance import Instance

from capgap.errors import ModelError
from capgap.models import Ledger, load_model, parse_model, respond
from capgap.models.request_loop import _as_response
from tests.conftest import make_checkpoint


def score(context: str, continuation: str) -> Any:
    return Instance("loglikelihood", {}, (context, continuation), 0, ("t", 0, 1))


def generate(context: str, *, limit: int = 8, until: tuple[str, ...] = ("Q",), repeats: int = 1) -> Any:
    settings = {"until": list(until), "max_gen_toks": limit, "do_sample": False}
    return Instance("generate_until", {}, (context, settings), 0, ("t", 0, repeats))


def requests() -> list[Any]:
    contexts = [f"Q : {a} plus {b} A :" for a in ("one", "two", "three four") for b in ("five", "six")]
    return [score(c, f" {x}") for c in contexts for x in ("red", "blue green")] + [generate(c) for c in contexts]


@pytest.fixture(scope="module")
def model(checkpoints: dict[str, Path]) -> Any:
    return load_model(parse_model(f"m={checkpoints['student']}"), device="cpu", batch_tokens=64)


def test_a_second_asking_computes_nothing_and_answers_the_same(model: Any, tmp_path: Path) -> None:
    counts = [0, 0]

    def progress(computed: int, found: int) -> None:
        counts[0] += computed
        counts[1] += found

    with Ledger(tmp_path / "l.sqlite") as ledger:
        first = respond(model, requests(), ledger, progress=progress)
        assert counts == [18, 0]
        again = requests()
        assert respond(model, again, ledger, progress=progress) == first
        assert counts == [18, 18]
        assert again[0].resps == [first[0][0].value], "lm-eval finds the responses where it looks for them"


def test_neither_order_nor_a_part_answered_before_changes_a_response(model: Any, tmp_path: Path) -> None:
    with Ledger(tmp_path / "a.sqlite") as ledger:
        whole = respond(model, requests(), ledger)
    with Ledger(tmp_path / "b.sqlite") as ledger:
        respond(model, requests()[5:9], ledger)
        backwards = respond(model, requests()[::-1], ledger)[::-1]
    for one, other in zip(whole, backwards, strict=True):
        if isinstance(one[0].value, tuple):
            assert one[0].value[0] == pytest.approx(other[0].value[0], abs=1e-4)
            assert one[0].value[1] == other[0].value[1]
        else:
            assert one == other


def test_models_that_differ_in_one_weight_never_share_a_response(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    twin = tmp_path / "twin"
    shutil.copytree(checkpoints["student"], twin)
    weights = load_file(twin / "model.safetensors")
    name = sorted(weights)[0]
    weights[name] = weights[name].clone()
    weights[name].view(-1)[0] += 1e-3
    save_file(weights, twin / "model.safetensors", metadata={"format": "pt"})
    words = [str(checkpoints["student"]), str(twin), f"{checkpoints['student']},dtype=bfloat16"]
    models = [load_model(parse_model(word), device="cpu") for word in words]
    assert len({m.fingerprint for m in models}) == 3
    with Ledger(tmp_path / "l.sqlite") as ledger:
        for m in models:
            respond(m, requests()[:4], ledger)
        assert len(ledger) == 12


def test_the_ending_of_a_generation_is_told(model: Any, tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.sqlite") as ledger:
        contexts = [f"Q : {w} A :" for w in ("one", "two", "three", "red", "blue", "green", "seven")]
        free = respond(model, [generate(c, until=("zzz",)) for c in contexts], ledger)
        for (response,) in free:
            assert response.stop_reason in ("end", "limit")
            n_words = len(str(response.value).split())
            if response.stop_reason == "limit":
                assert response.n_tokens == 8
            assert response.n_tokens is not None
            assert n_words <= response.n_tokens <= 8
        cut = next(r for (r,) in free if len(str(r.value).split()) > 2)
        word = str(cut.value).split()[1]
        context = contexts[[r for (r,) in free].index(cut)]
        ((stopped,),) = respond(model, [generate(context, until=(word,))], ledger)
        assert stopped.stop_reason == "stop_string"
        assert stopped.n_tokens == 2


def test_equal_requests_are_asked_once(model: Any, tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.sqlite") as ledger:
        answers = respond(model, [score("Q A", " red")] * 3, ledger)
        assert len(ledger) == 1
    assert answers[0] == answers[1] == answers[2]


def test_a_limit_that_leaves_no_room_for_a_prompt_is_told_before_it_runs(model: Any, tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.sqlite") as ledger, pytest.raises(ModelError, match="Lower max_tokens"):
        respond(model, [generate("Q A", limit=500)], ledger)


def test_an_adapter_directory_is_a_checkpoint(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(checkpoints["student"])
    torch.manual_seed(0)
    adapted = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapter")
    model = load_model(parse_model(str(tmp_path / "adapter")), device="cpu")
    plain = load_model(parse_model(str(checkpoints["student"])), device="cpu")
    with Ledger(tmp_path / "l.sqlite") as ledger:
        ((one,),) = respond(model, [score("Q : one A :", " red")], ledger)
        ((other,),) = respond(plain, [score("Q : one A :", " red")], ledger)
    ids = torch.tensor([model.lm.tok_encode("Q : one A : red")])
    with torch.no_grad():
        expected = torch.log_softmax(adapted(ids).logits[0, -2], -1)[ids[0, -1]].item()
    assert one.value[0] == pytest.approx(expected, abs=1e-4)
    assert abs(one.value[0] - other.value[0]) > 1e-3
    assert model.facts["adaptation"] == "lora"


def test_prompting_follows_the_tokenizer_unless_it_is_told(tmp_path: Path) -> None:
    chat = make_checkpoint(tmp_path / "chat", chat=True)
    assert load_model(parse_model(str(chat)), device="cpu").prompting.chat_template
    off = load_model(parse_model(f"{chat},chat_template=off"), device="cpu")
    assert not off.prompting.chat_template
    plain = make_checkpoint(tmp_path / "plain")
    with pytest.raises(ModelError, match="has no chat template"):
        load_model(parse_model(f"{plain},chat_template=on"), device="cpu")


@pytest.mark.parametrize(
    ("name", "content"), [("config.json", "{}"), ("model.safetensors", "x" * 64), ("tokenizer.json", "{")]
)
def test_a_broken_checkpoint_is_one_message_that_names_it(tmp_path: Path, name: str, content: str) -> None:
    broken = make_checkpoint(tmp_path / "broken")
    (broken / name).write_text(content)
    with pytest.raises(ModelError, match=r"model broken: .*broken.* cannot be loaded"):
        load_model(parse_model(str(broken)), device="cpu")


def test_an_unknown_device_lists_those_that_are_there(checkpoints: dict[str, Path]) -> None:
    with pytest.raises(ModelError, match=r"--device cudo: torch sees no such device here. It sees: cpu \(1\)"):
        load_model(parse_model(str(checkpoints["base"])), device="cudo")


@pytest.mark.parametrize("tree", [True, False])
def test_the_tokens_that_a_prompt_loses_are_counted(checkpoints: dict[str, Path], tmp_path: Path, tree: bool) -> None:
    model = load_model(parse_model(f"m={checkpoints['student']}"), device="cpu", batch_tokens=64)
    if not tree:
        model.drop_tree_scoring("tried without")
    room = model.lm.max_length
    long, short = "one " * (room + 10), "Q : one A :"
    with Ledger(tmp_path / "l.sqlite") as ledger:
        asked = [score(long, " red"), score(short, " red"), generate(long), generate(short)]
        answers = [response for (response,) in respond(model, asked, ledger)]
        again = [response for (response,) in respond(model, asked, ledger)]
    n_long, n_answer = (len(model.lm.tok_encode(text)) for text in (long.strip(), long.strip() + " red"))
    # The last token of a continuation is not read; a text to be written keeps room for its eight tokens.
    assert [answer.n_prompt_cut for answer in answers[:2]] == [n_answer - room - 1, None]
    assert answers[2].n_prompt_cut in (n_long - (room - 8), len(model.lm.tok_encode(long)) - (room - 8))
    assert answers[3].n_prompt_cut is None
    assert again == answers


def test_endings_of_older_ledgers_are_told_in_todays_words() -> None:
    words = {"eos": "end", "stop": "stop_string", "length": "limit", "something": None}
    for word, ours in words.items():
        assert _as_response("generate_until", {"text": "x", "stop_reason": word}).stop_reason == ours
    assert _as_response("generate_until", {"text": "x"}).stop_reason is None
    assert _as_response("loglikelihood", [-1.0, True]).n_prompt_cut is None
