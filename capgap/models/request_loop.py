"""Ask a model lm-eval's requests, from the ledger where it has the answer, batch by batch into the ledger where not.

Batches are planned from the full set of distinct requests, sorted by length and text, so that neither the order of
the requests nor an interruption changes which requests share a forward pass.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from capgap.errors import ModelError, StoreError
from capgap.models.ledger import Ledger, request_key
from capgap.models.loaded_model import LoadedModel, TreeDisagreement
from capgap.models.sharding import shard_of

__all__ = ["Progress", "Response", "fill_ledger_shard", "ledger_responses", "respond"]

Progress = Callable[[int, int], None]
"""Called with (requests that were computed, requests that were found) as they become available."""

_TREE, _PLAIN = "tree", "lm-eval"
"""Ways to an answer, as the ledger tells them apart."""


@dataclass(frozen=True)
class Response:
    """One response as lm-eval gives it, and how a generation ended."""

    value: Any
    """``(log-probability in nats, is_greedy)``, a rolling log-likelihood, or a text."""
    n_tokens: int | None = None
    """Tokens of a generated text."""
    stop_reason: str | None = None
    """``eos``, ``stop`` or ``length``; None where the backend does not tell."""


@dataclass(frozen=True)
class _RequestIdentity:
    """A request as the ledger tells it from others."""

    kind: str
    text: str
    repeat: int
    arguments: tuple[Any, ...] = field(compare=False)


@dataclass(frozen=True)
class _KeyedRequest:
    index: int
    arguments: tuple[Any, ...]
    repeat: int
    length: int  # tokens that a forward pass must hold


def respond(
    model: LoadedModel, instances: Sequence[Any], ledger: Ledger, *, progress: Progress | None = None
) -> list[list[Response]]:
    """The responses to lm-eval Instances, one list (a response for each repeat) per instance.

    Parameters
    ----------
    model
        Who is asked.
    instances
        ``lm_eval.api.instance.Instance`` objects, of any request types; their ``resps`` are filled as lm-eval would.
    ledger
        Where responses are looked up and kept.
    progress
        Told as responses become available.

    Raises
    ------
    ModelError
        The model cannot do what is asked (log-likelihoods of a chat backend, a prompt beyond its length).
    StoreError
        The ledger cannot be written; what was answered before stays.
    """
    asked = _by_instance(instances)
    answers: dict[_RequestIdentity, Any] = {}
    for kind, requests in _by_kind(asked).items():
        answers |= _asked_each_way(_RequestTarget(model, ledger, progress), kind, requests)
    return _responses(instances, asked, answers)


def fill_ledger_shard(
    model: LoadedModel,
    instances: Sequence[Any],
    ledger: Ledger,
    *,
    part: tuple[int, int] = (0, 1),
    progress: Progress | None = None,
) -> None:
    """Ask one part of the requests, for the ledger alone.

    Parameters
    ----------
    part
        ``(k, n)``: the k-th (from 0) of n parts. Rows are planned from all requests, whatever the part, so that the
        number of parts changes no answer.
    model, instances, ledger, progress
        See `respond`.

    Raises
    ------
    ModelError, StoreError
        See `respond`.
    """
    for kind, requests in _by_kind(_by_instance(instances)).items():
        _asked_each_way(_RequestTarget(model, ledger, progress, part), kind, requests)


def ledger_responses(
    fingerprint: str, instances: Sequence[Any], ledger: Ledger, *, name: str, progress: Progress | None = None
) -> list[list[Response]]:
    """As `respond`, from the ledger alone: no model is needed.

    Parameters
    ----------
    fingerprint
        The model's, see `LoadedModel.fingerprint`.
    instances, ledger, progress
        See `respond`.
    name
        The model's, for the message.

    Raises
    ------
    StoreError
        Some answers are not there.
    """
    asked = _by_instance(instances)
    answers: dict[_RequestIdentity, Any] = {}
    for kind, requests in _by_kind(asked).items():
        for path in (_PLAIN, _TREE):  # a model that fails a proof is asked again on lm-eval's path, and that counts
            wanted = [request for request in requests if request not in answers]
            keys = {request_key(fingerprint, kind, r.arguments, r.repeat, path): r for r in wanted}
            found = ledger.get(keys)
            answers |= {keys[key]: answer for key, answer in found.items()}
        missing = [request for request in requests if request not in answers]
        if missing:
            raise StoreError(
                f"{ledger.path}: lacks {len(missing):,} of {len(requests):,} answers of {name}. "
                f"Run the evaluation to its end first, with the same models and settings."
            )
        if progress is not None:
            progress(0, len(requests))
    return _responses(instances, asked, answers)


@dataclass(frozen=True)
class _RequestTarget:
    """Who is asked, where answers go, and which part of the requests is ours."""

    model: LoadedModel
    ledger: Ledger
    progress: Progress | None
    part: tuple[int, int] = (0, 1)


def _by_instance(instances: Sequence[Any]) -> list[list[_RequestIdentity]]:
    return [[_asked(instance, n) for n in range(max(1, instance.repeats or 1))] for instance in instances]


def _by_kind(asked: Sequence[Sequence[_RequestIdentity]]) -> dict[str, list[_RequestIdentity]]:
    """Distinct requests by request type, in their order."""
    kinds: dict[str, dict[_RequestIdentity, None]] = {}
    for own in asked:
        kinds.setdefault(own[0].kind, {}).update(dict.fromkeys(own))
    return {kind: list(requests) for kind, requests in kinds.items()}


def _responses(
    instances: Sequence[Any], asked: Sequence[Sequence[_RequestIdentity]], answers: Mapping[_RequestIdentity, Any]
) -> list[list[Response]]:
    responses = []
    for instance, own in zip(instances, asked, strict=True):
        got = [_as_response(request.kind, answers[request]) for request in own]
        instance.resps.extend(response.value for response in got)
        responses.append(got)
    return responses


def _asked_each_way(
    asking: _RequestTarget, kind: str, requests: Sequence[_RequestIdentity]
) -> dict[_RequestIdentity, Any]:
    """The answers to distinct requests of one kind, on the fast path where the model allows it."""
    model = asking.model
    if kind != "generate_until" and not model.can_score:
        raise ModelError(
            f"model {model.name}: this backend gives no log-likelihoods, which {kind} requests need: "
            f"{model.no_scores_reason}. Use a battery of generate tasks."
        )
    if model.tree is None:
        return _answers(asking, kind, requests, _PLAIN)
    plain: list[_RequestIdentity] = []
    if kind == "generate_until":
        from capgap.models.tree_generation import generation_unsupported

        plain = [request for request in requests if generation_unsupported(model, request.arguments[1])]
    others = set(requests) - set(plain)
    fast = [request for request in requests if request in others]
    try:
        answers = _answers(asking, kind, fast, _TREE)
    except TreeDisagreement as error:
        model.drop_tree(str(error))
        answers = _answers(asking, kind, fast, _PLAIN)
    return answers | _answers(asking, kind, plain, _PLAIN)


def _answers(
    asking: _RequestTarget, kind: str, requests: Sequence[_RequestIdentity], path: str
) -> dict[_RequestIdentity, Any]:
    """The answers to requests that take one path, each kept as soon as it is there."""
    model, ledger, progress = asking.model, asking.ledger, asking.progress
    keys = [request_key(model.fingerprint, kind, r.arguments, r.repeat, path) for r in requests]
    known = ledger.get(keys)
    found = {i: known[key] for i, key in enumerate(keys) if key in known}
    if progress is not None and found:
        progress(0, len(found))
    answers = {requests[i]: answer for i, answer in found.items()}
    if len(found) == len(requests):
        return answers
    for step in _steps(asking, kind, requests, found, path):
        rows = [(keys[i], requests[i].repeat, answer) for i, answer in step.items()]
        ledger.put(model.fingerprint, kind, rows)
        answers |= {requests[i]: answer for i, answer in step.items()}
        if progress is not None:
            progress(len(rows), 0)
    return answers


def _steps(
    asking: _RequestTarget, kind: str, requests: Sequence[_RequestIdentity], found: Mapping[int, Any], path: str
) -> Iterator[dict[int, Any]]:
    """Index → answer of those of our part that were not found, some at a time."""
    if path == _PLAIN:
        return _in_batches(asking, kind, requests, found)
    if kind == "generate_until":
        from capgap.models.tree_generation import generate_by_tree

        _check_room(asking.model, requests)
        return generate_by_tree(asking.model, [(r.arguments, r.repeat) for r in requests], found, asking.part)
    from capgap.models.tree_scoring import score_by_tree

    return score_by_tree(asking.model, kind, [r.arguments for r in requests], found, asking.part)


def _in_batches(
    asking: _RequestTarget, kind: str, requests: Sequence[_RequestIdentity], found: Mapping[int, Any]
) -> Iterator[dict[int, Any]]:
    """Answers of lm-eval's own path and of other backends: a batch of the plan at a time."""
    for batch in shard_of(_plan(asking.model, kind, requests), asking.part):
        missing = [request for request in batch if request.index not in found]
        if missing:
            results = _ask(asking.model, kind, missing)
            yield {request.index: result for request, result in zip(missing, results, strict=True)}


