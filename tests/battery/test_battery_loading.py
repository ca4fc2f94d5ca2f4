import json
import os
from pathlib import Path

import pytest

from capgap.battery import list_batteries, load_battery, prepare_battery
from capgap.errors import BatteryError

from .conftest import Write

HASHED = 'prompt: "Q: {{q}}\\nA:"'


def test_a_good_battery_loads_and_its_hash_follows_file_and_data(write: Write) -> None:
    first = load_battery(write())
    assert (first.name, first.version, [task.name for task in first.tasks]) == ("mine", "1", ["capitals", "sums"])
    assert load_battery(write()).hash == first.hash
    assert load_battery(write(("version: 1", "version: 2"))).hash != first.hash
    path = write()
    (path.parent / "data" / "more.csv").write_text("text,answer,n_steps\n1 + 1 =,2,1\n")
    assert load_battery(path).hash != first.hash


BAD = {
    "unknown key": (
        ("format: choose", "fromat: choose"),
        r"line 8, task 'capitals', key 'fromat': unknown key.*'format'",
    ),
    "unknown key at the top": (
        ("description:", "descripton:"),
        r"line 3, key 'descripton'.*Did you mean 'description'",
    ),
    "wrong type": (
        ("num_fewshot: 0", "num_fewshot: two"),
        r"line 4, key 'defaults\.num_fewshot': expected .*found 'two'",
    ),
    "text for a number": (("version: 1\n", "version: [1]\n"), r"line 2, key 'version': expected"),
    "wrong word": (
        ("format: choose", "format: chose"),
        r"line 8.*'format': expected one of choose, generate, .*'choose'",
    ),
    "missing key": (
        ('    target: "{{answer}}"\n    capability: knowledge\n', ""),
        r"task 'capitals'.*'target': required key",
    ),
    "duplicate task": (("name: sums", "name: capitals"), r"two tasks are named 'capitals'"),
    "no task": (("tasks:\n", "tasks: []\nx:\n"), r"key 'tasks': expected .*at least 1|unknown key"),
    "missing file": (
        ("capitals.jsonl", "capitols.jsonl"),
        r"line 6.*no file 'data/capitols\.jsonl'.*'data/capitals\.jsonl'",
    ),
    "code": (("capability: knowledge", "capability: !function x.y"), r"line 12: the tag '!function' is refused"),
    "absolute path": (("data/capitals.jsonl", "/etc/passwd"), r"expected a path relative to .*found '/etc/passwd'"),
    "home path": (("data/capitals.jsonl", "~/x.jsonl"), r"expected a path relative to"),
    "parent path": (("data/capitals.jsonl", "data/../../x.jsonl"), r"leaves the battery's folder"),
    "no such suffix": (("data/capitals.jsonl", "mine.yaml"), r"expected one of \.jsonl, \.json, \.csv, \.parquet"),
    "two sources": (
        ("file: data/capitals.jsonl", "file: data/capitals.jsonl, hub: a/b"),
        r"exactly one of 'file' and 'hub'",
    ),
    "template that does not parse": (("{{q}}", "{{q"), r"key 'prompt': this is no template"),
    "unknown field": (
        ("{{q}}", "{{question}}"),
        r"key 'prompt', line 1: no field 'question'\. The item has: answer, options, q",
    ),
    "Python's insides": (("{{q}}", "{{ ''.__class__ }}"), r"key 'prompt', line 1: the template is refused"),
    "choices not a list": (("{{options}}", "{{q}}"), r"key 'choices', line 1: expected a list, found str"),
    "choices not an expression": (
        ("{{options}}", "{{options}} "),
        r"key 'choices', line 1: expected a list, found str",
    ),
    "target among no choices": (
        (
            HASHED + '\n    choices: "{{options}}"\n    target: "{{answer}}"',
            HASHED + '\n    choices: "{{options}}"\n    target: Rome',
        ),
        r"key 'target', line 1: 'Rome' is neither a choice nor the letter of one.*'Lima'",
    ),
    "target out of range": (
        (
            HASHED + '\n    choices: "{{options}}"\n    target: "{{answer}}"',
            HASHED + '\n    choices: "{{options}}"\n    target: 2',
        ),
        r"line 2: index 2 of 2 choices",
    ),
    "no choices": (('    choices: "{{options}}"\n', ""), r"format: choose needs the key 'choices'"),
    "choices to generate": (
        ("    score: numeric", "    score: numeric\n    choices: [a, b]"),
        r"key 'choices' belongs to format: choose",
    ),
    "stop for choices": (("    domain: geography", "    stop: [x]"), r"key 'stop' belongs to format: generate"),
    "score of the other format": (
        ("score: numeric", "score: choice"),
        r"score: choice belongs to format: choose\. Expected one of exact",
    ),
    "unknown score": (
        ("score: numeric", "score: numerik"),
        r"key 'score': unknown score 'numerik'.*Did you mean 'numeric'",
    ),
    "corpus score": (("score: numeric", "score: bleu"), r"lm-eval's 'bleu' scores a whole corpus"),
    "unknown capability": (
        ("capability: knowledge", "capability: knowlege"),
        r"found 'knowlege'.*Did you mean 'knowledge'",
    ),
    "capability of an item": (
        ("capability: knowledge", 'capability: "{{q}}"'),
        r"key 'capability', line 1: expected one of",
    ),
    "no number": (
        ('target: "{{answer}}"\n    score', "target: many\n    score"),
        r"score: numeric needs a number, found 'many'",
    ),
    "chance": (
        ("    domain: geography", "    chance: 1.5"),
        r"key 'chance', line 1: expected a number from 0 to below 1",
    ),
    "chance of a generated answer": (
        ("    score: numeric", "    score: numeric\n    chance: 0.5"),
        r"task '[\w-]+': key 'chance' belongs to choices.*write guess: \{value: 0\.5, because: ",
    ),
    "guess without a reason": (
        ("    score: numeric", "    score: numeric\n    guess: {value: 0.5}"),
        r"key 'guess.because': required key is missing. Expected there: value, because\.$",
    ),
    "guess out of range": (
        ("    score: numeric", "    score: numeric\n    guess: {value: 1.5, because: one of two}"),
        r"key 'guess', line 2: expected a number from 0 to below 1",
    ),
    "guess among choices": (
        ("    domain: geography", "    guess: {value: 0.5, because: one of two}"),
        r"key 'guess' belongs to format: generate",
    ),
    "id twice": (
        ("    domain: geography", '    id: "{{q[:8]}}"'),
        r"key 'id', line 4: the id 'Which is'|key 'id', line 2",
    ),
    "expression": (("score: numeric", 'extract: "("'), r"'extract': expected a regular expression"),
    "primary": (
        ("    domain: geography", "    primary: acc_nrm"),
        r"key 'primary': 'acc_nrm' is not computed.*acc_norm,none",
    ),
    "a list as a covariate": (
        ("    domain: geography", '    covariates: {all: "{{options}}"}'),
        r"key 'covariates\.all', line 1: expected a text or a number, found a list",
    ),
    "a covariate beyond a table's cell": (
        ("    domain: geography", '    covariates: {all: "{{10 ** 60}}"}'),
        r"key 'covariates\.all', line 1: .*too large a number",
    ),
    "a set that is a path": (("file: data/capitals.jsonl", "hub: ../secret"), r"key 'data\.hub': expected"),
    "mixed white space": (
        ('prompt: "Q: {{q}}\\nA:"', 'prompt: "{% if answer is string %}{{q}} {% else %}{{q}}{% endif %}"'),
        r"key 'delimiter': some items bring white space",
    ),
    "too few examples": (("num_fewshot: 0", "num_fewshot: 40"), r"key 'num_fewshot': 40 solved examples need 41"),
    "variant that does not fit": (
        ("    domain: geography", "    variants: {short: {stop: [x]}}"),
        r"variant 'short': key 'stop' belongs",
    ),
    "variant called default": (
        ("    domain: geography", "    variants: {default: {prompt: x}}"),
        r"'default' is the task itself",
    ),
    "name": (("name: mine", "name: ../mine"), r"line 1, key 'name': expected"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_battery_says_where_and_what(write: Write, case: str) -> None:
    change, message = BAD[case]
    with pytest.raises(BatteryError, match=message) as caught:
        prepare_battery(load_battery(write(change)))
    assert "mine.yaml" in str(caught.value)


DATA = {
    "no item": ("", r"holds no item"),
    "blank lines alone": ("\n\n", r"holds no item"),
    "bad line": ('{"q": 1}\n{"q": \n', r"capitals\.jsonl, line 2: no JSON"),
    "no object": ('{"q": 1}\n[1]\n', r"line 2: expected an object of fields, found list"),
    "half a character": ('{"q": "\\ud800"}\n', r"line 1: holds half a character \(U\+D800\)"),
    "bomb": ("[" * 200_000, r"line 1: (this JSON cannot be read|no JSON)"),
}


@pytest.mark.parametrize("case", DATA)
def test_bad_data_say_which_line(write: Write, case: str) -> None:
    text, message = DATA[case]
    with pytest.raises(BatteryError, match=message):
        prepare_battery(load_battery(write(files={"data/capitals.jsonl": text})))


def test_a_link_out_of_the_folder_is_refused(write: Write, tmp_path: Path) -> None:
    outside = tmp_path / "secret.jsonl"
    outside.write_text('{"q": 1}\n')
    path = write(("data/capitals.jsonl", "data/link.jsonl"))
    (path.parent / "data" / "link.jsonl").symlink_to(outside)
    with pytest.raises(BatteryError, match=r"'data/link\.jsonl' is a link that leaves"):
        load_battery(path)
    (path.parent / "folder").symlink_to(tmp_path)
    path = write(("data/capitals.jsonl", "folder/secret.jsonl"))
    with pytest.raises(BatteryError, match="is a link that leaves"):
        load_battery(path)


def test_the_data_root_is_a_second_place(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(("data/capitals.jsonl", "far/capitals.jsonl"))
    root = tmp_path / "root"
    (root / "far").mkdir(parents=True)
    (root / "far" / "capitals.jsonl").write_text((path.parent / "data" / "capitals.jsonl").read_text())
    with pytest.raises(BatteryError, match=r"no file 'far/capitals.jsonl'"):
        load_battery(path)
    assert len(load_battery(path, data_root=root).tasks) == 2
    monkeypatch.setenv("CAPGAP_DATA", str(root))
    assert len(load_battery(path).tasks) == 2
    with pytest.raises(BatteryError, match="no such folder"):
        load_battery(path, data_root=tmp_path / "absent")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pokcet", r"unknown battery 'pokcet'\. Did you mean 'pocket'\? The path of a YAML file is possible too"),
        ("absent/pocket.yaml", r"'absent/pocket\.yaml': no such file"),
        (os.sep, r"is a folder; expected a YAML file"),
    ],
)
def test_an_unknown_battery_names_the_nearest(name: str, message: str) -> None:
    with pytest.raises(BatteryError, match=message):
        load_battery(name)


@pytest.mark.parametrize("name", list_batteries())
def test_every_shipped_battery_loads(name: str) -> None:
    battery = load_battery(name)
    assert battery.name == name
    assert battery.description
    assert json.dumps(battery.hash)
