"""Pretraining text of a base model: facts and single steps as statements, in the wording that rationales use."""

from dataclasses import dataclass
from functools import cached_property
from itertools import permutations, product

import numpy as np

from capgap.microworld.questions import apply_gate, ball_cup_after_swap, hop_question, rearrange_list, step_result
from capgap.microworld.vocabulary import BOOLS, CUPS, DIGITS, GATES, LETTERS, LIST_OPERATIONS, OPERATORS
from capgap.microworld.world import FACT_WORDINGS, STRATA, FactStratum, World, WorldFact

TEXT_MIX = {"people": 0.25, "links": 0.05, "chains": 0.30, "booleans": 0.06, "cups": 0.12, "lists": 0.13, "hops": 0.09}
"""Share of each kind of passage: two facts of one person, links and three lookups, or one statement."""

_FACT_WORDING_SHARES = (0.5, 0.25, 0.25)
"""Share of each wording of a fact."""


def enumerate_steps() -> dict[str, tuple[str, ...]]:
    """Every single step of the families that have finitely many, as statements."""
    chain_steps = (
        f"{value} {operator} {operand} = {step_result(int(value), operator, int(operand))} ;"
        for value, operator, operand in product(DIGITS, OPERATORS, DIGITS[1:])
        if operator != "*" or operand in "379"
    )
    booleans = (
        f"{left_arg} {name} {right_arg} = {BOOLS[not apply_gate(name, left_arg == BOOLS[0], right_arg == BOOLS[0])]} ;"
        for left_arg, name, right_arg in product(BOOLS, GATES, BOOLS)
    )
    cups = (
        f"{ball_cup} swap {first_cup} {second_cup} = {ball_cup_after_swap(ball_cup, first_cup, second_cup)} ;"
        for ball_cup, (first_cup, second_cup) in product(CUPS, permutations(CUPS, 2))
    )
    list_steps = (
        f"{operation} {' '.join(letters)} = {' '.join(rearrange_list(operation, letters))} ;"
        for operation, letters in product(LIST_OPERATIONS, permutations(LETTERS, 3))
    )
    return {"chains": tuple(chain_steps), "booleans": tuple(booleans), "cups": tuple(cups), "lists": tuple(list_steps)}


@dataclass(frozen=True)
class PretrainingText:
    """Source of endless text about a world, drawn passage by passage."""

    world: World
    """What is true."""
    strata: tuple[FactStratum, ...] = STRATA[:2]
    """The strata of facts that the text tells; the person of a passage is drawn by frequency."""

    @cached_property
    def _facts_by_entity(self) -> tuple[tuple[WorldFact, ...], ...]:
        """The facts of each entity, in the order of the world's entities."""
        by_entity: dict[str, list[WorldFact]] = {entity: [] for entity in self.world.entity_names}
        for fact in self.world.facts_in_strata(*self.strata):
            by_entity[fact.entity].append(fact)
        return tuple(tuple(facts) for facts in by_entity.values())

    @cached_property
    def _statements_by_kind(self) -> dict[str, tuple[str, ...]]:
        """Kind → its statements, each as likely as the other."""
        links = {fact.value: self.world.link_statement(fact) for fact in self.world.facts}
        return {"links": tuple(links.values()), **enumerate_steps()}

    def draw_passages(self, n: int, rng: np.random.Generator) -> list[str]:
        """`n` passages in random order, in the shares of `TEXT_MIX`."""
        drawn_passages: list[str] = []
        for kind, count in zip(TEXT_MIX, rng.multinomial(n, list(TEXT_MIX.values())), strict=True):
            if kind == "people":
                entity_indices = rng.choice(len(self._facts_by_entity), count, p=self.world.entity_frequencies)
                drawn_passages += [_draw_fact_passage(self._facts_by_entity[i], rng) for i in entity_indices]
            elif kind == "hops":
                drawn_passages += [_draw_hop_link_passage(rng) for _ in range(count)]
            else:
                kind_statements = self._statements_by_kind[kind]
                drawn_passages += [kind_statements[i] for i in rng.integers(len(kind_statements), size=count)]
        return [drawn_passages[i] for i in rng.permutation(n)]


def _draw_fact_passage(facts: tuple[WorldFact, ...], rng: np.random.Generator) -> str:
    """Two facts of one person in random order and wording; who has fewer is told of as far as it goes."""
    wording_indices = rng.choice(len(FACT_WORDINGS), 2, p=_FACT_WORDING_SHARES)
    chosen = rng.permutation(len(facts))[:2]
    return " ".join(FACT_WORDINGS[form].format(fact=facts[i]) for i, form in zip(chosen, wording_indices, strict=False))


def _draw_hop_link_passage(rng: np.random.Generator) -> str:
    """Five links and three of them again, each a single lookup: never a walk."""
    links = hop_question(1, rng).text.removeprefix("Q ").partition(" ; ")[0]
    repeated = rng.permutation(links.split(" , "))[:3]
    return f"{links} ; {' ; '.join(repeated)} ;"
