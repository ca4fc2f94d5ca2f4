"""Reasoning that needs no fact: arithmetic chains, swaps, booleans, orderings, hops."""

from dataclasses import dataclass
from itertools import pairwise

from draw import NAMES, Draft, Draw


def arithmetic(draw: Draw, index: int) -> Draft:
    """A chain of 1 to 4 operations, told or as an expression."""
    steps = index % 4 + 1
    while True:
        value = start = draw.between(3, 30)
        chain: list[tuple[str, int]] = []
        results = [start]
        for _ in range(steps):
            operator = draw.one("+-*")
            operand = draw.between(2, 6) if operator == "*" else draw.between(2, 30)
            value = {"+": value + operand, "-": value - operand, "*": value * operand}[operator]
            chain.append((operator, operand))
            results.append(value)
        if min(results) > 3 and max(results) < 300:
            break
    lines = [f"{a} {op} {n} = {b}." for a, (op, n), b in zip(results, chain, results[1:], strict=False)]
    asked = _told_chain(start, chain) if index // 4 % 2 else _expression(start, chain)
    return Draft(
        asked,
        str(value),
        key=f"chain {start} {chain}",
        near=(results[-2],) if results[-2] != value else (),
        covariates={"steps": steps},
        rationale=" ".join(lines),
    )


def _told_chain(start: int, chain: list[tuple[str, int]]) -> str:
    words = {"+": "add {}", "-": "subtract {}", "*": "multiply by {}"}
    told = [words[operator].format(operand) for operator, operand in chain]
    return f"Start with {start}, {', then '.join(told)}. What number do you get?"


def _expression(start: int, chain: list[tuple[str, int]]) -> str:
    text = str(start)
    for place, (operator, operand) in enumerate(chain):
        text = f"({text}) {operator} {operand}" if place else f"{text} {operator} {operand}"
    return f"What is {text}?"


SCENES = (
    ("At the start", "has the", "swap what they have", ("apple", "book", "coin", "drum")),
    ("Before the game", "holds the", "trade what they hold", ("ball", "kite", "lamp", "ring")),
    ("In the morning", "wears the", "exchange what they wear", ("cap", "coat", "mask", "scarf")),
    ("At first", "carries the", "switch what they carry", ("bag", "drum", "lamp", "rope")),
)


