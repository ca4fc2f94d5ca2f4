"""Ending of a generated text, which lm-eval does not return: a text that was cut off must not pass for a wrong one."""

from dataclasses import asdict, dataclass
from typing import Any


def with_prompt_cut(answer: Any, n_prompt_cut: int) -> Any:
    """A generation or a log-likelihood as the ledger holds it, with the number of prompt tokens that were lost."""
    if not n_prompt_cut or isinstance(answer, float):  # a rolling log-likelihood has no prompt
        return answer
    return {**answer, "n_prompt_cut": n_prompt_cut} if isinstance(answer, dict) else [*answer, n_prompt_cut]


@dataclass(frozen=True)
class GenerationEnding:
    """Token count and stop reason of one generation, as far as the backend tells."""

    n_tokens: int | None
    """Tokens generated up to the end, the end token or stop string included."""
    stop_reason: str | None
    """``eos``, ``stop`` (a stop string) or ``length`` (the limit came first), as the ledger holds them; a `Response`
    has `capgap.schema.STOP_REASONS`."""

    def as_dict(self) -> dict[str, Any]:
        """The known fields by name, as a response in the ledger holds them."""
        return {key: value for key, value in asdict(self).items() if value is not None}
