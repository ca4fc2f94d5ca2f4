"""lm-eval's Hugging Face model, with two things that it lacks.

It scores continuations as a token tree (`capgap.models.prefix_tree`), where the model allows it. And it tells how each
generation ended: lm-eval returns the text alone, and a response that was cut off at its token limit must not pass for
a wrong one.
"""

from typing import Any

import torch
from lm_eval.models.huggingface import HFLM

from capgap.models.generation_ending import GenerationEnding
from capgap.models.prefix_tree import Answer, ScoredContinuation, TreeScorer

__all__ = ["TreeHFLM"]

_Scored = tuple[Any, list[int], list[int]]
"""lm-eval's request: its texts or None, the context's tokens, the continuation's tokens."""


class TreeHFLM(HFLM):  # type: ignore[misc]
    """`HFLM` that scores continuations as a token tree and keeps the ending of every generation.

    Endings stand in the order in which its cache hook is told the texts.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.endings: list[GenerationEnding] = []
        self.tree: TreeScorer | None = None
        """Scores log-likelihoods; None: lm-eval's own path."""
        super().__init__(*args, **kwargs)

    def _loglikelihood_tokens(
        self, requests: list[_Scored], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[Answer]:
        """Log-likelihood in nats of each continuation, and whether it is the greedy one."""
        if self.tree is None or not requests:
            return self.plain(requests, disable_tqdm, override_bs)
        pieces = [ScoredContinuation.of(before, after, self.max_length) for _, before, after in requests]
        answers: dict[int, Answer] = {}
        for some in self.tree.answers(pieces, self.tree.plan(pieces), range(len(pieces))):
            answers |= some
        for n, (texts, _, _) in enumerate(requests):
            if texts is not None:
                self.cache_hook.add_partial("loglikelihood", texts, answers[n])
        return [answers[n] for n in range(len(requests))]

    def plain(self, requests: list[_Scored], disable_tqdm: bool = True, override_bs: int | None = None) -> list[Answer]:
        """The same on lm-eval's own path."""
        answers: list[Answer] = super()._loglikelihood_tokens(requests, disable_tqdm, override_bs)
        return answers

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
            self.endings.append(self.ending(row, max_length - start, stop))
        return output

    def ending(self, tokens: list[int], limit: int, stop: list[str]) -> GenerationEnding:
        """How an answer ended, from its tokens, its limit and its stop strings."""
        ends = self.end_ids()
        at_end = next((i for i, token in enumerate(tokens) if token in ends), None)
        kept = tokens if at_end is None else tokens[:at_end]
        text = self.tok_decode(kept)
        cuts = [text.find(word) for word in stop if word and word in text]
        if cuts:
            before = self.tokenizer.encode(text[: min(cuts)], add_special_tokens=False)
            return GenerationEnding(min(len(before) + 1, len(kept)), "stop")
        if at_end is not None:
            return GenerationEnding(at_end + 1, "eos")
        # generate() stops a batch when its last row is done, so a shorter row without an end was cut by its neighbours'
        return GenerationEnding(len(kept), "length" if len(tokens) >= limit else "stop")

    def end_ids(self) -> set[int]:
        """Tokens that end a generation: the tokenizer's and those of the model's generation_config."""
        configured = getattr(self.model, "generation_config", None)
        ends = getattr(configured, "eos_token_id", None)
        known = set(ends) if isinstance(ends, (list, tuple)) else {ends}
        return {int(token) for token in (*known, self.eot_token_id) if token is not None}
