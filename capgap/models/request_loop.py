"""Request loop: lm-eval's requests answered from the ledger, else by the model, batch by batch into the ledger.

Batches are planned from the full set of distinct requests, sorted by length and text, so that neither the order of
the requests nor an interruption changes which requests share a forward pass.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from capgap.errors import ModelError, StoreError
from capgap.models.generation_ending import with_prompt_cut
from capgap.models.ledger import Ledger, request_key
from capgap.models.loaded_model import LoadedModel, TreeScoreMismatch
from capgap.models.sharding import select_shard
from capgap.schema import stop_reason_of

Progress = Callable[[int, int], None]
"""Called with (requests computed, requests found in the ledger) as responses become available."""

_TREE_PATH_NAME, _LM_EVAL_PATH_NAME = "tree", "lm-eval"
"""Ways to compute a response, as the ledger tells them apart."""
_UNLIMITED_LENGTH = 1 << 30


@dataclass(frozen=True)
class ModelResponse:
    """One response as lm-eval gives it, and how a generation ended."""

    value: Any
    """``(log-probability in nats, is_greedy)``, a rolling log-likelihood, or a text."""
    n_tokens: int | None = None
    """Tokens of a generated text."""
    stop_reason: str | None = None
    """One of `capgap.schema.STOP_REASONS`; None where the backend does not tell."""
    n_prompt_cut: int | None = None
    """Tokens of the prompt that were lost, where any was; None where the backend does not tell."""


@dataclass(frozen=True)
class _RequestIdentity:
    """One repeat of a request, as the ledger tells it from others: by type, arguments as text, and repeat."""

    kind: str
    text: str
    repeat: int
    arguments: tuple[Any, ...] = field(compare=False)


@dataclass(frozen=True)
class _PlannedRequest:
    """A request in a batch of lm-eval's own path."""

    index: int
    arguments: tuple[Any, ...]
    repeat: int
    length: int  # tokens that a forward pass must hold
    n_prompt_cut: int  # tokens that its prompt is too long


@dataclass(frozen=True)
class _ModelAndLedger:
    """The model that is asked, the ledger that keeps its responses, and the shard of the requests that is computed."""

    model: LoadedModel
    ledger: Ledger
    progress: Progress | None
    shard: tuple[int, int] = (0, 1)


def respond(
    model: LoadedModel, instances: Sequence[Any], ledger: Ledger, *, progress: Progress | None = None
) -> list[list[ModelResponse]]:
    """The responses to lm-eval Instances, one list (a response for each repeat) per instance.

    Parameters
    ----------
    model
        The model.
    instances
        ``lm_eval.api.instance.Instance`` objects, of any request types; their ``resps`` are filled as lm-eval would.
    ledger
        Where responses are looked up and kept.
    progress
        Called as responses become available.

    Raises
    ------
    ModelError
        The model cannot do what is asked (log-likelihoods of a chat backend, a prompt beyond its length).
    StoreError
        The ledger cannot be written; what was answered before stays.
    """
    identities = _request_identities(instances)
    answers: dict[_RequestIdentity, Any] = {}
    for kind, requests in _requests_by_kind(identities).items():
        answers |= _ask_model(_ModelAndLedger(model, ledger, progress), kind, requests)
    return _fill_responses(instances, identities, answers)


def fill_ledger_shard(model: LoadedModel, instances: Sequence[Any], ledger: Ledger, *, shard: tuple[int, int]) -> None:
    """Compute one shard of the requests, for the ledger alone.

    Parameters
    ----------
    shard
        ``(k, n)``: the k-th (from 0) of n shards. Rows are planned from all requests, whatever the shard, so that the
        number of shards changes no response.
    model, instances, ledger
        See `respond`.

    Raises
    ------
    ModelError, StoreError
        See `respond`.
    """
    for kind, requests in _requests_by_kind(_request_identities(instances)).items():
        _ask_model(_ModelAndLedger(model, ledger, None, shard), kind, requests)


