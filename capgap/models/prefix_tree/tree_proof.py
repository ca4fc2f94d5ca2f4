"""Proof of a model's tree scoring: its hardest requests scored the plain way too, before any result counts.

A tree mask that a model ignores, a window that is measured in the wrong way, a cache that is cropped: each is wrong
without a word, and most of them only on long requests. So the proof is made on the requests themselves, where the
two ways can differ: the longest (which is deeper than an attention window, where any is), one behind a cached prefix,
and one that shares its row with others.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from capgap.models.prefix_tree.row_plan import RowPlan, ScoredContinuation

_PER_TOKEN = {torch.float32: 2e-5, torch.float64: 2e-5, torch.float16: 0.02, torch.bfloat16: 0.06}
"""Nats per scored token that rounding explains; in half precision plain scoring itself moves so with its batch."""
_ATOL = {torch.float32: 1e-3, torch.float64: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.2}
"""Nats that rounding explains however short a continuation is."""


@dataclass
class TreeProof:
    """Coverage of a model's proof: how far tree scoring has been compared with plain scoring."""

    longest: int = 0
    """Tokens of the longest request compared."""
    longest_behind_prefix: int = 0
    """Tokens of the longest one compared that stood behind a cached prefix."""
    shared_row: bool = False
    """Whether one that shares a row with others was compared."""
    longest_prompt: int = 0
    """Tokens of the longest prompt that was written on and compared."""
    n_requests: int = 0
    """Requests compared."""
    largest: float = 0.0
    """Largest difference, nats."""


def requests_to_prove(
    requests: Sequence[Sequence[ScoredContinuation]], plan: RowPlan, proven: TreeProof
) -> tuple[list[int], TreeProof]:
    """The requests to compare before the others count; none where what was compared before covers them.

    Parameters
    ----------
    requests
        The continuations of each request.
    plan
        Of all continuations, in the order of the requests.
    proven
        What was compared before.

    Returns
    -------
    chosen
        Indices of requests.
    covered
        What is proven once they agree.
    """
    covered = replace(proven)
    lengths = [max(len(continuation.tokens) for continuation in continuations) for continuations in requests]
    # The longest first; ties are broken by content, so that the choice does not hang on the order of the requests.
    order = sorted(
        range(len(requests)), key=lambda i: (-lengths[i], requests[i][0].tokens, requests[i][0].continuation)
    )
    behind_prefix: set[int] = set()
    n_foreign: dict[int, int] = {}  # request → tokens of others that stand before its own end in its row
    first = 0
    for i, continuations in enumerate(requests):
        for locations in plan.locations[first : first + len(continuations)]:
            row, places = locations[-1]
            if plan.rows[row].prefix_row is not None:
                behind_prefix.add(i)
            if len(places):
                n_foreign[i] = max(n_foreign.get(i, 0), int(places[-1]) + 1 - len(places))
        first += len(continuations)
    chosen: list[int] = []
    if order and lengths[order[0]] > proven.longest:
        chosen.append(order[0])
        covered.longest = lengths[order[0]]
    deepest = next((i for i in order if i in behind_prefix), None)
    if deepest is not None and lengths[deepest] > proven.longest_behind_prefix:
        chosen.append(deepest)
        covered.longest_behind_prefix = lengths[deepest]
    if n_foreign and not proven.shared_row:
        most_shared = max(n_foreign, key=lambda i: (n_foreign[i], -order.index(i)))
        if n_foreign[most_shared]:
            chosen.append(most_shared)
            covered.shared_row = True
    return list(dict.fromkeys(chosen)), covered


def disagreement(tree: float, plain: float, n_scored: int, dtype: torch.dtype, proven: TreeProof) -> str | None:
    """How the tree's log-likelihood differs from the plain one; None where rounding explains the difference.

    Parameters
    ----------
    tree, plain
        Log-likelihoods of one request, nats.
    n_scored
        Tokens scored.
    dtype
        Of the model.
    proven
        Counts the request and its difference where they agree.
    """
    difference = abs(tree - plain)
    allowed = max(_ATOL.get(dtype, 0.2), _PER_TOKEN.get(dtype, 0.06) * n_scored)
    if not difference <= allowed:  # also where either is NaN
        return (
            f"a request of {n_scored} scored tokens differs by {difference:.3g} nats ({tree:.5g} against {plain:.5g})"
        )
    proven.n_requests += 1
    proven.largest = max(proven.largest, difference)
    return None
