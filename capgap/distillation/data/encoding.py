"""Token ids and loss labels of prompts, completions and conversations.

A prompt and its completion are encoded as lm-eval encodes a context and its continuation, so that a student meets in
evaluation the tokens that it was trained on: the two are encoded as one text, and the completion is what follows the
tokens of the prompt alone. White space at the end of a prompt that joins the word behind it belongs to the completion.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from capgap.errors import DistillError
from capgap.models.prompting import PromptSettings

NO_LOSS = -100
"""The label of a token that carries no loss."""

Message = dict[str, str]
"""One turn: ``role`` and ``content``."""


@dataclass(frozen=True)
class EncodedExample:
    """One example as the model sees it."""

    input_ids: tuple[int, ...]
    """Token ids of prompt, completion and end of text, shape (tokens,)."""
    labels: tuple[int, ...]
    """The same ids where there is loss, else `NO_LOSS`, shape (tokens,); the first token never has one."""
    n_truncated: int = 0
    """Tokens taken from the front because the whole was too long."""
    weights: tuple[float, ...] | None = None
    """How much each token that carries loss counts, shape (n_loss,); None: all the same."""

    @cached_property
    def loss_indices(self) -> tuple[int, ...]:
        """Indices of the tokens that carry loss, shape (n_loss,); each is predicted by the token before it."""
        return tuple(index for index, label in enumerate(self.labels) if label != NO_LOSS)

    @property
    def n_loss_tokens(self) -> int:
        """Tokens that carry loss."""
        return len(self.loss_indices)

    @property
    def n_inputs(self) -> int:
        """Tokens that a forward pass needs: up to the one before the last that carries loss."""
        return self.loss_indices[-1]

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        """The tokens before the first that carries loss."""
        return self.input_ids[: self.loss_indices[0]]


class ExampleEncoder:
    """Encodes examples for one tokenizer.

    Parameters
    ----------
    tokenizer
        A transformers tokenizer with an end-of-text token.
    max_length
        Longest example in tokens.
    prompting
        How its model is addressed in evaluation: through the tokenizer's chat template or not, and behind which system
        prompt (the system turn of the template, or text).

    Raises
    ------
    DistillError
        The tokenizer has no end-of-text token, or no chat template though `chat` asks for it.
    """

    def __init__(self, tokenizer: Any, *, max_length: int, prompting: PromptSettings | None = None) -> None:
        if tokenizer.eos_token_id is None:
            raise DistillError(
                "the student's tokenizer has no end-of-text token, so a student could not learn to stop. "
                "Set eos_token in its tokenizer_config.json."
            )
        prompting = prompting or PromptSettings()
        if prompting.chat_template and not getattr(tokenizer, "chat_template", None):
            raise DistillError("chat_template=on, but the student's tokenizer has none. Use chat_template=off.")
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.prompting = prompting
        enable_thinking = prompting.enable_thinking
        self.template_options = {} if enable_thinking is None else {"enable_thinking": enable_thinking}
        self.eos_id = int(tokenizer.eos_token_id)

    def pair(
        self,
        prompt: str,
        completion: str,
        *,
        answer_offset: int | None = None,
        weights: tuple[float, float] = (1.0, 1.0),
    ) -> EncodedExample | None:
        """Ids and labels of a prompt and its completion; None where the completion alone is too long.

        Where both together are too long, the prompt is cut at its front, as lm-eval cuts contexts.

        Parameters
        ----------
        prompt, completion
            The texts.
        answer_offset
            Character of the completion at which its answer begins, where what is before weighs something else.
        weights
            Of the tokens before the answer, and of the answer and the end of text.
        """
        if self.prompting.chat_template:
            # after a generation prompt, no space stands before what the model says
            stripped = completion.lstrip(" ")
            answer_offset = None if answer_offset is None else max(answer_offset - (len(completion) - len(stripped)), 0)
            prompt, completion = self._apply_template(prompt), stripped
        elif self.prompting.system_prompt:
            prompt = f"{self.prompting.system_prompt}{prompt}"  # as lm-eval joins them
        joint_ids, n_prompt = self._encode_concatenation(prompt, completion)
        ids = [*joint_ids, self.eos_id]
        n_prompt = max(n_prompt, 1)  # a first token has nothing before it that could predict it
        encoded = self._cut_to_length(ids, [NO_LOSS] * n_prompt + ids[n_prompt:])
        if encoded is None or answer_offset is None:
            return encoded
        without_answer = self._encode_concatenation(prompt, completion[:answer_offset])[0]
        # A token that reaches over the boundary belongs to the answer, so only the tokens that both encodings share
        # are reasoning.
        n_shared = next(
            (n for n, (token, other) in enumerate(zip(joint_ids, without_answer, strict=False)) if token != other),
            len(without_answer),
        )
        n_reasoning_ids = max(n_shared - n_prompt, 0)
        token_weights = (weights[0],) * n_reasoning_ids + (weights[1],) * (encoded.n_loss_tokens - n_reasoning_ids)
        return replace(encoded, weights=token_weights)

    def _encode_concatenation(self, prompt: str, completion: str) -> tuple[list[int], int]:
        """Ids of both as one text, and how many of them are the prompt's."""
        joint_ids = self._encode(prompt + completion)
        stripped = prompt.rstrip()
        for prompt_ids in (self._encode(text) for text in (prompt, stripped) if text):
            if joint_ids[: len(prompt_ids)] == prompt_ids:
                return joint_ids, len(prompt_ids)
        if not stripped:
            return joint_ids, len(joint_ids) - len(self._encode(completion, special_tokens=False))
        # A token reaches over the boundary (a prompt that ends inside a word). A student that generates starts from
        # the prompt's own tokens, so it learns to.
        prompt_ids = self._encode(stripped)
        return [*prompt_ids, *self._encode(prompt[len(stripped) :] + completion, special_tokens=False)], len(prompt_ids)

    def messages(self, turns: Sequence[Message]) -> EncodedExample | None:
        """Ids and labels of a conversation; loss on what the assistant says, and on its end of turn.

        The mask comes from encoding the conversation up to each assistant turn; where the template rewrites earlier
        turns, from its own generation marks, if it has them. None where what carries loss is too long.

        Raises
        ------
        DistillError
            There is no template, or it rewrites earlier turns when later ones follow and marks nothing.
        """
        if not getattr(self.tokenizer, "chat_template", None):
            raise DistillError("messages need a chat template, and the tokenizer has none. Use prompt/completion.")
        ids, mask = self._mask_by_prefixes(turns)
        if not any(mask):
            raise DistillError("a conversation has no assistant turn, so nothing in it could be learnt.")
        ids, mask = self._up_to_last_stop(ids, mask)
        mask[0] = False
        return self._cut_to_length(ids, [token if learnt else NO_LOSS for token, learnt in zip(ids, mask, strict=True)])

    def _up_to_last_stop(self, ids: list[int], mask: list[bool]) -> tuple[list[int], list[bool]]:
        """Ids and loss mask up to the last end of turn, which is put there where the template has none.

        What a template writes between an end of turn and the next turn (a newline, mostly) is never generated.
        """
        mask, end = list(mask), len(ids)
        has_end_of_turn = False
        # Runs of tokens of equal mask: each run that carries loss is an assistant turn, and the last one decides.
        for run_has_loss, run in itertools.groupby(range(len(ids)), key=lambda index: mask[index]):
            turn = list(run)
            if run_has_loss:
                stop = next((index for index in reversed(turn) if ids[index] in self._stop_ids), None)
                has_end_of_turn, end = stop is not None, (turn[-1] if stop is None else stop) + 1
                mask[end : turn[-1] + 1] = [False] * (turn[-1] + 1 - end)
        return (ids[:end], mask[:end]) if has_end_of_turn else ([*ids[:end], self.eos_id], [*mask[:end], True])

    @property
    def _stop_ids(self) -> set[int]:
        """Ids that end a turn: special tokens of the tokenizer, end of text among them."""
        return {self.eos_id, *self.tokenizer.all_special_ids, *self.tokenizer.added_tokens_decoder}

    def _mask_by_marks(self, turns: Sequence[Message]) -> tuple[list[int], list[bool]]:
        """Ids, and which of them lie in what the template marks as generated.

        By characters, since transformers' own mask runs on to the end where a mark ends with white space.
        """
        from transformers.utils.chat_template_utils import render_jinja_template

        texts, generation_spans = render_jinja_template(
            conversations=[list(turns)],
            chat_template=self.tokenizer.chat_template,
            return_assistant_tokens_mask=True,
            **self.tokenizer.special_tokens_map,
            **self.template_options,
        )
        encoded = self.tokenizer(texts[0], add_special_tokens=False, return_offsets_mapping=True)
        ids = list(encoded["input_ids"])
        generated_mask = [
            any(start < stop and begin < stop and start < end for begin, end in generation_spans[0])
            for start, stop in encoded["offset_mapping"]
        ]
        return ids, generated_mask

    def _mask_by_prefixes(self, turns: Sequence[Message]) -> tuple[list[int], list[bool]]:
        """Ids, and which of them each assistant turn adds to the conversation before it."""
        ids = self._template_ids(turns, expects_reply=False)
        mask = [False] * len(ids)
        for index, turn in enumerate(turns):
            if turn["role"] != "assistant":
                continue
            ids_before_turn = self._template_ids(turns[:index], expects_reply=True)
            ids_with_turn = self._template_ids(turns[: index + 1], expects_reply=False)
            if ids[: len(ids_with_turn)] != ids_with_turn or ids_with_turn[: len(ids_before_turn)] != ids_before_turn:
                if _has_generation_marks(self.tokenizer.chat_template):
                    return self._mask_by_marks(turns)
                raise DistillError(
                    f"the chat template writes turn {index + 1} of a conversation another way when more follows, so "
                    "its loss cannot be found. Give a template with generation marks, or split the conversation "
                    "into examples of one assistant turn."
                )
            mask[len(ids_before_turn) : len(ids_with_turn)] = [True] * (len(ids_with_turn) - len(ids_before_turn))
        return ids, mask

    def _template_ids(self, turns: Sequence[Message], *, expects_reply: bool) -> list[int]:
        if not turns:
            return []
        template_encoding = self.tokenizer.apply_chat_template(
            list(turns), tokenize=True, return_dict=True, add_generation_prompt=expects_reply, **self.template_options
        )
        return list(template_encoding["input_ids"])

    def _apply_template(self, prompt: str) -> str:
        system = [{"role": "system", "content": system_text}] if (system_text := self.prompting.system_prompt) else []
        text: str = self.tokenizer.apply_chat_template(
            [*system, {"role": "user", "content": prompt}],
            tokenize=False,
            add_generation_prompt=True,
            **self.template_options,
        )
        return text

    def _encode(self, text: str, *, special_tokens: bool = True) -> list[int]:
        """Ids of a text as lm-eval's `hf` encodes it: special tokens unless the text brings the first itself."""
        bos = self.tokenizer.bos_token
        special_tokens = special_tokens and not (bos and text.startswith(bos))
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=special_tokens)
        if ids and ids[-1] == self.eos_id and not text.endswith(self.tokenizer.eos_token) and len(ids) > 1:
            ids = ids[:-1]  # a tokenizer that ends every text would end the prompt too
        return ids

    def _cut_to_length(self, ids: list[int], labels: list[int]) -> EncodedExample | None:
        """The example cut at its front to the longest length; None where a token that carries loss would go."""
        n_excess_tokens = max(0, len(ids) - self.max_length)
        # the first token that stays loses its label too: nothing before it could predict it
        if n_excess_tokens and any(label != NO_LOSS for label in labels[: n_excess_tokens + 1]):
            return None
        return EncodedExample(tuple(ids[n_excess_tokens:]), (NO_LOSS, *labels[n_excess_tokens + 1 :]), n_excess_tokens)


def _has_generation_marks(template: Any) -> bool:
    """Whether a template says itself what the assistant generates (``{% generation %}``)."""
    return isinstance(template, str) and "{%generation%}" in template.replace(" ", "").replace("-", "")
