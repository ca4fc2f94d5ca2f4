import ast
import subprocess
import sys
from pathlib import Path

import pytest

from capgap.errors import ModelError
from capgap.models import ModelSpec, expand_models, parse_model


@pytest.mark.parametrize(
    ("word", "name", "kind", "checkpoint", "options"),
    [
        ("out/student", "student", "checkpoint", "out/student", {}),
        ("org/Model-1B,revision=main", "Model-1B", "checkpoint", "org/Model-1B", {"revision": "main"}),
        ("s=out/x/,chat_template=off", "s", "checkpoint", "out/x/", {"chat_template": "off"}),
        ("out/run/checkpoint-300", "run/checkpoint-300", "checkpoint", "out/run/checkpoint-300", {}),
        ("microworld:small", "small", "microworld", "small", {}),
        ("base=microworld:small,dtype=float32", "base", "microworld", "small", {"dtype": "float32"}),
        ("a,system_prompt=You are brief, polite.", "a", "checkpoint", "a", {"system_prompt": "You are brief, polite."}),
        (
            "local-completions:model=org/m,base_url=http://localhost:1/v1/completions",
            "m",
            "local-completions",
            "model=org/m,base_url=http://localhost:1/v1/completions",
            {},
        ),
        ("v=vllm:pretrained=org/m,dtype=auto", "v", "vllm", "pretrained=org/m,dtype=auto", {}),
        (
            "local-chat-completions:model=m,system_prompt=Be brief, please.,max_gen_toks=5,think_end_token=</think>",
            "m",
            "local-chat-completions",
            "model=m,max_gen_toks=5",
            {"system_prompt": "Be brief, please.", "think_end": "</think>"},
        ),
        ("vllm:pretrained=m,enable_thinking=False", "m", "vllm", "pretrained=m", {"enable_thinking": "off"}),
        ("out/m.gguf", "m.gguf", "checkpoint", "out/m.gguf", {}),
    ],
)
def test_a_word_names_one_model(word: str, name: str, kind: str, checkpoint: str, options: dict[str, str]) -> None:
    spec = parse_model(word)
    assert (spec.name, spec.kind, spec.checkpoint, spec.options) == (name, kind, checkpoint, options)


@pytest.mark.parametrize(
    "word",
    [
        "out/x",
        "microworld:small,dtype=float32",
        "vllm:pretrained=m,dtype=auto",
        "vllm:pretrained=m,chat_template=on,dtype=auto",
    ],
)
def test_the_word_of_a_spec_means_the_same_model(word: str) -> None:
    assert parse_model(parse_model(word).spec_text) == parse_model(word)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("", "no checkpoint is named"),
        ("name=", "no checkpoint is named"),
        ("out/x,chat_templte=on", "unknown key 'chat_templte'. Did you mean 'chat_template'"),
        ("out/x,dtype=float23", "dtype='float23' is not possible. Did you mean 'float32'"),
        ("vlm:pretrained=x", "'vlm' is no backend. Did you mean 'vllm'"),
        ("m=local-completion:model=x,base_url=http://x", "'local-completion' is no backend. Did you mean 'local-c"),
        ("vllm:org/m", "'org/m' is no argument. Expected vllm:key=value"),
        ("vllm:pretrained=m,chat_template=yes", "chat_template='yes' is not possible"),
    ],
)
def test_a_wrong_word_is_refused_with_the_nearest_valid_one(word: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        parse_model(word)


def test_globs_give_checkpoints_in_the_order_of_their_steps(tmp_path: Path) -> None:
    for step in (1000, 200, 30):
        (tmp_path / "run" / f"checkpoint-{step}").mkdir(parents=True)
    names = [spec.name for spec in expand_models([f"{tmp_path}/run/checkpoint-*"])]
    assert names == ["run/checkpoint-30", "run/checkpoint-200", "run/checkpoint-1000"]
    (tmp_path / "quants").mkdir()
    for file in ("b.gguf", "a.gguf", "README.md"):
        (tmp_path / "quants" / file).touch()
    assert [spec.name for spec in expand_models([f"{tmp_path}/quants/*"])] == ["a.gguf", "b.gguf"]
    with pytest.raises(ModelError, match="no directory matches"):
        expand_models([f"{tmp_path}/none/*"])


def test_models_of_one_folder_name_get_as_much_path_as_tells_them_apart() -> None:
    assert [spec.name for spec in expand_models(["a/final", "b/final"])] == ["final", "b/final"]


def test_one_name_for_two_models_is_refused_and_one_model_twice_is_once() -> None:
    with pytest.raises(ModelError, match="two models are called 'x'"):
        expand_models(["x=microworld:small", "x=microworld:large"])
    assert len(expand_models(["microworld:small", "microworld:small"])) == 1


def test_every_backend_of_lm_eval_is_a_word_and_none_is_imported_for_it() -> None:
    code = "import sys, capgap.models.model_spec as s; print(s.BACKENDS); sys.exit('lm_eval' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    from lm_eval.models import MODEL_MAPPING

    assert set(ast.literal_eval(told.stdout)) == set(MODEL_MAPPING)


@pytest.mark.parametrize(
    "word",
    [
        "local-completions:model=m,auth_token=SECRET",
        "m=openai-completions:model=m,OPENAI_API_KEY=SECRET",
        "local-completions:model=m,base_url=https://me:SECRET@host/v1/completions",
        "local-completions:model=m,base_url=https://host/v1/completions?api-key=SECRET",
        "lokal-completions:model=m,api_key=SECRET",
        "out/m,hf_token=SECRET",
    ],
)
def test_a_word_with_a_secret_is_refused_and_the_secret_not_repeated(word: str) -> None:
    with pytest.raises(ModelError, match=r"looks like a secret.*environment") as raised:
        parse_model(word)
    assert "SECRET" not in str(raised.value)


@pytest.mark.parametrize(
    "word",
    [
        "local-completions:model=m,tokenizer=org/m,custom_prefix_token_id=3,max_gen_toks=9",
        "out/m,system_prompt=Never tell the password=x or token=y",
        "out/key=1/m",
    ],
)
def test_what_only_sounds_like_a_secret_is_none(word: str) -> None:
    parse_model(word)


def test_the_place_of_a_model_names_no_folder_of_this_machine_and_no_secret() -> None:
    spec = parse_model("local-completions:model=/home/me/m,base_url=http://h/v1/completions,tokenizer=/home/me/t")
    assert spec.location == "local-completions:model=m,base_url=http://h/v1/completions,tokenizer=t"
    made = ModelSpec("m", "model=m,auth_token=SECRET", "local-completions")
    assert "SECRET" not in made.location
