r"""Exercises of capgap's own: many small kinds of items, so that topics and turns of phrase do not decide.

They only help to fit. Each kind names the measured families that are like it (`kin`) and is left out with them.

The two text files beside this module are lines of

* ``@pool: word, word, ...``: words to draw from;
* ``== name | knowledge`` or ``== name | reasoning | kin, kin``: a kind begins;
* an item: a text, and behind ``||`` its choices, separated by `` | ``. A slot ``{pool}`` is a word that no other slot
  of the item has, ``{pool.1}`` the same word wherever it stands, ``{3-20}`` a number, ``{red|blue}`` one of these, and
  ``{expr}``, ``{code}`` and the other names in `made` something that is made up. ``\n`` is the end of a line.
"""

import random
import re
from functools import cache
from pathlib import Path

from capgap.classification.corpus import ItemFamily
from capgap.classification.evidence import ItemText
from capgap.classification.exercises.made import TEXT_GENERATORS

__all__ = ["make_exercise_families"]

_SLOT_REGEX = re.compile(r"\{(?:(\d+)-(\d+)|([a-z]+)|([^{}|.]+(?:\|[^{}|]+)+))(?:\.(\d+))?\}")
_DRAWS_PER_LINE = 5


@cache
def make_exercise_families(seed: int = 0) -> tuple[ItemFamily, ...]:
    """All kinds of exercises, each line filled a few times; the same for the same seed.

    Parameters
    ----------
    seed
        Of the words and numbers that are drawn.
    """
    item_families: list[ItemFamily] = []
    for name in ("known.txt", "worked.txt"):
        item_families += _parse_exercise_text(Path(__file__).with_name(name).read_text(encoding="utf-8"), seed)
    return tuple(item_families)


def _parse_exercise_text(text: str, seed: int) -> list[ItemFamily]:
    pools: dict[str, list[str]] = {}
    sections: list[tuple[list[str], list[str]]] = []
    for line in text.splitlines():
        if not line.strip() or line.startswith("# "):
            continue
        if line.startswith("@"):
            pool, words = line[1:].split(":", 1)
            pools[pool] = [word.strip() for word in words.split(",")]
        elif line.startswith("== "):
            sections.append(([header_field.strip() for header_field in line[3:].split(" | ")], []))
        else:
            sections[-1][1].append(line)
    return [_make_family(header, lines, pools, random.Random(f"{seed} {header[0]}")) for header, lines in sections]


def _make_family(header: list[str], lines: list[str], pools: dict[str, list[str]], rng: random.Random) -> ItemFamily:
    questions: dict[ItemText, None] = {}
    for line in lines:
        for _ in range(_DRAWS_PER_LINE if _SLOT_REGEX.search(line) else 1):
            questions.setdefault(_fill_slots(line, pools, rng))
    kin = frozenset(header[2].split(", ")) if len(header) > 2 else frozenset()
    return ItemFamily(header[0], header[1] == "reasoning", "Written as such.", tuple(questions), kin, measured=False)


def _fill_slots(line: str, pools: dict[str, list[str]], rng: random.Random) -> ItemText:
    """A line with its slots filled."""
    word_by_slot: dict[str, str] = {}
    used_words: set[str] = set()

    def value(match: re.Match[str]) -> str:
        low, high, pool, options, label = match.groups()
        key = f"{low or pool or options}.{label}"
        if label and key in word_by_slot:
            return word_by_slot[key]
        if low:
            word = str(rng.randint(int(low), int(high)))
        elif options:
            word = rng.choice(options.split("|"))
        elif pool in TEXT_GENERATORS:
            word = TEXT_GENERATORS[pool](rng)
        else:
            unused_words = [w for w in pools[pool] if w not in used_words] or pools[pool]
            word = rng.choice(unused_words)
        used_words.add(word)
        word_by_slot[key] = word
        return word

    text, _, choices = line.replace("\\n", "\n").partition(" || ")
    text = _SLOT_REGEX.sub(value, text)
    return ItemText(
        text.strip(), tuple(_SLOT_REGEX.sub(value, choice).strip() for choice in choices.split(" | ") if choice.strip())
    )
