"""Whatever stands in a battery file or its data, the user is told of it: nothing but a `CapgapError` comes out.

A battery that uses every key is changed here and there, by what breaks readers of YAML, templates, paths and regular
expressions, then read and prepared. Failures are minimised by hypothesis and come again in every run.
"""

import copy
import datetime
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from capgap.battery import load_battery, prepare_battery, training_items
from capgap.battery.battery_check import check_battery
from capgap.battery.battery_spec import BatteryDefaults, BatterySpec, CustomTask, DataSpec, LmEvalTask
from capgap.errors import CapgapError


def _rows(start: int) -> list[dict[str, Any]]:
    return [
        {
            "q": f"Which is {n}?",
            "options": [f"a{n}", f"b{n}"],
            "answer": n % 2,
            "text": f"{n} + 1",
            "sum": n + 1,
            "kind": "x",
        }
        for n in range(start, start + 12)
    ]


ROWS = _rows(0)
WHOLE: dict[str, Any] = {
    "name": "mine",
    "version": 1,
    "description": "all that a battery can say",
    "defaults": {"num_fewshot": 1, "fewshot": "fixed", "limit": 3, "seed": 0},
    "tasks": [
        {
            "name": "capitals",
            "description": "a choice",
            "source": "made up here",
            "size": "about 12",
            "length": 20,
            "data": {"file": "rows.jsonl", "train": "rows.jsonl", "fewshot": "shots.jsonl"},
            "format": "choose",
            "prompt": "Q: {{q}}\nA:",
            "choices": "{{options}}",
            "target": "{{answer}}",
            "chance": 0.5,
            "score": "choice",
            "capability": "knowledge",
            "domain": "{{kind}}",
            "id": "{{q}}",
            "cluster": "{{text}}",
            "covariates": {"length": "{{q | length}}", "constant": 3},
            "delimiter": " ",
            "limit": 4,
            "variants": {"letters": {"prompt": "{{q}} {{options | join(' or ')}}", "choices": ["A", "B"]}},
        },
        {
            "name": "sums",
            "data": {"file": "more.jsonl", "train": "shots.jsonl"},
            "format": "generate",
            "prompt": "{% for o in options %}{{loop.index}}. {{o}}\n{% endfor %}{{text}} =",
            "target": ["{{sum}}", "= {{sum}}"],
            "guess": {"value": 0.1, "because": "one of ten digits"},
            "stop": ["\n"],
            "max_tokens": 16,
            "repeats": 2,
            "temperature": 0.5,
            "score": "numeric",
            "extract": "answer is (.*)",
            "shot": "the answer is {{sum}}",
            "rationale": "{{text}} is {{sum}}",
            "num_fewshot": 2,
            "primary": "numeric,none",
            "capability": "reasoning",
            "variants": {"exact": {"score": "exact_match", "primary": "exact_match,none", "extract": r"(\d+)"}},
        },
    ],
}

KEYS = sorted(
    {key for model in (BatterySpec, BatteryDefaults, DataSpec, CustomTask, LmEvalTask) for key in model.model_fields}
)
TEXTS = [
    *("", " ", "\n", "\0", "\x1b[31m", "é", "\u2028", "\U0001f600", "ﷺ" * 50, "x" * 20_000, "x" * 1_100_000),
    *("{{q}}", "{{ row }}", "{{ nothing }}", "{{", "}}", "{%", "{{ '", "{#", "{{ q | nofilter }}", "{{ q.a.b }}"),
    *("{{ ''.__class__ }}", "{{ q.__init__ }}", "{{ 'a' * 10**9 }}", "{{ 10**9**9 }}", "{{ 1/0 }}", "{{ [[[[1]]]] }}"),
    *("{% for i in range(10**9) %}x{% endfor %}", "{% for a in q %}" * 4, "{% include 'x' %}", "{{ " + "(" * 900),
    *("{% for a in q * 9999 %}{% for b in q * 9999 %}{% endfor %}{% endfor %}", "{{ q | tojson(indent=9**9) }}"),
    *("{{ q | int }}", "{{ answer }}", "{{ options }}", "{{ none }}", "{{ true }}", "{{ 10**60 }}", "{{ '\\ud800' }}"),
    *(
        "../x.jsonl",
        "/etc/passwd",
        "rows.jsonl/..",
        "C:\\x",
        "~/x",
        ".",
        "..",
        "x" * 300,
        "a/" * 400,
        "no.txt",
        "mine.yaml",
    ),
    *("(a|aa)+$", "(", "(a{1000}){1000}", "(?P<a>x)(?P<a>y)", "(?=", "[[a]", "\\", "cat{e<=1}", "(.*)*", "^", "(?i)"),
    *("choose", "generate", "choice", "choice_norm", "numeric", "exact", "contains", "external", "exact_match", "bleu"),
    *(
        "knowledge",
        "mixed",
        "per_item",
        "lm_eval",
        "default",
        "acc,none",
        "A",
        "B",
        "0",
        "1",
        "-1",
        "1e999",
        "nan",
        "no",
    ),
]
WORDS = st.one_of(
    st.sampled_from(TEXTS),
    st.text(max_size=20).filter(lambda text: not any("\ud800" <= c <= "\udfff" for c in text)),
)
NUMBERS = st.one_of(
    st.sampled_from([0, 1, -1, 2, 64, 65, 2**63, 10**90, 0.0, 0.5, 1.0, -0.0, 1e300, math.inf, math.nan]),
    st.integers(),
    st.floats(),
)
SCALARS = st.one_of(WORDS, NUMBERS, st.sampled_from([True, False, None]))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS), inner, max_size=3)),
    max_leaves=6,
)
KINDS = [*["replace"] * 5, "move", "double", "drop", "rename", "wrap"]
SNIPPETS = [
    *("!function os.system", "!!python/object/apply:os.system [ls]", "!!binary x", "&a [*a]", "*a", "&a ", "<<: *a"),
    *(
        "\t",
        "---\n",
        "...\n",
        "? ",
        ": ",
        "- ",
        "# ",
        "|\n",
        ">\n",
        "'",
        '"',
        "[",
        "]",
        "{",
        "}",
        ",",
        "%YAML 9.9\n",
        "\ufeff",
    ),
    "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n",
    "[" * 60,
]


