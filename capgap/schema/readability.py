"""How an answer ended and whether it can be read: the words of `stop_reason`, and the answers that say nothing."""

import pandas as pd

__all__ = ["STOP_REASONS", "is_cut_off", "is_unreadable", "stop_reason_of", "without_old_words"]

STOP_REASONS = ("end", "limit", "stop_string")
"""The model ended its text, its limit of tokens came first, or a stop string did."""
_STOP_WORDS = {
    **{word: word for word in STOP_REASONS},
    **dict.fromkeys(("eos", "eos_token", "end_turn", "stop_token"), "end"),
    **dict.fromkeys(("stop", "stop_sequence"), "stop_string"),
    **dict.fromkeys(("length", "max_tokens", "model_length", "max_length"), "limit"),
}
"""Word of a backend, a server or another tool → ours."""


def stop_reason_of(word: object) -> str | None:
    """The stop reason that a backend's, a server's or another tool's word means; None where it is none of them."""
    return _STOP_WORDS.get(str(word))


def is_cut_off(outcomes: pd.DataFrame) -> "pd.Series[bool]":
    """Which answers met their limit of tokens before they were right at all: a longer limit may mend them."""
    met_limit = (outcomes["stop_reason"] == "limit").fillna(False).astype(bool)
    return met_limit & (outcomes["score"] == 0)


def is_unreadable(outcomes: pd.DataFrame) -> "pd.Series[bool]":
    """Which answers were cut off, or hold nothing that the score can read."""
    return is_cut_off(outcomes) | (outcomes["status"] == "unparsed").fillna(False).astype(bool)


def without_old_words(outcomes: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """An outcomes table in today's words, and how many rows had the status ``truncated`` that there once was.

    Such an answer becomes ``unparsed`` where nothing was read from it, else ``scored``; it met its limit.
    """
    n_truncated = 0
    if "stop_reason" in outcomes.columns and (words := outcomes["stop_reason"].dropna().unique()).size:
        new_words = {word: _STOP_WORDS[word] for word in words if isinstance(word, str) and word in _STOP_WORDS}
        if any(word != new_word for word, new_word in new_words.items()):
            outcomes = outcomes.assign(stop_reason=outcomes["stop_reason"].replace(new_words))
    if "status" in outcomes.columns:
        is_truncated = (outcomes["status"] == "truncated").fillna(False).to_numpy(dtype=bool)
        n_truncated = int(is_truncated.sum())
        if n_truncated:
            columns = {
                name: outcomes.get(name, pd.Series(None, outcomes.index)) for name in ("prediction", "stop_reason")
            }
            read_status = columns["prediction"].notna().map({True: "scored", False: "unparsed"})
            outcomes = outcomes.assign(
                status=outcomes["status"].mask(is_truncated, read_status),
                stop_reason=columns["stop_reason"].astype(object).mask(is_truncated, "limit"),
            )
    return outcomes, n_truncated
