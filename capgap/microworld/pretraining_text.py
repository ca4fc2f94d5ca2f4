"""Pretraining text of a base model: facts and single steps as statements, in the wording that rationales use."""

from dataclasses import dataclass
from functools import cached_property
from itertools import permutations, product

import numpy as np

from capgap.microworld.questions import gate, hop_question, rearranged, step_result, swapped
from capgap.microworld.vocabulary import CUPS, DIGITS, GATES, LETTERS, LIST_OPERATIONS, OPERATORS, TRUTH
from capgap.microworld.world import STRATA, TOLD, Stratum, World, WorldFact

SHARES = {"people": 0.25, "links": 0.05, "chains": 0.30, "booleans": 0.06, "cups": 0.12, "lists": 0.13, "hops": 0.09}
"""Share of each kind of passage: two facts of one person, links and three lookups, or one statement."""

_FORMS = (0.5, 0.25, 0.25)
"""Share of each wording of a fact."""


def step_tables() -> dict[str, tuple[str, ...]]:
    """Every single step of the families that have finitely many, as statements."""
    chains = (
        f"{value} {operator} {operand} = {step_result(int(value), operator, int(operand))} ;"
        for value, operator, operand in product(DIGITS, OPERATORS, DIGITS[1:])
        if operator != "*" or operand in "379"
    )
    booleans = (
        f"{left} {name} {right} = {TRUTH[not gate(name, left == TRUTH[0], right == TRUTH[0])]} ;"
        for left, name, right in product(TRUTH, GATES, TRUTH)
    )
    cups = (
        f"{cup} swap {first} {second} = {swapped(cup, first, second)} ;"
        for cup, (first, second) in product(CUPS, permutations(CUPS, 2))
    )
    lists = (
        f"{operation} {' '.join(letters)} = {' '.join(rearranged(operation, letters))} ;"
        for operation, letters in product(LIST_OPERATIONS, permutations(LETTERS, 3))
    )
    return {"chains": tuple(chains), "booleans": tuple(booleans), "cups": tuple(cups), "lists": tuple(lists)}


@dataclass(frozen=True)
class PretrainingText:
    """Source of endless text about a world, drawn passage by passage."""

    world: World
    """What is true."""
    strata: tuple[Stratum, ...] = STRATA[:2]
    """The strata of facts that the text tells; the person of a passage is drawn by frequency."""

    @cached_property
    def _people(self) -> tuple[tuple[WorldFact, ...], ...]:
        """The facts of each entity, in the order of the world's entities."""
        by_entity: dict[str, list[WorldFact]] = {entity: [] for entity in self.world.entities}
        for fact in self.world.facts_of(*self.strata):
            by_entity[fact.entity].append(fact)
        return tuple(tuple(facts) for facts in by_entity.values())

    @cached_property
    def _tables(self) -> dict[str, tuple[str, ...]]:
        """Kind → its statements, each as likely as the other."""
        links = {fact.value: self.world.link_statement(fact) for fact in self.world.facts}
        return {"links": tuple(links.values()), **step_tables()}

    def passages(self, n: int, rng: np.random.Generator) -> list[str]:
        """`n` passages in random order, in the shares of `SHARES`."""
        passages: list[str] = []
        for kind, count in zip(SHARES, rng.multinomial(n, list(SHARES.values())), strict=True):
            if kind == "people":
                people = rng.choice(len(self._people), count, p=self.world.frequency)
                passages += [_passage(self._people[i], rng) for i in people]
            elif kind == "hops":
                passages += [_lookups(rng) for _ in range(count)]
            else:
                statements = self._tables[kind]
                passages += [statements[i] for i in rng.integers(len(statements), size=count)]
        return [passages[i] for i in rng.permutation(n)]


def _passage(facts: tuple[WorldFact, ...], rng: np.random.Generator) -> str:
    """Two facts of one person in random order and wording; who has fewer is told of as far as it goes."""
    forms = rng.choice(len(TOLD), 2, p=_FORMS)
    chosen = rng.permutation(len(facts))[:2]
    return " ".join(TOLD[form].format(fact=facts[i]) for i, form in zip(chosen, forms, strict=False))


def _lookups(rng: np.random.Generator) -> str:
    """Five links and three of them again, each a single lookup: never a walk."""
    links = hop_question(1, rng).text.removeprefix("Q ").partition(" ; ")[0]
    repeated = rng.permutation(links.split(" , "))[:3]
    return f"{links} ; {' ; '.join(repeated)} ;"