def _places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value below the top."""
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        yield (*path, key)
        yield from _places(child, (*path, key))


def _at(node: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        node = node[key]
    return node


@st.composite
def _changed(draw: st.DrawFn, whole: Any) -> Any:
    """The value with a few changes: replaced, left out, renamed, doubled, moved, or wrapped."""
    tree = copy.deepcopy(whole)
    for _ in range(draw(st.sampled_from([0, 1, 1, 1, 2, 3]))):
        places = list(_places(tree))
        if not places:
            break
        path = draw(st.sampled_from(places))
        parent, key = _at(tree, path[:-1]), path[-1]
        kind = draw(st.sampled_from(KINDS))
        if kind == "replace":
            old = parent[key]
            like = WORDS if isinstance(old, str) else NUMBERS if isinstance(old, (int, float)) else VALUES
            parent[key] = draw(VALUES if draw(st.integers(0, 4)) == 0 else like)
        elif kind == "drop":
            del parent[key]
        elif kind == "rename" and isinstance(parent, dict):
            parent[draw(st.sampled_from(KEYS))] = parent.pop(key)
        elif kind == "double" and isinstance(parent, list):
            parent.append(copy.deepcopy(parent[key]))
        elif kind == "move":
            parent[key] = copy.deepcopy(_at(tree, draw(st.sampled_from(places))))
        elif kind == "wrap":
            parent[key] = draw(st.sampled_from([lambda old: [old], lambda old: {"file": old}]))(parent[key])
    return tree


@st.composite
def _batteries(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A battery file and its data, nearly right."""
    text = yaml.safe_dump(draw(_changed(WHOLE)), allow_unicode=True, sort_keys=False)
    for _ in range(draw(st.sampled_from([0, 0, 0, 0, 0, 1, 2]))):
        position = draw(st.integers(0, len(text)))
        cut = draw(st.sampled_from([0, 0, 1, 5, 80]))
        text = text[:position] + draw(st.sampled_from(SNIPPETS)) + text[position + cut :]
    raw = text.encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 19)) == 0:
        position = draw(st.integers(0, len(raw)))
        raw = raw[:position] + draw(st.binary(max_size=4)) + raw[position:]
    rows = draw(_changed(ROWS)) if draw(st.integers(0, 3)) == 0 else ROWS
    return raw, _lines(rows).encode()


def _lines(rows: list[Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "more.jsonl").write_text(_lines(ROWS))
    (folder / "shots.jsonl").write_text(_lines(_rows(100)))
    return folder


def _read(folder: Path, raw: bytes, rows: bytes) -> str:
    """Reads and prepares; says how far it came."""
    (folder / "mine.yaml").write_bytes(raw)
    (folder / "rows.jsonl").write_bytes(rows)
    reached, told = "nothing", ""
    try:
        battery = load_battery(folder / "mine.yaml")
        reached = "loaded"
        prepare_battery(battery, limit=2)
        reached = "prepared"
        training_items(battery)
        for check in check_battery(battery, limit=2):
            told += "".join(check.problems)
    except CapgapError as error:
        told += str(error)
    assert len(told) < 5_000, "a message that nobody reads to its end"
    return reached


def test_the_battery_that_is_changed_is_right(folder: Path) -> None:
    raw = yaml.safe_dump(WHOLE, sort_keys=False).encode()
    assert _read(folder, raw, _lines(ROWS).encode()) == "prepared"


_settings = settings(
    derandomize=True,
    database=None,
    deadline=datetime.timedelta(seconds=10),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)


@settings(_settings, max_examples=80)
@given(_batteries())
def test_a_battery_that_is_nearly_right_raises_no_other_error(folder: Path, battery: tuple[bytes, bytes]) -> None:
    _read(folder, *battery)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@settings(_settings, max_examples=10_000)
@given(_batteries())
def test_no_battery_of_ten_thousand_raises_another_error(folder: Path, battery: tuple[bytes, bytes]) -> None:
    _read(folder, *battery)
