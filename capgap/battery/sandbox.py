"""Jinja sandbox with allow-lists and a work budget: templates reach the row and nothing else, and always end.

Jinja's immutable sandbox keeps templates from Python's insides, but not from filling the memory or running for ever.
So the statements, filters and methods that exist here are listed one by one; every step of a rendering is charged to
a `JinjaWorkMeter`, which refuses more than one item may need; and whatever a step makes has a largest size. The charges
depend on the template and the row alone: what is accepted on one machine is accepted on every other.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import islice
from types import GeneratorType
from typing import Any, ClassVar

from jinja2 import StrictUndefined, nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

__all__ = ["ENVIRONMENT", "FILTERS", "MAX_ENTRIES", "MAX_DATA_SIZE", "add_metering", "measured", "fresh_meter"]

MAX_DATA_SIZE = 1_000_000
"""Characters and values of anything that a template makes."""
MAX_ENTRIES = 1_000
"""Numbers in a range, entries of a list that leaves a template."""
MAX_RENDERING_STEPS = 5_000_000
"""Steps of one rendering, about a microsecond each: parts of the template that are evaluated, and what they handle."""
_BASE_STEPS_PER_CALL = 20
"""Steps of a call of a filter, test or method, beside those for the size of what it handles."""
_VALUE_SIZE_PER_STEP = 8
_MAX_INTEGER_BITS = 10_000
_MAX_FILTER_COUNT = 10_000

_ALLOWED_FILTER_NAMES = (
    "abs batch capitalize count d default dictsort first float groupby int items join last length list lower map max "
    "min reject rejectattr replace reverse round select selectattr slice sort string sum title tojson trim truncate "
    "unique upper urlencode wordcount"
)
FILTERS = frozenset(_ALLOWED_FILTER_NAMES.split())
"""What may stand behind ``|``: nothing random, nothing that makes markup or formats."""

_ALLOWED_TEXT_METHODS = (
    "capitalize casefold count endswith find index isalnum isalpha isascii isdecimal isdigit islower isnumeric isspace "
    "istitle isupper join lower lstrip partition removeprefix removesuffix replace rfind rindex rpartition rsplit "
    "rstrip split splitlines startswith strip swapcase title upper"
)
_ALLOWED_LOOP_FIELDS = "changed cycle depth depth0 first index index0 last length nextitem previtem revindex revindex0"
_ALLOWED_NAMES_BY_TYPE: dict[type, frozenset[str]] = {
    str: frozenset(_ALLOWED_TEXT_METHODS.split()),
    dict: frozenset(("get", "items", "keys", "values")),
    list: frozenset(("count", "index")),
    tuple: frozenset(("count", "index", "grouper", "list")),
    range: frozenset(("count", "index", "start", "step", "stop")),
    LoopContext: frozenset(_ALLOWED_LOOP_FIELDS.split()),
}
# With these, a small number or text makes a large result.
_COUNT_LIMITED_FILTERS = frozenset(("batch", "round", "slice", "truncate"))
_TEXT_GROWING_FILTERS = frozenset(("join", "replace"))
# No template can write these names.
_CHARGE_FILTER, _LOOP_FILTER, _JOIN_FILTER = "charged value", "looped value", "joined text"


class JinjaWorkMeter:
    """Work budget of one rendering, in steps."""

    def __init__(self) -> None:
        self.left = MAX_RENDERING_STEPS

    def charge_steps(self, steps: int) -> None:
        """Take steps from what is left.

        Raises
        ------
        SecurityError
            Nothing is left.
        """
        self.left -= steps
        if self.left < 0:
            raise SecurityError(f"more than {MAX_RENDERING_STEPS:,} steps for one item")


_CURRENT_METER: ContextVar[JinjaWorkMeter] = ContextVar("meter")


@contextmanager
def fresh_meter() -> Iterator[None]:
    """One rendering, with a meter of its own."""
    token = _CURRENT_METER.set(JinjaWorkMeter())
    try:
        yield
    finally:
        _CURRENT_METER.reset(token)


def measured(value: Any) -> int:
    """Size of a value: its characters and values, counted no further than to the bound.

    Raises
    ------
    SecurityError
        More than may be made. A list that holds another one twice counts it twice, as writing it out would.
    """
    size, uncounted_values = 0, [value]
    while uncounted_values:
        counted_value = uncounted_values.pop()
        size += 1
        if isinstance(counted_value, str):
            size += len(counted_value)
        elif isinstance(counted_value, int):
            if counted_value.bit_length() > _MAX_INTEGER_BITS:
                raise SecurityError(f"a number of more than {_MAX_INTEGER_BITS:,} bits")
        elif isinstance(counted_value, Mapping):
            uncounted_values.extend(counted_value.keys())
            uncounted_values.extend(counted_value.values())
        elif isinstance(counted_value, (list, tuple, set, frozenset)):
            uncounted_values.extend(counted_value)
        # What still waits will count one each at least.
        if size + len(uncounted_values) > MAX_DATA_SIZE + 1:
            raise SecurityError(f"more than {MAX_DATA_SIZE:,} characters or values")
    return size


def _charge_size(value: Any) -> Any:
    """The value itself, after its size was charged to the meter and found small enough."""
    _CURRENT_METER.get().charge_steps(_BASE_STEPS_PER_CALL + measured(value) // _VALUE_SIZE_PER_STEP)
    return value


def _compute_and_charge(value: Any) -> Any:
    """The result of a step: a lazy one is computed now, where it can be bounded, and charged."""
    if isinstance(value, (GeneratorType, map, filter, zip)):
        value = list(islice(value, MAX_DATA_SIZE + 1))
    return _charge_size(value)


def _bounded_range(*bounds: int) -> range:
    numbers = range(*bounds)
    if len(numbers) > MAX_ENTRIES:
        raise SecurityError(f"range of {len(numbers)}, more than {MAX_ENTRIES}")
    return numbers


def _refuse_large_result(name: str, value: Any, arguments: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Refuse a filter or method whose result would be too large, before it runs."""
    numbers = [a for a in (*arguments, *kwargs.values()) if isinstance(a, int)]
    if name in _COUNT_LIMITED_FILTERS and any(abs(number) > _MAX_FILTER_COUNT for number in numbers):
        raise SecurityError(f"{name!r} with a number over {_MAX_FILTER_COUNT:,}")
    if name == "tojson" and (arguments or kwargs):
        raise SecurityError("'tojson' with an indent")
    if name == "sum" and not all(isinstance(a, (str, int, float)) for a in (*arguments, *kwargs.values())):
        raise SecurityError("'sum' of anything but numbers")
    if name not in _TEXT_GROWING_FILTERS:
        return
    pieces = len(value) if hasattr(value, "__len__") else 0
    longest_text = max((len(a) for a in (*arguments, *kwargs.values()) if isinstance(a, str)), default=0)
    if name == "replace" and isinstance(value, str) and arguments and isinstance(arguments[0], str):
        pieces = value.count(arguments[0])
    if pieces * longest_text > MAX_DATA_SIZE:
        raise SecurityError(f"more than {MAX_DATA_SIZE:,} characters")


