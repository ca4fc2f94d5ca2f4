"""Models behind a server: a real tiny checkpoint is served over HTTP and asked through lm-eval."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from capgap.cli import _status
from capgap.errors import CapgapError, ModelError
from capgap.models import Ledger, LoadedModel, check_model, load_model, parse_model, respond
from capgap.models import server_backend as server_module
from capgap.models.vllm_engine import VllmEngine
from tests.conftest import make_battery, make_checkpoint
from tests.models.serving import Served, serving
from tests.models.test_request_loop import generate, requests, score
from tests.models.tiny_gguf import make_llama

NATS = 1e-3  # batches of other widths round otherwise; measured: 1e-5
SECRET = "sk-never-to-be-written-4711"


@pytest.fixture(scope="module")
def checkpoint(checkpoints: dict[str, Path]) -> Path:
    return checkpoints["student"]


@pytest.fixture(scope="module")
def served(checkpoint: Path) -> Iterator[Served]:
    with serving(checkpoint) as running:
        yield running


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "FIRST_RETRY_PAUSE", 0.01)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def answers(model: LoadedModel, asked: list[Any], path: Path) -> list[Any]:
    with Ledger(path) as ledger:
        return [response for (response,) in respond(model, asked, ledger)]


def assert_same(ours: list[Any], theirs: list[Any]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        if isinstance(one.value, tuple):
            assert one.value[0] == pytest.approx(other.value[0], abs=NATS)
            assert one.value[1] == other.value[1]
        elif isinstance(one.value, float):
            assert one.value == pytest.approx(other.value, abs=NATS)
        else:
            assert one.value == other.value


@pytest.mark.parametrize(
    "more", ["", ",num_concurrent=4", ",tokenized_requests=False", ",batch_size=3,num_concurrent=2"]
)
def test_a_server_gives_the_answers_of_the_model_behind_it(
    checkpoint: Path, served: Served, tmp_path: Path, more: str
) -> None:
    direct = load_model(parse_model(f"d={checkpoint}"), device="cpu")
    model = load_model(parse_model(served.word(checkpoint, more=more)), run_id="r")
    rolling = [Instance("loglikelihood_rolling", {}, ("one plus two is three",), 0, ("t", 0, 1))]
    asked = [*requests(), *rolling, score("", "red blue"), generate("Q : six A :", until=("plus", "two"))]
    expected = answers(direct, asked, tmp_path / "d")
    got = answers(model, [*requests(), *rolling, score("", "red blue"), asked[-1]], tmp_path / "s")
    assert_same(got, expected)
    reasons = [(one.stop_reason, other.stop_reason) for one, other in zip(got, expected, strict=True)]
    assert [one for one, other in reasons if other == "limit"] == ["limit"] * sum(o == "limit" for _, o in reasons)
    if not more:
        texts = [(one.n_tokens, one.stop_reason) for one in got if isinstance(one.value, str)]
        assert all(n is not None and reason in ("end", "limit") for n, reason in texts)


def test_settings_and_stop_strings_reach_the_server(checkpoint: Path, served: Served, tmp_path: Path) -> None:
    model = load_model(parse_model(served.word(checkpoint)), run_id="r")
    settings = {"until": ["Q", "blue"], "max_gen_toks": 5, "do_sample": True, "temperature": 0.7, "top_p": 0.9}
    with Ledger(tmp_path / "l") as ledger:
        ((first, second),) = respond(
            model, [Instance("generate_until", {}, ("Q : one A :", settings), 0, ("t", 0, 2))], ledger
        )
    assert first.value != second.value
    asked = served.asked[-1]
    assert {key: asked[key] for key in ("max_tokens", "temperature", "top_p")} == {
        "max_tokens": 5,
        "temperature": 0.7,
        "top_p": 0.9,
    }
    assert asked["stop"] == ["Q", "blue", "<eos>"]
    assert "seed" not in asked, "one seed would make every repeat of a sampled request the same"


def test_a_text_ends_at_its_stop_string_though_the_server_goes_on(
    checkpoint: Path, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(parse_model(served.word(checkpoint)), run_id="r")
    (free,) = answers(model, [generate("Q : one A :", until=("zzz",))], tmp_path / "a")
    word = str(free.value).split()[2]
    write = served.write
    monkeypatch.setattr(served, "write", lambda ids, limit, stop, heat: write(ids, limit, [], heat))
    (cut,) = answers(model, [generate("Q : one A :", until=(word,))], tmp_path / "b")
    assert cut.value == free.value.split(word)[0]


def test_stop_strings_count_behind_a_models_thoughts(checkpoint: Path, served: Served, tmp_path: Path) -> None:
    model = load_model(parse_model(served.word(checkpoint)), run_id="r")
    (free,) = answers(model, [generate("Q : one A :", until=("zzz",))], tmp_path / "a")
    first, end, *rest = str(free.value).split()
    assert end not in rest
    thinking = load_model(parse_model(served.word(checkpoint, more=f",think_end={end}")), run_id="r")
    (text,) = answers(thinking, [generate("Q : one A :", until=(first,))], tmp_path / "b")
    assert served.asked[-1]["stop"] == ["<eos>"]
    assert text.value == " ".join(rest).split(first)[0]


def test_a_tokenizer_that_begins_every_text_begins_it_over_http_too(tmp_path: Path) -> None:
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer

    folder = make_llama(tmp_path / "begun")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer.save_pretrained(folder)
    assert AutoTokenizer.from_pretrained(folder)("one").input_ids[0] == 0
    asked = [score("Q : one A :", " red"), score("<s>Q : one A :", " red"), score("", "red"), generate("Q : two")]
    with serving(folder) as running:
        model = load_model(parse_model(running.word(folder)), run_id="r")
        got = answers(model, asked, tmp_path / "s")
    direct = load_model(parse_model(str(folder)), device="cpu")
    again = [score("Q : one A :", " red"), score("<s>Q : one A :", " red"), score("", "red"), generate("Q : two")]
    assert_same(got, answers(direct, again, tmp_path / "d"))
    assert got[0].value == pytest.approx(got[1].value, abs=NATS), "the token is not put there twice"


def test_prompts_beyond_what_the_server_reads_are_told(checkpoint: Path, tmp_path: Path) -> None:
    with serving(checkpoint, most=16) as running:
        model = load_model(parse_model(running.word(checkpoint)), run_id="r")
        assert model.lm.max_length == 15
        long = " ".join(["one", "two"] * 20)
        answers(model, [score(long, " red"), score(f"{long} six", " red")], tmp_path / "l")
    assert [note for note in model.notes if "lost their beginning" in note] == model.notes[:1]


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("no_logprobs", "ignores `echo` and `logprobs`"),
        ("no_echo", "it ignores `echo`"),
        ("refuses_echo", "answers 400: Only no echo is supported"),
        ("no_top", "lacks top_logprobs"),
        ("other_tokens", "its tokenizer is another, or it puts a token before the text"),
    ],
)
def test_a_server_that_gives_no_scores_of_the_prompt_is_noticed_before_it_is_asked(
    checkpoint: Path, tmp_path: Path, fault: str, told: str
) -> None:
    with serving(checkpoint, fault) as running:
        model = load_model(parse_model(running.word(checkpoint)), run_id="r")
        assert not model.can_score
        assert told in str(model.no_scores_reason)
        with pytest.raises(ModelError, match="no log-likelihoods"):
            answers(model, [score("Q A", " red")], tmp_path / "l")
        (text,) = answers(model, [generate("Q : one A :")], tmp_path / "l")
        assert text.value, "it can still be asked for texts"


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("status=401", r"answers 401: the server says no to Bearer …. Put the server's key .* OPENAI_API_KEY"),
        ("status=404", "answers 404.*Expected the whole address"),
        ("status=500", r"answers 500.*\(3 tries\)"),
        ("garbage", "something that is no JSON: '<html>Bad gateway</html>'"),
        ("no_choices", 'expected a list of choices, found {"answer": "red"}'),
    ],
)
@pytest.mark.parametrize("chat", [False, True])
def test_what_a_server_does_wrong_is_one_message_without_the_key(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, told: str, chat: bool
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)

    def ask(word: str) -> None:
        answers(load_model(parse_model(word), run_id="r"), [generate("Q : one A :")], tmp_path / "l")

    with serving(checkpoint, fault) as running, pytest.raises(ModelError, match=told) as raised:
        ask(running.word(checkpoint, chat=chat))
    assert SECRET not in str(raised.value)
    assert str(raised.value).startswith("model served: ")
    assert running.headers[0]["Authorization"] == f"Bearer {SECRET}", "the server got it"


def test_a_server_that_is_down_says_so(checkpoint: Path) -> None:
    with serving(checkpoint) as running:
        word = running.word(checkpoint)
    with pytest.raises(ModelError, match=r"cannot be reached \(.*refused.*\). Is the server running\?"):
        assert load_model(parse_model(word), run_id="r").can_score


@pytest.mark.parametrize("at_once", [1, 3])
def test_a_server_that_fails_loses_no_more_than_it_was_asked_at_once(
    checkpoint: Path, tmp_path: Path, at_once: int
) -> None:
    more = f",max_retries=1,num_concurrent={at_once}"
    with Ledger(tmp_path / "l") as ledger:
        with serving(checkpoint, "late=7") as running:
            model = load_model(parse_model(running.word(checkpoint, more=more)), run_id="r")
            with pytest.raises(ModelError, match=r"answers 500: out of memory.*the same command goes on"):
                respond(model, requests(), ledger)
        assert 6 - at_once < len(ledger) <= 6, "the first of the seven was the probe"


def test_two_runs_never_share_an_answer_and_one_run_shares_its_own(checkpoint: Path, served: Served) -> None:
    spec = parse_model(served.word(checkpoint))
    prints = [load_model(spec, run_id=run).fingerprint for run in ("a", "a", "b", "", "")]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 4, "without a name every loading is a run of its own"


def test_a_chat_is_asked_in_messages_and_gives_texts_only(checkpoint: Path, served: Served, tmp_path: Path) -> None:
    word = served.word(checkpoint, chat=True, more=",system_prompt=Be brief, please.,enable_thinking=off")
    model = load_model(parse_model(word), run_id="r")
    assert model.prompting.chat_template
    assert model.prompting.system_prompt == "Be brief, please."
    with pytest.raises(ModelError, match="no log-likelihoods"):
        answers(model, [score("Q A", " red")], tmp_path / "l")
    talk = [{"role": "system", "content": "red"}, {"role": "user", "content": "Q : one ?"}]
    prompt = model.lm.apply_chat_template(talk)
    (text,) = answers(model, [generate(prompt, until=("Q", "a", "b", "c", "d", "e"))], tmp_path / "l")
    assert served.asked[-1]["messages"] == talk
    assert served.asked[-1]["chat_template_kwargs"] == {"enable_thinking": False}
    assert not any(letter in str(text.value) for letter in "Qabcde"), "servers take four stop strings; six hold"
    plain = answers(model, [generate("Q : one A :")], tmp_path / "l")
    assert served.asked[-1]["messages"] == [{"role": "user", "content": "Q : one A :"}]
    assert plain[0].n_tokens is not None


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("local-chat-completions:model=m,base_url=http://x/v1/chat/completions", "gives no log-likelihoods"),
        ("openai-chat-completions:model=gpt", "gives no log-likelihoods"),
        ("anthropic-chat:model=claude", "gives no log-likelihoods"),
        ("local-completions:base_url=http://x/v1/completions", "needs the model's name on the server: model=NAME"),
        ("local-completions:model=m", "needs an address: base_url=http://HOST:PORT/v1/completions"),
        ("local-completions:model=m,base_url=x:1/v1", "is no address"),
        (
            "local-completions:model=m,base_url=http://x/v1/chat/completions",
            "is the address for local-chat-completions",
        ),
        ("local-chat-completions:model=m,base_url=http://x/v1/completions", "is the address for local-completions"),
        (
            "local-chat-completions:model=m,base_url=http://x/v1/chat/completions,chat_template=off",
            "takes messages only",
        ),
    ],
)
def test_what_a_backend_cannot_do_is_refused_before_anything_is_asked(word: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        check_model(parse_model(word), scores=True)


@pytest.mark.parametrize(
    ("word", "pip"),
    [
        ("vllm:pretrained=org/m", r"'capgap\[vllm\]'"),
        ("sglang:pretrained=org/m", "sglang"),
        ("litellm:model=m", "lm-eval"),
    ],
)
def test_a_backend_whose_package_is_missing_names_the_command(word: str, pip: str) -> None:
    from importlib.util import find_spec

    if find_spec(word.partition(":")[0]) is not None:
        pytest.skip("it is installed")
    for attempt in (check_model, load_model):
        with pytest.raises(ModelError, match=f"is missing. pip install .*{pip}"):
            attempt(parse_model(word))  # type: ignore[operator]


def test_a_misspelt_argument_of_a_server_names_the_nearest(checkpoint: Path, served: Served) -> None:
    with pytest.raises(ModelError, match=r"knows no argument 'num_concurent'. Did you mean 'num_concurrent'"):
        load_model(parse_model(served.word(checkpoint, more=",num_concurent=4")))


def test_every_other_backend_starts_by_name_and_its_failures_are_one_message(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hf = load_model(parse_model(f"h=hf:pretrained={checkpoint},dtype=float32"), device="cpu", run_id="r")
    direct = load_model(parse_model(f"d={checkpoint}"), device="cpu")
    assert_same(answers(hf, requests(), tmp_path / "h"), answers(direct, requests(), tmp_path / "d"))
    assert str(checkpoint.parent) not in json.dumps([hf.identity, hf.facts])
    monkeypatch.setattr("lm_eval.models.dummy.DummyLM.tokenizer", None)
    dummy = load_model(parse_model("dummy:write_out=False"), run_id="r")

    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("no such thing\nat all")

    monkeypatch.setattr("lm_eval.models.dummy.DummyLM.loglikelihood", broken)
    with pytest.raises(
        ModelError, match=r"failed when it was asked for log-likelihoods: ZeroDivisionError: no such thing$"
    ):
        answers(dummy, [score("Q", " red")], tmp_path / "x")
    with pytest.raises(ModelError, match=r"lm-eval cannot start hf:pretrained=/?.*nowhere"):
        load_model(parse_model(f"hf:pretrained={tmp_path / 'nowhere'}"), device="cpu")


def test_a_capgap_error_of_a_server_is_told_as_it_is(checkpoint: Path) -> None:
    with serving(checkpoint, "status=403") as running, pytest.raises(CapgapError, match="answers 403"):
        assert load_model(parse_model(running.word(checkpoint)), run_id="r").can_score


def test_a_server_without_a_tokenizer_is_told_which_argument_names_one(checkpoint: Path, served: Served) -> None:
    word = f"local-completions:model=tiny,base_url={served.address}/completions"
    with pytest.raises(ModelError, match=r"no tokenizer= was given,.*Say tokenizer=CKPT"):
        load_model(parse_model(word))


def test_a_backend_that_leaves_answers_out_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lm_eval.models.dummy.DummyLM.tokenizer", None)
    model = load_model(parse_model("dummy:write_out=False"), run_id="r")
    for answer in ([], [None]):
        monkeypatch.setattr("lm_eval.models.dummy.DummyLM.generate_until", lambda *_, answer=answer, **__: answer)
        with pytest.raises(ModelError, match="gave 0 answers to 1 requests"):
            answers(model, [generate("Q")], tmp_path / "l")


def evaluate(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """Status of `capgap evaluate`, and what it said."""
    status = _status(["evaluate", *words, "--base", "none", "--device", "cpu"])
    said = capsys.readouterr()
    return status, said.out + said.err


def test_evaluate_over_a_server_gives_the_same_outcomes_and_keeps_no_key(
    checkpoint: Path,
    served: Served,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import pandas as pd

    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    battery, out = make_battery(tmp_path / "battery", shots=2), tmp_path / "out"
    words = ["--student", f"direct={checkpoint}", "--student", served.word(checkpoint, name="remote")]
    status, said = evaluate(capsys, *words, "--battery", str(battery), "--out", str(out))
    assert status == 0, said
    assert "Requesting API" not in said, "one bar is enough"
    rows = pd.read_parquet(out / "outcomes").set_index(["model", "task", "item", "metric", "filter"])
    direct, remote = rows.loc["direct"], rows.loc["remote"].loc[rows.loc["direct"].index]
    for column in ("score", "status", "prediction"):
        assert direct[column].equals(remote[column]), column
    assert (direct["margin"] - remote["margin"]).abs().max() < NATS
    for file in out.rglob("*"):
        assert not file.is_file() or SECRET.encode() not in file.read_bytes(), file
    asked = len(served.asked)
    assert evaluate(capsys, *words, "--battery", str(battery), "--out", str(out))[0] == 0
    assert len(served.asked) - asked <= 1, "the second time the ledger answers; only the probe asks"
    asked = len(served.asked)
    assert evaluate(capsys, *words, "--battery", str(battery), "--out", str(out), "--rescore")[0] == 0
    assert len(served.asked) == asked, "scores are made again without the server"


@pytest.mark.parametrize(
    ("fault", "chat", "told"),
    [("no_logprobs", False, "log-likelihoods"), ("", True, "log-likelihoods"), ("status=401", False, "answers 401")],
)
def test_evaluate_refuses_what_a_server_cannot_do_with_exit_status_2(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], fault: str, chat: bool, told: str
) -> None:
    with serving(checkpoint, fault) as running:
        word = running.word(checkpoint, chat=chat)
        battery = make_battery(tmp_path / "battery")
        status, said = evaluate(capsys, "--student", word, "--battery", str(battery), "--out", str(tmp_path / "out"))
    assert status == 2, said
    assert told in said
    assert "Traceback" not in said
    assert len(running.asked) <= 1, "nothing but the probe"


@pytest.mark.parametrize(
    "argument",
    [
        f"auth_token={SECRET}",
        f"api_key={SECRET}",
        f"base_url=http://me:{SECRET}@x/v1/completions",
        f"base_url=http://x/v1/completions?key={SECRET}",
    ],
)
def test_a_key_in_a_model_word_is_refused_and_not_repeated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], argument: str
) -> None:
    out = tmp_path / "out"
    status, said = evaluate(capsys, "--student", f"local-completions:model=m,{argument}", "--out", str(out))
    assert status == 2
    assert "looks like a secret" in said
    assert SECRET not in said
    assert not out.exists()


def test_make_checkpoint_is_what_the_server_serves(tmp_path: Path) -> None:
    with serving(make_checkpoint(tmp_path / "c", chat=True)) as running:
        model = load_model(parse_model(running.word(tmp_path / "c")), run_id="r")
        assert model.prompting.chat_template, "a completions server is addressed as its tokenizer suggests"
        assert "A :" in model.lm.apply_chat_template([{"role": "user", "content": "one"}])


def test_a_text_that_vllm_cut_off_is_known_as_one() -> None:
    """Without vLLM: what it returns, as its documentation has it."""
    from types import SimpleNamespace

    class Known(LM):  # type: ignore[misc]
        loglikelihood = loglikelihood_rolling = generate_until = None

        def _model_generate(self, **_: Any) -> Any:
            ways = [("length", None), ("stop", None), ("stop", "Q")]
            texts = [SimpleNamespace(token_ids=[1, 2], finish_reason=way, stop_reason=why) for way, why in ways]
            return [SimpleNamespace(outputs=[text]) for text in texts]

    asked: Any = type("Asked", (VllmEngine, Known), {})()
    asked._model_generate([], generate=False)
    assert asked.endings == []
    asked._model_generate([], generate=True)
    assert [ended.stop_reason for ended in asked.endings] == ["length", "eos", "stop"]
    assert asked.endings[0].as_dict() == {"n_tokens": 2, "stop_reason": "length"}
