import os
import time
from pathlib import Path
from typing import Any

import pytest

from capgap.battery.templates import Template, render
from capgap.errors import BatteryError

ROW: dict[str, Any] = {
    "q": "why?",
    "options": ["a", "b"],
    "n": 3,
    "deep": {"k": [1, 2]},
    "my field": "x",
    "digits": "1",
    "code": "{{ 1 + 1 }}",
}


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("{{options}}", ["a", "b"]),
        ("{{ n }}", 3),
        ("{{digits}}", "1"),
        ("{{ digits | int }}", 1),
        ("Q: {{q}}\n", "Q: why?\n"),
        ("{{n}} ", "3 "),
        ("{{n}}{{n}}", "33"),
        ("{{deep.k}}", [1, 2]),
        ("{{row['my field']}}", "x"),
        ("{% for o in options %}{{loop.index}}. {{o}}\n{% endfor %}", "1. a\n2. b\n"),
        ("{{ options[0] if n > 2 else options[1] }}", "a"),
        ("{{ range(3) }}", [0, 1, 2]),
        ("{{ options | map('upper') }}", ["A", "B"]),
        ("{{ [deep] | map(attribute='k') | list }}", [[1, 2]]),
        ("{{ code }}", "{{ 1 + 1 }}"),
        ("plain_data", "plain_data"),
        ("", ""),
        ("[1, 2]", "[1, 2]"),
        ("{{ '[1, 2]' }}", "[1, 2]"),
    ],
)
def test_one_expression_keeps_its_type_and_text_stays_text(source: str, value: Any) -> None:
    found = Template(source, "here").value(ROW, "item")
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ ''.__class__ }}", "refused|unsafe|no"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }} text", "refused"),
        ("{{ q.__class__ }} text", "refused"),
        ("{{ q['__class__'] }} text", "refused|fails|no"),
        ("{{ q | attr('__class__') }}", "no template|refused|No filter"),
        ("{{ [q] | map(attribute='__class__') | list }}", "refused"),
        ("{{ self.__init__.__globals__ }} text", "refused|no"),
        ("{{ cycler.__init__.__globals__.os.popen('true') }}", "refused"),
        ("{{ cycler('a').next() }}", "no field 'cycler'"),
        ("{{ '{0.__class__}'.format(q) }}", "refused"),
        ("{{ options.append('c') }}", "refused"),
        ("{{ 'a' * 10000000000 }}", "refused"),
        ("{{ ('a' * 1000).replace('a', 'a' * 1000000) }} x", "refused"),
        ("{{ 9 ** 9 ** 9 }}", "refused"),
        ("{{ 'a'.center(1000000000) }}", "refused"),
        ("{{ '%1000000000d' % 1 }}", "refused"),
        ("{% for i in range(100000) %}x{% endfor %}", "refused"),
        ("{% for i in range(900) %}{% for j in range(900) %}12{% endfor %}{% endfor %}", "refused"),
        ("{% for a in q %}{% for b in q %}{% for c in q %}{% endfor %}{% endfor %}{% endfor %}", "nest deeper"),
        ("{% include 'x' %}", "'include' is refused"),
        ("{% import 'os' as os %}", "'import' is refused"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "'macro' is refused"),
        ("{{ q", "this is no template"),
        ("{{ q | nofilter }}", "no template|No filter"),
        ("{{ n / 0 }}", "ZeroDivisionError"),
        ("{{ q.upper }}", "refused"),
    ],
)
def test_a_template_reaches_the_row_and_nothing_else(source: str, message: str) -> None:
    with pytest.raises(BatteryError, match=message) as caught:
        Template(source, "b.yaml, task 'x', key 'prompt'").value(ROW, "line 3")
    assert "b.yaml, task 'x', key 'prompt'" in str(caught.value)


