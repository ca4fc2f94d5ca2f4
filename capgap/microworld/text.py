"""What a base model reads: facts and single steps as statements, in the wording that rationales use."""

from dataclasses import dataclass
from functools import cached_property
from itertools import permutations, product

import numpy as np

from capgap.microworld.questions import gate, hop_question, rearranged, step_result
from capgap.microworld.words import CUPS, DIGITS, GATES, LETTERS, LIST_OPERATIONS, OPERATORS, TRUTH
from capgap.microworld.world import STRATA, Stratum, World

__all__ = ["SHARES", "Text", "step_tables"]

SHARES = {"facts": 0.50, "links": 0.08, "chains": 0.14, "booleans": 0.04, "cups": 0.08, "lists": 0.08, "hops": 0.08}
"""Share of each kind of statement."""


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
        f"{cup} swap {one} {other} = {({one: other, other: one}).get(cup, cup)} ;"
        for cup, (one, other) in product(CUPS, permutations(CUPS, 2))
    )
    lists = (
        f"{operation} {' '.join(letters)} = {' '.join(rearranged(operation, letters))} ;"
        for operation, letters in product(LIST_OPERATIONS, permutations(LETTERS, 3))
    )
    return {"chains": tuple(chains), "booleans": tuple(booleans), "cups": tuple(cups), "lists": tuple(lists)}


@dataclass(frozen=True)
class Text:
    """An endless text about a world."""

    world: World
    """What is true."""
    strata: tuple[Stratum, ...] = STRATA[:2]
    """The strata of facts that the text tells; the entity of a fact is drawn by frequency."""

    @cached_property
    def _tables(self) -> dict[str, tuple[tuple[str, ...], np.ndarray | None]]:
        """Kind → its statements, and the share of each where they are not equally frequent."""
        facts = [fact for fact in self.world.facts if fact.stratum in self.strata]
        rank = {entity: i for i, entity in enumerate(self.world.entities)}
        weight = self.world.frequency[[rank[fact.entity] for fact in facts]]
        told = {fact.value: self.world.link_statement(fact) for fact in self.world.facts}
        tables: dict[str, tuple[tuple[str, ...], np.ndarray | None]] = {
            "facts": (tuple(fact.statement for fact in facts), weight / weight.sum()),
            "links": (tuple(told.values()), None),
        }
        return tables | {family: (steps, None) for family, steps in step_tables().items()}

    def statements(self, n: int, rng: np.random.Generator) -> list[str]:
        """`n` statements in random order, in the shares of `SHARES`."""
        counts = rng.multinomial(n, list(SHARES.values()))
        out: list[str] = []
        for kind, count in zip(SHARES, counts, strict=True):
            if kind == "hops":
                out += [_hop_statement(rng) for _ in range(count)]
            else:
                told, shares = self._tables[kind]
                out += [told[i] for i in rng.choice(len(told), count, p=shares)]
        return [out[i] for i in rng.permutation(n)]


def _hop_statement(rng: np.random.Generator) -> str:
    """Links and one step over them: a single lookup, never a walk."""
    question = hop_question(1, rng)
    shown = question.text.removeprefix("Q ").partition(" ; ")[0]
    return f"{shown} ; {question.rationale}"
