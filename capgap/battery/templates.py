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

from capgap.battery.sandbox import ENVIRONMENT, FILTERS, MAX_DATA_SIZE, MAX_ENTRIES, add_metering, fresh_meter, measured
from capgap.errors import BatteryError, suggestion

__all__ = ["Template", "render"]

MAX_TEMPLATE_SIZE = 100_000
_REFUSED_NODES = {
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

    def __init__(self, source: str, error_at: str) -> None:
        self.source, self.where = source, error_at
        if len(source) > MAX_TEMPLATE_SIZE:
            raise BatteryError(f"{error_at}: a template of {len(source):,} characters; at most {MAX_TEMPLATE_SIZE:,}.")
        try:
            tree = ENVIRONMENT.parse(source)
            _refuse_statements(tree, error_at)
            self.names = meta.find_undeclared_variables(tree)
            expression = _only_expression(tree, source)
            self.is_expression = expression is not None
            if expression is not None:
                tree = nodes.Template([nodes.Assign(nodes.Name("result", "store"), expression, lineno=1)], lineno=1)
            with warnings.catch_warnings():  # what Python remarks about the code that Jinja writes helps nobody
                warnings.simplefilter("ignore")
                self._compiled = ENVIRONMENT.from_string(add_metering(tree))
        except BatteryError:
            raise
        except TemplateSyntaxError as error:
            raise BatteryError(f"{error_at}: this is no template: {_complaint(error)} Found {source[:80]!r}.") from None
        except TemplateError as error:
            raise BatteryError(f"{error_at}: this template is refused: {error}.") from None
        except Exception as error:  # Jinja lets Python compile what it writes, and Python has limits of its own
            raise BatteryError(
                f"{error_at}: template refused: {type(error).__name__}: {str(error)[:200]}. Found {source[:80]!r}."
            ) from None

    @property
    def is_literal_text(self) -> bool:
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
        if self.is_literal_text:
            return self.source
        try:
            with fresh_meter():
                return self._render_value({"row": row, **row})
        except UndefinedError as error:
            raise BatteryError(f"{self.where}, {item}: {self._missing_field_message(row, error)}") from None
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

    def _render_value(self, scope: dict[str, Any]) -> Any:
        context = self._compiled.new_context(scope)
        rendered_fragments: list[str] = []
        size = 0
        # Part by part, so that a rendering that grows without end is stopped while it grows.
        for rendered_fragment in self._compiled.root_render_func(context):
            size += len(rendered_fragment)
            if size > MAX_DATA_SIZE:
                raise SecurityError(f"more than {MAX_DATA_SIZE:,} characters")
            rendered_fragments.append(rendered_fragment)
        if not self.is_expression:
            return _require_encodable("".join(rendered_fragments))
        value = context.vars["result"]
        if isinstance(value, Undefined):
            value._fail_with_undefined_error()
        measured(value)
        return _to_plain_data(value)

    def _missing_field_message(self, row: Mapping[str, Any], error: UndefinedError) -> str:
        missing_names = sorted(self.names - set(row) - {"row", "range"})
        # Names come from a file too: through `repr`, so that they cannot steer a terminal.
        fields = ", ".join(repr(name)[1:-1] for name in sorted(row)[:20]) or "no field"
        if not missing_names:
            return f"{error.message}, in {self.source[:80]!r}. The item has: {fields}."
        hint = suggestion(missing_names[0], row)
        return f"no field {missing_names[0]!r}. The item has: {fields}.{hint if 'Did' in hint else ''}"


def render(source: str, row: Mapping[str, Any], *, error_at: str = "template") -> str:
    """A template rendered over one row, as text, in the sandbox.

    Raises
    ------
    BatteryError
        See `Template`.
    """
    return _cached_template(source, error_at).text(row, "item")


@lru_cache(maxsize=256)
def _cached_template(source: str, error_at: str) -> Template:
    return Template(source, error_at)


def _refuse_statements(tree: nodes.Template, error_at: str) -> None:
    statement_node = next(tree.find_all(tuple(_REFUSED_NODES)), None)
    if statement_node is not None:
        raise BatteryError(
            f"{error_at}: the statement {_REFUSED_NODES[type(statement_node)]!r} is refused: a battery runs no code. "
            f"Expected fields of the item, filters, if, for, and set NAME = expression."
        )
    for loop in tree.find_all(nodes.For):
        if loop.recursive or any(True for inner_for in loop.find_all(nodes.For) for _ in inner_for.find_all(nodes.For)):
            raise BatteryError(f"{error_at}: loops nest deeper than two levels or recur.")


def _complaint(error: TemplateSyntaxError) -> str:
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
    sole_output_node = body[0].nodes[0]
    if isinstance(sole_output_node, nodes.TemplateData) or not (source.startswith("{{") and source.endswith("}}")):
        return None
    return sole_output_node


def _to_plain_data(value: Any, depth: int = 0) -> Any:
    """Only data leaves a template: nothing that could be called."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        return _require_encodable(str(value))
    if isinstance(value, (list, tuple, range)) and depth < 5 and len(value) <= MAX_ENTRIES:
        return [_to_plain_data(child_value, depth + 1) for child_value in value]
    if isinstance(value, Mapping) and depth < 5 and len(value) <= MAX_ENTRIES:
        return {str(key): _to_plain_data(child_value, depth + 1) for key, child_value in value.items()}
    raise SecurityError(f"it gives a {type(value).__name__}, neither text, number nor a list of at most {MAX_ENTRIES}")


def _require_encodable(text: str) -> str:
    """The text, if a file and a tokenizer can take it: an escape in a template can write half a character."""
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise SecurityError("it writes half a character")
    return text
