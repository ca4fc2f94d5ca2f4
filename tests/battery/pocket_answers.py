"""Answers to the questions of the pocket battery, worked out from their text and the tables of facts alone.

Nothing here is the generator's: Python evaluates expressions, and a formula typed from its wording each word problem.
"""

import csv
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

POCKET = Path(__file__).parents[2] / "batteries" / "pocket"
KNOWLEDGE = ("capitals", "elements", "authors", "dates", "science")
Row = dict[str, Any]

# Typed from the rows of the periodic table, not from facts/elements.tsv; the place in it is the atomic number.
_PERIODIC = (
    "H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr "
    "Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu "
    "Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr"
)
PERIODIC = _PERIODIC.split()


@cache
def facts(name: str) -> list[dict[str, str]]:
    with (POCKET / "facts" / f"{name}.tsv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def listed(cell: str) -> list[str]:
    return [part.strip() for part in cell.split(";") if part.strip()]


def numbers(text: str) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", text)]


def answer_arithmetic(question: str) -> str:
    if match := re.fullmatch(r"What is ([\d+*() -]+)\?", question):
        return str(eval(match[1], {"__builtins__": {}}))
    total, *rest = re.findall(r"(start with|add|subtract|multiply by) (\d+)", question.lower())
    assert total[0] == "start with"
    value = int(total[1])
    for word, number in rest:
        value = {"add": value.__add__, "subtract": value.__sub__, "multiply by": value.__mul__}[word](int(number))
    return str(value)


def answer_swaps(question: str) -> str:
    start, *swaps, asked = re.split(r"(?<=\.) ", question)
    held = dict(re.findall(r"(\w+) (?:has|holds|wears|carries) the (\w+)", start))
    assert len(held) == 4
    for told in swaps:
        a, b = re.fullmatch(r"Then (\w+) and (\w+) (?:swap|trade|exchange|switch) what they \w+\.", told).groups()
        held[a], held[b] = held[b], held[a]
    if match := re.fullmatch(r"Which thing does (\w+) \w+ at the end\?", asked):
        return held[match[1]]
    thing = re.fullmatch(r"Who \w+ the (\w+) at the end\?", asked)[1]
    return next(person for person, has in held.items() if has == thing)


def answer_booleans(question: str) -> str:
    text = re.fullmatch(r"(?:Is|Does) (.*?) (?:True or False|evaluate to True or to False)\?", question)[1]
    assert re.fullmatch(r"(?:\d+|[<>() ]|and|or|not)+", text)
    return str(eval(text, {"__builtins__": {}}))


BELOW = ("shorter", "younger", "slower", "poorer")
LOWEST = ("shortest", "youngest", "slowest", "poorest")


def answer_ordering(question: str) -> str:
    above: dict[str, str] = {}  # from each to the next one down
    for left, word, right in re.findall(r"(\w+) is (\w+) than (\w+)\.", question):
        high, low = (right, left) if word in BELOW else (left, right)
        assert high not in above
        above[high] = low
    (top,) = set(above) - set(above.values())
    order = [top]
    while order[-1] in above:
        order.append(above[order[-1]])
    assert len(order) == len(set(order)) == len(above) + 1
    second, word = re.search(r"Who is the (second )?(\w+)\?", question).groups()
    order = order[::-1] if word in LOWEST else order
    return order[1 if second else 0]


def answer_hops(question: str) -> str:
    after = dict(re.findall(r"The [\w ]+? of (\w+) is (\w+)\.", question))
    assert len(after) == 6
    asked = question.rsplit(". ", 1)[1]
    person = re.search(r"(\w+)\?$", asked)[1]
    for _ in range(asked.count(" of ")):
        person = after[person]
    return person


# The numbers of each wording, in the order in which its text tells them.
FORMULAS: dict[str, Callable[..., float]] = {
    "marbles": lambda has, buys: has + buys,
    "plums": lambda bowl, eaten: bowl - eaten,
    "pencils": lambda box, boxes: box * boxes,
    "cards": lambda cards, friends: cards / friends,
    "ages": lambda age, older: age + older,
    "road": lambda road, walked: road - walked,
    "notebooks": lambda books, price, pen: books * price + pen,
    "stickers": lambda has, first, second: has - (first + second),
    "bus": lambda people, off, on: people + on - off,
    "book": lambda pages, daily, days: pages - days * daily,
    "rolls": lambda trays, each, baskets: trays * each / baskets,
    "wages": lambda first, second, hours: first * hours + second * hours,
    "orchard": lambda rows, each, cut, new: rows * each + new - cut,
    "clothes": lambda shirts, price, hats, cost: shirts * price + hats * cost,
    "coins": lambda a, more, fewer: a + (a + more - fewer),
    "tank": lambda tank, buckets, each, back: tank + back - buckets * each,
    "wagons": lambda wagons, seats, taken, more: wagons * seats - (taken + more),
    "pears": lambda baskets, each, other, bag: (baskets * each + other) / bag,
    "bottles": lambda crates, each, morning, later, new: crates * each + new - (morning + later),
    "earnings": lambda a, pay, b, wage, spent: a * pay + b * wage - spent,
    "beads": lambda a, times, fewer, more: 2 * times * a - fewer + more,
    "theater": lambda rows, each, balcony, broken, sat: rows * each + balcony - (broken + sat),
    "sports": lambda run, days, ride, others, less: run * days + ride * others - less,
    "candles": lambda a, pack, b, other, boxes: (a * pack + b * other) / boxes,
}


def answer_word_problems(question: str, story: str) -> str:
    value = FORMULAS[story](*numbers(question))
    assert value == int(value)
    return str(int(value))


def known_number(question: str) -> tuple[int, str]:
    """The year or atomic number that a question needs, and the question without the words that name it."""
    for fact in sorted(facts("dates"), key=lambda f: -len(f["event"])):
        if f"the year in which {fact['event']}" in question:
            return int(fact["year"]), question.replace(fact["event"], "…")
    name = re.search(r"atomic number of (\w+)", question)[1]
    symbol = next(f["symbol"] for f in facts("elements") if f["element"].lower() == name)
    return PERIODIC.index(symbol) + 1, question


def answer_fact_sums(question: str) -> str:
    known, rest = known_number(question)
    given = numbers(rest)
    if "how many years had passed" in rest:
        return str(given[0] - known)
    if "subtract" in rest and len(given) == 1:
        return str(known - given[0])
    return str(known + given[0] - (given[1] if len(given) == 2 else 0))


def answer_two_hops(question: str) -> str:
    (place,) = [
        f for f in facts("places") if re.search(rf"{re.escape(f['place'])}(?= is found| belongs| lies|\?|\.)", question)
    ]
    return next(f["capital"] for f in facts("capitals") if f["country"] == place["country"])


def answer_knowledge(task: str, question: str) -> str:
    name = task.rsplit("_", 1)[0]
    if name == "elements":
        if "symbol" in question:
            words = set(re.findall(r"\w+", question))
            return next(f["symbol"] for f in facts("elements") if f["element"].lower() in words)
        symbol = PERIODIC[numbers(question)[0] - 1]
        return next(f["element"] for f in facts("elements") if f["symbol"] == symbol)
    asked = {
        "capitals": lambda f: (rf"(?:of|City of) {re.escape(f['country'])}[?.]$", f["capital"]),
        "authors": lambda f: (re.escape(f'{f["kind"]} "{f["title"]}"'), f["author"]),
        "dates": lambda f: (rf"(?:in which|that) {re.escape(f['event'])}[?.]$", f["year"]),
        "science": lambda f: (rf'(?:^|[ "]){re.escape(f["subject"])}(?:[ ".,?]|$)', f["answer"]),
    }[name]
    table = facts({"authors": "works"}.get(name, name))
    marks = {
        "young": "young", "class": "kind of animal", "unit": "SI unit", "bone": "medical", "formula": "formula",
        "study": "study", "like": "adjective", "planet": "planet",
    }  # fmt: skip
    found = [
        answer
        for f in table
        for pattern, answer in [asked(f)]
        if re.search(pattern, question) and ("relation" not in f or marks[f["relation"]] in question)
    ]
    assert found, question
    # Of "electric charge" and "charge" the longer subject is meant; no table has such a pair with two answers.
    assert len(set(found)) == 1 or name == "science", (question, found)
    return found[-1] if len(set(found)) == 1 else _longest(question, table)


def _longest(question: str, table: list[dict[str, str]]) -> str:
    return max((f for f in table if f["subject"] in question), key=lambda f: len(f["subject"]))["answer"]


def worked_out(task: str, row: Row) -> str:
    name = task.rsplit("_", 1)[0]
    if name in KNOWLEDGE:
        return answer_knowledge(task, row["question"])
    if name == "word_problems":
        return answer_word_problems(row["question"], row["cluster"].removeprefix("story: "))
    return globals()[f"answer_{name}"](row["question"])
