"""From texts to token ids and labels: what a student is trained on, token by token.

A prompt and its completion are encoded as lm-eval encodes a context and its continuation, so that a student meets in
evaluation the tokens that it was trained on: the two are encoded as one text, and the completion is what follows the
tokens of the prompt alone. White space at the end of a prompt that joins the word behind it belongs to the completion.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from capgap.errors import DistillError

__all__ = ["IGNORE", "EncodedExample", "ExampleEncoder", "Message"]

IGNORE = -100
"""The label of a token that carries no loss."""

Message = dict[str, str]
"""One turn: ``role`` and ``content``."""


@dataclass(frozen=True)
class EncodedExample:
    """One example as the model sees it."""

    input_ids: tuple[int, ...]
    """Token ids of prompt, completion and end of text."""
    labels: tuple[int, ...]
    """The same ids where there is loss, else `IGNORE`; the first token never has one."""
    cut: int = 0
    """Tokens taken from the front because the whole was too long."""
    weights: tuple[float, ...] | None = None
    """How much each token that carries loss counts; None: all the same."""

    @property
    def n_loss(self) -> int:
        """Tokens that carry loss."""
        return sum(label != IGNORE for label in self.labels)


class ExampleEncoder:
    """Encodes examples for one tokenizer.

    Parameters
    ----------
    tokenizer
        A transformers tokenizer with an end-of-text token.
    max_length
        Longest example in tokens.
    chat
        Put each prompt into the tokenizer's chat template, as the evaluation of the student will.
    system_prompt
        What stands before the prompt: the system turn of the template, or text.
    template_options
        Further variables of that template (``enable_thinking``).

    Raises
    ------
    DistillError
        The tokenizer has no end-of-text token, or no chat template though `chat` asks for it.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        max_length: int,
        chat: bool = False,
        system_prompt: str | None = None,
        template_options: dict[str, Any] | None = None,
    ) -> None:
        if tokenizer.eos_token_id is None:
            raise DistillError(
                "the student's tokenizer has no end-of-text token, so a student could not learn to stop. "
                "Set eos_token in its tokenizer_config.json."
            )
        if chat and not getattr(tokenizer, "chat_template", None):
            raise DistillError(
                "chat_template=on, but the student's tokenizer has no chat template. Use chat_template=off."
            )
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.chat = chat
        self.system_prompt = system_prompt
        self.template_options = template_options or {}
        self.eos = int(tokenizer.eos_token_id)

    def pair(
        self, prompt: str, completion: str, *, answer_at: int | None = None, weights: tuple[float, float] = (1.0, 1.0)
    ) -> EncodedExample | None:
        """Ids and labels of a prompt and its completion; None where the completion alone is too long.

        Where both together are too long, the prompt is cut at its front, as lm-eval cuts contexts.

        Parameters
        ----------
        prompt, completion
            The texts.
        answer_at
            Character of the completion at which its answer begins, where what is before weighs something else.
        weights
            Of the tokens before the answer, and of the answer and the end of text.
        """
        if self.chat:
            # after a generation prompt, no space stands before what the model says
            bare = completion.lstrip(" ")
            answer_at = None if answer_at is None else max(answer_at - (len(completion) - len(bare)), 0)
            prompt, completion = self._templated(prompt), bare
        elif self.system_prompt:
            prompt = f"{self.system_prompt}{prompt}"  # as lm-eval joins them
        whole, n_prompt = self._joined(prompt, completion)
        ids = [*whole, self.eos]
        n_prompt = max(n_prompt, 1)  # a first token has nothing before it that could predict it
        encoded = self._fitted(ids, [IGNORE] * n_prompt + ids[n_prompt:])
        if encoded is None or answer_at is None:
            return encoded
        before = self._joined(prompt, completion[:answer_at])[0]
        # A token that reaches over the boundary belongs to the answer.
        same = next((n for n, (a, b) in enumerate(zip(whole, before, strict=False)) if a != b), len(before))
        reasoning = max(same - n_prompt, 0)
        each = (weights[0],) * reasoning + (weights[1],) * (encoded.n_loss - reasoning)
        return replace(encoded, weights=each)

    def _joined(self, prompt: str, completion: str) -> tuple[list[int], int]:
        """Ids of both as one text, and how many of them are the prompt's."""
        whole = self._encode(prompt + completion)
        bare = prompt.rstrip()
        for asked in (self._encode(text) for text in (prompt, bare) if text):
            if whole[: len(asked)] == asked:
                return whole, len(asked)
        if not bare:
            return whole, len(whole) - len(self._encode(completion, bare=True))
        # A token reaches over the boundary (a prompt that ends inside a word). A student that generates starts from
        # the prompt's own tokens, so it learns to.
        asked = self._encode(bare)
        return [*asked, *self._encode(prompt[len(bare) :] + completion, bare=True)], len(asked)

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
            raise DistillError(
                "messages need a chat template, and the student's tokenizer has none. Use prompt/completion."
            )
        ids, mask = self._by_prefix(turns)
        if not any(mask):
            raise DistillError("a conversation has no assistant turn, so nothing in it could be learnt.")
        ids, mask = self._ended(ids, mask)
        mask[0] = False
        return self._fitted(ids, [token if on else IGNORE for token, on in zip(ids, mask, strict=True)])

    def _ended(self, ids: list[int], mask: list[bool]) -> tuple[list[int], list[bool]]:
        """Ids and mask up to the last end of turn, which is put there where the template has none.

        What a template writes between an end of turn and the next turn (a newline, mostly) is never generated.
        """
        mask, end = list(mask), len(ids)
        closed = False
        for on, run in itertools.groupby(range(len(ids)), key=lambda index: mask[index]):
            turn = list(run)
            if on:
                stop = next((index for index in reversed(turn) if ids[index] in self._stops), None)
                closed, end = stop is not None, (turn[-1] if stop is None else stop) + 1
                mask[end : turn[-1] + 1] = [False] * (turn[-1] + 1 - end)
        return (ids[:end], mask[:end]) if closed else ([*ids[:end], self.eos], [*mask[:end], True])

    @property
    def _stops(self) -> set[int]:
        """Ids that end a turn: special tokens of the tokenizer, end of text among them."""
        return {self.eos, *self.tokenizer.all_special_ids, *self.tokenizer.added_tokens_decoder}

    def _marked(self, turns: Sequence[Message]) -> tuple[list[int], list[bool]]:
        """Ids, and which of them lie in what the template marks.

        By characters, since transformers' own mask runs on to the end where a mark ends with white space.
        """
        from transformers.utils.chat_template_utils import render_jinja_template

        texts, marks = render_jinja_template(
            conversations=[list(turns)],
            chat_template=self.tokenizer.chat_template,
            return_assistant_tokens_mask=True,
            **self.tokenizer.special_tokens_map,
            **self.template_options,
        )
        encoded = self.tokenizer(texts[0], add_special_tokens=False, return_offsets_mapping=True)
        ids = list(encoded["input_ids"])
        inside = [
            any(start < stop and begin < stop and start < end for begin, end in marks[0])
            for start, stop in encoded["offset_mapping"]
        ]
        return ids, inside

    def _by_prefix(self, turns: Sequence[Message]) -> tuple[list[int], list[bool]]:
        ids = self._template_ids(turns, ask=False)
        mask = [False] * len(ids)
        for index, turn in enumerate(turns):
            if turn["role"] != "assistant":
                continue
            before = self._template_ids(turns[:index], ask=True)
            after = self._template_ids(turns[: index + 1], ask=False)
            if ids[: len(after)] != after or after[: len(before)] != before:
                if _marks(self.tokenizer.chat_template):
                    return self._marked(turns)
                raise DistillError(
                    f"the chat template writes turn {index + 1} of a conversation another way when more follows, so "
                    "its loss cannot be found. Give a template with generation marks, or split the conversation "
                    "into examples of one assistant turn."
                )
            mask[len(before) : len(after)] = [True] * (len(after) - len(before))
        return ids, mask

    def _template_ids(self, turns: Sequence[Message], *, ask: bool) -> list[int]:
        if not turns:
            return []
        told = self.tokenizer.apply_chat_template(
            list(turns), tokenize=True, return_dict=True, add_generation_prompt=ask, **self.template_options
        )
        return list(told["input_ids"])

    def _templated(self, prompt: str) -> str:
        system = [{"role": "system", "content": self.system_prompt}] if self.system_prompt else []
        text: str = self.tokenizer.apply_chat_template(
            [*system, {"role": "user", "content": prompt}],
            tokenize=False,
            add_generation_prompt=True,
            **self.template_options,
        )
        return text

    def _encode(self, text: str, *, bare: bool = False) -> list[int]:
        """Ids of a text as lm-eval's `hf` encodes it: special tokens unless the text brings the first itself."""
        bos = self.tokenizer.bos_token
        special = not bare and not (bos and text.startswith(bos))
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=special)
        if ids and ids[-1] == self.eos and not text.endswith(self.tokenizer.eos_token) and len(ids) > 1:
            ids = ids[:-1]  # a tokenizer that ends every text would end the prompt too
        return ids

    def _fitted(self, ids: list[int], labels: list[int]) -> EncodedExample | None:
        n_loss = sum(label != IGNORE for label in labels)
        cut = max(0, len(ids) - self.max_length)
        if cut and sum(label != IGNORE for label in labels[cut + 1 :]) < n_loss:
            return None
        ids, labels = ids[cut:], labels[cut:]
        labels[0] = IGNORE
        return EncodedExample(tuple(ids), tuple(labels), cut)


def _marks(template: Any) -> bool:
    """Whether a template says itself what the assistant generates (``{% generation %}``)."""
    return isinstance(template, str) and "{%generation%}" in template.replace(" ", "").replace("-", "")
