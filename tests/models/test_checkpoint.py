import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from capgap.errors import ModelError
from capgap.models import check_model, find_base, load_model, locate, parse_model
from capgap.models.checkpoint import file_hashes
from tests.conftest import make_checkpoint
from tests.models.tiny_gguf import make_gguf, make_llama

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
    assert find_base(parse_model(str(card))).spec_text == "org/base"  # type: ignore[union-attr]
    assert find_base(parse_model(str(merge))) is None
    assert find_base(parse_model(str(base))) is None
    assert find_base(parse_model(str(trained))).spec_text == str(base.resolve())  # type: ignore[union-attr]
    found = find_base(parse_model(str(adapter)))
    assert found is not None
    assert found.spec_text == str(base)
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


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """A real checkpoint in several files."""
    from transformers import AutoModelForCausalLM

    folder = make_checkpoint(tmp_path / "whole")
    model = AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="30KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    return folder


def _index(folder: Path, change: Callable[[dict[str, str]], None]) -> None:
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    change(index["weight_map"])
    path.write_text(json.dumps(index))


def _shard(folder: Path) -> Path:
    return sorted(folder.glob("*.safetensors"))[1]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: _shard(p).unlink(), r"model-00002.*is missing; model.safetensors.index.json names it"),
        (
            lambda p: _shard(p).write_bytes(_shard(p).read_bytes()[:-1]),
            r"model-00002.* cannot be loaded: it is truncated",
        ),
        (lambda p: _shard(p).write_bytes(_shard(p).read_bytes() + b"x"), "longer than its header says"),
        (lambda p: _shard(p).write_bytes(b"\xff" * 100), "no safetensors file, or damaged .its header claims"),
        (lambda p: (p / "model.safetensors.index.json").unlink(), "neither model.safetensors nor .*index.json"),
        (lambda p: (p / "model.safetensors.index.json").write_text("[]"), "is no index of weights"),
        (lambda p: _index(p, lambda m: m.update(x="../other/model.safetensors")), "refused: it names '../other/model"),
        (lambda p: _index(p, lambda m: m.update(x="/etc/passwd")), "refused: it names '/etc/passwd'"),
        (lambda p: _index(p, lambda m: m.update(x="..\\model.safetensors")), "refused: it names"),
        (lambda p: _index(p, lambda m: m.update(x="pytorch_model.bin")), r"refused: .* Expected \*.safetensors"),
    ],
)
def test_weights_that_are_not_all_there_and_whole_are_refused_before_they_are_loaded(
    sharded: Path, spoil: Callable[[Path], Any], message: str
) -> None:
    spoil(sharded)
    with pytest.raises(ModelError, match=message):
        check_model(parse_model(str(sharded)))


