"""Generation requests through the token tree: shared prefixes are read once, every text ends where lm-eval ends it.

Requests of one setting are sorted by length, the longest first, and generated in batches. An answer goes to the ledger
as soon as it is complete. Before the first ones count, lm-eval's own path scores what was generated: each token must
have had the probability that the decoder saw.
"""

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text

from capgap.models.generation_ending import with_prompt_cut
from capgap.models.loaded_model import LoadedModel, TreeScoreMismatch
from capgap.models.out_of_memory import halve_batch_size, is_out_of_memory
from capgap.models.prefix_tree import Continuation, TokenChooser, TreeDecoder, TreeScorer, disagreement
from capgap.models.request_encoding import encode_texts
from capgap.models.sharding import select_shard

_MAX_LINES = 64  # prompts that are generated behind at a time
_MIN_COMMON_PREFIX = 32  # tokens; caching a shorter prefix is not worth a pass
_SUPPORTED_SETTINGS = {"do_sample", "temperature", "top_k", "top_p", "min_p", "until", "max_gen_toks"}
_NEUTRAL_SETTINGS: tuple[tuple[Any, tuple[str, ...]], ...] = (
    (1, ("num_beams", "repetition_penalty", "encoder_repetition_penalty", "guidance_scale")),
    (0, ("no_repeat_ngram_size", "min_length", "min_new_tokens", "penalty_alpha")),
    ([], ("suppress_tokens", "begin_suppress_tokens")),
    (None, ("bad_words_ids", "forced_bos_token_id", "forced_eos_token_id", "sequence_bias")),
    (None, ("exponential_decay_length_penalty", "watermarking_config")),
)
"""Fields of a model's generation_config that change greedy decoding, by neutral value; None is neutral too."""


@dataclass(frozen=True)
class _GenerationSettings:
    """Generation settings of a request, as lm-eval reads them."""

    until: tuple[str, ...]
    limit: int
    sampling: tuple[tuple[str, float], ...]  # temperature, top_k …; none where decoding is greedy


def generation_unsupported(model: LoadedModel, settings: Mapping[str, Any]) -> str | None:
    """Why a request must be generated on lm-eval's own path; None where it need not."""
    if model.tree is None:
        return "the model"
    unexpected = sorted(set(settings) - _SUPPORTED_SETTINGS - {"max_new_tokens", "max_tokens", "max_completion_tokens"})
    if unexpected:
        return f"the setting {unexpected[0]}"
    generation_config = getattr(model.lm.model, "generation_config", None)
    for neutral_value, names in _NEUTRAL_SETTINGS:
        for name in names:
            if getattr(generation_config, name, None) not in (None, neutral_value):
                return f"{name} in its generation_config"
    return None


def generate_by_tree(
    model: LoadedModel,
    requests: Sequence[tuple[tuple[Any, ...], int]],
    recorded_answers: Mapping[int, Any],
    shard: tuple[int, int] = (0, 1),
) -> Iterator[dict[int, Any]]:
    """Responses to generation requests, as they become complete.

    Parameters
    ----------
    model
        With a `tree`.
    requests
        ``((prompt, settings), repeat)`` of every request of the task.
    recorded_answers
        Index → response, of those that the ledger has.
    shard
        ``(k, n)``: only the k-th of n shards of the batches.

    Yields
    ------
    dict
        Index → ``{text, n_tokens, stop_reason}``.

    Raises
    ------
    TreeDisagreement
        lm-eval's own path gives what was generated another probability.
    ModelError
        The memory does not hold a single line.
    """
    assert model.tree is not None
    requests_by_settings: dict[_GenerationSettings, list[int]] = {}
    for i, ((_, settings), _) in enumerate(requests):
        requests_by_settings.setdefault(_to_generation_settings(model.lm, settings), []).append(i)
    for settings, members in sorted(requests_by_settings.items(), key=lambda group: repr(group[0])):
        texts = [str(requests[i][0][0]) for i in members]
        encoded_prompts, cuts = _encode_prompts(model, texts, settings.limit)
        prompts, n_cut = dict(zip(members, encoded_prompts, strict=True)), dict(zip(members, cuts, strict=True))
        group = _RequestGroup(model, model.tree, settings, prompts, {i: requests[i][1] for i in members})
        for responses in group.responses(set(recorded_answers), shard):
            yield {i: with_prompt_cut(response, n_cut[i]) for i, response in responses.items()}


