"""lm-eval's Hugging Face model, with two things that it lacks.

It tells how each generation ended: lm-eval returns the text alone, and a response that was cut off at its token limit
must not pass for a wrong one. And it projects to the vocabulary only where a continuation is scored: lm-eval does so at
every position, which for a vocabulary of 262,144 words is most of the work.
"""

import inspect
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM

__all__ = ["Ending", "Harness"]

_Scored = tuple[Any, list[int], list[int]]
"""lm-eval's request: its texts or None, the context's tokens, the continuation's tokens."""


@dataclass(frozen=True)
class Ending:
    """How one generation ended."""

    n_tokens: int
    """Tokens generated up to the end, the end token or stop string included."""
    stop_reason: str
    """``eos``, ``stop`` (a stop string) or ``length`` (the limit came first)."""

    def as_dict(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


class Harness(HFLM):  # type: ignore[misc]
    """`HFLM` that keeps the ending of every generation, in the order in which its cache hook is told the texts."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.endings: list[Ending] = []
        super().__init__(*args, **kwargs)
        inner = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        self._keeps_logits = "logits_to_keep" in inspect.signature(inner.forward).parameters

    def _loglikelihood_tokens(
        self, requests: list[_Scored], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        """Log-probability in nats of each continuation, and whether it is the greedy one; as lm-eval's, in one batch.

        Requests whose input is the same (answers of one token behind one context) share a row. Models whose forward
        pass has no ``logits_to_keep`` take lm-eval's own way.
        """
        if not self._keeps_logits or self.backend != "causal" or not requests:
            scored: list[tuple[float, bool]] = super()._loglikelihood_tokens(requests, disable_tqdm, override_bs)
            return scored
        inputs = [
            tuple((context + continuation)[-(self.max_length + 1) :][:-1]) for _, context, continuation in requests
        ]
        row = {tokens: n for n, tokens in enumerate(dict.fromkeys(inputs))}
        places = [range(len(i) - len(c), len(i)) for i, (_, _, c) in zip(inputs, requests, strict=True)]
        kept = sorted({place for own in places for place in own})
        column = {place: n for n, place in enumerate(kept)}
        logits = self._logits_at(list(row), kept)
        answers = []
        for (texts, _, continuation), tokens, own in zip(requests, inputs, places, strict=True):
            at = torch.tensor([column[place] for place in own], device=logits.device)
            logprobs = torch.log_softmax(logits[row[tokens], at], dim=-1, dtype=self.softmax_dtype)
            wanted = torch.tensor(continuation, device=logits.device)
            value = float(logprobs.gather(1, wanted[:, None]).sum())
            answer = (value, bool((logprobs.argmax(-1) == wanted).all()))
            if texts is not None:
                self.cache_hook.add_partial("loglikelihood", texts, answer)
            answers.append(answer)
        return answers

    def _logits_at(self, inputs: Sequence[tuple[int, ...]], places: list[int]) -> torch.Tensor:
        """Logits of padded rows at the positions asked for, shape (rows, positions, vocabulary)."""
        batch = torch.zeros(len(inputs), max(map(len, inputs)), dtype=torch.long)
        for n, tokens in enumerate(inputs):
            batch[n, : len(tokens)] = torch.tensor(tokens)  # padded on the right, where causal attention never looks
        autocast = torch.autocast(
            self.device.type, dtype=self.mixed_precision_dtype, enabled=self.mixed_precision_dtype is not None
        )
        with torch.no_grad(), autocast:
            keep = torch.tensor(places, device=self.device)
            logits: torch.Tensor = self.model(batch.to(self.device), logits_to_keep=keep, use_cache=False).logits
        return logits

    def _model_generate(
        self, context: torch.Tensor, max_length: int, stop: list[str], **generation_kwargs: Any
    ) -> torch.Tensor:
        """Generate as lm-eval does, then read off where each row ended.

        Parameters
        ----------
        context
            Token ids, shape (batch, context length), padded on the left.
        max_length
            Context length plus the tokens that may be generated.
        stop
            Stop strings; lm-eval has put the text of the end token among them.
        generation_kwargs
            What else lm-eval passes to ``model.generate``.

        Returns
        -------
        torch.Tensor
            Token ids, shape (batch, at most `max_length`).
        """
        output: torch.Tensor = super()._model_generate(context, max_length, stop, **generation_kwargs)
        start = context.shape[1]
        for row in output[:, start:].tolist():
            self.endings.append(self._ending(row, max_length - start, stop))
        return output

    def _ending(self, tokens: list[int], limit: int, stop: list[str]) -> Ending:
        ends = self._end_ids()
        at_end = next((i for i, token in enumerate(tokens) if token in ends), None)
        kept = tokens if at_end is None else tokens[:at_end]
        text = self.tok_decode(kept)
        cuts = [text.find(word) for word in stop if word and word in text]
        if cuts:
            before = self.tokenizer.encode(text[: min(cuts)], add_special_tokens=False)
            return Ending(min(len(before) + 1, len(kept)), "stop")
        if at_end is not None:
            return Ending(at_end + 1, "eos")
        # generate() stops a batch when its last row is done, so a shorter row without an end was cut by its neighbours'
        return Ending(len(kept), "length" if len(tokens) >= limit else "stop")

    def _end_ids(self) -> set[int]:
        configured = getattr(self.model, "generation_config", None)
        ends = getattr(configured, "eos_token_id", None)
        known = set(ends) if isinstance(ends, (list, tuple)) else {ends}
        return {int(token) for token in (*known, self.eot_token_id) if token is not None}
