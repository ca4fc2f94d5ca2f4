"""What a design can see before anything runs."""

import math
from collections.abc import Iterable, Mapping

from scipy import special

__all__ = ["smallest_visible_gap"]


def smallest_visible_gap(
    n_items_by_task: Mapping[str, int] | Iterable[int],
    *,
    disagreement: float = 0.3,
    power: float = 0.8,
    conf_level: float = 0.95,
) -> float:
    """The smallest teacher-student gap, as a share (0.05 is 5 points), that a paired comparison would likely see.

    Parameters
    ----------
    n_items_by_task
        Items of each task; tasks count equally. Tasks without an item are left out.
    disagreement
        Assumed share of items that exactly one of the two models answers rightly.
    power
        Probability with which the gap should be found.
    conf_level
        Of the two-sided interval that must exclude zero.

    Returns
    -------
    float
        NaN where there is no item.

    Notes
    -----
    Items are taken as independent and all tasks as equally discordant: a score difference of -1, 0 or 1 with mean
    ``delta`` has variance ``disagreement - delta²``, the mean over K tasks of n_k items ``sum 1/n_k / K²`` times that.
    ``delta = (z_power + z_level) * se(delta)`` is solved exactly. Clustered items see less.
    """
    counts = n_items_by_task.values() if isinstance(n_items_by_task, Mapping) else n_items_by_task
    sizes = [int(n) for n in counts if n > 0]
    if not sizes:
        return math.nan
    per_item = sum(1 / n for n in sizes) / len(sizes) ** 2
    z2 = float(special.ndtri(power) + special.ndtri(0.5 + conf_level / 2)) ** 2
    return math.sqrt(z2 * disagreement * per_item / (1 + z2 * per_item))
