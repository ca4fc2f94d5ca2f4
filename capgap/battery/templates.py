"""Templates of battery files, rendered where they can reach the row and nothing else.

lm-eval renders templates in an ordinary Jinja environment, where ``{{ ''.__class__ }}`` is the first step to a shell.
Here they run in Jinja's immutable sandbox, without statements that load or define, with bounded loops and results.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from itertools import islice
from types import GeneratorType
from typing import Any, ClassVar

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, Undefined, UndefinedError, meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from capgap.errors import BatteryError, suggestion

__all__ = ["Template", "render"]

MAX_RENDERED = 1_000_000
MAX_LOOP = 1_000
MAX_SOURCE = 100_000
_REFUSED_NODES = (
    nodes.Import,
    nodes.FromImport,
    nodes.Include,
    nodes.Extends,
    nodes.Block,
    nodes.Macro,
    nodes.CallBlock,
)
_REFUSED_FILTERS = ("center", "format", "indent", "pprint", "random", "xmlattr", "attr")
_REFUSED_METHODS = frozenset(
    ("center", "ljust", "rjust", "zfill", "expandtabs", "format", "format_map", "translate", "encode")
)


def _short_range(*bounds: int) -> range:
    numbers = range(*bounds)
    if len(numbers) > MAX_LOOP:
        raise SecurityError(f"range of {len(numbers)}, more than {MAX_LOOP}")
    return numbers


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, without what makes large things from small ones or gives another result each time."""

    intercepted_binops: ClassVar[frozenset[str]] = frozenset({"*", "**", "%", "+"})  # type: ignore[misc]

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, str) and attr in _REFUSED_METHODS:
            return False
        return bool(super().is_safe_attribute(obj, attr, value))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        sizes = [len(side) for side in (left, right) if isinstance(side, (str, list, tuple))]
        numbers = [side for side in (left, right) if isinstance(side, int)]
        if operator == "%" and isinstance(left, str):
            raise SecurityError("text formatting with % is refused")
        if operator == "**" and (len(numbers) < 2 or abs(right) > 64 or abs(left) > 10**6):
            raise SecurityError("power of large numbers")
        if operator == "*" and sizes and numbers and sizes[0] * max(numbers) > MAX_RENDERED:
            raise SecurityError(f"more than {MAX_RENDERED} characters")
        if operator == "+" and sum(sizes) > MAX_RENDERED:
            raise SecurityError(f"more than {MAX_RENDERED} characters")
        return super().call_binop(context, operator, left, right)

    def call(self, context: Any, obj: Any, *args: Any, **kwargs: Any) -> Any:
        if getattr(obj, "__name__", "") == "replace" and len(args) >= 2 and isinstance(args[1], str):
            source = getattr(obj, "__self__", "")
            if isinstance(source, str) and (len(source) + 1) * (len(args[1]) + 1) > MAX_RENDERED * 10:
                raise SecurityError(f"more than {MAX_RENDERED} characters")
        return super().call(context, obj, *args, **kwargs)


