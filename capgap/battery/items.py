"""Items of a task: rows of data rendered to prompt, choices, targets, chance and labels, with their ids and samples."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from capgap.battery.answer_scoring import numbers
from capgap.battery.battery_spec import CustomTask, capability_complaint
from capgap.battery.data_source import SourceRow
from capgap.battery.templates import Template
from capgap.errors import BatteryError


@dataclass(frozen=True)
class Item:
    """One item of a task: prompt, choices, targets and what is known of it."""

    task: str
    """Name of its task."""
    item: str
    """Its id: declared, or a hash of what it asks and its occurrence; the same in every variant."""
    variant: str
    """How it is asked; ``default`` is the task itself."""
    prompt: str
    """What the model reads, without solved examples and chat template."""
    choices: tuple[str, ...] | None
    """The answers to choose from; None where an answer is generated."""
    targets: tuple[str, ...]
    """Texts of which any is right."""
    gold: tuple[int, ...] = ()
    """Positions of the right choices; empty where an answer is generated."""
    chance: float | None = None
    """Expected score of a guess; None where nobody knows."""
    capability: str | None = None
    """``knowledge``, ``reasoning``, ``mixed``, or None where nobody said."""
    domain: str | None = None
    """The subject, where it was said."""
    cluster: str = ""
    """Items with one cluster stand or fall together; by default the item's id."""
    covariates: dict[str, Any] = field(default_factory=dict)
    """Facts about the item, without the ``x_`` of the tables."""
    rationale: str | None = None
    """The gold steps, where there are any."""
    shot: str = ""
    """The answer that this item shows where it serves as a solved example."""


_LABEL_TEMPLATE_KEYS = ("capability", "domain", "cluster", "covariates")
_TEMPLATE_KEYS = ("prompt", "choices", "target", "chance", "shot", "id", "rationale", *_LABEL_TEMPLATE_KEYS)


class TaskTemplates:
    """The compiled templates of a task (or of a variant of it).

    Raises
    ------
    BatteryError
        A template cannot be parsed or is refused.
    """

    def __init__(self, task: CustomTask, error_at: str) -> None:
        self.task, self.where = task, error_at
        sources = {key: getattr(task, key) for key in _TEMPLATE_KEYS}
        self.templates = compile_templates({**sources, "guess": task.guess and task.guess.value}, error_at)

    def item(self, row: SourceRow, variant: str) -> Item:
        """The item of a row; its id is set by `make_items`."""
        return _RowRenderer(self, row).item(variant)