def _add_filter_metering(name: str, filter_function: Callable[..., Any]) -> Callable[..., Any]:
    """The filter with arguments and result charged to the meter; it keeps what Jinja marked it with."""
    skipped = 1 if hasattr(filter_function, "jinja_pass_arg") else 0

    @functools.wraps(filter_function)
    def metered_filter(*arguments: Any, **kwargs: Any) -> Any:
        context, operands = arguments[:skipped], arguments[skipped:]
        value = operands[0] if operands else None
        if isinstance(value, GeneratorType):
            value = _compute_and_charge(value)
            operands = (value, *operands[1:])
        _charge_size((operands, kwargs))
        _refuse_large_result(name, value, operands[1:], kwargs)
        return _compute_and_charge(filter_function(*context, *operands, **kwargs))

    return metered_filter


def _add_test_metering(test_function: Any) -> Callable[..., Any]:
    """The test with its arguments charged to the meter."""
    skipped = 1 if hasattr(test_function, "jinja_pass_arg") else 0

    @functools.wraps(test_function)
    def metered_test(*arguments: Any, **kwargs: Any) -> Any:
        _charge_size((arguments[skipped:], kwargs))
        return test_function(*arguments, **kwargs)

    return metered_test


def _charge_loop_elements(value: Any, cost: int) -> list[Any]:
    """The elements that a loop runs over, all its rounds charged before the first."""
    loop_elements = list(islice(value, MAX_DATA_SIZE + 1))
    if len(loop_elements) > MAX_DATA_SIZE:
        raise SecurityError(f"a loop of more than {MAX_DATA_SIZE:,} rounds")
    _CURRENT_METER.get().charge_steps(len(loop_elements) * cost)
    return loop_elements


def _join_text(operands: list[Any]) -> str:
    _charge_size(operands)
    return "".join(map(str, operands))


@pass_context  # marked so, Jinja does not work constants out while it compiles, where no meter runs
def _charge_output(_jinja_context: Any, value: Any) -> Any:
    return _charge_size(value)


