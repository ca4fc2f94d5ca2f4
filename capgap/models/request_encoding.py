"""Tokenisation of lm-eval's requests as lm-eval does it, but each text once and many at a time."""

from collections.abc import Iterable, Sequence
from typing import Any

from lm_eval import utils as lm_eval_utils
from lm_eval.models.utils import has_bos_prefix

from capgap.errors import ModelError
from capgap.models.prefix_tree import ScoredContinuation


def encode_requests(lm: Any, kind: str, arguments: Sequence[tuple[Any, ...]]) -> list[tuple[ScoredContinuation, ...]]:
    """The continuations to be scored for each request, as token ids.

    Parameters
    ----------
    lm
        lm-eval's Hugging Face model.
    kind
        ``loglikelihood`` or ``loglikelihood_rolling``.
    arguments
        Of each request: ``(context, continuation)``, or ``(text,)``.

    Returns
    -------
    list of tuple
        One for a continuation; for a text as many as it has windows.

    Raises
    ------
    ModelError
        A continuation has no token, or more than the model can read.
    """
    if kind == "loglikelihood_rolling":
        encoded = encode_texts(lm, (text for (text,) in arguments))
        return [tuple(_split_rolling_windows(lm, encoded[text])) for (text,) in arguments]
    pairs = [_moved_spaces(str(context), str(continuation)) for context, continuation in arguments]
    texts = (text for context, continuation in pairs if context for text in (context, context + continuation))
    encoded = encode_texts(lm, texts)
    contextless_texts = {continuation for context, continuation in pairs if not context}
    encoded_contextless = {text: lm.tok_encode(text, add_special_tokens=False) for text in contextless_texts}
    scored: list[tuple[ScoredContinuation, ...]] = []
    for context, continuation in pairs:
        if context:
            context_ids = encoded[context]
            target = encoded[context + continuation][len(context_ids) :]
        else:
            # lm-eval puts the prefix token before a bare continuation, unless it starts with it
            context_ids, target = [lm.prefix_token_id], encoded_contextless[continuation]
            target = target[1:] if target[:1] == context_ids else target
        scored.append((_scored_continuation(lm, context_ids, target, continuation),))
    return scored


def encode_texts(lm: Any, texts: Iterable[str], bos: str | None = None) -> dict[str, list[int]]:
    """Token ids of each distinct text, many at a time.

    Parameters
    ----------
    lm
        lm-eval's Hugging Face model.
    texts
        What to encode.
    bos
        Text of the beginning-of-text token, which is not put before a text that starts with it; default: that of
        ``lm.tok_encode``.
    """
    distinct = list(dict.fromkeys(texts))
    bos = lm.tokenizer.decode(lm.prefix_token_id) if bos is None else bos
    default = {} if lm.add_bos_token is None else {"add_special_tokens": lm.add_bos_token}
    encoded: dict[str, list[int]] = {}
    for has_bos, settings in ((False, default), (True, {"add_special_tokens": False})):
        batch = [text for text in distinct if (bool(bos) and has_bos_prefix(text, bos)) == has_bos]
        if batch:
            encoded |= zip(batch, lm.tokenizer(batch, **settings)["input_ids"], strict=True)
    return encoded


def _moved_spaces(context: str, continuation: str) -> tuple[str, str]:
    """The pair with white space at the end of the context moved to the continuation, where tokenizers attach it."""
    stripped = context.rstrip()
    return stripped, context[len(stripped) :] + continuation


def _scored_continuation(lm: Any, context_ids: Sequence[int], target: Sequence[int], text: str) -> ScoredContinuation:
    if not target:
        raise ModelError(f"the answer {text[:60]!r} adds no token of its own to its prompt, so it cannot be scored.")
    if len(target) > lm.max_length:
        raise ModelError(
            f"an answer of {len(target):,} tokens ({text[:60]!r} …) is longer than the model reads ({lm.max_length:,})."
        )
    return ScoredContinuation.of(context_ids, target, lm.max_length)


def _split_rolling_windows(lm: Any, tokens: list[int]) -> Iterable[ScoredContinuation]:
    token_windows = lm_eval_utils.get_rolling_token_windows(
        token_list=tokens, prefix_token=lm.prefix_token_id, max_seq_len=lm.max_length, context_len=1
    )
    for window in token_windows:
        context_ids, target = lm_eval_utils.make_disjoint_window(window)
        yield _scored_continuation(lm, context_ids, target, "")
