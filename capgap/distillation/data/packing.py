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
    free_pass_tokens: list[int] = []
    sequences_by_pass: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        group = next((n for n, n_free_tokens in enumerate(free_pass_tokens) if n_free_tokens >= lengths[index]), None)
        if group is None:
            free_pass_tokens.append(tokens - lengths[index])
            sequences_by_pass.append([index])
        else:
            free_pass_tokens[group] -= lengths[index]
            sequences_by_pass[group].append(index)
    return sequences_by_pass
