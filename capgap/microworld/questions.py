"""Questions of the microworld: seven families, each with its rule, its steps and its answer.

The reasoning families are content-free: everything that an answer needs stands in the question. Wherever the rule
allows it, each step is a permutation of the possible states, so that nothing short of going through all steps beats
the declared chance.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from capgap.microworld.vocabulary import ANSWER, BOOLS, CUPS, DIGITS, GATES, LETTERS, LIST_OPERATIONS, NODES, OPERATORS
from capgap.microworld.world import SECOND_HOP_LINKS, World, WorldFact


@dataclass(frozen=True)
class WorldQuestion:
    """One question with its answer, the steps to it, and what is known of it."""

    family: str
    """A key of `Q_FAMILIES`."""
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
class QuestionFamilySpec:
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


FACT_QUERIES = ("Q {relation} of {entity} ?", "Q name {relation} of {entity} ?", "Q {relation} of {entity} is ?")
"""Three wordings of a fact question: a fact may be asked in training and, worded otherwise, in evaluation."""


def fact_question(microworld: World, fact: WorldFact, form: str, rng: np.random.Generator) -> WorldQuestion:
    """The question for a fact in one of the wordings of `FACT_QUERIES`; `rng` draws the wrong choices."""
    text = form.format(relation=fact.relation, entity=fact.entity)
    choices = _choices(fact.value, microworld.values[fact.relation], 4, rng)
    return WorldQuestion("facts", text, fact.value, choices, (fact.statement,), 1, fact)


def two_hop_question(microworld: World, fact: WorldFact, rng: np.random.Generator) -> WorldQuestion:
    """The question for what is told of a fact's value, where the value itself is not named."""
    word = SECOND_HOP_LINKS[fact.relation][0]
    answer = microworld.links[fact.value]
    text = f"Q {word} of {fact.relation} of {fact.entity} ?"
    steps = (fact.statement, microworld.link_statement(fact))
    return WorldQuestion("two_hops", text, answer, _choices(answer, microworld.values[word], 4, rng), steps, 2, fact)


def step_result(value: int, operator: str, operand: int) -> int:
    """One step of arithmetic modulo ten."""
    return {"+": value + operand, "-": value - operand, "*": value * operand}[operator] % 10


def apply_gate(name: str, left_bool: bool, right_bool: bool) -> bool:
    """One step of a boolean expression."""
    table = {"and": left_bool and right_bool, "or": left_bool or right_bool, "xor": left_bool != right_bool}
    negated_gates = {"nand": "and", "nor": "or", "iff": "xor"}
    return not table[negated_gates[name]] if name in negated_gates else table[name]


def ball_cup_after_swap(ball_cup: str, first_cup: str, second_cup: str) -> str:
    """The cup that a ball is in after two cups changed places."""
    return {first_cup: second_cup, second_cup: first_cup}.get(ball_cup, ball_cup)


def rearrange_list(operation: str, letters: Sequence[str]) -> tuple[str, ...]:
    """A list after one operation: reverse it, move its first to the end, or exchange its first two."""
    first_letter, second_letter, *remaining_letters = letters
    return {
        "reverse": tuple(reversed(letters)),
        "rotate": (second_letter, *remaining_letters, first_letter),
        "flip": (second_letter, first_letter, *remaining_letters),
    }[operation]


def _choices(answer: str, options: Sequence[str], n: int, rng: np.random.Generator) -> tuple[str, ...]:
    wrong_options = [option for option in options if option != answer]
    choices = [wrong_options[i] for i in rng.permutation(len(wrong_options))[: n - 1]]
    choices.insert(int(rng.integers(n)), answer)
    return tuple(choices)


def _draw_fact_question(microworld: World, depth: int, rng: np.random.Generator) -> WorldQuestion:
    return fact_question(microworld, _draw_fact(microworld, rng), FACT_QUERIES[rng.integers(len(FACT_QUERIES))], rng)


def _two_hops(microworld: World, depth: int, rng: np.random.Generator) -> WorldQuestion:
    return two_hop_question(microworld, _draw_fact(microworld, rng), rng)


def _draw_fact(microworld: World, rng: np.random.Generator) -> WorldFact:
    return microworld.facts[rng.integers(len(microworld.facts))]


def _chain_question(microworld: World, depth: int, rng: np.random.Generator) -> WorldQuestion:
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


