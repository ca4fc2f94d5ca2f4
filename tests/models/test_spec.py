from pathlib import Path

import pytest

from capgap.errors import ModelError
from capgap.models import expand_models, parse_model


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
    ],
)
def test_a_word_names_one_model(word: str, name: str, kind: str, checkpoint: str, options: dict[str, str]) -> None:
    spec = parse_model(word)
    assert (spec.name, spec.kind, spec.checkpoint, spec.options) == (name, kind, checkpoint, options)


@pytest.mark.parametrize("word", ["out/x", "microworld:small,dtype=float32", "vllm:pretrained=m,dtype=auto"])
def test_the_word_of_a_spec_means_the_same_model(word: str) -> None:
    assert parse_model(parse_model(word).word) == parse_model(word)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("", "no checkpoint is named"),
        ("name=", "no checkpoint is named"),
        ("out/x,chat_templte=on", "unknown key 'chat_templte'. Did you mean 'chat_template'"),
        ("out/x,dtype=float23", "dtype='float23' is not possible. Did you mean 'float32'"),
        ("vlm:pretrained=x", "'vlm' is no backend. Did you mean 'vllm'"),
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
    with pytest.raises(ModelError, match="no directory matches"):
        expand_models([f"{tmp_path}/none/*"])


def test_models_of_one_folder_name_get_as_much_path_as_tells_them_apart() -> None:
    assert [spec.name for spec in expand_models(["a/final", "b/final"])] == ["final", "b/final"]


def test_one_name_for_two_models_is_refused_and_one_model_twice_is_once() -> None:
    with pytest.raises(ModelError, match="two models are called 'x'"):
        expand_models(["x=microworld:small", "x=microworld:large"])
    assert len(expand_models(["microworld:small", "microworld:small"])) == 1