def _environment() -> _Sandbox:
    environment = _Sandbox(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
    environment.globals = {"range": _short_range}
    for name in _REFUSED_FILTERS:
        environment.filters.pop(name, None)
    return environment


_ENVIRONMENT = _environment()


class Template:
    """One template of a battery file.

    Parameters
    ----------
    source
        Its text; a text that is exactly one ``{{ expression }}`` keeps the type of the expression.
    where
        File, task and key, for messages.

    Raises
    ------
    BatteryError
        It cannot be parsed, or has a statement that loads, defines or loops too deep.
    """

    def __init__(self, source: str, where: str) -> None:
        self.source, self.where = source, where
        if len(source) > MAX_SOURCE:
            raise BatteryError(f"{where}: a template of {len(source):,} characters; at most {MAX_SOURCE:,}.")
        try:
            tree = _ENVIRONMENT.parse(source)
            _refuse_statements(tree, where)
            self.names = meta.find_undeclared_variables(tree)
            inner = _only_expression(tree, source)
            if inner is None:
                self._render = _ENVIRONMENT.from_string(source)
            else:
                self._evaluate = _ENVIRONMENT.compile_expression(inner, undefined_to_none=False)
            self.is_expression = inner is not None
        except TemplateSyntaxError as error:
            raise BatteryError(f"{where}: this is no template: {error.message}. Found {source[:80]!r}.") from None
        except (TemplateError, RecursionError) as error:
            raise BatteryError(f"{where}: this template is refused: {error}.") from None

    @property
    def is_plain(self) -> bool:
        """Whether it is text without any placeholder."""
        return "{{" not in self.source and "{%" not in self.source and "{#" not in self.source

    def value(self, row: Mapping[str, Any], item: str) -> Any:
        """What it gives for a row: text, or for a single expression whatever that is (text, number, list …).

        Parameters
        ----------
        row
            Field → value; the whole of it is `row` too, for fields whose name is no word.
        item
            Which item this is, for messages.

        Raises
        ------
        BatteryError
            It names what the item has not, reaches for Python's insides, or grows without bound.
        """
        if self.is_plain:
            return self.source
        scope = {"row": row, **row}
        try:
            if not self.is_expression:
                return self._bounded(scope)
            found = self._evaluate(**scope)
            if isinstance(found, Undefined):
                found._fail_with_undefined_error()
            return _plain(found)
        except UndefinedError as error:
            raise BatteryError(f"{self.where}, {item}: {self._missing(row, error)}") from None
        except SecurityError as error:
            raise BatteryError(
                f"{self.where}, {item}: the template is refused, a battery runs no code: {error}. "
                f"Found {self.source[:80]!r}; expected fields of the item, filters and conditions."
            ) from None
        except Exception as error:  # a template can fail in every way that an expression can
            raise BatteryError(
                f"{self.where}, {item}: the template {self.source[:80]!r} fails: {type(error).__name__}: {error}."
            ) from None

    def text(self, row: Mapping[str, Any], item: str) -> str:
        """What it gives, as text."""
        found = self.value(row, item)
        if found is None or isinstance(found, (list, dict)):
            kind = "nothing" if found is None else f"a {type(found).__name__}"
            raise BatteryError(f"{self.where}, {item}: expected text, found {kind} from {self.source[:80]!r}.")
        return str(found)

    def _bounded(self, scope: dict[str, Any]) -> str:
        parts: list[str] = []
        size = 0
        for part in self._render.generate(scope):
            size += len(part)
            if size > MAX_RENDERED:
                raise SecurityError(f"more than {MAX_RENDERED} characters")
            parts.append(part)
        return "".join(parts)

    def _missing(self, row: Mapping[str, Any], error: UndefinedError) -> str:
        absent = sorted(self.names - set(row) - {"row", "range"})
        # Names come from a file too: through `repr`, so that they cannot steer a terminal.
        has = ", ".join(repr(name)[1:-1] for name in sorted(row)[:20]) or "no field"
        if not absent:
            return f"{error.message}, in {self.source[:80]!r}. The item has: {has}."
        near = suggestion(absent[0], row)
        return f"no field {absent[0]!r}. The item has: {has}.{near if 'Did' in near else ''}"


def render(source: str, row: Mapping[str, Any], *, where: str = "template") -> str:
    """A template rendered over one row, as text, in the sandbox.

    Raises
    ------
    BatteryError
        See `Template`.
    """
    return _cached(source, where).text(row, "item")


@lru_cache(maxsize=256)
def _cached(source: str, where: str) -> Template:
    return Template(source, where)


def _refuse_statements(tree: nodes.Template, where: str) -> None:
    refused = next(tree.find_all(_REFUSED_NODES), None)
    if refused is not None:
        word = type(refused).__name__.lower()
        raise BatteryError(f"{where}: the statement {word!r} is refused: a battery runs no code.")
    for outer in tree.find_all(nodes.For):
        if outer.recursive or any(True for inner in outer.find_all(nodes.For) for _ in inner.find_all(nodes.For)):
            raise BatteryError(f"{where}: loops nest deeper than two levels or recur.")


def _only_expression(tree: nodes.Template, source: str) -> str | None:
    """The expression where the template is exactly ``{{ expression }}``."""
    body = tree.body
    if len(body) != 1 or not isinstance(body[0], nodes.Output) or len(body[0].nodes) != 1:
        return None
    if isinstance(body[0].nodes[0], nodes.TemplateData) or not (source.startswith("{{") and source.endswith("}}")):
        return None
    return re.sub(r"^[-+]|[-+]$", "", source[2:-2])


def _plain(value: Any, depth: int = 0) -> Any:
    """Only data leaves a template: nothing that could be called."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        if len(value) > MAX_RENDERED:
            raise SecurityError(f"more than {MAX_RENDERED} characters")
        return str(value)
    if isinstance(value, GeneratorType):
        value = list(islice(value, MAX_LOOP + 1))
    if isinstance(value, (list, tuple, range)) and depth < 5 and len(value) <= MAX_LOOP:
        return [_plain(part, depth + 1) for part in value]
    if isinstance(value, Mapping) and depth < 5 and len(value) <= MAX_LOOP:
        return {str(key): _plain(part, depth + 1) for key, part in value.items()}
    raise SecurityError(f"it gives a {type(value).__name__}, neither text, number nor a list of at most {MAX_LOOP}")
