"""Identity of students: golden hashes, pinned defaults, and directories that an earlier version left behind."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from capgap.distillation import SUPERVISIONS, DistillConfig, config, config_keys, identity
from capgap.distillation.identity import begin, is_finished, recipe_hash
from capgap.errors import DistillError, StoreError
from capgap.schema import write_object

VERSION_1: list[dict[str, Any]] = json.loads(Path(__file__).with_name("version_1.json").read_text(encoding="utf-8"))
"""Files, and the ``training.json`` and ``capgap.json`` that identity version 1 left of them (one or two steps each)."""
NAMES = [str(entry["file"]["name"]) for entry in VERSION_1]

# Changing one of these is a breaking change: finished students of these files would be made again, and seeds of one
# recipe would no longer be pooled. It needs another `identity_version`, and old directories still recognised.
GOLDEN = {
    "gold-answers": ("794879267e5af1b9", "794879267e5a"),
    "gold-traces": ("357a0b00a1c5cfe8", "357a0b00a1c5"),
    "answers": ("595acd3bb72f084d", "44194f4d1c28"),
    "traces-team": ("03421ffc0d62cb45", "03421ffc0d62"),
    "logits": ("ad761ce8e3170718", "ad761ce8e317"),
    "logits-top-k": ("89c7ab377bcf5279", "89c7ab377bcf"),
    "context": ("6c09c0e32a9527f6", "6c09c0e32a95"),
    "on-policy": ("44083d4260bf442b", "44083d4260bf"),
    "scratch": ("f06245803df2c294", "8fb64a18db1e"),
    "pruned": ("07c94a66744e7553", "07c94a66744e"),
    "built": ("f1508bb5a808a569", "cb1f62e287d8"),
    "file": ("a62b9b20871ccfc0", "636aa196930a"),
}
DEFAULTS = Path(__file__).with_name("defaults.json")


def _file(name: str) -> dict[str, Any]:
    return dict(VERSION_1[NAMES.index(name)]["file"])


def _config(name: str, **changes: Any) -> DistillConfig:
    return DistillConfig.model_validate(_file(name) | changes)


@pytest.mark.parametrize("name", GOLDEN)
def test_hashes_of_files_and_recipes_stay_as_they_are(name: str) -> None:
    assert (_config(name).hash, recipe_hash(_config(name).canonical_config)) == GOLDEN[name]


def test_defaults_stay_as_they_are() -> None:
    """Defaults are not in the hash, so a changed one makes other students under the same hash."""
    parts = [part for part in vars(config_keys).values() if isinstance(part, type) and issubclass(part, BaseModel)]
    defaults = {
        part.__name__: part.model_construct().model_dump(mode="json")
        for part in (DistillConfig, *parts)
        if part is not BaseModel
    }
    derived = {
        "lr": config._DEFAULT_LR,
        "epochs": config._DEFAULT_EPOCHS,
        "supervision": {name: [way.texts, way.divergence] for name, way in SUPERVISIONS.items()},
    }
    assert {**defaults, "derived": derived} == json.loads(DEFAULTS.read_text(encoding="utf-8"))


def test_an_option_that_is_added_with_a_default_moves_nothing() -> None:
    class LaterTraining(config_keys.TrainingKeys):
        dropout: float = 0.0

    class Later(DistillConfig):
        training: LaterTraining = LaterTraining()
        curriculum: str | None = None

    for name in NAMES:
        assert Later.model_validate(_file(name)).hash == _config(name).hash
    assert Later.model_validate(_file("logits") | {"curriculum": "easy"}).hash != _config("logits").hash


@pytest.mark.parametrize(
    ("name", "explicit"),
    [
        (
            "logits",
            {"texts": "traces", "objective": {"divergence": "forward_kl"}, "data_seed": 0, "adaptation": "full"},
        ),
        ("on-policy", {"objective": {"divergence": "jsd", "beta": 0.9, "weight": 1.0}}),
        ("file", {"training": {"batch_size": 8}}),
        ("file", {"training": {"batch_size": 8, "epochs": 3.0, "lr": 2e-5, "save_minutes": 1.0}}),
        ("answers", {"lora": {"rank": 4, "targets": "all-linear"}, "soft_prompt": {"tokens": 3}, "data_seed": 3}),
        ("built", {"student": {"microworld": {"layers": 1, "width": 16, "seed": 5, "heads": None}}}),
    ],
)
def test_a_default_that_is_written_out_is_no_other_student(name: str, explicit: dict[str, Any]) -> None:
    assert _config(name, **explicit).hash == _config(name).hash


def test_recipes_differ_in_all_but_their_seeds() -> None:
    def recipe(name: str, **changes: Any) -> str:
        return recipe_hash(_config(name, **changes).canonical_config)

    assert recipe("answers", seed=5, data_seed=7) == recipe("answers")
    assert recipe("built", student={"microworld": {"layers": 1, "width": 16}}) == recipe("built")
    assert recipe("scratch", student=_file("scratch")["student"] | {"seed": 9}) == recipe("scratch")
    assert recipe("answers", n_examples=9) != recipe("answers")


def _left_by_version_1(name: str, out: Path) -> dict[str, Any]:
    """A directory as version 1 left it; returns the identity of its student as of today."""
    entry = VERSION_1[NAMES.index(name)]
    out.mkdir()
    write_object(entry["training"], out / "training.json")
    write_object(entry["capgap"], out / "capgap.json")
    # Digests of data and weights are what they were where the files are: here, those of the entry.
    return {**entry["training"], "file": _config(name).canonical_config}


@pytest.mark.parametrize("name", NAMES)
def test_a_finished_student_of_version_1_is_recognised_and_joins_the_recipe_of_today(tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    wanted = _left_by_version_1(name, out)
    before = json.loads((out / "capgap.json").read_text())
    assert is_finished(out, wanted)
    assert json.loads((out / "training.json").read_text()) == json.loads(json.dumps(wanted))
    assert json.loads((out / "capgap.json").read_text()) == before | {"recipe": recipe_hash(wanted["file"])}
    assert is_finished(out, wanted)


@pytest.mark.parametrize("name", NAMES)
def test_another_student_than_that_of_version_1_is_told(tmp_path: Path, name: str) -> None:
    wanted = _left_by_version_1(name, tmp_path / "out")
    other = wanted | {"file": _config(name, seed=11).canonical_config}
    with pytest.raises(DistillError, match=r"its seed is .*, and here it is 11"):
        is_finished(tmp_path / "out", other)
    if "teacher" in wanted:
        with pytest.raises(DistillError, match="contents of its teacher have changed"):
            is_finished(tmp_path / "out", wanted | {"teacher": ["0"]})


def test_a_part_of_a_student_of_version_1_is_gone_on_with(tmp_path: Path) -> None:
    wanted = _left_by_version_1("logits", tmp_path / "out")
    (tmp_path / "out" / "capgap.json").unlink()
    assert not is_finished(tmp_path / "out", wanted)


def test_a_student_of_version_1_that_cannot_be_written_to_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = _left_by_version_1("logits", tmp_path / "out")

    def refuse(*_: Any) -> None:
        raise StoreError("read-only")

    monkeypatch.setattr(identity, "write_object", refuse)
    assert is_finished(tmp_path / "out", wanted)


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_damaged_row_of_a_student_of_version_1_is_told(tmp_path: Path, text: str) -> None:
    wanted = _left_by_version_1("logits", tmp_path / "out")
    (tmp_path / "out" / "capgap.json").write_text(text)
    with pytest.raises(DistillError, match=r"capgap\.json: cannot be read"):
        is_finished(tmp_path / "out", wanted)


@pytest.mark.parametrize("text", ["{", "[]", '{"file": 3}', "{}"])
def test_a_damaged_identity_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "training.json").write_text(text)
    with pytest.raises(StoreError, match="cannot be read"):
        is_finished(tmp_path, {"file": _config("logits").canonical_config})


def test_the_first_difference_is_told_where_one_side_has_the_default(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    begin(tmp_path / "out", {"file": _config("gold-answers").canonical_config})
    for changes, message in (
        (
            {"training": {"max_steps": 1, "batch_size": 4, "lr": 0.5}},
            "its training.lr is the default, and here it is 0.5",
        ),
        ({"n_examples": None}, "its n_examples is 8, and here it is the default"),
        ({"student": {"prune": "x", "layers": 1}}, "its student is 'microworld:small', and here it is {'prune'"),
    ):
        with pytest.raises(DistillError, match=message):
            is_finished(tmp_path / "out", {"file": _config("gold-answers", **changes).canonical_config})
