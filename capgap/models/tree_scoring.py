"""Log-likelihood requests through the token tree: proven first, a row's answers at a time, halved when memory ends."""

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from capgap.models.loaded_model import LoadedModel, TreeDisagreement
from capgap.models.out_of_memory import halve_batch_size, is_out_of_memory
from capgap.models.prefix_tree import (
    Answer,
    RowPlan,
    ScoredContinuation,
    TreeProof,
    TreeScorer,
    disagreement,
    requests_to_prove,
)
from capgap.models.request_encoding import encode_requests
from capgap.models.sharding import shard_of

__all__ = ["score_by_tree"]

_SMALLEST_ROW = 32


def score_by_tree(
    model: LoadedModel,
    kind: str,
    arguments: Sequence[tuple[Any, ...]],
    found: Mapping[int, Any],
    part: tuple[int, int] = (0, 1),
) -> Iterator[dict[int, Any]]:
    """Answers to log-likelihood requests, some at a time.

    Parameters
    ----------
    model
        With a `tree`.
    kind
        ``loglikelihood`` or ``loglikelihood_rolling``.
    arguments
        Of every request of the task; the rows are planned from them all.
    found
        Index → answer, where the ledger has it; the others are computed.
    part
        ``(k, n)``: only the k-th of n parts of the rows.

    Yields
    ------
    dict
        Index → ``[log-likelihood, is_greedy]``, or the rolling log-likelihood.

    Raises
    ------
    Unproven
        Nothing was yielded that the proof does not cover.
    ModelError
        A request cannot be asked, or the memory does not hold the shortest rows.
    """
    scorer = model.tree
    assert scorer is not None
    requests = encode_requests(model.lm, kind, arguments)
    work = _RequestContinuations(kind, requests)
    done: dict[int, Any] = dict(found)
    while True:
        try:
            plan = scorer.plan(work.pieces)
            mine = work.ending_in(shard_of(work.last_rows(plan), part), plan)
            if mine <= set(done):
                return
            for answered in _proven_first(model, scorer, work, plan, done, mine):
                done.update(answered)
                yield answered
        except RuntimeError as error:  # torch's errors of memory are of this kind
            if not is_out_of_memory(error):
                raise
            scorer.row_tokens = halve_batch_size(model, scorer.row_tokens, error, "tokens", smallest=_SMALLEST_ROW)


def _proven_first(
    model: LoadedModel,
    scorer: TreeScorer,
    work: "_RequestContinuations",
    plan: RowPlan,
    done: Mapping[int, Any],
    mine: set[int],
) -> Iterator[dict[int, Any]]:
    """The answers to `mine` that are not `done`; those that prove the tree before the others."""
    work.partial.clear()
    proof, covered = requests_to_prove(work.requests, plan, scorer.proven)
    proven: dict[int, Any] = {}
    for i in proof:
        ahead = {} if i in done or i in proven else _in_rows_of(scorer, work, plan, i, set(done) | set(proven))
        proven |= ahead
        started = time.monotonic()
        complaint = _compared(model, work, i, proven[i] if i in proven else done[i], covered)
        model.seconds["proof"] = model.seconds.get("proof", 0.0) + time.monotonic() - started
        if complaint is not None:
            raise TreeDisagreement(complaint)
        if ahead:
            yield ahead
    scorer.proven = covered
    yield from _answers(scorer, work, plan, sorted(mine - set(done) - set(proven)))


def _in_rows_of(
    scorer: TreeScorer, work: "_RequestContinuations", plan: RowPlan, i: int, known: Collection[int]
) -> dict[int, Any]:
    """The answers of a request and of all that end in its last row, unless they are known.

    Raises
    ------
    Unproven
        The model's own code fails at what a tree asks of it.
    """
    company = work.ending_in([plan.places[work.of(i)[-1]][-1][0]], plan) - set(known)
    answers: dict[int, Any] = {}
    try:
        for answered in _answers(scorer, work, plan, company):
            answers |= answered
    except Exception as error:  # whatever a model's own code raises at masks that it does not expect
        if is_out_of_memory(error):
            raise
        raise TreeDisagreement(
            f"its forward pass fails on a tree ({type(error).__name__}: {str(error)[:120]})"
        ) from error
    return answers


def _answers(
    scorer: TreeScorer, work: "_RequestContinuations", plan: RowPlan, wanted: Sequence[int] | set[int]
) -> Iterator[dict[int, Any]]:
    pieces = [piece for i in wanted for piece in work.of(i)]
    for answers in scorer.answers(work.pieces, plan, pieces):
        whole = work.put(answers)
        if whole:
            yield whole


def _compared(model: LoadedModel, work: "_RequestContinuations", i: int, answer: Any, covered: TreeProof) -> str | None:
    """One request on lm-eval's own path, against what the tree says."""
    pieces = work.requests[i]
    asked = [(None, list(piece.tokens[: piece.first + 1]), list(piece.continuation)) for piece in pieces]
    plain = sum(model.lm.plain([one], override_bs=1)[0][0] for one in asked)
    tree = answer[0] if work.kind == "loglikelihood" else answer
    n_scored = sum(len(piece.continuation) for piece in pieces)
    return disagreement(tree, plain, n_scored, model.lm.model.dtype, covered)


class _RequestContinuations:
    """Requests as pieces in one list, and the answers of those whose pieces are all there."""

    def __init__(self, kind: str, requests: Sequence[Sequence[ScoredContinuation]]) -> None:
        self.kind = kind
        self.requests = requests
        self.pieces = [piece for pieces in requests for piece in pieces]
        self.owner = [i for i, pieces in enumerate(requests) for _ in pieces]
        self.partial: dict[int, dict[int, Answer]] = {}
        starts = [0]
        for pieces in requests:
            starts.append(starts[-1] + len(pieces))
        self._starts = starts

    def of(self, i: int) -> range:
        """Indices of the pieces of a request."""
        return range(self._starts[i], self._starts[i + 1])

    def last_rows(self, plan: RowPlan) -> list[int]:
        """The rows in which the last pieces of the requests end."""
        return sorted({plan.places[self.of(i)[-1]][-1][0] for i in range(len(self.requests))})

    def ending_in(self, rows: Collection[int], plan: RowPlan) -> set[int]:
        """The requests whose last piece ends in one of some rows."""
        wanted = set(rows)
        return {i for i in range(len(self.requests)) if plan.places[self.of(i)[-1]][-1][0] in wanted}

    def put(self, answers: Mapping[int, Answer]) -> dict[int, Any]:
        """Keep answers to pieces; the answers to requests that are whole now."""
        whole: dict[int, Any] = {}
        for piece, answer in answers.items():
            i = self.owner[piece]
            own = self.partial.setdefault(i, {})
            own[piece] = answer
            if len(own) == len(self.requests[i]):
                del self.partial[i]
                ordered = [own[n] for n in self.of(i)]
                total = float(sum(value for value, _ in ordered))
                whole[i] = [total, ordered[0][1]] if self.kind == "loglikelihood" else total
        return whole
