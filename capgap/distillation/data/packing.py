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
    free_tokens: list[int] = []
    pass_indices: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        group = next((n for n, n_free_tokens in enumerate(free_tokens) if n_free_tokens >= lengths[index]), None)
        if group is None:
            free_tokens.append(tokens - lengths[index])
            pass_indices.append([index])
        else:
            free_tokens[group] -= lengths[index]
            pass_indices[group].append(index)
    return pass_indices
