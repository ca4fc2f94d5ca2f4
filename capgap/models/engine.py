"""vLLM in this process: lm-eval returns its texts alone, and a text that was cut off must not pass for a wrong one."""

from dataclasses import asdict, dataclass
from typing import Any

from lm_eval.api.model import LM

__all__ = ["Engine", "Ended"]


@dataclass(frozen=True)
class Ended:
    """How one text ended, as far as its engine or server tells."""

    n_tokens: int | None
    """Tokens generated."""
    stop_reason: str | None
    """``eos``, ``stop`` or ``length``."""

    def as_dict(self) -> dict[str, Any]:
        """What is known of it."""
        return {key: value for key, value in asdict(self).items() if value is not None}


class Engine(LM):  # type: ignore[misc]
    """A mixin before lm-eval's class for vLLM; endings stand in the order in which its cache hook is told the texts."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.endings: list[Ended] = []
        super().__init__(*args, **kwargs)

    def _model_generate(self, requests: Any, generate: bool = False, **settings: Any) -> Any:
        outputs = super()._model_generate(requests=requests, generate=generate, **settings)
        if generate:
            for output in outputs:
                text = output.outputs[0]
                ended = {"length": "length", "stop": "stop" if isinstance(text.stop_reason, str) else "eos"}
                self.endings.append(Ended(len(text.token_ids), ended.get(str(text.finish_reason))))
        return outputs