def _asked(instance: Any, repeat: int) -> "_RequestIdentity":
    return _RequestIdentity(
        instance.request_type, json.dumps(list(instance.args), sort_keys=True, default=str), repeat, instance.args
    )


def _plan(model: LoadedModel, kind: str, requests: Sequence[_RequestIdentity]) -> list[list[_KeyedRequest]]:
    """Cut the sorted requests into batches of at most `batch_tokens` padded tokens.

    Requests of one context stay neighbours: lm-eval merges those whose answer is one token long.
    """
    if kind == "generate_until":
        _check_room(model, requests)
    lengths = _lengths(model, kind, [request.arguments for request in requests])
    todo = [
        _KeyedRequest(index, request.arguments, request.repeat, length)
        for index, (request, length) in enumerate(zip(requests, lengths, strict=True))
    ]
    todo.sort(key=lambda r: (_settings(r), -r.length, tuple(map(str, r.arguments)), r.repeat))
    batches: list[list[_KeyedRequest]] = []
    longest = 0
    for request in todo:
        longest = max(longest, request.length)
        many = len(batches[-1]) if batches else model.max_batch_requests
        full = many >= model.max_batch_requests or (many + 1) * longest > model.batch_tokens
        if full or _settings(batches[-1][0]) != _settings(request):
            batches.append([])
            longest = request.length
        batches[-1].append(request)
    return batches