def ledger_responses(
    fingerprint: str, instances: Sequence[Any], ledger: Ledger, *, name: str, progress: Progress | None = None
) -> list[list[ModelResponse]]:
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
        Some responses are not there.
    """
    identities = _request_identities(instances)
    answers: dict[_RequestIdentity, Any] = {}
    for kind, requests in _requests_by_kind(identities).items():
        # A model that fails its proof is asked again on lm-eval's path, and that counts.
        for path in (_LM_EVAL_PATH_NAME, _TREE_PATH_NAME):
            missing = [request for request in requests if request not in answers]
            request_by_key = {request_key(fingerprint, kind, r.arguments, r.repeat, path): r for r in missing}
            answers |= {request_by_key[key]: response for key, response in ledger.get(request_by_key).items()}
        n_missing = sum(request not in answers for request in requests)
        if n_missing:
            raise StoreError(
                f"{ledger.path}: lacks {n_missing:,} of {len(requests):,} answers of {name}. "
                f"Run the evaluation to its end first, with the same models and settings."
            )
        if progress is not None:
            progress(0, len(requests))
    return _fill_responses(instances, identities, answers)


def _request_identities(instances: Sequence[Any]) -> list[list[_RequestIdentity]]:
    """The identities of each instance's repeats."""
    return [[_request_identity(instance, n) for n in range(max(1, instance.repeats or 1))] for instance in instances]


def _request_identity(instance: Any, repeat: int) -> _RequestIdentity:
    text = json.dumps(list(instance.args), sort_keys=True, default=str)
    return _RequestIdentity(instance.request_type, text, repeat, instance.args)


def _requests_by_kind(identities: Sequence[Sequence[_RequestIdentity]]) -> dict[str, list[_RequestIdentity]]:
    """Distinct requests by request type, in their order."""
    requests_by_kind: dict[str, dict[_RequestIdentity, None]] = {}
    for repeats in identities:
        requests_by_kind.setdefault(repeats[0].kind, {}).update(dict.fromkeys(repeats))
    return {kind: list(requests) for kind, requests in requests_by_kind.items()}


def _fill_responses(
    instances: Sequence[Any], identities: Sequence[Sequence[_RequestIdentity]], answers: Mapping[_RequestIdentity, Any]
) -> list[list[ModelResponse]]:
    responses = []
    for instance, repeats in zip(instances, identities, strict=True):
        repeat_responses = [_as_response(request.kind, answers[request]) for request in repeats]
        instance.resps.extend(response.value for response in repeat_responses)
        responses.append(repeat_responses)
    return responses


def _ask_model(target: _ModelAndLedger, kind: str, requests: Sequence[_RequestIdentity]) -> dict[_RequestIdentity, Any]:
    """The responses to distinct requests of one kind, by tree where the model allows it, else on lm-eval's path."""
    model = target.model
    if kind != "generate_until" and not model.can_score:
        raise ModelError(
            f"model {model.name}: this backend gives no log-likelihoods, which {kind} requests need: "
            f"{model.no_scores_reason}. Use a battery of generate tasks."
        )
    if model.tree is None:
        return _answer_on_path(target, kind, requests, _LM_EVAL_PATH_NAME)
    lm_eval_requests: list[_RequestIdentity] = []
    if kind == "generate_until":
        from capgap.models.tree_generation import generation_unsupported

        lm_eval_requests = [request for request in requests if generation_unsupported(model, request.arguments[1])]
    lm_eval_request_set = set(lm_eval_requests)
    by_tree = [request for request in requests if request not in lm_eval_request_set]
    try:
        answers = _answer_on_path(target, kind, by_tree, _TREE_PATH_NAME)
    except TreeScoreMismatch as error:
        # What the tree computed before stays in the ledger under its own path; nobody looks there for this run.
        model.drop_tree_scoring(str(error))
        answers = _answer_on_path(target, kind, by_tree, _LM_EVAL_PATH_NAME)
    return answers | _answer_on_path(target, kind, lm_eval_requests, _LM_EVAL_PATH_NAME)


def _answer_on_path(
    target: _ModelAndLedger, kind: str, requests: Sequence[_RequestIdentity], path: str
) -> dict[_RequestIdentity, Any]:
    """The responses to requests that take one path, each batch in the ledger before the next is computed."""
    model, ledger, progress = target.model, target.ledger, target.progress
    keys = [request_key(model.fingerprint, kind, r.arguments, r.repeat, path) for r in requests]
    in_ledger = ledger.get(keys)
    recorded_answers = {i: in_ledger[key] for i, key in enumerate(keys) if key in in_ledger}
    if progress is not None and recorded_answers:
        progress(0, len(recorded_answers))
    answers = {requests[i]: response for i, response in recorded_answers.items()}
    if len(recorded_answers) == len(requests):
        return answers
    for batch in _compute_answer_batches(target, kind, requests, recorded_answers, path):
        rows = [(keys[i], requests[i].repeat, response) for i, response in batch.items()]
        ledger.put(model.fingerprint, kind, rows)
        answers |= {requests[i]: response for i, response in batch.items()}
        if progress is not None:
            progress(len(rows), 0)
    return answers


