"""Near-duplicate detection: training examples that are evaluation items in almost the same words.

Two texts are near where they hold the same numbers and most of their runs of three words. Numbers count because a
problem with other numbers is another problem; runs that many items share (a template's words) never make two texts
candidates, because a question about another person is another question.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence

__all__ = ["find_near_duplicates"]

_NGRAM_SIZE = 3  # words
_MIN_WORDS_FOR_NGRAMS = 8  # words; shorter texts are compared as they are
_MAX_ITEMS_PER_NGRAM = 20
"""A run in more items than this, and in more than one of a hundred, is a template's."""
# A character of the scripts that put no space between words is a word, and so is a sign that is no punctuation:
# 3 + 4 is not 3 * 4.
_WORD_REGEX = re.compile(
    r"[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff]|[^\W\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff]+"
    r"|[^\w\s.,;:!?'\"“”‘’…、。，？！：；]"
)

NgramSet = frozenset[tuple[str, ...]]


def find_near_duplicates(texts: Sequence[str], items: Sequence[str], *, threshold: float) -> dict[int, list[int]]:
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
        Index in `texts` → indices in `items`, for texts that are near any.

    Notes
    -----
    Exact, by an inverted index over the items' rarer runs: nothing is hashed down or sampled. A pair is missed only
    where all runs that it shares are a template's.
    """
    described = [_extract_ngrams(item) for item in items]
    items_by_run = _inverted_index(described)
    neighbours: dict[int, list[int]] = {}
    for text_index, text in enumerate(texts):
        runs, numbers = _extract_ngrams(text)
        candidates = {item for run in runs for item in items_by_run.get(run, ())}
        near_duplicates = [
            item
            for item in sorted(candidates)
            if described[item][1] == numbers and _jaccard(runs, described[item][0]) >= threshold
        ]
        if near_duplicates:
            neighbours[text_index] = near_duplicates
    return neighbours


def _extract_ngrams(text: str) -> tuple[NgramSet, tuple[str, ...]]:
    """The runs of words of a text, and its numbers in order of size."""
    words = _WORD_REGEX.findall(unicodedata.normalize("NFKC", text).casefold())
    numbers = tuple(sorted(word for word in words if any(c.isdigit() for c in word)))
    if len(words) < _MIN_WORDS_FOR_NGRAMS:
        return frozenset([tuple(words)] if words else []), numbers
    return frozenset(zip(*(words[shift:] for shift in range(_NGRAM_SIZE)), strict=False)), numbers


def _inverted_index(described: Sequence[tuple[NgramSet, tuple[str, ...]]]) -> Mapping[tuple[str, ...], list[int]]:
    """The items in which each run occurs that is not a template's."""
    items_by_run: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for item, (runs, _) in enumerate(described):
        for run in runs:
            items_by_run[run].append(item)
    limit = max(_MAX_ITEMS_PER_NGRAM, len(described) // 100)
    return {run: items for run, items in items_by_run.items() if len(items) <= limit}


def _jaccard(first_ngrams: NgramSet, second_ngrams: NgramSet) -> float:
    """Jaccard similarity of two sets."""
    n_shared_ngrams = len(first_ngrams & second_ngrams)
    return n_shared_ngrams / (len(first_ngrams) + len(second_ngrams) - n_shared_ngrams)
