"""Questions of the microworld: seven families, each with its rule, its steps and its answer.

The reasoning families are content-free: everything that an answer needs stands in the question. Wherever the rule
allows it, each step is a permutation of the possible states, so that nothing short of going through all steps beats
the declared chance.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from capgap.microworld.vocabulary import ANSWER, CUPS, DIGITS, GATES, LETTERS, LIST_OPERATIONS, NODES, OPERATORS, TRUTH
from capgap.microworld.world import LINKS, World, WorldFact


@dataclass(frozen=True)
class WorldQuestion:
    """One question with its answer, the steps to it, and what is known of it."""

    family: str
    """A key of `FAMILIES`."""
    text: str
    """From ``Q`` to ``?``; a generated response follows it, a chosen answer follows it and ``A``."""
    answer: str
    """One word."""
    choices: tuple[str, ...]
    """The answer and wrong ones, in random order."""
    steps: tuple[str, ...]
    """The gold rationale, each step a statement that ends with ``;``."""
    depth: int
    """How many steps the rule takes."""
    fact: WorldFact | None = None
    """The memorised fact that it begins with; None where all stands in the question."""

    @property
    def rationale(self) -> str:
        """The steps in a row."""
        return " ".join(self.steps)

    @property
    def completion(self) -> str:
        """The completion of a right answer with its rationale: steps, ``A``, the answer."""
        return f"{self.rationale} {ANSWER} {self.answer}"


@dataclass(frozen=True)
class QuestionFamily:
    """A kind of question."""

    capability: Literal["knowledge", "reasoning", "mixed"]
    """What it asks for, by construction."""
    domain: str
    """What it is about."""
    chance: float
    """Share of right answers of a guess among the answers that the form of the question allows."""
    depths: tuple[int, ...]
    """The depths that it comes in."""
    draw: Callable[[World, int, np.random.Generator], WorldQuestion]
    """A random question of a depth."""


FORMS = ("Q {relation} of {entity} ?", "Q name {relation} of {entity} ?", "Q {relation} of {entity} is ?")
"""Three wordings of a fact question: a fact may be asked in training and, worded otherwise, in evaluation."""


def fact_question(world: World, fact: WorldFact, form: str, rng: np.random.Generator) -> WorldQuestion:
    """The question for a fact in one of the wordings of `FORMS`; `rng` draws the wrong choices."""
    text = form.format(relation=fact.relation, entity=fact.entity)
    choices = _choices(fact.value, world.values[fact.relation], 4, rng)
    return WorldQuestion("facts", text, fact.value, choices, (fact.statement,), 1, fact)


def two_hop_question(world: World, fact: WorldFact, rng: np.random.Generator) -> WorldQuestion:
    """The question for what is told of a fact's value, where the value itself is not named."""
    word = LINKS[fact.relation][0]
    answer = world.links[fact.value]
    text = f"Q {word} of {fact.relation} of {fact.entity} ?"
    steps = (fact.statement, world.link_statement(fact))
    return WorldQuestion("two_hops", text, answer, _choices(answer, world.values[word], 4, rng), steps, 2, fact)


def step_result(value: int, operator: str, operand: int) -> int:
    """One step of arithmetic modulo ten."""
    return {"+": value + operand, "-": value - operand, "*": value * operand}[operator] % 10


def gate(name: str, left: bool, right: bool) -> bool:
    """One step of a boolean expression."""
    table = {"and": left and right, "or": left or right, "xor": left != right}
    opposite = {"nand": "and", "nor": "or", "iff": "xor"}
    return not table[opposite[name]] if name in opposite else table[name]


def swapped(cup: str, first: str, second: str) -> str:
    """The cup that a ball is in after two cups changed places."""
    return {first: second, second: first}.get(cup, cup)


def rearranged(operation: str, letters: Sequence[str]) -> tuple[str, ...]:
    """A list after one operation: reverse it, move its first to the end, or exchange its first two."""
    first, second, *rest = letters
    return {
        "reverse": tuple(reversed(letters)),
        "rotate": (second, *rest, first),
        "flip": (second, first, *rest),
    }[operation]


def _choices(answer: str, options: Sequence[str], n: int, rng: np.random.Generator) -> tuple[str, ...]:
    wrong = [option for option in options if option != answer]
    drawn = [wrong[i] for i in rng.permutation(len(wrong))[: n - 1]]
    drawn.insert(int(rng.integers(n)), answer)
    return tuple(drawn)


def _facts(world: World, depth: int, rng: np.random.Generator) -> WorldQuestion:
    return fact_question(world, _fact(world, rng), FORMS[rng.integers(len(FORMS))], rng)


def _two_hops(world: World, depth: int, rng: np.random.Generator) -> WorldQuestion:
    return two_hop_question(world, _fact(world, rng), rng)


def _fact(world: World, rng: np.random.Generator) -> WorldFact:
    return world.facts[rng.integers(len(world.facts))]


