"""Strict reader of untrusted YAML: plain data with the line of every key, validated against a pydantic model.

Only the core types of YAML 1.2 exist here (text, integer, float, true/false, null): ``no`` is text, ``1e-4`` a number,
a date is text. Tags, duplicate keys, alias bombs, deep nesting and large files are refused.
"""

import math
import re
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from capgap.errors import BatteryError, CapgapError, suggestion

__all__ = ["YamlDocument", "read_yaml"]

MAX_YAML_BYTES = 1_000_000
MAX_YAML_DEPTH = 50
MAX_YAML_NODES = 100_000

KeyPath = tuple[str | int, ...]
_Model = TypeVar("_Model", bound=BaseModel)


class _YamlLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """The scanner and composer of PyYAML with the types of YAML 1.2, so that ``no`` stays text."""

    yaml_implicit_resolvers: typing.ClassVar[dict[str, list[Any]]] = {}


_YamlLoader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_YamlLoader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false|True|False)$"), list("tTfF"))
_YamlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^[-+]?(?:0|[1-9][0-9]*)$"), list("-+0123456789")
)
_YamlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]{1,3})?$|^[-+]?\.inf$|^\.nan$"),
    list("-+.0123456789"),
)


@dataclass(frozen=True)
class YamlDocument:
    """A YAML file as plain data, with the line of each key."""

    path: Path
    """Where it was read."""
    data: dict[str, Any]
    """Dicts with text keys, lists, text, numbers, booleans and None."""
    lines: dict[KeyPath, int]
    """Path of keys and list positions → line, counted from 1."""

    def line(self, keys: KeyPath) -> int:
        """The line of the key, or of the nearest thing around it."""
        for end in range(len(keys), 0, -1):
            if keys[:end] in self.lines:
                return self.lines[keys[:end]]
        return 1

    def where(self, keys: KeyPath) -> str:
        """File, line and key, as every message about this file begins."""
        key_phrase = f", {_describe_keys(keys, self.data)}" if keys else ""
        return f"{self.path}, line {self.line(keys)}{key_phrase}"

    def validated(
        self, model: type[_Model], *, error: type[CapgapError] = BatteryError, file_kind: str = "battery"
    ) -> _Model:
        """The data as the model understands it.

        Parameters
        ----------
        model
            A pydantic model; forbid its extra keys if unknown ones are to be reported.
        error
            The exception raised for a mistake.
        file_kind
            What the file is, for the message.

        Raises
        ------
        CapgapError
            Of the class `error`: file, line, key, what was expected, what was found, the nearest valid word.
        """
        try:
            return model.model_validate(self.data)
        except ValidationError as failure:
            mistakes = [
                (self._path_in_file(tuple(e["loc"]), e["type"] == "missing"), e)
                for e in failure.errors(include_url=False)
            ]
            # The branches of a union that do not fit complain about the whole; the one that nearly fits about a part.
            deepest_errors = [pair for pair in mistakes if not any(_is_within(other, pair[0]) for other, _ in mistakes)]
            # A misspelt key is unknown and missing; that it is unknown says more.
            deepest_errors.sort(key=lambda pair: (pair[1]["type"] == "missing", self.line(pair[0])))
            keys, first_error = deepest_errors[0]
            n_others = len({tuple(map(str, path)) for path, _ in deepest_errors}) - 1
            tail = f" ({n_others} more mistake{'s' if n_others > 1 else ''} in this {file_kind}.)" if n_others else ""
            raise error(f"{self.where(keys)}: {self._describe_mistake(keys, first_error, model)}{tail}") from None

    def _path_in_file(self, loc: KeyPath, is_missing: bool) -> KeyPath:
        """Pydantic's location as a path of the file: without its labels of a union's branches, with a missing key."""
        node: Any = self.data
        keys: list[str | int] = []
        for position, key in enumerate(loc):
            if (isinstance(node, dict) and key in node) or (isinstance(node, list) and isinstance(key, int)):
                node = node[key]  # type: ignore[index]
                keys.append(key)
            elif is_missing and position == len(loc) - 1:
                keys.append(key)
        return tuple(keys)

    def _describe_mistake(self, keys: KeyPath, error: Any, model: type[BaseModel]) -> str:
        """A mistake that pydantic found, in words: what was expected, what was found, the nearest valid word."""
        kind, message = error["type"], error["msg"]
        if kind in ("extra_forbidden", "missing"):
            parent_mapping = reduce(getitem, keys[:-1], self.data)  # type: ignore[arg-type]
            if kind == "extra_forbidden":
                return f"unknown key.{suggestion(str(keys[-1]), _field_names(model, keys[:-1], parent_mapping))}"
            required = ", ".join(_required_keys(model, keys[:-1], parent_mapping))
            return f"required key is missing. Expected there: {required or keys[-1]}."
        if kind in ("model_type", "model_attributes_type", "dict_type"):
            valid_keys = suggestion("", _field_names(model, keys, None)) if keys else ""
            return f"expected keys and values, found {_quote(error['input'])}.{valid_keys}"
        if kind == "value_error":
            return str(error["ctx"]["error"])
        if kind == "literal_error":
            words = re.findall(r"'([^']*)'", error["ctx"]["expected"])
            hint = suggestion(str(error["input"]), words)
            return f"expected one of {', '.join(words)}, found {_quote(error['input'])}.{hint if 'Did' in hint else ''}"
        expected = message.removeprefix("Input should be ").replace("a valid string", "text").replace("string", "text")
        return f"expected {expected}, found {_quote(error['input'])}."


