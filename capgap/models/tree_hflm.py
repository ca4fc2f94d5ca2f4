"""`TreeHFLM`: lm-eval's Hugging Face model with prefix-tree scoring and the ending of every generation.

Continuations are scored as a token tree (`capgap.models.prefix_tree`) where the model allows it. Endings are recorded
because lm-eval returns the text alone, and a response that was cut off at its token limit must not pass for
a wrong one.
"""

from typing import Any

import torch
from lm_eval.models.huggingface import HFLM

from capgap.models.generation_ending import GenerationEnding
from capgap.models.prefix_tree import LogLikelihood, ScoredContinuation, TreeScorer

_TokenisedRequest = tuple[Any, list[int], list[int]]
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
        self, requests: list[_TokenisedRequest], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[LogLikelihood]:
        """Log-likelihood in nats of each continuation, and whether it is the greedy one."""
        if self.tree is None or not requests:
            return self.plain(requests, disable_tqdm, override_bs)
        continuations = [ScoredContinuation.of(context, target, self.max_length) for _, context, target in requests]
        score_by_index: dict[int, LogLikelihood] = {}
        plan = self.tree.plan(continuations)
        for scored in self.tree.log_likelihoods(continuations, plan, range(len(continuations))):
            score_by_index |= scored
        for n, (texts, _, _) in enumerate(requests):
            if texts is not None:
                self.cache_hook.add_partial("loglikelihood", texts, score_by_index[n])
        return [score_by_index[n] for n in range(len(requests))]

    def plain(
        self, requests: list[_TokenisedRequest], disable_tqdm: bool = True, override_bs: int | None = None
    ) -> list[LogLikelihood]:
        """The same on lm-eval's own path."""
        scored: list[LogLikelihood] = super()._loglikelihood_tokens(requests, disable_tqdm, override_bs)
        return scored

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
            self.endings.append(self.find_ending(row, max_length - start, stop))
        return output

    def find_ending(self, tokens: list[int], limit: int, stop: list[str]) -> GenerationEnding:
        """How an answer ended, from its tokens, its limit and its stop strings."""
        end_token_ids = self.end_ids()
        n_before_eos = next((i for i, token in enumerate(tokens) if token in end_token_ids), len(tokens))
        text = self.tok_decode(tokens[:n_before_eos])
        stop_positions = [text.find(string) for string in stop if string and string in text]
        if stop_positions:
            tokens_before_stop = self.tokenizer.encode(text[: min(stop_positions)], add_special_tokens=False)
            return GenerationEnding(min(len(tokens_before_stop) + 1, n_before_eos), "stop")
        if n_before_eos < len(tokens):
            return GenerationEnding(n_before_eos + 1, "eos")
        # generate() stops a batch when its last row is done, so a shorter row without an end was cut by its neighbours'
        return GenerationEnding(n_before_eos, "length" if len(tokens) >= limit else "stop")

    def end_ids(self) -> set[int]:
        """Tokens that end a generation: the tokenizer's and those of the model's generation_config."""
        generation_config = getattr(self.model, "generation_config", None)
        end_token_ids = getattr(generation_config, "eos_token_id", None)
        end_token_ids = end_token_ids if isinstance(end_token_ids, (list, tuple)) else [end_token_ids]
        return {int(token) for token in (*end_token_ids, self.eot_token_id) if token is not None}
