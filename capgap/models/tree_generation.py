"""Generation requests: what prompts share is read once, and every text ends where lm-eval ends it.

Requests of one setting are sorted by length, the longest first, and written in batches. An answer goes to the ledger
as soon as it is whole. Before the first ones count, lm-eval's own path scores what was written: each token must have
had the probability that the decoder saw.
"""

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text

from capgap.models.loaded_model import LoadedModel, TreeDisagreement
from capgap.models.out_of_memory import halve_batch_size, is_out_of_memory
from capgap.models.prefix_tree import Continuation, TreeDecoder, disagreement
from capgap.models.request_encoding import encode_texts
from capgap.models.sharding import shard_of

__all__ = ["generate_by_tree", "generation_unsupported"]

_LINES = 64  # prompts written on at a time, at most
_KEPT = 32  # tokens that all prompts share, or keeping them is not worth a pass
_UNDERSTOOD = {"do_sample", "temperature", "top_k", "top_p", "min_p", "until", "max_gen_toks"}
# Fields of a model's generation_config that change what greedy decoding writes, and their neutral values.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "num_beams": (None, 1),
    "repetition_penalty": (None, 1.0),
    "encoder_repetition_penalty": (None, 1.0),
    "no_repeat_ngram_size": (None, 0),
    "min_length": (None, 0),
    "min_new_tokens": (None, 0),
    "bad_words_ids": (None,),
    "suppress_tokens": (None, []),
    "begin_suppress_tokens": (None, []),
    "forced_bos_token_id": (None,),
    "forced_eos_token_id": (None,),
    "sequence_bias": (None,),
    "guidance_scale": (None, 1.0),
    "exponential_decay_length_penalty": (None,),
    "penalty_alpha": (None, 0.0),
    "watermarking_config": (None,),
}


@dataclass(frozen=True)
class _GenerationSettings:
    """How a request is to be written, as lm-eval reads it."""

    until: tuple[str, ...]
    limit: int
    sampled: tuple[tuple[str, float], ...]  # temperature, top_k …; none where decoding is greedy


def generation_unsupported(model: LoadedModel, settings: Mapping[str, Any]) -> str | None:
    """Why a request must be written on lm-eval's own path; None where it need not."""
    if model.tree is None:
        return "the model"
    strange = sorted(set(settings) - _UNDERSTOOD - {"max_new_tokens", "max_tokens", "max_completion_tokens"})
    if strange:
        return f"the setting {strange[0]}"
    configured = getattr(model.lm.model, "generation_config", None)
    for name, neutral in _NEUTRAL.items():
        if getattr(configured, name, None) not in neutral:
            return f"{name} in its generation_config"
    return None


def generate_by_tree(
    model: LoadedModel,
    requests: Sequence[tuple[tuple[Any, ...], int]],
    found: Mapping[int, Any],
    part: tuple[int, int] = (0, 1),
) -> Iterator[dict[int, Any]]:
    """Answers to generation requests, as they become whole.

    Parameters
    ----------
    model
        With a `tree`.
    requests
        ``((prompt, settings), repeat)`` of every request of the task.
    found
        Indices of those that the ledger has.
    part
        ``(k, n)``: only the k-th of n parts of the batches.

    Yields
    ------
    dict
        Index → ``{text, n_tokens, stop_reason}``.

    Raises
    ------
    Unproven
        lm-eval's own path gives what was written another probability.
    ModelError
        The memory does not hold a single line.
    """
    groups: dict[_GenerationSettings, list[int]] = {}
    for i, ((_, settings), _) in enumerate(requests):
        groups.setdefault(_settings(model.lm, settings), []).append(i)
    for settings, members in sorted(groups.items(), key=lambda group: repr(group[0])):
        texts = [str(requests[i][0][0]) for i in members]
        prompts = dict(zip(members, _encoded(model, texts, settings.limit), strict=True))
        yield from _group(model, settings, prompts, {i: requests[i][1] for i in members}, set(found), part)


def _group(
    model: LoadedModel,
    settings: _GenerationSettings,
    prompts: Mapping[int, tuple[int, ...]],
    repeats: Mapping[int, int],
    found: set[int],
    part: tuple[int, int],
) -> Iterator[dict[int, Any]]:
    order = sorted(prompts, key=lambda i: (-len(prompts[i]), prompts[i], repeats[i]))
    beginning = _shared(list(prompts.values()))
    done = set(found)
    lines = _LINES
    while True:
        decoder = _decoder(model)
        batches = _batches(order, prompts, settings.limit, lines, 8 * model.batch_tokens)
        try:
            for batch in shard_of(batches, part):
                missing = [i for i in batch if i not in done]
                if not missing:
                    continue
                for answers in _written(model, decoder, settings, missing, prompts, repeats, beginning):
                    done.update(answers)
                    yield answers
            return
        except RuntimeError as error:  # torch's errors of memory are of this kind
            if not is_out_of_memory(error):
                raise
            lines = halve_batch_size(model, lines, error, "lines", smallest=1)


