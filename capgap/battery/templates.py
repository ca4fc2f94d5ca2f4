"""Jinja templates of battery files over the fields of an item, rendered in a sandbox.

lm-eval renders templates in an ordinary Jinja environment, where ``{{ ''.__class__ }}`` is the first step to a shell.
Here they run in `capgap.battery.sandbox`, without statements that load or define.
"""

import warnings
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError, Undefined, UndefinedError, meta, nodes
from jinja2.exceptions import SecurityError

from capgap.battery.sandbox import ENVIRONMENT, FILTERS, MAX_LOOP, MAX_SIZE, guarded, measured, metered
from capgap.errors import BatteryError, suggestion

__all__ = ["Template", "render"]

MAX_SOURCE = 100_000
_REFUSED = {
    nodes.Import: "import",
    nodes.FromImport: "import",
    nodes.Include: "include",
    nodes.Extends: "extends",
    nodes.Block: "block",
    nodes.Macro: "macro",
    nodes.CallBlock: "call",
    nodes.FilterBlock: "filter",
    nodes.AssignBlock: "set … endset",
}


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
            tree = ENVIRONMENT.parse(source)
            _refuse_statements(tree, where)
            self.names = meta.find_undeclared_variables(tree)
            inner = _only_expression(tree, source)
            self.is_expression = inner is not None
            if inner is not None:
                tree = nodes.Template([nodes.Assign(nodes.Name("result", "store"), inner, lineno=1)], lineno=1)
            with warnings.catch_warnings():  # what Python remarks about the code that Jinja writes helps nobody
                warnings.simplefilter("ignore")
                self._compiled = ENVIRONMENT.from_string(guarded(tree))
        except BatteryError:
            raise
        except TemplateSyntaxError as error:
            raise BatteryError(f"{where}: this is no template: {_syntax(error)} Found {source[:80]!r}.") from None
        except TemplateError as error:
            raise BatteryError(f"{where}: this template is refused: {error}.") from None
        except Exception as error:  # Jinja lets Python compile what it writes, and Python has limits of its own
            raise BatteryError(
                f"{where}: this template is refused: {type(error).__name__}: {str(error)[:200]}. Found {source[:80]!r}."
            ) from None

    @property
    def is_plain(self) -> bool:
        """Whether it is text without any placeholder."""
        return "{{" not in self.source and "{%" not in self.source and "{#" not in self.source

    def value(self, row: Mapping[str, Any], item: str) -> Any:
        """The template rendered over a row: text, or for a single expression its value (text, number, list …).

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
        try:
            with metered():
                return self._rendered({"row": row, **row})
        except UndefinedError as error:
            raise BatteryError(f"{self.where}, {item}: {self._missing(row, error)}") from None
        except SecurityError as error:
            raise BatteryError(
                f"{self.where}, {item}: the template is refused: {error}. A battery runs no code and keeps within "
                f"bounds; expected fields of the item, filters and conditions, found {self.source[:80]!r}."
            ) from None
        except Exception as error:  # a template can fail in every way that an expression can
            reason = f"{type(error).__name__}: {str(error)[:200]}"
            raise BatteryError(f"{self.where}, {item}: the template {self.source[:80]!r} fails: {reason}.") from None

    def text(self, row: Mapping[str, Any], item: str) -> str:
        """The template rendered over a row, as text; the arguments are those of `value`.

        Raises
        ------
        BatteryError
            See `value`; or it gives nothing, a list or a mapping.
        """
        value = self.value(row, item)
        if value is None or isinstance(value, (list, dict)):
            kind = "nothing" if value is None else f"a {type(value).__name__}"
            raise BatteryError(f"{self.where}, {item}: expected text, found {kind} from {self.source[:80]!r}.")
        return str(value)

    def _rendered(self, scope: dict[str, Any]) -> Any:
        context = self._compiled.new_context(scope)
        parts: list[str] = []
        size = 0
        # Part by part, so that a rendering that grows without end is stopped while it grows.
        for part in self._compiled.root_render_func(context):
            size += len(part)
            if size > MAX_SIZE:
                raise SecurityError(f"more than {MAX_SIZE:,} characters")
            parts.append(part)
        if not self.is_expression:
            return _encodable("".join(parts))
        value = context.vars["result"]
        if isinstance(value, Undefined):
            value._fail_with_undefined_error()
        measured(value)
        return _plain(value)

    def _missing(self, row: Mapping[str, Any], error: UndefinedError) -> str:
        missing_names = sorted(self.names - set(row) - {"row", "range"})
        # Names come from a file too: through `repr`, so that they cannot steer a terminal.
        fields = ", ".join(repr(name)[1:-1] for name in sorted(row)[:20]) or "no field"
        if not missing_names:
            return f"{error.message}, in {self.source[:80]!r}. The item has: {fields}."
        near = suggestion(missing_names[0], row)
        return f"no field {missing_names[0]!r}. The item has: {fields}.{near if 'Did' in near else ''}"


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
    refused = next(tree.find_all(tuple(_REFUSED)), None)
    if refused is not None:
        raise BatteryError(
            f"{where}: the statement {_REFUSED[type(refused)]!r} is refused: a battery runs no code. "
            f"Expected fields of the item, filters, if, for, and set NAME = expression."
        )
    for outer in tree.find_all(nodes.For):
        if outer.recursive or any(True for inner in outer.find_all(nodes.For) for _ in inner.find_all(nodes.For)):
            raise BatteryError(f"{where}: loops nest deeper than two levels or recur.")


def _syntax(error: TemplateSyntaxError) -> str:
    """Jinja's message; with the nearest filter where the mistake is a filter's name."""
    message = str(error.message).rstrip(".")
    if not message.startswith("No filter named"):
        return f"{message}."
    return f"{message}.{suggestion(message.split(chr(39))[1], FILTERS, limit=len(FILTERS))}"


def _only_expression(tree: nodes.Template, source: str) -> nodes.Expr | None:
    """The expression where the template is exactly ``{{ expression }}``."""
    body = tree.body
    if len(body) != 1 or not isinstance(body[0], nodes.Output) or len(body[0].nodes) != 1:
        return None
    only = body[0].nodes[0]
    if isinstance(only, nodes.TemplateData) or not (source.startswith("{{") and source.endswith("}}")):
        return None
    return only


def _plain(value: Any, depth: int = 0) -> Any:
    """Only data leaves a template: nothing that could be called."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        return _encodable(str(value))
    if isinstance(value, (list, tuple, range)) and depth < 5 and len(value) <= MAX_LOOP:
        return [_plain(part, depth + 1) for part in value]
    if isinstance(value, Mapping) and depth < 5 and len(value) <= MAX_LOOP:
        return {str(key): _plain(part, depth + 1) for key, part in value.items()}
    raise SecurityError(f"it gives a {type(value).__name__}, neither text, number nor a list of at most {MAX_LOOP}")


def _encodable(text: str) -> str:
    """The text, if a file and a tokenizer can take it: an escape in a template can write half a character."""
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise SecurityError("it writes half a character")
    return text
