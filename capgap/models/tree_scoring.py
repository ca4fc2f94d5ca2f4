"""Log-likelihood requests scored through the token tree: proven first, a row at a time, halved when memory ends."""

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

from capgap.models.generation_ending import with_prompt_cut
from capgap.models.loaded_model import LoadedModel, TreeScoreMismatch
from capgap.models.out_of_memory import halve_batch_size, is_out_of_memory
from capgap.models.prefix_tree.row_plan import RowPlan, ScoredContinuation
from capgap.models.prefix_tree.tree_proof import ProofRecord, disagreement, select_proof_requests
from capgap.models.prefix_tree.tree_scorer import LogLikelihood, TreeScorer
from capgap.models.request_encoding import encode_requests
from capgap.models.sharding import select_shard

_MIN_HALVED_TOKENS = 32


def score_by_tree(
    model: LoadedModel,
    kind: str,
    arguments: Sequence[tuple[Any, ...]],
    recorded_answers: Mapping[int, Any],
    shard: tuple[int, int] = (0, 1),
) -> Iterator[dict[int, Any]]:
    """Responses to log-likelihood requests, some at a time.

    Parameters
    ----------
    model
        With a `tree`.
    kind
        ``loglikelihood`` or ``loglikelihood_rolling``.
    arguments
        Of every request of the task; the rows are planned from them all.
    recorded_answers
        Index → response, where the ledger has it; the others are computed.
    shard
        ``(k, n)``: only the k-th of n shards of the rows.

    Yields
    ------
    dict
        Index → ``[log-likelihood, is_greedy]``, or the rolling log-likelihood.

    Raises
    ------
    TreeDisagreement
        Nothing was yielded that the proof does not cover.
    ModelError
        A request cannot be asked, or the memory does not hold the shortest rows.
    """
    scorer = model.tree
    assert scorer is not None
    request_pool = _ScoringRequestPool(kind, encode_requests(model.lm, kind, arguments))
    done: dict[int, Any] = dict(recorded_answers)
    while True:
        try:
            plan = scorer.plan(request_pool.continuations)
            # Requests belong to the row in which they end, so that shards share no request.
            in_shard = request_pool.requests_ending_in(select_shard(request_pool.last_rows(plan), shard), plan)
            if in_shard <= set(done):
                return
            for responses in _prove_and_score(model, scorer, request_pool, plan, done, in_shard):
                done.update(responses)
                yield responses
        except RuntimeError as error:  # torch's errors of memory are of this kind
            if not is_out_of_memory(error):
                raise
            scorer.row_tokens = halve_batch_size(model, scorer.row_tokens, error, "tokens", min_size=_MIN_HALVED_TOKENS)


def _prove_and_score(
    model: LoadedModel,
    scorer: TreeScorer,
    request_pool: "_ScoringRequestPool",
    plan: RowPlan,
    done: Mapping[int, Any],
    to_score: set[int],
) -> Iterator[dict[int, Any]]:
    """The responses to `to_score` that are not `done`; those that prove the tree before the others."""
    request_pool.partial.clear()
    proof_request_indices, new_coverage = select_proof_requests(request_pool.requests, plan, scorer.proven)
    scored: dict[int, Any] = {}
    for i in proof_request_indices:
        responses: dict[int, Any] = {}
        if i not in done and i not in scored:
            responses = _score_with_row(scorer, request_pool, plan, i, set(done) | set(scored))
            scored |= responses
        started = time.monotonic()
        complaint = _compare_with_lm_eval(model, request_pool, i, scored[i] if i in scored else done[i], new_coverage)
        model.seconds["proof"] = model.seconds.get("proof", 0.0) + time.monotonic() - started
        if complaint is not None:
            raise TreeScoreMismatch(complaint)
        if responses:
            yield responses
    scorer.proven = new_coverage
    yield from _score(scorer, request_pool, plan, sorted(to_score - set(done) - set(scored)))