class _MeteredSandbox(ImmutableSandboxedEnvironment):
    """Jinja's immutable sandbox with an allow-list of attributes and the meter at every operation and call."""

    intercepted_binops: ClassVar[frozenset[str]] = frozenset(("*", "**", "%", "+", "-", "/", "//"))  # type: ignore[misc]

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Whether the attribute is on the list of its kind."""
        return any(isinstance(obj, kind) and attr in names for kind, names in _ALLOWED_NAMES_BY_TYPE.items())

    def getattr(self, obj: Any, attribute: str) -> Any:
        """``choices.items`` is the field of that name where there is one: data come before methods."""
        if isinstance(obj, Mapping) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """The operation, unless its result would be too large."""
        _charge_size((left, right))
        sizes = [len(operand) for operand in (left, right) if isinstance(operand, (str, list, tuple))]
        numbers = [operand for operand in (left, right) if isinstance(operand, int)]
        if operator == "%" and isinstance(left, str):
            raise SecurityError("text formatting with % is refused")
        if operator == "**" and (len(numbers) < 2 or abs(right) > 64 or abs(left) > 10**6):
            raise SecurityError("power of large numbers")
        if operator == "*" and sizes and numbers and sizes[0] * max(numbers) > MAX_DATA_SIZE:
            raise SecurityError(f"more than {MAX_DATA_SIZE:,} characters")
        return _compute_and_charge(super().call_binop(context, operator, left, right))

    def call(self, context: Any, obj: Any, *args: Any, **kwargs: Any) -> Any:
        """The call of a method on the list, unless its result would be too large."""
        method_owner, name = getattr(obj, "__self__", None), getattr(obj, "__name__", "")
        _charge_size((method_owner, args, kwargs))
        if isinstance(method_owner, str):
            # "sep".join(parts): what grows are the parts, by the separator
            value, operands = (args[0], (method_owner,)) if name == "join" and args else (method_owner, args)
            _refuse_large_result(name, value, operands, kwargs)
        return _compute_and_charge(super().call(context, obj, *args, **kwargs))


class _MeteringTransformer(NodeTransformer):
    """Syntax-tree pass that charges what no hook of the sandbox sees: loops, comparisons, ``~``, slices and ``set``."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        """A loop pays for every round, as much as its body is long."""
        cost = sum(1 for child in (*node.body, *node.else_) for _ in child.find_all(nodes.Node)) + len(node.body) + 1
        cost += 0 if node.test is None else 1 + sum(1 for _ in node.test.find_all(nodes.Node))
        self.generic_visit(node)
        node.iter = _wrap_in_filter(node.iter, _LOOP_FILTER, [nodes.Const(cost)])
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        """``a ~ b``."""
        self.generic_visit(node)
        return _wrap_in_filter(nodes.List(node.nodes), _JOIN_FILTER)

    def visit_Compare(self, node: nodes.Compare | nodes.Operand) -> nodes.Node:
        """``a == b``, ``a in b``: the left side, and as `nodes.Operand` each right side."""
        self.generic_visit(node)
        node.expr = _wrap_in_filter(node.expr, _CHARGE_FILTER)
        return node

    visit_Operand = visit_Compare

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        """``a[1:]``; compiled code slices without asking the environment."""
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            node.node = _wrap_in_filter(node.node, _CHARGE_FILTER)
        return node

    def visit_Assign(self, node: nodes.Assign) -> nodes.Node:
        """``set``; lists of lists of lists could double at every one."""
        self.generic_visit(node)
        node.node = _wrap_in_filter(node.node, _CHARGE_FILTER)
        return node

    def visit_With(self, node: nodes.With) -> nodes.Node:
        """``with``, likewise."""
        self.generic_visit(node)
        node.values = [_wrap_in_filter(value, _CHARGE_FILTER) for value in node.values]
        return node


def _wrap_in_filter(node: nodes.Node, name: str, arguments: list[nodes.Expr] | None = None) -> nodes.Expr:
    assert isinstance(node, nodes.Expr)
    return nodes.Filter(node, name, arguments or [], [], None, None, lineno=node.lineno)


def add_metering(tree: nodes.Template) -> nodes.Template:
    """The parsed template with a charge on everything that could run away; it is changed in place."""
    metered_template = _MeteringTransformer().visit(tree)
    assert isinstance(metered_template, nodes.Template)
    metered_template.set_environment(ENVIRONMENT)
    return metered_template


def _build_sandbox() -> _MeteredSandbox:
    # Not optimized: constants would be worked out while compiling, where no meter runs.
    environment = _MeteredSandbox(
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,
        optimized=False,
        finalize=_charge_output,
    )
    environment.globals = {"range": _bounded_range}
    environment.filters = {name: _add_filter_metering(name, environment.filters[name]) for name in FILTERS}
    environment.filters |= {_CHARGE_FILTER: _charge_size, _LOOP_FILTER: _charge_loop_elements, _JOIN_FILTER: _join_text}
    environment.tests = {name: _add_test_metering(environment.tests[name]) for name in environment.tests}
    return environment


ENVIRONMENT = _build_sandbox()
"""The one environment of all templates."""