class _RowRenderer:
    """Renders the templates of a task over one row."""

    def __init__(self, compiled: TaskTemplates, row: SourceRow) -> None:
        self.task, self.templates, self.where = compiled.task, compiled.templates, compiled.where
        self.fields, self.location = row.fields, row.location

    def item(self, variant: str) -> Item:
        choices = self.choices() if self.task.format == "choose" else None
        targets, gold = self.targets_and_gold(choices)
        shot = self.templates["shot"]
        capability = self.render_optional_text("capability")
        complaint = capability_complaint(capability) if capability else None
        if complaint:
            raise BatteryError(f"{self.at('capability')}: {complaint}")
        return Item(
            task=self.task.name,
            item=self.render_optional_text("id") or "",
            variant=variant,
            prompt=self.templates["prompt"].text(self.fields, self.location),
            choices=choices,
            targets=targets,
            gold=gold,
            chance=self.chance(choices, gold),
            capability=capability,
            domain=self.render_optional_text("domain"),
            cluster=self.render_optional_text("cluster") or "",
            covariates=render_covariates(self.templates["covariates"], self.fields, self.where, self.location),
            rationale=self.render_optional_text("rationale"),
            shot=shot.text(self.fields, self.location) if shot else targets[0],
        )

    def at(self, key: str) -> str:
        """File, task, key and row, as messages begin."""
        return f"{self.where}, key {key!r}, {self.location}"

    def value(self, key: str) -> Any:
        """The value of a template, or the values of a list of them."""
        template = self.templates[key]
        if isinstance(template, list):
            return [rendered(element, self.fields, self.location) for element in template]
        return rendered(template, self.fields, self.location)

    def render_optional_text(self, key: str) -> str | None:
        """Text, or None where the template is absent or gives nothing."""
        value, template = self.value(key), self.templates[key]
        if value is None or value == "":
            return None
        return template.text(self.fields, self.location) if isinstance(template, Template) else str(value)

    def choices(self) -> tuple[str, ...]:
        error_at, values = self.at("choices"), self.value("choices")
        if not isinstance(values, list):
            raise BatteryError(
                f"{error_at}: expected a list, found {type(values).__name__} {str(values)[:80]!r}. "
                f'A template that is exactly one expression keeps its list: "{{{{options}}}}".'
            )
        texts = tuple(_as_text(value, error_at) for value in values)
        if len(texts) < 2:
            raise BatteryError(f"{error_at}: expected at least two choices, found {len(texts)}.")
        if not all(texts):
            raise BatteryError(f"{error_at}: choice {texts.index('')} is empty.")
        return texts

    def targets_and_gold(self, choices: tuple[str, ...] | None) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """Texts of which any is right and, for choices, the positions of the right ones."""
        error_at, value = self.at("target"), self.value("target")
        answers = value if isinstance(value, list) else [value]
        if len(answers) == 1 and isinstance(answers[0], list):
            answers = answers[0]
        if not answers:
            raise BatteryError(f"{error_at}: expected an answer, found an empty list.")
        if choices is None:
            targets = tuple(dict.fromkeys(_as_text(answer, error_at).strip() for answer in answers))
            self.check_targets(targets, error_at)
            return targets, ()
        # Equal texts among the choices are right together: log-likelihoods cannot tell them apart.
        right_texts = {choices[_find_choice_index(answer, choices, error_at)] for answer in answers}
        gold = tuple(n for n, text in enumerate(choices) if text in right_texts)
        if len(gold) == len(choices):
            raise BatteryError(f"{error_at}: every choice counts as right; nothing is asked.")
        return tuple(dict.fromkeys(choices[n] for n in gold)), gold

    def check_targets(self, targets: Sequence[str], error_at: str) -> None:
        if not all(targets):
            raise BatteryError(f"{error_at}: expected an answer, found an empty text.")
        if self.task.score_name == "numeric":
            invalid_targets = [target for target in targets if not numbers(target)]
            if invalid_targets:
                raise BatteryError(f"{error_at}: score: numeric needs a number, found {invalid_targets[0][:80]!r}.")

    def chance(self, choices: tuple[str, ...] | None, gold: tuple[int, ...]) -> float:
        key = "guess" if choices is None else "chance"
        if self.templates[key] is None:
            return 0.0 if choices is None else len(gold) / len(choices)
        value = self.value(key)
        try:
            chance = float(value)
        except (TypeError, ValueError):
            chance = float("nan")
        if not 0 <= chance < 1:
            raise BatteryError(f"{self.at(key)}: expected a number from 0 to below 1, found {value!r}.")
        return chance


def compile_templates(sources: Mapping[str, Any], error_at: str) -> dict[str, Any]:
    """The templates of a task by key; numbers and None stay, lists and mappings hold what they held, compiled.

    Raises
    ------
    BatteryError
        A template cannot be parsed or is refused; the key is named.
    """

    def compiled(source: Any, key: str) -> Any:
        if isinstance(source, list):
            return [compiled(element, f"{key}[{n}]") for n, element in enumerate(source)]
        if isinstance(source, dict):
            return {name: compiled(element, f"{key}.{name}") for name, element in source.items()}
        return Template(source, f"{error_at}, key {key!r}") if isinstance(source, str) else source

    return {key: compiled(source, key) for key, source in sources.items()}


def rendered(template: Any, fields: dict[str, Any], location: str) -> Any:
    """The value of a compiled template over a row's fields; what is no template is its own value."""
    return template.value(fields, location) if isinstance(template, Template) else template


def render_covariates(
    templates: Mapping[str, Any], fields: dict[str, Any], error_at: str, location: str
) -> dict[str, Any]:
    """The covariates of an item, each a value that fits a cell of a table.

    Raises
    ------
    BatteryError
        One is a list, a mapping or too large a number.
    """
    covariates = {name: rendered(template, fields, location) for name, template in templates.items()}
    for name, value in covariates.items():
        if isinstance(value, (list, dict)) or (isinstance(value, int) and abs(value) >= 2**63):
            kinds: dict[type, str] = {list: "a list", dict: "a mapping"}
            kind = kinds.get(type(value), "too large a number")
            raise BatteryError(
                f"{error_at}, key 'covariates.{name}', {location}: expected a text or a number, found {kind}: "
                f"{str(value)[:80]!r}."
            )
    return covariates


