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
    feature_matrix: NDArray[np.float64]
    """Features, shape (items, features)."""
    words: Any
    """Sparse, shape (items, vocabulary): 1 where the word stands in the item."""
    vocabulary: tuple[str, ...]
    shares: NDArray[np.float64]
    """Share of a family's items that have a word, shape (families, vocabulary)."""

    @property
    def measured(self) -> list[int]:
        """Indices of the families that count in the table."""
        return [n for n, item_family in enumerate(self.families) if item_family.measured]

    def without(self, left_out_families: Sequence[int]) -> NDArray[np.intp]:
        """Indices of the families that a fit may see when some are left out: neither those nor their kin."""
        names = {self.families[n].name for n in left_out_families}
        kin = {name for n in left_out_families for name in self.families[n].kin}
        seen = [item_family.name not in names | kin and not (item_family.kin & names) for item_family in self.families]
        return np.flatnonzero(seen)


def make_design(families: Sequence[ItemFamily]) -> DesignMatrices:
    """Design matrices of families.

    Parameters
    ----------
    families
        From `read_corpus` and `exercises`.
    """
    from scipy import sparse

    feature_sets = [item_features(question) for members in families for question in members.questions]
    indices = np.repeat(np.arange(len(families)), [len(members.questions) for members in families])
    n_items_by_word = Counter(word for features in feature_sets for word in features.words)
    vocabulary = tuple(sorted(word for word, n in n_items_by_word.items() if n > 1))
    column = {word: n for n, word in enumerate(vocabulary)}
    cells = [(i, column[word]) for i, features in enumerate(feature_sets) for word in features.words if word in column]
    rows, columns = np.array(cells, dtype=int).reshape(-1, 2).T
    shape = (len(feature_sets), len(vocabulary))
    words = sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=shape)
    member = sparse.csr_matrix(
        (np.ones(len(feature_sets)), (indices, np.arange(len(feature_sets)))), shape=(len(families), len(feature_sets))
    )
    sizes = np.maximum(1, np.bincount(indices, minlength=len(families)))
    return DesignMatrices(
        families=tuple(families),
        family=indices,
        reasoning=np.array([members.reasoning for members in families])[indices],
        feature_matrix=table(feature_sets),
        words=words,
        vocabulary=vocabulary,
        shares=np.asarray((member @ words).todense()) / sizes[:, None],
    )


def balanced_item_weights(
    family_index: NDArray[np.intp], reasoning: NDArray[np.bool_], weight_per_family: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Item weights by which the two classes count alike, and the families of a class by their emphasis.

    Parameters
    ----------
    family_index
        Index of each item's family, shape (items,).
    reasoning
        Label of each item, shape (items,).
    weight_per_family
        Of each family, shape (families,); equal numbers let families count alike whatever their size.

    Returns
    -------
    array
        Shape (items,); they sum to the number of items.
    """
    sizes = np.bincount(family_index, minlength=len(weight_per_family))
    weights = np.asarray(weight_per_family[family_index] / sizes[family_index], dtype=float)
    for label in (False, True):
        has_label = reasoning == label
        if has_label.any():
            weights[has_label] /= weights[has_label].sum()
    return np.asarray(weights * len(weights) / weights.sum())
