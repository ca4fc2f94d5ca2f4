"""Design matrices of the fit: features and words of the items of many families."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capgap.classification.corpus import ItemFamily
from capgap.classification.features import item_features, table


@dataclass(frozen=True)
class DesignMatrices:
    """All items of all families, read once."""

    families: tuple[ItemFamily, ...]
    family: NDArray[np.intp]
    """Index of each item's family, shape (items,)."""
    reasoning: NDArray[np.bool_]
    """Label of each item, shape (items,)."""
    dense: NDArray[np.float64]
    """Features, shape (items, features)."""
    words: Any
    """Sparse, shape (items, vocabulary): 1 where the word stands in the item."""
    vocabulary: tuple[str, ...]
    shares: NDArray[np.float64]
    """Share of a family's items that have a word, shape (families, vocabulary)."""

    @property
    def measured(self) -> list[int]:
        """Indices of the families that count in the table."""
        return [n for n, family in enumerate(self.families) if family.measured]

    def without(self, left_out: Sequence[int]) -> NDArray[np.intp]:
        """Indices of the families that a fit may see when some are left out: neither those nor their kin."""
        names = {self.families[n].name for n in left_out}
        kin = {name for n in left_out for name in self.families[n].kin}
        seen = [family.name not in names | kin and not (family.kin & names) for family in self.families]
        return np.flatnonzero(seen)


def make_design(families: Sequence[ItemFamily]) -> DesignMatrices:
    """Design matrices of families.

    Parameters
    ----------
    families
        From `read_corpus` and `exercises`.
    """
    from scipy import sparse

    readings = [item_features(question) for members in families for question in members.questions]
    indices = np.repeat(np.arange(len(families)), [len(members.questions) for members in families])
    n_items_with = Counter(word for reading in readings for word in reading.words)
    vocabulary = tuple(sorted(word for word, n in n_items_with.items() if n > 1))
    column = {word: n for n, word in enumerate(vocabulary)}
    cells = [(i, column[word]) for i, reading in enumerate(readings) for word in reading.words if word in column]
    rows, columns = np.array(cells, dtype=int).reshape(-1, 2).T
    shape = (len(readings), len(vocabulary))
    words = sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=shape)
    member = sparse.csr_matrix(
        (np.ones(len(readings)), (indices, np.arange(len(readings)))), shape=(len(families), len(readings))
    )
    sizes = np.maximum(1, np.bincount(indices, minlength=len(families)))
    return DesignMatrices(
        families=tuple(families),
        family=indices,
        reasoning=np.array([members.reasoning for members in families])[indices],
        dense=table(readings),
        words=words,
        vocabulary=vocabulary,
        shares=np.asarray((member @ words).todense()) / sizes[:, None],
    )


def balanced(
    family: NDArray[np.intp], reasoning: NDArray[np.bool_], emphasis: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Item weights by which the two classes count alike, and the families of a class by their emphasis.

    Parameters
    ----------
    family
        Index of each item's family, shape (items,).
    reasoning
        Label of each item, shape (items,).
    emphasis
        Of each family, shape (families,); equal numbers let families count alike whatever their size.

    Returns
    -------
    array
        Shape (items,); they sum to the number of items.
    """
    sizes = np.bincount(family, minlength=len(emphasis))
    weights = np.asarray(emphasis[family] / sizes[family], dtype=float)
    for label in (False, True):
        of_class = reasoning == label
        if of_class.any():
            weights[of_class] /= weights[of_class].sum()
    return np.asarray(weights * len(weights) / weights.sum())