def make_items(
    task: CustomTask, rows: Sequence[SourceRow], error_at: str, *, variants: bool = True
) -> dict[str, list[Item]]:
    """The items of all rows for the task and its variants, in the order of the rows.

    Parameters
    ----------
    task
        The task.
    rows
        Its data.
    error_at
        Beginning of a message.
    variants
        Whether its variants are wanted too.

    Returns
    -------
    dict
        ``default`` and each variant → items; items at one position are the same item.

    Raises
    ------
    BatteryError
        A template, choice, target or id is wrong; the row is named.
    """
    templates = {"default": TaskTemplates(task, error_at)}
    for name in task.variants if variants else ():
        templates[name] = TaskTemplates(task.varied(name), f"{error_at}, variant {name!r}")
    rendered = {name: [compiled.item(row, name) for row in rows] for name, compiled in templates.items()}
    # Ids are those of the task itself, so that an item has one id in every variant.
    ids = _item_ids(rendered["default"], rows, error_at)
    return {
        name: [replace(item, item=ids[n], cluster=item.cluster or ids[n]) for n, item in enumerate(items)]
        for name, items in rendered.items()
    }


def sample_positions(n: int, limit: int | None, seed: int, name: str) -> list[int]:
    """Positions of a seeded sample of at most `limit` of `n` items, sorted.

    A larger limit adds to the sample of a smaller one, so that answers already given stay useful.
    """
    return sorted(shuffle_positions(n, seed, name)[:limit])


def shuffle_positions(n: int, seed: int, name: str) -> list[int]:
    """The seeded order in which items enter a sample; solved examples come from its end."""
    digest = hashlib.sha256(name.encode()).digest()
    rng = np.random.default_rng([seed, int.from_bytes(digest[:8], "big")])
    return [int(position) for position in rng.permutation(n)]


def content_ids(contents: Iterable[Any]) -> list[str]:
    """An id for each content: 16 hex digits of its SHA-256, and its occurrence where the same content comes again."""
    seen: Counter[str] = Counter()
    ids = []
    for content in contents:
        text = json.dumps(content, sort_keys=True, ensure_ascii=False, default=str)
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        seen[digest] += 1
        ids.append(digest if seen[digest] == 1 else f"{digest}-{seen[digest]}")
    return ids


def _item_ids(items: Sequence[Item], rows: Sequence[SourceRow], error_at: str) -> list[str]:
    if not any(item.item for item in items):
        return content_ids([item.prompt, item.choices, item.targets] for item in items)
    seen: dict[str, str] = {}
    for item, row in zip(items, rows, strict=True):
        if not item.item:
            raise BatteryError(f"{error_at}, key 'id', {row.location}: expected an id, found an empty text.")
        if item.item in seen:
            raise BatteryError(
                f"{error_at}, key 'id', {row.location}: the id {item.item[:80]!r} stands in {seen[item.item]} already."
            )
        seen[item.item] = row.location
    return [item.item for item in items]


def _as_text(value: Any, error_at: str) -> str:
    if value is None or isinstance(value, (list, dict)):
        raise BatteryError(
            f"{error_at}: expected text or a number, found {'nothing' if value is None else repr(value)[:80]}."
        )
    return str(value)


def _find_choice_index(answer: Any, choices: tuple[str, ...], error_at: str) -> int:
    """Index of the choice that a target means: an integer is an index; a text is a choice, then a letter."""
    if isinstance(answer, int) and not isinstance(answer, bool):
        if 0 <= answer < len(choices):
            return answer
        raise BatteryError(f"{error_at}: index {answer} of {len(choices)} choices; indices count from 0.")
    text = _as_text(answer, error_at)
    if text in choices:
        return choices.index(text)
    stripped = [choice.strip() for choice in choices]
    if text.strip() in stripped:
        return stripped.index(text.strip())
    letter = text.strip().strip("().").upper()
    if len(letter) == 1 and letter.isascii() and letter.isalpha() and ord(letter) - ord("A") < len(choices):
        return ord(letter) - ord("A")
    quoted = ", ".join(repr(choice[:40]) for choice in choices[:6])
    hint = ' For an index make it an integer: "{{answer | int}}".' if text.strip().isdigit() else ""
    raise BatteryError(f"{error_at}: {text[:80]!r} is neither a choice nor the letter of one. Choices: {quoted}.{hint}")
