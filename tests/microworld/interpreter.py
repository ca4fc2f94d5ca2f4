"""A second reading of the language, written from its description alone: the answer to a question's text.

It shares nothing with the generator but the facts, which it reads from statements.
"""

from collections.abc import Iterable


def memory(statements: Iterable[str]) -> dict[tuple[str, str], str]:
    """(relation, subject) → value, out of statements like ``city of bodo is zelburg ;``."""
    told = {}
    for statement in statements:
        relation, of, subject, verb, value, end = statement.split()
        assert (of, verb, end) == ("of", "is", ";")
        assert told.get((relation, subject), value) == value, "two values for one thing"
        told[relation, subject] = value
    return told


def answer(text: str, told: dict[tuple[str, str], str]) -> str:
    """The answer to a question."""
    first, *words, last = text.split()
    assert (first, last) == ("Q", "?")
    if words[0] == "ball":
        return _ball(words)
    if "," in words:
        return _walk(words)
    if words[-1] in ("first", "last"):
        return _list(words)
    if words[0].isdigit():
        return _arithmetic(words)
    if words[0] in ("true", "false"):
        return _logic(words)
    return _recall([word for word in words if word not in ("name", "is", "of")], told)


def _recall(words: list[str], told: dict[tuple[str, str], str]) -> str:
    subject = words.pop()
    while words:
        subject = told[words.pop(), subject]
    return subject


def _arithmetic(words: list[str]) -> str:
    expression = words[0]
    for operator, operand in zip(words[1::2], words[2::2], strict=True):
        expression = f"(({expression}) {operator} {operand})"
    return str(eval(expression) % 10)  # digits and three operators, as the split above has seen


def _logic(words: list[str]) -> str:
    # a gate by the inputs, of (false false, false true, true false, true true), for which it is true
    tables = {"and": "0001", "or": "0111", "xor": "0110", "nand": "1110", "nor": "1000", "iff": "1001"}
    value = words[0] == "true"
    for name, operand in zip(words[1::2], words[2::2], strict=True):
        value = tables[name][2 * value + (operand == "true")] == "1"
    return "true" if value else "false"


def _ball(words: list[str]) -> str:
    cups = dict.fromkeys("abcde", "")
    cups[words[1]] = "ball"
    for swap, one, other in zip(words[2::3], words[3::3], words[4::3], strict=True):
        assert swap == "swap"
        cups[one], cups[other] = cups[other], cups[one]
    return next(cup for cup, content in cups.items() if content)


def _list(words: list[str]) -> str:
    letters, operations, end = words[:3], words[3:-1], words[-1]
    for operation in operations:
        if operation == "reverse":
            letters = letters[::-1]
        elif operation == "rotate":
            letters = letters[1:] + letters[:1]
        else:
            assert operation == "flip"
            letters = [letters[1], letters[0], letters[2]]
    return letters[0 if end == "first" else 2]


def _walk(words: list[str]) -> str:
    links, _, route = " ".join(words).partition(" ; ")
    after = dict(link.split() for link in links.split(" , "))
    assert len(after) == 5
    _, node, _, hops = route.split()
    for _ in range(int(hops)):
        node = after[node]
    return node
