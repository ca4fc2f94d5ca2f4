"""Random expressions, strings and programs for exercises: what a list of words cannot hold."""

import random
from collections.abc import Callable

_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def _random_arithmetic(rng: random.Random, depth: int = 2) -> str:
    """A sum in two to six numbers."""
    if depth == 0 or rng.random() < 0.3:
        return str(rng.randint(1, 40))
    operation_text = f"{_random_arithmetic(rng, depth - 1)} {rng.choice('+-*')} {_random_arithmetic(rng, depth - 1)}"
    return f"({operation_text})" if rng.random() < 0.4 else operation_text


def _at_least_two(rng: random.Random) -> str:
    expression = _random_arithmetic(rng)
    return expression if " " in expression else f"{expression} {rng.choice('+-*/')} {rng.randint(2, 40)}"


def _boolean(rng: random.Random, operands: tuple[str, ...], depth: int = 2) -> str:
    """A formula over the atoms."""
    if depth == 0:
        return rng.choice(operands)
    kind = rng.random()
    if kind < 0.25:
        return f"not {_boolean(rng, operands, depth - 1)}"
    return f"({_boolean(rng, operands, depth - 1)} {rng.choice(['and', 'or'])} {_boolean(rng, operands, depth - 1)})"


def _random_brackets(rng: random.Random) -> str:
    pairs = [("(", ")"), ("[", "]"), ("{", "}"), ("<", ">")]
    text = ""
    for _ in range(rng.randint(3, 7)):
        opening_bracket, closing_bracket = rng.choice(pairs)
        text += opening_bracket + (closing_bracket if rng.random() < 0.4 else "")
    separator = " " if rng.random() < 0.5 else ""
    return separator.join(text)


def _program_source(rng: random.Random) -> str:
    """A few lines of a program in one of four styles."""
    a, b, n = rng.randint(1, 9), rng.randint(2, 9), rng.randint(2, 6)
    styles = (
        f"x = {a}\nfor i in range({n}):\n    x = x * 2 - i\nprint(x)",
        f'int x = {a};\nwhile (x < {a * b * n}) {{\n  x += {b};\n}}\nprintf("%d", x);',
        f"let x = {a}, y = {b};\nif (x > y) {{ x = x - y; }} else {{ y = y - x; }}\nconsole.log(x + y);",
        f"x = [{a}, {b}, {n}]\nx.append(x[0] + x[1])\nx = sum(x[1:])\nprint(x)",
    )
    return styles[rng.randrange(len(styles))]


def _function_source(rng: random.Random) -> str:
    a, b = rng.randint(1, 5), rng.randint(2, 9)
    if rng.random() < 0.5:
        return f"def f(n):\n    if n < {a}:\n        return {b}\n    return f(n - 1) + n"
    return (
        f"def f(n):\n    total = {b}\n    while n > 0:\n        total += n % 2\n        n //= 2\n    return total * {a}"
    )


def _random_letters(rng: random.Random) -> str:
    return "".join(rng.sample(_LETTERS, rng.randint(5, 8)))


def _join_random_separator(rng: random.Random, texts_to_join: list[str]) -> str:
    return rng.choice([", ", ", ", " "]).join(texts_to_join)


TEXT_GENERATORS: dict[str, Callable[[random.Random], str]] = {
    "expr": _at_least_two,
    "boolean": lambda rng: _boolean(rng, ("True", "False")),
    "boolpq": lambda rng: _boolean(rng, ("p", "q", "r")),
    "brackets": _random_brackets,
    "bits": lambda rng: "".join(rng.choice("01") for _ in range(rng.randint(4, 8))),
    "numbers": lambda rng: _join_random_separator(rng, [str(rng.randint(1, 99)) for _ in range(rng.randint(4, 8))]),
    "letters": lambda rng: _join_random_separator(rng, [rng.choice(_LETTERS) for _ in range(rng.randint(5, 9))]),
    "scrambled": _random_letters,
    "code": _program_source,
    "function": _function_source,
}