def _compute_answer_batches(
    target: _ModelAndLedger,
    kind: str,
    requests: Sequence[_RequestIdentity],
    recorded_answers: Mapping[int, Any],
    path: str,
) -> Iterator[dict[int, Any]]:
    """Index → response of those requests of the shard that are not recorded, a batch at a time."""
    if kind == "generate_until":
        _check_prompt_room(target.model, requests)
    if path == _LM_EVAL_PATH_NAME:
        return _compute_by_lm_eval(target, kind, requests, recorded_answers)
    if kind == "generate_until":
        from capgap.models.tree_generation import generate_by_tree

        prompts = [(request.arguments, request.repeat) for request in requests]
        return generate_by_tree(target.model, prompts, recorded_answers, target.shard)
    from capgap.models.tree_scoring import score_by_tree

    return score_by_tree(target.model, kind, [r.arguments for r in requests], recorded_answers, target.shard)


def _compute_by_lm_eval(
    target: _ModelAndLedger, kind: str, requests: Sequence[_RequestIdentity], recorded_answers: Mapping[int, Any]
) -> Iterator[dict[int, Any]]:
    """Responses of lm-eval's own path and of other backends: what is missing of each planned batch."""
    for batch in select_shard(_plan_batches(target.model, kind, requests), target.shard):
        missing = [request for request in batch if request.index not in recorded_answers]
        if missing:
            responses = _ask_lm_eval(target.model, kind, missing)
            pairs = zip(missing, responses, strict=True)
            yield {request.index: with_prompt_cut(response, request.n_prompt_cut) for request, response in pairs}


def _plan_batches(model: LoadedModel, kind: str, requests: Sequence[_RequestIdentity]) -> list[list[_PlannedRequest]]:
    """Cut the sorted requests into batches of at most `batch_tokens` padded tokens.

    Requests of one context stay neighbours: lm-eval merges those whose answer is one token long.
    """
    lengths = _count_request_tokens(model, kind, [request.arguments for request in requests])
    planned_requests = [
        _PlannedRequest(index, request.arguments, request.repeat, length, n_prompt_cut)
        for index, (request, (length, n_prompt_cut)) in enumerate(zip(requests, lengths, strict=True))
    ]
    # A total order of the requests' content: the plan is the same whatever the order in which they came.
    planned_requests.sort(key=lambda r: (_settings_as_text(r), -r.length, tuple(map(str, r.arguments)), r.repeat))
    batches: list[list[_PlannedRequest]] = []
    longest_length = 0
    for request in planned_requests:
        longest_length = max(longest_length, request.length)
        n_requests = len(batches[-1]) if batches else model.max_batch_requests
        is_full = n_requests >= model.max_batch_requests or (n_requests + 1) * longest_length > model.batch_tokens
        if is_full or _settings_as_text(batches[-1][0]) != _settings_as_text(request):
            batches.append([])
            longest_length = request.length
        batches[-1].append(request)
    return batches


def _settings_as_text(request: _PlannedRequest) -> str:
    """Generation settings as text: requests of different settings never share a batch."""
    settings = request.arguments[1] if len(request.arguments) > 1 else None
    return repr(sorted(settings.items(), key=str)) if isinstance(settings, dict) else ""