def _written(
    model: LoadedModel,
    decoder: TreeDecoder,
    settings: _GenerationSettings,
    batch: Sequence[int],
    prompts: Mapping[int, tuple[int, ...]],
    repeats: Mapping[int, int],
    beginning: int,
) -> Iterator[dict[int, Any]]:
    """A batch's answers; all at once where they are to be proven first."""
    ends = _StopCriteria(model.lm, settings.until)
    own = [prompts[i] for i in batch]
    choose = (
        _greedy
        if not settings.sampled
        else _TokenSampler(settings.sampled, [(p, repeats[i]) for p, i in zip(own, batch, strict=True)])
    )
    assert model.tree is not None
    proven = model.tree.proven
    covered = len(own[0]) <= proven.longest_prompt
    steps = decoder.write(own, settings.limit, choose, ends.reached, beginning=beginning, scored=not covered)
    if covered:
        for step in steps:
            yield {batch[n]: _answer(model, settings, written.tokens) for n, written in step.items()}
        return
    try:
        whole = {n: written for step in steps for n, written in step.items()}
    except Exception as error:  # whatever a model's own code raises at masks that it does not expect
        if is_out_of_memory(error):
            raise
        raise TreeDisagreement(f"it cannot write by lines ({type(error).__name__}: {str(error)[:120]})") from error
    if _prove(model, own, whole) > 1:
        proven.longest_prompt = len(own[0])
    yield {batch[n]: _answer(model, settings, written.tokens) for n, written in whole.items()}


def _prove(model: LoadedModel, prompts: Sequence[Sequence[int]], whole: Mapping[int, Continuation]) -> int:
    """Score what was written on lm-eval's own path: behind the longest and the shortest prompt, and the longest answer.

    Returns
    -------
    int
        Tokens of the longest answer compared; a single one says nothing about the steps behind it.
    """
    assert model.tree is not None
    started = time.monotonic()
    longest = max(whole, key=lambda n: (len(whole[n].tokens), -n))
    for n in sorted({0, len(prompts) - 1, longest}):
        written = whole[n]
        ((plain, _),) = model.lm.plain([(None, list(prompts[n]), written.tokens)], override_bs=1)
        complaint = disagreement(written.logprob, plain, len(written.tokens), model.lm.model.dtype, model.tree.proven)
        if complaint is not None:
            raise TreeDisagreement(f"in writing, {complaint}")
    model.seconds["proof"] = model.seconds.get("proof", 0.0) + time.monotonic() - started
    return len(whole[longest].tokens)


def _decoder(model: LoadedModel) -> TreeDecoder:
    tree = model.tree
    assert tree is not None
    return TreeDecoder(tree.model, tree.attention, tree.row_tokens)


def _settings(lm: Any, given: Mapping[str, Any]) -> _GenerationSettings:
    known = normalize_gen_kwargs(dict(given), lm.max_gen_toks)
    until = handle_stop_sequences(known.get("until"), eos=lm.tok_decode(lm.eot_token_id, skip_special_tokens=False))
    sampled: dict[str, float] = {}
    if known.get("do_sample") and float(known.get("temperature") or 0.0) > 0:
        sampled = {k: float(known[k]) for k in ("temperature", "top_k", "top_p", "min_p") if known.get(k) is not None}
    return _GenerationSettings(tuple(until), int(known["max_gen_toks"]), tuple(sorted(sampled.items())))


def _encoded(model: LoadedModel, texts: Sequence[str], limit: int) -> list[tuple[int, ...]]:
    """Token ids of prompts as lm-eval encodes a batch of one; too long ones lose their beginning, which is told."""
    lm = model.lm
    room = lm.max_length - limit
    # a batch of prompts is looked through for another beginning than a single text
    encoded = encode_texts(lm, texts, getattr(lm.tokenizer, "bos_token", None) or "")
    cut = sum(len(tokens) > room for tokens in encoded.values())
    if cut:
        model.notes.append(
            f"{model.name}: {cut:,} prompts are longer than its {lm.max_length:,} tokens leave room for "
            f"(max_tokens {limit}); they lost their beginning."
        )
    return [tuple(encoded[text][-room:]) or (lm.prefix_token_id,) for text in texts]


def _shared(prompts: Sequence[tuple[int, ...]]) -> int:
    """Tokens that all prompts begin with; 0 where they are too few to be kept."""
    low, high = min(prompts), max(prompts)
    most = min(min(map(len, prompts)) - 1, len(low), len(high))
    same = next((n for n in range(most) if low[n] != high[n]), most)
    return same if same >= _KEPT and len(prompts) > 1 else 0


