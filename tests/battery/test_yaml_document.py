from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict

from capgap.battery import read_yaml
from capgap.errors import BatteryError, DistillError


def _file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "file.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_words_stay_words_and_numbers_are_numbers(tmp_path: Path) -> None:
    text = "a: no\nb: 1e-4\nc: 010\nd: 2020-01-01\ne: true\nf: ~\ng: -3\nh: .5\ni: 1:30\nj: '1'\nk: [x, 2]\nl: 0x10"
    data = read_yaml(_file(tmp_path, text)).data
    expected = dict(a="no", b=1e-4, c="010", d="2020-01-01", e=True, f=None, g=-3, h=0.5, i="1:30", j="1")
    assert data == {**expected, "k": ["x", 2], "l": "0x10"}
    assert type(data["g"]) is int


def test_every_key_has_its_line(tmp_path: Path) -> None:
    document = read_yaml(_file(tmp_path, "a: 1\nb:\n  - c: 2\n\n  - d: 3\n"))
    assert document.line(("b", 1, "d")) == 5
    assert document.line(("b", 1, "absent")) == 5
    assert document.line(("absent",)) == 1


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: !function utils.run", r"line 1: the tag '!function' is refused.*--allow-code"),
        ("a: 1\nb: !!python/object/apply:os.system [ls]", r"line 2: the tag .*refused"),
        ("a: 1\nc: 2\na: 3", r"line 3: key 'a' is given twice, first in line 1"),
        (BOMB, r"more than 100,000 values"),
        ("a: &a [*a]", r"more than 100,000 values or 50 levels"),
        ("a: " + "[" * 60 + "]" * 60, r"nested deeper than 50"),
        ("[" * 100_000, r"nested deeper than 50"),
        ("a: " + "x" * 1_000_001, r"larger than 1,000,000 bytes"),
        ("a: [1", r"line 2: this is no YAML"),
        ("", r"expected keys and values, found nothing"),
        ("- 1\n- 2", r"expected keys and values, found a list"),
        ("? [1, 2]\n: 3", r"a key is a word, found a list"),
        ("a: *nowhere", r"this is no YAML"),
        ("a: 1\n---\nb: 2", r"this is no YAML"),
    ],
)
def test_what_is_no_plain_data_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BatteryError, match=message):
        read_yaml(_file(tmp_path, text))


def test_a_missing_file_and_foreign_bytes_are_named(tmp_path: Path) -> None:
    with pytest.raises(BatteryError, match=r"absent\.yaml: no such file"):
        read_yaml(tmp_path / "absent.yaml")
    (tmp_path / "file.yaml").write_bytes(b"a: 1\nb: \xff")
    with pytest.raises(BatteryError, match="line 2: not UTF-8"):
        read_yaml(tmp_path / "file.yaml")


class _Inner(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    rate: float = 1.0
    kind: Literal["full", "lora"] = "full"


class _Outer(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    name: str
    inner: _Inner | list[_Inner] = _Inner()
    parts: dict[str, _Inner] = {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x\nimmer: {}", r"line 2, key 'immer': unknown key\. Did you mean 'inner'\?"),
        ("inner: {}", r"line 1, key 'name': required key is missing"),
        ("name: 3", r"line 1, key 'name': expected a?.*text, found 3 \(an integer\)"),
        ("name: x\ninner:\n  kind: lorra", r"line 3, key 'inner\.kind': expected one of full, lora, .*mean 'lora'"),
        ("name: x\ninner:\n  rat: 2", r"line 3, key 'inner\.rat': unknown key\. Did you mean 'rate'\?"),
        ("name: x\nparts:\n  a: {ratte: 2}", r"line 3, key 'parts\.a\.ratte': unknown key\. Did you mean 'rate'\?"),
        ("name: x\nparts: 7", r"line 2, key 'parts': expected .*, found 7"),
        ("name: 1\nimmer: 2", r"line 1, key .name.: expected text, found 1 .*1 more mistake"),
    ],
)
def test_a_mistake_names_file_line_key_and_nearest_word(tmp_path: Path, text: str, message: str) -> None:
    document = read_yaml(_file(tmp_path, text))
    with pytest.raises(DistillError, match=r"file\.yaml, " + message):
        document.validated(_Outer, error=DistillError, file_kind="distillation file")