@dataclass(frozen=True)
class _RequestGroup:
    """Generation requests of one setting."""

    model: LoadedModel
    tree: TreeScorer
    settings: _GenerationSettings
    prompts: Mapping[int, tuple[int, ...]]
    """Index of a request → its prompt's token ids."""
    repeats: Mapping[int, int]
    """Index of a request → its repeat."""

    def responses(self, answered_indices: set[int], shard: tuple[int, int]) -> Iterator[dict[int, Any]]:
        """The responses of a shard that are not `answered_indices`; with half as many lines whenever memory ends."""
        order = sorted(self.prompts, key=lambda i: (-len(self.prompts[i]), self.prompts[i], self.repeats[i]))
        common_prefix = _common_prefix(list(self.prompts.values()))
        n_lines = _MAX_LINES
        while True:
            decoder = TreeDecoder(self.tree.model, self.tree.attention, self.tree.row_tokens)
            try:
                for batch in select_shard(self._plan_batches(order, n_lines), shard):
                    missing = [i for i in batch if i not in answered_indices]
                    if not missing:
                        continue
                    for responses in self._decode_batch(decoder, missing, common_prefix):
                        answered_indices.update(responses)
                        yield responses
                return
            except RuntimeError as error:  # torch's errors of memory are of this kind
                if not is_out_of_memory(error):
                    raise
                n_lines = halve_batch_size(self.model, n_lines, error, "lines", min_size=1)

    def _plan_batches(self, order: Sequence[int], n_lines: int) -> list[list[int]]:
        """Batches of at most so many lines and of eight rows' tokens, prompts and answers together."""
        batches: list[list[int]] = []
        longest_length = 0
        for i in order:
            padded_tokens = (len(batches[-1]) + 1) * longest_length if batches else 0
            if not batches or len(batches[-1]) >= n_lines or padded_tokens > 8 * self.model.batch_tokens:
                batches.append([])
                longest_length = len(self.prompts[i]) + self.settings.limit  # the first of a batch is its longest
            batches[-1].append(i)
        return batches

    def _decode_batch(self, decoder: TreeDecoder, batch: Sequence[int], common_prefix: int) -> Iterator[dict[int, Any]]:
        """A batch's responses; all at once where they are to be proven first."""
        lm, settings = self.model.lm, self.settings
        prompts = [self.prompts[i] for i in batch]
        choose_tokens: TokenChooser = _greedy
        if settings.sampling:
            choose_tokens = _TokenSampler(settings.sampling, [(self.prompts[i], self.repeats[i]) for i in batch])
        coverage = self.tree.proven
        is_already_proven = len(prompts[0]) <= coverage.longest_prompt
        steps = decoder.generate(
            prompts,
            settings.limit,
            choose_tokens,
            _StopCriteria(lm, settings.until).is_stop_reached,
            common_prefix=common_prefix,
            scored=not is_already_proven,
        )
        if is_already_proven:
            for step in steps:
                yield {batch[n]: _make_response(lm, settings, continuation.tokens) for n, continuation in step.items()}
            return
        try:
            continuations = {n: continuation for step in steps for n, continuation in step.items()}
        except Exception as error:  # whatever a model's own code raises at masks that it does not expect
            if is_out_of_memory(error):
                raise
            raise TreeScoreMismatch(f"it cannot write by lines ({type(error).__name__}: {str(error)[:120]})") from error
        if self._prove_generation(prompts, continuations) > 1:
            coverage.longest_prompt = len(prompts[0])
        yield {batch[n]: _make_response(lm, settings, continuation.tokens) for n, continuation in continuations.items()}

    def _prove_generation(self, prompts: Sequence[Sequence[int]], continuations: Mapping[int, Continuation]) -> int:
        """Score on lm-eval's own path what was generated behind the longest and the shortest prompt, and the longest.

        Returns
        -------
        int
            Tokens of the longest answer compared; a single one says nothing about the steps behind it.
        """
        lm = self.model.lm
        started = time.monotonic()
        longest_answer = max(continuations, key=lambda n: (len(continuations[n].tokens), -n))
        for n in sorted({0, len(prompts) - 1, longest_answer}):
            tokens = continuations[n].tokens
            ((reference, _),) = lm.plain([(None, list(prompts[n]), tokens)], override_bs=1)
            complaint = disagreement(continuations[n].logprob, reference, len(tokens), lm.model.dtype, self.tree.proven)
            if complaint is not None:
                raise TreeScoreMismatch(f"in writing, {complaint}")
        seconds = self.model.seconds
        seconds["proof"] = seconds.get("proof", 0.0) + time.monotonic() - started
        return len(continuations[longest_answer].tokens)