def _score_with_row(
    scorer: TreeScorer, request_pool: "_ScoringRequestPool", plan: RowPlan, i: int, answered: Collection[int]
) -> dict[int, Any]:
    """The responses to a request and to all that end in its last row, unless they are known.

    Raises
    ------
    TreeDisagreement
        The model's own code fails at what a tree asks of it.
    """
    to_score = request_pool.requests_ending_in([request_pool.last_row(i, plan)], plan) - set(answered)
    scored: dict[int, Any] = {}
    try:
        for responses in _score(scorer, request_pool, plan, to_score):
            scored |= responses
    except Exception as error:  # whatever a model's own code raises at masks that it does not expect
        if is_out_of_memory(error):
            raise
        raise TreeScoreMismatch(
            f"its forward pass fails on a tree ({type(error).__name__}: {str(error)[:120]})"
        ) from error
    return scored


def _score(
    scorer: TreeScorer, request_pool: "_ScoringRequestPool", plan: RowPlan, to_score: Collection[int]
) -> Iterator[dict[int, Any]]:
    indices = [index for i in to_score for index in request_pool.indices(i)]
    for log_likelihoods in scorer.log_likelihoods(request_pool.continuations, plan, indices):
        responses = request_pool.add(log_likelihoods)
        if responses:
            yield responses


def _compare_with_lm_eval(
    model: LoadedModel, request_pool: "_ScoringRequestPool", i: int, response: Any, new_coverage: ProofRecord
) -> str | None:
    """How one request on lm-eval's own path differs from the tree's response; None where it does not."""
    continuations = request_pool.requests[i]
    reference = 0.0
    for c in continuations:
        tokenised = (None, list(c.tokens[: c.first + 1]), list(c.continuation))
        reference += model.lm.plain([tokenised], override_bs=1)[0][0]
    tree = response[0] if request_pool.kind == "loglikelihood" else response
    n_scored = sum(len(c.continuation) for c in continuations)
    return disagreement(tree, reference, n_scored, model.lm.model.dtype, new_coverage)


class _ScoringRequestPool:
    """Requests as continuations in one list, and the responses to those whose continuations are all scored."""

    def __init__(self, kind: str, requests: Sequence[Sequence[ScoredContinuation]]) -> None:
        self.kind = kind
        self.requests = requests
        self.continuations = [continuation for continuations in requests for continuation in continuations]
        self.partial: dict[int, dict[int, LogLikelihood]] = {}
        """Request → log-likelihoods of its continuations so far, where some are missing."""
        self._request_of = [i for i, continuations in enumerate(requests) for _ in continuations]
        self._starts = list(accumulate(map(len, requests), initial=0))

    def indices(self, i: int) -> range:
        """Indices of the continuations of a request."""
        return range(self._starts[i], self._starts[i + 1])

    def last_row(self, i: int, plan: RowPlan) -> int:
        """The row in which the last continuation of a request ends."""
        return plan.locations[self.indices(i)[-1]][-1][0]

    def last_rows(self, plan: RowPlan) -> list[int]:
        """The rows in which requests end, in order."""
        return sorted({self.last_row(i, plan) for i in range(len(self.requests))})

    def requests_ending_in(self, rows: Collection[int], plan: RowPlan) -> set[int]:
        """The requests that end in one of some rows."""
        rows = set(rows)
        return {i for i in range(len(self.requests)) if self.last_row(i, plan) in rows}

    def add(self, log_likelihoods: Mapping[int, LogLikelihood]) -> dict[int, Any]:
        """Take in log-likelihoods of continuations; the responses to requests that are complete now."""
        responses: dict[int, Any] = {}
        for index, log_likelihood in log_likelihoods.items():
            i = self._request_of[index]
            scored = self.partial.setdefault(i, {})
            scored[index] = log_likelihood
            if len(scored) == len(self.requests[i]):
                del self.partial[i]
                ordered = [scored[n] for n in self.indices(i)]
                total = float(sum(value for value, _ in ordered))
                answer = [total, ordered[0][1]] if self.kind == "loglikelihood" else total
                responses[i] = with_prompt_cut(answer, self.requests[i][0].n_cut)
        return responses
