import json
import struct
from pathlib import Path

import pytest

from capgap.errors import ModelError
from capgap.models import find_base, locate, parse_model
from capgap.models.checkpoint import file_hashes

NO_WEIGHTS = struct.pack("<Q", 2).decode() + "{}"
"""A whole safetensors file without a tensor."""


def _fake(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in ({"config.json": "{}", "model.safetensors": NO_WEIGHTS} | files).items():
        (folder / name).write_text(content)
    return folder


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "does not exist"),
        (lambda p: p.mkdir(), "it is empty. Expected config.json"),
        (lambda p: p.write_text(""), "is a file. Expected a checkpoint directory"),
        (lambda p: _fake(p / "checkpoint-5"), "holds checkpoint-5.*Did you mean .*checkpoint-5"),
        (lambda p: (_fake(p) / "model.safetensors").unlink(), "has no weights"),
        (
            lambda p: _fake(p, **{"pytorch_model.bin": "x"}).joinpath("model.safetensors").unlink(),
            "pickle can run code",
        ),
        (lambda p: _fake(p, **{"model.safetensors": ""}), "was not written to its end"),
        (lambda p: _fake(p, **{"config.json": "{"}), "config.json: cannot be read as JSON"),
        (lambda p: _fake(p, **{"config.json": "[]"}), "expected a JSON object"),
        (
            lambda p: _fake(p, **{"adapter_config.json": "{}", "adapter_model.safetensors": NO_WEIGHTS}),
            "names no base model",
        ),
    ],
)
def test_what_is_no_checkpoint_is_refused_with_what_it_is(tmp_path: Path, make: object, message: str) -> None:
    path = tmp_path / "student"
    make(path)  # type: ignore[operator]
    with pytest.raises(ModelError, match=message):
        locate(parse_model(str(path)))


def test_a_misspelt_path_names_its_neighbour(tmp_path: Path) -> None:
    _fake(tmp_path / "student")
    with pytest.raises(ModelError, match="Did you mean 'student'"):
        locate(parse_model(str(tmp_path / "studnet")))


def test_a_hub_name_without_the_hub_says_what_to_do() -> None:
    with pytest.raises(ModelError, match=r"no directory 'no-such/model' here.*Give a local directory"):
        locate(parse_model("no-such/model"))


def test_a_base_is_found_where_the_students_files_name_it(tmp_path: Path) -> None:
    base = _fake(tmp_path / "base")
    card = _fake(tmp_path / "card", **{"README.md": "---\nbase_model: org/base\nlicense: mit\n---\n# A model"})
    merge = _fake(tmp_path / "merge", **{"README.md": "---\nbase_model: [a/b, c/d]\n---\n"})
    trained = _fake(tmp_path / "trained", **{"capgap.json": json.dumps({"base": "../base"})})
    adapter = tmp_path / "adapter"
    _fake(
        adapter,
        **{
            "adapter_config.json": json.dumps({"base_model_name_or_path": str(base)}),
            "adapter_model.safetensors": NO_WEIGHTS,
        },
    )
    assert find_base(parse_model(str(card))).word == "org/base"  # type: ignore[union-attr]
    assert find_base(parse_model(str(merge))) is None
    assert find_base(parse_model(str(base))) is None
    assert find_base(parse_model(str(trained))).word == str(base.resolve())  # type: ignore[union-attr]
    found = find_base(parse_model(str(adapter)))
    assert found is not None
    assert found.word == str(base)
    assert found.source.endswith("adapter_config.json")


def test_a_hostile_model_card_is_no_base(tmp_path: Path) -> None:
    for text in ("---\n!!python/object/apply:os.system ['x']\n---", "---\nbase_model: {a: 1}\n---", "--- \x00"):
        assert find_base(parse_model(str(_fake(tmp_path / "m", **{"README.md": text})))) is None


def test_one_changed_byte_changes_the_hash_even_of_a_large_file(tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"\x00" * 2_000_000)
    before = file_hashes(tmp_path, ("*.safetensors",))
    assert file_hashes(tmp_path, ("*.safetensors",)) == before
    weights.write_bytes(b"\x00" * 1_999_999 + b"\x01")
    assert file_hashes(tmp_path, ("*.safetensors",)) != before