def _to_generation_settings(lm: Any, settings: Mapping[str, Any]) -> _GenerationSettings:
    kwargs = normalize_gen_kwargs(dict(settings), lm.max_gen_toks)
    until = handle_stop_sequences(kwargs.get("until"), eos=lm.tok_decode(lm.eot_token_id, skip_special_tokens=False))
    sampling: dict[str, float] = {}
    if kwargs.get("do_sample") and float(kwargs.get("temperature") or 0.0) > 0:
        names = ("temperature", "top_k", "top_p", "min_p")
        sampling = {name: float(kwargs[name]) for name in names if kwargs.get(name) is not None}
    return _GenerationSettings(tuple(until), int(kwargs["max_gen_toks"]), tuple(sorted(sampling.items())))


def _encode_prompts(model: LoadedModel, texts: Sequence[str], limit: int) -> tuple[list[tuple[int, ...]], list[int]]:
    """Token ids of prompts as lm-eval encodes a batch of one, and how many of its first tokens each loses."""
    lm = model.lm
    max_tokens = lm.max_length - limit
    # lm-eval looks through a batch of prompts for another beginning token than through a single text
    encoded = encode_texts(lm, texts, getattr(lm.tokenizer, "bos_token", None) or "")
    n_cut_prompts = sum(len(tokens) > max_tokens for tokens in encoded.values())
    if n_cut_prompts:
        model.notes.append(
            f"{model.name}: {n_cut_prompts:,} prompts are longer than its {lm.max_length:,} tokens leave room for "
            f"(max_tokens {limit}); they lost their beginning."
        )
    prompts = [tuple(encoded[text][-max_tokens:]) or (lm.prefix_token_id,) for text in texts]
    return prompts, [max(0, len(encoded[text]) - max_tokens) for text in texts]


def _common_prefix(prompts: Sequence[tuple[int, ...]]) -> int:
    """Tokens that all prompts begin with; 0 where they are too few to be cached."""
    low, high = min(prompts), max(prompts)  # what these two share, all that lie between them share
    max_prefix_length = min(min(map(len, prompts)) - 1, len(low), len(high))
    n_shared = next((n for n in range(max_prefix_length) if low[n] != high[n]), max_prefix_length)
    return n_shared if n_shared >= _MIN_COMMON_PREFIX and len(prompts) > 1 else 0


def _greedy(logits: torch.Tensor, prompts: Sequence[int]) -> torch.Tensor:
    return logits.argmax(-1)


