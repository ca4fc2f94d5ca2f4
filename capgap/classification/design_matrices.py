"""Items of many families as matrices for the fit."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capgap.classification.corpus import ItemFamily
from capgap.classification.features import ItemFeatures, item_features, table

__all__ = ["DesignMatrices", "balanced", "make_design"]


@dataclass(frozen=True)
class DesignMatrices:
    """All items of all families, read once."""

    families: tuple[ItemFamily, ...]
    family: NDArray[np.intp]
    """Which family each item is of."""
    reasoning: NDArray[np.bool_]
    """The label of each item."""
    dense: NDArray[np.float64]
    """items x features."""
    words: Any
    """items x vocabulary, sparse: 1 where the word stands in the item."""
    vocabulary: tuple[str, ...]
    shares: NDArray[np.float64]
    """families x vocabulary: the share of a family's items that have the word."""
    readings: tuple[ItemFeatures, ...]

    @property
    def measured(self) -> list[int]:
        """Positions of the families that count in the table."""
        return [n for n, family in enumerate(self.families) if family.measured]

    def without(self, left_out: Sequence[int]) -> NDArray[np.intp]:
        """Positions of the families that a fit may see when some are left out: neither those nor their kin."""
        names = {self.families[n].name for n in left_out}
        kin = {name for n in left_out for name in self.families[n].kin}
        return np.array(
            [
                n
                for n, family in enumerate(self.families)
                if n not in left_out and not (family.kin & names) and family.name not in kin
            ]
        )


def make_design(families: Sequence[ItemFamily], *, limit: int | None = None, seed: int = 0) -> DesignMatrices:
    """Read the items.

    Parameters
    ----------
    families
        From `read_corpus` and `exercises`.
    limit
        At most so many items of a family, drawn at random; None reads all.
    seed
        Of that draw.
    """
    from scipy import sparse

    rng = np.random.default_rng(seed)
    readings: list[ItemFeatures] = []
    family: list[int] = []
    for n, one in enumerate(families):
        chosen = np.arange(len(one.questions))
        if limit is not None and len(chosen) > limit:
            chosen = np.sort(rng.choice(chosen, limit, replace=False))
        readings += [item_features(one.questions[i]) for i in chosen]
        family += [n] * len(chosen)
    found = Counter(word for reading in readings for word in reading.words)
    vocabulary = tuple(sorted(word for word, n in found.items() if n > 1))
    column = {word: n for n, word in enumerate(vocabulary)}
    places = [(i, column[word]) for i, reading in enumerate(readings) for word in reading.words if word in column]
    rows, columns = np.array(places, dtype=int).T if places else np.zeros((2, 0), dtype=int)
    shape = (len(readings), len(vocabulary))
    words = sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=shape)
    positions = np.array(family)
    member = sparse.csr_matrix(
        (np.ones(len(readings)), (positions, np.arange(len(readings)))), shape=(len(families), len(readings))
    )
    sizes = np.maximum(1, np.bincount(positions, minlength=len(families)))
    return DesignMatrices(
        families=tuple(families),
        family=positions,
        reasoning=np.array([one.reasoning for one in families])[positions],
        dense=table(readings),
        words=words,
        vocabulary=vocabulary,
        shares=np.asarray((member @ words).todense()) / sizes[:, None],
        readings=tuple(readings),
    )


def balanced(
    family: NDArray[np.intp], reasoning: NDArray[np.bool_], emphasis: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Weights of items with which the classes count alike, and the families of a class by their emphasis.

    Parameters
    ----------
    family
        Which family each item is of.
    reasoning
        The label of each item.
    emphasis
        Of each family; equal numbers let families count alike whatever their size.

    Returns
    -------
    array
        One weight for each item; they sum to the number of items.
    """
    sizes = np.bincount(family, minlength=len(emphasis))
    weights = np.asarray(emphasis[family] / sizes[family], dtype=float)
    for label in (False, True):
        of_class = reasoning == label
        if of_class.any():
            weights[of_class] /= weights[of_class].sum()
    balance: NDArray[np.float64] = weights * len(weights) / weights.sum()
    return balance
