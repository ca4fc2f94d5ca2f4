import os
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
        ("plain", "plain"),
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