class _TokenSampler:
    """Draws tokens; what is drawn for a prompt depends on the prompt and the repeat, not on its neighbours."""

    def __init__(self, settings: Sequence[tuple[str, float]], prompts: Sequence[tuple[tuple[int, ...], int]]) -> None:
        from transformers.generation import logits_process

        values = dict(settings)
        warpers: list[Any] = [logits_process.TemperatureLogitsWarper(values["temperature"])]
        if values.get("top_k"):
            warpers.append(logits_process.TopKLogitsWarper(int(values["top_k"])))
        if values.get("top_p", 1.0) < 1.0:
            warpers.append(logits_process.TopPLogitsWarper(values["top_p"]))
        if values.get("min_p"):
            warpers.append(logits_process.MinPLogitsWarper(values["min_p"]))
        self._warp = logits_process.LogitsProcessorList(warpers)
        self._generators = [torch.Generator().manual_seed(_sampling_seed(prompt, repeat)) for prompt, repeat in prompts]

    def __call__(self, logits: torch.Tensor, prompts: Sequence[int]) -> torch.Tensor:
        """Tokens, shape (lines,), from logits, shape (lines, vocabulary), and the prompts of the lines."""
        probabilities = torch.softmax(self._warp(None, logits.float()), dim=-1).cpu()
        drawn_tokens = [
            torch.multinomial(row, 1, generator=self._generators[prompt])
            for row, prompt in zip(probabilities, prompts, strict=True)
        ]
        return torch.cat(drawn_tokens).to(logits.device)


def _sampling_seed(prompt: Sequence[int], repeat: int) -> int:
    return int.from_bytes(hashlib.blake2b(repr((tuple(prompt), repeat)).encode(), digest_size=7).digest(), "big")


class _StopCriteria:
    """End of an answer: an end token, or a stop string in the text of its last tokens, as lm-eval looks for it.

    A model whose thoughts end at a text of its own is not stopped by what it thinks; lm-eval would stop it there.
    """

    def __init__(self, lm: Any, until: Sequence[str]) -> None:
        self._tokenizer = lm.tokenizer
        self._stop_strings = [string for string in until if string]
        self._end_ids = lm.end_ids()
        # lm-eval looks back two tokens further than the stop string's own tokenisation.
        lengths = [len(lm.tokenizer.encode(string, add_special_tokens=False)) for string in self._stop_strings]
        self._lookback = max(lengths, default=0) + 2
        self._think_end = lm.think_end_token

    def is_stop_reached(self, tokens: Sequence[int]) -> bool:
        """Whether the last token ends the answer."""
        if tokens[-1] in self._end_ids:
            return True
        stop_search_tokens: Sequence[int] | None = tokens[-self._lookback :]
        if self._think_end is not None:
            stop_search_tokens = _tokens_after_thinking(tokens, self._think_end)
        if stop_search_tokens is None:
            return False
        text = self._tokenizer.decode(list(stop_search_tokens))
        if isinstance(self._think_end, str):
            _, separator, text = text.rpartition(self._think_end)
            if not separator:
                return False
        return any(string in text for string in self._stop_strings)


def _tokens_after_thinking(tokens: Sequence[int], think_end: int | str) -> Sequence[int] | None:
    """The tokens after the last one that ends a thought, None where none does; all of them where a text ends it."""
    if isinstance(think_end, str):
        return tokens
    return tokens[len(tokens) - tokens[::-1].index(think_end) :] if think_end in tokens else None


def _make_response(lm: Any, settings: _GenerationSettings, tokens: list[int]) -> dict[str, Any]:
    """The text as lm-eval cuts it out, and how it ended."""
    generation_end = lm.find_ending(tokens, settings.limit, list(settings.until))
    think_end = lm.think_end_token
    answer = None if think_end is None else _tokens_after_thinking(tokens, think_end)
    text = lm.tok_decode(tokens if answer is None else list(answer))
    if isinstance(think_end, int):
        text = text.lstrip()
    think_end_text = think_end if isinstance(think_end, str) else None
    return {"text": postprocess_generated_text(text, list(settings.until), think_end_text), **generation_end.as_dict()}