def _chains(world: World, depth: int, rng: np.random.Generator) -> WorldQuestion:
    value = int(rng.integers(10))
    text, steps = f"Q {value}", []
    for _ in range(depth):
        operator = OPERATORS[rng.integers(3)]
        # 3, 7 and 9 have an inverse modulo ten: the last factor alone tells nothing about the product
        operand = (3, 7, 9)[rng.integers(3)] if operator == "*" else int(rng.integers(1, 10))
        result = step_result(value, operator, operand)
        text += f" {operator} {operand}"
        steps.append(f"{value} {operator} {operand} = {result} ;")
        value = result
    answer = str(value)
    return WorldQuestion("chains", f"{text} ?", answer, _choices(answer, DIGITS, 4, rng), tuple(steps), depth)


def _booleans(world: World, depth: int, rng: np.random.Generator) -> WorldQuestion:
    value = bool(rng.integers(2))
    text, steps = f"Q {_truth(value)}", []
    for place in range(depth):
        name, operand = GATES[rng.integers(len(GATES))], bool(rng.integers(2))
        while place == depth - 1 and gate(name, True, operand) == gate(name, False, operand):
            # the last gate must leave both answers open, else it gives the answer away
            name, operand = GATES[rng.integers(len(GATES))], bool(rng.integers(2))
        result = gate(name, value, operand)
        text += f" {name} {_truth(operand)}"
        steps.append(f"{_truth(value)} {name} {_truth(operand)} = {_truth(result)} ;")
        value = result
    answer = _truth(value)
    return WorldQuestion("booleans", f"{text} ?", answer, _choices(answer, TRUTH, 2, rng), tuple(steps), depth)


def _truth(value: bool) -> str:
    return TRUTH[0] if value else TRUTH[1]


def _cups(world: World, depth: int, rng: np.random.Generator) -> WorldQuestion:
    start, end = rng.integers(len(CUPS), size=2)
    while True:  # the end is drawn first, so that a ball is no likelier where it was than anywhere else
        first = rng.integers(len(CUPS), size=depth)
        second = (first + rng.integers(1, len(CUPS), size=depth)) % len(CUPS)
        swaps = [(CUPS[i], CUPS[j]) for i, j in zip(first, second, strict=True)]
        path = [CUPS[start]]
        for pair in swaps:
            path.append(swapped(path[-1], *pair))
        if path[-1] == CUPS[end]:
            break
    text = " ".join(f"swap {first_cup} {second_cup}" for first_cup, second_cup in swaps)
    steps = tuple(
        f"{before} swap {first_cup} {second_cup} = {after} ;"
        for before, after, (first_cup, second_cup) in zip(path, path[1:], swaps, strict=False)
    )
    choices = _choices(path[-1], CUPS, 4, rng)
    return WorldQuestion("cups", f"Q ball {path[0]} {text} ?", path[-1], choices, steps, depth)


def _lists(world: World, depth: int, rng: np.random.Generator) -> WorldQuestion:
    letters = tuple(LETTERS[i] for i in rng.permutation(len(LETTERS))[:3])
    text, steps = f"Q {' '.join(letters)}", []
    options = letters
    for _ in range(depth):
        operation = LIST_OPERATIONS[rng.integers(len(LIST_OPERATIONS))]
        after = rearranged(operation, letters)
        text += f" {operation}"
        steps.append(f"{operation} {' '.join(letters)} = {' '.join(after)} ;")
        letters = after
    end = ("first", "last")[rng.integers(2)]
    answer = letters[0] if end == "first" else letters[-1]
    return WorldQuestion("lists", f"{text} {end} ?", answer, _choices(answer, options, 3, rng), tuple(steps), depth)


def hop_question(depth: int, rng: np.random.Generator) -> WorldQuestion:
    """A walk of `depth` links over the five links of a path, which the question shows in random order."""
    path = [NODES[i] for i in rng.permutation(len(NODES))[:6]]
    shown = [f"{path[i]} {path[i + 1]}" for i in rng.permutation(5)]
    start = int(rng.integers(6 - depth))
    steps = tuple(f"{path[i]} {path[i + 1]} ;" for i in range(start, start + depth))
    text = f"Q {' , '.join(shown)} ; from {path[start]} hops {depth} ?"
    answer = path[start + depth]
    options = [node for node in path[1:] if node != path[start]]
    return WorldQuestion("hops", text, answer, _choices(answer, options, 4, rng), steps, depth)


FAMILIES: dict[str, QuestionFamily] = {
    "facts": QuestionFamily("knowledge", "people", 1 / 30, (1,), _facts),
    "two_hops": QuestionFamily("mixed", "people", 1 / 10, (2,), _two_hops),
    "chains": QuestionFamily("reasoning", "arithmetic", 1 / 10, (1, 2, 3, 4, 5, 6), _chains),
    "booleans": QuestionFamily("reasoning", "logic", 1 / 2, (1, 2, 3, 4, 5, 6), _booleans),
    "cups": QuestionFamily("reasoning", "state", 1 / 5, (1, 2, 3, 4, 5), _cups),
    "lists": QuestionFamily("reasoning", "lists", 1 / 3, (1, 2, 3, 4), _lists),
    "hops": QuestionFamily(
        "reasoning", "graphs", 1 / 5, (1, 2, 3, 4), lambda world, depth, rng: hop_question(depth, rng)
    ),
}