BIG = {**ROW, "big": "x" * 900_000, "huge": "x" * 10_000_000, "many": list(range(50_000))}
TWICE = "{% set b = ['a', 'a'] %}" + "{% set b = [b, b] %}" * 40
NESTED = "{% for i in range(1000) %}{% for j in range(1000) %}BODY{% endfor %}{% endfor %}"


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'a' * 10 ** 9 }}",
        "{% for i in range(10 ** 9) %}x{% endfor %}",
        "{% for a in big %}{% for b in big %}{% set x = 1 %}{% endfor %}{% endfor %}",
        NESTED.replace("BODY", "{{ [i, j] | sort | length }}"),
        NESTED.replace("BODY", "{% if 'y' in big %}{% endif %}"),
        NESTED.replace("BODY", "{{ big[i:] | length }}"),
        "{% for i in range(1000) %}{{ big }}{% endfor %}",
        "{{ big | replace('x', big) }}",
        "{{ big.replace('x', big) }}",
        "{{ big | list | join(big) }}",
        "{{ big.join(big) }}",
        "{{ big | map('upper') | list | length }}",
        "{{ [1] | batch(10 ** 9, 'x') | list }}",
        "{{ [1] | slice(10 ** 9) | list }}",
        "{{ options | tojson(indent=10 ** 9) }}",
        "{{ 1.5 | round(10 ** 9) }}",
        "{{ [options] * 10000 | sum(start=[]) }}",
        "{{ ' ~ '.join(['big'] * 3) }} {{ big ~ big }}",
        "{{ " + " ~ ".join(["big"] * 2000) + " }}",
        TWICE + "{{ b }}",
        TWICE + "{{ b == b }} x",
        "{% set a = 10 ** 60 %}" + "{% set a = a * a %}" * 30 + "{{ a }}",
        "{{ n.to_bytes(10 ** 9, 'big') }}",
        "{{ huge }}",
        "{{ huge | upper | length }}",
        "{% set x %}{% for i in range(1000) %}{{ big }}{% endfor %}{% endset %}{{ x }}",
        "{% filter upper %}x{% endfilter %}",
        "{% if 1 %}" * 120 + "{% endif %}" * 120,
        "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
        "{{ " + "not " * 5000 + "1 }}",
        "{{ q" + ".a" * 20_000 + " }}",
        "{{ range(a=1, a=2) }}",
        "{{ '\\ud800' }}",
    ],
)
def test_a_template_comes_to_an_end_in_little_memory(source: str) -> None:
    start = time.process_time()
    with pytest.raises(BatteryError, match="refused"):
        Template(source, "here").value(BIG, "line 3")
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("{{ many | sum }}", 1_249_975_000),
        ("{{ big | upper | length }}", 900_000),
        (
            "{% for i in range(900) %}{% for j in range(100) %}{% if i == j %}x{% endif %}{% endfor %}{% endfor %}",
            "x" * 100,
        ),
        ("{% for o in options %}{{ loop.cycle('a', 'b') }}{{ loop.last }} {% endfor %}", "aFalse bTrue "),
        ("{{ 'b' is in options }} {{ n is odd }} {{ missing is defined }}", "True True False"),
        ("{{ missing | default('none') }}", "none"),
        ("{% set name = q | trim('?') %}{% with b = name ~ '!' %}{{ b }}{% endwith %}", "why!"),
        ("{{ [{'a': 2}, {'a': 1}] | sort(attribute='a') | map(attribute='a') | join(',') }}", "1,2"),
        ("{{ options | groupby(0) | map(attribute='grouper') | list }}", ["a", "b"]),
        ("{{ row.items }}", 5),
        ("{{ 'a,b'.split(',') }}", ["a", "b"]),
        ("{{ ' '.join(options) }}", "a b"),
    ],
)
def test_what_batteries_need_is_within_the_bounds(source: str, value: Any) -> None:
    assert Template(source, "here").value({**BIG, "items": 5}, "line 3") == value


def test_an_unknown_filter_names_the_nearest() -> None:
    with pytest.raises(BatteryError, match=r"No filter named 'uper'\. Did you mean 'upper'\?"):
        Template("{{ q | uper }}", "here")


def test_a_shell_in_a_template_does_not_open(tmp_path: Path) -> None:
    mark = tmp_path / "opened"
    attack = (
        "{{ ''.__class__.__mro__[1].__subclasses__() | map(attribute='__init__') | list }}"
        "{% for c in ''.__class__.__base__.__subclasses__() %}{% if 'os' in c.__init__.__globals__ %}"
        f"{{{{ c.__init__.__globals__['os'].system('touch {mark}') }}}}{{% endif %}}{{% endfor %}}"
    )
    with pytest.raises(BatteryError):
        render(attack, ROW)
    for reach in ("row", "range", "q", "options", "deep"):
        with pytest.raises(BatteryError):
            render(f"{{{{ {reach}.__init__.__globals__['os'].system('touch {mark}') }}}} x", ROW)
    assert not os.path.exists(mark)


def test_a_missing_field_names_what_the_item_has_and_the_nearest() -> None:
    with pytest.raises(BatteryError, match=r"line 3: no field 'option'\. The item has: .*Did you mean 'options'\?"):
        Template("{{option}}", "here").value(ROW, "line 3")
    with pytest.raises(BatteryError, match=r"no attribute 'kk'"):
        Template("{{deep.kk}} x", "here").value(ROW, "line 3")


def test_text_is_asked_where_text_is_needed() -> None:
    with pytest.raises(BatteryError, match="expected text, found a list"):
        Template("{{options}}", "here").text(ROW, "line 3")
