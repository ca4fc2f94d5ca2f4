"""First-fit packing of sequences into forward passes of a bounded number of tokens."""

from collections.abc import Sequence


def first_fit(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Which sequences share a forward pass: first fit, the longest first.

    Parameters
    ----------
    lengths
        Tokens of each sequence.
    tokens
        Tokens of a pass, at most; a longer sequence has one to itself.

    Returns
    -------
    list of lists
        Indices of `lengths`; every one of them once.
    """
    room: list[int] = []
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        group = next((n for n, left in enumerate(room) if left >= lengths[index]), None)
        if group is None:
            room.append(tokens - lengths[index])
            groups.append([index])
        else:
            room[group] -= lengths[index]
            groups[group].append(index)
    return groups