def swaps(draw: Draw, index: int) -> Draft:
    """Four people, four things, 1 to 4 swaps: who ends with what; half ask for the thing, half for the person."""
    when, verb, swap, things = SCENES[index // 4 % len(SCENES)]
    steps = index % 4 + 1
    people = draw.some(NAMES, 4)
    first = dict(zip(people, draw.shuffled(things), strict=True))
    held, lines, told = dict(first), [], []
    pair: list[str] = []
    for _ in range(steps):
        last = pair
        while set(pair) == set(last):
            pair = draw.some(people, 2)
        a, b = pair
        held[a], held[b] = held[b], held[a]
        told.append(f"{a} and {b} {swap}.")
        lines.append(f"{a} {verb} {held[a]} and {b} {verb} {held[b]}.")
    start = ", ".join(f"{p} {verb} {t}" for p, t in first.items())
    who = draw.one(people)
    text = f"{when} {start}. {' '.join(f'Then {line}' for line in told)}"
    lines.append(f"At the end {who} {verb} {held[who]}.")
    third = verb.split()[0]
    plain = {"has": "have", "holds": "hold", "wears": "wear", "carries": "carry"}[third]
    if index // 16 % 2:
        question, answer, wrong = f"Who {verb} {held[who]} at the end?", who, [p for p in people if p != who]
    else:
        question, answer = f"Which thing does {who} {plain} at the end?", held[who]
        wrong = [t for t in things if t != answer]
    return Draft(
        f"{text} {question}",
        answer,
        key=f"swaps {sorted(first.items())} {told} {question}",
        wrong=tuple(wrong),
        covariates={"steps": steps},
        rationale=" ".join(lines),
        chance=0.25,
    )


@dataclass(frozen=True)
class _Truth:
    text: str
    value: bool
    steps: tuple[str, ...]

    @property
    def inner(self) -> str:
        """As it stands inside a larger expression."""
        return f"({self.text})"


def _comparison(draw: Draw) -> _Truth:
    a, b = draw.some(range(2, 100), 2)
    sign = draw.one("<>")
    value = a < b if sign == "<" else a > b
    return _Truth(f"{a} {sign} {b}", value, (f"({a} {sign} {b}) is {value}.",))


def _logical(draw: Draw, operators: int) -> _Truth:
    if operators == 0:
        return _comparison(draw)
    if draw.below(3) == 0:
        part = _logical(draw, operators - 1)
        return _Truth(f"not {part.inner}", not part.value, (*part.steps, f"not {part.value} is {not part.value}."))
    left_size = draw.below(operators)
    left, right = _logical(draw, left_size), _logical(draw, operators - 1 - left_size)
    word = draw.one(("and", "or"))
    value = (left.value and right.value) if word == "and" else (left.value or right.value)
    line = f"{left.value} {word} {right.value} is {value}."
    return _Truth(f"{left.inner} {word} {right.inner}", value, (*left.steps, *right.steps, line))


def booleans(draw: Draw, index: int) -> Draft:
    """A logical expression over comparisons with 1 to 4 operators; true and false take turns."""
    steps = index % 4 + 1
    wanted = index // 4 % 2 == 0
    while True:
        found = _logical(draw, steps)
        if found.value is wanted:
            break
    template = draw.one(("Is {} True or False?", "Does {} evaluate to True or to False?"))
    return Draft(
        template.format(found.text),
        str(found.value),
        key=f"logic {found.text}",
        wrong=(str(not found.value),),
        covariates={"steps": steps},
        rationale=" ".join(found.steps),
        chance=0.5,
    )


ORDERS = (
    ("taller", "shorter", "tallest", "shortest"),
    ("older", "younger", "oldest", "youngest"),
    ("faster", "slower", "fastest", "slowest"),
    ("richer", "poorer", "richest", "poorest"),
)


def ordering(draw: Draw, index: int) -> Draft:
    """Four to seven people in an order that 3 to 6 comparisons give; who stands first, second or last."""
    steps = index % 4 + 3
    more, less, most, least = ORDERS[index // 4 % len(ORDERS)]
    people = draw.some(NAMES, steps + 1)
    told = []
    for high, low in pairwise(people):
        told.append(f"{high} is {more} than {low}." if draw.below(2) else f"{low} is {less} than {high}.")
    place, word = draw.one(((0, most), (1, f"second {most}"), (-1, least), (-2, f"second {least}")))
    wrong = draw.some([p for p in people if p != people[place]], 3)
    return Draft(
        f"{' '.join(draw.shuffled(told))} Who is the {word}?",
        people[place],
        key=f"order {people} {more} {place} {sorted(told)}",
        wrong=tuple(wrong),
        covariates={"steps": steps},
        rationale=f"From {most} to {least}: {', '.join(people)}.",
        chance=round(1 / (steps + 1), 4),
    )


TIES = ("manager", "tutor", "pen pal", "coach")


def hops(draw: Draw, index: int) -> Draft:
    """Six facts of the prompt and 1 to 4 hops from person to person over them."""
    steps = index % 4 + 1
    tie = TIES[index // 4 % len(TIES)]
    people = draw.some(NAMES, 6)
    # One circle through all six: no hop comes home before the sixth.
    after = dict(zip(people, [*people[1:], people[0]], strict=True))
    told = [f"The {tie} of {a} is {b}." for a, b in draw.shuffled(list(after.items()))]
    asked = people[0]
    path = people[: steps + 1]
    question = f"Who is the {f'{tie} of the ' * (steps - 1)}{tie} of {asked}?"
    wrong = draw.some([p for p in people if p not in (path[-1], asked)], 3)
    return Draft(
        f"{' '.join(told)} {question}",
        path[-1],
        key=f"hops {tie} {people} {steps}",
        wrong=tuple(wrong),
        covariates={"steps": steps},
        rationale=" ".join(f"The {tie} of {a} is {b}." for a, b in pairwise(path)),
        chance=0.2,
    )
