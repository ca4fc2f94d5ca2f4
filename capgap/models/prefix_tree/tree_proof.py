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

_ATOL_PER_TOKEN = {torch.float32: 2e-5, torch.float64: 2e-5, torch.float16: 0.02, torch.bfloat16: 0.06}
"""Nats per scored token that rounding explains; in half precision plain scoring itself moves so with its batch."""
_ATOL = {torch.float32: 1e-3, torch.float64: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.2}
"""Nats that rounding explains however short a continuation is."""


@dataclass
class ProofRecord:
    """Coverage of a model's proof: how far tree scoring has been compared with plain scoring."""

    max_request_tokens: int = 0
    """Tokens of the longest request compared."""
    max_prefixed_tokens: int = 0
    """Tokens of the longest one compared that stood behind a cached prefix."""
    shared_row: bool = False
    """Whether one that shares a row with others was compared."""
    longest_prompt: int = 0
    """Tokens of the longest prompt that was written on and compared."""
    n_requests: int = 0
    """Requests compared."""
    largest_difference: float = 0.0
    """Largest difference, nats."""


def select_proof_requests(
    requests: Sequence[Sequence[ScoredContinuation]], plan: RowPlan, prior_coverage: ProofRecord
) -> tuple[list[int], ProofRecord]:
    """The requests to compare before the others count; none where what was compared before covers them.

    Parameters
    ----------
    requests
        The continuations of each request.
    plan
        Of all continuations, in the order of the requests.
    prior_coverage
        What was compared before.

    Returns
    -------
    chosen
        Indices of requests.
    new_coverage
        What is proven once they agree.
    """
    new_coverage = replace(prior_coverage)
    lengths = [max(len(continuation.tokens) for continuation in continuations) for continuations in requests]
    # The longest first; ties are broken by content, so that the choice does not hang on the order of the requests.
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], requests[i][0].tokens, requests[i][0].continuation))
    prefixed_requests: set[int] = set()
    n_foreign_tokens: dict[int, int] = {}  # request → tokens of others that stand before its own end in its row
    continuation_start = 0
    for i, continuations in enumerate(requests):
        for locations in plan.locations[continuation_start : continuation_start + len(continuations)]:
            row, row_positions = locations[-1]
            if plan.rows[row].prefix_row is not None:
                prefixed_requests.add(i)
            if len(row_positions):
                n_foreign_tokens[i] = max(n_foreign_tokens.get(i, 0), int(row_positions[-1]) + 1 - len(row_positions))
        continuation_start += len(continuations)
    chosen: list[int] = []
    if order and lengths[order[0]] > prior_coverage.max_request_tokens:
        chosen.append(order[0])
        new_coverage.max_request_tokens = lengths[order[0]]
    longest_prefixed_request = next((i for i in order if i in prefixed_requests), None)
    if longest_prefixed_request is not None and lengths[longest_prefixed_request] > prior_coverage.max_prefixed_tokens:
        chosen.append(longest_prefixed_request)
        new_coverage.max_prefixed_tokens = lengths[longest_prefixed_request]
    if n_foreign_tokens and not prior_coverage.shared_row:
        most_shared_request = max(n_foreign_tokens, key=lambda i: (n_foreign_tokens[i], -order.index(i)))
        if n_foreign_tokens[most_shared_request]:
            chosen.append(most_shared_request)
            new_coverage.shared_row = True
    return list(dict.fromkeys(chosen)), new_coverage


def disagreement(tree: float, reference: float, n_scored: int, dtype: torch.dtype, coverage: ProofRecord) -> str | None:
    """How the tree's log-likelihood differs from the plain one; None where rounding explains the difference.

    Parameters
    ----------
    tree, reference
        Log-likelihoods of one request, nats.
    n_scored
        Tokens scored.
    dtype
        Of the model.
    coverage
        Counts the request and its difference where they agree.
    """
    difference = abs(tree - reference)
    tolerance = max(_ATOL.get(dtype, 0.2), _ATOL_PER_TOKEN.get(dtype, 0.06) * n_scored)
    if not difference <= tolerance:  # also where either is NaN
        return (
            f"a request of {n_scored} scored tokens is {difference:.3g} nats off ({tree:.5g} against {reference:.5g})"
        )
    coverage.n_requests += 1
    coverage.largest_difference = max(coverage.largest_difference, difference)
    return None