def test_a_snapshot_of_links_is_a_checkpoint_and_a_broken_link_is_told(sharded: Path, tmp_path: Path) -> None:
    """So the hub's cache keeps them: files by their hash, names as links."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    for n, file in enumerate(sorted(sharded.iterdir())):
        file.rename(blobs / f"blob{n}")
        (snapshot / file.name).symlink_to(Path("../../blobs") / f"blob{n}")
    assert load_model(parse_model(str(snapshot)), device="cpu").facts["n_params"]
    _shard(snapshot).resolve().unlink()
    with pytest.raises(ModelError, match="It is a broken link"):
        locate(parse_model(str(snapshot)))


def test_what_the_hub_has_sent_before_is_found_without_the_hub(
    sharded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("whole", "gguf"):
        repository = tmp_path / "hub" / f"models--org--{name}"
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text("abc")
        (repository / "snapshots").mkdir()
    shutil.copytree(sharded, tmp_path / "hub" / "models--org--whole" / "snapshots" / "abc")
    make_gguf(tmp_path / "hub" / "models--org--gguf" / "snapshots" / "abc" / "q8.gguf", make_llama(tmp_path / "llama"))
    assert locate(parse_model("org/whole")).path.name == "abc"
    assert locate(parse_model("org/gguf/q8.gguf")).gguf == "q8.gguf"
    with pytest.raises(ModelError, match=r"no file 'org/gguf/q4.gguf' here"):
        locate(parse_model("org/gguf/q4.gguf"))


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_in_a_folder_is_refused_unless_the_user_allows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    folder = make_checkpoint(tmp_path / "own")
    ran = tmp_path / "ran"
    (folder / "modeling_own.py").write_text(
        f"open({str(ran)!r}, 'w').close()\n"
        "from transformers import LlamaForCausalLM, PreTrainedTokenizerFast\n"
        "class OwnForCausalLM(LlamaForCausalLM): pass\n"
        "class OwnTokenizer(PreTrainedTokenizerFast): pass\n"
    )
    maps = {
        "config.json": {"AutoModelForCausalLM": "modeling_own.OwnForCausalLM"},
        "tokenizer_config.json": {"AutoTokenizer": [None, "modeling_own.OwnTokenizer"]},
    }
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(content | {"auto_map": maps[file]}))
    for attempt in (check_model, load_model):
        with pytest.raises(ModelError, match=f"{file} has an auto_map.*allow_code=on to run it, or allow_code=off"):
            attempt(parse_model(str(folder)))  # type: ignore[operator]
    plain = load_model(parse_model(f"{folder},allow_code=off"), device="cpu")
    assert not ran.exists()
    own = load_model(parse_model(f"{folder},allow_code=on"), device="cpu")
    assert ran.exists()
    assert own.fingerprint != plain.fingerprint, "the code is a part of what answers"


def test_permission_for_an_adapter_holds_for_its_base(tmp_path: Path) -> None:
    base = make_checkpoint(tmp_path / "base")
    (base / "config.json").write_text(
        json.dumps(json.loads((base / "config.json").read_text()) | {"auto_map": {"x": "y"}})
    )
    adapter = _fake(
        tmp_path / "adapter",
        **{
            "adapter_config.json": json.dumps({"base_model_name_or_path": "../base"}),
            "adapter_model.safetensors": NO_WEIGHTS,
        },
    )
    with pytest.raises(ModelError, match="auto_map"):
        locate(parse_model(str(adapter)))
    assert locate(parse_model(f"{adapter},allow_code=off")).adapter_of is not None


def test_a_checkpoint_without_a_tokenizer_says_so_before_it_is_loaded(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "m")
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ModelError, match=r"has no tokenizer .*,tokenizer=CKPT"):
        check_model(parse_model(str(folder)))
    other = make_checkpoint(tmp_path / "other")
    assert load_model(parse_model(f"{folder},tokenizer={other}"), device="cpu").lm.tok_encode("one two")


def test_a_sentencepiece_model_alone_needs_its_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_checkpoint(tmp_path / "m")
    for file in folder.glob("tokenizer*"):
        file.unlink()
    (folder / "tokenizer.model").write_bytes(b"\x0a\x0b")
    monkeypatch.setattr("capgap.models.installed_packages.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"its tokenizer as tokenizer.model only.*pip install sentencepiece protobuf"):
        check_model(parse_model(str(folder)))


def test_an_adapters_own_tokenizer_stands_over_its_bases(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = make_checkpoint(tmp_path / "base")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(r=2, target_modules=["q_proj"]))
    model.save_pretrained(tmp_path / "adapter")
    alone = load_model(parse_model(str(tmp_path / "adapter")), device="cpu")
    assert not alone.prompting.chat_template
    for file in make_checkpoint(tmp_path / "chat", chat=True).iterdir():
        if file.name.startswith(("tokenizer", "chat_template")):
            shutil.copy(file, tmp_path / "adapter")
    taught = load_model(parse_model(str(tmp_path / "adapter")), device="cpu")
    assert taught.prompting.chat_template
    assert taught.lm.apply_chat_template([{"role": "user", "content": "one"}]) == "user : one A : "
    assert taught.identity["tokenizer"] != alone.identity["tokenizer"]