def read_yaml(path: Path | str) -> YamlDocument:
    """The plain data of a YAML file and the line of each of its keys.

    Raises
    ------
    BatteryError
        No such file, not UTF-8, over 1 MB, no YAML, nested over 50 levels, more than 100,000 values once aliases are
        followed, a tag such as ``!function``, a key given twice, or a file whose top is not keys and values.
    """
    path = Path(path)
    text = _text(path)
    try:
        _refuse_tags_and_depth(path, text)
        root = yaml.compose(text, Loader=_YamlLoader)
    except yaml.YAMLError as error:
        problem_mark = getattr(error, "problem_mark", None)
        line = f", line {problem_mark.line + 1}" if problem_mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise BatteryError(f"{path}{line}: this is no YAML: {problem}. Expected keys and values.") from None
    if not isinstance(root, yaml.MappingNode):
        raise BatteryError(f"{path}, line 1: expected keys and values, found {_node_kind_phrase(root)}.")
    node_converter = _YamlNodeConverter(path)
    data = node_converter.plain(root, ())
    return YamlDocument(path, data, node_converter.lines)


def _text(path: Path) -> str:
    if not path.is_file():
        raise BatteryError(f"{path}: no such file.")
    try:
        with path.open("rb") as handle:
            raw = handle.read(MAX_YAML_BYTES + 1)
    except OSError as error:
        raise BatteryError(f"{path}: cannot be read: {error.strerror or error}.") from error
    if len(raw) > MAX_YAML_BYTES:
        raise BatteryError(f"{path}: larger than {MAX_YAML_BYTES:,} bytes. Put items into data files beside it.")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise BatteryError(f"{path}, line {line}: not UTF-8 text (byte 0x{raw[error.start]:02x}).") from None


def _refuse_tags_and_depth(path: Path, text: str) -> None:
    """Refuse tags and deep nesting in the events of the parser; composing nodes recurses, events do not."""
    depth = 0
    for event in yaml.parse(text, Loader=_YamlLoader):
        tag = getattr(event, "tag", None)
        line = event.start_mark.line + 1 if event.start_mark is not None else 1
        if tag is not None and tag != "!":
            raise BatteryError(
                f"{path}, line {line}: the tag {tag!r} is refused: a battery runs no code. Code needs --allow-code and "
                f"a maintainers' lm-eval folder; plain values need no tag."
            )
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_YAML_DEPTH:
                raise BatteryError(f"{path}, line {line}: nested deeper than {MAX_YAML_DEPTH} levels.")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