def _count_request_tokens(model: LoadedModel, kind: str, arguments: Sequence[tuple[Any, ...]]) -> list[tuple[int, int]]:
    """Tokens that a forward pass must hold for each request, generated ones included, and those that it must lose."""
    encode = getattr(model.lm, "tok_encode", None)
    tokenizer = getattr(model.lm, "tokenizer", None)
    texts = [a[0] + a[1] if kind == "loglikelihood" else a[0] for a in arguments]
    if encode is None or tokenizer is None:
        # About four characters a token; only the batches that a foreign backend is sent depend on it.
        return [(len(text) // 4 + 1, 0) for text in texts]
    n_tokens = {text: len(encode(text)) for text in dict.fromkeys(texts)}
    max_length = int(getattr(model.lm, "max_length", _UNLIMITED_LENGTH))
    generated = [_max_tokens(model, a[1]) if kind == "generate_until" else 0 for a in arguments]
    # A prompt leaves room for what is generated; here the last token of a continuation is scored and not read.
    n_unread = 0 if hasattr(model.lm, "tokenized_requests") else 1
    rooms = [max_length - n if kind == "generate_until" else max_length + n_unread for n in generated]
    is_text_sent = getattr(model.lm, "tokenized_requests", True) is False  # a server cuts texts itself, if at all
    return [
        (min(n_tokens[text], max_length) + n, 0 if is_text_sent else max(0, n_tokens[text] - room))
        for text, n, room in zip(texts, generated, rooms, strict=True)
    ]


def _max_tokens(model: LoadedModel, settings: Mapping[str, Any]) -> int:
    return int(settings.get("max_gen_toks", getattr(model.lm, "max_gen_toks", 256)))


def _check_prompt_room(model: LoadedModel, requests: Sequence[_RequestIdentity]) -> None:
    """Refuse generation limits that leave no prompt token, which lm-eval asserts while it runs."""
    max_length = int(getattr(model.lm, "max_length", _UNLIMITED_LENGTH))
    limit = max((_max_tokens(model, request.arguments[1]) for request in requests), default=0)
    if limit >= max_length:
        raise ModelError(
            f"model {model.name}: max_tokens {limit} leaves no room for a prompt in its {max_length} tokens. "
            f"Lower max_tokens of the task."
        )


def _ask_lm_eval(model: LoadedModel, kind: str, batch: Sequence[_PlannedRequest]) -> list[Any]:
    """One batch through lm-eval; responses as JSON values in the order of the batch."""
    from lm_eval.api.instance import Instance

    instances: Any = [
        Instance(request_type=kind, doc={}, arguments=r.arguments, idx=0, metadata=(None, None, 1)) for r in batch
    ]
    if hasattr(model.lm, "batch_size_per_gpu"):
        model.lm.batch_size_per_gpu = len(batch)
    hook = _EndingCacheHook(model.lm)
    model.lm.set_cache_hook(hook)
    values = getattr(model.lm, kind)(instances, disable_tqdm=True)
    if kind == "loglikelihood":
        return [[float(value), bool(greedy)] for value, greedy in values]
    if kind == "loglikelihood_rolling":
        return [float(value) for value in values]
    return [{"text": text, **hook.find_ending(request.arguments)} for request, text in zip(batch, values, strict=True)]


class _EndingCacheHook:
    """lm-eval's cache hook: pairs each text, as it arrives, with the ending that the model has just recorded."""

    def __init__(self, lm: Any) -> None:
        self._recorded: list[Any] = getattr(lm, "endings", [])
        self._recorded.clear()
        self._n_paired = 0
        self._endings: dict[str, list[dict[str, Any]]] = {}

    def add_partial(self, kind: str, arguments: Sequence[Any], value: Any) -> None:
        """lm-eval's signature; called once a response, in the order of the batch that was generated."""
        if kind == "generate_until" and self._n_paired < len(self._recorded):
            self._endings.setdefault(_request_text(arguments), []).append(self._recorded[self._n_paired].as_dict())
            self._n_paired += 1

    def find_ending(self, arguments: Sequence[Any]) -> dict[str, Any]:
        """The ending of a request's text, for its repeats in turn; empty where the backend tells nothing."""
        remaining_endings = self._endings.get(_request_text(arguments))
        return remaining_endings.pop(0) if remaining_endings else {}


def _request_text(arguments: Sequence[Any]) -> str:
    return f"{arguments[0]}\0{sorted(arguments[1].items(), key=str)}"


def _as_response(kind: str, answer: Any) -> ModelResponse:
    if kind == "loglikelihood":
        return ModelResponse((float(answer[0]), bool(answer[1])), n_prompt_cut=answer[2] if len(answer) > 2 else None)
    if kind == "loglikelihood_rolling":
        return ModelResponse(float(answer))
    stop_reason = stop_reason_of(answer.get("stop_reason"))
    return ModelResponse(answer["text"], answer.get("n_tokens"), stop_reason, answer.get("n_prompt_cut"))