def _boolean_question(microworld: World, depth: int, rng: np.random.Generator) -> WorldQuestion:
    value = bool(rng.integers(2))
    text, steps = f"Q {_bool_word(value)}", []
    for step_index in range(depth):
        name, operand = GATES[rng.integers(len(GATES))], bool(rng.integers(2))
        while step_index == depth - 1 and apply_gate(name, True, operand) == apply_gate(name, False, operand):
            # the last gate must leave both answers open, else it gives the answer away
            name, operand = GATES[rng.integers(len(GATES))], bool(rng.integers(2))
        result = apply_gate(name, value, operand)
        text += f" {name} {_bool_word(operand)}"
        steps.append(f"{_bool_word(value)} {name} {_bool_word(operand)} = {_bool_word(result)} ;")
        value = result
    answer = _bool_word(value)
    return WorldQuestion("booleans", f"{text} ?", answer, _choices(answer, BOOLS, 2, rng), tuple(steps), depth)


def _bool_word(value: bool) -> str:
    return BOOLS[0] if value else BOOLS[1]


def _cup_question(microworld: World, depth: int, rng: np.random.Generator) -> WorldQuestion:
    start, end = rng.integers(len(CUPS), size=2)
    while True:  # the end is drawn first, so that a ball is no likelier where it was than anywhere else
        first_cup_indices = rng.integers(len(CUPS), size=depth)
        second_cup_indices = (first_cup_indices + rng.integers(1, len(CUPS), size=depth)) % len(CUPS)
        cup_swaps = [(CUPS[i], CUPS[j]) for i, j in zip(first_cup_indices, second_cup_indices, strict=True)]
        path = [CUPS[start]]
        for pair in cup_swaps:
            path.append(ball_cup_after_swap(path[-1], *pair))
        if path[-1] == CUPS[end]:
            break
    text = " ".join(f"swap {first_cup} {second_cup}" for first_cup, second_cup in cup_swaps)
    steps = tuple(
        f"{ball_cup_before} swap {first_cup} {second_cup} = {ball_cup_after} ;"
        for ball_cup_before, ball_cup_after, (first_cup, second_cup) in zip(path, path[1:], cup_swaps, strict=False)
    )
    choices = _choices(path[-1], CUPS, 4, rng)
    return WorldQuestion("cups", f"Q ball {path[0]} {text} ?", path[-1], choices, steps, depth)


def _list_question(microworld: World, depth: int, rng: np.random.Generator) -> WorldQuestion:
    letters = tuple(LETTERS[i] for i in rng.permutation(len(LETTERS))[:3])
    text, steps = f"Q {' '.join(letters)}", []
    options = letters
    for _ in range(depth):
        operation = LIST_OPERATIONS[rng.integers(len(LIST_OPERATIONS))]
        rearranged_letters = rearrange_list(operation, letters)
        text += f" {operation}"
        steps.append(f"{operation} {' '.join(letters)} = {' '.join(rearranged_letters)} ;")
        letters = rearranged_letters
    end = ("first", "last")[rng.integers(2)]
    answer = letters[0] if end == "first" else letters[-1]
    return WorldQuestion("lists", f"{text} {end} ?", answer, _choices(answer, options, 3, rng), tuple(steps), depth)


def hop_question(depth: int, rng: np.random.Generator) -> WorldQuestion:
    """A walk of `depth` links over the five links of a path, which the question shows in random order."""
    path = [NODES[i] for i in rng.permutation(len(NODES))[:6]]
    shuffled_links = [f"{path[i]} {path[i + 1]}" for i in rng.permutation(5)]
    start = int(rng.integers(6 - depth))
    steps = tuple(f"{path[i]} {path[i + 1]} ;" for i in range(start, start + depth))
    text = f"Q {' , '.join(shuffled_links)} ; from {path[start]} hops {depth} ?"
    answer = path[start + depth]
    options = [node for node in path[1:] if node != path[start]]
    return WorldQuestion("hops", text, answer, _choices(answer, options, 4, rng), steps, depth)


Q_FAMILIES: dict[str, QuestionFamilySpec] = {
    "facts": QuestionFamilySpec("knowledge", "people", 1 / 30, (1,), _draw_fact_question),
    "two_hops": QuestionFamilySpec("mixed", "people", 1 / 10, (2,), _two_hops),
    "chains": QuestionFamilySpec("reasoning", "arithmetic", 1 / 10, (1, 2, 3, 4, 5, 6), _chain_question),
    "booleans": QuestionFamilySpec("reasoning", "logic", 1 / 2, (1, 2, 3, 4, 5, 6), _boolean_question),
    "cups": QuestionFamilySpec("reasoning", "state", 1 / 5, (1, 2, 3, 4, 5), _cup_question),
    "lists": QuestionFamilySpec("reasoning", "lists", 1 / 3, (1, 2, 3, 4), _list_question),
    "hops": QuestionFamilySpec(
        "reasoning", "graphs", 1 / 5, (1, 2, 3, 4), lambda world, depth, rng: hop_question(depth, rng)
    ),
}