def _settings(request: _KeyedRequest) -> str:
    """Generation settings as text: requests of different settings never share a batch."""
    settings = request.arguments[1] if len(request.arguments) > 1 else None
    return repr(sorted(settings.items(), key=str)) if isinstance(settings, dict) else ""


def _lengths(model: LoadedModel, kind: str, arguments: Sequence[tuple[Any, ...]]) -> list[int]:
    encode = getattr(model.lm, "tok_encode", None)
    tokenizer = getattr(model.lm, "tokenizer", None)
    texts = [a[0] + a[1] if kind == "loglikelihood" else a[0] for a in arguments]
    if encode is None or tokenizer is None:
        # About four characters a token; only the batches that a foreign backend is sent depend on it.
        return [len(text) // 4 + 1 for text in texts]
    known = {text: len(encode(text)) for text in dict.fromkeys(texts)}
    room = int(getattr(model.lm, "max_length", 1 << 30))
    extra = [_max_tokens(model, a[1]) if kind == "generate_until" else 0 for a in arguments]
    return [min(known[text], room) + more for text, more in zip(texts, extra, strict=True)]


def _max_tokens(model: LoadedModel, settings: Mapping[str, Any]) -> int:
    return int(settings.get("max_gen_toks", getattr(model.lm, "max_gen_toks", 256)))


def _check_room(model: LoadedModel, requests: Sequence[_RequestIdentity]) -> None:
    """lm-eval asserts that a prompt token remains; say it before anything runs."""
    room = int(getattr(model.lm, "max_length", 1 << 30))
    most = max((_max_tokens(model, request.arguments[1]) for request in requests), default=0)
    if most >= room:
        raise ModelError(
            f"model {model.name}: max_tokens {most} leaves no room for a prompt in its {room} tokens. "
            f"Lower max_tokens of the task."
        )


def _ask(model: LoadedModel, kind: str, batch: Sequence[_KeyedRequest]) -> list[Any]:
    """One batch through lm-eval; results as JSON values in the order of the batch."""
    from lm_eval.api.instance import Instance

    instances: Any = [
        Instance(request_type=kind, doc={}, arguments=r.arguments, idx=0, metadata=(None, None, 1)) for r in batch
    ]
    if hasattr(model.lm, "batch_size_per_gpu"):
        model.lm.batch_size_per_gpu = len(batch)
    arrivals = _ArrivalHook(model.lm)
    model.lm.set_cache_hook(arrivals)
    values = getattr(model.lm, kind)(instances, disable_tqdm=True)
    if kind == "loglikelihood":
        return [[float(value), bool(greedy)] for value, greedy in values]
    if kind == "loglikelihood_rolling":
        return [float(value) for value in values]
    return [{"text": text, **arrivals.ending(request.arguments)} for request, text in zip(batch, values, strict=True)]


class _ArrivalHook:
    """lm-eval's cache hook: pairs each text, as it arrives, with the ending that the model has just recorded."""

    def __init__(self, lm: Any) -> None:
        self._recorded: list[Any] = getattr(lm, "endings", [])
        self._recorded.clear()
        self._taken = 0
        self._endings: dict[str, list[dict[str, Any]]] = {}

    def add_partial(self, kind: str, arguments: Sequence[Any], value: Any) -> None:
        """lm-eval's signature; called once a response, in the order of the batch that was generated."""
        if kind == "generate_until" and self._taken < len(self._recorded):
            self._endings.setdefault(_text_of(arguments), []).append(self._recorded[self._taken].as_dict())
            self._taken += 1

    def ending(self, arguments: Sequence[Any]) -> dict[str, Any]:
        """What was recorded for a request, for its repeats in turn; empty where the backend tells nothing."""
        own = self._endings.get(_text_of(arguments))
        return own.pop(0) if own else {}


def _text_of(arguments: Sequence[Any]) -> str:
    return f"{arguments[0]}\0{sorted(arguments[1].items(), key=str)}"


def _as_response(kind: str, stored: Any) -> Response:
    if kind == "loglikelihood":
        return Response((float(stored[0]), bool(stored[1])))
    if kind == "loglikelihood_rolling":
        return Response(float(stored))
    return Response(stored["text"], stored.get("n_tokens"), stored.get("stop_reason"))
