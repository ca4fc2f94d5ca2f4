"""The closed world: its named entities, the facts that are true of them, and the stratum of each fact."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from capgap.microworld.vocabulary import FIXED_WORDS, SPECIAL_TOKENS, new_words

FactStratum = Literal["training", "held_known", "held_unknown"]
STRATA: tuple[FactStratum, ...] = ("training", "held_known", "held_unknown")
"""In the pool that distillation may ask about; never asked but in the base's text; never asked and not in it."""

RELATIONS = {"city": "burg", "job": "smith", "food": "cake", "pet": "fox"}
"""What is told of an entity, and how the values of it end."""

SECOND_HOP_LINKS = {"city": ("lake", "mere"), "job": ("tool", "hook"), "food": ("taste", "ish"), "pet": ("cry", "oo")}
"""Relation → what is told of each of its values (the second hop), and how those values end."""

FACT_WORDINGS = (
    "{fact.relation} of {fact.entity} is {fact.value} ;",
    "{fact.entity} {fact.relation} is {fact.value} ;",
    "of {fact.entity} , {fact.relation} is {fact.value} ;",
)
"""How texts word a fact, the first half of the time. Rationales know the first wording alone; without the others a
model recites what it read and can hardly be asked for it."""

_FREQUENCY_BAND_LIMITS = (("common", 0.2), ("middle", 0.5), ("rare", 1.0))
_FREQUENCY_EXPONENT = 0.7
"""Frequency of the entity of rank r in text: proportional to r ** -exponent (Zipf)."""
N_ENTITIES, N_VALUES, N_VALUES_PER_LINK = 150, 30, 10
"""Named entities; values of each relation; values of each link."""
_STRATUM_SHARES = (0.6, 0.25, 0.15)
"""Shares of the facts in the strata, in the order of `STRATA`."""


@dataclass(frozen=True)
class WorldFact:
    """One fact about one entity: ``RELATION of ENTITY is VALUE``."""

    relation: str
    """A key of `RELATIONS`."""
    entity: str
    """Whom it is told of."""
    value: str
    """What is true."""
    stratum: FactStratum
    """Who may know it and who may ask it."""
    frequency_band: str
    """How often the entity is told of: ``common``, ``middle``, ``rare``."""

    @property
    def statement(self) -> str:
        """The fact in the wording of rationales."""
        return FACT_WORDINGS[0].format(fact=self)


@dataclass(frozen=True)
class World:
    """One world: entities, values, facts and links, all from one seed."""

    seed: int
    """What it was made from."""
    entity_names: tuple[str, ...]
    """The named entities, the most frequent first."""
    values: dict[str, tuple[str, ...]]
    """Relation or link word → the values it can have."""
    facts: tuple[WorldFact, ...]
    """One fact for each entity and relation, entity by entity."""
    links: dict[str, str]
    """Value of a relation → value of that relation's link: ``lake of zelburg is toramere``."""

    @cached_property
    def entity_frequencies(self) -> np.ndarray:
        """Share of each entity in the fact statements of a text, shape (entities,)."""
        weight = np.arange(1, len(self.entity_names) + 1) ** -_FREQUENCY_EXPONENT
        return np.asarray(weight / weight.sum())

    @cached_property
    def vocabulary(self) -> tuple[str, ...]:
        """Every word of the language, special tokens first; the position is the token's id."""
        words = (value for values in self.values.values() for value in values)
        return (*SPECIAL_TOKENS, *FIXED_WORDS, *self.values, *words, *self.entity_names)

    def facts_in_strata(self, *strata: FactStratum) -> Iterator[WorldFact]:
        """The facts in any of the strata, in order."""
        return (fact for fact in self.facts if fact.stratum in strata)

    def link_statement(self, fact: WorldFact) -> str:
        """The link from a fact's value to the link's value, as a statement: the step that a second hop takes."""
        return f"{SECOND_HOP_LINKS[fact.relation][0]} of {fact.value} is {self.links[fact.value]} ;"


def make_world(seed: int = 0) -> World:
    """The world of a seed, with a fact for each of its entities and relations and a link for each value."""
    rng = np.random.default_rng([seed, 5])
    taken: list[str] = [*SPECIAL_TOKENS, *FIXED_WORDS, *RELATIONS, *(word for word, _ in SECOND_HOP_LINKS.values())]
    entities = new_words(N_ENTITIES, "", taken, rng)
    values = {relation: new_words(N_VALUES, suffix, [*taken, *entities], rng) for relation, suffix in RELATIONS.items()}
    links: dict[str, str] = {}
    for relation, (word, suffix) in SECOND_HOP_LINKS.items():
        values[word] = new_words(N_VALUES_PER_LINK, suffix, [*taken, *entities], rng)
        links |= {value: str(rng.choice(values[word])) for value in values[relation]}
    strata = iter(_draw_strata(len(entities) * len(RELATIONS), rng))
    facts = tuple(
        WorldFact(relation, entity, str(rng.choice(values[relation])), next(strata), _frequency_band(rank / N_ENTITIES))
        for rank, entity in enumerate(entities)
        for relation in RELATIONS
    )
    return World(seed, entities, values, facts, links)


def corrupt_world_facts(world: World, share: float, rng: np.random.Generator) -> World:
    """The world with a share of the facts wrong, always in the same way, as an imperfect teacher learns it."""
    fact_is_wrong = rng.random(len(world.facts)) < share
    facts = tuple(
        replace(fact, value=str(rng.choice([value for value in world.values[fact.relation] if value != fact.value])))
        if is_wrong
        else fact
        for fact, is_wrong in zip(world.facts, fact_is_wrong, strict=True)
    )
    return replace(world, facts=facts)


def _draw_strata(n: int, rng: np.random.Generator) -> list[FactStratum]:
    """`n` strata in random order, their counts as near to `_STRATUM_SHARES` as whole numbers come."""
    cumulative_counts = np.rint(np.cumsum(_STRATUM_SHARES) * n).astype(int)
    return [STRATA[int(np.searchsorted(cumulative_counts, position, side="right"))] for position in rng.permutation(n)]


def _frequency_band(quantile: float) -> str:
    return next(name for name, end in _FREQUENCY_BAND_LIMITS if quantile < end)