def _batches(
    order: Sequence[int], prompts: Mapping[int, tuple[int, ...]], limit: int, lines: int, tokens: int
) -> list[list[int]]:
    """At most so many lines and tokens in each batch, prompts and answers together."""
    batches: list[list[int]] = []
    longest = 0
    for i in order:
        if not batches or len(batches[-1]) >= lines or (len(batches[-1]) + 1) * longest > tokens:
            batches.append([])
            longest = len(prompts[i]) + limit  # the first of a batch is its longest
        batches[-1].append(i)
    return batches


def _greedy(logits: torch.Tensor, owners: Sequence[int]) -> torch.Tensor:
    return logits.argmax(-1)


class _TokenSampler:
    """Draws tokens; what is drawn for a prompt depends on the prompt and the repeat, not on its neighbours."""

    def __init__(self, settings: Sequence[tuple[str, float]], prompts: Sequence[tuple[tuple[int, ...], int]]) -> None:
        from transformers.generation.logits_process import (
            LogitsProcessorList,
            MinPLogitsWarper,
            TemperatureLogitsWarper,
            TopKLogitsWarper,
            TopPLogitsWarper,
        )

        given = dict(settings)
        steps: list[Any] = [TemperatureLogitsWarper(given["temperature"])]
        if given.get("top_k"):
            steps.append(TopKLogitsWarper(int(given["top_k"])))
        if given.get("top_p", 1.0) < 1.0:
            steps.append(TopPLogitsWarper(given["top_p"]))
        if given.get("min_p"):
            steps.append(MinPLogitsWarper(given["min_p"]))
        self._steps = LogitsProcessorList(steps)
        self._draws = [torch.Generator().manual_seed(_seed(prompt, repeat)) for prompt, repeat in prompts]

    def __call__(self, logits: torch.Tensor, owners: Sequence[int]) -> torch.Tensor:
        chances = torch.softmax(self._steps(None, logits.float()), dim=-1).cpu()
        drawn = [
            torch.multinomial(row, 1, generator=self._draws[owner]) for row, owner in zip(chances, owners, strict=True)
        ]
        return torch.cat(drawn).to(logits.device)


def _seed(prompt: Sequence[int], repeat: int) -> int:
    return int.from_bytes(hashlib.blake2b(repr((tuple(prompt), repeat)).encode(), digest_size=7).digest(), "big")


class _StopCriteria:
    """Where an answer ends: an end token, or a stop string in the text of its last tokens, as lm-eval looks for it.

    A model whose thoughts end at a text of its own is not stopped by what it thinks; lm-eval would stop it there.
    """

    def __init__(self, lm: Any, until: Sequence[str]) -> None:
        self._tokenizer = lm.tokenizer
        self._until = [word for word in until if word]
        self._ends = lm.end_ids()
        # lm-eval looks back two tokens further than the stop string's own tokenisation.
        lengths = [len(lm.tokenizer.encode(word, add_special_tokens=False)) for word in self._until]
        self._back = max(lengths, default=0) + 2
        self._think_end = lm.think_end_token

    def reached(self, tokens: Sequence[int]) -> bool:
        """Whether the last token ends the answer."""
        if tokens[-1] in self._ends:
            return True
        if self._think_end is None:
            back: Sequence[int] | None = tokens[-self._back :]
        else:
            back = _behind_thoughts(tokens, self._think_end)
        if back is None:
            return False
        text = self._tokenizer.decode(list(back))
        if isinstance(self._think_end, str):
            _, found, text = text.rpartition(self._think_end)
            if not found:
                return False
        return any(word in text for word in self._until)


def _behind_thoughts(tokens: Sequence[int], think_end: int | str) -> Sequence[int] | None:
    """What follows the last token that ends a thought, None where none does; all of it where a text ends it."""
    if isinstance(think_end, str):
        return tokens
    return tokens[len(tokens) - tokens[::-1].index(think_end) :] if think_end in tokens else None


def _answer(model: LoadedModel, settings: _GenerationSettings, tokens: list[int]) -> dict[str, Any]:
    """The text as lm-eval cuts it out, and how it ended."""
    lm = model.lm
    ending = lm.ending(tokens, settings.limit, list(settings.until))
    think_end = lm.think_end_token
    behind = None if think_end is None else _behind_thoughts(tokens, think_end)
    text = lm.tok_decode(tokens if behind is None else list(behind))
    if isinstance(think_end, int):
        text = text.lstrip()
    named = think_end if isinstance(think_end, str) else None
    return {"text": postprocess_generated_text(text, list(settings.until), named), **ending.as_dict()}
