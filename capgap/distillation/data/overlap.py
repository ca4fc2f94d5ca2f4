"""Training examples that are evaluation items in almost the same words.

Two texts are near where they hold the same numbers and most of their runs of three words. Numbers count because a
problem with other numbers is another problem; runs that many items share (a template's words) never make two texts
candidates, because a question about another person is another question.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

__all__ = ["near_items"]

_RUN = 3  # words
_FEWEST = 8  # words; shorter texts are compared as they are
_COMMON = 20
"""A run in more items than this, and in more than one of a hundred, is a template's."""
# A character of the scripts that put no space between words is a word, and so is a sign that is no punctuation:
# 3 + 4 is not 3 * 4.
_WORD = re.compile(
    r"[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff]|[^\W\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff]+"
    r"|[^\w\s.,;:!?'\"“”‘’…、。，？！：；]"
)

Runs = frozenset[tuple[str, ...]]


def near_items(texts: Sequence[str], items: Sequence[str], *, threshold: float) -> dict[int, list[int]]:
    """The evaluation items that each training text is near.

    Parameters
    ----------
    texts, items
        Training prompts and evaluation prompts.
    threshold
        Smallest Jaccard similarity of their sets of runs, in (0, 1].

    Returns
    -------
    dict
        Place in `texts` → places in `items`, for texts that are near any.

    Notes
    -----
    Exact, by an inverted index over the items' rarer runs: nothing is hashed down or sampled. A pair is missed only
    where all runs that it shares are a template's.
    """
    described = [_runs(item) for item in items]
    places = _index(described)
    found: dict[int, list[int]] = {}
    for n, text in enumerate(texts):
        own, numbers = _runs(text)
        candidates = Counter(place for run in own for place in places.get(run, ()))
        near = [
            place
            for place in sorted(candidates)
            if described[place][1] == numbers and _jaccard(own, described[place][0]) >= threshold
        ]
        if near:
            found[n] = near
    return found


def _runs(text: str) -> tuple[Runs, tuple[str, ...]]:
    """The runs of words of a text, and its numbers in order of size."""
    words = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    numbers = tuple(sorted(word for word in words if any(c.isdigit() for c in word)))
    if len(words) < _FEWEST:
        return frozenset([tuple(words)] if words else []), numbers
    return frozenset(zip(*(words[shift:] for shift in range(_RUN)), strict=False)), numbers


def _index(described: Sequence[tuple[Runs, tuple[str, ...]]]) -> Mapping[tuple[str, ...], list[int]]:
    """Where each run occurs that is not a template's."""
    places: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for place, (runs, _) in enumerate(described):
        for run in runs:
            places[run].append(place)
    limit = max(_COMMON, len(described) // 100)
    return {run: found for run, found in places.items() if len(found) <= limit}


def _jaccard(first: Runs, second: Runs) -> float:
    shared = len(first & second)
    return shared / (len(first) + len(second) - shared)