class _YamlNodeConverter:
    """Converter of YAML nodes to plain data, with a bound on values: an alias counts as often as it is used."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: dict[KeyPath, int] = {}
        self.n_nodes = 0

    def plain(self, node: yaml.Node, keys: KeyPath) -> Any:
        self.n_nodes += 1
        if self.n_nodes > MAX_YAML_NODES or len(keys) > MAX_YAML_DEPTH:
            raise BatteryError(
                f"{self.path}, line {_node_line(node)}: more than {MAX_YAML_NODES:,} values or {MAX_YAML_DEPTH} levels "
                f"once its aliases are followed. Write them out, or put them into data files."
            )
        self.lines.setdefault(keys, _node_line(node))
        if isinstance(node, yaml.ScalarNode):
            if any("\ud800" <= letter <= "\udfff" for letter in node.value):
                raise BatteryError(f"{self.path}, line {_node_line(node)}: holds half a character.")
            return _parse_scalar(node)
        if isinstance(node, yaml.SequenceNode):
            return [self.plain(child, (*keys, position)) for position, child in enumerate(node.value)]
        return self._convert_mapping(node, keys)

    def _convert_mapping(self, node: yaml.Node, keys: KeyPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = _node_line(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                raise BatteryError(f"{self.path}, line {line}: a key is a word, found {_node_kind_phrase(key_node)}.")
            key = str(key_node.value)
            key_path = (*keys, key)
            if key in result:
                raise BatteryError(
                    f"{self.path}, line {line}: key {key!r} is given twice, first in line {self.lines[key_path]}."
                )
            self.lines[key_path] = line
            result[key] = self.plain(value_node, key_path)
        return result


def _is_within(keys: KeyPath, outer_keys: KeyPath) -> bool:
    return len(keys) > len(outer_keys) and keys[: len(outer_keys)] == outer_keys


def _node_line(node: yaml.Node) -> int:
    return node.start_mark.line + 1 if node.start_mark is not None else 1


def _node_kind_phrase(node: yaml.Node | None) -> str:
    return {yaml.SequenceNode: "a list", yaml.MappingNode: "a mapping", type(None): "nothing"}.get(type(node), "text")


def _parse_scalar(node: yaml.ScalarNode) -> Any:
    kind = node.tag.rsplit(":", 1)[-1]
    text = str(node.value)
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    if kind == "int" and len(text) < 100:
        return int(text)
    if kind == "float":
        return float(text.replace(".inf", "inf").replace(".nan", "nan"))
    return text


def _describe_keys(keys: KeyPath, data: Any) -> str:
    """``task 'capitals', key 'data.file'``: list positions give way to names where the entries have names."""
    key_phrases: list[str] = []
    dotted_key = ""
    node = data
    for key in keys:
        if isinstance(key, int):
            node = node[key]
            name = (node.get("name") or node.get("lm_eval")) if isinstance(node, dict) else None
            if dotted_key == "tasks" and isinstance(name, str):
                key_phrases.append(f"task {name[:60]!r}")
                dotted_key = ""
            else:
                dotted_key += f"[{key}]"
        else:
            node = node.get(key) if isinstance(node, dict) else None
            dotted_key += f".{key}" if dotted_key else key
    if dotted_key:
        key_phrases.append(f"key {dotted_key!r}")
    return ", ".join(key_phrases)


def _quote(value: Any) -> str:
    if isinstance(value, dict):
        return f"keys and values ({', '.join(map(str, list(value)[:4]))})" if value else "an empty mapping"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if value is None:
        return "nothing"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    text = repr(value)
    kind = {str: "text", bool: "true/false", int: "an integer", float: "a number"}.get(type(value), "")
    return f"{text[:80]}{'…' if len(text) > 80 else ''} ({kind})"


def _models_in(type_annotation: Any) -> Iterator[type[BaseModel]]:
    """Every pydantic model inside an annotation, through unions, lists, mappings and `Annotated`."""
    if isinstance(type_annotation, type) and issubclass(type_annotation, BaseModel):
        yield type_annotation
        return
    if typing.get_origin(type_annotation) is Literal:
        return
    for argument in typing.get_args(type_annotation):
        if isinstance(argument, (type, types.UnionType, types.GenericAlias)) or typing.get_origin(argument) is not None:
            yield from _models_in(argument)


def _models_at_path(model: type[BaseModel], keys: KeyPath) -> list[type[BaseModel]]:
    """The models that a value under this path may follow."""
    models = [model]
    for key in keys:
        if isinstance(key, int):
            continue
        fields = [field for m in models for name, field in m.model_fields.items() if key in (name, field.alias)]
        key_models = [nested for field in fields for nested in _models_in(field.annotation)]
        models = key_models or models  # a key of a free mapping (a variant's name) stays with the models of its values
    return models


def _closest_models(model: type[BaseModel], keys: KeyPath, value: Any) -> list[type[BaseModel]]:
    """Of several models that a value may follow, those that share the most keys with it."""
    models = _models_at_path(model, keys)
    n_shared_keys = [len(set(value) & set(m.model_fields)) if isinstance(value, dict) else 0 for m in models]
    return [m for m, count in zip(models, n_shared_keys, strict=True) if count == max(n_shared_keys)]


def _field_names(model: type[BaseModel], keys: KeyPath, value: Any) -> list[str]:
    return [f.alias or name for m in _closest_models(model, keys, value) for name, f in m.model_fields.items()]


def _required_keys(model: type[BaseModel], keys: KeyPath, value: Any) -> list[str]:
    fields = (field for m in _closest_models(model, keys, value) for field in m.model_fields.items())
    return list(dict.fromkeys(field.alias or name for name, field in fields if field.is_required()))
