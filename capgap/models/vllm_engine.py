"""vLLM in this process: lm-eval returns its texts alone, and a text that was cut off must not pass for a wrong one."""

from typing import Any

from lm_eval.api.model import LM

from capgap.models.generation_ending import GenerationEnding

__all__ = ["VllmEngine"]


class VllmEngine(LM):  # type: ignore[misc]
    """A mixin before lm-eval's class for vLLM; endings stand in the order in which its cache hook is told the texts."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.endings: list[GenerationEnding] = []
        super().__init__(*args, **kwargs)

    def _model_generate(self, requests: Any, generate: bool = False, **settings: Any) -> Any:
        outputs = super()._model_generate(requests=requests, generate=generate, **settings)
        if generate:
            for output in outputs:
                text = output.outputs[0]
                ended = {"length": "length", "stop": "stop" if isinstance(text.stop_reason, str) else "eos"}
                self.endings.append(GenerationEnding(len(text.token_ids), ended.get(str(text.finish_reason))))
        return outputs
